"""Files of results, understood: what can be trusted, a page, and the last line."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from ..machine import files
from .plan import PRICES

BAD = ("fail", "error")
NAMED = 5  # checks of a form that fail, and are named


class Form(NamedTuple):
    """What is known of a backend in one precision."""

    name: str
    asked: int  # outcomes
    planned: int  # of them, had there been time
    bad: tuple[Mapping[str, Any], ...]
    deviating: int
    why: str  # it could not be had; "" where it could

    @property
    def trusted(self) -> bool:
        """Whether it was asked everything that was begun, and nothing failed but what is declared with a reason."""
        return self.asked >= self.planned > 0 and not self.bad

    def __str__(self) -> str:
        if not self.asked:
            return f"{self.name} ({self.why or 'no time was left'})"
        counts = f"{self.asked:,} of {self.planned:,} checks" if self.asked < self.planned else f"{self.asked:,} checks"
        failing = f"{len(self.bad)} of {counts} fail" if self.bad else counts
        deviating = f", {self.deviating} deviate with a reason" if self.deviating else ""
        return f"{self.name} ({failing}{deviating})"


def lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file; none where there is no file, and without one that a kill has cut."""
    try:
        found = files.content(path).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    tables = []
    for text in found:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            tables.append(line)
    return tables


def forms(found: Sequence[Mapping[str, Any]], names: Iterable[str], absent: Mapping[str, str]) -> list[Form]:
    """What conformance has found of every form. absent: why a backend could not be had at all, by its label."""
    outcomes: dict[str, list] = {}
    planned: Counter = Counter()
    failed: dict[str, str] = {}
    for line in found:
        if line["what"] == "outcome":
            outcomes.setdefault(line["form"], []).append(line)
        elif line["what"] == "begins":
            planned[line["form"]] += line["planned"]
        elif line["what"] == "failed":
            failed.setdefault(line["form"], line["reason"])
    made = []
    for name in names:
        mine = outcomes.get(name, [])
        bad = tuple(line for line in mine if line["state"] in BAD)
        why = failed.get(name) or absent.get(name.rpartition(" ")[0], "")
        made.append(Form(name, len(mine), planned[name], bad, sum(o["state"] == "deviates" for o in mine), why))
    return made


def last_line(device: str, found: Sequence[Form]) -> str:
    """Whether a device can be trusted, with which backends and precisions."""
    groups = (
        ("can be trusted with", [f for f in found if f.trusted]),
        ("nothing failed as far as there was time with", [f for f in found if f.asked and not (f.trusted or f.bad)]),
        ("not with", [f for f in found if f.bad]),
        ("not measured:", [f for f in found if not f.asked]),
    )
    said = [f"{words} {', '.join(map(str, group))}" for words, group in groups if group]
    return f"{device}: {'; '.join(said)}."


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A table in Markdown, and an empty line."""
    text = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    text += ["| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |" for row in rows]
    return [*text, ""] if len(text) > 2 else ["Nothing was measured.", ""]


def page(about: Mapping[str, Any], found: Sequence[Form], out: Path, verdict: str) -> str:
    """The page of a run, in Markdown."""
    text = ["# One device, measured", "", verdict, ""]
    text += table(("", ""), [(name, value) for name, value in about.items()])
    text += ["## Conformance", ""]
    text += table(
        ("backend and precision", "checks", "of", "fail", "deviate with a reason", "why not"),
        [(f.name, f.asked, f.planned or "", len(f.bad), f.deviating, f.why) for f in found],
    )
    text += [f"- {f.name}: {o['id']} ({o['mode']}): {o['reason']}" for f in found for o in f.bad[:NAMED]]
    text += ["", "## Speed", "", "Ratios are our time over the other's, interleaved: below 1 ours is faster.", ""]
    text += speed(lines(out / "speed.jsonl"))
    text += ["## Learning", ""]
    return "\n".join([*text, *learned(lines(out / "learning.jsonl"))])


def speed(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was timed, where the time goes, what failed and what was not measured."""
    records = [line for line in found if line["what"] == "record" and "seconds" in line]
    rows = []
    for r in records:
        ratio, best = r.get("ratio"), r.get("forms", {})
        eager = best.get("eager")
        rows.append((
            r["item"], f"{1e3 * r['seconds']:.3f}", r.get("against", ""), f"{ratio['value']:.3f}" if ratio else "",
            f"{eager / r['seconds']:.2f}" if eager else "",
            f"{100 * r['share_of_peak']:.0f} %" if "share_of_peak" in r else "",
        ))  # fmt: skip
    headings = ("what", "ms a step", "against", "ratio", "torch eager over ours", "of the measured peak")
    text = table(headings, rows)
    peaks = [line for line in found if line.get("kind") == "peak"]
    for line in peaks:
        text += [f"{line['item']}: " + ", ".join(f"{n} {v:.3g}/s" for n, v in line.items() if isinstance(v, float)), ""]
    for sentence in prices(found):
        text += [sentence, ""]
    parts = [line for line in found if line["what"] == "part"]
    if parts:
        text += ["Where the time of a step goes:", ""]
        text += table(("what", "part", "calls", "ms a step", "share"),
                      [[p[n] for n in ("item", "part", "calls", "ms a step", "share")] for p in parts])  # fmt: skip
    failed = {line.get("item", "speed"): line["reason"] for line in found if line["what"] == "failed"}
    text += [f"- {item} failed: {reason}" for item, reason in failed.items()]
    planned = [item for line in found if line["what"] == "planned" for item in line["items"]]
    missing = [item for item in planned if item not in failed and item not in {line.get("item") for line in found}]
    return [*text, *([f"- not measured: {'; '.join(missing)}"] if missing else []), ""]


def prices(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """What determinism costs, a sentence for every step that was timed both ways."""
    seconds: dict[str, dict[str, float]] = {}
    for line in found:
        if line["what"] == "record" and "seconds" in line:
            kind, _, name = line["item"].partition(": ")
            seconds.setdefault(kind, {})[name] = line["seconds"]
    usual = seconds.get("usual", {})
    return [
        f"{price.words} costs {100 * (took / usual[name] - 1):+.0f} % of a step: {name}."
        for price in PRICES
        for name, took in seconds.get(price.kind, {}).items()
        if name in usual
    ]


def learned(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The last record of every row and seed, as a row of a table each."""
    last: dict[tuple, Mapping[str, Any]] = {}
    for line in found:
        if line["what"] == "record":
            last[line["row"], line["seed"]] = line
    rows = []
    for name in dict.fromkeys(row for row, _ in last):
        mine = [line for (row, _), line in last.items() if row == name]
        errors = [[line[kind] for line in mine if line[kind] is not None] for kind in ("train_error", "test_error")]
        rows.append((name, len(mine), ", ".join(str(line["epoch"]) for line in mine), mine[0]["backend"],
                     *(f"{mean(e):.2f}" if e else "" for e in errors)))  # fmt: skip
    text = table(("row", "seeds", "epochs", "backend", "train error, %", "test error, %"), rows)
    return text + [
        f"- {line['row']}, seed {line['seed']}: {line['reason']}" for line in found if line["what"] == "failed"
    ]
