"""How well feedback agrees with backpropagation's, and how well a network does its task.

Angles are in degrees, over a tensor taken as one vector; with a zero vector an angle is NaN.
"""

import math

from array_api_compat import array_namespace

from .network import Network, forward, layer_forward
from .types import Array, Info, Loss, Params, State


def angle(a: Array, b: Array) -> Array:
    """Degrees between two arrays of one shape, (); accurate near 0 and 180 too (Kahan's half-angle form)."""
    xp = array_namespace(a, b)
    a, b = (v / xp.sqrt(xp.sum(v * v)) for v in (a, b))
    difference, total = a - b, a + b
    return 2.0 * xp.atan2(xp.sqrt(xp.sum(difference * difference)), xp.sqrt(xp.sum(total * total))) * (180.0 / math.pi)


def matrix_angles(forward: Params, feedback: Params) -> dict[int, Array]:
    """Angle between W_l and B_l (or V_l), for each layer that has both in one layout (Akrout et al. 2019, fig. 4)."""
    pairs = ((l, w.W, getattr(b, "W", None)) for l, (w, b) in enumerate(zip(forward, feedback, strict=False)))
    return {l: angle(W, B) for l, W, B in pairs if W is not None and B is not None and W.shape == B.shape}


def delta_angles(info: Info, reference: Info) -> dict[int, Array]:
    """Angle between delta_l of two steps from one state, e.g. an algorithm's and BP's (Akrout et al. 2019, fig. 4)."""
    pairs = enumerate(zip(info.delta or (), reference.delta or (), strict=True))
    return {l: angle(a, b) for l, (a, b) in pairs if a is not None and b is not None}


def gradient_ratios(reference: Info, info: Info) -> dict[int, Array]:
    """||dW_l of the reference (BP)|| / ||dW_l||, layer by layer (Moskovitz et al. 2018, eq. 8 and fig. 2)."""
    pairs = enumerate(zip(reference.grads, info.grads, strict=True))
    return {l: _norm(a.W) / _norm(b.W) for l, (a, b) in pairs if a.W is not None}


def sign_changes(before: Params, after: Params) -> dict[int, Array]:
    """Fraction of every layer's weights whose sign differs, 0 to 1 (Moskovitz et al. 2018, fig. 5)."""
    pairs = enumerate(zip(before, after, strict=True))
    return {l: _fraction(a.W, b.W) for l, (a, b) in pairs if a.W is not None}


def reconstruction_errors(network: Network, loss: Loss, inverses: dict, state: State, x: Array) -> dict[int, Array]:
    """Mean over the batch of ||g(h_l) - h_{l-1}||^2 / ||h_{l-1}||^2, for inverses {l: Layer} (Bartunov et al., sec. 2).

    x (N, *in_shape), in test mode.
    """
    trace, _ = forward(network, state.forward.params, state.stats, x, train=False)
    errors = {}
    for l, layer in inverses.items():
        h = loss.output(trace.h[l]) if l == network.L else trace.h[network.output_of(l)]
        xp = array_namespace(h)
        h = xp.reshape(h, (h.shape[0], *layer.in_shape))
        rebuilt, _, _ = layer_forward(layer, state.feedback.params[l], ((),) * len(layer.local), h)
        below = xp.reshape(trace.h[l - 1], rebuilt.shape)
        axes = tuple(range(1, below.ndim))
        difference = rebuilt - below
        errors[l] = xp.mean(xp.sum(difference * difference, axis=axes) / xp.sum(below * below, axis=axes))
    return errors


def top_k_error(output: Array, y: Array, k: int = 1) -> Array:
    """Fraction of samples whose class is not among the k largest outputs, 0 to 1; ties count as the lower index, and a
    sample with an output that is NaN as wrong.

    output (N, classes), y one-hot (N, classes). Raises ValueError where k is not from 1 to the number of classes.
    """
    classes = output.shape[-1]
    if not 1 <= k <= classes:
        raise ValueError(f"top_k_error: k is {k}, expected 1 to {classes}, the number of classes")
    xp = array_namespace(output)
    order = xp.argsort(output, axis=-1, descending=True, stable=True)[:, :k]
    label = xp.argmax(y, axis=-1, keepdims=True)
    wide = xp.float64 if output.dtype == xp.float64 else xp.float32
    right = xp.any(order == label, axis=-1) & xp.all(output == output, axis=-1)
    return 1.0 - xp.mean(xp.astype(right, wide))


def _norm(a):
    xp = array_namespace(a)
    return xp.sqrt(xp.sum(a * a))


def _fraction(a, b):
    xp = array_namespace(a)
    apart = xp.abs(xp.sign(a) - xp.sign(b))
    return xp.mean(xp.minimum(apart, xp.ones_like(apart)))
