"""How far other seeds end from each other: what the differences of backends in float32 are compared with.

    python -m ref_bioplaus.experiments.demo.seeds          learns what is missing in seeds.json, or was by other rates
    python -m ref_bioplaus.experiments.demo.seeds --all    learns everything

seeds.json holds the last test error in % of every row for SEEDS seeds on one backend, and the recipe that they were
learned by: of a row whose recipe is another one now it says nothing.
"""

import json
import sys
from collections.abc import Callable, Sequence
from functools import cache
from os.path import exists
from pathlib import Path
from typing import Any, NamedTuple

from ... import registry
from ...machine.files import write_whole
from .networks import ARCHITECTURES, Architecture
from .results import Progress, Settings, Training
from .work import Task, Work

FILE = Path(__file__).parent / "seeds.json"
BACKEND, SEEDS = "numpy", 5


class Spread(NamedTuple):
    """The lowest and highest test error in % of a row over the seeds."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.1f}–{self.high:.1f}"

    def holds(self, errors: list[float]) -> bool:
        """Whether all errors lie in it, as they are printed."""
        return all(round(self.low, 1) <= round(error, 1) <= round(self.high, 1) for error in errors)


@cache
def stored() -> dict[str, dict[str, Any]]:
    """{network/row: {recipe, errors}}."""
    return json.loads(FILE.read_text(encoding="utf-8"))["rows"] if exists(FILE) else {}


def spread(training: Training) -> Spread | None:
    """Of a training's row on its network; None for other steps or rates than the stored ones."""
    a, row = training.architecture, training.row
    found = stored().get(f"{a.name}/{row.name}")
    if found is None or training.steps != a.steps or found["recipe"] != str(row.recipe(a.name)):
        return None
    return Spread(min(found["errors"]), max(found["errors"]))


def apart(trainings: Sequence[Training]) -> str:
    """In words how far backends are apart in the errors that they learn to, and how far seeds; "" without several."""
    rows: dict[tuple[str, str], list[Training]] = {}
    for t in trainings:
        if not t.failure:
            rows.setdefault((t.row.name, t.architecture.name), []).append(t)
    several = [mine for mine in rows.values() if len(mine) > 1]
    if not several:
        return ""
    errors = {id(mine): [t.error for t in mine] for mine in several}
    gaps = sorted(max(e) - min(e) for e in errors.values())
    worst = max(several, key=lambda mine: max(errors[id(mine)]) - min(errors[id(mine)]))
    listed = ", ".join(f"{t.error:.1f} ({t.backend})" for t in worst)
    words = (
        f"Here one row’s errors are {gaps[len(gaps) // 2]:.1f} points apart in the median and {gaps[-1]:.1f} at most: "
        f"{worst[0].row.label} ({worst[0].architecture.name}), {listed} %"
    )
    known = [(mine, found) for mine in several if (found := spread(mine[0]))]
    if not known:
        return f"{words}."
    held = sum(found.holds(errors[id(mine)]) for mine, found in known)
    own = spread(worst[0])
    return (
        f"{words}{f', where {SEEDS} seeds reach from {own.low:.1f} to {own.high:.1f} %' if own else ''}. In {held} of "
        f"{len(known)} rows all backends end within the range of the seeds."
    )


def learned(name: str, a: Architecture, tell: Callable[[str], None]) -> dict[str, Any]:
    """A row's recipe, and its errors over the seeds. Raises RuntimeError where one fails."""
    errors = []
    for seed in range(SEEDS):
        training = Work(Settings(seed=seed)).learned(Task(name, a.name, BACKEND), Progress())
        if training.failure:
            raise RuntimeError(f"{name} on {a.name} failed with seed {seed}: {training.failure}")
        errors.append(round(training.error, 3))
    tell(f"{a.name}/{name}: {min(errors):.1f} to {max(errors):.1f} %")
    return {"recipe": str(registry.row(name).recipe(a.name)), "errors": errors}


def main() -> None:
    """Complete seeds.json, row by row."""
    found = {} if "--all" in sys.argv else dict(stored())
    for a in ARCHITECTURES:
        for row in (row for row in registry.ROWS if a.trains(row)):
            key = f"{a.name}/{row.name}"
            if found.get(key, {}).get("recipe") != str(row.recipe(a.name)):
                found[key] = learned(row.name, a, print)
                whole = {"backend": BACKEND, "seeds": SEEDS, "rows": found}
                write_whole(FILE, (json.dumps(whole, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
