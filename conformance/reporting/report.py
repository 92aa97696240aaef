"""Reports as JSON (schema.json) and as a page (page.py)."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ref_bioplaus.conformance.checks.outcomes import STATES, Outcome, Report
from ref_bioplaus.conformance.files.reading import check, json_of, shown
from ref_bioplaus.conformance.judging.judge import Score
from ref_bioplaus.conformance.reporting.deviations import device_kind

SCHEMA = "ref_bioplaus.conformance/1"
SCHEMA_FILE = Path(__file__).parent / "schema.json"
ASKED = "backend as asked for"  # in a report's environment, where the backend goes by another name
DIGITS = 6  # significant ones of stored numbers; a departure's values keep all
PER_DECADE = 4
EDGES = tuple(float(f"{10 ** (i / PER_DECADE):.{DIGITS}g}") for i in range(-4 * PER_DECADE, 4 * PER_DECADE + 1))


@dataclass
class Histogram:
    """How many tensors of a level have which score, in units of the limit."""

    exact: int  # score 0
    counts: list[int]  # up to EDGES[0], from one edge up to the next, beyond the last; up to: included


@dataclass
class Stored(Report):
    """A report that was read back: of its tensors' scores it knows the histogram only."""

    histograms: dict[int, Histogram] = field(default_factory=dict)


def histograms(report: Report) -> dict[int, Histogram]:
    """Of all tensors that were compared, {level: histogram}."""
    if isinstance(report, Stored):
        return report.histograms
    found = {}
    for level in sorted({o.level for o in report.outcomes}):
        scores = np.array([s for o in report.outcomes if o.level == level for s in o.scores]) / report.limit
        scores = np.where(np.isnan(scores), np.inf, scores)
        bins = np.searchsorted(EDGES, scores[scores != 0.0], side="left")
        counts = np.bincount(bins, minlength=len(EDGES) + 1)
        if scores.size:
            found[level] = Histogram(int(np.sum(scores == 0.0)), [int(n) for n in counts])
    return found


def verdict(reports: Sequence[Report]) -> str:
    """One sentence: pass or fail, how many outcomes are in which state, and how near to the limit a pass came."""
    outcomes = [o for report in reports for o in report.outcomes]
    counts = {state: sum(o.state == state for o in outcomes) for state in STATES}
    problems = sum(len(report.problems) for report in reports)
    nearest = max((o.score / r.limit for r in reports for o in r.outcomes if o.state == "pass"), default=0.0)
    words = [
        f"{'PASS' if sound(reports) else 'FAIL'}: {counts['pass']:,} of {len(outcomes):,} outcomes pass",
        *(f"{n:,} {PLURALS[state]}" for state, n in counts.items() if n and state != "pass"),
        *([f"{problems} problem{'s' if problems > 1 else ''} with deviations"] if problems else []),
    ]
    words = [", ".join(words), *([f"the largest score that passes is {nearest:.2g} of the limit"] if nearest else [])]
    if not counts["pass"] and counts["deviates"]:
        words.append("what was judged deviates by declaration, so that nothing is shown to be right")
    return "; ".join(words) + "."


def sound(reports: Sequence[Report]) -> bool:
    """Whether every report is sound, and something passed: a run that could test nothing proves nothing."""
    return all(report.sound for report in reports) and any(report.count("pass") for report in reports)


def largest(outcomes: Iterable[Outcome]) -> float | None:
    """The largest score among outcomes that were judged by scores; None where there is none."""
    return max((o.score for o in outcomes if o.comparisons and o.state not in UNJUDGED), default=None)


UNJUDGED = ("unsupported", "not run")
PLURALS = {
    "fail": "fail", "error": "raised an error", "deviates": "deviate for a stated reason", "unsupported": "unsupported",
    "not run": "not run",
}  # fmt: skip


# JSON


def to_json(reports: Sequence[Report]) -> dict[str, Any]:
    """The reports as what JSON can hold, described by schema.json."""
    return {
        "schema": SCHEMA,
        "sound": sound(reports),
        "edges": list(EDGES),
        "reports": [report_data(report) for report in reports],
    }


def as_text(data: Any, margin: str = "\n") -> str:
    """JSON data as text, one line for every check, so that a change of one shows as one."""
    inner = margin + " "
    if isinstance(data, dict) and data and "modes" not in data:
        parts = [f"{json.dumps(key)}: {as_text(value, inner)}" for key, value in data.items()]
        return "{" + inner + f",{inner}".join(parts) + margin + "}"
    if isinstance(data, list) and data and isinstance(data[0], dict):
        return "[" + inner + f",{inner}".join(as_text(value, inner) for value in data) + margin + "]"
    return json.dumps(data, separators=(",", ":"), allow_nan=False)


def report_data(report: Report) -> dict[str, Any]:
    """One report."""
    return {
        "backend": report.backend,
        "device": report.device,
        "dtype": report.dtype,
        "precision": report.precision,
        "probed": report.probed,
        "kernels": report.kernels,
        "versions": dict(report.versions),
        "environment": dict(report.environment),
        "limit": report.limit,
        "sound": report.sound,
        "counts": {state: report.count(state) for state in STATES},
        "problems": list(report.problems),
        "diagnosis": list(report.diagnosis),
        "not_judged": list(report.not_judged),
        "coverage": dict(report.coverage),
        "histogram": {str(l): {"exact": h.exact, "counts": list(h.counts)} for l, h in histograms(report).items()},
        "checks": checks_data(report.outcomes),
    }


def checks_data(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """Outcomes, those of one check in its several modes together."""
    checks: list[dict[str, Any]] = []
    for o in outcomes:
        head = {"id": o.id, "level": o.level, "group": o.group}
        last = checks[-1] if checks else {}
        if any(last.get(key) != value for key, value in head.items()) or o.mode in last["modes"]:
            checks.append(head | {"modes": {}})
        checks[-1]["modes"][o.mode] = outcome_data(o)
    return checks


def outcome_data(o: Outcome) -> list[Any] | dict[str, Any]:
    """[score, comparisons, undecidable, seconds] of a pass; of another an object, without what is 0 or empty."""
    score, seconds = number(o.score), number(round(o.seconds, 3))
    if o.state == "pass" and not o.reason and o.departure is None:
        return [score, o.comparisons, o.undecidable, seconds]
    d = o.departure
    found = {
        "state": o.state,
        "score": score,
        "comparisons": o.comparisons,
        "undecidable": o.undecidable,
        "seconds": seconds,
        "reason": o.reason,
        "departure": None if d is None else {
            "tensor": d.tensor, "index": list(d.index), "score": number(d.score),
            **({"hint": d.hint} if d.hint else {}),
            **{key: number(getattr(d, key), 17) for key in ("expected", "got", "allowed")},
        },
    }  # fmt: skip
    return {key: value for key, value in found.items() if value}


def number(value: float, digits: int = DIGITS) -> float | int | str:
    """A number of so many significant digits; "inf", "-inf" or "nan" for what JSON has no number for."""
    if not math.isfinite(value):
        return str(float(value))
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e6 else rounded


def from_json(data: Any) -> list[Report]:
    """The reports of `to_json`. Raises ValueError, one sentence, for data of another schema, or that it objects to."""
    found = data.get("schema") if isinstance(data, dict) else data
    if found != SCHEMA:
        raise ValueError(f'the schema is {shown(found)}, expected "{SCHEMA}": write the report again')
    check(data, json_of(SCHEMA_FILE), "a report")
    return [stored(report) for report in data["reports"]]


def stored(data: dict[str, Any]) -> Stored:
    """One report."""
    names = ("backend", "device", "dtype", "precision", "probed", "kernels", "versions", "environment", "limit")
    outcomes = [outcome(check, mode, found) for check in data["checks"] for mode, found in check["modes"].items()]
    shapes = {int(level): Histogram(h["exact"], list(h["counts"])) for level, h in data["histogram"].items()}
    return Stored(
        **{name: data[name] for name in names}, outcomes=outcomes, problems=list(data["problems"]), histograms=shapes,
        diagnosis=list(data.get("diagnosis", ())), not_judged=list(data.get("not_judged", ())),
        coverage=dict(data.get("coverage", {})),
    )  # fmt: skip


def outcome(check: dict[str, Any], mode: str, found: list[Any] | dict[str, Any]) -> Outcome:
    """One outcome."""
    if isinstance(found, list):
        found = {"state": "pass"} | dict(zip(("score", "comparisons", "undecidable", "seconds"), found, strict=True))
    d = found.get("departure")
    departure = d and Score(
        d["tensor"], float(d["score"]), tuple(d["index"]), float(d["expected"]), float(d["got"]), float(d["allowed"]),
        hint=d.get("hint", ""),
    )  # fmt: skip
    return Outcome(
        check["id"], check["level"], check["group"], mode, found["state"], float(found.get("score", 0.0)),
        found.get("comparisons", 0), found.get("undecidable", 0), departure, found.get("reason", ""),
        float(found.get("seconds", 0.0)),
    )  # fmt: skip


def printable(value: str) -> str:
    """Text without the characters that a terminal or a page cannot show."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", value)


# The page


def to_html(reports: Sequence[Report]) -> str:
    """A page that needs no other file; reports stand side by side."""
    from ref_bioplaus.conformance.reporting import page  # matplotlib and jinja2 for those who want it

    return page.render(reports)


def title(report: Report) -> str:
    """What was under test, in one line."""
    precision = [report.precision] if report.dtype == "float32" else []  # a policy of float32 products
    kernels = [f"{report.kernels} kernels"] if report.kernels != "portable" else []
    return " ".join([report.backend, device_kind(report.device), report.dtype, *precision, *kernels])


def facts(report: Report) -> dict[str, str]:
    """Where it ran and with what, {name: text}."""
    return {
        "backend": report.backend,
        "device": report.device,
        "dtype": report.dtype,
        "precision": report.precision + (f" (probed: {report.probed})" if report.probed else ""),
        "kernels": report.kernels,
        "limit": f"{report.limit:g}",
        **{("device name" if name == "device" else name): value for name, value in report.versions.items()},
        **report.environment,
    }  # fmt: skip
