"""An array namespace whose arrays know how wrong they may be: the judge of the suite.

An array carries its value, computed in float64, and the variance of the error that a correct implementation of a given
precision may have made on the way, to first order (products to second, as a square of something near 0 has no first):
every operation passes on the variance of its operands and adds that of its own rounding, taken as uniform within one
unit round-off. An algorithm, written once against the array API, runs on it unchanged and hands back, element by
element, how far a correct result may lie from the float64 one, whatever the order of its sums. Beside the variance an
array carries a rigorous bound, for data whose roundings are not independent (constants).

A unit round-off is 2^-p for p significant bits; there is one per kind of operation (Higham and Mary 2019 give the
probabilistic model). A decision (a comparison, a sign, a largest element) whose margin is below MARGIN standard
deviations of its own error is undecidable: a correct implementation may decide otherwise. They are counted.
"""

from collections.abc import Callable, Sequence
from math import prod
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from ref_bioplaus.conformance.judging.composed import Composed
from ref_bioplaus.types import Array, DType, Shape

MARGIN = 10.0  # standard deviations within which a decision is undecidable
TRANSCENDENTAL = 8.0  # unit round-offs allowed to tanh, exp, log and their like (measured: up to 5)
ROOT = 3.0  # unit round-offs allowed to a square root, which not every library rounds correctly (measured: up to 2)


class Precision(NamedTuple):
    """Unit round-offs: of arrays, of the operands of products, of the sums inside products; and the smallest normal."""

    name: str
    array: float
    operand: float
    accumulate: float
    tiny: float


PRECISIONS = {
    ("float64", "ieee"): Precision("float64", 2.0**-53, 2.0**-53, 2.0**-53, 2.0**-1022),
    ("float32", "ieee"): Precision("float32", 2.0**-24, 2.0**-24, 2.0**-24, 2.0**-126),
    ("float32", "tf32"): Precision("float32, TF32 products", 2.0**-24, 2.0**-11, 2.0**-24, 2.0**-126),
    ("float32", "bf16"): Precision("float32, bfloat16 products", 2.0**-24, 2.0**-8, 2.0**-24, 2.0**-126),
    ("bfloat16", "ieee"): Precision("bfloat16", 2.0**-8, 2.0**-8, 2.0**-24, 2.0**-126),
}


class NotOffered(AttributeError):
    """A function of the array API that this namespace does not have."""


class Rounded:
    """An array of a `Rounding` namespace: value v, variance s and bound b of its error. Integers are exact."""

    __slots__ = ("b", "s", "space", "v")

    def __init__(self, space: "Rounding", v: Array, s: Array = None, b: Array = None):
        self.space, self.v = space, np.asarray(v)
        exact = self.v.dtype.kind != "f"
        self.s: Any = None if exact else np.zeros_like(self.v) if s is None else np.broadcast_to(s, self.v.shape)
        self.b: Any = None if exact else np.zeros_like(self.v) if b is None else np.broadcast_to(b, self.v.shape)

    shape = property(lambda self: self.v.shape)
    ndim = property(lambda self: self.v.ndim)
    size = property(lambda self: self.v.size)
    device = "cpu"

    @property
    def dtype(self):
        """The dtype under test for floats, NumPy's own for the others."""
        return self.space.dtype if self.v.dtype.kind == "f" else self.v.dtype

    def __array_namespace__(self, api_version=None):
        """The namespace that made it."""
        return self.space

    def __getitem__(self, index):
        if self.s is None:
            return Rounded(self.space, self.v[index])
        return Rounded(self.space, self.v[index], self.s[index], self.b[index])

    def __neg__(self):
        return Rounded(self.space, -self.v, self.s, self.b)

    def __add__(self, other):
        return self.space.add(self, other)

    def __sub__(self, other):
        return self.space.add(self, -self.space.lift(other, self))

    def __rsub__(self, other):
        return self.space.add(self.space.lift(other, self), -self)

    def __mul__(self, other):
        return self.space.multiply(self, other)

    def __truediv__(self, other):
        return self.space.divide(self, other)

    def __rtruediv__(self, other):
        return self.space.divide(self.space.lift(other, self), self)

    __radd__, __rmul__ = __add__, __mul__

    def __matmul__(self, other):
        return self.space.matmul(self, other)

    def __pow__(self, other):
        return self.space.pow(self, other)

    def __abs__(self):
        return self.space.abs(self)

    def __setitem__(self, index, value):
        raise NotOffered("the judge's arithmetic has no writing in place")

    def __len__(self):
        return self.v.shape[0]

    @property
    def T(self):
        """A matrix transposed."""
        return self.space.permute_dims(self, (1, 0))

    @property
    def mT(self):
        """Matrices transposed."""
        return self.space.matrix_transpose(self)

    def __floordiv__(self, other):
        return self.space.exactly(np.floor_divide, self, other)

    def __and__(self, other):
        return self.space.exactly(np.bitwise_and, self, other)

    def __or__(self, other):
        return self.space.exactly(np.bitwise_or, self, other)

    def __xor__(self, other):
        return self.space.exactly(np.bitwise_xor, self, other)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __lshift__(self, other):
        return self.space.exactly(np.left_shift, self, other)

    def __rshift__(self, other):
        return self.space.exactly(np.right_shift, self, other)

    def __gt__(self, other):
        return self.space.compare(np.greater, self, other)

    def __ge__(self, other):
        return self.space.compare(np.greater_equal, self, other)

    def __lt__(self, other):
        return self.space.compare(np.less, self, other)

    def __le__(self, other):
        return self.space.compare(np.less_equal, self, other)

    def __eq__(self, other):
        return self.space.compare(np.equal, self, other)

    def __ne__(self, other):
        return self.space.compare(np.not_equal, self, other)

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self):
        raise TypeError("a step asked an array for its truth")


class Rounding(Composed):
    """The namespace, for one precision; `undecidable` counts decisions that a correct result may make otherwise.

    It offers what the library uses of the array API, under the standard's names, and what is composed of that.
    """

    __name__ = "ref_bioplaus.conformance.judging.rounding"
    int32, int64 = np.dtype(np.int32), np.dtype(np.int64)

    def __init__(self, precision: Precision, dtype: str, decisions: Sequence[np.ndarray] | None = None):
        self.precision, self.u = precision, precision.array
        self.float64, self.float32, self.bfloat16 = "float64", "float32", "bfloat16"
        self.dtype = dtype
        self.given = None if decisions is None else list(decisions)  # as the implementation under test decided
        self.undecidable = 0
        self.decisions = 0
        self.wrong_decisions = 0  # given ones that differ although they were decidable
        self.linalg = SimpleNamespace(vector_norm=self.vector_norm)

    def __getattr__(self, name: str):
        raise NotOffered(f"the judge's arithmetic has no {name}")

    # Making arrays

    def exact(self, array: Array) -> Rounded:
        """An array without error: an input that the precision under test can hold."""
        array = np.asarray(array)
        return Rounded(self, array.astype(np.float64) if array.dtype.kind == "f" else array)

    def unsure(self, array: Array, variance: Array) -> Rounded:
        """An array with errors of a variance."""
        found = self.exact(array)
        return found if found.s is None else Rounded(self, found.v, variance, MARGIN * np.sqrt(variance))

    def lift(self, other: Any, like: Rounded) -> Rounded:
        """A Python number as an array: with the error of its own rounding, where the precision cannot hold it."""
        if isinstance(other, Rounded):
            return other
        if like.v.dtype.kind != "f" and isinstance(other, int):
            return Rounded(self, np.asarray(other, dtype=like.v.dtype))
        value = float(other)
        error = 0.0 if self.holds(value) else self.u * abs(value)
        return Rounded(self, np.float64(value), error**2 / 3, error)

    def holds(self, value: float) -> bool:
        """Whether the precision's significand holds a number exactly."""
        mantissa, _ = np.frexp(value)
        return not np.isfinite(value) or float(mantissa / self.u) == np.rint(mantissa / self.u)

    def asarray(self, a: Any, dtype: DType = None, device: Any = None):
        """Nested lists of numbers, or a NumPy table of integers."""
        if isinstance(a, Rounded):
            return a
        array = np.asarray(a)
        return self.exact(array.astype(np.float64) if self.is_float(dtype) else array.astype(dtype or array.dtype))

    def is_float(self, dtype: DType) -> Any:
        """Whether a dtype of this namespace is a floating one."""
        return isinstance(dtype, str)

    def full(self, shape: Shape, value: Array, dtype: DType = None, device: Any = None):
        """As in the standard."""
        if self.is_float(dtype):
            lifted = self.lift(value, Rounded(self, 0.0))
            return Rounded(self, np.full(shape, lifted.v), lifted.s, lifted.b)
        return Rounded(self, np.full(shape, value, dtype=dtype))

    def zeros(self, shape: Shape, dtype: DType = None, device: Any = None):
        """As in the standard."""
        return self.full(shape, 0.0 if self.is_float(dtype) else 0, dtype)

    def arange(self, n: int, dtype: DType = None, device: Any = None):
        """0 to n - 1, integers."""
        return Rounded(self, np.arange(n, dtype=dtype))

    def full_like(self, x: Array, value: Array):
        """As in the standard."""
        return self.full(x.shape, value, x.dtype)

    def zeros_like(self, x: Array):
        """As in the standard."""
        return self.full_like(x, 0)

    def ones_like(self, x: Array):
        """As in the standard."""
        return self.full_like(x, 1)

    def astype(self, x: Array, dtype: DType):
        """To a float: exact for integers small enough, as all of the library's are; to an integer or bool: exact."""
        if self.is_float(dtype):
            return x if x.s is not None else Rounded(self, x.v.astype(np.float64))
        return Rounded(self, x.v.astype(dtype))

    # Arithmetic

    def rounded(self, v: Array, s: Array, b: Array, ulps: Any = 1.0) -> Rounded:
        """A result with the error of its operands and of its own rounding; an exact zero stays exact.

        NaN and infinities are what they are, without an error.
        """
        own = ulps * self.u * np.abs(v)
        s, b = s + own * own / 3, b + own
        finite = np.isfinite(v)
        return Rounded(self, v, s, b) if finite.all() else Rounded(self, v, *(np.where(finite, a, 0.0) for a in (s, b)))

    def add(self, x: Array, y: Array):
        """x + y"""
        y = self.lift(y, x)
        if x.s is None:
            return Rounded(self, wrapping(np.add, x.v, y.v))
        v = x.v + y.v
        exact = (x.v == 0.0) & (x.s == 0.0) | (y.v == 0.0) & (y.s == 0.0)  # x + 0 is not rounded
        return self.rounded(v, x.s + y.s, x.b + y.b, np.where(exact, 0.0, 1.0))

    def multiply(self, x: Array, y: Array):
        """x * y"""
        y = self.lift(y, x)
        if x.s is None:
            return Rounded(self, wrapping(np.multiply, x.v, y.v))
        b = x.b * np.abs(y.v) + y.b * np.abs(x.v) + x.b * y.b
        if y is x:  # one error, twice
            return self.rounded(x.v**2, 4.0 * x.s * x.v**2 + 3.0 * x.s**2, b)
        return self.rounded(x.v * y.v, x.s * y.v**2 + y.s * x.v**2 + x.s * y.s, b)

    def divide(self, x: Array, y: Array):
        """x / y"""
        y = self.lift(y, x)
        v = x.v / y.v
        s = x.s / y.v**2 + y.s * (v / y.v) ** 2
        return self.rounded(v, s, x.b / np.abs(y.v) + y.b * np.abs(v / y.v))

    def exactly(self, function: Callable, x: Array, y: Array):
        """Integer operations, wrapping."""
        return Rounded(self, wrapping(function, x.v, self.lift(y, x).v))

    def elementwise(self, x: Array, function: Callable, slope: Callable, ulps: float = TRANSCENDENTAL):
        """A function of one argument whose slope is known."""
        v, d = function(x.v), slope(x.v)
        return self.rounded(v, x.s * d * d, x.b * np.abs(d), ulps)

    def tanh(self, x: Array):
        """As in the standard."""
        return self.elementwise(x, np.tanh, lambda v: 1.0 - np.tanh(v) ** 2)

    def exp(self, x: Array):
        """As in the standard."""
        return self.elementwise(x, np.exp, np.exp)

    def expm1(self, x: Array):
        """As in the standard."""
        return self.elementwise(x, np.expm1, np.exp)

    def log(self, x: Array):
        """As in the standard."""
        return self.elementwise(x, np.log, lambda v: 1.0 / v)

    def log1p(self, x: Array):
        """As in the standard."""
        return self.elementwise(x, np.log1p, lambda v: 1.0 / (1.0 + v))

    def sqrt(self, x: Array):
        """As in the standard; of an error at 0, its own root."""
        safe = np.where(x.v > 0.0, x.v, 1.0)
        return self.elementwise(x, np.sqrt, lambda v: np.where(v > 0.0, 0.5 / np.sqrt(safe), 0.0), ROOT)

    def abs(self, x: Array):
        """As in the standard: exact."""
        return Rounded(self, np.abs(x.v), x.s, x.b)

    # Products and sums

    def matmul(self, x: Array, y: Array):
        """As in the standard; the operands are rounded first where products have a lower precision."""
        K, p = x.shape[-1], self.precision
        v, q, m = x.v @ y.v, x.v**2 @ y.v**2, np.abs(x.v) @ np.abs(y.v)
        own = p.accumulate**2 * ((K / 6 + 1) * q + K / 9 * v * v) + (self.u * v) ** 2 / 3
        bound = K * p.accumulate * m + self.u * np.abs(v)
        if p.operand != p.array:
            own, bound = own + 2 / 3 * p.operand**2 * q, bound + 2 * p.operand * m
        return Rounded(self, v, x.s @ y.v**2 + x.v**2 @ y.s + own, x.b @ np.abs(y.v) + np.abs(x.v) @ y.b + bound)

    def tensordot(self, x: Array, y: Array, axes: int):
        """Over the last `axes` axes of x and the first of y."""
        left, right = x.shape[: x.ndim - axes], y.shape[axes:]
        K = prod(y.shape[:axes])
        product = self.matmul(self.reshape(x, (prod(left), K)), self.reshape(y, (K, prod(right))))
        return self.reshape(product, (*left, *right))

    def sum(self, x: Array, axis: Any = None, keepdims: bool = False, dtype: DType = None):
        """As in the standard, in whatever order; exact for integers."""
        where = {"axis": axis, "keepdims": keepdims}
        if x.s is None:
            return Rounded(self, np.sum(x.v, dtype=dtype, **where))
        v, q, m = (np.sum(a, **where) for a in (x.v, x.v**2, np.abs(x.v)))
        K = x.v.size // max(v.size, 1)
        own = self.u**2 * ((K / 6 + 1) * q + K / 9 * v * v) if K > 1 else 0.0 * v
        bound = self.u * K * m if K > 1 else 0.0 * v
        return Rounded(self, v, np.sum(x.s, **where) + own, np.sum(x.b, **where) + bound)

    def mean(self, x: Array, axis: Any = None, keepdims: bool = False):
        """As in the standard."""
        total = self.sum(x, axis, keepdims)
        return self.divide(total, float(x.v.size // max(total.v.size, 1)))

    # Decisions

    def decide(self, own: Array, margin: Array, s: Array):
        """Our decisions, and the given ones where they lie within MARGIN standard deviations of their own error.

        Counts both kinds, and given decisions that differ where they were decidable.
        """
        open_ = (s > 0.0) & (np.abs(margin) < MARGIN * np.sqrt(s))
        self.decisions += own.size
        self.undecidable += int(np.sum(open_))
        if self.given is None:
            return own
        given = self.given.pop(0).astype(own.dtype).reshape(own.shape)
        self.wrong_decisions += int(np.sum((given != own) & ~open_))
        return np.where(open_, given, own)

    def compare(self, function: Callable, x: Array, y: Array):
        """A comparison: exact for integers."""
        y = self.lift(y, x)
        own = np.asarray(function(x.v, y.v))
        return Rounded(self, own if x.s is None else self.decide(own, x.v - y.v, x.s + y.s))

    def sign(self, x: Array):
        """As in the standard."""
        return Rounded(self, self.decide(np.sign(x.v), x.v, x.s))

    def ceil(self, x: Array):
        """As in the standard."""
        return Rounded(self, self.decide(np.ceil(x.v), x.v - np.rint(x.v), x.s))

    def where(self, condition: Array, x: Array, y: Array):
        """As in the standard; the decision was counted where the condition was made."""
        c = condition.v
        if x.s is None:
            return Rounded(self, np.where(c, x.v, y.v))
        return Rounded(self, np.where(c, x.v, y.v), np.where(c, x.s, y.s), np.where(c, x.b, y.b))

    def maximum(self, x: Array, y: Array):
        """The larger of the two. It is continuous: near a tie, the larger of the two errors."""
        return self.nearest(x, y, (x.v >= y.v) | np.isnan(x.v))

    def minimum(self, x: Array, y: Array):
        """The smaller of the two."""
        return self.nearest(x, y, (x.v <= y.v) | np.isnan(x.v))

    def nearest(self, x: Array, y: Array, first: Array):
        """x where `first`, else y; the larger error where both are candidates."""
        tie = np.abs(x.v - y.v) < MARGIN * np.sqrt(x.s + y.s)
        s = np.where(tie, np.maximum(x.s, y.s), np.where(first, x.s, y.s))
        b = np.where(np.abs(x.v - y.v) <= x.b + y.b, np.maximum(x.b, y.b), np.where(first, x.b, y.b))
        return Rounded(self, np.where(first, x.v, y.v), s, b)

    def max(self, x: Array, axis: Any = None, keepdims: bool = False):
        """As in the standard; where several are candidates, the largest of their errors."""
        v = np.max(x.v, axis=axis, keepdims=True)
        with np.errstate(invalid="ignore"):
            candidate = (x.v == v) | (v - x.v < MARGIN * np.sqrt(x.s + largest(x.s, x.v == v, axis)))
        s, b = (largest(a, candidate, axis) for a in (x.s, x.b))
        kept = (v, s, b) if keepdims else tuple(np.squeeze(a, axis=axis) for a in (v, s, b))
        return Rounded(self, *kept)

    def argmax(self, x: Array, axis: Any = None, keepdims: bool = False):
        """As in the standard: the first of several. Its rival is the entry likeliest to be put above it by an error."""
        index = np.argmax(x.v, axis=axis, keepdims=True)
        places = np.arange(x.v.shape[axis]).reshape((-1,) + (1,) * (x.v.ndim - axis - 1))
        with np.errstate(invalid="ignore", divide="ignore"):
            gap = np.take_along_axis(x.v, index, axis) - x.v
            s = np.take_along_axis(x.s, index, axis) + x.s
            ratio = np.where((places == index) | (s == 0.0) | ~np.isfinite(gap), np.inf, gap / np.sqrt(s))
        rival = np.argmin(ratio, axis=axis, keepdims=True)
        alone = ~np.isfinite(np.min(ratio, axis=axis, keepdims=True))
        margin = np.where(alone, np.inf, np.take_along_axis(gap, rival, axis))
        index = self.decide(index, margin, np.take_along_axis(s, rival, axis))
        return Rounded(self, index if keepdims else np.squeeze(index, axis=axis))

    # Moving data

    def moved(self, function: Callable, x: Array):
        """A rearrangement: of values and errors alike."""
        if x.s is None:
            return Rounded(self, function(x.v))
        return Rounded(self, function(x.v), function(np.asarray(x.s)), function(np.asarray(x.b)))

    def joined(self, function: Callable, xs: Sequence[Array], axis: Any):
        """Several arrays in one."""
        if xs[0].s is None:
            return Rounded(self, function([x.v for x in xs], axis=axis))
        return Rounded(self, *(function([getattr(x, part) for x in xs], axis=axis) for part in ("v", "s", "b")))

    def reshape(self, x: Array, shape: Shape):
        """As in the standard."""
        return self.moved(lambda a: np.reshape(a, shape), x)

    def permute_dims(self, x: Array, axes: tuple[int, ...]):
        """As in the standard."""
        return self.moved(lambda a: np.transpose(a, axes), x)

    def matrix_transpose(self, x: Array):
        """As in the standard."""
        return self.moved(lambda a: np.swapaxes(a, -1, -2), x)

    def expand_dims(self, x: Array, axis: Any):
        """As in the standard."""
        return self.moved(lambda a: np.expand_dims(a, axis), x)

    def broadcast_to(self, x: Array, shape: Shape):
        """As in the standard."""
        return self.moved(lambda a: np.broadcast_to(a, shape), x)

    def take(self, x: Array, index: Array, axis: Any):
        """As in the standard."""
        return self.moved(lambda a: np.take(a, index.v, axis=axis), x)

    def concat(self, xs: Sequence[Array], axis: Any = 0):
        """As in the standard."""
        return self.joined(np.concatenate, xs, axis)

    def stack(self, xs: Sequence[Array], axis: Any = 0):
        """As in the standard."""
        return self.joined(np.stack, xs, axis)


def wrapping(function: Callable, x: Array, y: Array):
    """An integer operation that wraps, as two's complement does."""
    with np.errstate(over="ignore"):
        return function(x, y)


def largest(errors: Array, among: Array, axis: Any):
    """The largest of some errors along an axis, kept."""
    return np.max(np.where(among, errors, 0.0), axis=axis, keepdims=True)
