"""Code of one's own in the programs that run several things, and in a script and a notebook."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from asv_bench import cases, page
from asv_bench.flops import step_flops
from asv_bench.workloads import WORKLOADS
from ref_bioplaus.experiments.demo import running
from ref_bioplaus.experiments.demo.results import Settings
from ref_bioplaus.experiments.many import table as cells
from ref_bioplaus.experiments.runs import logs
from ref_bioplaus.experiments.spec.experiment import Experiment, as_toml, read
from ref_bioplaus.experiments.training.starting import resume, train
from tests.conftest import get
from tests.helpers import ROOT
from tests.helpers.commands import printed

RULE = "my_rule.py:rule"
SMALL = {"model": "akrout2019/mlp", "model_options": {"hidden": 3}, "dataset": "embedded", "batch": 700, "steps": 1}
RANGES = """
trials = 1
[[range]]
[range.of]
"algorithm_options.gain" = {kind = "uniform", low = 0.5, high = 1.5}
"""
SCRIPT = """
import sys
from my_rule import rule as ours
from ref_bioplaus.experiments import Experiment, train
from ref_bioplaus.experiments.many import jobs
from pathlib import Path

def mine(network, loss, optimizer, gain: float = 1.0):
    return ours(network, loss, optimizer, gain)

if __name__ == "__main__":
    small = dict(model="akrout2019/mlp", model_options={"hidden": 3}, dataset="embedded", batch=700, steps=1)
    experiment = Experiment(algorithm=mine, algorithm_options={"gain": 0.5}, **small)
    train(experiment, "here")
    (other,) = jobs.run([jobs.Job("it", experiment, Path("there"))])
    print(other.sentence)
"""


def test_reproduce_puts_a_rule_in_the_place_of_a_row(here):
    table = ("reproduce", "bartunov2018/table1", "--column", "mnist-fc", "--out", "runs")
    small = ("--epochs", 1, "--set", "dataset=embedded", "--set", "batch=700", "--set", "model_options.width=0.02",
             "--set", "steps=1")  # fmt: skip
    assert "1 runs, 0 of them finished" in printed(*table, *small, "--method", RULE)
    run = read(Path("runs/bartunov2018/table1/mnist-fc/own-my_rule.py-rule/seed-0") / logs.EXPERIMENT)
    assert (run.algorithm, run.algorithm_options) == (RULE, {})
    assert run.optimizer == cells.experiment_of("bartunov2018/table1", "mnist-fc", "backprop").optimizer
    assert "1 of them finished" in printed(*table, *small, "--method", RULE)
    os.unlink("my_rule.py")
    said = printed(*table, "--report")
    assert f"algorithm is {RULE}, the paper's experiment has backprop" in said
    page = next(Path("runs").glob("*.md")).read_text()
    assert f"\n| {RULE} | " in page and "\n| BP | " in page


def test_search_takes_a_rule_that_its_file_names_once_it_is_named(here):
    (here / "ranges.toml").write_text(RANGES)
    (here / "e.toml").write_text(as_toml(Experiment(algorithm=RULE, **SMALL, metrics=())))
    words = ("search", "ranges.toml", "--experiment", "e.toml", "--held-out", 700, "--out", "search")
    assert "--code my_rule.py" in printed(*words, code=2)
    assert "1 of 1 trials have ended" in printed(*words, "--code", "my_rule.py")


def test_the_demo_has_a_rule_in_its_processes_and_a_lambda_in_its_own(here, monkeypatch):
    monkeypatch.setattr(running, "FEWEST", 1)
    found = running.run(Settings(("numpy",), (RULE,), steps=2, processes=2))
    assert found.environment["processes"].startswith("2,") and not found.failures
    assert [t.row.label for t in found.trainings] == [RULE]
    lasting = {"backprop": None}

    def local(network, loss, optimizer):
        return running.registry.row(next(iter(lasting))).build(network, loss, optimizer)

    here_alone = running.run(Settings(("numpy",), (local, "backprop"), steps=2, processes=2))
    assert "processes" not in here_alone.environment and not here_alone.failures
    ours, mine = (t for t in here_alone.trainings if t.architecture.name == "fc")
    assert ours.row.name == "backprop" and mine.curve == ours.curve


def test_the_benchmarks_time_a_rule(here):
    workload = replace(WORKLOADS["W1"].smaller((9,), 5, 5 / 256), batch=2)
    assert step_flops(workload.network(), RULE, workload) == step_flops(workload.network(), "FA", workload)
    records = [*cases.steps(workload, get("numpy", "float32"), [RULE], 0.0)]
    assert [r["method"] for r in records] == ["BP", RULE]
    tables = page.algorithm_tables([r | {"workload": "W1"} for r in records])
    assert [name for name, _ in tables[0].rows] == ["BP", RULE]


def test_a_rule_learns_on_one_library_and_goes_on_on_another(here):
    get("array-api-strict", "float32")
    train(Experiment(algorithm=RULE, **SMALL), "run")
    there = resume("run", steps=2, code="my_rule.py", backend="array-api-strict", kernels="portable")
    alone = train(Experiment(algorithm=RULE, **SMALL | {"steps": 2}), "alone")
    assert there.records[-1]["test_loss"] == pytest.approx(alone.records[-1]["test_loss"], rel=1e-5)
    assert [segment["backend"] for segment in there.segments] == ["numpy", "array-api-strict"]


def test_a_function_of_a_script_is_found_by_other_processes(here):
    (here / "script.py").write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "script.py"], env=environment, capture_output=True, text=True, check=False)
    assert "Done: 1 steps." in done.stdout, done.stdout + done.stderr
    for out in ("here", "there"):
        assert read(Path(out) / logs.EXPERIMENT).algorithm == str(here / "script.py") + ":mine"
    assert logs.records(Path("here"))[-1]["train_loss"] == logs.records(Path("there"))[-1]["train_loss"]
    assert "Done" in printed("resume", "here", "--steps", 2, "--code", "script.py")
    as_module = SCRIPT.replace('"here"', '"again"').replace('Path("there")', 'Path("beside")')
    (here / "script.py").write_text(as_module)
    words = [sys.executable, "-m", "script"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert "Done: 1 steps." in done.stdout and read(Path("beside") / logs.EXPERIMENT).algorithm == "script:mine"


def test_a_function_of_a_notebook_is_kept_as_its_text(here, monkeypatch):
    """Whose module has no file; what it says is known to `inspect`, as IPython tells it."""
    module = sys.modules["__main__"]
    monkeypatch.delattr(module, "__file__", raising=False)
    monkeypatch.setattr(module, "__spec__", None)
    text = "def cell(network, loss, optimizer):\n    return algorithms.backprop(network, loss, optimizer)\n"
    import linecache

    from ref_bioplaus import algorithms

    scope = {"__name__": "__main__", "algorithms": algorithms}
    linecache.cache["<cell 1>"] = (len(text), None, text.splitlines(keepends=True), "<cell 1>")
    exec(compile(text, "<cell 1>", "exec"), scope)
    monkeypatch.setattr(module, "cell", scope["cell"], raising=False)
    run = train(Experiment(algorithm=scope["cell"], **SMALL), "run")
    assert run.experiment.algorithm == "__main__:cell"
    (kept,) = (here / "run" / "code").iterdir()
    assert kept.read_text() == text
    assert "was given to Python without a name that leads to it" in printed("resume", "run", "--steps", 2, code=2)
    assert resume("run", steps=2, code=scope["cell"]).step == 2
