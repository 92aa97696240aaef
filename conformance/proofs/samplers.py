"""Random inputs for the functions that a third party replaces: sizes and values that they are defined for.

They are drawn by NumPy's generator, and know nothing of the suite's inputs.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ref_bioplaus import kernels as portable
from ref_bioplaus import local
from ref_bioplaus.types import Array
from ref_bioplaus.windows import Padding, Window, window

MOST = 40_000  # numbers of an array
Rng = np.random.Generator
Sampler = Callable[[Rng], tuple]


def length(rng: Rng, most: int = 24) -> int:
    """Every octave as likely as another."""
    return int(np.exp(rng.uniform(0, np.log(most + 1))))


def lengths(rng: Rng, n: int) -> list[int]:
    """Of n axes, one of which may be long."""
    found = [length(rng) for _ in range(n)]
    if n and rng.random() < 0.4:
        found[rng.integers(n)] = length(rng, 1100)
    while np.prod(found) > MOST:
        found[int(np.argsort(found)[-2])] //= 2
    return [max(k, 1) for k in found]


def numbers(rng: Rng, *shape: int) -> Array:
    """Small and large, centred and not, with zeros, ties, now and then not finite, and not always in C's order."""
    a = rng.normal(size=shape) * 10.0 ** rng.uniform(-3, 2)
    what = rng.random()
    if what < 0.2:
        a = a + rng.choice([-1, 1]) * 10.0 ** rng.uniform(-1, 3)
    elif what < 0.35:
        a = np.rint(a)
    elif what < 0.45:
        a = np.where(rng.random(shape) < 0.2, 0.0, a)
    elif what < 0.5:
        a = np.where(rng.random(shape) < 0.1, rng.choice([np.nan, np.inf, -np.inf], size=shape), a)
    return np.asarray(a, np.float32, order="F" if rng.random() < 0.15 else "C")


def positive(rng: Rng, *shape: int) -> Array:
    """Above 0."""
    return np.asarray(np.abs(rng.normal(size=shape)) * 10.0 ** rng.uniform(-3, 2) + 1e-6, np.float32)


def whole(rng: Rng, *shape: int) -> Array:
    """Any 32 bits."""
    return rng.integers(-(2**31), 2**31, size=shape, dtype=np.int32)


def any_array(rng: Rng) -> Array:
    """Of one to four axes."""
    return numbers(rng, *lengths(rng, int(rng.integers(1, 5))))


def place(rng: Rng) -> Window:
    """A window somewhere."""
    H, W = (int(rng.integers(1, 9)) for _ in range(2))
    if rng.random() < 0.1:
        H = length(rng, 300)
    kernel, stride = ((int(rng.integers(1, 4)), int(rng.integers(1, 4))) for _ in range(2))
    padding: Padding = ("same", "valid", (int(rng.integers(3)), int(rng.integers(3))))[rng.integers(3)]
    try:
        return window((H, W, length(rng, 6)), kernel, stride, padding)
    except ValueError:
        return window((H, W, 3), kernel, stride, "same")


def windowed(face: str, is_local: bool) -> Sampler:
    """Of a connectivity with windows."""

    def draw(rng):
        w = place(rng)
        n, out = length(rng, max(MOST // (w.in_shape[0] * w.in_shape[1] * 60), 4)), length(rng, 9)
        pixels = w.kernel[0] * w.kernel[1] * w.in_shape[2]
        bank = (*w.out_size, pixels, out) if is_local else (*w.kernel, w.in_shape[2], out)
        x, u = numbers(rng, n, *w.in_shape), numbers(rng, n, *w.out_size, out)
        W = numbers(rng, *bank)
        return {"apply": (W, x, w), "transport": (W, u, w), "correlate": (x, u, w)}[face]

    return draw


def dense(face: str) -> Sampler:
    """Of a dense connectivity."""

    def draw(rng):
        n, i, o = lengths(rng, 3)
        W, x, u = numbers(rng, o, i), numbers(rng, n, i), numbers(rng, n, o)
        return {"apply": (W, x), "transport": (W, u), "correlate": (x, u)}[face]

    return draw


def images(rng: Rng) -> tuple:
    """For a pool."""
    w = place(rng)
    w = window(w.in_shape, w.kernel, w.stride, "same" if rng.random() < 0.5 else "valid") if fits(w) else w
    return numbers(rng, length(rng, 40), *w.in_shape), w


def fits(w: Window) -> bool:
    """Whether a kernel lies in its image."""
    return w.kernel[0] <= w.in_shape[0] and w.kernel[1] <= w.in_shape[1]


def errors_of_images(rng: Rng) -> tuple:
    """For the way back through a pool."""
    x, w = images(rng)
    return portable.max_pool(x, w)[1], numbers(rng, x.shape[0], *w.out_size, w.in_shape[2]), w


def normed(rng: Rng) -> tuple:
    """For BatchNorm."""
    x = numbers(rng, *lengths(rng, int(rng.integers(2, 5))))
    return x, numbers(rng, x.shape[-1]), numbers(rng, x.shape[-1]), float(rng.choice([1e-5, 1e-3]))


def errors_of_normed(rng: Rng) -> tuple:
    """For the way back through it."""
    x, gamma, beta, epsilon = normed(rng)
    return portable.batch_norm(x, gamma, beta, epsilon)[3], gamma, numbers(rng, *x.shape)


def unit(rng: Rng) -> tuple:
    """A nonlinearity and its input."""
    part = (local.tanh, local.relu, local.sigmoid, local.rectified_tanh)[rng.integers(4)]
    x = any_array(rng)
    return part.build(x.shape[1:]), x


def errors_of_unit(rng: Rng) -> tuple:
    """A nonlinearity, its output and an error."""
    op, x = unit(rng)
    return op, portable.activation(op, x), numbers(rng, *x.shape)


def tensors(rng: Rng, *makers: Callable) -> list[list[Array]]:
    """Some tensors, as often as they are asked for."""
    forms = [lengths(rng, int(rng.integers(1, 4))) for _ in range(rng.integers(1, 4))]
    return [[make(rng, *form) for form in forms] for make in makers]


def rate(rng: Rng) -> Any:
    """A learning rate, with a schedule or without."""
    eta = 10.0 ** rng.uniform(-4, 0)
    return np.asarray(eta, np.float32) if rng.random() < 0.5 else eta


def sgd(rng: Rng) -> tuple:
    """A step of SGD."""
    p, g, v = tensors(rng, numbers, numbers, numbers)
    momentum = float(rng.choice([0.0, 0.5, 0.9]))
    return (
        p,
        g,
        v,
        [float(rng.choice([1.0, 0.99]))] * len(p),
        rate(rng),
        momentum,
        bool(momentum and rng.random() < 0.5),
    )


def adam(rng: Rng) -> tuple:
    """A step of Adam."""
    p, g, m, v = tensors(rng, numbers, numbers, numbers, positive)
    b1, b2, t = float(rng.choice([0.5, 0.9])), float(rng.choice([0.9, 0.999])), length(rng, 1000)
    correction = tuple(np.asarray(1 - b**t, np.float32) for b in (b1, b2))
    epsilon, form = float(rng.choice([1e-8, 1e-3])), str(rng.choice(["paper", "hat"]))
    return p, g, m, v, [float(rng.choice([1.0, 0.99]))] * len(p), rate(rng), correction, b1, b2, epsilon, form


def stream(rng: Rng) -> tuple:
    """Random words."""
    n, start = length(rng, 3000), int(2.0 ** rng.uniform(0, 40)) if rng.random() < 0.5 else 0
    return whole(rng, 2), start if start % 2**32 + n <= 2**32 else start + n, n


def counters(rng: Rng) -> tuple:
    """A key and counters."""
    n = length(rng, 3000)
    return whole(rng, 2), whole(rng, n), whole(rng, n)


def biased(rng: Rng) -> tuple:
    """What a bias is added to."""
    a = any_array(rng)
    return a, numbers(rng, *a.shape[int(rng.integers(a.ndim)) :])


def summed(rng: Rng) -> tuple:
    """What is summed over the leading axes."""
    a = any_array(rng)
    return a, tuple(range(int(rng.integers(1, a.ndim + 1))))


def repeated(rng: Rng) -> tuple:
    """A loop."""
    return lambda start, a: a * 2 + np.float32(start), [0, 3, 5][: rng.integers(1, 4)], any_array(rng)


KERNELS: dict[str, Sampler] = {
    **{f"dense_{face}": dense(face) for face in ("apply", "transport", "correlate")},
    **{f"conv_{face}": windowed(face, False) for face in ("apply", "transport", "correlate")},
    **{f"local_{face}": windowed(face, True) for face in ("apply", "transport", "correlate")},
    "max_pool": images, "max_pool_backward": errors_of_images, "batch_norm": normed,
    "batch_norm_backward": errors_of_normed, "activation": unit, "activation_backward": errors_of_unit,
    "channel_sum": summed, "sgd": sgd, "adam": adam, "random_words": stream, "threefry": counters, "add": biased,
    "each": repeated, "normal_table": lambda rng: (rng.integers(0, 1 << 14, size=64),),
}  # fmt: skip
