"""Synapses: linear maps u = W x, each given by its three faces.

    apply(W, x)      -> u     forward
    transport(B, u)  -> x     backward: B stands where W's transpose stands in backpropagation
    correlate(x, u)  -> W     pre- times postsynaptic signal, summed over the batch

They are one bilinear map seen from three sides: <apply(W, x), u> = <x, transport(W, u)> = <W, correlate(x, u)>.
Feedback weights are stored in W's layout, so B = W is backpropagation, whatever the connectivity; our B is the
transpose of the papers' B. Images are (N, height, width, channels),
and several of them, whose pixels stand one behind the other, (N, pixels, channels).

Choices: padding is TensorFlow's SAME unless said otherwise. A locally connected layer has no weights where a window
    reaches over the border: they are 0 from the start, and their gradient is 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate, pairwise
from typing import NamedTuple, Protocol

from array_api_compat import array_namespace

from .kernels import PORTABLE, Kernels
from .types import Array, Shape
from .windows import Padding, Pair, Window, pair, window


class LinearMap(Protocol):
    """What the algorithms know of synapses."""

    @property
    def in_shape(self) -> tuple[int, ...]: ...
    @property
    def out_shape(self) -> tuple[int, ...]: ...
    @property
    def weight_shape(self) -> tuple[int, ...]: ...
    @property
    def kernels(self) -> Kernels: ...
    @property
    def fan_in(self) -> int:
        """Connections into one output unit."""

    @property
    def fan_out(self) -> int:
        """Connections out of one input unit, as TensorFlow counts them: kernel pixels x output channels."""

    def apply(self, W: Array, x: Array) -> Array: ...
    def transport(self, B: Array, u: Array) -> Array: ...
    def correlate(self, x: Array, u: Array) -> Array: ...
    def position_mean(self, sums: Array) -> Array:
        """Sums over the positions that share a weight (as from correlate) -> means over those where it sees a pixel."""

    def existing(self, W: Array) -> Array:
        """W with 0 in place of weights that could only ever read padding."""


class Part(NamedTuple):
    """An ingredient of a layer, before its input shape is known."""

    name: str
    build: Callable  # in_shape -> LinearMap or LocalOperation; raises ValueError where the shape does not fit


@dataclass(frozen=True)
class Dense:
    """Fully connected. W: (n_out, n_in)."""

    n_in: int
    n_out: int
    kernels: Kernels = PORTABLE

    in_shape = property(lambda self: (self.n_in,))
    out_shape = property(lambda self: (self.n_out,))
    weight_shape = property(lambda self: (self.n_out, self.n_in))
    fan_in = property(lambda self: self.n_in)
    fan_out = property(lambda self: self.n_out)

    def apply(self, W: Array, x: Array) -> Array:
        """(n_out, n_in), (N, n_in) -> (N, n_out)"""
        return self.kernels.dense_apply(W, x)

    def transport(self, B: Array, u: Array) -> Array:
        """(n_out, n_in), (N, n_out) -> (N, n_in)"""
        return self.kernels.dense_transport(B, u)

    def correlate(self, x: Array, u: Array) -> Array:
        """(N, n_in), (N, n_out) -> (n_out, n_in)"""
        return self.kernels.dense_correlate(x, u)

    def position_mean(self, sums: Array) -> Array:
        """No weight is shared: the sums themselves."""
        return sums

    def existing(self, W: Array) -> Array:
        """All of W."""
        return W


@dataclass(frozen=True)
class Convolution:
    """Cross-correlation. W: (kernel height, kernel width, in channels, out channels)."""

    window: Window
    channels: int
    kernels: Kernels = PORTABLE

    in_shape = property(lambda self: self.window.in_shape)
    out_shape = property(lambda self: (*self.window.out_size, self.channels))
    weight_shape = property(lambda self: (*self.window.kernel, self.window.in_shape[2], self.channels))
    fan_in = property(lambda self: self.window.kernel[0] * self.window.kernel[1] * self.window.in_shape[2])
    fan_out = property(lambda self: self.window.kernel[0] * self.window.kernel[1] * self.channels)

    def apply(self, W: Array, x: Array) -> Array:
        """W, (N, *in_shape) -> (N, *out_shape)"""
        return self.kernels.conv_apply(W, x, self.window)

    def transport(self, B: Array, u: Array) -> Array:
        """W, (N, *out_shape) -> (N, *in_shape)"""
        return self.kernels.conv_transport(B, u, self.window)

    def correlate(self, x: Array, u: Array) -> Array:
        """(N, *in_shape), (N, *out_shape) -> W"""
        return self.kernels.conv_correlate(x, u, self.window)

    def position_mean(self, sums: Array) -> Array:
        """Each filter entry by the number of windows in which it reads a pixel, not padding."""
        return mean_over_reads(sums, (self.window,))

    def existing(self, W: Array) -> Array:
        """All of W."""
        return W


@dataclass(frozen=True)
class SharedConvolution:
    """One convolution of several images, whose pixels stand one behind the other: x and u (N, pixels, channels).

    W: (kernel height, kernel width, in channels, out channels), as of one image. It exists once, whatever the images.
    """

    windows: tuple[Window, ...]  # one for each image
    channels: int
    kernels: Kernels = PORTABLE

    window = property(lambda self: self.windows[0])
    each = property(lambda self: [Convolution(window, self.channels, self.kernels) for window in self.windows])
    in_shape = property(lambda self: (sum(pixels(c.in_shape) for c in self.each), self.window.in_shape[2]))
    out_shape = property(lambda self: (sum(pixels(c.out_shape) for c in self.each), self.channels))
    weight_shape = property(lambda self: self.each[0].weight_shape)
    fan_in = property(lambda self: self.each[0].fan_in)
    fan_out = property(lambda self: self.each[0].fan_out)

    def apply(self, W: Array, x: Array) -> Array:
        """W, (N, *in_shape) -> (N, *out_shape)"""
        images = apart(x, [c.in_shape for c in self.each])
        return together([c.apply(W, image) for c, image in zip(self.each, images, strict=True)])

    def transport(self, B: Array, u: Array) -> Array:
        """W, (N, *out_shape) -> (N, *in_shape)"""
        images = apart(u, [c.out_shape for c in self.each])
        return together([c.transport(B, image) for c, image in zip(self.each, images, strict=True)])

    def correlate(self, x: Array, u: Array) -> Array:
        """(N, *in_shape), (N, *out_shape) -> W, summed over the images"""
        below, above = apart(x, [c.in_shape for c in self.each]), apart(u, [c.out_shape for c in self.each])
        return reduce(self.kernels.add, (c.correlate(a, b) for c, a, b in zip(self.each, below, above, strict=True)))

    def position_mean(self, sums: Array) -> Array:
        """Each filter entry by the number of windows, of all images, in which it reads a pixel."""
        return mean_over_reads(sums, self.windows)

    def existing(self, W: Array) -> Array:
        """All of W."""
        return W


@dataclass(frozen=True)
class LocalConnection:
    """Convolution without weight sharing (Bartunov et al. 2018, sec. 2.2).

    W: (height, width, kernel pixels * in channels, out channels), a filter bank for each output position.
    """

    window: Window
    channels: int
    kernels: Kernels = PORTABLE

    in_shape = property(lambda self: self.window.in_shape)
    out_shape = property(lambda self: (*self.window.out_size, self.channels))
    weight_shape = property(lambda self: (*self.window.out_size, self.fan_in, self.channels))
    fan_in = property(lambda self: self.window.kernel[0] * self.window.kernel[1] * self.window.in_shape[2])
    fan_out = property(lambda self: self.window.kernel[0] * self.window.kernel[1] * self.channels)

    def apply(self, W: Array, x: Array) -> Array:
        """W, (N, *in_shape) -> (N, *out_shape)"""
        return self.kernels.local_apply(W, x, self.window)

    def transport(self, B: Array, u: Array) -> Array:
        """W, (N, *out_shape) -> (N, *in_shape)"""
        return self.kernels.local_transport(B, u, self.window)

    def correlate(self, x: Array, u: Array) -> Array:
        """(N, *in_shape), (N, *out_shape) -> W"""
        return self.kernels.local_correlate(x, u, self.window)

    def position_mean(self, sums: Array) -> Array:
        """No weight is shared: the sums themselves."""
        return sums

    def existing(self, W: Array) -> Array:
        """A window that overlaps the border has no weights there: 0, and their gradient is 0 too."""
        xp = array_namespace(W)
        rows, cols = (xp.astype(reads, W.dtype) for reads in self.window.pixels_read(W))
        (height, width), (kh, kw) = self.window.out_size, self.window.kernel
        inside = xp.reshape(rows, (height, 1, kh, 1)) * xp.reshape(cols, (1, width, 1, kw))
        each = xp.reshape(W, (height, width, kh, kw, -1, self.channels))
        return xp.reshape(each * inside[:, :, :, :, None, None], W.shape)


@dataclass(frozen=True)
class Transpose:
    """The map from outputs to inputs with weights in the same layout: W^T u = transport(W, u)."""

    linear: LinearMap

    in_shape = property(lambda self: self.linear.out_shape)
    out_shape = property(lambda self: self.linear.in_shape)
    weight_shape = property(lambda self: self.linear.weight_shape)
    kernels = property(lambda self: self.linear.kernels)
    fan_in = property(lambda self: self.linear.fan_out)
    fan_out = property(lambda self: self.linear.fan_in)

    def apply(self, W: Array, x: Array) -> Array:
        """W, (N, *in_shape) -> (N, *out_shape)"""
        return self.linear.transport(W, x)

    def transport(self, B: Array, u: Array) -> Array:
        """W, (N, *out_shape) -> (N, *in_shape)"""
        return self.linear.apply(B, u)

    def correlate(self, x: Array, u: Array) -> Array:
        """(N, *in_shape), (N, *out_shape) -> W"""
        return self.linear.correlate(u, x)

    def position_mean(self, sums: Array) -> Array:
        """As the map it transposes."""
        return self.linear.position_mean(sums)

    def existing(self, W: Array) -> Array:
        """As the map it transposes."""
        return self.linear.existing(W)


def dense(n_out: int) -> Part:
    """n_out units, each connected to every input."""

    def build(in_shape):
        if len(in_shape) != 1:
            raise ValueError(
                f"its input has shape {tuple(in_shape)}, expected (units,): end the layer below with `flatten`"
            )
        return Dense(in_shape[0], n_out)

    return Part(f"dense({n_out})", build)


def conv(channels: int, kernel: Pair, stride: Pair = 1, padding: Padding = "same") -> Part:
    """Convolution; for `padding` see windows.window."""
    name = f"conv({channels}, {shown(kernel)}{shown_options(stride, padding)})"
    return Part(name, lambda in_shape: Convolution(window(in_shape, kernel, stride, padding), channels))


def shared_conv(
    channels: int, kernel: Pair, images: Sequence[Shape], stride: Pair = 1, padding: Padding = "same"
) -> Part:
    """The same convolution of several images, (height, width, ...) each, whose `rows` stand one behind the other."""

    def build(in_shape):
        count = sum(map(pixels, images))
        if len(in_shape) != 2 or in_shape[0] != count:
            raise ValueError(f"its input has shape {tuple(in_shape)}, expected ({count}, channels): the images' pixels")
        windows = [window((*image[:2], in_shape[1]), kernel, stride, padding) for image in images]
        return SharedConvolution(tuple(windows), channels)

    name = f"shared_conv({channels}, {shown(kernel)}{shown_options(stride, padding)}, {len(images)} images)"
    return Part(name, build)


def locally_connected(channels: int, kernel: Pair, stride: Pair = 1, padding: Padding = "same") -> Part:
    """Convolution without weight sharing; for `padding` see windows.window."""
    name = f"locally_connected({channels}, {shown(kernel)}{shown_options(stride, padding)})"
    return Part(name, lambda in_shape: LocalConnection(window(in_shape, kernel, stride, padding), channels))


def pixels(shape: Shape) -> int:
    """Of an image (height, width, ...)."""
    return shape[0] * shape[1]


def apart(x: Array, shapes: Sequence[Shape]) -> list[Array]:
    """The images (N, *shape) whose pixels stand one behind the other in x (N, pixels, channels)."""
    xp, ends = array_namespace(x), accumulate(map(pixels, shapes), initial=0)
    parts = [x[:, start:end, :] for start, end in pairwise(ends)]
    return [xp.reshape(part, (x.shape[0], *shape)) for part, shape in zip(parts, shapes, strict=True)]


def together(images: Sequence[Array]) -> Array:
    """The adjoint of `apart`, and its inverse: the pixels of all images, (N, pixels, channels)."""
    xp = array_namespace(*images)
    return xp.concat([xp.reshape(image, (image.shape[0], -1, image.shape[-1])) for image in images], axis=1)


def mean_over_reads(sums: Array, windows: Sequence[Window]) -> Array:
    """A filter's sums over all windows -> means over those in which an entry reads a pixel, not padding."""
    xp = array_namespace(sums)
    sides = ([xp.sum(reads, axis=0, dtype=xp.int32) for reads in w.pixels_read(sums)] for w in windows)
    reads = sum(rows[:, None, None, None] * cols[None, :, None, None] for rows, cols in sides)
    return sums / xp.astype(xp.where(reads > 0, reads, xp.ones_like(reads)), sums.dtype)


def shown(kernel: Pair) -> str:
    """A kernel as "3x5"."""
    return "x".join(map(str, pair(kernel)))


def shown_options(stride: Pair, padding: Padding) -> str:
    """Stride and padding, where they are not 1 and "same"."""
    return ("" if pair(stride) == (1, 1) else f", stride {shown(stride)}") + (
        "" if padding == "same" else f", padding {padding}"
    )
