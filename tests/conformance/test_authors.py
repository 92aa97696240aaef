"""Is a rule right? The checks of `rb.testing` catch wrong rules that learn, and pass right ones."""

import inspect
import re

import numpy as np
import pytest
from array_api_compat import array_namespace

import ref_bioplaus as rb
from ref_bioplaus.backends import BackendError, get
from ref_bioplaus.conformance.authors.declared import TESTS
from ref_bioplaus.network import forward
from ref_bioplaus.registry import ROWS
from ref_bioplaus.registry.readme import docstring
from ref_bioplaus.registry.rows import DECLARATIONS
from ref_bioplaus.tree import leaves, named_leaves
from ref_bioplaus.types import Algorithm, Pathway
from tests.helpers import ROOT, rules, slow
from tests.helpers.commands import command, printed

WRONG = (*rules.NAMED, *rules.OWN)
RATES = {"sum": 0.01, "mean_twice": 4.0}  # for the fixed task
LOSS = rb.losses.cross_entropy()


def judged(rule, check="*", network="equal", oracle=rules.oracle, declares=rules.DECLARES, **options):
    """{check: outcome} of some checks of a rule on NumPy."""
    result = rb.testing.check_algorithm(
        rule, network, oracle, declares=declares, backends=("numpy",), checks=check, on_fail=None, **options
    )
    return {outcome.check: outcome for outcome in result.outcomes}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda w: w.rule.__name__)
def test_a_wrong_rule_is_caught_by_a_named_check_that_the_right_one_passes(wrong):
    """By what it computes, and by no exception."""
    found, right = (judged(rule, wrong.check, wrong.network)[wrong.check] for rule in (wrong.rule, rules.right))
    assert right.state == "pass" and right.networks == (wrong.network,)
    assert found.state == "fail" and "raises" not in found.sentence
    assert wrong.words in found.sentence
    if wrong.oracle:
        assert judged(wrong.rule, "the oracle's step")["the oracle's step"].state == "fail"


def learnt(rule):
    """Loss at the start and after 60 steps on a fixed task, and whether shapes stayed and all numbers were finite."""
    network = rb.chain((9,), (rb.dense(8), rb.bias, rb.tanh), (rb.dense(8), rb.bias, rb.tanh), (rb.dense(4), rb.bias),
                       dtype="float64")  # fmt: skip
    rng, backend = np.random.default_rng(0), get("numpy", dtype="float64")
    x = rng.standard_normal((40, 9))
    batch = backend.batch(x, np.eye(4)[np.argmax(x @ rng.standard_normal((9, 4)), axis=1)])
    algorithm = rule(network, LOSS, rb.optimizers.sgd(RATES.get(rule.__name__, 0.2)))
    state = first = algorithm.init(backend.key(0))
    first = {name: a.shape for name, a in named_leaves(first)}
    values = []
    for _ in range(60):
        state, info = algorithm.modes["learn"](state, batch)
        values.append(float(np.mean(info.loss)))
    same = first == {name: a.shape for name, a in named_leaves(state)}
    return values[0], values[-1], same and all(np.all(np.isfinite(a)) for a in leaves(state))


def test_most_wrong_rules_learn_all_the_same():
    """Shapes stay, every number is finite and the loss falls: nothing but a check tells."""
    assert len(rules.NAMED) == 5 and len(rules.OWN) >= 15
    for wrong in WRONG:
        if wrong.learns:
            before, after, sound = learnt(wrong.rule)
            assert sound and after < 0.9 * before, wrong.rule.__name__
    assert sum(wrong.learns for wrong in rules.OWN) >= 10


def declared(rule, word, network="equal"):
    """The outcome of one declaration."""
    (check,) = [name for name in judged(rule, network=network, declares=(word,), oracle=None) if word in name] or [
        STILL
    ]
    return judged(rule, check, network, declares=(word,), oracle=None)[check]


STILL = "no error, no update"  # where "moves without an error" is asked


@pytest.mark.parametrize(
    ("word", "of", "words"),
    [
        ("B stays", "kolen-pollack", "changes feedback.params/2/W by up to"),
        ("B has W's layout", "dfa", "B of layer 2 has shape None"),
        ("keeps no feedback weights", "feedback-alignment", "the state holds feedback/params/2/W"),
        ("B moves as W does", "feedback-alignment", "B of layer 2"),
        ("hidden errors do not read W above them", "usf", "another W of layer"),
        ("equals BP when B = W", "dense-fa", "backpropagation by"),
        ("linear in the error", "sdtp", "-1.5 times by f"),
        ("the same for two losses", "tp", "another loss of the same gradient"),
        ("needs no global error", "feedback-alignment", "other targets"),
        ("B learns without targets", "kolen-pollack", "every mode moves the forward weights"),
        ("moves without an error", "feedback-alignment", "does not move"),
    ],
)
def test_what_is_not_true_of_a_rule_is_refused_when_declared(word, of, words):
    row = row_of(of)
    assert word not in row.declares
    found = declared(row._replace(declares=()), word)
    assert found.state == "fail" and words in found.sentence


def hebbian(network, loss, optimizer):
    """Below the output layer every layer learns from its own activity alone."""
    right = rules.right(network, loss, optimizer)

    def learn(state, batch):
        trace, _ = forward(network, state.forward.params, state.stats, batch.x)
        local = [network[l].linear.correlate(trace.x[l], trace.h[l]) / batch.x.shape[0] for l in range(1, network.L)]
        _, info = right.modes["learn"](state, batch)
        grads = tuple(
            g if l in (0, network.L) else g._replace(W=local[l - 1], local=rules.scaled(g.local, 0.0))
            for l, g in enumerate(info.grads)
        )  # fmt: skip
        params, memory = optimizer.update(grads, state.forward.memory, state.forward.params, network.kernels)
        return state._replace(t=state.t + 1, forward=Pathway(params, memory)), info._replace(grads=grads)

    return Algorithm(right.init, {"learn": learn})


def test_every_declaration_is_tested_and_true_of_some_rule():
    assert {*TESTS, "moves without an error"} == {*DECLARATIONS}
    of_rows = {word for row in ROWS for word in row.declares}
    assert of_rows == {*DECLARATIONS} - {"needs no global error"}
    assert declared(hebbian, "needs no global error").state == "pass"
    found = judged(hebbian, STILL, declares=(), oracle=None)[STILL]
    assert found.state == "fail" and "W of layer 1" in found.sentence
    assert judged(hebbian, STILL, declares=("moves without an error",), oracle=None)[STILL].state == "pass"


STATED = {  # by the words of the algorithms' docstrings
    "B stays": "never changes|random and fixed|None of it changes",
    "B has W's layout": "is B_[l0],? in the layout of W_l",
    "keeps no feedback weights": "State: nothing in the feedback path|the other rules keep none",
    "B moves as W does": "one optimizer drives both pathways",
}


@pytest.mark.parametrize("word", STATED)
def test_what_docstrings_state_is_declared(word):
    """And so it is checked, of every row."""
    words = {row.module: " ".join(docstring(row.module).split()) for row in ROWS}
    stated = {module for module, text in words.items() if re.search(STATED[word], text)}
    assert stated == {row.module for row in ROWS if word in row.declares}


def row_of(name):
    (row,) = [row for row in ROWS if row.name == name]
    return row


@pytest.mark.parametrize(
    ("name", "network"),
    [("feedback-alignment", ("dense", "residual")), ("weight-mirror", "equal"), ("tp", "equal"), ("xiao", "conv")]
    + [slow(row.name, None, reason="every rule on every network") for row in ROWS],
)  # fmt: skip
def test_rows_of_the_registry_pass(name, network):
    row = row_of(name)
    result = rb.testing.check_algorithm(row, network, backends=("numpy",))
    assert result.passed and {outcome.state for outcome in result.outcomes} == {"pass", "measured"}
    asked = {outcome.check for outcome in result.outcomes}
    assert {f'declared: "{word}"' for word in row.declares if word in TESTS} <= asked


@pytest.mark.slow(reason="every library compiles on every network")
@pytest.mark.parametrize("name", ["feedback-alignment", "dtp-alternating", "brsf"])
def test_rows_pass_by_every_library(name):
    result = rb.testing.check_algorithm(row_of(name), oracle=rules.oracle if name == "feedback-alignment" else None)
    assert result.passed


def test_the_readmes_oracle_is_feedback_alignments():
    text = (ROOT / "README.md").read_text()
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", text, re.S) if "def oracle" in c]
    scope = {}
    exec(code, scope)
    _, found = judged(rules.right, "the oracle's step", ("dense", "equal"), scope["oracle"]).values()
    assert found.state == "pass" and found.networks == ("dense", "equal")
    assert max(len(code.splitlines()), len(inspect.getsource(rules.oracle).splitlines())) < 40
    assert re.findall(r"(\d+) wrong ones of the tests", text) == [str(len(WRONG))]


def kolen_pollack(given):
    """Feedback alignment whose B takes W's gradient."""
    found = dict(rules.oracle(given))
    del found["B"]
    return found | {"dB": {l: found["dW"][l] for l in given.B}}


def weight_mirror(given):
    """Engaged mode is feedback alignment; in mirror mode B moves towards the layer's response to noise."""
    if given.mode != "mirror":  # not "mirror_2" either, which is layer 2's turn
        return rules.oracle(given) if given.mode == "engaged" else {}
    N, B = len(given.x), {}
    for l in given.B:
        y = given.random[f"mirror/{l}"]
        response = y @ given.W[l].T + given.b[l]
        response = np.tanh(response) if l < given.L else response
        B[l] = 0.9 * given.B[l] + 0.1 * response.T @ y / N
    return {"W": given.W, "b": given.b, "B": B}


def test_oracles_of_learned_feedback_and_of_drawn_numbers():
    step = "the oracle's step"
    for name, right, wrong in (
        (
            "kolen-pollack",
            kolen_pollack,
            lambda given: kolen_pollack(given) | {"dB": {l: 0 * B for l, B in given.B.items()}},
        ),
        (
            "weight-mirror",
            weight_mirror,
            lambda given: weight_mirror(given._replace(b={l: 0 * b for l, b in given.b.items()})),
        ),
    ):
        assert judged(row_of(name), step, oracle=right, declares=())[step].state == "pass"
        found = judged(row_of(name), step, oracle=wrong, declares=())[step]
        assert found.state == "fail" and "layer" in found.sentence and "by the oracle" in found.sentence


def test_a_rule_that_uses_nothing_of_ours_is_judged_too():
    """Its own passes, feedback weights by layer in a dict, and nothing in Info but the loss."""
    declares = [word for word in rules.DECLARES if "W" not in word or "read" in word]
    result = rb.testing.check_algorithm(
        rules.by_hand, None, rules.oracle, declares=declares, backends=("numpy", "array-api-strict")
    )
    assert {outcome.networks for outcome in result.outcomes} == {("dense", "equal")}
    assert "residual, which the rule refuses (expected dense layers of tanh)" in result.not_judged


# What is given, and what comes back


def test_one_exception_tells_of_every_failure():
    wrong = rules.NAMED[2].rule
    with pytest.raises(AssertionError) as raised:
        rb.testing.check_algorithm(wrong, "equal", rules.oracle, declares=rules.DECLARES, quick=True)
    failed = raised.value.result.failures
    assert {o.check for o in failed} == {'declared: "equals BP when B = W"', "the oracle's step"}
    for outcome in failed:
        assert str(outcome) in str(raised.value)
    text = str(raised.value.result)
    assert text.splitlines()[-1].startswith("Not judged: ") and re.search(
        r"\na_sign: FAIL, \d+ checks pass, 2 fail\n", text
    )


def test_a_network_of_ones_own_and_a_rule_that_refuses_another():
    def picky(network, loss, optimizer):
        if len(network) > 3:
            raise ValueError("expected two layers of synapses")
        return rules.right(network, loss, optimizer)

    own = rb.chain((5,), (rb.dense(6), rb.bias, rb.tanh), (rb.dense(3), rb.bias))
    result = rb.testing.check_algorithm(picky, ["dense", own], rules.oracle, backends=("numpy",))
    assert {o.networks for o in result.outcomes} == {("network 1",)}
    assert "network dense, which the rule refuses (expected two layers of synapses)" in result.not_judged
    with pytest.raises(AssertionError, match="it takes none of the networks"):
        rb.testing.check_algorithm(picky, "equal", quick=True)


def test_a_model_as_the_program_trains_it_is_a_network_of_ones_own():
    def model(*, in_shape, classes):
        return rb.chain(in_shape, rb.flatten, (rb.dense(5), rb.bias, rb.tanh), (rb.dense(classes), rb.bias))

    result = rb.testing.check_algorithm(rules.right, model, backends=("numpy",), checks="a batch of one")
    assert {o.networks for o in result.outcomes} == {("model",)} and result.passed


def test_what_cannot_be_asked_is_one_sentence():
    ask = rb.testing.check_algorithm
    for options, error, words in (
        ({"declares": ("B stay",)}, ValueError, 'declaration "B stay" is unknown: did you mean B stays'),
        ({"network": "dens"}, ValueError, 'network "dens" is unknown: did you mean dense'),
        ({"on_fail": "warn"}, ValueError, "on_fail is 'warn', expected"),
        ({"checks": "none"}, ValueError, 'checks is "none", which is the name of none of'),
        ({"backends": ("numpi",)}, BackendError, 'did you mean "numpy"'),
        ({"network": 3}, ValueError, "network is 3, expected a name"),
    ):
        with pytest.raises(error, match=words):
            ask(rules.right, **options)
    with pytest.raises(TypeError, match="make is 3, expected a function"):
        ask(3)


def test_exceptions_and_oracles_that_fail_are_sentences():
    def raising(network, loss, optimizer):
        return rules.version("raising", grads=lambda g, s, b, v: g[99])(network, loss, optimizer)

    (built,) = judged(raising).values()
    assert built.state == "fail" and "it raises IndexError in line" in built.sentence and "rules" not in built.sentence
    for oracle, words in (
        (lambda given: 3, "the oracle returns a int, expected a dict"),
        (lambda given: {"dw": {}}, 'the oracle returns "dw", expected some of'),
        (lambda given: {"h": {}}, "the oracle returns neither dW nor W"),
        (lambda given: {"dW": {1: given.W[1][:2]}}, "gradient of W of layer 1 has another shape"),
        (lambda given: {"dW": given.W, "dB": given.W}, "returns dB of layer 1, of which the state has none"),
        (lambda given: {"dW": {1: given.V}}, "it raises AttributeError in line"),
    ):
        found = judged(rules.right, "the oracle's step", oracle=oracle)["the oracle's step"]
        assert found.state == "fail" and words in found.sentence, found.sentence
    silent = judged(rules.right, "the oracle's step", oracle=lambda given: {})["the oracle's step"]
    assert silent.state == "not judged"


def test_what_the_judges_arithmetic_lacks_is_said():
    sinc = rules.version("sinc", error=lambda e, u, y, loss: array_namespace(u).sinc(e))
    found = judged(sinc, "all libraries agree")["all libraries agree"]
    assert found.state == "not judged" and "has no sinc" in found.sentence


# The command

COMMON = ("--network", "dense", "--backend", "numpy", "--oracle", "my_rule.py:oracle")


@pytest.fixture
def page(tmp_path, monkeypatch):
    """README's rule and oracle as its file my_rule.py, in the current folder; its text, and the page's."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    rule, oracle = (next(b for b in blocks if f"def {word}(" in b) for word in ("my_rule", "oracle"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rule.py").write_text(f"{rule}\n\n{oracle}")
    return f"{rule}\n\n{oracle}", text


def test_a_rule_written_as_in_the_readme_sees_green(page, tmp_path):
    """And with the page's mistake what the page shows."""
    code, text = page
    words = [word for name in ("B stays", "equals BP when B = W") for word in ("--declares", name)]
    lines = command("check", "my_rule.py:my_rule", *COMMON, *words).output.splitlines()
    assert not [line for line in lines if line.startswith(("FAIL", "-"))]
    assert lines[-2] == "my_rule.py:my_rule: PASS, 17 checks pass."
    (tmp_path / "my_rule.py").write_text(code.replace("return gain *", "return -gain *"))
    lines = command("check", "my_rule.py:my_rule", *COMMON, *words, code=1).output.splitlines()
    failed = [line.partition(":")[0] for line in lines if line.startswith("FAIL")]
    assert failed == [line.partition(":")[0] for line in text.splitlines() if line.startswith("FAIL")]
    assert lines[-2] in text and lines[-1] in text


def test_the_command_says_what_is_wrong(page, tmp_path):
    (tmp_path / "my_rules.py").write_text("from tests.helpers.rules import NAMED\nsign = NAMED[2].rule\nnet = 3\n")
    lines = command("check", "my_rules:sign", *COMMON, code=1).output.splitlines()
    (failed,) = [line for line in lines if line.startswith("FAIL")]
    assert "dense, on numpy, mode learn, 6 samples: delta of layer 2[" in failed and "by the oracle" in failed
    assert lines[-1].startswith("Not judged: what is true of this rule and not of every one, as it declares nothing")
    quick = printed("check", "dfa", "--quick")
    assert "dfa: PASS" in quick and "no oracle was given" in quick
    assert "delta of layer 3[" in printed("check", "my_rule.py:my_rule", *COMMON, "--loss", "squared-error", code=1)
    for words, sentence in (
        (("my_rules:lost",), 'has no "lost", expected a function'),
        (
            ("my_rule.py:oracle",),
            "takes (given), expected a function (network, loss, optimizer, ...) or a registry.Row",
        ),
        (("my_ruled:right",), 'algorithm "my_ruled:right" cannot be imported'),
        (("kolen-polack",), "did you mean kolen-pollack"),
        (("my_rules:net",), "is a int, expected a function"),
        (("dfa", "--declares", "B"), 'declaration "B" is unknown'),
        (("dfa", "--network", "my_rules:net"), "network is 3, expected a name"),
        (("dfa", "--oracle", "my_rules:net"), "oracle is 3, expected a function"),
        (("dfa", "--loss", "entropy"), 'loss "entropy" is unknown: did you mean cross-entropy'),
    ):
        assert sentence in printed("check", *words, code=2)
