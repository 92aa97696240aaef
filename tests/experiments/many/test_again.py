"""Recorded runs again: the same bits on the same machine, a bound elsewhere, and what differs is named."""

import json
import shutil
from math import sqrt
from statistics import mean, stdev

import pytest

from ref_bioplaus.experiments.many import again, table
from ref_bioplaus.experiments.runs import logs
from ref_bioplaus.experiments.spec.experiment import ExperimentError
from ref_bioplaus.experiments.training import starting
from tests.helpers.commands import command, printed

TABLE, COLUMN = "bartunov2018/table1", "mnist-fc"
SMALL = ("dataset=embedded", "batch=700", "model_options.width=0.03")  # 5000 images: the last batch has 100
FA = "feedback-alignment"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Three seeds of FA, of three epochs."""
    out = tmp_path_factory.mktemp("recorded")
    for job in table.planned(TABLE, COLUMN, ["fa"], seeds=3, out=out, settings=SMALL, epochs=3):
        starting.train(job.experiment, job.out)
    return out


@pytest.fixture
def copied(recorded, tmp_path):
    """The same in a folder that may be changed."""
    return shutil.copytree(recorded, tmp_path / "copied")


def once_more(out, into, epochs=None, seeds=1, **changes):
    plan = again.planned(TABLE, COLUMN, ["fa"], seeds, out, into, epochs, **changes)
    for one in plan:
        starting.train(one.job.experiment, one.job.out)
    return plan


def log_of(out, seed=0):
    return table.folder(out, TABLE, COLUMN, FA, seed) / logs.LOG


def change(log, edit):
    """Edit every line of a log; what becomes None is left out."""
    lines = [edit(json.loads(line)) for line in log.read_text().splitlines()]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines if line is not None))


def with_numbers(epoch, **numbers):
    """The edit that gives a record other numbers."""
    return lambda line: line | numbers if line.get("epoch") == epoch else line


def found_by_name(one):
    return {(line.quantity, line.epoch): line for line in one.lines}


def test_the_same_machine_gives_the_same_bits(recorded, tmp_path):
    before = {path: path.read_bytes() for path in recorded.rglob("*") if path.is_file()}
    plan = once_more(recorded, tmp_path, seeds=2)
    assert [(one.job.experiment.seed, one.job.experiment.epochs, one.job.experiment.steps) for one in plan] == [
        (0, 3, 16),
        (1, 3, 16),
    ]
    for one in again.compared(plan, recorded):
        assert (one.other, one.agrees, {line.verdict for line in one.lines}) == ([], True, {again.SAME})
        names = set(found_by_name(one))
        assert {("test_loss", 0), ("test_error", 1), ("train_loss", 2), ("matrix_angles", 2)} <= names
        assert not {name for name, epoch in names if name in ("seconds", "memory") or epoch > 2}
    assert before == {path: path.read_bytes() for path in recorded.rglob("*") if path.is_file()}


def test_what_was_tampered_with_is_named_with_its_epoch_and_both_numbers(recorded, copied, tmp_path):
    plan = once_more(copied, tmp_path / "again")
    (record,) = (r for r in logs.records(log_of(recorded).parent) if r["epoch"] == 1)
    angles = record["matrix_angles"] | {"3": record["matrix_angles"]["3"] * (1 + 1e-15)}
    assert angles != record["matrix_angles"]
    change(log_of(copied), with_numbers(1, test_error=record["test_error"] + 0.02, matrix_angles=angles))
    (again_planned,) = again.planned(TABLE, COLUMN, ["fa"], 1, copied, tmp_path / "again")
    (one,) = again.compared([again_planned], copied)
    assert plan[0].records != again_planned.records
    wrong = {key: line for key, line in found_by_name(one).items() if line.verdict != again.SAME}
    assert set(wrong) == {("test_error", 1), ("matrix_angles", 1)}
    assert wrong["test_error", 1][3:] == (record["test_error"] + 0.02, record["test_error"], again.DIFFERS)
    assert wrong["matrix_angles", 1].layer == "3"
    assert not one.agrees


def test_another_backend_is_judged_by_rounding_at_first_and_by_the_spread_of_seeds_later(copied, tmp_path):
    plan = once_more(copied, tmp_path / "again", backend="torch")
    (one,) = again.compared(plan, copied)
    assert "backend was numpy, is torch" in one.other
    assert one.agrees and {line.verdict for line in one.lines} <= {again.SAME, again.ROUNDED, again.WITHIN}
    lines = found_by_name(one)
    assert lines["train_loss", 2].recorded != lines["train_loss", 2].now  # so that something is judged
    loss = lines["test_loss", 0].recorded
    change(log_of(copied), with_numbers(0, test_loss=loss * 1.001))
    change(log_of(copied), with_numbers(2, test_error=3 * lines["test_error", 2].recorded))
    (one,) = again.compared(
        again.planned(TABLE, COLUMN, ["fa"], 1, copied, tmp_path / "again", backend="torch"), copied
    )
    wrong = {key for key, line in found_by_name(one).items() if line.verdict == again.DIFFERS}
    assert wrong == {("test_loss", 0), ("test_error", 2)}


def test_an_older_log_tells_no_processor_and_is_compared_as_anothers(copied, tmp_path):
    change(log_of(copied), lambda line: None if logs.SEGMENT in line else line)
    (one,) = again.compared(once_more(copied, tmp_path / "again", epochs=1), copied)
    assert one.other == ["recorded on an unknown processor, with unknown versions"]
    assert {line.verdict for line in one.lines} == {again.SAME}  # which it may be all the same


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("processor", "An abacus", "processor was An abacus, is "),
        ("instructions", None, "the processor's vector instructions are others, or were not recorded"),
        ("cores", 77, "cores was 77, is "),
        ("threads", {"OMP_NUM_THREADS": "5"}, "OMP_NUM_THREADS was 5, is "),
        ("versions", {"numpy": "1.0"}, "numpy was 1.0, is "),
    ],
)
def test_another_kind_of_processor_is_told(copied, tmp_path, name, value, said):
    (now,) = logs.segments(log_of(copied, 1).parent)
    value = now[name] | value if isinstance(value, dict) else value
    change(
        log_of(copied),
        lambda line: {logs.SEGMENT: line[logs.SEGMENT] | {name: value}} if logs.SEGMENT in line else line,
    )
    plan = again.planned(TABLE, COLUMN, ["fa"], 1, copied, tmp_path, 1)
    (told,) = again.differences(plan[0], now)
    assert told.startswith(said)
    assert again.recorded_cores(plan) == (77 if name == "cores" else None)


def test_deviations_are_pooled_over_layers_and_are_not_of_the_run_itself(recorded):
    found = again.over_seeds(again.beside(recorded), log_of(recorded, 2).parent)
    numbers = [logs.records(log_of(recorded, seed).parent)[2]["test_error"] for seed in (0, 1)]
    assert found["test_error", 2] == (pytest.approx(stdev(numbers) / mean(numbers)), 1)
    layers = [logs.records(log_of(recorded, seed).parent)[2]["matrix_angles"] for seed in (0, 1)]
    shares = [stdev(pair) / mean(pair) for pair in zip(*(angles.values() for angles in layers), strict=True)]
    assert found["matrix_angles", 2].share == pytest.approx(sqrt(mean(share**2 for share in shares)))


@pytest.mark.parametrize(
    ("quantity", "epoch", "was", "now", "share", "verdict"),
    [
        ("test_loss", 0, 2.0, 2.0, None, "same"),
        ("test_loss", 0, 2.0, 2.0001, None, again.ROUNDED),
        ("test_loss", 0, 2.0, 2.001, 1.0, "differs"),  # no seed excuses what was not learned
        ("test_error", 0, 90.0, 90.05, None, again.ROUNDED),
        ("test_error", 0, 90.0, 90.1, None, "differs"),
        ("delta_angles", 0, 0.0, 0.05, None, again.ROUNDED),
        ("sign_changes", 0, 0.0, 0.05, None, "differs"),
        ("test_error", 1, 10.0, 12.0, 0.02, again.WITHIN),
        ("test_error", 1, 10.0, 13.0, 0.02, "differs"),
        ("test_error", 1, 10.0, 13.0, None, "open"),
        ("test_error", 1, 10.0, None, 1.0, "differs"),
        ("delta_angles", 1, None, None, None, "same"),
    ],
)
def test_what_is_within(quantity, epoch, was, now, share, verdict):
    deviation = None if share is None else again.Deviation(share, 1)
    assert again.judged(quantity, epoch, was, now, deviation) == verdict


def test_a_run_that_went_on_with_another_rate_is_compared_up_to_there(recorded, copied, tmp_path):
    (first,) = logs.segments(log_of(recorded).parent)
    optimizer = first["experiment"]["optimizer"] | {"eta": 0.5}
    second = first | {"number": 2, "step": 8, "epoch": 1, "experiment": first["experiment"] | {"optimizer": optimizer}}
    lines = log_of(recorded).read_text().splitlines()
    log_of(copied).write_text("\n".join([*lines[:3], json.dumps({logs.SEGMENT: second}), *lines[3:], ""]))
    assert again.planned(TABLE, COLUMN, ["fa"], 1, copied, tmp_path, 1)
    with pytest.raises(ExperimentError, match="other numbers of its optimizer before its epoch 2: choose fewer epochs"):
        again.planned(TABLE, COLUMN, ["fa"], 1, copied, tmp_path, 2)


def test_the_command_says_what_it_asked_and_what_came_of_it(copied, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    words = ("reproduce", TABLE, "--column", COLUMN, "--method", "fa", "--out", copied, "--check", "--epochs", 1)
    done = printed(*words)
    assert "FA seed 0: backend, versions, processor and cores are those that the log recorded: every bit has" in done
    assert "lines are the same, bit for bit." in done
    assert not list(copied.glob("*.md"))
    change(log_of(copied), with_numbers(1, test_error=1.5))
    done = printed("reproduce", copied / TABLE / COLUMN / FA / "seed-0", "--check", "--epochs", 1, code=1)
    assert "1 differs; what differs: test_error of epoch 1." in done
    assert " 1.5 " in done


def test_what_cannot_be_checked_is_one_sentence(copied, tmp_path):
    start = ("reproduce", TABLE, "--column", COLUMN, "--check", "--out")
    for words, said in (
        ((copied, "--method", "dfa"), "No run of DFA with seed 0 is recorded in"),
        ((copied, "--method", "fa", "--seeds", 4), "No run of FA with seed 3 is recorded in"),
        ((tmp_path / "nowhere",), "No run is recorded in"),
        ((copied, "--set", "batch=3"), "leave out --set and --report"),
        ((copied, "--data", tmp_path / "none"), "none is not there"),
        ((copied, "--method", "fa", "--epochs", 0), "No run of FA with seed 0 is recorded"),
    ):
        done = command(*start, *words, code=2)
        assert said in " ".join(done.output.split()), done.output
