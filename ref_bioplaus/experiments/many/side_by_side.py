"""A reproduced table as text, Markdown and JSON: the paper's numbers and ours side by side."""

import json
from pathlib import Path
from typing import Any

from ...machine.files import visible, write_whole
from ...showing.words import table_of
from .. import papers
from ..runs.seeds import Spread, shown
from ..spec.experiment import as_dict
from . import paired
from .table import HIGHEST, MEASURED, Line, Report, Result

OTHER_IMAGES = "of other images"  # in the place of the paper's number
HEADINGS = (
    "method", "quantity", "paper", "final", "difference", "best epoch", "difference", "seeds", "epochs", "time, s",
)  # fmt: skip


def caption(report: Report) -> str:
    """What the table says, and how."""
    table, theirs = report.table, report.table.statistic
    first = "highest" if set(table.quantities) <= set(HIGHEST) else "lowest"
    spread_of_paper = f", ± {table.spread}" if table.spread else ""
    return (
        f"{table.paper.authors} {table.paper.year}, {table.name}, {report.column.label}: {table.caption}. "
        f"The paper's numbers: {theirs}{spread_of_paper}. Ours: mean over seeds ± sample standard deviation; "
        f"best epoch: the {first} of all epochs, each quantity for itself, so that a test error's is chosen by the "
        "test images, which no other choice depends on; difference: ours less the paper's. Where epochs taught no "
        "forward weight, it says how many did and how many did not; time: what a run has learned for."
    )


def text_rows(report: Report) -> list[tuple[str, ...]]:
    """HEADINGS's columns, a row for every quantity of every line."""
    rows: list[tuple[str, ...]] = []
    for line in report.lines:
        for i, quantity in enumerate(report.table.quantities):
            seeds = ", ".join(map(str, line.seeds)) if line.seeds else "missing"
            epochs = reached(line) if line.seeds else "missing"
            seconds = f"{line.seconds:,.0f}" if line.seeds else "–"
            paper, digits = line.published.get(quantity), 2 if "error" in quantity else 5
            only = MEASURED[quantity][1]
            final = None if only == "best" else line.final.get(quantity)
            best = line.best.get(quantity)
            rows.append(
                (
                    "" if i else line.row.label, quantity,
                    published(line.cell, quantity, digits) if line.same_images else OTHER_IMAGES,
                    shown(final, digits), difference(final, paper, digits),
                    shown(best, digits), difference(best, paper, digits),
                    *(("", "", "") if i else (seeds, epochs, seconds)),
                )
            )  # fmt: skip
    return rows


def reached(line: Line) -> str:
    """How far a line's runs have come, and how many of their epochs taught the forward weights if not all."""
    parts = str(line.phases) if line.phases else ""
    return f"{line.epoch} of {line.epochs}" + (f" ({parts})" if parts else "")


def published(cell: papers.Cell, quantity: str, digits: int) -> str:
    """The paper's number, or why there is none."""
    if quantity in cell.missing:
        return cell.missing[quantity]
    deviation = f" ± {cell.spreads[quantity]:.{digits}f}" if quantity in cell.spreads else ""
    return f"{cell.values[quantity]:.{digits}f}{deviation}"


def difference(found: Spread | None, paper: float | None, digits: int) -> str:
    """Ours less the paper's."""
    return "–" if found is None or paper is None else f"{found.mean - paper:+.{digits}f}"


def as_markdown(report: Report, out: Path | None = None) -> str:
    """The report as a page. out: the folder of the runs, whose seeds are compared epoch by epoch."""
    lines = [f"# {report.table.name}, {report.column.label}", "", f"{caption(report)}", ""]
    lines += table_of(HEADINGS, text_rows(report), left=2)
    lines += [] if out is None else paired.as_markdown(report, out)
    lines += ["", *(f"- {note}" for note in report.notes)] if report.notes else []
    lines += ["", "What computed them:", "", *(f"- {line}" for line in report.computed)] if report.computed else []
    return "\n".join(lines) + "\n"


def as_json(report: Report) -> str:
    """Every number of the report, and of every run."""
    content = {
        "table": report.table.name,
        "column": report.column.id,
        "caption": caption(report),
        "rows": [
            {
                "row": line.row.id, "label": line.row.label, "paper": dict(line.cell.values),
                "paper_spread": dict(line.cell.spreads), "paper_missing": dict(line.cell.missing),
                "seeds": line.seeds, "missing": not line.seeds, "epoch": line.epoch, "epochs": line.epochs,
                "seconds": line.seconds, "same_images": line.same_images,
                "phases": line.phases._asdict() if line.phases else None,
                "final": {q: s._asdict() for q, s in line.final.items()},
                "best": {q: s._asdict() for q, s in line.best.items()},
                "difference": {
                    which: {q: s.mean - line.published[q] for q, s in found.items() if q in line.published}
                    for which, found in (("final", line.final), ("best", line.best))
                },
            }
            for line in report.lines
        ],
        "notes": report.notes,
        "runs": [as_fields(result) for result in report.results],
    }  # fmt: skip
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_fields(result: Result) -> dict[str, Any]:
    """A run as what JSON can hold."""
    parts = result.phases._asdict() if result.phases else None
    return result._asdict() | {"experiment": as_dict(result.experiment), "phases": parts}


def write(report: Report, out: Path) -> tuple[Path, Path]:
    """Write the report as a page and as JSON to OUT, and return their paths."""
    name = f"{report.table.name.replace('/', '-')}-{report.column.id}"
    paths = out / f"{name}.md", out / f"{name}.json"
    out.mkdir(parents=True, exist_ok=True)
    for path, text in zip(paths, (as_markdown(report, out), as_json(report))):
        write_whole(path, visible(text).encode())
    return paths
