"""The judge's arrays pass on the errors of their operands as calculus has it: by the derivatives of every operation."""

import numpy as np
import pytest

from ref_bioplaus.conformance.judging import judge
from ref_bioplaus.conformance.judging.rounding import PRECISIONS, Rounded, Rounding

OPERATIONS = {
    "sum": lambda xp, x, y: x + y,
    "difference": lambda xp, x, y: x - y,
    "difference from a number": lambda xp, x, y: 2.5 - y,
    "product": lambda xp, x, y: x * y,
    "square": lambda xp, x, y: x * x,
    "quotient": lambda xp, x, y: x / y,
    "quotient of a number": lambda xp, x, y: 3.0 / y,
    "negative": lambda xp, x, y: -x,
    "negative by name": lambda xp, x, y: xp.negative(x),
    "difference by name": lambda xp, x, y: xp.subtract(x, y),
    "square by name": lambda xp, x, y: xp.square(x),
    "power": lambda xp, x, y: x**3,
    "sine": lambda xp, x, y: xp.sin(x),
    "cosine": lambda xp, x, y: xp.cos(x),
    "clipped": lambda xp, x, y: xp.clip(x, 1.0, 2.0),
    "smallest": lambda xp, x, y: xp.min(x, axis=1),
    "deviation": lambda xp, x, y: xp.std(x, axis=1),
    "product of rows": lambda xp, x, y: xp.vecdot(x, y),
    "norm": lambda xp, x, y: xp.linalg.vector_norm(x, axis=1),
    "floor": lambda xp, x, y: x * xp.floor(y),
    "comparisons": lambda xp, x, y: xp.where(xp.logical_and(xp.greater(x, y), xp.logical_not(xp.less(x, y))), x, y),
    "rolled": lambda xp, x, y: x * xp.roll(y, 1, axis=1),
    "flipped": lambda xp, x, y: x * xp.flip(y, axis=1),
    "squeezed": lambda xp, x, y: xp.squeeze(xp.sum(x, axis=0, keepdims=True), axis=0),
    "absolute": lambda xp, x, y: xp.abs(-x),
    "tanh": lambda xp, x, y: xp.tanh(x),
    "exp": lambda xp, x, y: xp.exp(x),
    "expm1": lambda xp, x, y: xp.expm1(x),
    "log": lambda xp, x, y: xp.log(x),
    "log1p": lambda xp, x, y: xp.log1p(x),
    "sqrt": lambda xp, x, y: xp.sqrt(x),
    "operators": lambda xp, x, y: abs(-x) @ y.T,
    "matmul": lambda xp, x, y: xp.matmul(x, xp.matrix_transpose(y)),
    "tensordot": lambda xp, x, y: xp.tensordot(x, xp.matrix_transpose(y), axes=1),
    "total": lambda xp, x, y: xp.sum(x, axis=0),
    "mean": lambda xp, x, y: xp.mean(x, axis=(0, 1)),
    "maximum": lambda xp, x, y: xp.maximum(x, y),
    "minimum": lambda xp, x, y: xp.minimum(x, y),
    "largest": lambda xp, x, y: xp.max(x, axis=1),
    "choice": lambda xp, x, y: xp.where(x > y, x * y, y),
    "concatenation": lambda xp, x, y: xp.concat([x, y], axis=1),
}


def jacobian(function, inputs, step=1e-6):
    """d function / d every number of the inputs, by central differences: (numbers out, numbers in)."""
    flat = np.concatenate([a.ravel() for a in inputs])

    def at(numbers):
        parts = np.split(numbers, np.cumsum([a.size for a in inputs])[:-1])
        return function(np, *(part.reshape(a.shape) for part, a in zip(parts, inputs, strict=True))).ravel()

    return np.stack([(at(flat + d) - at(flat - d)) / (2 * step) for d in step * np.eye(flat.size)], axis=1)


@pytest.mark.parametrize("name", OPERATIONS)
def test_errors_are_passed_on_by_the_derivatives(name):
    """To first order, where the operands' errors are far above an operation's own rounding."""
    space, rng = Rounding(PRECISIONS["float64", "ieee"], "float64"), np.random.default_rng(0)
    values = rng.permutation(np.linspace(0.5, 2.5, 12)).reshape(2, 2, 3)  # no two near each other
    variances, bounds = rng.uniform(1e-8, 2e-8, (2, 2, 3)), rng.uniform(1e-4, 2e-4, (2, 2, 3))
    x, y = (Rounded(space, *parts) for parts in zip(values, variances, bounds, strict=True))
    found, slopes = OPERATIONS[name](space, x, y), jacobian(OPERATIONS[name], values)
    assert np.allclose(found.v, OPERATIONS[name](np, *values), rtol=1e-15)
    assert np.allclose(np.ravel(found.s), slopes**2 @ variances.ravel(), rtol=1e-5, atol=0.0)
    assert np.allclose(np.ravel(found.b), np.abs(slopes) @ bounds.ravel(), rtol=5e-3, atol=0.0)


def test_numbers_whose_squares_are_too_small_keep_their_error():
    """exp(-540) is 3e-235, and the square of its error 0: what differs in its last digits passes, what is wrong not."""
    space = Rounding(PRECISIONS["float64", "ieee"], "float64")
    found = space.exp(space.exact(np.array([-18.0])) * 30.0)
    got = np.exp(np.array([-540.0])) * np.array([1.0 + 2e-16])
    assert judge.score("y", found, got, space.precision.tiny).score <= judge.LIMIT
    assert judge.score("y", found, got * 1.001, space.precision.tiny).score > judge.LIMIT
