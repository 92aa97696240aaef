"""Level 0: linear maps, each with its three faces."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from ref_bioplaus.conformance.checks.alone import values
from ref_bioplaus.conformance.checks.alone.asking import BOTH, COMPILED, Question, as_drawn, question
from ref_bioplaus.kernels import Kernels
from ref_bioplaus.linear import (
    Convolution,
    LocalConnection,
    Part,
    SharedConvolution,
    Transpose,
    conv,
    dense,
    locally_connected,
)
from ref_bioplaus.windows import Window, window

IMAGE = (7, 5, 3)
LOOSE = (((3, 2), (4, 4)), ((3, 1), (4, 3)))  # as many windows with kernel, or stride, the other way round
EAGER = (dense(4), conv(4, (2, 3), stride=2), locally_connected(4, (2, 3), stride=(2, 1)))
PARTS = (
    *EAGER, conv(4, 3), conv(2, 3, stride=(1, 3)), conv(4, (4, 2), stride=(3, 1)), conv(4, (3, 2), padding="valid"),
    conv(4, 3, stride=2, padding=(2, 1)), conv(4, 1, stride=2), conv(2, 1), conv(2, 2),
    conv(3, (7, 5), padding="valid"),
    conv(2, (1, 2), stride=(3, 4)), conv(2, 2, padding=2), locally_connected(4, 3), locally_connected(2, 3, 2, 1),
    locally_connected(2, 1), locally_connected(2, (7, 5), padding="valid"), locally_connected(2, (1, 2), (3, 4)),
    *(part(2, *window, padding="valid") for part in (conv, locally_connected) for window in LOOSE),
)  # fmt: skip
UNEVEN = Window(IMAGE, (3, 3), (2, 1), ((2, 0), (0, 2)))  # padding that no name or number gives
KINDS: dict[str, Any] = {
    "": as_drawn,
    "inputs far from 0": values.moved(False, True),
    "signals far from 0": values.moved(False, False, True),
    "large by tiny": values.scaled(1e-20, 1e20, 1.0),
    "tiny by large": values.scaled(1e20, 1e-20, 1.0),
    "sparse": values.changing(values.sparse, values.sparse, values.sparse),
    "one-hot": values.changing(None, values.one_hot, values.one_hot),
    "weights of 0": values.changing(values.zero),
}


def faces(linear: Any, kernels: Kernels, W: Any, x: Any, u: Any) -> dict[str, Any]:
    """The three faces of one bilinear map."""
    bound = linear if isinstance(linear, Transpose) else replace(linear, kernels=kernels)
    return {"apply": bound.apply(W, x), "transport": bound.transport(W, u), "correlate": bound.correlate(x, u)}


def identities(linear: Any, kernels: Kernels, W: Any, x: Any, u: Any) -> dict[str, Any]:
    """The faces, that they are one map, and what the library makes of weights."""
    found, xp = faces(linear, kernels, W, x, u), array_namespace(W)
    applied = xp.sum(found["apply"] * u)
    return found | {
        "<Wx,u> - <x,W'u>": applied - xp.sum(x * found["transport"]),
        "<Wx,u> - <W,xu'>": applied - xp.sum(W * found["correlate"]),
        "mean over positions": linear.position_mean(found["correlate"]), "existing": linear.existing(W),
    }  # fmt: skip


def turned(linear: Any, kernels: Kernels, W: Any, x: Any, u: Any) -> dict[str, Any]:
    """The same of a map and of its transpose."""
    found = faces(Transpose(replace(linear, kernels=kernels)), kernels, W, u, x)
    return identities(linear, kernels, W, x, u) | {f"transposed {name}": face for name, face in found.items()}


def shapes(linear: Any, n: int) -> tuple[tuple[int, ...], ...]:
    """Of W, of n samples of x and of u."""
    return linear.weight_shape, (n, *linear.in_shape), (n, *linear.out_shape)


def built(part: Part) -> Any:
    """The part on a small image, or on as many units."""
    return part.build((6,) if part.name.startswith("dense") else IMAGE)


def asked(name: str, linear: Any, compute: Callable, modes: tuple[str, ...]) -> Question:
    """Every kind of numbers on three samples."""
    return question(f"synapses/{name}", shapes(linear, 3), lambda *a: compute(linear, *a), KINDS, modes)


def not_finite(name: str, linear: Any) -> Question:
    """A NaN or an infinity in the middle of one argument: in all that reads it, and nowhere else.

    The middle, as a form that leaves padding out is right too. Of a NaN among the weights only what is behind other
    channels is looked at where signals go back: forms differ in what they multiply by the zeros around a signal.
    """
    kinds: dict[str, Any] = {"": as_drawn}
    for value in (np.nan, np.inf):
        put = values.with_one(value)
        kinds |= {f"{value} in x": values.changing(None, put), f"{value} in u": values.changing(None, None, put)}

    return question(f"{name}/not finite", shapes(linear, 3), lambda *a: faces(linear, *a), kinds, COMPILED)


def not_finite_weight(name: str, linear: Any) -> Question:
    """A NaN or an infinity among the weights of a map without padding."""

    def compute(kernels, W, x, u):
        found = faces(linear, kernels, W, x, u)
        return {"apply": found["apply"], "transport": found["transport"][..., 1:]}

    def put(value):
        return values.changing(lambda W: values.with_one(value, *(0 for _ in W.shape))(W))

    kinds = {str(value): put(value) for value in (np.nan, np.inf)}
    return question(f"{name}/not finite weight", shapes(linear, 3), compute, kinds, COMPILED)


def questions() -> Iterator[Question]:
    """The maps by kernel, stride and padding; those without samples that are computed as such."""
    for part in PARTS:
        compute, modes = (turned, BOTH) if part in EAGER else (identities, COMPILED)
        yield asked(part.name, built(part), compute, modes)
    for name, linear in (("conv", Convolution(UNEVEN, 2)), ("locally_connected", LocalConnection(UNEVEN, 2))):
        yield asked(f"{name} with uneven padding", linear, identities, COMPILED)
    several = SharedConvolution((UNEVEN, window((2, 3, UNEVEN.in_shape[2]), UNEVEN.kernel, UNEVEN.stride)), 2)
    yield asked("convolution shared by two images", several, turned, BOTH)
    for part in (dense(4), conv(2, 3), locally_connected(2, 3)):
        yield not_finite(f"synapses/{part.name}", built(part))
    for part in (dense(4), conv(2, 3, padding="valid"), locally_connected(2, 3, padding="valid")):
        yield not_finite_weight(f"synapses/{part.name}", built(part))
