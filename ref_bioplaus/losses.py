"""Tasks. Every function is per sample: a sum over units, never a mean over the batch.

The gradients' factors are the losses' own: squared_error has no 1/2, so its gradient is 2 (h - y).
"""

import math

from array_api_compat import array_namespace, device

from .linear import Part
from .local import Nonlinearity, tanh
from .types import Array, DType, Loss


def softmax(u: Array) -> Array:
    """The distribution over the last axis, (N, classes) -> (N, classes)."""
    xp = array_namespace(u)
    e = xp.exp(u - xp.max(u, axis=-1, keepdims=True))
    return e / xp.sum(e, axis=-1, keepdims=True)


def cross_entropy() -> Loss:
    """Softmax and cross-entropy (Bartunov et al. 2018, sec. 2); y is a distribution over classes, (N, classes)."""

    def value(u, y):
        check_targets(u, y)
        xp = array_namespace(u)
        u = u - xp.max(u, axis=-1, keepdims=True)
        return xp.log(xp.sum(xp.exp(u), axis=-1)) * xp.sum(y, axis=-1) - xp.sum(u * y, axis=-1)

    def gradient(u, y):
        check_targets(u, y)
        return softmax(u) * array_namespace(y).sum(y, axis=-1, keepdims=True) - y

    return Loss(value, gradient, softmax, lambda h, y: y)


def cross_entropy_of_logits() -> Loss:
    """The same, but h_L is u itself, as in a program that leaves the softmax to its loss; hhat_L is y all the same."""
    return cross_entropy()._replace(output=lambda u: u)


def sigmoid_cross_entropy() -> Loss:
    """A sigmoid and a binary cross-entropy per unit (Nøkland 2016; Akrout's public code); y in [0, 1], (N, units)."""

    def value(u, y):
        check_targets(u, y)
        xp = array_namespace(u)
        return xp.sum(xp.maximum(u, xp.zeros_like(u)) - u * y + xp.log1p(xp.exp(-xp.abs(u))), axis=-1)

    def gradient(u, y):
        check_targets(u, y)
        return logistic(u) - y

    return Loss(value, gradient, logistic, lambda h, y: y)


def logistic(u: Array) -> Array:
    """1 / (1 + exp(-u)), elementwise."""
    return 0.5 * (array_namespace(u).tanh(0.5 * u) + 1.0)


def squared_error() -> Loss:
    """||h - y||^2 (the autoencoder of Bartunov et al. 2018, app. 5.5); y (N, units)."""

    def value(u, y):
        check_targets(u, y)
        return array_namespace(u).sum((u - y) * (u - y), axis=-1)

    def gradient(u, y):
        check_targets(u, y)
        return 2.0 * (u - y)

    return Loss(value, gradient, lambda u: u, lambda h, y: y)


def smooth_l1(beta: float = 1.0) -> Loss:
    """|d| - beta / 2 of d = h - y where it is above beta, and d^2 / (2 beta) below (Girshick 2015, eq. 3: beta = 1).

    y (N, ...), as u. beta = 0 is |d|, whose slope at 0 is 0. Raises ValueError for a beta below 0.
    """
    if not 0.0 <= beta < math.inf:
        raise ValueError(f"smooth_l1: beta is {beta}, expected a finite number of at least 0")

    def value(u, y):
        check_targets(u, y)
        return per_sample(distance(u - y, beta))

    def gradient(u, y):
        check_targets(u, y)
        return distance_slope(u - y, beta)

    return Loss(value, gradient, lambda u: u, lambda h, y: y)


def l1() -> Loss:
    """|h - y|; y (N, ...), as u."""
    return smooth_l1(0.0)


def distance(d: Array, beta: float) -> Array:
    """What smooth_l1 sums, elementwise."""
    size = array_namespace(d).abs(d)
    if not beta:
        return size
    near = array_namespace(d).minimum(size, array_namespace(d).full_like(d, beta))
    return near * (size - 0.5 * near) / beta


def distance_slope(d: Array, beta: float) -> Array:
    """Its derivative: d / beta, from -1 to 1."""
    xp = array_namespace(d)
    one = xp.ones_like(d)
    return xp.maximum(xp.minimum(d / beta, one), -one) if beta else xp.sign(d)


def focal(gamma: float = 2.0, alpha: float = 0.25) -> Loss:
    """A sigmoid and a binary cross-entropy per unit, less of it where the unit is right (Lin et al. 2017, eq. 5).

        FL = -alpha_t (1 - p_t)^gamma log p_t        p_t = sigmoid(u), alpha_t = alpha        where y is above 0
                                                     p_t = 1 - sigmoid(u), alpha_t = 1 - alpha   where it is 0

    y (N, ...), as u: 1 or 0, and below 0 where a unit is ignored: its loss and its error are 0. Raises ValueError for a
    gamma below 0 and an alpha outside of [0, 1].
    """
    if not 0.0 <= gamma < math.inf:
        raise ValueError(f"focal: gamma is {gamma}, expected a finite number of at least 0")
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"focal: alpha is {alpha}, expected a number from 0 to 1")

    def terms(u, y):
        """The unit's side, 1 or -1; its weight; p_t, 1 - p_t and log p_t, each exact to rounding however far u is."""
        xp = array_namespace(u)
        yes, none, one = y > 0.0, xp.zeros_like(u), xp.ones_like(u)
        side = xp.where(yes, one, -one)
        weight = xp.where(yes, alpha * one, xp.where(y < 0.0, none, (1.0 - alpha) * one))
        z = side * u
        e = xp.exp(-xp.abs(z))
        p, rest = (xp.exp(xp.minimum(part, none)) / (1.0 + e) for part in (z, -z))
        return side, weight, p, rest, xp.minimum(z, none) - xp.log1p(e)

    def value(u, y):
        check_targets(u, y)
        _, weight, _, rest, log_p = terms(u, y)
        return per_sample(-weight * rest**gamma * log_p)

    def gradient(u, y):
        check_targets(u, y)
        side, weight, p, rest, log_p = terms(u, y)
        return side * weight * rest**gamma * (gamma * p * log_p - rest)

    return Loss(value, gradient, logistic, lambda h, y: array_namespace(h).where(y < 0.0, h, y))


def detection(classes: int, gamma: float = 2.0, alpha: float = 0.25, beta: float = 0.0) -> Loss:
    """Focal loss of every anchor's classes, and smooth L1 of its box (Lin et al. 2017, sec. 4 and 5.1).

    u (N, ..., classes + 4): of each anchor, along any axes, a logit per class and four offsets. y (N, ..., 6): its
    class, -1 where it is ignored and -2 for background; 1 where it has a box and 0 elsewhere; the box's offsets. Both
    sums are divided by the image's anchors with a box, or by 1 where it has none. beta = 0 is L1.
    """
    scored = focal(gamma, alpha)

    def parts(u, y):
        """Logits, their targets, offsets less theirs, which anchors have a box, and how many have."""
        check_anchors(u, y, classes)
        label, boxed = y[..., :1], y[..., 1:2]
        xp = array_namespace(u)
        index = xp.astype(xp.arange(classes, dtype=xp.int32, device=device(u)), u.dtype)
        target = xp.astype(label == index, u.dtype) - xp.astype(label == -1.0, u.dtype)
        count = per_sample(boxed)
        return u[..., :classes], target, u[..., classes:] - y[..., 2:], boxed, xp.maximum(count, xp.ones_like(count))

    def value(u, y):
        logits, target, apart, boxed, count = parts(u, y)
        return (scored.value(logits, target) + per_sample(boxed * distance(apart, beta))) / count

    def gradient(u, y):
        logits, target, apart, boxed, count = parts(u, y)
        errors = (scored.gradient(logits, target), boxed * distance_slope(apart, beta))
        xp = array_namespace(u)
        return xp.concat(errors, axis=-1) / xp.reshape(count, (-1,) + (1,) * (u.ndim - 1))

    def output(u):
        return array_namespace(u).concat([logistic(u[..., :classes]), u[..., classes:]], axis=-1)

    def target(h, y):
        xp = array_namespace(h)
        _, wanted, _, boxed, _ = parts(h, y)
        chosen = (scored.target(h[..., :classes], wanted), xp.where(boxed > 0.0, y[..., 2:], h[..., classes:]))
        return xp.concat(chosen, axis=-1)

    return Loss(value, gradient, output, target)


def with_auxiliary_output(loss: Loss, n: int, activation: Part = tanh) -> Loss:
    """h_L = [o, z]: the task sees the first n units o; z only informs the inverse (Bartunov et al. 2018, eq. 3).

    z passes through `activation`, the network's nonlinearity, and gets no error; the target keeps z and corrects o.
    Without any z this is `loss` itself, and AO-SDTP is SDTP.
    AO-SDTP freezes z's rows of W_L and b_L, since a zero gradient does not stop decay, noise or norm control.
    """
    nonlinearity: Nonlinearity = activation.build(())

    def split(u, y):
        if u.shape[-1] < n:
            raise ValueError(f"the output has {u.shape[-1]} units, expected at least the task's {n}: z is behind them")
        return u[:, :n], y

    def gradient(u, y):
        xp = array_namespace(u)
        return xp.concat([loss.gradient(*split(u, y)), xp.zeros_like(u[:, n:])], axis=1)

    def output(u):
        return array_namespace(u).concat([loss.output(u[:, :n]), nonlinearity.function(u[:, n:])], axis=1)

    def target(h, y):
        return array_namespace(h).concat([loss.target(h[:, :n], y), h[:, n:]], axis=1)

    return Loss(lambda u, y: loss.value(*split(u, y)), gradient, output, target, learned_units=n)


def one_hot(labels: Array, classes: int, dtype: DType) -> Array:
    """Integer labels (N,) in 0 to classes - 1 -> (N, classes) of 0 and 1."""
    xp = array_namespace(labels)
    index = xp.arange(classes, dtype=labels.dtype, device=device(labels))
    return xp.astype(xp.expand_dims(labels, axis=1) == xp.expand_dims(index, axis=0), dtype)


def per_sample(terms: Array) -> Array:
    """The sum over everything but the batch, (N, ...) -> (N,)."""
    return array_namespace(terms).sum(terms, axis=tuple(range(1, terms.ndim)))


def check_targets(u: Array, y: Array) -> None:
    """Raise ValueError where the targets do not fit the output."""
    if tuple(u.shape) != tuple(y.shape):
        raise ValueError(
            f"targets y have shape {tuple(y.shape)}, expected {tuple(u.shape)} as the network's output: "
            "class labels come one-hot (losses.one_hot)"
        )


def check_anchors(u: Array, y: Array, classes: int) -> None:
    """Raise ValueError where the output or the targets are not those of `detection`."""
    anchors, units = tuple(u.shape[:-1]), classes + 4
    if u.shape[-1] != units:
        raise ValueError(f"the output has {u.shape[-1]} units per anchor, expected {classes} classes and 4 offsets")
    if tuple(y.shape) != (*anchors, 6):
        raise ValueError(
            f"targets y have shape {tuple(y.shape)}, expected {(*anchors, 6)}: per anchor its class (-1: ignored, -2: "
            "background), whether it has a box, and four offsets"
        )
