"""Slower, not slower, or cannot tell: from the ratios that pairs of fresh processes found.

A pair's ratio is the median over its rounds, new over base. Pairs of the same code differ by how memory happens to lie
in a process and by what else the machine does: by USUAL in 40 pairs of equal trees, of five subjects on two cores on
which thirteen others wanted to run. Few pairs cannot show their own scatter, so that USUAL counts like WEIGHT pairs
beside them. The interval is the mean of the logarithms with Student's 0.99 quantile to either side.

    slower        even the interval's lower end is above SMALL: the code became slower by more than that
    not slower    even its upper end is below LARGE
    cannot tell   anything else
"""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

SMALL, LARGE = 0.05, 0.10
LEAST, MOST = 3, 10  # pairs
USUAL, WEIGHT = 0.02, 8
QUANTILES = {10: 2.764, 11: 2.718, 12: 2.681, 13: 2.650, 14: 2.624, 15: 2.602, 16: 2.583, 17: 2.567}  # Student's
SLOWER, NOT_SLOWER, CANNOT_TELL = "slower", "not slower", "cannot tell"
CODES = {NOT_SLOWER: 0, SLOWER: 1, CANNOT_TELL: 3}


class Judgement(NamedTuple):
    """A subject's growth with its interval, as shares: 0.1 is 10 % slower."""

    growth: float
    low: float
    high: float
    pairs: int

    @property
    def word(self) -> str:
        """What is to be said of it."""
        return SLOWER if self.low > SMALL else NOT_SLOWER if self.high < LARGE else CANNOT_TELL

    def __str__(self) -> str:
        return f"{self.word}: {self.growth:+.1%} ({self.low:+.1%} to {self.high:+.1%}, {self.pairs} pairs)"


def judged(ratios: Sequence[float]) -> Judgement:
    """By the ratios of at least LEAST and at most MOST pairs."""
    logs = [math.log(ratio) for ratio in ratios]
    mean, freedom = statistics.mean(logs), WEIGHT + len(logs) - 1
    scatter = math.sqrt((WEIGHT * USUAL**2 + sum((value - mean) ** 2 for value in logs)) / freedom)
    half = QUANTILES[freedom] * scatter / math.sqrt(len(logs))
    return Judgement(math.expm1(mean), math.expm1(mean - half), math.expm1(mean + half), len(logs))


def together(words: Sequence[str]) -> str:
    """The word for all subjects: one that is slower makes it so, and one of which it cannot tell leaves it open."""
    return next((word for word in (SLOWER, CANNOT_TELL) if word in words), NOT_SLOWER)
