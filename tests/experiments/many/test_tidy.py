"""Runs as tables: what is committed is what the logs say, bit for bit, and each column is what its schema says."""

import csv
import json
from pathlib import Path

import pytest

from ref_bioplaus.experiments.many import tidy
from ref_bioplaus.experiments.runs.logs import EXPERIMENT, LOG
from ref_bioplaus.experiments.spec.experiment import METRICS, ExperimentError

RESULTS = Path(__file__).parents[3] / "ref_bioplaus" / "experiments" / "results"
LEFT_OUT = (*METRICS, "waiting_for_data")
READ = {"string": str, "integer": int, "number": float}


def read(content: bytes) -> list[dict[str, str]]:
    """Lines by column."""
    return list(csv.DictReader(content.decode().splitlines()))


def schema(package: bytes, file: str) -> dict:
    """Of one of the files."""
    (found,) = (r for r in json.loads(package)["resources"] if r["path"] == file)
    return found["schema"]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """Of all committed runs."""
    return tidy.files(RESULTS)


@pytest.mark.parametrize("name", (tidy.RUNS, tidy.EPOCHS, tidy.PACKAGE))
def test_what_is_committed_is_what_the_logs_say(files, name):
    assert (RESULTS / name).read_bytes() == files[name]  # `make generated` writes it


def test_every_number_reads_back_as_it_was_logged(files):
    lines = {(line["run"], line["epoch"]): line for line in read(files[tidy.EPOCHS])}
    seen = 0
    for log in RESULTS.rglob(LOG):
        if not (log.parent / EXPERIMENT).exists():  # nothing says what it is of
            continue
        run = log.parent.relative_to(RESULTS).as_posix()
        for record in map(json.loads, log.read_text("utf-8").splitlines()):
            if "segment" in record:
                continue
            line = lines[run, str(record["epoch"])]
            for name, value in record.items():
                if name not in LEFT_OUT:
                    assert (line[name] == "") if value is None else (float(line[name]) == value), (run, name)
                    seen += 1
    assert len(lines) * 8 < seen and len(lines) == len(read(files[tidy.EPOCHS]))


@pytest.mark.parametrize("name", (tidy.RUNS, tidy.EPOCHS))
def test_columns_are_what_the_schema_says(files, name):
    found = schema(files[tidy.PACKAGE], name)
    kinds = {field["name"]: READ[field["type"]] for field in found["fields"]}
    lines = read(files[name])
    assert [*lines[0]] == [*kinds] and all(field["description"] for field in found["fields"])
    for line in lines:
        for column, text in line.items():
            assert text == "" or kinds[column](text) is not None
    key = found["primaryKey"]
    keys = [tuple(line[k] for k in ([key] if isinstance(key, str) else key)) for line in lines]
    assert len({*keys}) == len(keys)
    assert {line["run"] for line in lines} == {line["run"] for line in read(files[tidy.RUNS])}


def test_a_damaged_run_is_named_and_other_folders_are_left_out(tmp_path):
    run = tmp_path / "mine" / "a"
    run.mkdir(parents=True)
    for name in ("experiment.toml", LOG):
        source = RESULTS / "held-out-mnist-fc" / "bp-base" / name
        (run / name).write_bytes(source.read_bytes())
    (tmp_path / "mine" / "no run").mkdir()
    (tmp_path / "mine" / "no run" / LOG).write_text("")
    assert {line["run"] for line in read(tidy.files(tmp_path)[tidy.RUNS])} == {"mine/a"}
    (run / LOG).write_text('{"step": 1}\n' + (run / LOG).read_text())
    with pytest.raises(ExperimentError, match="damaged in line 1"):
        tidy.files(tmp_path)
    assert read(tidy.files(tmp_path / "mine" / "no run")[tidy.EPOCHS]) == []
