"""Tables and plots of the results: index.html, which needs no other file, RESULTS.md, and results.json."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ref_bioplaus import naming
from ref_bioplaus.machine.files import write_whole
from ref_bioplaus.showing.pages import template

from .drawing.pictures import pictures
from .where import environments, place
from .workloads import METHODS, WORKLOADS, methods_of

PAGE, TEXT, DATA = "index.html", "RESULTS.md", "results.json"
SCHEMA = "ref_bioplaus.benchmarks/1"
GOALS = {  # native's time over ours, BP, float32 on two cores: above 1 is faster than native
    "torch": {"W1": 1.8, "W2": 1.8, "W3": 1.15, "W4": 1.05, "W5": 2.2, "W6": 1.08},
    "jax": {"W1": 1.1, "W2": 1.05, "W3": 2.2, "W4": 1.6, "W5": 3.9, "W6": 1.4},
    "numpy": {"W1": 1.0, "W2": 1.0, "W3": 0.75, "W4": 0.65, "W5": 2.0, "W6": 0.65},
}
LIMITS = {"FA": 1.03, "SN": 1.08, "KP": 1.08}  # an algorithm's time over BP's; on NumPy 0.1 more
DIRECT_LIMIT = 0.90  # of DFA on W1 to W4
TARGET_LIMIT = 3.2  # of DTP on W1
NUMPY_MORE = 0.1
GPU_GOAL, CUPY_GOAL = 1.0, 0.5  # native's time over ours on a GPU
MISSING = "not measured"
EAGER_GOAL = 3.0  # of W1 and W2 on a GPU, over torch's eager form


class Cell(NamedTuple):
    """A number with the goal beside it."""

    text: str
    goal: str = ""
    missed: bool = False
    open: bool = False  # the goal lies within the interval
    below: str = ""  # another number

    @property
    def state(self) -> str:
        """In a word, how its goal fares; "" for a number without one."""
        return "" if not self.goal else "undecided" if self.open else "missed" if self.missed else "reached"


class Table(NamedTuple):
    """A table: its columns' names, and rows of a name and cells."""

    title: str
    note: str
    columns: list[str]
    rows: list[tuple[str, list[Cell]]]
    words: bool = False  # whether its cells are words, which take several lines


def write(folder: Path, records: Sequence[dict[str, Any]]) -> None:
    """Write the three files into the folder. records: measurements, and the environments that they name."""
    measured = [r for r in records if r["kind"] != "environment"]
    places = environments(records, measured)
    data = {"schema": SCHEMA, "environments": places, "records": measured}
    write_whole(folder / DATA, json.dumps(data, indent=1).encode())
    found = tables(measured)
    write_whole(folder / TEXT, as_markdown(found, places, has_gpu(measured)).encode())
    page = template(Path(__file__).parent / "templates" / "report.html").render(
        tables=found, pictures=pictures(measured, GOALS), environments=places, gpu=has_gpu(measured),
        workloads=WORKLOADS, methods=METHODS, judged=judged(found),
    )  # fmt: skip
    write_whole(folder / PAGE, page.encode())


def has_gpu(records: Sequence[dict[str, Any]]) -> bool:
    """Whether something was measured on a GPU."""
    return any(r.get("device") == "cuda" for r in records)


def tables(records: Sequence[dict[str, Any]]) -> list[Table]:
    """Every table that there is something for."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for r in records:
        kinds.setdefault(r["kind"], []).append(r)
    made = [
        *native_tables(kinds.get("native", [])),
        *algorithm_tables(kinds.get("step", [])),
        *memory_tables(kinds.get("memory", [])),
        *feedback_tables(kinds.get("feedback", [])),
        *kernel_tables(kinds.get("kernel", [])),
        *start_tables(kinds.get("start", [])),
    ]
    return [table for table in made if table.rows]


class Judged(NamedTuple):
    """How the goals of some tables fare together."""

    about: str
    reached: int
    missed: int
    undecided: int

    def __str__(self) -> str:
        whole = self.reached + self.missed + self.undecided
        others = f", {whole - self.reached} not: {self.missed} missed, {self.undecided} undecided"
        return f"{self.about}: {self.reached} of {whole} goals reached{others if self.reached < whole else ''}"


def judged(found: Sequence[Table]) -> list[Judged]:
    """The goals of all tables, those of several backends' tables together."""
    counts: dict[str, dict[str, int]] = {}
    for table in found:
        about = "Algorithms against backpropagation" if table.title.startswith("Algorithms on") else table.title
        for cell in (cell for _, cells in table.rows for cell in cells if cell.goal):
            mine = counts.setdefault(about, {"reached": 0, "missed": 0, "undecided": 0})
            mine[cell.state] += 1
    return [Judged(about, **mine) for about, mine in counts.items()]


def native_tables(records) -> list[Table]:
    """Ours against native, and every form's time."""
    workloads = [w for w in WORKLOADS if any(r["workload"] == w for r in records)]
    found = {(place(r), r["workload"]): r for r in records}
    rows, forms = [], []
    for name in dict.fromkeys(place(r) for r in records):
        cells = []
        for w in workloads:
            r = found.get((name, w))
            if r is None:
                cells.append(Cell(MISSING))
                continue
            ratio, goal = r["ratio"], GOALS.get(r["backend"], {}).get(w)
            if r.get("device") == "cuda":
                goal = CUPY_GOAL if r["backend"] == "cupy" else GPU_GOAL
            value, low, high = (1.0 / ratio[which] for which in ("value", "high", "low"))
            told = f"goal {goal:g}{undecided(goal, low, high)}" if goal else ""
            missed, within = goal is not None and value < goal, goal is not None and low < goal < high
            if r.get("device") == "cuda" and w in ("W1", "W2") and "eager" in r["forms"]:
                over_eager = r["forms"]["eager"] / r["forms"].get("ours", r["seconds"])
                told = f"{told}; {over_eager:.1f} × eager, goal {EAGER_GOAL:g}"
                missed, within = missed or over_eager < EAGER_GOAL, within and over_eager >= EAGER_GOAL
            cells.append(Cell(f"{value:.2f} ({low:.2f}–{high:.2f})", told, missed, within))
            forms.append((f"{w}, {name}", [
                Cell(r["strongest"]), Cell(" · ".join(f"{form} {1e3 * s:.2f}" for form, s in r["forms"].items())),
                Cell("; ".join(f"{form}: {why}" for form, why in r["failed"].items())
                     or ("" if r.get("compiler") or r["backend"] == "jax" else "torch.compile's were not tried")),
            ]))  # fmt: skip
        rows.append((name, cells))
    note = (
        "Time of the strongest native form that was tried over ours, backpropagation; above 1 ours is faster (95 % "
        "interval of the contest between the two; of several contests their median, and the widest interval)."
    )
    first = "Milliseconds a step in a first contest, which finds the strongest; ours where it took part in that one."
    return [
        Table("Against native", note, workloads, rows),
        Table("Native forms", first, ["strongest", "all", "failed"], forms, words=True),
    ]


def algorithm_tables(records) -> list[Table]:
    """For every backend: ratios to backpropagation, throughput, and the share of the peak."""
    made = []
    for name in dict.fromkeys(place(r) for r in records):
        mine = [r for r in records if place(r) == name]
        found = {(r["workload"], r["method"]): r for r in mine}
        workloads = [w for w in WORKLOADS if any(r["workload"] == w for r in mine)]
        methods = [m for m in METHODS if any(r["method"] == m for r in mine)]
        methods += dict.fromkeys(r["method"] for r in mine if naming.is_code(r["method"]))

        def rows(cell, found=found, workloads=workloads, methods=methods):
            asked = {w: methods_of(WORKLOADS[w]) for w in workloads}
            none = {(w, m): Cell(MISSING if m in asked[w] else "") for w in workloads for m in methods}
            return [(m, [cell(found[w, m]) if (w, m) in found else none[w, m] for w in workloads]) for m in methods]

        made += [
            Table(f"Algorithms on {name}", "Time over backpropagation's; below 1 is faster.", workloads,
                  rows(to_backprop)),
            Table(f"Throughput on {name}", "Milliseconds a step; examples a second. Each in its own contest with "
                  "backpropagation: what compares algorithms are the ratios above.", workloads,
                  rows(lambda r: Cell(f"{1e3 * r['seconds']:.2f}", below=f"{r['examples_per_second']:,.0f}/s"))),
            Table(f"Share of the peak on {name}", "Counted operations over the best product or convolution of the same "
                  "run.", workloads, rows(share)),
            Table(f"Compilation on {name}", "Seconds that the first steps took longer.", workloads,
                  rows(lambda r: Cell(f"{r['compile_seconds']:.1f}"))),
        ]  # fmt: skip
    return made


def share(r) -> Cell:
    """Operations per second over the peak; one that is above it was measured while something else ran."""
    if "peak" not in r:
        return Cell(MISSING)
    found = r["flops"] / r["seconds"] / r["peak"]
    return Cell(f"{found:.0%}" if found <= 1.0 else "the peak was disturbed")


def undecided(goal: float, low: float, high: float) -> str:
    """A word where the goal lies within the interval."""
    return ", undecided" if low < goal < high else ""


def to_backprop(r) -> Cell:
    """An algorithm's time over backpropagation's, and the limit."""
    if "ratio" not in r:
        return Cell("1")
    limit = LIMITS.get(r["method"])
    if r["method"] == "DFA" and r["workload"] in ("W1", "W2", "W3", "W4"):
        limit = DIRECT_LIMIT
    if r["method"] == "DTP" and r["workload"] == "W1":
        limit = TARGET_LIMIT
    if limit is not None and r["backend"] == "numpy":
        limit += NUMPY_MORE
    value, low, high = (r["ratio"][which] for which in ("value", "low", "high"))
    goal = "" if limit is None else f"at most {limit:.2f}{undecided(limit, low, high)}"
    missed, within = limit is not None and value > limit, limit is not None and low < limit < high
    return Cell(f"{value:.2f} ({low:.2f}–{high:.2f})", goal, missed, within)


def memory_tables(records) -> list[Table]:
    """Peak bytes of every algorithm and of the native form."""
    found = {(r["workload"], place(r), "native" if r["subject"].startswith("form") else r["subject"]): r
             for r in records}  # fmt: skip
    subjects = ["native", *METHODS, *dict.fromkeys(key[2] for key in found if naming.is_code(key[2]))]
    columns = [s for s in subjects if any(key[2] == s for key in found)]
    rows = []
    for w, name in dict.fromkeys(key[:2] for key in found):
        native = found.get((w, name, "native"))
        cells = []
        for s in columns:
            r = found.get((w, name, s))
            judged = s == "BP" and native is not None and name.startswith("torch")
            missed = bool(judged and r and r["bytes"] > native["bytes"])
            text = megabytes(r["bytes"]) if r else "" if "portable" in name else MISSING
            cells.append(Cell(text, "at most native's" if judged else "", missed))
        rows.append((f"{w}, {name}", cells))
    note = (
        "MB above what the imported libraries take, each in its own process, with the system's allocator as it is set "
        "(freed memory goes back). Native: the strongest native form. The rows of portable kernels are for comparison."
    )
    return [Table("Peak memory", note, columns, rows)]


def feedback_tables(records) -> list[Table]:
    """DFA's feedback matrices, stored and generated."""
    found = {(r["workload"], place(r), r["how"]): r for r in records}
    rows = []
    for w, name in dict.fromkeys(key[:2] for key in found):
        pair = [found.get((w, name, how)) for how in ("stored", "generated")]
        cells = [
            Cell(
                f"{megabytes(r['bytes'])} MB, in a step {megabytes(r['peak_bytes'])} MB, {1e3 * r['seconds']:.2f} ms"
                if r and "peak_bytes" in r else ""
            )
            for r in pair
        ]  # fmt: skip
        rows.append((f"{w}, {name}", cells))
    return [
        Table(
            "DFA's feedback matrices",
            "Bytes of the feedback path, the peak of a step's memory, and a step.",
            ["stored", "generated"],
            rows,
        )
    ]


def kernel_tables(records) -> list[Table]:
    """Every kernel by backend."""
    names = list(dict.fromkeys(place(r) for r in records))
    found = {(r["primitive"], place(r)): r for r in records}

    def cell(r):
        if r is None:
            return Cell("")
        faster = f" ({1 / r['ratio']['value']:.2f}×)" if "ratio" in r else ""
        return Cell(f"{1e3 * r['seconds']:.2f}{faster}")

    rows = [(p, [cell(found.get((p, n))) for n in names]) for p in dict.fromkeys(r["primitive"] for r in records)]
    return [Table("Kernels", "Milliseconds; in brackets how many times faster than the portable form.", names, rows)]


def start_tables(records) -> list[Table]:
    """Imports and commands."""
    rows = [(r["name"], [Cell(f"{r['seconds']:.2f}")]) for r in records]
    return [Table("Start", "Seconds from the shell, a process each.", ["seconds"], rows)]


def megabytes(count: int) -> str:
    """Bytes as MB."""
    return f"{count / 1e6:,.1f}"


def as_markdown(found: Sequence[Table], places: Sequence[dict[str, Any]], gpu: bool) -> str:
    """The tables as text."""
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench-report`; goals stand beside what they are for, a miss is bold. A goal is undecided where "
        "it lies within the interval.",
        "",
        *[f"- {line}" for line in judged(found)],
        "",
    ]
    if not gpu:
        lines += ["There was no GPU: W7, W8 and all figures for GPUs were not measured.", ""]
    for table in found:
        lines += [f"## {table.title}", "", table.note, ""]
        lines += [f"| | {' | '.join(table.columns)} |", "|" + " --- |" * (len(table.columns) + 1)]
        for name, cells in table.rows:
            texts = [(f"**{c.text}**" if c.missed else c.text) + (f", {more}" if (more := c.goal or c.below) else "")
                     for c in cells]  # fmt: skip
            lines.append(
                "| " + " | ".join([name, *(text.replace("|", "/").replace("\n", " ") for text in texts)]) + " |"
            )
        lines.append("")
    lines += ["## Where this ran", ""]
    for where in places:
        lines += [f"### {where['title']}", "", *[f"- {name}: {text}" for name, text in where["machine"].items()], ""]
    return "\n".join(lines)
