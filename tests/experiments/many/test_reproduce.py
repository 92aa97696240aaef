"""The papers' tables again: every cell is an experiment, a stopped run goes on, and numbers are those of the logs."""

import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from math import prod
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ref_bioplaus import registry
from ref_bioplaus.experiments import papers
from ref_bioplaus.experiments.data import augmentation, loading
from ref_bioplaus.experiments.figures import comparison, series
from ref_bioplaus.experiments.many import jobs, side_by_side
from ref_bioplaus.experiments.many import table as reproduce
from ref_bioplaus.experiments.runs import checkpoints, logs
from ref_bioplaus.experiments.runs.folder import Busy, alone
from ref_bioplaus.experiments.spec import phases
from ref_bioplaus.experiments.spec.building import Shape, build
from ref_bioplaus.experiments.spec.checking import checked
from ref_bioplaus.experiments.spec.experiment import Experiment, ExperimentError, as_toml, from_dict
from ref_bioplaus.experiments.training import starting
from ref_bioplaus.machine import environment
from ref_bioplaus.models import MODELS
from tests.conftest import get
from tests.helpers import ROOT
from tests.helpers.commands import command
from tests.helpers.small_models import CLASSES, SIZES

CELLS = [(table.name, column, row) for table in papers.tables() for row, column in table.cells]
TABLE, COLUMN = "bartunov2018/table1", "mnist-fc"
STEPS = 7  # an epoch
QUICK = ("--set", "dataset=embedded", "--set", "batch=500", "--set", "model_options.width=0.05")
EPOCHS = 25


def small_shape(model):
    """Images that the small form of a model takes."""
    in_shape = SIZES[model]["in_shape"]
    return Shape((3, 3, 1) if in_shape == (9,) else in_shape, CLASSES, STEPS)


def small_options(experiment):
    options = {name: value for name, value in experiment.model_options.items() if name not in ("in_shape", "hidden")}
    if "auxiliary" in options:
        options["auxiliary"] = 3
    sizes = dict(SIZES[experiment.model])
    assert prod(sizes.pop("in_shape")) == prod(small_shape(experiment.model).in_shape)
    return options | sizes


@pytest.mark.parametrize("cell", CELLS, ids=["-".join(cell) for cell in CELLS])
def test_every_cell_is_an_experiment_that_can_be_built(cell, numpy64):
    experiment = reproduce.experiment_of(*cell)
    assert checked(experiment) == experiment
    for path, value in papers.flat(papers.experiment(*cell)):
        place = reproduce.as_dict(experiment)
        for name in path.split("."):
            place = place[name]
        assert place == value, path
    small = replace(experiment, model_options=small_options(experiment), dtype="float64")
    built = build(small, numpy64, small_shape(experiment.model))
    assert set(built.algorithm.modes)
    starts = [options["start"] for name, options in built.row.wrappers if name == "fixed-signs"]
    row = cell[2]
    shares = [0.05] if row.endswith("-ei") else [int(row.removeprefix("ei-")) / 100] if row.startswith("ei-") else []
    assert starts == [round(share * experiment.epochs * STEPS) for share in shares]


def test_every_augmentation_gives_the_size_that_the_models_are_made_for():
    sizes = {"none": None, "flip": None, "flip-crop": None, "flip-crop-24": 24, "flip-crop-299": 299,
             "flip-random-resized-crop-224": 224, "centre-crop-224": 224}  # fmt: skip
    for cell in CELLS:
        experiment = reproduce.experiment_of(*cell)
        size = sizes[experiment.augmentation]
        assert augmentation.parse(experiment.augmentation).size == (None if size is None else (size, size))
        made_for = inspect.signature(MODELS[experiment.model]).parameters["in_shape"].default
        if size is not None:
            assert made_for[:2] == (size, size), cell


def test_a_modification_overrides_the_rows_own():
    experiment = reproduce.experiment_of("moskovitz2018/table1", "mnist", "backprop-alignment")
    assert experiment.modifications == {"align-to-random": {"strength": 0.001}}
    shape = small_shape(experiment.model)
    for strength in (0.001, 0.25):
        changed = replace(
            experiment,
            model_options=small_options(experiment),
            modifications={"align-to-random": {"strength": strength}},
        )
        assert build(changed, get("numpy"), shape).row.wrappers == (("align-to-random", {"strength": strength}),)


def test_rows_and_seeds_come_in_the_order_that_was_asked_for(tmp_path):
    plan = reproduce.planned(TABLE, COLUMN, ["dfa", "bp", "AO-SDTP, parallel"], seeds=2, out=tmp_path, epochs=3)
    assert [(job.out.relative_to(tmp_path / TABLE / COLUMN).as_posix(), job.experiment.seed) for job in plan] == [
        ("dfa/seed-0", 0),
        ("backprop/seed-0", 0),
        ("ao-sdtp/seed-0", 0),
        ("dfa/seed-1", 1),
        ("backprop/seed-1", 1),
        ("ao-sdtp/seed-1", 1),
    ]
    assert {job.experiment.epochs for job in plan} == {3}
    ids = [row.id for row in papers.table(TABLE).rows if row.id != "backprop-convnet"]
    assert [job.out.parent.name for job in reproduce.planned(TABLE, COLUMN)] == ids
    assert reproduce.planned("lee2015/mnist", None, ["bp"])[0].experiment.model == "lee2015/mnist"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("bartunov2018/tabel1", COLUMN, ["bp"]), 'Table "bartunov2018/tabel1" is unknown.*bartunov2018/table1'),
        ((TABLE, "mnist-cf", ["bp"]), 'Column .*"mnist-cf" is unknown: did you mean .*mnist-fc'),
        ((TABLE, COLUMN, ["dtp-alternatin"]), 'row "dtp-alternatin" of .* is unknown: did you mean dtp-alternating'),
        ((TABLE, COLUMN, ["bpp"]), 'row "bpp" of .* is unknown: did you mean bp'),
        ((TABLE, COLUMN, ["backprop-convnet"]), 'no "backprop-convnet" in column "mnist-fc"'),
        ((TABLE, None, ["bp"]), "name one: mnist-fc, mnist-lc, cifar-fc, cifar-lc"),
    ],
)
def test_wrong_names_list_the_nearest(names, said):
    with pytest.raises(ExperimentError, match=said):
        reproduce.planned(*names)


# Logs written by hand


def record(epoch, train, test, **more):
    return {"step": 4 * epoch, "epoch": epoch, "train_error": train, "test_error": test, "seconds": 1.0} | more


def written_run(out, row, seed, rows, table=TABLE, column=COLUMN, **changes):
    folder = reproduce.folder(out, table, column, row, seed)
    folder.mkdir(parents=True)
    experiment = replace(reproduce.experiment_of(table, column, row), seed=seed, **changes)
    (folder / "experiment.toml").write_text(as_toml(experiment))
    (folder / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def test_spread_best_and_unfinished_seeds(tmp_path):
    ends = {0: 1.0, 2: 2.0, 10: 4.0}
    for seed, end in ends.items():
        rows = [
            record(0, None, 90.0),
            record(250, 0.5, end / 2),
            record(500, 0.25 * end, end, seconds=2000.6 + seed / 20),
        ]
        written_run(tmp_path, "backprop", seed, rows)
    cut = written_run(tmp_path, "backprop", 1, [record(0, None, 90.0), record(1, 8.0, 9.0), record(2, 7.0, 9.5)])
    with open(cut / "log.jsonl", "a") as log:
        log.write('{"step": 12, "epoch": 3, "test_er')
    report = reproduce.reported(TABLE, COLUMN, tmp_path, ["bp", "fa"])
    whole, partial, missing = report.lines
    assert (whole.seeds, whole.epoch, whole.epochs) == ((0, 2, 10), 500, 500)
    assert whole.final["test error"] == (pytest.approx(7 / 3), pytest.approx((7 / 3) ** 0.5), 3)
    assert whole.best["test error"] == (pytest.approx(7 / 6), pytest.approx((7 / 12) ** 0.5), 3)
    assert whole.final["train error"].mean == pytest.approx(7 / 12)
    assert whole.best["train error"].mean == pytest.approx((0.25 + 0.5 + 0.5) / 3)
    assert (partial.seeds, partial.epoch) == ((1,), 2)
    assert partial.final["test error"] == (9.5, None, 1)
    assert partial.best["test error"] == (9.0, None, 1)
    assert not missing.seeds
    assert not missing.final
    rows = side_by_side.text_rows(report)
    assert rows[1] == ("", "test error", "1.48", "2.33 ± 1.53", "+0.85", "1.17 ± 0.76", "-0.31", "", "", "")
    assert rows[0][-3:] == ("0, 2, 10", "500 of 500", "2,001")
    assert rows[2][-3:] == ("1", "2 of 500", "1")
    assert rows[3][3:7] == ("9.50", "+8.02", "9.00", "+7.52")
    assert rows[4] == ("FA", "train error", "0.00", "–", "–", "–", "–", "missing", "missing", "–")
    page, numbers = side_by_side.write(report, tmp_path)
    assert page.name == "bartunov2018-table1-mnist-fc.md"
    assert "| BP | test error |" not in page.read_text()
    assert "|  | test error | 1.48 | 2.33 ± 1.53 | +0.85 | 1.17 ± 0.76 | -0.31 |  |  |  |" in page.read_text()
    content = json.loads(numbers.read_text())
    assert content["rows"][0]["difference"]["best"]["test error"] == pytest.approx(7 / 6 - 1.48)
    assert [row["missing"] for row in content["rows"]] == [False, False, True]
    assert [run["seed"] for run in content["runs"]] == [0, 1, 2, 10]
    assert content["runs"][0]["best_epoch"] == {"train error": 500, "test error": 250}


def test_a_best_error_of_the_paper_is_compared_with_the_best_only(tmp_path):
    rows = [record(1, 60.0, 50.0), record(2, 40.0, 51.0)]
    written_run(tmp_path, "backprop", 0, rows, "akrout2019/public-code", "cifar10")
    report = reproduce.reported("akrout2019/public-code", "cifar10", tmp_path, ["bp"])
    final, best = side_by_side.text_rows(report)
    assert final[2:7] == ("51.82", "51.00", "-0.82", "50.00", "-1.82")
    assert best[2:7] == ("48.03", "–", "–", "50.00", "+1.97")


def test_an_epoch_without_forward_learning_has_no_train_error(tmp_path):
    rows = [record(1, None, 50.0), record(2, 30.0, 40.0), record(3, None, 41.0)]
    written_run(tmp_path, "dtp-alternating", 0, rows)
    (line,) = reproduce.reported(TABLE, COLUMN, tmp_path, ["dtp-alternating"]).lines
    assert line.final["train error"].mean == line.best["train error"].mean == 30.0
    assert line.final["test error"].mean == 41.0


def test_a_run_that_was_not_measured_has_reached_epoch_0(tmp_path):
    written_run(tmp_path, "backprop", 0, [record(0, None, 90.0)])
    (line,) = reproduce.reported(TABLE, COLUMN, tmp_path, ["bp"]).lines
    assert (line.seeds, line.epoch, line.final, line.best) == ((0,), 0, {}, {})


def test_departures_and_failures_are_said(tmp_path):
    optimizer = dict(reproduce.experiment_of(TABLE, COLUMN, "backprop").optimizer) | {"eta": 0.5}
    folder = written_run(tmp_path, "backprop", 0, [record(1, 9.0, 9.0)], optimizer=optimizer, backend="jax", epochs=3)
    (folder / logs.FAILURE).write_text("The loss is not finite.")
    notes = reproduce.reported(TABLE, COLUMN, tmp_path).notes
    assert notes == [
        "backprop seed 0: optimizer.eta is 0.5, the paper's experiment has 0.000152",
        "backprop seed 0: failed: The loss is not finite.",
    ]


@pytest.mark.parametrize("row", [row.name for row in registry.ROWS])
def test_how_many_epochs_taught_the_forward_weights_is_asked_of_every_rows_schedule(row):
    """Three epochs of five batches and two batches more; those that alternate begin with their inverses."""
    alternates = "schedule" in registry.row(row).options
    found = phases.taken(registry.row(row), phases.schedule_of(Experiment(algorithm=row)), 5, 17)
    assert (found.forward, found.others) == ((1.4, {"inverse": 2.0}) if alternates else (3.4, {}))
    assert str(found) == ("1.4 forward, 2 inverse" if alternates else "")
    first = phases.taken(registry.row(row), phases.schedule_of(Experiment(algorithm=row)), 5, 5)
    assert first.sentence().startswith("no forward weight has learned (0 forward, 1 inverse)") == alternates
    assert phases.taken(registry.row(row), phases.schedule_of(Experiment(algorithm=row)), 5, 6).sentence() == ""
    many = phases.taken(registry.row(row), phases.schedule_of(Experiment(algorithm=row)), 10**6, 3 * 10**6)
    assert (many.forward, many.others) == ((1.0, {"inverse": 2.0}) if alternates else (3.0, {}))


def test_a_table_says_how_many_epochs_were_of_inverse_learning_alone(tmp_path):
    written_run(tmp_path, "dtp-alternating", 0, [record(0, None, 90.0), record(1, None, 90.0)])
    written_run(tmp_path, "dtp-alternating", 1, [record(1, None, 90.0), record(2, 30.0, 40.0), record(3, None, 41.0)])
    report = reproduce.reported(TABLE, COLUMN, tmp_path, ["dtp-alternating"])
    shown = [row[-2] for row in side_by_side.text_rows(report)][::2]
    assert shown == ["3 of 500 (1 forward, 2 inverse)", "1 of 500 (0 forward, 1 inverse)"]
    (note,) = report.notes
    assert note.startswith("dtp-alternating seed 0: no forward weight has learned (0 forward, 1 inverse)")
    rows = json.loads(side_by_side.as_json(report))["rows"]
    assert [row["phases"] for row in rows] == [
        {"forward": 1.0, "others": {"inverse": 2.0}},
        {"forward": 0.0, "others": {"inverse": 1.0}},
    ]
    headings, (first, second) = comparison.table([series.read(r) for r in sorted(tmp_path.rglob("seed-*"))])
    assert [dict(zip(headings, row, strict=True))["epochs"] for row in (first, second)] == shown


def test_the_same_seed_in_two_folders_counts_once(tmp_path):
    rows = [record(1, 9.0, 9.0)]
    for seed in (0, 2):
        out = written_run(tmp_path, "backprop", seed, rows)
    shutil.copytree(out, out.with_name("seed-3"))
    written_run(tmp_path, "backprop", 4, [record(1, 9.0, 3.0)])
    report = reproduce.reported(TABLE, COLUMN, tmp_path, ["bp"])
    (line,) = report.lines
    assert (line.seeds, line.final["test error"]) == ((0, 2, 4), (7.0, pytest.approx(12**0.5), 3))
    assert report.notes == ["backprop, seed-3: has the experiment and the seed of seed-2, so they count once"]


def segment(**data):
    """A log's line on a segment, by hand."""
    images = {"dataset": "ylecun/mnist", "as_named": True, "train": 60_000, "test": 10_000, "labels": "digits",
              "sha256": "0123456789abcdef", "of": "the bytes of 3 files"}  # fmt: skip
    return {
        "segment": {
            "number": 1, "step": 0, "epoch": 0, "data": images | data, "backend": "torch", "device": "cuda:0 (H100)",
            "kernels": "native", "dtype": "float32", "precision": "tf32", "versions": {"torch": "2.9"},
            "processor": "A processor", "cores": 3, "threads": {},
        }
    }  # fmt: skip


def test_a_report_says_what_computed_its_runs_and_from_which_images(tmp_path):
    written_run(tmp_path, "backprop", 0, [segment(), record(1, 9.0, 9.0)])
    written_run(tmp_path, "backprop", 1, [segment(), record(1, 9.0, 8.0)])
    written_run(tmp_path, "dfa", 0, [record(1, 9.0, 9.0)], backend="jax")
    report = reproduce.reported(TABLE, COLUMN, tmp_path, ["bp", "dfa"])
    computed = [
        "backprop seed 0, backprop seed 1: torch on cuda:0 (H100), native kernels, float32 (tf32); A processor, 3 "
        "cores; torch 2.9; 60,000 training images of ylecun/mnist, sha256 0123456789ab of the bytes of 3 files",
        "dfa seed 0: jax, native kernels, float32 (ieee) as asked for; no record of its device, versions and images",
    ]
    assert report.computed == computed
    page, numbers = side_by_side.write(report, tmp_path)
    assert page.read_text("utf-8").endswith("What computed them:\n\n" + "".join(f"- {line}\n" for line in computed))
    assert json.loads(numbers.read_text("utf-8"))["runs"][0]["segments"] == [segment()["segment"]]


def test_other_images_do_not_stand_beside_the_papers_numbers(tmp_path):
    written_run(tmp_path, "backprop", 0, [segment(), record(1, 9.0, 9.0)])
    written_run(tmp_path, "backprop", 1, [segment(as_named=False), record(1, 9.0, 9.0)])
    written_run(tmp_path, "backprop", 2, [segment(dataset="own", as_named=None), record(1, 9.0, 9.0)], dataset="own")
    report = reproduce.reported(TABLE, COLUMN, tmp_path, ["bp"])
    rows = [row for row in side_by_side.text_rows(report) if row[1] == "test error"]
    assert [(row[2], row[4], row[6]) for row in rows] == [
        ("1.48", "+7.52", "+7.52"), ("of other images", "–", "–"), ("of other images", "–", "–"),
    ]  # fmt: skip
    assert report.notes == [
        "backprop seed 1: learned from images that are not those of ylecun/mnist by their class names and brightness",
        "backprop seed 2: dataset is own, the paper's experiment has ylecun/mnist",
    ]
    differences = [row["difference"]["final"] for row in json.loads(side_by_side.as_json(report))["rows"]]
    assert differences[1:] == [{}, {}] and differences[0]["test error"] == pytest.approx(7.52)


def test_an_edited_experiment_is_refused_before_anything_runs(tmp_path):
    folder = finished_run(tmp_path)
    newest = checkpoints.latest(folder)
    experiment = logs.stored(folder)
    checkpoints.save(folder, 8, newest.header | {"experiment": reproduce.as_dict(experiment)}, newest.tensors)
    assert reproduce.planned(TABLE, COLUMN, ["bp"], out=tmp_path, epochs=2)
    (folder / "experiment.toml").write_text(as_toml(replace(experiment, checkpoint_every=9.0)))
    with pytest.raises(ExperimentError, match="was edited, checkpoint_every = 9.0 where the run has 60.0"):
        reproduce.planned(TABLE, COLUMN, ["bp"], out=tmp_path, epochs=2)


def test_seeds_that_learned_with_other_settings_are_not_averaged(tmp_path):
    optimizer = dict(reproduce.experiment_of(TABLE, COLUMN, "backprop").optimizer) | {"eta": 0.5}
    for seed, end, changes in ((0, 1.0, {}), (1, 8.0, {"optimizer": optimizer}), (2, 3.0, {"backend": "jax"})):
        written_run(tmp_path, "backprop", seed, [record(2, 0.5, end)], **changes)
    found = reproduce.reported(TABLE, COLUMN, tmp_path, ["bp"]).lines
    assert [(line.seeds, line.epoch, line.final["test error"].mean) for line in found] == [
        ((0, 2), 2, 2.0),
        ((1,), 2, 8.0),
    ]
    for seed, changes in ((0, {}), (1, {"modifications": {"constant-norm": {}}})):
        written_run(tmp_path, "dfa", seed, [record(2, 0.5, 1.0)], **changes)
    report = reproduce.reported(TABLE, COLUMN, tmp_path, ["dfa"])
    assert [line.seeds for line in report.lines] == [(0,), (1,)]
    assert report.notes == ["dfa seed 1: modifications.constant-norm is {}, the paper's experiment has none"]
    table = "moskovitz2018/table1"
    for seed, epochs in ((0, 25), (1, 5)):  # signs fixed after another share of the same epochs
        written_run(tmp_path, "frsf-ei", seed, [record(5, 9.0, 9.0)], table, "mnist", epochs=epochs)
    report = reproduce.reported(table, "mnist", tmp_path, ["frsf-ei"])
    assert [line.seeds for line in report.lines] == [(0,), (1,)]
    assert report.notes == ["frsf-ei seed 1: epochs is 5, the paper's experiment has 25"]


def test_a_seed_among_the_settings_is_refused(tmp_path):
    with pytest.raises(ExperimentError, match='"seed = 7" would be that of every run: leave it out, --seeds 3 runs'):
        reproduce.planned(TABLE, COLUMN, ["bp"], seeds=2, out=tmp_path, settings=["seed = 7"])


def test_one_row_is_shown_and_every_row_is_written(tmp_path):
    for row in ("backprop", "dfa"):
        written_run(tmp_path, row, 0, [record(1, 9.0, 9.0)])
    done = invoke("--report", "--method", "dfa", "--out", tmp_path)
    assert "DFA" in done.output and "FA  " in done.output and "BP  " not in done.output
    content = json.loads((tmp_path / "bartunov2018-table1-mnist-fc.json").read_text())
    rows = [row.id for row in papers.table(TABLE).rows if row.id != "backprop-convnet"]
    assert [row["row"] for row in content["rows"]] == rows
    assert [row["row"] for row in content["rows"] if not row["missing"]] == ["dfa", "backprop"]


def finished_run(out, row="backprop", images=60_000, **changes):
    """A run of two epochs by hand, with a checkpoint of so many images."""
    folder = written_run(out, row, 0, [record(1, 9.0, 9.0), record(2, 8.0, 8.0)], epochs=2, **changes)
    header = {"step": 8, "images": images, "labels": "digits"} if images else {"step": 8}
    checkpoints.save(folder, 8, header, {"t": np.zeros(1, np.float32)})
    return folder


def test_a_finished_run_with_other_settings_is_refused(tmp_path):
    folder = finished_run(tmp_path)
    (job,) = reproduce.planned(TABLE, COLUMN, ["bp"], out=tmp_path, epochs=2, backend="jax")
    assert jobs.is_finished(job)
    said = re.escape(f"The run in {folder} has optimizer = ") + ".*'eta': 0.05.*start in another folder"
    with pytest.raises(ExperimentError, match=said):
        reproduce.planned(TABLE, COLUMN, ["fa", "bp"], out=tmp_path, epochs=2, settings=["optimizer.eta=0.05"])
    assert not reproduce.folder(tmp_path, TABLE, COLUMN, "feedback-alignment", 0).exists()


@pytest.mark.parametrize(
    ("count", "labels", "said"),
    [
        (60_000, "digits", None),
        (50_000, "digits", "60,000 training images, but here are 50,000"),
        (60_000, "clothes", "with other labels than those of"),
    ],
)
def test_a_finished_run_that_learned_from_other_images_is_refused(count, labels, said, tmp_path, monkeypatch):
    finished_run(tmp_path / "runs", data=str(tmp_path / "first"))
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    images = SimpleNamespace(train=SimpleNamespace(count=count), fingerprint=labels)
    monkeypatch.setattr(loading, "load", lambda *arguments, **options: images)

    def planned(folder):
        return reproduce.planned(TABLE, COLUMN, ["bp"], out=tmp_path / "runs", epochs=2, data=folder)

    assert planned(f"{tmp_path}/second/../first")
    if said is None:
        assert planned(str(tmp_path / "second"))
        return
    with pytest.raises(ExperimentError, match=said):
        planned(str(tmp_path / "second"))


def test_without_a_checkpoint_that_tells_of_its_images_a_run_is_known_by_its_folder(tmp_path):
    finished_run(tmp_path, images=None)
    with pytest.raises(ExperimentError, match="learned from the images of ylecun/mnist, not of "):
        reproduce.planned(TABLE, COLUMN, ["bp"], out=tmp_path, epochs=2, data=str(tmp_path))
    assert reproduce.reported(TABLE, COLUMN, tmp_path, ["bp"]).lines[0].seeds == (0,)


def test_signs_fixed_after_a_share_of_all_epochs_are_not_extended(tmp_path):
    table = "moskovitz2018/table1"
    written_run(tmp_path, "frsf-ei", 0, [record(1, 9.0, 9.0)], table, "mnist", epochs=5)
    assert reproduce.planned(table, "mnist", ["frsf-ei"], out=tmp_path, epochs=5)
    with pytest.raises(ExperimentError, match="share of its 5 epochs, so it cannot become one of 25"):
        reproduce.planned(table, "mnist", ["frsf-ei"], out=tmp_path)


# Runs


def words(*options):
    return [sys.executable, "-m", "ref_bioplaus.__main__", "reproduce", TABLE, "--column", COLUMN, *map(str, options)]


def invoke(*options, code=0):
    return command("reproduce", TABLE, "--column", COLUMN, *options, *QUICK, code=code)


def errors(out, row, seed=0):
    rows = logs.records(reproduce.folder(out, TABLE, COLUMN, row, seed))
    return [(r["step"], r["train_error"], r["test_error"], r["sign_changes"]) for r in rows]


def test_one_column_from_end_to_end(tmp_path):
    options = ("--method", "fa", "--method", "dtp-alternating", "--seeds", 2, "--jobs", 2, "--out", tmp_path)
    done = invoke(*options, "--epochs", 2)
    assert "4 runs, 0 of them finished." in done.output
    report = reproduce.reported(TABLE, COLUMN, tmp_path, ["fa", "dtp-alternating"])
    assert [(line.row.id, line.seeds, line.epoch) for line in report.lines] == [
        ("feedback-alignment", (0, 1), 2),
        ("dtp-alternating", (0, 1), 2),
    ]
    for line in report.lines:
        logs = [errors(tmp_path, line.row.id, seed) for seed in (0, 1)]
        assert logs[0] != logs[1]
        assert line.final["test error"].mean == pytest.approx((logs[0][-1][2] + logs[1][-1][2]) / 2)
        assert f"{line.final['test error'].mean:.2f}" in done.output
    assert "dataset is embedded, the paper's experiment has ylecun/mnist" in done.output
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("log.jsonl")}
    again = invoke(*options, "--epochs", 2)
    assert "4 runs, 4 of them finished." in again.output
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("log.jsonl")}
    invoke("--method", "fa", "--epochs", 3, "--out", tmp_path)
    invoke("--method", "fa", "--epochs", 3, "--out", tmp_path / "whole")
    assert errors(tmp_path, "feedback-alignment") == errors(tmp_path / "whole", "feedback-alignment")
    (tmp_path / "bartunov2018-table1-mnist-fc.md").unlink()
    invoke("--report", "--out", tmp_path)
    assert "| FA | train error |" in (tmp_path / "bartunov2018-table1-mnist-fc.md").read_text()


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_free(folder):
    """Whether no process runs in a folder."""
    try:
        with alone(folder):
            return True
    except Busy:
        return False


def both_methods(out):
    return words("--method", "bp", "--method", "dfa", "--jobs", 2, "--epochs", EPOCHS, "--out", out, *QUICK)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The errors of two runs that nothing stopped."""
    out = tmp_path_factory.mktemp("whole")
    done = subprocess.run(both_methods(out), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return {row: errors(out, row) for row in ("backprop", "dfa")}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stop_loses_nothing(number, tmp_path, uninterrupted):
    """Stopped after the first epochs of two runs side by side, the same command goes on; bit for bit the same end."""
    folders = [reproduce.folder(tmp_path, TABLE, COLUMN, row, 0) for row in ("backprop", "dfa")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(both_methods(tmp_path), cwd=ROOT, **pipes) as program:
        wait_for(lambda: program.poll() is not None or all(len(logs.records(folder)) > 2 for folder in folders))
        program.send_signal(number)
        out, err = program.communicate(timeout=60)
    if number == signal.SIGKILL:
        wait_for(lambda: all(map(is_free, folders)))
    else:
        assert program.returncode == 128 + number, err
        assert "the same command goes on" in out
    reached = [len(logs.records(folder)) for folder in folders]
    assert any(2 < n < EPOCHS + 1 for n in reached), "too fast to be stopped"
    for folder in folders:
        assert checkpoints.latest(folder).header["step"] >= logs.records(folder)[-1]["step"]
    done = subprocess.run(both_methods(tmp_path), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for row, expected in uninterrupted.items():
        assert errors(tmp_path, row) == expected
        assert len(expected) == EPOCHS + 1


def test_a_run_killed_before_its_first_checkpoint_begins_again(tmp_path):
    folder = reproduce.folder(tmp_path, TABLE, COLUMN, "backprop", 0)
    folder.mkdir(parents=True)
    (folder / "experiment.toml").write_text("epochs = 1\n")
    (folder / "log.jsonl").write_text('{"step": 0')
    (folder / "step-000000000000.safetensors.tmp").write_text("half")
    invoke("--method", "bp", "--epochs", 1, "--out", tmp_path)
    assert [step for step, *_ in errors(tmp_path, "backprop")] == [0, 10]


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    folder = reproduce.folder(tmp_path, TABLE, COLUMN, "backprop", 0)
    folder.mkdir(parents=True)
    (folder / "letter.txt").write_text("mine")
    done = invoke("--method", "bp", "--epochs", 1, "--out", tmp_path, code=1)
    assert "not empty" in done.output
    assert [path.name for path in folder.iterdir()] == ["letter.txt"]


def test_a_loss_that_is_not_finite_fails_alone(tmp_path):
    options = ("--method", "bp", "--method", "fa", "--epochs", 1, "--out", tmp_path)
    done = invoke(*options, "--set", "optimizer.eta=1e38", code=1)
    assert "The loss is not finite" in done.output
    notes = reproduce.reported(TABLE, COLUMN, tmp_path).notes
    assert any(re.search("backprop seed 0.*failed: The loss is not finite", note) for note in notes)


def test_two_programs_do_not_share_a_run(tmp_path):
    (job,) = reproduce.planned(TABLE, COLUMN, ["bp"], out=tmp_path, epochs=1, dataset="embedded")
    with alone(job.out):
        (outcome,) = jobs.run([job])
        with pytest.raises(Busy, match="Another process is running"):
            starting.train(job.experiment, job.out)
    assert outcome.end == jobs.BUSY
    assert not job.out.exists()


def test_a_process_that_dies_is_a_failure(tmp_path, monkeypatch):
    (job,) = reproduce.planned(TABLE, COLUMN, ["bp"], out=tmp_path, epochs=1, dataset="embedded")
    monkeypatch.setattr(jobs.sys, "executable", "/bin/false")
    (outcome,) = jobs.run([job])
    assert (outcome.end, outcome.sentence) == (
        jobs.FAILED,
        "Its process ended with exit code 1, before its first checkpoint.",
    )


def test_jobs_side_by_side_share_the_devices(tmp_path, monkeypatch):
    plan = reproduce.planned(TABLE, COLUMN, ["bp", "fa", "dfa"], out=tmp_path, epochs=1, dataset="embedded")
    taken = []

    class Instant:
        """A process that has ended when it begins."""

        def __init__(self, job, slot, share, events, reporter):
            taken.append((slot, job.experiment.device))
            self.job, self.process = job, SimpleNamespace(terminate=lambda: None)
            events.put((slot, None))

        def outcome(self):
            return jobs.Outcome(self.job, jobs.FINISHED, "Done.")

    monkeypatch.setattr(jobs, "Process", Instant)
    assert len(jobs.run(plan, parallel=2, devices=("cuda:0", "cuda:1"))) == 3
    assert set(taken) == {(0, "cuda:0"), (1, "cuda:1")} and len(taken) == 3
    taken.clear()
    jobs.run(plan, parallel=2)
    assert {device for _, device in taken} == {None}


def test_jobs_get_cores_of_their_own(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {8, 3, 5, 6, 7}, raising=False)
    monkeypatch.setattr(os, "getpid", lambda: 20)
    assert environment.shares(1, None) == [[]]
    assert environment.shares(2, None) == [[3, 5], [6, 7]]
    assert environment.shares(2, 1) == [[3], [5]]
    assert environment.shares(7, None) == [[3], [5], [6], [7], [8], [3], [5]]
    assert environment.shares(1, 3) == [[3, 5, 6]]
    monkeypatch.setattr(os, "getpid", lambda: 22)
    assert environment.shares(2, 2) == [[6, 7], [8, 3]]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system binds no process to cores")
@pytest.mark.parametrize("begins", [0, 1])
def test_a_core_that_another_process_is_bound_to_comes_last(begins, monkeypatch):
    """Two commands of one thread each, in two terminals, do not share a core."""
    there = sorted(os.sched_getaffinity(0))
    if len(there) < 2 or not Path("/proc/self/cmdline").exists():
        pytest.skip("needs Linux and two cores")
    taken = there[0]
    code = f"import os; os.sched_setaffinity(0, [{taken}]); print(flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as other:
        other.stdout.readline()
        assert environment.bound(set(there))[taken] >= 1
        monkeypatch.setattr(environment, "bound", lambda _: Counter({taken: 1}))
        monkeypatch.setattr(os, "getpid", lambda: begins)
        assert environment.shares(len(there), 1)[-1] == [taken]
        other.communicate(b"\n")


def test_wrong_options_are_one_sentence(tmp_path):
    for options, said in (
        (("--method", "backprob"), "did you mean backprop"),
        (("--method", "bp", "--set", "optimizer.etta=1"), 'option of optimizer "adam" "etta" is unknown'),
        (("--method", "bp", "--backend", "nump"), "nump"),
        (("--method", "bp", "--data", tmp_path / "nowhere"), "nowhere is not there"),
        (("--method", "bp", "--backend", "jaxx"), 'backend "jaxx" is unknown: did you mean "jax"?'),
        (("--method", "bp", "--set", "backend=jaxx"), 'backend "jaxx" is unknown'),
    ):
        done = invoke(*options, "--out", tmp_path / "runs", "--epochs", 1, code=2)
        assert said in done.output
        assert not (tmp_path / "runs").exists()
    (tmp_path / "file").write_text("")
    done = invoke("--method", "bp", "--out", tmp_path / "file", code=2)
    assert "cannot be written to (File exists)" in done.output


def test_a_row_named_twice_and_a_copied_folder_count_once(tmp_path):
    out = written_run(tmp_path, "backprop", 0, [record(1, 9.0, 9.0)])
    shutil.copytree(out, out.with_name("seed-0-copy"))
    report = reproduce.reported(TABLE, COLUMN, tmp_path, ["bp", "backprop"])
    assert [line.seeds for line in report.lines] == [(0,)]


def test_a_damaged_log_is_one_sentence(tmp_path):
    out = written_run(tmp_path, "backprop", 0, [record(1, 9.0, 9.0)])
    row = json.dumps(record(1, 9.0, 9.0))
    (out / "log.jsonl").write_text(f'{row}\n{{"step": \n{row}\n')
    with pytest.raises(ExperimentError, match=r"log.jsonl is damaged in line 2 \(expecting value, expected a table in"):
        reproduce.reported(TABLE, COLUMN, tmp_path, ["bp"])


def test_another_number_of_training_images_is_a_departure(tmp_path):
    options = ("--method", "bp", "--epochs", 1, "--out", tmp_path)
    invoke(*options)
    assert any("dataset is embedded" in note for note in reproduce.reported(TABLE, COLUMN, tmp_path).notes)
    out = reproduce.folder(tmp_path, TABLE, COLUMN, "backprop", 0)
    written = (out / "experiment.toml").read_text()
    (out / "experiment.toml").write_text(written.replace('"embedded"', '"ylecun/mnist"'))
    notes = reproduce.reported(TABLE, COLUMN, tmp_path).notes
    assert any(re.search("learned from [0-9,]+ training images, ylecun/mnist has 60,000", note) for note in notes)


def test_experiments_are_listed(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    every = command("list", "experiments").output
    for table in papers.tables():
        for column in table.columns:
            assert re.search(rf"^{table.name} +{column.id} ", every, re.M)
    one = command("list", "experiments", TABLE).output
    assert re.search(r"^dtp-alternating +DTP, alternating +0.00 / 1.83 +0.00 / 1.46 ", one, re.M)
    unknown = command("list", "experiments", "bartunov2018/table3", code=2)
    assert "did you mean bartunov2018/table" in unknown.output


def test_an_experiment_survives_its_file():
    for cell in CELLS:
        experiment = reproduce.experiment_of(*cell)
        assert from_dict(reproduce.as_dict(experiment)) == experiment


RESULTS = Path(reproduce.__file__).parents[1] / "results"
COMMITTED = sorted(path.with_suffix(".json") for path in RESULTS.rglob("*-*.md") if path.with_suffix(".json").exists())


def test_the_first_pages_are_among_the_committed_ones():
    named = {path.stem for path in COMMITTED}
    assert {"bartunov2018-table1-mnist-fc", "akrout2019-public-code-mnist", "moskovitz2018-table1-mnist"} <= named


@pytest.mark.parametrize("committed", COMMITTED, ids=lambda path: path.stem)
def test_the_committed_tables_are_those_of_the_committed_logs(committed):
    content = json.loads(committed.read_text("utf-8"))
    table, column, results, page = content["table"], content["column"], committed.parent, committed.with_suffix(".md")
    report = reproduce.reported(table, column, results)
    assert page.read_text("utf-8") == side_by_side.as_markdown(report, results)
    assert content["rows"] == json.loads(side_by_side.as_json(report))["rows"]
