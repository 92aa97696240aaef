"""What a neuron does by itself: bias, normalisation, nonlinearity, pooling. Differentiated exactly by every algorithm.

An operation is built from an input shape (without the batch) and has three functions:

    init(key, dtype)                      -> params, stats     dicts of arrays, maybe empty
    forward(params, stats, x, key, train) -> y, stats, cache   key: the address of its random numbers
    backward(params, cache, dy)           -> dx, dparams       dparams summed over the batch

Choices: the slope of ReLU at 0 is 0, and of every nonlinearity NaN where its output is. Of several equal maxima the
    first, in row-major order, takes the error. BatchNorm divides by the population's standard deviation, and its
    running variance is the unbiased one (Ioffe and Szegedy 2015, algorithm 2; PyTorch's too). An average pool leaves
    padding out of its means.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from array_api_compat import array_namespace, device

from . import random
from .kernels import PORTABLE, Kernels
from .linear import Part, shown
from .types import Address, Array, DType, Key, Shape, Tree
from .windows import Padding, Pair, Window, overlap_add, pair, patches, window


@dataclass(frozen=True)
class LocalOperation:
    """The identity, without parameters: what the operations below change."""

    in_shape: tuple[int, ...]

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the output, without the batch."""
        return self.in_shape

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """What it learns, by name."""
        return {}

    def init(self, key: Key, dtype: DType) -> tuple[dict[str, Array], dict[str, Array]]:
        """No parameters, no statistics."""
        return {}, {}

    def forward(self, params: Tree, stats: Tree, x: Array, key: Address, train: bool) -> tuple[Array, Tree, Tree]:
        """y, new statistics, cache."""
        return x, stats, ()

    def backward(self, params: Tree, cache: Tree, dy: Array) -> tuple[Array, dict[str, Array]]:
        """Error at x, gradients of the parameters."""
        return dy, {}


# Nonlinearities. Their derivative is a function of their output, as Akrout et al. 2019 note below eq. (2).


@dataclass(frozen=True)
class Nonlinearity(LocalOperation):
    """y = function(x), elementwise; derivative(y) is its slope where the output is y."""

    name: str
    function: Callable[[Array], Array]
    derivative: Callable[[Array], Array]
    kernels: Kernels = PORTABLE

    def forward(self, params: Tree, stats: Tree, x: Array, key: Address, train: bool) -> tuple[Array, Tree, Tree]:
        """y, and y as the cache."""
        y = self.kernels.activation(self, x)
        return y, stats, y

    def backward(self, params: Tree, cache: Tree, dy: Array) -> tuple[Array, dict[str, Array]]:
        """dy * derivative(y)"""
        return self.kernels.activation_backward(self, cache, dy), {}


def nonlinearity(name: str, function: Callable[[Array], Array], derivative: Callable[[Array], Array]) -> Part:
    """A nonlinearity of your own: `derivative` takes the output, and an output of 0 where the slope is undefined."""
    return Part(name, lambda in_shape: Nonlinearity(in_shape, name, function, derivative))


def _tanh(x):
    return array_namespace(x).tanh(x)


def _positive_part(x):
    xp = array_namespace(x)
    return xp.maximum(x, xp.zeros_like(x))


def _step(y):
    """The sign of y, which is 0 or above, and NaN where y is: y > 0 would lose that, and so would torch's own sign."""
    xp = array_namespace(y)
    return xp.ceil(xp.minimum(y, xp.full_like(y, 0.5)))


def _sigmoid(x):
    return 0.5 * (_tanh(0.5 * x) + 1.0)


tanh = nonlinearity("tanh", _tanh, lambda y: 1.0 - y * y)
relu = nonlinearity("relu", _positive_part, _step)  # its slope at 0 is 0
sigmoid = nonlinearity("sigmoid", _sigmoid, lambda y: y * (1.0 - y))
rectified_tanh = nonlinearity("rectified_tanh", lambda x: _tanh(_positive_part(x)), lambda y: _step(y) * (1.0 - y * y))


# Operations with parameters. The last axis is the channel, or the unit in a dense layer.


@dataclass(frozen=True)
class Bias(LocalOperation):
    """y = x + b, b of b_shape: the last axes of x."""

    b_shape: tuple[int, ...]
    kernels: Kernels = PORTABLE
    start: float = 0.0

    parameter_shapes = property(lambda self: {"b": self.b_shape})

    def init(self, key: Key, dtype: DType) -> tuple[dict[str, Array], dict[str, Array]]:
        """b = start, 0 unless said otherwise."""
        return {"b": full(key, self.b_shape, self.start, dtype)}, {}

    def forward(self, params: Tree, stats: Tree, x: Array, key: Address, train: bool) -> tuple[Array, Tree, Tree]:
        """x + b"""
        return self.kernels.add(x, params["b"]), stats, ()

    def backward(self, params: Tree, cache: Tree, dy: Array) -> tuple[Array, dict[str, Array]]:
        """The bias learns from the error itself, summed over what shares it."""
        axes = tuple(range(dy.ndim - len(self.b_shape)))
        return dy, {"b": self.kernels.channel_sum(dy, axes)}


bias = Part("bias", lambda in_shape: Bias(in_shape, in_shape[-1:]))  # one b per channel, shared over positions


def bias_from(start: float) -> Part:
    """`bias` that begins at a number, as the logit of what is rare (Lin et al. 2017, sec. 4.1)."""
    return Part("bias", lambda in_shape: Bias(in_shape, in_shape[-1:], start=start))


unit_bias = Part("unit_bias", lambda in_shape: Bias(in_shape, in_shape))  # one b per unit


@dataclass(frozen=True)
class BatchNorm(LocalOperation):
    """Ioffe and Szegedy 2015, algorithms 1 and 2.

    Running statistics move by `rate` towards each batch's mean and unbiased variance (m / (m - 1) times the
    population's, as in algorithm 2; the population's own where the batch holds one value per channel).
    """

    rate: float
    epsilon: float
    kernels: Kernels = PORTABLE

    parameter_shapes = property(lambda self: {"gamma": self.in_shape[-1:], "beta": self.in_shape[-1:]})

    def init(self, key: Key, dtype: DType) -> tuple[dict[str, Array], dict[str, Array]]:
        """gamma = 1, beta = 0; mean = 0, var = 1."""
        gamma, beta, mean, var = (full(key, self.in_shape[-1:], value, dtype) for value in (1.0, 0.0, 0.0, 1.0))
        return {"gamma": gamma, "beta": beta}, {"mean": mean, "var": var}

    def forward(self, params: Tree, stats: Tree, x: Array, key: Address, train: bool) -> tuple[Array, Tree, Tree]:
        """In training the batch's own statistics; in test the running ones, which then have no backward pass."""
        if not train:
            z = (x - stats["mean"]) / array_namespace(x).sqrt(stats["var"] + self.epsilon)
            return params["gamma"] * z + params["beta"], stats, None
        y, mean, var, cache = self.kernels.batch_norm(x, params["gamma"], params["beta"], self.epsilon)
        m = math.prod(x.shape[:-1])
        batch = {"mean": mean, "var": var * (m / max(m - 1, 1))}
        moved = {name: stats[name] + self.rate * (batch[name] - stats[name]) for name in stats}
        return y, moved, cache

    def backward(self, params: Tree, cache: Tree, dy: Array) -> tuple[Array, dict[str, Array]]:
        """Exact, through the batch's mean and variance."""
        dx, dgamma, dbeta = self.kernels.batch_norm_backward(cache, params["gamma"], dy)
        return dx, {"gamma": dgamma, "beta": dbeta}


def batch_norm_with(rate: float = 0.1, epsilon: float = 1e-5) -> Part:
    """BatchNorm over all axes but the last; its running statistics move by `rate` (PyTorch's momentum)."""
    return Part("batch_norm", lambda in_shape: BatchNorm(in_shape, rate, epsilon))


batch_norm = batch_norm_with()


# Operations without parameters.


@dataclass(frozen=True)
class Dropout(LocalOperation):
    """Inverted dropout (Srivastava et al. 2014): the mask is a function of the step's key."""

    probability: float
    kernels: Kernels = PORTABLE

    def forward(self, params: Tree, stats: Tree, x: Array, key: Address, train: bool) -> tuple[Array, Tree, Tree]:
        """In training drop with `probability` and scale the rest by 1 / (1 - probability); in test the identity."""
        if not train:
            return x, stats, None
        kept = random.bernoulli(key, 1.0 - self.probability, x.shape, self.kernels)
        mask = array_namespace(x).astype(kept, x.dtype) * (1.0 / (1.0 - self.probability))
        return x * mask, stats, mask

    def backward(self, params: Tree, cache: Tree, dy: Array) -> tuple[Array, dict[str, Array]]:
        """dy * mask"""
        return dy if cache is None else dy * cache, {}


def dropout(probability: float) -> Part:
    """Drop each value with this probability while training. Raises ValueError outside [0, 1)."""
    if not 0.0 <= probability < 1.0:
        raise ValueError(f"dropout({probability}): expected a probability of dropping in [0, 1)")
    return Part(f"dropout({probability})", lambda in_shape: Dropout(in_shape, probability))


@dataclass(frozen=True)
class MaxPool(LocalOperation):
    """The largest value of every window; of several equal ones the first, in row-major order, takes the error."""

    window: Window
    kernels: Kernels = PORTABLE

    out_shape = property(lambda self: (*self.window.out_size, self.in_shape[2]))

    def forward(self, params: Tree, stats: Tree, x: Array, key: Address, train: bool) -> tuple[Array, Tree, Tree]:
        """y, and where each maximum was."""
        y, first = self.kernels.max_pool(x, self.window)
        return y, stats, first

    def backward(self, params: Tree, cache: Tree, dy: Array) -> tuple[Array, dict[str, Array]]:
        """The error goes to the first maximum."""
        return self.kernels.max_pool_backward(cache, dy, self.window), {}


def max_pool(kernel: Pair, stride: Pair | None = None, padding: Padding = "valid") -> Part:
    """Max-pooling, at a stride of its kernel unless said otherwise; padding never wins a maximum."""

    def build(in_shape):
        return MaxPool(in_shape, window(in_shape, kernel, kernel if stride is None else stride, padding))

    return Part(f"max_pool({shown_pool(kernel, stride, padding)})", build)


def shown_pool(kernel: Pair, stride: Pair | None, padding: Padding) -> str:
    """A pool's kernel, and its stride and padding where they are not the kernel's and none."""
    moved = "" if stride is None or pair(stride) == pair(kernel) else f", stride {shown(stride)}"
    return shown(kernel) + moved + ("" if padding == "valid" else f", padding {padding}")


@dataclass(frozen=True)
class AveragePool(LocalOperation):
    """The mean of every window's pixels inside the image: padding counts neither above nor below the line."""

    window: Window

    out_shape = property(lambda self: (*self.window.out_size, self.in_shape[2]))

    def _count(self, x):
        """How many pixels of each window lie inside: (1, height, width, 1)."""
        xp = array_namespace(x)
        rows, cols = (xp.sum(reads, axis=1, dtype=xp.int32) for reads in self.window.pixels_read(x))
        return xp.astype(rows[:, None] * cols[None, :], x.dtype)[None, :, :, None]

    def forward(self, params: Tree, stats: Tree, x: Array, key: Address, train: bool) -> tuple[Array, Tree, Tree]:
        """y"""
        y = array_namespace(x).sum(patches(x, self.window), axis=3) / self._count(x)
        return y, stats, ()

    def backward(self, params: Tree, cache: Tree, dy: Array) -> tuple[Array, dict[str, Array]]:
        """Every pixel of a window gets an equal share of its error."""
        share = array_namespace(dy).expand_dims(dy / self._count(dy), axis=3)
        kh, kw = self.window.kernel
        spread = array_namespace(dy).broadcast_to(share, (*dy.shape[:3], kh * kw, dy.shape[3]))
        return overlap_add(spread, self.window), {}


def average_pool(kernel: Pair, stride: Pair | None = None, padding: Padding = "valid") -> Part:
    """Average-pooling, at a stride of its kernel unless said otherwise."""

    def build(in_shape):
        return AveragePool(in_shape, window(in_shape, kernel, kernel if stride is None else stride, padding))

    return Part(f"average_pool({shown_pool(kernel, stride, padding)})", build)


@dataclass(frozen=True)
class GlobalAveragePool(LocalOperation):
    """The mean of every channel over the whole image."""

    out_shape = property(lambda self: self.in_shape[2:])

    def forward(self, params: Tree, stats: Tree, x: Array, key: Address, train: bool) -> tuple[Array, Tree, Tree]:
        """(N, height, width, channels) -> (N, channels)"""
        return array_namespace(x).mean(x, axis=(1, 2)), stats, ()

    def backward(self, params: Tree, cache: Tree, dy: Array) -> tuple[Array, dict[str, Array]]:
        """Every pixel gets an equal share."""
        share = dy[:, None, None, :] * (1.0 / (self.in_shape[0] * self.in_shape[1]))
        return array_namespace(dy).broadcast_to(share, (dy.shape[0], *self.in_shape)), {}


def _global_average_pool(in_shape):
    if len(in_shape) != 3:
        raise ValueError(f"its input has shape {tuple(in_shape)}, expected (height, width, channels)")
    return GlobalAveragePool(in_shape)


global_average_pool = Part("global_average_pool", _global_average_pool)


@dataclass(frozen=True)
class Flatten(LocalOperation):
    """An image as a vector, in row-major order."""

    out_shape = property(lambda self: (math.prod(self.in_shape),))

    def forward(self, params: Tree, stats: Tree, x: Array, key: Address, train: bool) -> tuple[Array, Tree, Tree]:
        """(N, height, width, channels) -> (N, height * width * channels)"""
        return array_namespace(x).reshape(x, (x.shape[0], *self.out_shape)), stats, ()

    def backward(self, params: Tree, cache: Tree, dy: Array) -> tuple[Array, dict[str, Array]]:
        """The same numbers as an image."""
        return array_namespace(dy).reshape(dy, (dy.shape[0], *self.in_shape)), {}


flatten = Part("flatten", Flatten)


@dataclass(frozen=True)
class Rows(LocalOperation):
    """The same numbers as rows of `units`, in row-major order: an image's pixels one behind the other."""

    units: int

    out_shape = property(lambda self: (math.prod(self.in_shape) // self.units, self.units))

    def forward(self, params: Tree, stats: Tree, x: Array, key: Address, train: bool) -> tuple[Array, Tree, Tree]:
        """(N, ..., channels) -> (N, rows, units)"""
        return array_namespace(x).reshape(x, (x.shape[0], *self.out_shape)), stats, ()

    def backward(self, params: Tree, cache: Tree, dy: Array) -> tuple[Array, dict[str, Array]]:
        """The same numbers in the shape that they had."""
        return array_namespace(dy).reshape(dy, (dy.shape[0], *self.in_shape)), {}


def rows(units: int | None = None) -> Part:
    """Rows of so many units, whole channels unless said otherwise: of an image (height, width, channels) its pixels."""

    def build(in_shape):
        if len(in_shape) < 2 or in_shape[-1] % (units or in_shape[-1]):
            raise ValueError(f"its input has shape {tuple(in_shape)}, expected a multiple of {units or 1} channels")
        return Rows(in_shape, units or in_shape[-1])

    return Part("rows" if units is None else f"rows({units})", build)


@dataclass(frozen=True)
class Upsample(LocalOperation):
    """Every pixel `factor` times in both directions (the nearest neighbour's value)."""

    factor: int

    @property
    def out_shape(self) -> Shape:
        """(factor height, factor width, channels)"""
        height, width, channels = self.in_shape
        return self.factor * height, self.factor * width, channels

    def forward(self, params: Tree, stats: Tree, x: Array, key: Address, train: bool) -> tuple[Array, Tree, Tree]:
        """(N, height, width, channels) -> (N, factor height, factor width, channels)"""
        xp, (height, width, channels) = array_namespace(x), self.in_shape
        copies = (x.shape[0], height, self.factor, width, self.factor, channels)
        return xp.reshape(xp.broadcast_to(x[:, :, None, :, None, :], copies), (x.shape[0], *self.out_shape)), stats, ()

    def backward(self, params: Tree, cache: Tree, dy: Array) -> tuple[Array, dict[str, Array]]:
        """A pixel gets the errors of all its copies."""
        xp, (height, width, channels) = array_namespace(dy), self.in_shape
        copies = (dy.shape[0], height, self.factor, width, self.factor, channels)
        return xp.sum(xp.reshape(dy, copies), axis=(2, 4)), {}


def upsample(factor: int = 2) -> Part:
    """Every pixel `factor` times in both directions. Raises ValueError for a factor below 1."""

    def build(in_shape):
        if len(in_shape) != 3:
            raise ValueError(f"its input has shape {tuple(in_shape)}, expected (height, width, channels)")
        return Upsample(in_shape, factor)

    if factor < 1:
        raise ValueError(f"upsample({factor}): expected a factor of at least 1")
    return Part(f"upsample({factor})", build)


def full(key: Key, shape: Shape, value: float, dtype: DType) -> Array:
    """An array of one value, in the namespace and on the device of the key."""
    return array_namespace(key).full(shape, value, dtype=dtype, device=device(key))
