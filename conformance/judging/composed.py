"""Functions of the array API that are made of others: for rules that use more of it than ours do."""

from typing import Any

import numpy as np

from ref_bioplaus.types import Array, DType, Shape


class Composed:
    """What a namespace offers beside `rounding.Rounding`'s own, under the standard's names."""

    # Its own: declared here for those who read types
    exact: Any
    multiply: Any
    elementwise: Any
    lift: Any
    rounded: Any
    maximum: Any
    minimum: Any
    full: Any
    full_like: Any
    sum: Any
    mean: Any
    max: Any
    sqrt: Any
    ceil: Any
    moved: Any
    compare: Any
    exactly: Any

    def subtract(self, x: Array, y: Array):
        """x - y"""
        return x - y

    def negative(self, x: Array):
        """-x"""
        return -x

    def square(self, x: Array):
        """x * x"""
        return self.multiply(x, x)

    def pow(self, x: Array, y: Array):
        """x to the power of a number."""
        return self.elementwise(x, lambda v: v**y, lambda v: y * v ** (y - 1))

    def clip(self, x: Array, min: Array = None, max: Array = None):
        """As in the standard, between numbers."""
        x = x if min is None else self.maximum(x, self.full_like(x, min))
        return x if max is None else self.minimum(x, self.full_like(x, max))

    def sin(self, x: Array):
        """As in the standard."""
        return self.elementwise(x, np.sin, np.cos)

    def cos(self, x: Array):
        """As in the standard."""
        return self.elementwise(x, np.cos, lambda v: -np.sin(v))

    def atan2(self, x: Array, y: Array):
        """As in the standard: the angle of (y, x)."""
        y = self.lift(y, x)
        n = x.v**2 + y.v**2
        s, b = x.s * y.v**2 + y.s * x.v**2, x.b * np.abs(y.v) + y.b * np.abs(x.v)
        return self.rounded(np.arctan2(x.v, y.v), s / n**2, b / n, 8.0)

    def min(self, x: Array, axis: Any = None, keepdims: bool = False):
        """As in the standard."""
        return -self.max(-x, axis, keepdims)

    def squeeze(self, x: Array, axis: Any):
        """As in the standard."""
        return self.moved(lambda a: np.squeeze(a, axis=axis), x)

    def flip(self, x: Array, axis: Any = None):
        """As in the standard."""
        return self.moved(lambda a: np.flip(a, axis=axis), x)

    def roll(self, x: Array, shift: int, axis: Any = None):
        """As in the standard."""
        return self.moved(lambda a: np.roll(a, shift, axis=axis), x)

    def ones(self, shape: Shape, dtype: DType = None, device: Any = None):
        """As in the standard."""
        return self.full(shape, 1.0, dtype)

    def var(self, x: Array, axis: Any = None, correction: float = 0.0, keepdims: bool = False):
        """As in the standard. An error of the mean does not matter, as what is centred sums to 0."""
        centred = x - self.exact(self.mean(x, axis=axis, keepdims=True).v)
        mean = self.mean(centred * centred, axis=axis, keepdims=keepdims)
        n = x.size / max(mean.size, 1)
        return mean * (n / (n - correction)) if correction else mean

    def std(self, x: Array, axis: Any = None, correction: float = 0.0, keepdims: bool = False):
        """As in the standard."""
        return self.sqrt(self.var(x, axis, correction, keepdims))

    def vecdot(self, x: Array, y: Array, axis: Any = -1):
        """As in the standard."""
        return self.sum(x * y, axis=axis)

    def vector_norm(self, x: Array, axis: Any = None, keepdims: bool = False):
        """As in the standard's linalg, of order 2."""
        return self.sqrt(self.sum(self.square(x), axis=axis, keepdims=keepdims))

    def floor(self, x: Array):
        """As in the standard."""
        return -self.ceil(-x)

    def greater(self, x: Array, y: Array):
        """x > y"""
        return self.compare(np.greater, x, y)

    def less(self, x: Array, y: Array):
        """x < y"""
        return self.compare(np.less, x, y)

    def logical_and(self, x: Array, y: Array):
        """As in the standard."""
        return self.exactly(np.logical_and, x, y)

    def logical_or(self, x: Array, y: Array):
        """As in the standard."""
        return self.exactly(np.logical_or, x, y)

    def logical_not(self, x: Array):
        """As in the standard."""
        return self.moved(np.logical_not, x)
