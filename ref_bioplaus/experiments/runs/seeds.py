"""Numbers of several seeds, as one with its spread."""

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
