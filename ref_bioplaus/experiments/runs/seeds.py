"""Numbers of several seeds, as one with its spread."""

import math
import statistics
from collections.abc import Iterable
from typing import NamedTuple


class Spread(NamedTuple):
    """A mean over seeds, and their sample standard deviation: None for one seed."""

    mean: float
    deviation: float | None
    seeds: int


def spread(numbers: Iterable[float | None]) -> Spread | None:
    """Mean and sample standard deviation; None without numbers."""
    known = [number for number in numbers if number is not None]
    if not known:
        return None
    return Spread(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


LARGE = 1e7  # from here on a mean is shown with its power of ten


def shown(found: Spread | None, digits: int) -> str:
    """A mean and its spread."""
    if found is None:
        return "–"
    form = f".{digits}f" if abs(found.mean) < LARGE else ".3g"
    return f"{found.mean:{form}}" + (f" ± {found.deviation:{form}}" if found.deviation is not None else "")


LEVEL = 0.95
# Student's quantile for LEVEL, two-sided, by degrees of freedom, from 1 on
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
NORMAL = 1.96


def student(freedom: float) -> float:
    """Student's quantile for LEVEL, of so many degrees of freedom, 1 at least; parts of one do not count."""
    whole = max(1, int(freedom + 1e-9))
    return STUDENT[whole - 1] if whole <= len(STUDENT) else NORMAL * (1 + 1.25 / whole)


def half_width(deviation: float, seeds: int, more: int = 0) -> float:
    """Half the interval of LEVEL of a mean of several seeds, with a sample standard deviation; more = 1: of the number
    of one more run."""
    return student(seeds - 1) * deviation * math.sqrt(more + 1 / seeds)
