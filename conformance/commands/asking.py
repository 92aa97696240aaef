"""What `ref-bioplaus conformance run` and pytest ask for, from words. Each function raises ValueError, one sentence."""

import os
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ref_bioplaus.conformance.files.reading import shown

if TYPE_CHECKING:
    from ref_bioplaus.backends import Backend
    from ref_bioplaus.conformance.checks.outcomes import Check
    from ref_bioplaus.registry import Row

LEVELS = (0, 1, 2, 3, 4)
KERNELS = ("portable", "native")


class Asked(NamedTuple):
    """One report to make."""

    backend: str
    dtype: str
    precision: str
    kernels: str = "portable"

    def __str__(self) -> str:
        kernels = f" {self.kernels} kernels" if self.kernels != "portable" else ""
        return f"{self.backend} {self.dtype} {self.precision}{kernels}"


def parse_levels(text: str, option: str = "--level") -> tuple[int, ...]:
    """Levels as "0-2", "0,2" or both, ascending. Raises ValueError, one sentence."""
    found: set[int] = set()
    for part in text.split(","):
        ends = re.fullmatch(r"\s*([0-4])\s*(?:-\s*([0-4])\s*)?", part)
        if not ends or int(ends[1]) > int(ends[2] or ends[1]):
            raise ValueError(f"{option} is {shown(text)}, expected levels from 0 to 4 such as 0-2 or 0,2")
        found |= set(range(int(ends[1]), int(ends[2] or ends[1]) + 1))
    return tuple(sorted(found))


def split(texts: Sequence[str]) -> list[str]:
    """Names with commas between, each once."""
    return list(dict.fromkeys(name.strip() for text in texts for name in text.split(",") if name.strip()))


def choose(text: str, known: Sequence[str], option: str) -> tuple[str, ...]:
    """Some of the known names. Raises ValueError for another, and for none."""
    names = split([text])
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        wrong = shown(unknown[0] if unknown else text)
        raise ValueError(f"{option} is {wrong}, expected some of {', '.join(known)}")
    return tuple(name for name in known if name in names)


def combinations(
    backends: Sequence[str], dtype: str, precision: str, kernels: str = "portable", prefix: str = "--"
) -> list[Asked]:
    """Every report that is asked for. Raises ValueError for an unknown word, or a dtype without the precision."""
    from ref_bioplaus.conformance.judging.rounding import PRECISIONS

    if not backends:
        how = f"name a backend with {prefix}backend, as in {prefix}backend numpy"
        raise ValueError(f"nothing is named to be checked: {how}")
    dtypes = choose(dtype, list(dict.fromkeys(d for d, _ in PRECISIONS)), f"{prefix}dtype")
    precisions = choose(precision, list(dict.fromkeys(p for _, p in PRECISIONS)), f"{prefix}precision")
    forms = choose(kernels, KERNELS, f"{prefix}kernels")
    for name in dtypes:
        if not any((name, p) in PRECISIONS for p in precisions):
            wrong = f"{prefix}dtype {name} has no precision {', '.join(precisions)}"
            raise ValueError(f"{wrong}: leave {prefix}precision out")
    allowed = [(d, p) for d in dtypes for p in precisions if (d, p) in PRECISIONS]
    return [Asked(b, d, p, k) for b in backends for k in forms for d, p in allowed]


def start(asked: Asked, device: str | None) -> "Backend":
    """The backend. Raises ValueError, one sentence, whatever its own code raises."""
    from ref_bioplaus import backends

    try:
        return backends.get(
            asked.backend, device=device, dtype=asked.dtype, precision=asked.precision, kernels=asked.kernels
        )
    except backends.BackendError as error:
        raise ValueError(error) from error
    except Exception as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        raise ValueError(f"backend {shown(asked.backend)} did not start: {why}") from error


def chosen_rows(names: Sequence[str]) -> "Sequence[Row] | None":
    """The rows of some rules; None of none. Raises ValueError, one sentence."""
    from ref_bioplaus import registry

    try:
        return [registry.row(name) for name in names] or None
    except KeyError as error:
        raise ValueError(str(error.args[0]).removesuffix("?")) from error


def select(
    levels: Sequence[int], case: str, modes: Sequence[str], option: str = "--case", rows: "Sequence[Row] | None" = None
) -> "tuple[Check, ...]":
    """The checks to run, of some rows where they are named. Raises ValueError where there are none."""
    from ref_bioplaus.conformance.checks import levels as suite

    every = suite.checks(levels) if rows is None else suite.checks(levels, rows)
    chosen = tuple(c for c in every if fnmatchcase(c.id, case) and set(modes) & set(c.modes))
    if not chosen:
        raise ValueError(
            f"no check of level {', '.join(map(str, levels))} in mode {', '.join(modes)} matches {option} {shown(case)}"
        )
    return chosen


def left_out(chosen: "Sequence[Check]") -> list[str]:
    """The ids of all other checks."""
    from ref_bioplaus.conformance.checks import levels as suite

    ids = {check.id for check in chosen}
    return [c.id for c in suite.checks(LEVELS) if c.id not in ids]


def failures_of(file: Path) -> set[str]:
    """The ids of the checks that failed in a report. Raises ValueError where it cannot be read."""
    from ref_bioplaus.conformance.files.reading import Unreadable, json_of
    from ref_bioplaus.conformance.reporting.report import from_json

    try:
        reports = from_json(json_of(file))
    except (Unreadable, ValueError) as error:
        raise ValueError(f"--since {file} {error}: name a report that --json wrote") from error
    return {o.id for report in reports for o in report.outcomes if o.state in ("fail", "error")}


def driver(backend: "Backend") -> dict[str, str]:
    """{"driver": the NVIDIA driver's version} of a GPU, where the system tells."""
    place = Path("/proc/driver/nvidia/version")
    if not backend.on_gpu or not os.path.isfile(place):
        return {}
    found = re.search(r"\d+\.\d+(\.\d+)?", place.read_text())
    return {"driver": found[0]} if found else {}
