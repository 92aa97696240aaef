"""Generated mutants: what is drawn, whether it is a mistake at all; the suite finds some, and keeps the right."""

import json
import os
import subprocess
import sys
import time
from itertools import count

import numpy as np
import pytest

from ref_bioplaus.backends import Backend
from ref_bioplaus.conformance.checks.runner import outcome_of
from ref_bioplaus.conformance.proofs import trials
from ref_bioplaus.conformance.proofs.equivalence import SAMPLERS, compared
from ref_bioplaus.conformance.proofs.generated import NOT_TRIED, Mutant, called, mutant, pairs
from ref_bioplaus.conformance.proofs.kinds import KINDS, RIGHT
from ref_bioplaus.conformance.proofs.special import SPECIAL
from ref_bioplaus.kernels import Kernels
from ref_bioplaus.machine.side_by_side import side_by_side
from tests.helpers import ROOT, asked, slow
from tests.helpers.commands import printed

TARGETS = {str(target): target for target, _ in pairs()}
EVERY_KIND = {kind.name: kind for kind in (*KINDS, *RIGHT, *(k for kinds in SPECIAL.values() for k in kinds))}
PLAN = trials.Plan(5, 6, (0, 1))


def of(target, kind, number=0):
    made = Mutant(1, number, TARGETS[target], EVERY_KIND[kind], "")
    return made._replace(text=made.drawn(lambda: "eager").text)


def with_text(target, kind, words):
    """The first whose description has some words."""
    return next(made for number in count() if words in (made := of(target, kind, number)).text)


# What is drawn


def test_a_seed_and_a_number_say_which_mutant():
    first = [mutant(7, i) for i in range(60)]
    assert first == [mutant(7, i) for i in range(60)]
    assert len({str(made) for made in first}) > 55
    assert not {str(made) for made in first} & {str(mutant(8, i)) for i in range(60)}
    assert first[3].id == "7/3"
    assert str(first[3]).startswith(f"{first[3].target}: ")


def test_every_pair_of_function_and_kind_is_as_likely():
    drawn = [(str(m.target), m.kind.name) for m in (mutant(3, i) for i in range(4000))]
    assert {kind for _, kind in drawn} == {kind.name for _, kind in pairs()}
    assert {target for target, _ in drawn} == set(TARGETS)
    most = max(drawn.count(pair) for pair in set(drawn))
    assert most < 14  # some 3 are expected of each


def test_everything_that_a_third_party_replaces_is_there_or_has_a_reason():
    methods = {
        n for n, f in vars(Backend).items() if not n.startswith("_") and (callable(f) or isinstance(f, property))
    }
    named = {target.name for target, _ in pairs()}
    assert (methods | set(Kernels._fields)) - set(NOT_TRIED) <= named
    assert all(NOT_TRIED.values())
    functions, operators = called()
    assert {"matmul", "tanh", "where", "take", "zeros"} <= set(functions) <= named
    assert {"add", "multiply", "bitwise_xor", "less", "equal"} <= set(operators) <= named
    assert {kind.name for _, kind in pairs()} == set(EVERY_KIND) - {kind.name for kind in RIGHT}


# Whether it is a mistake at all


@pytest.mark.parametrize("target", [t for t in TARGETS.values() if t.name in SAMPLERS[t.place]], ids=str)
def test_the_right_function_differs_on_no_input(target):
    assert compared(Mutant(1, 0, target, RIGHT[0], ""), 40) == (40, 0)


def test_only_what_takes_no_arrays_or_whole_networks_has_no_sampler():
    without = {t.name for t in TARGETS.values() if t.name not in SAMPLERS[t.place]}
    assert without == {"compile", "export_params", "import_params"}


def test_a_mutant_that_is_none_is_known_from_one_that_is():
    assert compared(with_text("xp.tanh", "range of values", "results are cut at 0."), 300)[1] > 50
    assert compared(with_text("xp.tanh", "range of values", "results are cut at 1"), 300) == (300, 0)


@pytest.mark.parametrize("kind", sorted(set(EVERY_KIND) - {k.name for k in RIGHT} - {"step bound wrongly"}))
def test_every_kind_is_a_mistake_somewhere(kind):
    """Some mutant of it differs within 150 inputs, of the first functions that can have it."""
    mine = [target for target, k in pairs() if k.name == kind and target.name in SAMPLERS[target.place]]
    if kind.startswith("axes of another layout"):
        assert not mine
        return
    assert any(compared(of(str(t), kind, i), 150)[1] for i in range(8) for t in mine[:3])


# What the suite makes of them

CAUGHT = (
    ("conv_correlate", "accumulator", "sums have 8 bits"), ("conv_apply", "a little off", "off by 0.0001"),
    ("conv_transport", "window misread", "padding all before"), ("max_pool", "ties", "the last maximum"),
    ("batch_norm", "another variance", "the sample's variance"), ("random_words", "random bits", "from 0 on"),
    ("random_words", "half a key", "word 1"), ("max_pool_backward", "a little off", "off by 0.001"),
    ("xp.matmul", "stale result", "every shape"), ("add", "lower precision", "its results have 7 bits"),
    ("to_numpy", "a little off", "off by 0.001"), ("wrap", "dtype", "float16"),
)  # fmt: skip


@pytest.mark.parametrize(("target", "kind", "words"), CAUGHT, ids=lambda t: t)
def test_some_of_them_are_found_where_arrays_are_looked_at(target, kind, words):
    found = trials.first_failure(with_text(target, kind, words), 0)
    assert found is not None
    assert found["check"].startswith("0/") and found["reason"]


RIGHTS = (
    ("dense_apply", "last place"), ("conv_correlate", "other order"), ("multiply", "as it is"),
    *(slow(*more, reason="its neighbours ask the same") for more in (
        ("local_correlate", "wider"), ("xp.matmul", "other order"), ("dense_transport", "wider"), ("wrap", "as it is"),
    )),
)  # fmt: skip


@pytest.mark.parametrize(("target", "kind"), RIGHTS)
def test_what_is_right_is_not_found(target, kind):
    """By the first checks of every family at level 0, nor at level 1 by the first steps."""
    subject = of(target, kind).subject()
    asked = [*trials.in_turns(0)[:24], *trials.in_turns(1)[:3]]
    outcomes = [outcome_of(subject, check, check.modes[-1]) for check in asked]
    assert [(o.id, o.reason) for o in outcomes if o.state in ("fail", "error")] == []
    assert sum(o.comparisons for o in outcomes) > 200
    assert compared(of(target, kind), 60) == (60, 0)


# Many of them


def line(number, state="caught", level=0):
    return {"id": f"5/{number}", "function": "f", "kind": "k", "mutant": "f: k", "state": state, "level": level,
            "inputs": 100, "differing": 7}  # fmt: skip


@pytest.fixture
def quick(monkeypatch):
    """Trials that take no time; the fourth is stopped, as by Ctrl-C, the first time."""
    seen = []

    def side_by_side(function, tasks, jobs, limit):
        for task in tasks:
            seen.append(task[1])
            if seen == [0, 1, 2, 3]:
                raise KeyboardInterrupt
            state = "survived" if task[1] == 4 else "equivalent" if task[1] == 5 else "caught"
            lost = task[1] == 2 and seen.count(2) == 1
            yield task, None if lost else line(task[1], state, task[1] % 2), 1.25

    monkeypatch.setattr(trials, "side_by_side", side_by_side)
    return seen


def test_what_was_stopped_goes_on_where_it_was(quick, tmp_path):
    file = tmp_path / "found.jsonl"
    with pytest.raises(KeyboardInterrupt):
        list(trials.trials(PLAN, file))
    with file.open("a") as cut:
        cut.write('{"id": "5/3", "sta')
    with pytest.raises(trials.ResumeError, match="is there already: go on with it by --resume"):
        list(trials.trials(PLAN, file))
    lines = list(trials.trials(PLAN, file, resume=True))
    assert quick == [0, 1, 2, 3, 2, 3, 4, 5]  # the process of 2 was gone
    assert [l["id"] for l in lines] == [f"5/{i}" for i in range(6)]
    assert [json.loads(text) for text in file.read_text().splitlines()] == [PLAN.header(), *lines]
    assert list(trials.trials(PLAN, file, resume=True)) == lines
    assert trials.counted(lines, (0, 1)) == {
        "level 0": 2, "level 1": 2, "hung": 0, "survived": 1, "equivalent": 1, "lost": 0}  # fmt: skip
    assert trials.share(lines, (0, 1)) == (4, 5) and trials.share(lines, (0,)) == (2, 5)


def test_what_hangs_is_caught_and_what_lost_its_process_is_not_counted(monkeypatch):
    monkeypatch.setattr(trials, "side_by_side", lambda f, tasks, jobs, limit: [(t, 1, 9.0 * t[1]) for t in tasks])
    lines = list(trials.trials(trials.Plan(5, 2, (0, 1)), limit=9.0))
    assert [(l["state"], l["level"]) for l in lines] == [("lost", 1), ("hung", 1)]
    assert trials.share(lines, (0, 1)) == (1, 1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"seed": 6, "count": 6, "levels": [0, 1]}\n', "was begun with"),
        ("[3]\n", "was begun with"),
        ("x\n", "holds no results of mutants"),
        ('{"seed": 5, "count": 6, "levels": [0, 1]}\n{"no": 1}\n', "holds no results of mutants"),
        ('{"seed": 5, "count": 6, "levels": [0, 1]}\n{"id": "5/0"}\n{"id": "5/0"}\n', "holds a mutant twice"),
    ],
)
def test_another_file_gets_a_sentence(text, sentence, tmp_path):
    file = tmp_path / "found.jsonl"
    file.write_text(text)
    with pytest.raises(trials.ResumeError, match=sentence):
        trials.begun(PLAN, file, True)
    assert file.read_text() == text


def test_processes_do_their_tasks_and_those_that_hang_or_die_are_ended():
    tasks = [(name,) for name in ("a", "die", "hang", "b", "c")]
    found = {task[0]: (value, seconds) for task, value, seconds in side_by_side(asked, tasks, 2, 5.0)}
    assert {name: value for name, (value, _) in found.items()} == {
        "a": "A", "b": "B", "c": "C", "die": "die begins", "hang": "hang begins"}  # fmt: skip
    assert found["hang"][1] >= 5.0


@pytest.mark.skipif(os.name != "posix", reason="asks the system by signals")
def test_no_process_outlives_the_one_that_started_it():
    code = """if __name__ == "__main__":
    import sys
    from ref_bioplaus.machine.side_by_side import started
    from tests.helpers import asked
    worker = started(asked)
    worker.pipe.send(("hang",))
    print(worker.process.pid, worker.pipe.recv(), flush=True)
    sys.stdin.read()
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          env=environment, cwd=ROOT) as parent:  # fmt: skip
        number = int(parent.stdout.readline().split()[0])
        os.kill(number, 0)
        parent.kill()
    for _ in range(600):
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("it still hangs")


def test_an_interval_of_wilson():
    """Against the roots of (p - k / n)^2 = z^2 p (1 - p) / n, which define it."""
    for k, n in ((95, 100), (0, 7), (3, 3), (280, 297)):
        for p in trials.wilson(k, n):
            assert np.isclose((p - k / n) ** 2, 1.959964**2 * p * (1 - p) / n, atol=1e-12)
    assert trials.wilson(0, 0) == (0.0, 1.0)


# The command


def test_the_command_says_what_was_caught_and_what_survives(quick, tmp_path):
    file = tmp_path / "found.jsonl"
    words = ["conformance", "mutants", "--seed", "5", "--count", "6", "--levels", "0-1", "--json", file]
    assert "--resume goes on" in printed(*words, code=130)
    page = printed(*words, "--resume", code=1)
    assert "5/4 survives: f: k; 7 of 100 random inputs tell it apart" in page
    assert "4 of 5 wrong backends were caught" in page
    printed(*words, "--resume", "--goal", "0.8", code=0)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--levels", "0-5"], "expected levels from 0 to 4"),
        (["--resume"], "--resume goes on with a file: name it with --json"),
        (["--json", "."], "cannot be used"),
    ],
)
def test_what_cannot_be_done_gets_a_sentence(words, sentence):
    assert sentence in printed("conformance", "mutants", *words, code=2)
