"""Folders of runs as crashes, editors and people leave them: one sentence each, and nothing is lost."""

import errno
import json
import os
import stat
from types import SimpleNamespace

import pytest

from ref_bioplaus.experiments.figures import comparison, curves, series
from ref_bioplaus.experiments.many import side_by_side, table
from ref_bioplaus.experiments.runs import checkpoints, logs
from ref_bioplaus.experiments.runs.checkpoints import BEST, CheckpointError, name_at
from ref_bioplaus.experiments.spec.experiment import ExperimentError
from ref_bioplaus.experiments.training.starting import resume, train
from ref_bioplaus.machine import files
from tests.helpers.commands import command
from tests.helpers.embedded_data import embedded_data
from tests.helpers.runs import PLAIN, assert_same, of

TABLE, COLUMN, ROW = "bartunov2018/table1", "mnist-fc", "backprop"
PLACE = f"{TABLE}/{COLUMN}/{ROW}/seed-0"


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A run of two epochs, in the place of a table's cell."""
    out = tmp_path_factory.mktemp("learned")
    train(of(epochs=2, algorithm="kolen-pollack"), out / PLACE, images=embedded_data())
    return out


@pytest.fixture
def run(learned, tmp_path):
    """A copy of it, to be damaged."""
    (tmp_path / PLACE).mkdir(parents=True)
    for path in (learned / PLACE).iterdir():
        (tmp_path / PLACE / path.name).write_bytes(path.read_bytes())
    return tmp_path / PLACE


def report(run):
    return asked("reproduce", TABLE, "--column", COLUMN, "--report", "--out", run.parents[4])


def readers(run):
    """What the commands that read logs answer."""
    yield asked("compare", run, "--html", run / "page.html")
    yield asked("plot", run, "--figure", "learning", "--out", run / "p.svg")
    yield report(run)


def asked(*words):
    found = command(*words, code=None)
    return found.exit_code, found.output.replace("\n", " "), found.stderr


# Lines of a log


WRONG = {
    "step": ("1", -1, 1.5, None, True, 1 << 63),
    "epoch": (None, [], "0"),
    "seconds": (None, "9", float("nan")),
    "train_loss": ("x", float("inf"), {}, True, 10**400),
    "validation_error": ("", {"1": 2}, []),
    "images_per_second": ([1],),
    "matrix_angles": ([1], "x", {"x": 1.0}, {"1": "a"}, {"1": {}}, {"²": 1.0}, {"-1": 1.0}, {"1": float("nan")}, 3),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_number_of_another_kind_is_one_sentence_that_names_its_line(name, value, run):
    rows = [json.loads(line) for line in (run / logs.LOG).read_text().splitlines()]
    rows[1][name] = value  # the first record, behind the segment
    (run / logs.LOG).write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        ExperimentError, match=rf"log.jsonl is damaged in line 2 \({name} is .*expected .*\): mend that"
    ):
        series.read(run)


def test_what_is_missing_is_named_and_what_is_new_is_left_alone(run):
    rows = [json.loads(line) for line in (run / logs.LOG).read_text().splitlines()]
    rows[1]["of a later version"] = {"x": [1]}
    (run / logs.LOG).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(series.read(run).records) == 3
    del rows[0]["segment"]["data"]["train"], rows[1]["epoch"]
    for number, name in ((1, "train"), (2, "epoch")):
        (run / logs.LOG).write_text("".join(json.dumps(row) + "\n" for row in [*rows[number - 1 :], rows[-1]]))
        with pytest.raises(ExperimentError, match=rf"damaged in line 1 \({name} is missing, expected a whole number"):
            series.read(run)


@pytest.mark.parametrize("name", ["sha256", "labels", "as_named", "experiment", "lost"])
def test_what_a_segment_may_leave_open_may_be_missing(name, run):
    rows = [json.loads(line) for line in (run / logs.LOG).read_text().splitlines()]
    (rows[0]["segment"] if name in ("experiment", "lost") else rows[0]["segment"]["data"]).pop(name, None)
    (run / logs.LOG).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [code for code, *_ in readers(run)] == [0, 0, 0]


LAST = {
    "half": b'{"step": 15, "epo',
    "wrong": b'{"step": 15}\n',
    "no table": b"[]\n",
    "empty": b"\n",
    "not UTF-8": b"\xff\xfe\n",
    "deep": b"[" * 100_000 + b"\n",
    "long": b"1" * 6000 + b"\n",
}


@pytest.mark.parametrize("last", LAST.values(), ids=LAST)
def test_a_damaged_last_line_is_told_and_the_rest_is_used_and_any_other_is_refused(last, run):
    whole = (run / logs.LOG).read_bytes()
    (run / logs.LOG).write_bytes(whole + last)
    found = series.read(run)
    assert found.records == logs.records(run) and len(found.records) == 3
    assert "line 5" in found.damage and found.damage.endswith("which is left out.")
    if last.endswith(b"\n"):
        (run / logs.LOG).write_bytes(last + whole)
        with pytest.raises(ExperimentError, match=r"log.jsonl is damaged in line 1 \("):
            series.read(run)
    (run / logs.LOG).write_bytes(last)
    with pytest.raises(ExperimentError, match="no evaluation is left: put it back, or go on with the run"):
        series.read(run)


def test_every_command_that_reads_logs_says_so(run):
    whole = (run / logs.LOG).read_bytes()
    (run / logs.LOG).write_bytes(whole + b"{}\n")
    for code, said, _ in readers(run):
        assert code == 0 and "damaged in line 5 (step is missing, expected" in said and "which is left out" in said
    assert all("which is left" in (run / name).read_text() for name in ("page.html", "p.svg"))
    (run / logs.LOG).write_bytes(b"{}\n" + whole)
    for code, _, said in readers(run):
        assert code == 2 and "log.jsonl is damaged in line 1 (" in said and len(said.splitlines()) == 1


def test_lines_that_an_editor_ends_otherwise_are_read(run):
    whole = series.read(run)
    (run / logs.LOG).write_bytes(b"\xef\xbb\xbf" + (run / logs.LOG).read_bytes().replace(b"\n", b"\r\n"))
    assert series.read(run) == whole


def test_what_is_no_file_is_named(run):
    for name in (logs.LOG, logs.EXPERIMENT):
        (run / name).unlink()
        (run / name).mkdir()
        for code, _, said in readers(run):
            assert code == 2 and f"{name} cannot be " in said and "Is a directory" in said, said
            assert len(said.splitlines()) == 1
        code, _, said = asked("resume", run)
        assert (code, "Is a directory" in said) == (2, True)
        (run / name).rmdir()
        (run / name).write_bytes(b"")


def test_why_a_run_failed_is_shown_whatever_is_in_it(run):
    (run / logs.FAILURE).write_bytes(b"\xff a | b\n| c\x00")
    _, said, _ = report(run)
    assert "failed: \ufffd a | b\\n| c\\x00" in said
    (run / logs.FAILURE).unlink()
    (run / logs.FAILURE).mkdir()
    code, _, said = report(run)
    assert code == 2 and f"{logs.FAILURE} cannot be used (Is a directory)" in said


# What is in the way


def test_a_folder_in_the_place_of_the_best_checkpoint(tmp_path):
    """There at the start, and made in mid-run: the sentence says what to move, and the run goes on when it has been."""
    experiment = of(**PLAIN)
    whole = train(experiment, tmp_path / "whole", images=embedded_data())
    train(of(**PLAIN, epochs=1), tmp_path / "run", images=embedded_data())
    place = tmp_path / "run" / BEST
    kept = place.rename(tmp_path / BEST)
    place.mkdir()
    with pytest.raises(files.NotOrdinary, match=f"{BEST} cannot be used .Is a directory.: put an ordinary file there"):
        resume(tmp_path / "run", epochs=3, images=embedded_data())
    place.rmdir()
    kept.rename(place)

    def in_the_way(record):
        if record["epoch"] == 2:
            place.unlink()
            place.mkdir()

    with pytest.raises(CheckpointError, match=rf"cannot be written \(Is a directory\): move .*{BEST} away, then cont"):
        resume(tmp_path / "run", epochs=3, images=embedded_data(), callback=in_the_way)
    place.rmdir()
    run = resume(tmp_path / "run", epochs=3, images=embedded_data())
    assert_same(whole, run)


def test_a_folder_in_the_place_of_a_checkpoint_is_none(tmp_path):
    train(of(**PLAIN, epochs=1), tmp_path, images=embedded_data())
    (tmp_path / name_at(10)).mkdir()
    assert tmp_path / name_at(10) not in checkpoints.found(tmp_path)
    with pytest.raises(CheckpointError, match=rf"\(Is a directory\): move .*{name_at(10)} away"):
        resume(tmp_path, epochs=2, images=embedded_data())


def test_what_to_do_is_to_make_room_only_where_there_is_none(tmp_path):
    for number, what in ((errno.ENOSPC, "make room"), (errno.EACCES, "see that it can be")):
        assert files.remedy(OSError(number, "")) == what


@pytest.mark.skipif(os.name != "posix", reason="no folder can be synced here")
def test_a_file_system_that_does_not_sync_folders_takes_a_run_and_no_other_refusal_is_passed_over(
    tmp_path, monkeypatch
):  # fmt: skip
    fsync, refusal = os.fsync, SimpleNamespace(number=errno.EINVAL, folders=True)

    def refusing(file):
        if stat.S_ISDIR(os.fstat(file).st_mode) == refusal.folders:
            raise OSError(refusal.number, os.strerror(refusal.number))
        fsync(file)

    monkeypatch.setattr(os, "fsync", refusing)
    assert train(of(**PLAIN, epochs=1), tmp_path / "run", images=embedded_data()).finished
    refusal.number = errno.ENOTSUP
    assert resume(tmp_path / "run", epochs=2, images=embedded_data()).finished
    for refusal.number, refusal.folders in ((errno.EIO, True), (errno.EINVAL, False)):
        with pytest.raises((CheckpointError, ExperimentError), match="cannot be written"):
            resume(tmp_path / "run", epochs=3, images=embedded_data())


# Names of folders


LONG = {"256 bytes": "a" * 256, "4,200 bytes": "b/" * 2100}


@pytest.mark.parametrize("name", LONG.values(), ids=LONG)
def test_a_name_too_long_is_one_sentence_in_every_command(name, learned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = learned / PLACE
    cell = (TABLE, "--column", COLUMN)
    small = ("--dataset", "embedded", "--steps", 1)
    for words in (
        ("train", *small, "--out", name),
        ("resume", name),
        ("evaluate", name),
        ("plot", name, "--figure", "learning"),
        ("plot", run, "--figure", "learning", "--out", f"{name}.svg"),
        ("plot", run, "--figure", "learning", "--out", f"{name}/p.svg"),
        ("compare", name),
        ("compare", run, "--html", name),
        ("reproduce", *cell, "--report", "--out", name),
        ("reproduce", *cell, "--method", "bp", "--set", "dataset=embedded", "--out", name),
        ("search", "bartunov2018-table4", "--table", TABLE, "--column", COLUMN, "--method", "dtp", "--out", name),
        ("search", "bartunov2018-table4", "--experiment", name, "--out", "out"),
        ("demo", "--out", name),
        ("conformance", "emit", name),
        ("conformance", "judge", name),
        ("conformance", "run", "--backend", "numpy", "--html", name),
    ):
        code, _, said = asked(*words)
        assert code == 2 and len(said.splitlines()) == 1, (words, said)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_no_room_for_a_name_in_it_is_left_as_it_was(tmp_path):
    """Its own name is short enough."""
    room = 4090 - len(os.fsencode(tmp_path)) - 1
    out = tmp_path / "/".join(["d" * 200] * (room // 201) + ["e" * (room % 201)])
    with pytest.raises(ExperimentError, match=r"cannot be written to \(File name too long\)"):
        train(of(**PLAIN, epochs=1), out, images=embedded_data())
    assert not out.exists()


def test_names_that_are_not_utf8_are_written_to(learned, tmp_path):
    place = tmp_path / os.fsdecode(b"r\xff")
    try:
        place.mkdir()
    except OSError:
        pytest.skip("this file system has names in UTF-8 alone")
    run = train(of(**PLAIN, epochs=1), place / "run", images=embedded_data())
    assert resume(place / "run", epochs=2, images=embedded_data()).finished
    found = series.read(run.out)
    curves.save(curves.draw("learning", [found._replace(damage=f"Half of {found.out}.")]), place / f"{place.name}.svg")
    comparison.write([found], place / "page.html")
    assert "r?/run" in (place / "page.html").read_text()
    (place / PLACE).mkdir(parents=True)
    for name in (logs.EXPERIMENT, logs.LOG):
        (place / PLACE / name).write_bytes((place / "run" / name).read_bytes() + (b"{" if name == logs.LOG else b""))
    page, _ = side_by_side.write(table.reported(TABLE, COLUMN, place), place)
    assert "r?/" in page.read_text()
