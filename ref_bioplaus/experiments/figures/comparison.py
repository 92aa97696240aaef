"""Runs side by side: a table of their errors and times, and a page with every picture that they have numbers for."""

from collections.abc import Sequence
from os.path import isdir
from pathlib import Path
from typing import Any

from ...machine import files
from ...machine.files import write_whole
from ...showing.pages import template
from ...showing.svg import svg
from ..boxes import precision
from ..data import left_out
from ..data.loading import DataError
from ..runs import segments
from ..runs.checkpoints import CheckpointError
from ..runs.seeds import shown, spread
from ..spec import phases
from ..spec.experiment import ExperimentError
from . import curves, series
from .curves import FIGURES
from .series import Group, Run

TEMPLATE = Path(__file__).parent / "templates" / "compare.html"
CAPTION = (
    "Mean over seeds ± sample standard deviation, errors in percent. Final: the last evaluation; best: the lowest of "
    "all evaluations, each error for itself, so that the best test error is chosen by the test images, which no other "
    "choice depends on; train: the batches of an epoch as they were met. Seeds that reached different epochs have rows "
    "of their own. Where epochs taught no forward weight, it says how many did and how many did not."
)
FINAL = {
    "train_error": "train error",
    "validation_error": "validation error",
    "test_error": "test error",
    "test_top5_error": "top-5 test error",
    "test_loss": "test loss",
    **{f"test_{name}": f"test {name.replace('_', ' ')}" for name in precision.NAMES},
}
BEST = {"validation_error": "best validation error", "test_error": "best test error"}


def table(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row for the runs that differ only in their seed and reached the same step."""
    runs, _ = series.once(runs)
    names = [name for name in FINAL if any(final(run, name) is not None for run in runs)]
    best = [name for name in BEST if name in names]
    headings = ["run", "seeds", "epochs", *(FINAL[n] for n in names), *(BEST[n] for n in best), "time, s", "images/s"]
    rows = []
    for group, members in reached(runs):
        seeds = ", ".join(str(run.experiment.seed) for run in members)
        numbers = [cell([final(run, n) for run in members], 2 if n.endswith("error") else 4) for n in names]
        numbers += [cell([lowest(run, n) for run in members], 2) for n in best]
        times = cell([run.records[-1].get("seconds") for run in members], 0)
        speeds = cell([series.last(run, "images_per_second") for run in members], 0)
        rows.append([group.label, seeds, epochs(members[0]), *numbers, times, speeds])
    return headings, rows


def reached(runs: Sequence[Run]) -> list[tuple[Group, list[Run]]]:
    """The runs of every group that have come equally far."""
    found = []
    for group in series.grouped(runs):
        for step in sorted({run.records[-1]["step"] for run in group.runs}, reverse=True):
            found.append((group, [run for run in group.runs if run.records[-1]["step"] == step]))
    return found


def final(run: Run, name: str) -> float | None:
    """The newest number after learning; None where nothing has been learned."""
    return series.last(run, name) if run.records[-1]["step"] else None


def lowest(run: Run, name: str) -> float | None:
    """The lowest number after learning."""
    found = [r[name] for r in run.records if r["step"] and r.get(name) is not None]
    return min(found, default=None)


def epochs(run: Run) -> str:
    """How far a run has come, of how many epochs, and how many of them taught the forward weights if not all."""
    parts = phases.of_run(run.experiment, run.records, run.segments)
    reached = f"{run.records[-1]['epoch']} of {run.experiment.epochs}"
    return f"{reached} ({parts})" if parts and str(parts) else reached


def notes(runs: Sequence[Run]) -> list[str]:
    """What a reader must know of single runs: those that count once, those that learned nothing, and what computed."""
    return [*warnings(runs), *histories(runs)]


def warnings(runs: Sequence[Run]) -> list[str]:
    """A sentence on every run whose numbers are not what a reader would take them for."""
    kept, found = series.once(runs)
    for run in kept:
        parts = phases.of_run(run.experiment, run.records, run.segments)
        if parts and parts.sentence():
            found.append(f"{run.out}: {parts.sentence()}.")
        without = left_out.text(run.records[-1]) if run.records else None
        found += [f"{run.out}: {without}."] if without else []
    return [*found, *(run.damage for run in runs if run.damage)]


def histories(runs: Sequence[Run]) -> list[str]:
    """What computed the runs, and from which images, those of the same together."""
    kept, _ = series.once(runs)
    return [f"{line}." for line in segments.told((str(run.out), run.experiment, run.segments) for run in kept)]


def facts(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """(what, in words) of all runs together: model, data, when they learned, by what, and on what; "not recorded" where
    an older log does not tell."""
    unknown = "not recorded"
    parts = [part for run in runs for part in run.segments]
    days = sorted(part["date"][:10] for part in parts if part.get("date"))
    told = {
        "model": [run.experiment.model for run in runs],
        "data": [data(run) for run in runs],
        "learned": [" to ".join(dict.fromkeys((days[0], days[-1])))] if days else [unknown],
        "versions": [f"{name} {version}" for part in parts for name, version in part["versions"].items()] or [unknown],
        "computed on": [f"{part['device']}, {part['dtype']} ({part['precision']}), {part['kernels']} kernels; "
                        f"{part['processor']}" for part in parts] or [unknown],
    }  # fmt: skip
    some = any(not run.segments for run in runs) and bool(parts)
    return [
        (name, "; ".join(dict.fromkeys(map(str, words))) + (f"; of some runs {unknown}" if some and i > 1 else ""))
        for i, (name, words) in enumerate(told.items())
    ]


def data(run: Run) -> str:
    """Which images a run learned from."""
    if not run.segments:
        return str(run.experiment.dataset)
    found = run.segments[-1]["data"]
    held = "" if found["test"] is None else f", {found['test']:,} test images"
    return f"{segments.images_text(found)}{held}"


def cell(numbers: Sequence[float | None], digits: int) -> str:
    """A mean and its spread."""
    return shown(spread(numbers), digits)


def settings(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """The fields of their experiments in which groups differ, but for the algorithm: headings and rows."""
    groups = series.grouped(runs)
    fields = [series.known_by(group.runs[0]) for group in groups]
    names = sorted({name for own in fields for name in own} - {"algorithm"})
    differing = [name for name in names if len({repr(own.get(name)) for own in fields}) > 1]
    return ["field", *(group.label for group in groups)], [
        [name, *(str(own.get(name, "–")) for own in fields)] for name in differing
    ]


def drawn(runs: Sequence[Run], data: Any = None) -> list[dict[str, str]]:
    """{title, svg, width, caption, left_out} of every picture that at least one run has the numbers for."""
    found = []
    for name, kind in FIGURES.items():
        able = [run for run in runs if kind.lacks(run) is None]
        if not able:
            continue
        left_out = ", ".join(str(run.out) for run in runs if run not in able)
        entry = {"title": kind.title, "svg": "", "width": "", "left_out": left_out}
        try:
            picture = curves.draw(name, able, data)
        except (CheckpointError, ExperimentError, ImportError, DataError) as error:
            found.append(entry | {"caption": f"Not drawn: {error}", "left_out": ""})
            continue
        width = round(96 * picture.figure.get_size_inches()[0])
        text = svg(picture.figure, kind.title)
        found.append(entry | {"svg": text, "width": str(width), "caption": picture.caption})
    return found


def as_page(runs: Sequence[Run], data: Any = None) -> str:
    """The page as HTML, which needs no other file. data: images as `train` takes them, instead of the runs' own."""
    return template(TEMPLATE).render(
        folders=[str(run.out) for run in runs],
        labels=[group.label for group in series.grouped(series.once(runs)[0])],
        facts=facts(series.once(runs)[0]),
        results=table(runs),
        caption=CAPTION,
        warnings=warnings(runs),
        histories=histories(runs),
        settings=settings(runs),
        pictures=drawn(series.once(runs)[0], data),
    )


def write(runs: Sequence[Run], out: Path, data: Any = None) -> None:
    """Write the page. Raises ExperimentError where the file cannot be written."""
    text = as_page(runs, data)
    if isdir(out):
        raise ExperimentError(f"The page {out} is a folder: name a file in it.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, files.visible(text).encode())
    except OSError as error:
        raise ExperimentError(f"The page {out} cannot be written ({error.strerror}): name another file.") from error
