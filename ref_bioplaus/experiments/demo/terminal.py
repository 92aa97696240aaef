"""The demo in a terminal: progress bars while it runs, tables when it is done."""

from collections.abc import Sequence

from rich.console import Console
from rich.progress import TaskID
from rich.table import Table
from rich.text import Text

from ...showing.terminal import bars, new_table, say
from . import agreement
from .networks import ARCHITECTURES
from .page import shown
from .results import REFERENCE, Comparison, Progress, Record, Results, Training

ENOUGH = 10  # sentences of one kind


class Bars(Progress):
    """Two bars: the stage, and the row at work. Without a terminal, a line for every stage."""

    def __init__(self, console: Console):
        self.rich = bars(console, remaining=False)
        self.console = console
        self.bars: list[TaskID] = []
        self.label = ""

    def __enter__(self) -> "Bars":
        self.rich.start()
        return self

    def __exit__(self, *error) -> None:
        self.rich.stop()

    def stage(self, title: str, tasks: int):
        """A new stage's bar."""
        for bar in self.bars:
            self.rich.remove_task(bar)
        self.bars = [self.rich.add_task(title, total=tasks), self.rich.add_task("", total=1)]
        if not self.console.is_terminal:
            self.console.print(f"{title}: {tasks} rows", highlight=False)

    def task(self, label: str, steps: int):
        """The lower bar begins again."""
        self.label = label
        self.rich.reset(self.bars[1], total=steps, description=f"  {label}")

    def advance(self):
        """One step of the lower bar."""
        self.rich.advance(self.bars[1])

    def done(self, records: Sequence[Training | Comparison]):
        """One step of the upper bar; a line where there is none."""
        self.rich.advance(self.bars[0])
        if not self.console.is_terminal:
            say(self.console, f"{self.label}: {', '.join(map(outcome, records))}")


def outcome(record: Record) -> str:
    """A record in a few words."""
    if record.failure:
        return "failed"
    if isinstance(record, Training):
        return (
            f"{record.error:.1f} % test error after {record.seconds:.1f} s, first calls {record.warm_up_seconds:.1f} s"
        )
    return f"{record.backend} {'agrees' if record.agrees else 'DIFFERS'}"


def show(results: Results, console: Console) -> None:
    """Print the tables, and what did not take part or failed."""
    for architecture in ARCHITECTURES:
        mine = results.learned(architecture)
        if mine:
            console.print(training_table(architecture.label, mine))
            for text in dict.fromkeys(t.note for t in mine if t.note):
                labels = " · ".join(dict.fromkeys(t.row.label for t in mine if t.note == text))
                say(console, f"{labels}: {text}.")
            console.print()
    if results.comparisons:
        console.print(agreement_table(results.comparisons))
        console.print()
    for c in results.disagreeing[:ENOUGH]:
        say(console, f"{where(c)} differs by {c.difference:.1e} in {c.tensor}.", "red")
    if len(results.disagreeing) > ENOUGH:
        say(console, f"{len(results.disagreeing) - ENOUGH} more differ; the page names them.", "red")
    for record in results.failures[:ENOUGH]:
        say(console, f"{where(record)} failed: {record.failure}", "red")
    if len(results.failures) > ENOUGH:
        say(console, f"{len(results.failures) - ENOUGH} more failed; the page names them.", "red")
    for name, why in results.left_out.items():
        say(console, f"{name} did not take part: {why}.")
    say(console, results.time())


def training_table(title: str, trainings: list[Training]) -> Table:
    """A line for every row and backend."""
    table = new_table(title=f"{title}; {trainings[0].steps} steps")
    table.add_column("algorithm", no_wrap=True)
    table.add_column("backend", overflow="fold")
    for heading in ("test error, %", "time, s", "images/s", "angle to W"):
        table.add_column(heading, justify="right")
    last = None
    for t in trainings:
        label = "" if t.row is last else t.row.label
        table.add_row(label, Text(t.backend), *shown(t), style="red" if t.failure else None)
        last = t.row
    return table


def agreement_table(comparisons: list[Comparison]) -> Table:
    """A line for every backend: how much was compared, and where it differs most."""
    table = new_table(
        title=f"Agreement with {REFERENCE} after 5 steps in float64, portable kernels; limit {agreement.LIMIT:g}"
    )
    table.add_column("backend", overflow="fold")
    for heading in ("compared", "differ", "failed", "largest"):
        table.add_column(heading, justify="right")
    table.add_column("in", overflow="fold")
    for name in dict.fromkeys(c.backend for c in comparisons):
        mine = [c for c in comparisons if c.backend == name]
        judged = [c for c in mine if not c.failure]
        worst = max(judged, key=lambda c: c.difference, default=None)
        counts = (len(judged), sum(not c.agrees for c in judged), len(mine) - len(judged))
        place = "" if worst is None or not worst.tensor else f"{worst.row.label} ({worst.architecture.name})"
        size = "" if worst is None else f"{worst.difference:.1e}" if worst.difference else "0"
        table.add_row(
            Text(name), *map(str, counts), size, Text(f"{place}\n{worst.tensor}" if place and worst else ""),
            style="red" if counts[1] or counts[2] else None,
        )  # fmt: skip
    return table


def where(record: Record) -> str:
    """A record's row, network and backend."""
    kind = "comparison" if isinstance(record, Comparison) else "training"
    return f"{record.row.label} ({record.architecture.name}) on {record.backend}, {kind},"
