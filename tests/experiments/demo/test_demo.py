"""The demo: that rows learn, that numbers are what they say, and that what goes wrong is said and counted."""

import json
import math
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import array_api_compat.numpy
import numpy as np
import pytest

from ref_bioplaus import backends, embedded, predict, registry
from ref_bioplaus.backends import BackendError
from ref_bioplaus.backends.numpy_.backend import NumpyBackend
from ref_bioplaus.experiments.demo import page, pictures, processes, running, seeds, work
from ref_bioplaus.experiments.demo.networks import ARCHITECTURES, BATCH
from ref_bioplaus.experiments.demo.results import Comparison, Progress, Results, Settings, Training
from tests.helpers import backends_here
from tests.helpers.commands import command

FC, LC = ARCHITECTURES
INSTALLED = backends_here()
HERE = [name for name in INSTALLED if name != running.CHECKER]
OTHERS = [name for name in INSTALLED if name != "numpy"]
TRAINED = [(row, architecture) for architecture in ARCHITECTURES for row in registry.ROWS if architecture.trains(row)]


@pytest.fixture(scope="module")
def images():
    return embedded.fashion_mnist_small()


def demo(out, *arguments, code=0):
    """`demo` with few steps, and the JSON it wrote."""
    result = command("demo", "--out", out, *arguments, code=code)
    return result, json.loads((out / "demo.json").read_text(), parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A quick run of two algorithms on everything that is installed."""
    out = tmp_path_factory.mktemp("demo")
    arguments = ("--quick", "--algorithm", "backprop", "--algorithm", "dtp", "--steps", "30", "--seed", "3")
    return *demo(out, *arguments), (out / "index.html").read_text()


# Backends that do harm, loaded as "tests.experiments.demo.test_demo:<name>"


class Inexact(NumpyBackend):
    """Puts a relative error of 1e-9 into whatever arrives."""

    def asarray(self, array, dtype=None):
        array = super().asarray(array, dtype)
        return array * array.dtype.type(1 + 1e-9) if array.dtype == np.float64 else array


class Broken(NumpyBackend):
    """Compiles nothing."""

    def wrap(self, step):
        raise ZeroDivisionError("no compiler [here]")


class BrokenInFloat32(NumpyBackend):
    """Compiles only what computes in float64."""

    def wrap(self, step):
        if self.dtype == "float32":
            raise ZeroDivisionError("no float32")
        return step


def inexact(device, dtype, precision, kernels):
    return Inexact(array_api_compat.numpy, "cpu", dtype, precision, kernels)


def broken(device, dtype, precision, kernels):
    backend = Broken(array_api_compat.numpy, "cpu", dtype, precision, kernels)
    backend.check = lambda: None
    return backend


def broken_in_float32(device, dtype, precision, kernels):
    backend = BrokenInFloat32(array_api_compat.numpy, "cpu", dtype, precision, kernels)
    backend.check = lambda: None
    return backend


def without_float64(device, dtype, precision, kernels):
    if dtype == "float64":
        raise BackendError("no float64 here")
    return NumpyBackend(array_api_compat.numpy, "cpu", dtype, precision, kernels)


# A good run


def test_a_good_run_says_so_in_its_last_line(quick):
    result, data, _ = quick
    last = result.stdout.splitlines()[-1]
    assert result.exit_code == 0
    assert last.startswith(f"All backends agree ({', '.join(['numpy', *OTHERS])})")
    assert last == data["verdict"] and data["agree"] is True
    worst = max(data["agreement"]["comparisons"], key=lambda c: c["difference"])
    if worst["difference"] > 0:
        assert f"{worst['difference']:.1e}" in last and worst["tensor"] in last and worst["backend"] in last


def test_a_quick_run_trains_each_row_once_in_turns_and_compares_all(quick):
    _, data, _ = quick
    rows = [("backprop", "fc"), ("dtp", "fc"), ("backprop", "lc"), ("dtp", "lc")]
    found = {(t["algorithm"], t["network"]): t["backend"] for t in data["trainings"]}
    assert len(data["trainings"]) == 4
    assert found == {row: HERE[i % len(HERE)] for i, row in enumerate(rows)}
    compared = {(c["algorithm"], c["network"], c["backend"]) for c in data["agreement"]["comparisons"]}
    assert compared == {(*row, name) for row in rows for name in OTHERS}


def test_the_json_holds_what_was_measured(quick):
    _, data, _ = quick
    assert data["schema"] == page.SCHEMA
    assert data["settings"]["seed"] == 3
    assert data["environment"]["numpy"] == np.__version__
    for t in data["trainings"]:
        steps, errors = zip(*t["curve"], strict=True)
        assert steps[0] == 0 and steps[-1] == t["steps"] == 30
        assert errors[-1] == t["test_error_percent"] < errors[0]
        assert t["seconds"] > 0 and t["images_per_second"] == pytest.approx(30 * BATCH / t["seconds"])
        assert (t["angle_degrees"] is None) == (t["algorithm"] == "backprop")
    assert all(c["agrees"] and c["difference"] <= 1e-11 for c in data["agreement"]["comparisons"])


def test_the_tables_name_every_row_and_backend(quick):
    result, data, html = quick
    for t in data["trainings"]:
        line = next(line for line in result.stdout.splitlines() if t["label"] in line and t["backend"] in line)
        assert f"{t['test_error_percent']:.1f}" in line
        assert t["label"] in html and f'<td class="">{t["test_error_percent"]:.1f}' in html.replace(
            ' class="first"', ' class=""'
        )
    for name in backends.names():
        if name not in backends.installed():
            assert re.search(f"{name} did not take part: .*install", result.stdout)


def test_the_page_needs_nothing_but_itself(quick):
    html = re.sub(r'xmlns(:\w+)?="[^"]*"', "", quick[2])
    assert not re.search(r"https?:|//|\bsrc=|<link|<script|<iframe|@import|url\((?!#)", html)
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', html))
    names = re.findall(r'\bid="([^"]*)"', html)
    assert names
    used = set(re.findall(r'(?:href="#|url\(#)([^")]*)', html))
    assert used <= set(names)
    assert all(names.count(name) == 1 for name in used)
    assert html.count("<svg") == html.count("</svg>") == 3  # two families, the locally connected network
    assert html.rstrip().endswith("</html>")


# What is measured


def test_the_error_is_that_of_the_algorithm_trained_by_hand(images):
    backend = backends.get("numpy")
    row = registry.row("kolen-pollack")
    found = work.train(row, FC, "numpy", backend, images, 12, 5, Progress())
    network, loss, algorithm = FC.algorithm(row, backend, (28, 28, 1))
    state = algorithm.init(backend.key(5))
    for (x, y), _ in zip(embedded.batches(images, 100, 0, 5), range(12), strict=False):
        state, _ = algorithm.modes["learn"](state, backend.batch(x.reshape(100, 784), y))
    output = predict(network, loss, state, images.test_x.reshape(1000, 784))
    assert found.curve[-1] == (12, pytest.approx(100 * np.mean(output.argmax(1) != images.test_y.argmax(1))))
    W, B = state.forward.params[2].W, state.feedback.params[2].W
    cosine = np.sum(W * B) / np.linalg.norm(W) / np.linalg.norm(B)
    assert found.angles[2][-1] == (12, pytest.approx(math.degrees(math.acos(cosine)), abs=0.01))
    assert set(found.angles) == {2, 3}
    assert found.angle == pytest.approx((found.angles[2][-1][1] + found.angles[3][-1][1]) / 2)


@pytest.mark.parametrize("row", [r for r in registry.ROWS if r.module == "sign_symmetry"], ids=lambda row: row.name)
def test_the_angle_of_sign_symmetry_is_that_of_the_weights_it_uses(images, row):
    backend = backends.get("numpy", dtype="float64")
    network, loss, algorithm = FC.algorithm(row, backend, (28, 28, 1), small=True)
    state = algorithm.init(backend.key(0))
    batch = backend.batch(images.train_x[:20].reshape(20, 784), images.train_y[:20])
    B = registry.feedback_weights(row, network, state)
    _, info = algorithm.modes["learn"](state, batch)
    for l in (2, 3):
        expected = (1 - info.h[l - 1] ** 2) * (info.delta[l] @ B[l].W)
        np.testing.assert_allclose(info.delta[l - 1], expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(np.sign(B[2].W), np.sign(state.forward.params[2].W))
    _, angles = work.prober(row, network, loss)(state, batch.x)
    assert set(angles) == {2, 3}


@pytest.mark.parametrize(("row", "architecture"), TRAINED, ids=[f"{r.name}-{a.name}" for r, a in TRAINED])
def test_every_row_clearly_learns(images, row, architecture):
    steps = 200 if architecture is FC else 60
    found = work.train(row, architecture, "numpy", backends.get("numpy"), images, steps, 0, Progress())
    assert found.curve[0][1] > 80
    assert found.error < (30 if row.module == "backprop" else 50)


@pytest.mark.parametrize(
    ("row", "steps", "said"),
    [
        ("dtp-alternating", 3, "no forward weight has learned (0 forward, 0.06 inverse)"),
        ("dtp-alternating", 55, "of its epochs 0.1 forward, 1 inverse"),
        ("dtp", 3, ""),
        ("weight-mirror", 3, "a mirror step follows every step, inside its time"),
    ],
)
def test_what_a_number_stands_for_is_said(images, row, steps, said):
    backend = backends.get("numpy", kernels="portable")
    found = work.train(registry.row(row), FC, "numpy", backend, images, steps, 0, Progress())
    assert found.note.startswith(said) and bool(found.note) == bool(said)
    assert page.training_data(found)["note"] == found.note


def test_training_in_float32_repeats_exactly_after_float64_has_been_used(images):
    pytest.importorskip("jax")
    row = registry.row("feedback-alignment")
    before = work.train(row, FC, "jax", backends.get("jax"), images, 5, 0, Progress())
    backends.get("jax", dtype="float64")
    after = work.train(row, FC, "jax", backends.get("jax"), images, 5, 0, Progress())
    assert (before.curve, before.angles) == (after.curve, after.angles)


def test_recipes_name_networks_that_exist():
    assert {name for row in registry.ROWS for name in row.recipes} == {a.name for a in ARCHITECTURES}
    assert len(TRAINED) == len(registry.ROWS) + 6
    assert 5000 % BATCH == 0


def test_the_agreement_reaches_the_freeze_of_signs():
    row = registry.row("frsf-ei")
    assert [work.early(options)["start"] for name, options in row.wrappers if name == "fixed-signs"] == [work.FREEZE]
    assert work.early({"strength": 1.0}) == {"strength": 1.0}


# What goes wrong


def test_a_backend_that_computes_otherwise_is_found(tmp_path):
    name = "tests.experiments.demo.test_demo:inexact"
    result, data = demo(tmp_path, "--backend", name, "--algorithm", "backprop", "--steps", "1", code=1)
    last = result.stdout.splitlines()[-1]
    assert last.startswith(f"DISAGREEMENT of {name} with numpy") and "tensor" in last
    assert data["agree"] is False
    differing = [c for c in data["agreement"]["comparisons"] if not c["agrees"]]
    assert {c["backend"] for c in differing} == {name}
    assert all(1e-11 < c["difference"] < 1e-6 and c["tensor"] for c in differing)
    assert 'class="verdict bad"' in (tmp_path / "index.html").read_text()


def test_a_row_that_fails_on_one_backend_is_reported_and_the_rest_goes_on(tmp_path):
    name = "tests.experiments.demo.test_demo:broken"
    arguments = ("--backend", name, "--backend", "numpy", "--algorithm", "sn", "--steps", "2")
    result, data = demo(tmp_path, *arguments, code=1)
    assert "NOT ALL BACKENDS AGREE" in result.stdout.splitlines()[-1]
    assert "2 trainings failed; 2 comparisons failed" in result.stdout.splitlines()[-1]
    assert f"on {name}, training, failed: ZeroDivisionError: no compiler [here]" in result.stdout
    trainings = {(t["backend"], t["network"]): t for t in data["trainings"]}
    for network in ("fc", "lc"):
        assert trainings[name, network]["failure"] == "ZeroDivisionError: no compiler [here]"
        assert trainings[name, network]["test_error_percent"] is None
        assert trainings["numpy", network]["failure"] == ""
        assert trainings["numpy", network]["test_error_percent"] < 90
    assert {c["backend"] for c in data["agreement"]["comparisons"] if c["failure"]} == {name}
    assert "no compiler [here]" in (tmp_path / "index.html").read_text()


def test_a_failed_training_is_a_failure_though_backends_agree(tmp_path):
    name = "tests.experiments.demo.test_demo:broken_in_float32"
    result, data = demo(tmp_path, "--backend", name, "--algorithm", "dfa", "--steps", "1", code=1)
    assert data["agree"] is True
    assert result.stdout.splitlines()[-1].endswith("1 training failed.")


def test_a_backend_without_float64_cannot_be_compared(tmp_path):
    name = "tests.experiments.demo.test_demo:without_float64"
    result, data = demo(tmp_path, "--backend", name, "--algorithm", "dfa", "--steps", "1", code=1)
    assert "could not be compared" in result.stdout.splitlines()[-1]
    assert [c["failure"] for c in data["agreement"]["comparisons"]][0] == "BackendError: no float64 here"


def test_an_installed_backend_that_cannot_start_is_left_out_aloud(tmp_path, monkeypatch):
    def get(name, **options):
        if name == "torch":
            raise BackendError("torch has lost its device")
        return real(name, **options)

    real = backends.get
    monkeypatch.setattr(backends, "get", get)
    monkeypatch.setattr(backends, "installed", lambda: ("numpy", "torch"))
    result, data = demo(tmp_path, "--algorithm", "dfa", "--steps", "1")
    assert "torch did not take part: torch has lost its device." in result.stdout
    assert set(data["left_out"]) == {"torch", "jax", "cupy"}
    assert "There is nothing that numpy could agree with" in result.stdout.splitlines()[-1] and data["agree"] is None


def test_an_interrupted_run_writes_what_was_finished(tmp_path, monkeypatch):
    def train(row, *rest):
        if row.name == "dfa":
            raise KeyboardInterrupt
        return real(row, *rest)

    real = work.train
    monkeypatch.setattr(work, "train", train)
    arguments = ("--backend", "numpy", "--steps", "1", "--algorithm", "dfa", "--algorithm", "backprop")
    result, data = demo(tmp_path, *arguments, code=130)
    assert result.stdout.splitlines()[-1].startswith("Interrupted")
    assert data["interrupted"] is True
    assert [t["algorithm"] for t in data["trainings"]] == ["backprop"]
    assert data["agreement"]["comparisons"] == []


def test_numbers_that_are_not_finite_are_null_in_json_and_fail():
    row = registry.row("sn")
    results = Results(Settings(), [Training(row, FC, "numpy", 3)], [Comparison(row, FC, "torch", math.inf, "t")])
    data = page.as_data(results)
    json.dumps(data, allow_nan=False)
    assert data["agreement"]["comparisons"][0]["difference"] is None
    assert data["trainings"][0]["images_per_second"] is None
    assert not results.sound and results.agree is False
    assert results.verdict().startswith("DISAGREEMENT of torch")


# Pictures


def test_pictures_are_the_same_text_each_time_and_hold_every_line():
    curve = ((0, 90.0), (5, 40.0), (10, 20.0))
    rows = [r for r in registry.ROWS if r.module in ("target_propagation", "backprop")]
    trainings = [Training(r, FC, "numpy", 10, "", 1.0, 0.0, curve) for r in rows]
    found = pictures.learning_curves(trainings)
    assert found == pictures.learning_curves(trainings)
    assert list(found) == ["Backpropagation", "Target propagation"]
    for r in rows:
        assert r.label in found["Target propagation" if r.inverses else "Backpropagation"]
    assert "\u2002BP</text>" in found["Target propagation"]


def test_names_stand_in_the_order_of_the_last_errors():
    rows = [registry.row(name) for name in ("feedback-alignment", "dfa", "dense-fa")]
    trainings = [
        Training(r, FC, "numpy", 10, "", 1.0, 0.0, ((0, 90.0), (10, e)))
        for r, e in zip(rows, (17, 25, 16.04), strict=True)
    ]
    (text,) = pictures.learning_curves(trainings).values()
    found = re.findall(r'<text [^>]* y="([\d.]+)"[^>]*>([\d.]+)\u2002([^<]*)<', text)
    names = [(error, name) for _, error, name in sorted(found, key=lambda one: float(one[0]))]
    assert names == [("25.0", "DFA"), ("17.0", "FA"), ("16.0", "DenseFA")]


# Seeds and backends


def trained(name, *errors, steps=FC.steps):
    return [Training(registry.row(name), FC, backend, steps, "", 1.0, 0.0, ((0, 90.0), (steps, error)))
            for backend, error in zip(("numpy", "torch", "jax"), errors, strict=False)]  # fmt: skip


def test_how_far_backends_are_apart_stands_beside_seeds(monkeypatch):
    recipe = str(registry.row("sn").recipe("fc"))
    monkeypatch.setattr(seeds, "stored", lambda: {"fc/sn": {"recipe": recipe, "errors": [16.0, 18.2, 17.1]}})
    assert str(seeds.spread(trained("sn", 17.0)[0])) == "16.0–18.2"
    assert seeds.spread(trained("sn", 17.0, steps=3)[0]) is None is seeds.spread(trained("usf", 17.0)[0])
    said = seeds.apart([*trained("sn", 16.8, 17.7, 18.1), *trained("usf", 17.0, 17.0)])
    assert "1.3 at most: FA-uSF SN (fc), 16.8 (numpy), 17.7 (torch), 18.1 (jax) %" in said
    assert "reach from 16.0 to 18.2 %. In 1 of 1 rows" in said
    assert "In 0 of 1 rows" in seeds.apart(trained("sn", 16.8, 18.3))
    assert seeds.apart(trained("sn", 16.8)) == ""
    html = page.as_page(Results(Settings(), [*trained("sn", 16.8, 17.7), *trained("dtp", 17.0, 17.0)]))
    assert "16.0–18.2" in html and f"{seeds.SEEDS} seeds" in html
    quick = Results(Settings(quick=True), [trained("sn", 16.8, 17.7)[1], trained("usf", 17.0)[0]])
    assert "16.0–18.2" in page.as_page(quick)
    monkeypatch.setattr(seeds, "stored", dict)
    assert "point" in seeds.apart(trained("sn", 16.8, 17.7)) and "seeds" not in seeds.apart(trained("sn", 16.8, 17.7))


def test_every_row_has_its_seeds():
    """By the recipe that it has; `make generated` learns what is missing."""
    names = {f"{a.name}/{row.name}": str(row.recipe(a.name)) for row, a in TRAINED}
    found = {name: one["recipe"] for name, one in seeds.stored().items()}
    assert found == names
    for name, one in seeds.stored().items():
        assert len(set(one["errors"])) > 1 and len(one["errors"]) == seeds.SEEDS, name
        assert all(5.0 < error < 40.0 for error in one["errors"]), name


def test_an_angle_of_inverses_is_called_so():
    angles = {2: ((0, 90.0), (3, 41.0))}
    shown = {name: page.shown(Training(registry.row(name), FC, "numpy", 3, "", 1.0, 0.0, ((0, 90.0),), angles))[3]
             for name in ("dtp", "sn")}  # fmt: skip
    assert shown == {"dtp": "41° (V)", "sn": "41°"}


def test_a_variant_shares_its_colour_dashed():
    rows = [registry.row(name) for name in ("tp", "dtp", "dtp-alternating")]
    tp, dtp, alternating = pictures.coloured([Training(row, FC, "numpy", 1) for row in rows])
    assert dtp.colour == alternating.colour != tp.colour
    assert (tp.dash, dtp.dash, alternating.dash) == ("-", "-", "--")


def test_a_row_without_an_angle_gets_no_picture_of_it():
    without = Training(registry.row("sn"), FC, "numpy", 1, "", 1.0, 0.0, ((0, 90.0), (1, 80.0)))
    assert pictures.angle_curves([without]) == {}
    nan = ((0, math.nan), (1, math.nan))
    assert list(pictures.angle_curves([Training(without.row, FC, "numpy", 1, angles={2: nan})])) == ["FA-uSF SN"]


# Processes

SEVERAL = {"backends": ("numpy",), "algorithms": ("backprop", "sn"), "steps": 3}  # 8 tasks


def without_times(results):
    """All records, but for what a clock says."""
    learned = [replace(t, seconds=0.0, warm_up_seconds=0.0) for t in results.trainings]
    return learned, results.comparisons


def test_processes_find_what_one_finds_in_its_order():
    told = []

    class Told(Progress):
        def done(self, records):
            told.extend(records)

    alone, beside = running.run(Settings(**SEVERAL)), running.run(Settings(**SEVERAL, processes=2), Told())
    assert without_times(alone) == without_times(beside)
    assert len(beside.trainings) == 4 and len(told) == len(beside.trainings) + len(beside.comparisons)
    assert beside.environment["processes"].startswith("2, ") and "processes" not in alone.environment
    assert re.fullmatch(r"Time: start \d+ s, learning \d+ s, agreement \d+ s in 2 processes; of .*", beside.time())


def lost(device=None, dtype="float32", precision="ieee", kernels="portable"):
    """A backend that takes its process with it, where that process is no test's own."""

    class Lost(NumpyBackend):
        def compile(self, step, **options):
            os._exit(7)

    if multiprocessing.parent_process() is None or dtype != "float32":
        return backends.get("numpy", dtype=dtype)
    return Lost(array_api_compat.numpy, "cpu", dtype, precision, kernels)


def test_a_process_that_dies_is_a_failure_of_its_task_alone():
    name = "tests.experiments.demo.test_demo:lost"
    found = running.run(Settings(**SEVERAL | {"backends": (name, "numpy")}, processes=2))
    assert {t.failure for t in found.trainings if t.backend == name} == {
        "ChildProcessError: its process ended with exit code 7"
    }
    assert len([t for t in found.trainings if t.backend == "numpy" and not t.failure]) == 4
    assert found.comparisons and not any(c.failure for c in found.comparisons)
    assert not found.sound and "4 trainings failed" in found.verdict()


def test_a_process_that_has_died_between_tasks_is_replaced():
    with processes.Pool(2) as pool:
        assert sorted(pool.run(abs, [(-1,), (-2,)])) == [(0, 1), (1, 2)]
        for worker in pool.workers:
            worker.process.kill()
            worker.process.join()
        assert sorted(pool.run(abs, [(-3,), (-4,)])) == [(0, 3), (1, 4)]


def test_an_interrupt_ends_all_processes(tmp_path):
    words = ["demo", "--backend", "numpy", "--steps", "2000", "--processes", "2", "--out", str(tmp_path)]
    code = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
        f"from ref_bioplaus.__main__ import app\nif __name__ == '__main__': app({words})"
    )
    demo = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert demo.stdout.readline().startswith("Learning")
        assert "test error" in demo.stdout.readline()
        demo.send_signal(signal.SIGINT)
        printed, complaints = demo.communicate(timeout=120)
    except BaseException:
        os.killpg(demo.pid, signal.SIGKILL)
        demo.communicate()
        raise
    assert demo.returncode == 130 and printed.splitlines()[-1].startswith("Interrupted"), complaints
    assert json.loads((tmp_path / "demo.json").read_text())["trainings"]
    with pytest.raises(ProcessLookupError):  # nobody of its session is left
        for _ in range(100):
            os.killpg(demo.pid, 0)
            time.sleep(0.1)
