"""What the wrong elements of a tensor have in common: a hint at the mistake, for whoever reads the verdict."""

from functools import reduce

import numpy as np

SAME = 1e-3  # relative spread of a common factor


def pattern(wrong: np.ndarray, expected: np.ndarray, got: np.ndarray) -> str:
    """Where elements are wrong and by what factor, in words; "" where there is one element, or nothing in common.

    wrong: bool, of the shape of the two others; some of it is True.
    """
    if wrong.size == 1:
        return ""
    found = [whereabouts(wrong) or among(wrong, np.abs(expected)), factor(expected[wrong], got[wrong])]
    return ", ".join(filter(None, found))


def whereabouts(wrong: np.ndarray) -> str:
    """The wrong elements as a range of each axis, where they fill it."""
    if wrong.all():
        return f"all {wrong.size} elements are wrong"
    sides = [np.any(wrong, axis=tuple(j for j in range(wrong.ndim) if j != i)) for i in range(wrong.ndim)]
    if not np.array_equal(reduce(np.logical_and.outer, sides), wrong):
        return ""
    ranges = [words for i, side in enumerate(sides) if (words := span(side, i, wrong.ndim))]
    return "wrong " + " and ".join(ranges)


def span(side: np.ndarray, axis: int, axes: int) -> str:
    """The indices of one axis that are wrong: "" for all of them."""
    where, n = np.flatnonzero(side), len(side)
    first, last = int(where[0]), int(where[-1])
    name = f" along axis {axis}" if axes > 1 else ""
    if len(where) == n:
        return ""
    if first == last:
        return f"at {first}{name} (of 0 to {n - 1})"
    if last - first + 1 == len(where):
        if last == n - 1:
            return f"from {first} on{name} (to {last})"
        return f"up to {last}{name} (of {n - 1})" if first == 0 else f"from {first} to {last}{name} (of {n - 1})"
    step = np.diff(where)
    return f"at every index {first} + {step[0]} i{name}" if (step == step[0]).all() else f"at {len(where)}{name}"


def among(wrong: np.ndarray, sizes: np.ndarray) -> str:
    """Whether the wrong elements are the largest or the smallest; else how many there are."""
    count = f"{int(wrong.sum())} of {wrong.size} elements are wrong"
    if sizes.dtype.kind != "f" or not np.isfinite(sizes).all():
        return count
    inside, outside = sizes[wrong], sizes[~wrong]
    if inside.min() > outside.max():
        return f"{count}, those above {outside.max():.3g} in size"
    if inside.max() < outside.min():
        return f"{count}, those of 0" if inside.max() == 0.0 else f"{count}, those below {outside.min():.3g} in size"
    return count


def factor(expected: np.ndarray, got: np.ndarray) -> str:
    """The factor by which all wrong elements are off, where there is one."""
    if expected.dtype.kind != "f" or len(expected) < 2 or not (np.isfinite(expected).all() and np.isfinite(got).all()):
        return ""
    if not got.any():
        return "0 in their place"
    if (expected == 0.0).any():
        return ""
    ratios = got.astype(np.float64) / expected
    middle = float(np.median(ratios))
    same = middle != 0.0 and float(np.max(np.abs(ratios - middle))) < SAME * abs(middle)
    return f"{middle:.4g} times what is expected" if same else ""
