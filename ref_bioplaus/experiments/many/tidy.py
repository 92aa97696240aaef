"""All runs below a folder as tables that anything reads: python -m ref_bioplaus.experiments.many.tidy FOLDER

Writes to the folder runs.csv, a line per run and what it learned with; epochs.csv, a line per run and epoch, its key
`run` that of runs.csv; and datapackage.json, which says what each column is, its type and its unit, in the terms of
Frictionless Data's Table Schema. Numbers stand as in the logs, so that they read back bit for bit; an empty field is
what was not measured or not recorded. The tables of a run's layers (angles between weights, and so on) stay in its log;
a log without its experiment.toml is left out.
"""

import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...machine.files import write_whole
from ..boxes import precision
from ..runs.logs import EXPERIMENT, LOG, Told, stored, told
from ..spec.experiment import Experiment, as_dict

RUNS, EPOCHS, PACKAGE = "runs.csv", "epochs.csv", "datapackage.json"
KEY = ("run", "string", "its folder below this one")
OF_RUN = (
    KEY,
    ("algorithm", "string", "the rule, by its name in the registry"),
    ("model", "string", "the network"),
    ("dataset", "string", "the images' name on the Hugging Face hub"),
    ("seed", "integer", "of the first weights and of the order of the images"),
    ("epochs", "integer", "how many it was to learn for"),
    ("reached", "integer", "the last epoch that was measured"),
    ("held_out", "integer", "training images that are kept for validation"),
    ("batch", "integer", "images a step"),
    ("backend", "string", "array library"),
    ("kernels", "string", "portable, or native: the library's own forms"),
    ("dtype", "string", "of all arrays"),
    ("precision", "string", "of float32 products"),
    ("device", "string", "as the last call of train or resume recorded it; empty in older runs, as all that follow"),
    ("processor", "string", "its kind"),
    ("cores", "integer", "of the machine"),
    ("versions", "string", "of Python, the library and the backend, a table in JSON"),
    ("images", "string", "SHA-256 of what was learned from"),
    ("experiment", "string", "every other setting, but for where the images lay; a table in JSON"),
)
OF_BOXES = dict.fromkeys(precision.NAMES, "of the test images' boxes") | {
    "AP50": "of the test images' boxes, overlaps of .50",
    "AP75": "of the test images' boxes, overlaps of .75",
    "AP_small": "of those below 32 x 32 pixels of the file",
    "AP_medium": "of those up to 96 x 96 pixels",
    "AP_large": "of those above",
    precision.WITH_IGNORED: "AP50 of all boxes, where some are ignored elsewhere",
}
OF_EPOCH = (
    KEY,
    ("epoch", "integer", "epochs done"),
    ("step", "integer", "updates done"),
    ("seconds", "number", "s, spent learning so far"),
    ("images_per_second", "number", "1/s, in this epoch"),
    ("memory", "integer", "B, the most that the process held"),
    ("train_loss", "number", "mean over the epoch's batches as they were met"),
    ("train_error", "number", "%, likewise"),
    *((f"test_{what}", "number", f"{said}; 0 to 1, or -1 where there are none") for what, said in OF_BOXES.items()),
    *(
        (f"{split}_{what}", kind, unit + where)
        for split, where in (("validation", "the images held out"), ("test", "the test images"))
        for what, kind, unit in (
            ("loss", "number", "over "), ("error", "number", "%, of "), ("top5_error", "number", "%, of "),
        )
    ),
)  # fmt: skip
Line = Mapping[str, Any]


def runs(folder: Path) -> Iterator[tuple[str, Experiment, Told]]:
    """Name, experiment and log of every run below a folder, by name. Raises ExperimentError where one is damaged."""
    found = sorted(Path(at) for at, _, names in os.walk(folder) if {EXPERIMENT, LOG} <= {*names})
    for out in found:
        experiment = stored(out)
        if experiment is not None:
            yield out.relative_to(folder).as_posix(), experiment, told(out)


def of_run(name: str, experiment: Experiment, log: Told) -> Line:
    """A line of runs.csv."""
    fields = {n: getattr(experiment, n) for n, *_ in OF_RUN if hasattr(experiment, n)}
    last = log.segments[-1] if log.segments else {}
    more = {n: last.get(n) for n in ("device", "processor", "cores")}
    others = {n: v for n, v in as_dict(experiment).items() if n not in (*fields, "data") and v not in ({}, [])}
    return fields | more | {
        "run": name,
        "reached": max((r["epoch"] for r in log.records), default=None),
        "versions": json.dumps(last["versions"]) if last else None,
        "images": last["data"]["sha256"] if last else None,
        "experiment": json.dumps(others),
    }  # fmt: skip


def as_csv(columns: Iterable[tuple[str, str, str]], lines: Iterable[Line]) -> bytes:
    """Lines under the columns' names; None is empty, a float has all of its digits."""
    text, names = io.StringIO(), [name for name, *_ in columns]
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    for line in lines:
        table.writerow({n: "" if v is None else repr(v) if isinstance(v, float) else v for n, v in line.items()})
    return text.getvalue().encode()


def package() -> Line:
    """What datapackage.json says."""

    def resource(file: str, columns: Iterable[tuple[str, str, str]], **more: Any) -> Line:
        fields = [{"name": n, "type": kind, "description": said} for n, kind, said in columns]
        schema = {"fields": fields, "missingValues": [""], **more}
        return {"name": file.removesuffix(".csv"), "path": file, "encoding": "utf-8", "schema": schema}

    key = {"fields": "run", "reference": {"resource": "runs", "fields": "run"}}
    return {
        "name": "ref-bioplaus-results",
        "title": "Every epoch of every run",
        "resources": [
            resource(RUNS, OF_RUN, primaryKey="run"),
            resource(EPOCHS, OF_EPOCH, primaryKey=["run", "epoch"], foreignKeys=[key]),
        ],
    }


def files(folder: Path) -> dict[str, bytes]:
    """The three files of all runs below a folder, by name. Raises ExperimentError where a run is damaged."""
    found = list(runs(folder))
    epochs = (
        {"run": name} | {n: record.get(n) for n, *_ in OF_EPOCH[1:]} for name, _, log in found for record in log.records
    )
    return {
        RUNS: as_csv(OF_RUN, (of_run(*run) for run in found)),
        EPOCHS: as_csv(OF_EPOCH, epochs),
        PACKAGE: (json.dumps(package(), indent=1) + "\n").encode(),
    }


if __name__ == "__main__":
    for name, content in files(Path(sys.argv[1])).items():
        write_whole(Path(sys.argv[1]) / name, content)
