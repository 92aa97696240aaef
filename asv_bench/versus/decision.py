"""Slower, not slower, or cannot tell: from the ratios that pairs of fresh processes found.

A pair's ratio is the median over its rounds, new over base. Pairs of the same code differ by how memory happens to lie
in a process, by a percent or two, and that is what the interval is made of: the mean of their logarithms, and Student's
0.99 quantile to either side.

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
QUANTILES = {2: 6.965, 3: 4.541, 4: 3.747, 5: 3.365, 6: 3.143, 7: 2.998, 8: 2.896, 9: 2.821}  # Student's, by pairs - 1
FLOOR = 0.005  # of the scatter of pairs, which few of them may show too small
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
    scatter = max(statistics.stdev(logs), FLOOR)
    mean, half = statistics.mean(logs), QUANTILES[len(logs) - 1] * scatter / math.sqrt(len(logs))
    return Judgement(math.expm1(mean), math.expm1(mean - half), math.expm1(mean + half), len(logs))


def together(words: Sequence[str]) -> str:
    """The word for all subjects: one that is slower makes it so, and one of which it cannot tell leaves it open."""
    return next((word for word in (SLOWER, CANNOT_TELL) if word in words), NOT_SLOWER)
