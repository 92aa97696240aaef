"""The benchmarks' opponents compute what ours compute, counts are right, and the regression check sees what it should.

Nothing here is timed.
"""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import typer

from asv_bench import cases, estimates, measure, memory, native, page, primitives, profile, regression, report
from asv_bench.flops import step_flops
from asv_bench.profile_jax import added_up
from asv_bench.workloads import METHODS, WORKLOADS, Training, methods_of, without_dropout
from ref_bioplaus import backends
from ref_bioplaus.experiments.training.needs import Taken
from ref_bioplaus.kernels import PORTABLE
from ref_bioplaus.network import forward
from ref_bioplaus.tree import leaves, tree_map
from tests.conftest import get
from tests.helpers import Rerun, slow, some_slow
from tests.helpers.commands import command

SMALL = {
    "W1": WORKLOADS["W1"].smaller((9,), 5, 5 / 256),
    "W2": WORKLOADS["W2"].smaller((11,), 1, 7 / 1024),
    "W3": WORKLOADS["W3"].smaller((10, 8, 3), 5, 1 / 16),
    "W4": WORKLOADS["W4"].smaller((9, 6, 3), 5, 1 / 32),
    "W5": WORKLOADS["W5"].smaller((9, 6, 3), 5, 1 / 32),
    "W6": WORKLOADS["W6"].smaller((9, 6, 3), 5, 1 / 16),
    "W7": WORKLOADS["W7"].smaller((40, 33, 3), 3, 1 / 32),
    "W8": WORKLOADS["W8"].smaller((40, 33, 3), 3, 1 / 32),
}
FORMS = [
    (name, library, form)
    for name in SMALL
    for library, found in (
        ("torch", ["eager, bmm", "eager, einsum"] if name == "W5" else
         ["eager"] if name in ("W1", "W2") else ["eager", "eager, channels-last"]),
        ("jax", ["jit"]),
    )
    for form in found
    if library == "torch" or name in ("W1", "W3", "W5", "W6")  # W6 stands for the ResNets, which take long to compile
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "library", "form"), some_slow(FORMS, lambda name, library, form: library == "jax" and name in ("W5", "W6"))
)
def test_native_forms_learn_what_ours_learn(name, library, form):
    """float64, the same start: equal losses in three steps, and equal parameters after them."""
    backend, workload = get(library), replace(SMALL[name], eta=1e-3)
    ours = Training(workload, "BP", backend, dropout=False)
    start = ours.state
    copied = start._replace(forward=tree_map(lambda a: backend.asarray(backend.to_numpy(a).copy()), start.forward))
    theirs = native.native_training(workload, form, backend, dropout=False, state=copied)
    for _ in range(3):
        ours()
        theirs()
        loss = np.mean(backend.to_numpy(ours.loss))
        assert loss == pytest.approx(float(theirs.loss), rel=1e-9)
    # the parameters we reached, in the opponent's layout, against its own
    reached = native.native_training(workload, form, backend, dropout=False, state=ours.state)
    pairs = list(zip(parameters(reached), parameters(theirs), strict=True))
    first = parameters(native.native_training(workload, form, backend, dropout=False, state=copied))
    assert len(pairs) == len(leaves(ours.state.forward.params))
    assert any(not np.array_equal(a, b) for a, b in zip(first, parameters(theirs), strict=True))
    for a, b in pairs:
        # Adam divides by sqrt(v) + epsilon: where a gradient is 1e-12 of the others its rounding shows
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("name", "form"), [("W1", "graph"), ("W6", "graph, channels-last")])
def test_torchs_whole_step_as_one_graph_learns_what_its_eager_form_learns(name, form):
    """From the same start, whatever its warming up has done to parameters, moments and running statistics."""
    get("torch")
    from asv_bench.native.with_torch import TorchTraining, forms

    workload, backend, graphs = SMALL[name], backends.get("torch", "cpu"), Rerun()
    params = Training(workload, "BP", backend, dropout=False).state.forward.params
    network = workload.network()
    made = {
        f: TorchTraining(workload, network, params, f, graphs=graphs) for f in (form.replace("graph", "eager"), form)
    }
    for _ in range(3):
        losses = []
        for training in made.values():
            training()
            losses.append(float(training.loss))
        assert losses[0] == losses[1]
    eager, graphed = made.values()
    assert all(map(np.array_equal, parameters(eager), parameters(graphed)))
    for one, other in zip(eager.statistics, graphed.statistics, strict=True):
        assert all(map(np.array_equal, one, other))
    assert (graphs.recorded, graphs.replays) == (1, 3)
    assert form in forms(network, compiled=False, on_gpu=True)
    assert not [f for f in forms(network) if "graph" in f]


def parameters(training):
    """What a native training learns, as NumPy arrays."""
    if hasattr(training, "tensors"):
        return [t.detach().numpy().copy() for t in training.tensors]
    import jax

    return [np.array(a) for a in jax.tree.leaves(training.state[0])]


@pytest.mark.parametrize("library", ["torch", slow("jax")])
def test_native_dropout_drops(library):
    """With dropout two runs of the opponent differ in their first loss only by the masks: they are not the mean."""
    backend = get(library)
    with_, without = (native.native_training(SMALL["W4"], native.native_forms(SMALL["W4"], library, False)[0], backend,
                                             dropout=dropout) for dropout in (True, False))  # fmt: skip
    with_()
    without()
    assert float(with_.loss) != pytest.approx(float(without.loss), rel=1e-6)


def test_batch_norms_native_statistics_move_as_ours():
    backend = get("torch")
    ours = Training(SMALL["W6"], "BP", backend)
    theirs = native.native_training(SMALL["W6"], "eager", backend, state=ours.state)
    ours()
    theirs()
    mine = [s for layer in ours.state.stats for s in layer if s]
    assert len(mine) == len(theirs.statistics) > 0
    for s, (mean, var) in zip(mine, theirs.statistics, strict=True):
        np.testing.assert_allclose(s["mean"], mean, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(s["var"], var, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_every_method_runs_on_every_workload(name):
    backend = get("numpy")
    for method in methods_of(WORKLOADS[name]):
        if name in ("W7", "W8") and method != "DFA":
            continue
        training = Training(SMALL[name], method, backend)
        before = [np.array(a) for a in leaves(training.state)]
        training()
        training.wait()
        assert any(not np.array_equal(a, b) for a, b in zip(before, leaves(training.state), strict=True))
    assert ("DTP" in methods_of(WORKLOADS[name])) == (name in ("W1", "W2", "W5"))


def counting(kernels, count):
    """Kernels that add up the operations of their products, from the arrays that they are given."""

    def dense(function):
        def run(a, b):
            result = function(a, b)
            shapes = {*a.shape, *b.shape, *result.shape}
            count.append(2 * math.prod(shapes) if len(shapes) == 3 else None)
            return result

        return run

    return kernels._replace(
        dense_apply=dense(PORTABLE.dense_apply), dense_transport=dense(PORTABLE.dense_transport),
        dense_correlate=dense(PORTABLE.dense_correlate),
    )  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_operations_are_those_of_the_products_made(method):
    """A perceptron of widths that all differ: every dense product is seen, with its three sizes."""
    from ref_bioplaus.linear import dense
    from ref_bioplaus.local import bias, tanh
    from ref_bioplaus.network import chain

    def build(in_shape, classes, width):
        return chain(in_shape, (dense(7), bias, tanh), (dense(5), bias, tanh), (dense(classes), bias))

    workload = replace(SMALL["W1"], build=build, in_shape=(11,), classes=3, batch=2)
    backend, count = get("numpy"), []
    backend.kernels = counting(backend.kernels, count)
    training = Training(workload, method, backend)
    count.clear()
    training()
    assert sum(count) == step_flops(training.network, method, workload)


@pytest.mark.parametrize("name", WORKLOADS)
def test_operations_of_every_method_of_every_workload(name):
    """A network may end in a layer without synapses."""
    workload = WORKLOADS[name]
    counts = {method: step_flops(workload.network(), method, workload) for method in methods_of(workload)}
    assert all(n > 0 for n in counts.values())
    assert counts["FA"] == counts["BP"]


def test_operations_of_convolutions():
    network = WORKLOADS["W3"].network()
    faces = [24 * 24 * 75 * 64, 12 * 12 * 1600 * 64, 2304 * 384, 384 * 192, 192 * 10]
    assert step_flops(network, "BP", WORKLOADS["W3"]) == 128 * 2 * (3 * sum(faces) - faces[0])
    with pytest.raises(KeyError):
        step_flops(network, "XX", WORKLOADS["W3"])


def test_dropout_can_be_left_out():
    workload, backend = SMALL["W4"], get("numpy")
    network = without_dropout(workload.network()).with_dtype("float64")
    assert network.parameter_shapes == workload.network().parameter_shapes
    state = Training(workload, "BP", backend).state
    x = backend.asarray(workload.data()[0], "float64")
    trains, _ = forward(network, state.forward.params, state.stats, x, (state.key,), train=True)
    tests, _ = forward(network, state.forward.params, state.stats, x, train=False)
    np.testing.assert_array_equal(trains.h[-1], tests.h[-1])


# Measuring, without a clock


def timings(a, b):
    return measure.Timings({"a": a, "b": b})


def test_a_ratio_is_that_of_medians_and_its_interval_holds_it():
    ratio = timings([2.0, 2.2, 1.8, 100.0, 2.0], [1.0, 1.1, 0.9, 1.0, 1.0]).ratio("a", "b")
    assert ratio.value == 2.0
    assert ratio.low <= ratio.value <= ratio.high
    assert timings([2.0] * 3, [4.0] * 3).ratio("a", "b") == (0.5, 0.5, 0.5, 0.0)


def test_subjects_take_turns_and_all_are_waited_for():
    calls = []

    class Subject:
        def __init__(self, name):
            self.name = name

        def __call__(self):
            calls.append(self.name)

        def wait(self):
            calls.append(f"{self.name} done")

    subjects = {"a": Subject("a"), "b": Subject("b")}
    found = measure.interleaved(subjects, seconds=0.0, rounds=4)
    assert [len(found.seconds[name]) for name in "ab"] == [4, 4]
    order = [c[0] for c in calls if c.endswith("done")][2:]  # the first two say how many steps fill a turn
    assert "".join(order) == "aabbbbaaaabbbbaa"
    with pytest.raises(ValueError, match="no subjects"):
        measure.interleaved({})


@pytest.mark.parametrize("backend_name", ["numpy", "torch"])
@pytest.mark.parametrize("name", primitives.NAMES)
def test_every_primitive_is_bound_to_arrays_that_fit(name, backend_name, monkeypatch):
    monkeypatch.setattr(primitives, "N", 2)
    monkeypatch.setattr(primitives, "UNITS", 6)
    monkeypatch.setattr(primitives, "WORDS", 5)
    backend = backends.get(get(backend_name).name, kernels="native")
    for _, kernels in primitives.both(backend):
        result = primitives.primitive(name, backend, kernels)()
        assert all(np.all(np.isfinite(np.asarray(a))) for a in leaves(result))


def test_a_stack_of_steps_is_timed_per_step():
    """Three steps by one call and by three, of a network that both ways learn the same."""
    (found,) = cases.together(SMALL["W1"], backends.get("numpy"), 0.01, steps=3)
    assert found["key"] == "together/W1/numpy"
    assert found["against"] == "single"
    assert found["seconds"] > 0.0
    one, three = (Training(SMALL["W1"], "BP", backends.get("numpy"), steps=steps) for steps in (None, 3))
    three()
    for _ in range(3):
        one()
    assert three.loss.shape == (3, *one.loss.shape)
    assert all(map(np.array_equal, leaves(one.state), leaves(three.state)))


def test_peak_memory_of_another_process():
    """W1's parameters, gradients and Adam's two memories alone are 8 MB; ten times that would be a leak."""
    found = memory.peak_bytes("W1", "numpy", "portable", "BP")
    assert 4 * 4 * 480_000 < found < 200e6
    with pytest.raises(RuntimeError, match="W9"):
        memory.peak_bytes("W9", "numpy", "portable", "BP")


def test_a_runs_memory_in_another_process():
    """The state of this run, and the three copies that a checkpoint makes of it, are 4 times 1.9 MB."""
    run = estimates.Run("akrout2019/mlp", "backprop", 10, 15, 2)
    found = estimates.in_a_process(run, "numpy", "portable")
    assert found["state"] == 4 * 2 * (500 * 450 + 500 + 10 * 500 + 10)
    assert 4 * found["state"] < found["taken"] < 100e6
    with pytest.raises(RuntimeError, match="akrout2019/none on numpy"):
        estimates.in_a_process(run._replace(model="akrout2019/none"), "numpy", "portable")


def test_the_constants_of_memory_are_found_again():
    known = Taken(50e6, 2e6, 6.0, 3.5)
    rows = []
    for layers, state, step in ((3, 1e6, 2e6), (40, 1e6, 2e6), (5, 4e8, 1e6), (5, 4e6, 5e8), (20, 2e8, 3e8)):
        taken = known.base + known.layer * layers + state + max(known.saving * state, known.step * step)
        rows.append({"taken": taken, "layers": layers, "state": state, "step": step})
    found, worst = estimates.fitted(rows)
    assert found == known
    assert worst == pytest.approx(1.0)
    contradicting = [rows[0], rows[0] | {"taken": 4 * rows[0]["taken"]}]
    assert estimates.fitted(contradicting)[1] == pytest.approx(2.0, rel=0.05)


# Regression, on numbers made up


def ratio_record(value, spread=0.01, key="step/W1/torch/FA", against="BP"):
    return {"key": key, "against": against, "ratio": {"value": value, "low": value, "high": value, "spread": spread}}


@pytest.mark.parametrize(
    ("base", "new", "alarms"),
    [
        (ratio_record(1.0), ratio_record(1.0), 0),
        (ratio_record(1.0), ratio_record(1.09), 0),  # below the slack
        (ratio_record(1.0), ratio_record(1.2), 1),
        (ratio_record(1.2), ratio_record(1.0), 0),  # faster
        (ratio_record(1.0, 0.1), ratio_record(1.2, 0.1), 0),  # within the scatter
        (ratio_record(1.0, 0.1), ratio_record(2.0, 0.1), 1),
        (ratio_record(1.0), ratio_record(2.0, against="other"), 0),  # another opponent
        (ratio_record(1.0), ratio_record(2.0, key="other"), 0),
        ({"key": "step/W1/torch/BP", "seconds": 1.0}, {"key": "step/W1/torch/BP", "seconds": 9.0}, 0),  # no ratio
    ],
)
def test_a_ratio_that_grew_is_seen(base, new, alarms):
    assert len(regression.slower([base], [new])) == alarms


def test_equal_runs_with_noise_do_not_alarm_and_a_slowed_one_does():
    """Ten runs of 30 ratios, of 15 rounds with 5 % noise; then one of them half as slow again."""
    random = np.random.default_rng(0)

    def run(slowed=1.0):
        records = []
        for i in range(30):
            a, b = (np.exp(0.05 * random.standard_normal(15)) for _ in range(2))
            a = a * (slowed if i == 7 else 1.0)
            found = timings(list(a), list(b)).ratio("a", "b")
            records.append({"key": str(i), "against": "b", "ratio": found._asdict()})
        return records

    runs = [run() for _ in range(10)]
    assert not [c for i, a in enumerate(runs) for b in runs[i + 1 :] for c in regression.slower(a, b)]
    assert [c.key for c in regression.slower(runs[0], run(1.6))] == ["7"]


def test_the_slowed_kernel_computes_the_same():
    slowed = regression.with_an_extra_pass(PORTABLE)
    random = np.random.default_rng(0)
    x, W = random.standard_normal((2, *primitives.STRIDED.in_shape)), random.standard_normal((3, 3, 64, 5))
    expected = PORTABLE.conv_apply(W, x, primitives.STRIDED)
    np.testing.assert_allclose(slowed.conv_apply(W, x, primitives.STRIDED), expected, rtol=1e-12)


def test_passes_of_a_run_are_one_run():
    def record(value, spread, against="portable", key="kernel/a"):
        ratio = {"value": value, "low": value / 2, "high": 2 * value, "spread": spread}
        return {"key": key, "against": against, "ratio": ratio}

    (one, two, plain) = regression.combined([
        [record(0.4, 0.01), record(1.0, 0.05, "eager", "native/b"), {"key": "step/BP", "ratio": None}],
        [record(0.6, 0.02), record(3.0, 0.05, "compiled", "native/b")],
        [record(0.5, 0.03), record(1.0, 0.07, "eager", "native/b")],
    ])  # fmt: skip
    logs = np.log([0.4, 0.5, 0.6])
    assert one["ratio"] == {"value": 0.5, "low": 0.2, "high": 1.2, "spread": pytest.approx(np.std(logs, ddof=1))}
    assert two["ratio"]["value"] == 1.0
    assert plain == {"key": "step/BP", "ratio": None}
    assert two["ratio"]["spread"] == pytest.approx(0.06)  # they do not scatter between the passes
    assert not regression.slower([one], regression.combined([[record(0.62, 0.05)]] * 3))
    assert regression.slower([one], regression.combined([[record(1.1, 0.05)]] * 3))


def test_the_regression_command(tmp_path):
    for name, value in (("base", 1.0), ("same", 1.02), ("slow", 1.5)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"records": [ratio_record(value)]}))
    (tmp_path / "broken.json").write_text("[]")

    def run(*files, code=0):
        return command(*(tmp_path / f"{f}.json" for f in files), code=code, app=regression.app)

    run("base", "same")
    more = (
        ratio_record(1.0),
        ratio_record(1.0) | {"key": "native/W1", "against": "eager"},
        ratio_record(2.0) | {"key": "x"},
    )
    (tmp_path / "more.json").write_text(json.dumps({"records": more}))
    (tmp_path / "other.json").write_text(json.dumps({"records": [more[0], more[1] | {"against": "compiled"}]}))
    (tmp_path / "nothing.json").write_text(json.dumps({"records": [more[2]]}))
    lost = run("more", "other")
    assert "native/W1 was not compared: it has another opponent now" in lost.output
    assert "x was not compared: it was not measured again" in lost.output
    assert "0 of 1 ratios slowed, and of 0 the check cannot tell" in lost.output
    assert "step/W1/torch/FA as before: 1.000 times BP's time, 1.000 before (+0%, limit +10%)" in lost.output
    none = run("base", "nothing", code=2)
    assert "nothing can be compared" in none.output
    slow = run("base", "slow", code=1)
    assert "step/W1/torch/FA slowed: 1.500 times BP's time, 1.000 before (+50%" in slow.output
    for files in (("base", "broken"), ("base", "missing"), ()):
        run(*files, code=2)


@pytest.mark.parametrize(
    ("value", "spread", "passes", "code", "said"),
    [
        (1.91, 0.33, 3, 3, "FA cannot tell: 1.910 times BP's time, 1.000 before (+91%, limit +169%); measure both with "
                           "--passes 10"),
        (1.91, 0.33, 10, 3, "limit +169%); measure both where less else runs"),
        (1.0, 0.076, 3, 3, "FA cannot tell: 1.000 times BP's time, 1.000 before (+0%, limit +26%)"),
        (1.0, 0.073, 3, 0, "FA as before: 1.000 times BP's time, 1.000 before (+0%, limit +24%)"),
        (0.5, 0.2, 3, 0, "FA as before"),  # faster: even with its scatter not a quarter slower
        (3.0, 0.33, 3, 1, "FA slowed: 3.000 times BP's time, 1.000 before (+200%, limit +169%)"),
    ],
)  # fmt: skip
def test_a_check_says_where_it_cannot_tell(value, spread, passes, code, said, tmp_path):
    for name, v, s in (("base", 1.0, 0.0), ("new", value, spread)):
        records = [ratio_record(v, s) | {"passes": passes}, ratio_record(1.0, key="step/W1/torch/DFA")]
        (tmp_path / f"{name}.json").write_text(json.dumps({"records": records}))
    done = command(*(tmp_path / f"{name}.json" for name in ("base", "new")), code=code, app=regression.app)
    assert said in done.output
    assert "DFA as before: 1.000 times BP's time, 1.000 before (+0%, limit +10%)" in done.output  # every limit is said
    told = f"{int(code == 1)} of 2 ratios slowed, and of {int(code == 3)} the check cannot tell"
    assert done.output.splitlines()[-1] == told


@pytest.mark.parametrize(
    ("spread", "stop", "taken"),
    [
        (0.01, math.inf, 3),
        (0.075, math.inf, 7),  # a limit of 37 % after 3 passes, of 25.2 after 6, of 23 after 7
        (1.0, math.inf, 10),
        (1.0, 5, 5),  # the time is up
    ],
)
def test_passes_are_taken_until_the_check_can_tell(spread, stop, taken):
    passes = []

    def measured():
        passes.append(0)
        yield {"key": "step/BP"}
        yield ratio_record(1.0, spread)

    plain, found = regression.enough_passes(measured, 3, lambda: len(passes) < stop)
    assert (len(passes), found["passes"]) == (taken, taken)
    assert plain == {"key": "step/BP"}
    assert found["ratio"]["spread"] == pytest.approx(spread * math.sqrt(3 / taken))


def test_passes_are_counted_against_the_run_that_is_compared_with():
    passes = []
    steady, loud = ratio_record(1.0, 0.001), ratio_record(1.0, 0.5)

    def measured():
        passes.append(0)
        return [ratio_record(1.0, 0.07)]

    assert regression.enough_passes(measured, 2, lambda: True, lambda r: steady)[0]["passes"] == 2
    assert regression.enough_passes(measured, 2, lambda: True, lambda r: loud)[0]["passes"] == 10


# The driver


def run_driver(folder, *options, code=0):
    fixed = ("--kernels", "portable", "--backends", "numpy", "--seconds", "0")
    return command(*fixed, "--out", folder, *options, code=code, app=report.app)


@pytest.fixture
def quick(monkeypatch):
    """Small workloads and no search for the peak."""
    for module in (cases, report, memory):
        monkeypatch.setattr(module, "WORKLOADS", SMALL)
    monkeypatch.setattr(measure, "peaks", lambda **_: {"product": 1e12})


def test_the_driver_completes_what_is_there(tmp_path, quick):
    run_driver(tmp_path, "--workloads", "W1", "--algorithms", "FA", "--parts", "algorithms")
    run_driver(tmp_path, "--workloads", "W1,W3", "--algorithms", "FA,DFA", "--parts", "native,algorithms",
                        "--no-compiled")  # fmt: skip
    data = json.loads((tmp_path / page.DATA).read_text())
    keys = {r["key"] for r in data["records"]}
    assert keys == {"native/W1/numpy", "native/W3/numpy"} | {
        f"step/{w}/numpy/{m}" for w in ("W1", "W3") for m in ("BP", "FA", "DFA")
    }
    (where,) = data["environments"]
    assert where["machine"]["processor"] and "numpy's BLAS" in where["machine"]
    assert len({r["environment"] for r in data["records"]}) == 1
    assert "W1 on numpy, portable: BP FA DFA" in where["title"]
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 1 + 2 + 1 + 8
    text, html = (tmp_path / page.TEXT).read_text(), (tmp_path / page.PAGE).read_text()
    for written in (text, html):
        assert "There was no GPU" in written
        assert "at most 1.13" in written  # FA's limit on NumPy
    assert "<script" not in html and "http://" not in html.replace("http://www.w3.org", "")
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write('{"key": "cut of')
    assert len(report.merged(tmp_path / "records.jsonl")) == len(keys) + 1


def test_the_driver_compares_with_what_was_there_before(tmp_path, quick, monkeypatch):
    """Also where that is the file it writes."""
    first = "--workloads", "W1", "--algorithms", "FA", "--parts", "algorithms", "--against"
    run_driver(tmp_path, *first, str(tmp_path / "none.json"), code=2)
    assert not (tmp_path / page.DATA).exists()
    run_driver(tmp_path, *first[:-1])
    data = json.loads((tmp_path / page.DATA).read_text())
    for r in data["records"]:
        if "ratio" in r:
            r["ratio"] |= {"value": 1e-9, "spread": 0.0}
    (tmp_path / page.DATA).write_text(json.dumps(data))
    monkeypatch.setattr(regression, "MOST_PASSES", 3)
    monkeypatch.setattr(regression, "DOUBTFUL", 0.0)
    found = run_driver(tmp_path, *first, str(tmp_path / page.DATA), "--passes", "2", code=1)
    assert "step/W1/numpy/FA slowed" in found.output
    assert [r["passes"] for r in json.loads((tmp_path / page.DATA).read_text())["records"] if "ratio" in r] == [3]


def test_compilation_is_what_steps_take_longer_than_the_last(monkeypatch):
    """A subject whose first two steps compile, by a clock that goes on while it works."""
    clock, took = [0.0], iter([5.0, 3.0, 1.0])
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def work():
        clock[0] += next(took)

    assert measure.warm_up(measure.Call(work)) == 6.0


def test_a_case_that_fails_costs_no_other(tmp_path, quick, monkeypatch):
    def fail(*_):
        raise RuntimeError("no luck")
        yield

    monkeypatch.setattr(cases, "native", fail)
    done = run_driver(tmp_path, "--workloads", "W1", "--algorithms", "BP", "--parts", "native,algorithms", code=1)
    assert "no luck" in done.output
    assert [r["key"] for r in json.loads((tmp_path / page.DATA).read_text())["records"]] == ["step/W1/numpy/BP"]


def test_the_driver_refuses_what_it_does_not_know(tmp_path):
    for option, value in (("--workloads", "W9"), ("--algorithms", "XX"), ("--backends", "numpi"), ("--parts", "all")):
        done = run_driver(tmp_path, option, value, code=2)
        assert value in done.output


def test_goals_that_are_missed_are_marked():
    step = {"kind": "step", "key": "", "backend": "torch", "kernels": "native", "device": "cpu", "precision": "ieee",
            "workload": "W1", "method": "FA", "seconds": 1.0, "examples_per_second": 1.0, "flops_per_second": 1.0,
            "compile_seconds": 0.0}  # fmt: skip
    for value, missed in ((1.02, False), (1.05, True)):
        (table, *_) = page.tables([step | ratio_record(value)])
        assert [cell.missed for cell in table.rows[0][1]] == [missed]
    for peak, shown in ((2.0, "50%"), (0.5, "the peak was disturbed")):
        (_, _, shares, _) = page.tables([step | ratio_record(1.0) | {"flops": 1.0, "peak": peak, "seconds": 1.0}])
        assert shares.rows[0][1][0].text == shown
    SN = step | ratio_record(1.0) | {"method": "SN", "workload": "W3"}
    (ratios, *_) = page.tables([step | ratio_record(1.0), SN])
    assert [[cell.text for cell in cells][-1] for _, cells in ratios.rows][0] == page.MISSING
    ours = {"kind": "native", "backend": "torch", "kernels": "native", "device": "cpu", "precision": "ieee",
            "workload": "W3", "seconds": 1.0, "forms": {"eager": 1.2}, "failed": {}, "strongest": "eager"}  # fmt: skip
    for value, missed in ((1 / 1.2, False), (1 / 1.1, True)):
        (table, *_) = page.tables([ours | ratio_record(value)])
        assert [cell.missed for cell in table.rows[0][1]] == [missed]
        assert table.rows[0][1][0].goal == "goal 1.15"


def test_the_page_says_how_many_goals_were_missed(tmp_path):
    """In its box, and in the bars, which have intervals."""
    native = {"kind": "native", "backend": "torch", "kernels": "native", "device": "cpu", "precision": "ieee",
              "seconds": 1.0, "forms": {"eager": 1.2}, "failed": {}, "strongest": "eager", "key": ""}  # fmt: skip
    ratios = {"W1": (1.0, 0.99, 1.01), "W3": (0.9, 0.85, 1.0), "W4": (0.8, 0.79, 0.81)}  # goals: 1.8, 1.15, 1.05
    records = [native | {"workload": w, "ratio": dict(zip(("value", "low", "high"), found, strict=True))}
               for w, found in ratios.items()]  # fmt: skip
    assert [str(line) for line in page.judged(page.tables(records))] == [
        "Against native: 1 of 3 goals reached, 2 not: 1 missed, 1 undecided"
    ]
    page.write(tmp_path, records)
    html, text = ((tmp_path / name).read_text() for name in (page.PAGE, page.TEXT))
    assert 'class="verdict bad"' in html and "1 of 3 goals reached, 2 not" in html and "1 of 3 goals" in text
    assert all(f"{state}: 1" in html for state in ("reached", "missed", "undecided"))
    page.write(tmp_path, records[2:])
    assert (
        "1 of 1 goals reached" in (tmp_path / page.PAGE).read_text()
        and "verdict bad" not in (tmp_path / page.PAGE).read_text()
    )


def test_a_profile_counts_every_kernel_once(monkeypatch):
    """For every dense layer a product forward and one for its weights; for all but the first one to pass errors on."""
    monkeypatch.setitem(WORKLOADS, "W1", SMALL["W1"])
    backend = backends.get("numpy", kernels="native")
    parts, seconds, steps = profile.by_kernel("W1", "BP", backend)
    layers = len(SMALL["W1"].network().weighted)
    found = {name: part.calls / steps for name, part in parts.items()}
    assert (found["dense_apply"], found["dense_correlate"], found["dense_transport"]) == (layers, layers, layers - 1)
    assert found["adam"] == 1
    assert all(part.seconds >= 0.0 for part in parts.values())
    assert sum(part.seconds for part in parts.values()) == pytest.approx(seconds)
    shown = list(profile.rows(parts, seconds, steps, 3))
    assert len(shown) == 3
    assert float(shown[0][2]) >= float(shown[1][2]) >= float(shown[2][2])


def test_a_kernel_that_calls_another_is_timed_without_it(monkeypatch):
    """By a clock that goes on by one second whenever it is read."""
    ticks, parts, made = iter(range(100)), {}, []
    monkeypatch.setattr(profile, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    own = PORTABLE._replace(dense_apply=lambda: 5, dense_correlate=lambda: made[0].dense_apply() + 1)
    made.append(profile.timed(own, parts, lambda: None))
    assert made[0].dense_correlate() == 6
    assert {name: (part.calls, part.seconds) for name, part in parts.items()} == {
        "dense_apply": (1, 1.0), "dense_correlate": (1, 2.0),
    }  # fmt: skip


def test_a_profile_of_torch_sees_its_products(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setitem(WORKLOADS, "W1", SMALL["W1"])
    parts, seconds, steps = profile.by_operation("W1", "BP", backends.get("torch", "cpu", kernels="native"))
    assert parts["aten::mm"].calls >= 3 * steps
    assert 0.0 < parts["aten::mm"].seconds < seconds


def test_a_profile_of_jax_sees_its_products(monkeypatch):
    pytest.importorskip("jax")
    monkeypatch.setitem(WORKLOADS, "W1", SMALL["W1"])
    parts, seconds, steps = profile.by_program("W1", "BP", backends.get("jax", kernels="native"))
    assert steps > 0
    assert any("dot" in name or "fusion" in name for name in parts)
    assert all(part.seconds >= -1e-9 for part in parts.values())
    assert 0.0 < sum(part.seconds for part in parts.values()) == seconds


def test_parts_of_a_program_are_without_what_is_inside_of_them():
    """Two threads, and one that runs no program; a loop with two products inside, and one after it."""

    def call(name, start, length, thread):
        return {"ph": "X", "pid": 1, "tid": thread, "ts": start, "dur": length, "name": name}

    events = [
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": t, "args": {"name": name}}
        for t, name in ((1, "tf_XLAEigen/7"), (2, "tf_XLAPjRtCpuClient/9"), (3, "python"))
    ]
    events += [call("while.1", 0, 10, 1), call("dot.3", 1, 4, 1), call("dot.12.1", 5, 3, 1), call("dot.3", 10, 2, 1)]
    events += [call("ThunkExecutor::Execute (wait)", 0, 7, 2), call("add_fusion", 2, 1, 2), call("main", 0, 99, 3)]
    found = added_up(events)
    assert {name: (calls, round(1e6 * seconds)) for name, (calls, seconds) in found.items()} == {
        "while": (1, 3), "dot": (3, 9), "add_fusion": (1, 1),
    }  # fmt: skip


def test_a_profile_names_what_it_does_not_know():
    app = typer.Typer()
    app.command()(profile.main)
    done = command("W9", "torch", code=2, app=app)
    assert '"W9" is unknown' in done.output
