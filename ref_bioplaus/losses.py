"""Tasks. Every function is per sample: a sum over units, never a mean over the batch.

The gradients' factors are the losses' own: squared_error has no 1/2, so its gradient is 2 (h - y).
"""

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

    def output(u):
        return 0.5 * (array_namespace(u).tanh(0.5 * u) + 1.0)

    def gradient(u, y):
        check_targets(u, y)
        return output(u) - y

    return Loss(value, gradient, output, lambda h, y: y)


def squared_error() -> Loss:
    """||h - y||^2 (the autoencoder of Bartunov et al. 2018, app. 5.5); y (N, units)."""

    def value(u, y):
        check_targets(u, y)
        return array_namespace(u).sum((u - y) * (u - y), axis=-1)

    def gradient(u, y):
        check_targets(u, y)
        return 2.0 * (u - y)

    return Loss(value, gradient, lambda u: u, lambda h, y: y)


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


def check_targets(u: Array, y: Array) -> None:
    """Raise ValueError where the targets do not fit the output."""
    if tuple(u.shape) != tuple(y.shape):
        raise ValueError(
            f"targets y have shape {tuple(y.shape)}, expected {tuple(u.shape)} as the network's output: "
            "class labels come one-hot (losses.one_hot)"
        )
