"""Random search: what is drawn, that the test images stay closed, and that a stopped search goes on."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from ref_bioplaus.experiments import papers
from ref_bioplaus.experiments.many import jobs, search, table
from ref_bioplaus.experiments.runs import logs
from ref_bioplaus.experiments.spec.checking import checked
from ref_bioplaus.experiments.spec.experiment import Experiment, ExperimentError, as_toml, read
from ref_bioplaus.experiments.training import starting
from tests.helpers.commands import command
from tests.helpers.embedded_data import embedded_data

BASE = Experiment(
    dataset="embedded", batch=500, epochs=2, held_out=300, optimizer={"name": "sgd", "eta": 0.1},
    model_options={"width": 0.05}, metrics=(),
)  # fmt: skip
RANGES = """
source = "ours"
trials = 3

[[range]]
[range.of]
"optimizer.eta" = { kind = "log-uniform", low = 1e-3, high = 1.0 }
"optimizer.momentum" = { kind = "choice", values = [0.0, 0.9] }
"""


def of(**range):
    return {"optimizer.eta": range}


def test_what_is_drawn_lies_in_its_range_as_its_kind_says():
    ranges = {
        "a": {"kind": "log-uniform", "low": 1e-5, "high": 1e-1},
        "b": {"kind": "uniform", "low": -2.0, "high": 6.0},
        "c": {"kind": "choice", "values": ["x", "y", "z"]},
        "d": {"kind": "uniform", "low": 0.0, "high": 1.0},
    }
    found = [search.drawn(ranges, 7, trial) for trial in range(3000)]
    powers, b, d = (
        np.log10([f["a"] for f in found]),
        np.array([f["b"] for f in found]),
        np.array([f["d"] for f in found]),
    )
    for numbers, low, high in ((powers, -5, -1), (b, -2, 6), (d, 0, 1)):
        assert low <= numbers.min() <= low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) <= numbers.max() <= high
        quarters = np.quantile(numbers, [0.25, 0.5, 0.75])
        assert np.abs(quarters - (low + (high - low) * np.array([0.25, 0.5, 0.75]))).max() < 0.04 * (high - low)
    assert abs(np.corrcoef(b, d)[0, 1]) < 0.06
    counts = [sum(f["c"] == value for f in found) for value in "xyz"]
    assert min(counts) > 900
    assert len({f["d"] for f in found}) == len(found)


def test_a_draw_depends_on_seed_and_trial_alone():
    ranges = of(kind="uniform", low=0.0, high=1.0)
    assert search.drawn(ranges, 1, 5) == search.drawn(dict(ranges), 1, 5)
    assert len({search.drawn(ranges, seed, trial)["optimizer.eta"] for seed in range(4) for trial in range(4)}) == 16


@pytest.mark.parametrize(
    ("range", "said"),
    [
        ({"kind": "log-uniforn", "low": 1, "high": 2}, 'kind of range of optimizer.eta "log-uniforn" is unknown.*log-'),
        ({"low": 1, "high": 2}, '"None" is unknown'),
        (3, '"None" is unknown'),
        ({"kind": "uniform", "low": 1}, "needs low and high"),
        ({"kind": "uniform", "low": 1, "high": 2, "values": []}, "nothing else"),
        ({"kind": "uniform", "low": 2, "high": 1}, "from 2 to 1, expected numbers in order"),
        ({"kind": "uniform", "low": "1", "high": 2}, "from '1' to 2"),
        ({"kind": "uniform", "low": math.nan, "high": 2.0}, "from nan"),
        ({"kind": "log-uniform", "low": 0, "high": 2}, "both above 0"),
        ({"kind": "choice", "values": []}, "expected a list of some"),
    ],
)
def test_a_range_that_is_none_is_refused(range, said):
    with pytest.raises(ExperimentError, match=said):
        search.check_range("optimizer.eta", range)


def test_files_of_ranges_that_are_not_understood(tmp_path):
    for text, said in (
        ("range =", "not TOML"),
        ("trials = 3", "no \\[\\[range\\]\\]"),
        ('trials = "many"\n[[range]]\nof = {}', "trials of .* is 'many', expected a whole number"),
        ("[[range]]\na = 1", "no"),
    ):
        path = tmp_path / "ranges.toml"
        path.write_text(text)
        with pytest.raises(ExperimentError, match=said):
            search.read_ranges(str(path))
    with pytest.raises(ExperimentError, match="cannot be read"):
        search.read_ranges(str(tmp_path / "none.toml"))
    with pytest.raises(ExperimentError, match='"bartunov2018-tabel4" is unknown: did you mean bartunov2018-table4'):
        search.read_ranges("bartunov2018-tabel4")


def test_a_path_into_a_value_and_a_damaged_folder_are_sentences(tmp_path):
    with pytest.raises(ExperimentError, match='The range of batch.x is not understood: "batch" is a value'):
        search.with_values(BASE, {"batch.x": 1})
    (tmp_path / "trial-0000").mkdir()
    ranges = search.Ranges("mine", 1, (((), {"optimizer.eta": {"kind": "choice", "values": [0.1]}}),))
    for damaged in ("[1, 2", "[]", "{}"):
        (tmp_path / search.SEARCH).write_text(damaged)
        with pytest.raises(ExperimentError, match="search.json is damaged: name another folder"):
            search.Search(BASE, ranges, tmp_path, 1)


def test_a_search_goes_on_though_experiments_have_a_field_more_by_now(tmp_path):
    ranges = search.Ranges("mine", 1, (((), {"optimizer.eta": {"kind": "choice", "values": [0.1]}}),))
    search.Search(BASE, ranges, tmp_path, 1).write_folder()
    (tmp_path / "trial-0000").mkdir()
    written = json.loads((tmp_path / search.SEARCH).read_text())
    assert written["experiment"].pop("seed") == 0
    (tmp_path / search.SEARCH).write_text(json.dumps(written))
    search.Search(BASE, ranges, tmp_path, 1)
    with pytest.raises(ExperimentError, match="has experiment.seed = 0, not 3"):
        search.Search(replace(BASE, seed=3), ranges, tmp_path, 1)


def test_table_4_is_what_the_paper_has(tmp_path):
    """Bounds and choices as printed; alpha for DTP alone; and every draw is an experiment."""
    ranges = search.read_ranges("bartunov2018/table4")
    assert ranges.trials == 60
    own = {
        "optimizer.eta": {"kind": "log-uniform", "low": 1e-5, "high": 3e-4},
        "optimizer.b1": {"kind": "choice", "values": [0.9]},
        "optimizer.b2": {"kind": "choice", "values": [0.99, 0.999]},
        "optimizer.epsilon": {"kind": "choice", "values": [1e-4, 1e-6, 1e-8]},
    }
    inverse = {f"inverse_{path}": r for path, r in own.items()}
    noise = {"algorithm_options.noise": {"kind": "uniform", "low": 0.01, "high": 0.3}}
    alpha = {"algorithm_options.alpha": {"kind": "uniform", "low": 0.01, "high": 0.2}}
    for row in papers.table("bartunov2018/table1").rows:
        expected = own
        if "tp" in row.id:
            expected = own | inverse | noise | (alpha if row.id.startswith("dtp") else {})
        assert ranges.of(row.algorithm) == expected
        column = "mnist-fc" if row.id != "backprop-convnet" else "mnist-lc"
        base = table.experiment_of("bartunov2018/table1", column, row.id)
        found = search.Search(base, ranges, tmp_path / row.id, trials=4).todo()
        assert len(found) == 4
        assert {(job.experiment.held_out, job.experiment.test) for job in found} == {(10_000, False)}


def test_the_test_images_are_not_looked_at(tmp_path):
    data = embedded_data()
    whole = data.batches

    def closed(split, *arguments, **options):
        assert split != "test"
        return whole(split, *arguments, **options)

    data.batches = closed
    ranges = search.Ranges("ours", 1, (((), of(kind="uniform", low=0.1, high=0.2)),))
    (job,) = search.Search(replace(BASE, held_out=0), ranges, tmp_path, 1, held_out=100).todo()
    run = starting.train(job.experiment, job.out, images=data)
    assert "validation_error" in run.records[-1]
    assert not [name for record in run.records for name in record if "test" in name]
    with pytest.raises(AssertionError):
        starting.train(replace(job.experiment, test=True), tmp_path / "open", images=data)


def test_an_experiment_without_test_and_held_out_images_is_refused():
    with pytest.raises(ExperimentError, match="nothing would be measured"):
        checked(Experiment(test=False))


def found_in(out):
    return [json.loads(line) for line in (out / search.RESULTS).read_text().splitlines()]


def test_a_search_from_end_to_end(tmp_path):
    """Two trials, then five, of which the first two are not run again, also where a kill left no line of them."""
    (tmp_path / "ranges.toml").write_text(RANGES)
    (tmp_path / "base.toml").write_text(as_toml(BASE))
    out = tmp_path / "out"

    def invoke(*options, code=0):
        given = ("search", tmp_path / "ranges.toml", "--experiment", tmp_path / "base.toml", "--out", out, *options)
        return command(*given, code=code)

    done = invoke("--trials", 2, "--jobs", 2)
    first = found_in(out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("log.jsonl")}
    assert len(before) == 2
    (out / search.RESULTS).unlink()
    done = invoke("--trials", 5)
    lines = found_in(out)
    assert lines[:2] == first
    assert [line["trial"] for line in lines] == [0, 1, 2, 3, 4]
    assert before == {path: path.stat().st_mtime_ns for path in before}
    for line in lines:
        records = logs.records(out / f"trial-{line['trial']:04d}")
        errors = {r["epoch"]: r["validation_error"] for r in records if r["step"]}
        assert line["score"] == min(errors.values()) == errors[line["epoch"]]
        assert line["final"] == errors[2]
        stored = logs.stored(out / f"trial-{line['trial']:04d}").optimizer
        assert line["values"] == {f"optimizer.{name}": stored[name] for name in ("eta", "momentum")}
        assert 1e-3 <= stored["eta"] <= 1.0
    best = min(lines, key=lambda line: line["score"])
    assert read(out / search.BEST) == checked(search.with_values(BASE, best["values"]))
    assert f"trial {best['trial']}" in done.output
    assert f"{best['score']:.4g}" in done.output
    assert "5 of 5 trials" in invoke("--report").output
    alone = invoke("--out", tmp_path / "alone", "--trials", 5, "--trial", 3)
    assert "1 of 1 trials" in alone.output
    (only,) = found_in(tmp_path / "alone")
    assert (only["trial"], only["score"]) == (3, lines[3]["score"])
    assert (
        "Trial 5 is not one of this search: name one of 0 to 4." in invoke("--trials", 5, "--trial", 5, code=2).output
    )
    for options, said in (
        (("--seed", 1), "has seed = 0, not 1"),
        (("--epochs", 3), "has experiment.epochs = 2, not 3"),
        (("--set", "optimizer.eta=0.2"), "has experiment.optimizer.eta = 0.1, not 0.2"),
    ):
        refused = invoke(*options, code=2)
        assert said in refused.output
    (tmp_path / "ranges.toml").write_text(RANGES.replace("0.9]", "0.95]"))
    assert "has ranges.optimizer.momentum = {'kind': 'choice', 'values': [0.0, 0.9]}, not" in invoke(code=2).output


def test_a_search_that_cannot_begin_leaves_nothing_behind(tmp_path):
    (tmp_path / "base.toml").write_text(as_toml(BASE))
    out = tmp_path / "out"

    def invoke(ranges, *options, code=0):
        (tmp_path / "ranges.toml").write_text(ranges)
        given = ("search", tmp_path / "ranges.toml", "--experiment", tmp_path / "base.toml", "--out", out, *options)
        return command(*given, code=code)

    for ranges, options, said in (
        (RANGES.replace("optimizer.eta", "optimiser.eta"), (), 'field "optimiser" is unknown: did you mean optimizer'),
        (RANGES.replace("optimizer.eta", "optimizer.etta"), (), '"etta" is unknown'),
        (RANGES, ("--backend", "jaxx"), 'backend "jaxx" is unknown'),
    ):
        refused = invoke(ranges, *options, code=2)
        assert said in refused.output
        assert not out.exists()
    nothing = invoke(RANGES, "--report")
    assert "0 of 3 trials have ended" in nothing.output
    assert not out.exists()


def test_a_search_without_trials_is_written_anew(tmp_path):
    ranges = search.Ranges("mine", 1, (((), of(kind="choice", values=[0.1])),))
    for seed in (0, 1):
        assert search.Search(BASE, ranges, tmp_path, 1, seed).todo()
        assert json.loads((tmp_path / search.SEARCH).read_text())["seed"] == seed


def test_a_trial_whose_loss_is_not_finite_comes_last_and_is_not_run_again(tmp_path):
    ranges = search.Ranges("ours", 2, (((), of(kind="choice", values=[1e38])),))
    found = search.Search(BASE, ranges, tmp_path, 2)
    outcomes = jobs.run(found.todo())
    assert [outcome.end for outcome in outcomes] == [jobs.FAILED] * 2
    assert found.todo() == []
    lines = found.collected()
    assert [(line["trial"], line["score"], line["failed"]) for line in lines] == [(0, None, True), (1, None, True)]
    assert not (tmp_path / search.BEST).exists()


def test_what_a_trial_reached_before_its_loss_was_not_finite_does_not_count(tmp_path):
    ranges = search.Ranges("ours", 1, (((), of(kind="choice", values=[0.1])),))
    found = search.Search(BASE, ranges, tmp_path, 1)
    job = found.job(0)
    job.out.mkdir()
    record = {"step": 5, "epoch": 1, "seconds": 1.0, "train_loss": 1.0, "validation_error": 20.0}
    (job.out / logs.LOG).write_text(json.dumps(record) + "\n")
    assert found.line(0, job)["score"] == 20.0
    (job.out / logs.FAILURE).write_text("The loss is not finite.")
    assert (found.line(0, job)["score"], found.line(0, job)["final"]) == (None, None)


def test_trials_of_the_same_values_count_once_and_one_that_learned_nothing_says_so(tmp_path):
    ranges = 'trials = 3\n[[range]]\n[range.of]\n"optimizer.eta" = { kind = "choice", values = [0.1] }\n'
    (tmp_path / "ranges.toml").write_text(ranges)
    base = replace(BASE, algorithm="dtp-alternating", epochs=1, optimizer={"name": "sgd", "eta": 0.1}, batch=1000)
    (tmp_path / "base.toml").write_text(as_toml(base))
    given = ("search", tmp_path / "ranges.toml", "--experiment", tmp_path / "base.toml", "--out", tmp_path / "out")
    done = command(*given)
    assert [line["repeats"] for line in found_in(tmp_path / "out")] == [None, 0, 0]
    assert ["trial", "0"] in [line.split() for line in done.output.splitlines()]  # a table of this one alone
    assert "Trial 2 has the values of trial 0: they count once." in done.output
    assert "trial 0: numpy on cpu, native kernels, float32 (ieee); " in done.output
    assert "Trial 0: no forward weight has learned (0 forward, 1 inverse)" in done.output
    assert "the best are shown, by the lowest validation error of all their epochs" in done.output


def test_what_to_search_is_named_once(tmp_path):
    for options in (
        (),
        ("--table", "bartunov2018/table1", "--column", "mnist-fc"),
        ("--experiment", "a.toml", "--table", "bartunov2018/table1", "--method", "bp"),
    ):
        refused = command("search", "bartunov2018-table4", "--out", tmp_path / "out", *options, code=2)
        assert "Name what to search" in refused.output
