"""Kinds of numbers that a kernel meets: functions of normal numbers.

The smallest are the smallest normal ones: what lies below some libraries keep and some take for 0, and both are right.
"""

from collections.abc import Callable

import numpy as np

from ref_bioplaus.conformance.checks.alone.asking import Arrays, Prepare, of_dtype

OFFSET = {"float32": 1000.0, "float64": 1e6, "bfloat16": 4.0}  # standard deviations: where cancelling squares shows
FAR = 1e15  # its square and its reciprocal's are ordinary numbers in every dtype


def changing(*changes: Callable[[np.ndarray], np.ndarray] | None) -> Prepare:
    """A function of normal numbers that changes each argument by a function of its own; None: not."""

    def prepare(*arrays: np.ndarray) -> Arrays:
        changed = [a if change is None else change(a) for change, a in zip(changes, arrays, strict=False)]
        return (*changed, *arrays[len(changes) :])

    return prepare


def scaled(*factors: float) -> Prepare:
    """Every argument times a number."""
    return changing(*((lambda a, f=f: a * f) for f in factors))


def moved(*which: bool) -> Callable[[str], Prepare]:
    """The arguments that are marked far from 0, by as many deviations as show that squares were not centred."""

    def prepare(dtype):
        return changing(*((lambda a: a + OFFSET[dtype]) if yes else None for yes in which))

    return of_dtype(prepare)


def sparse(a: np.ndarray) -> np.ndarray:
    """Mostly exact zeros."""
    return np.where(np.abs(a) > 1.3, a, 0.0)


def one_hot(a: np.ndarray) -> np.ndarray:
    """One 1 in every row of the last axis, where it is largest."""
    return np.eye(a.shape[-1])[np.argmax(a, axis=-1)]


def zero(a: np.ndarray) -> np.ndarray:
    """Exact zeros."""
    return np.zeros_like(a)


def tied(a: np.ndarray) -> np.ndarray:
    """Small whole numbers: many equal ones, many exact zeros."""
    return np.where(np.abs(a) < 0.7, 0.0, np.rint(a))


def with_one(value: float, *place: int) -> Callable[[np.ndarray], np.ndarray]:
    """A number in one place; without a place in the middle of every axis."""

    def change(a: np.ndarray) -> np.ndarray:
        a = np.array(a)
        a[place or tuple(n // 2 for n in a.shape)] = value
        return a

    return change


LADDER = np.concatenate([10.0 ** np.linspace(-6, 1.2, 150), np.linspace(0.01, 4.0, 150)])
TINY = np.array([2.0**-126, 2.0**-120, 1e-30, 1e-20, 1e-10])  # the smallest normal float32 and above


def table(largest: float) -> np.ndarray:
    """Numbers of both signs from the smallest normal one to `largest`, with exact zeros of both signs."""
    positive = np.concatenate([TINY, LADDER, np.linspace(4.0, largest, 60)])
    return np.concatenate([[0.0, -0.0], positive, -positive])
