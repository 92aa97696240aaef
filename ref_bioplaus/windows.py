"""Sliding windows over images, and their adjoint. Images are (N, height, width, channels).

The standard has no padding, no strided views and no scatter: padding is a concatenation of constants, a window's entry
is a strided slice, and the adjoint is a sum of shifted arrays in a fixed order, so it is deterministic everywhere.
"""

from dataclasses import dataclass
from math import ceil

from array_api_compat import array_namespace, device

from .types import Array

Pair = int | tuple[int, int]
Padding = str | int | tuple[int, int]


@dataclass(frozen=True)
class Window:
    """Where a window of kernel[0] x kernel[1] pixels stands on an image: at every stride, after padding."""

    in_shape: tuple[int, int, int]  # height, width, channels
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]  # (top, bottom), (left, right)

    @property
    def out_size(self) -> tuple[int, int]:
        """Height and width of the array of windows."""
        sizes = zip(self.in_shape[:2], self.kernel, self.stride, self.padding, strict=True)
        height, width = ((n + before + after - k) // s + 1 for n, k, s, (before, after) in sizes)
        return height, width

    def pixels_read(self, like: Array) -> tuple[Array, Array]:
        """Along height and width, for every window and every entry of its kernel: 1 for a pixel, 0 for padding.

        int32 (height, kernel height) and (width, kernel width), made where the array `like` is.
        """
        xp, where = array_namespace(like), device(like)

        def reads(n, k, s, before, m):
            first, entry = (xp.arange(stop, dtype=xp.int32, device=where) for stop in (m, k))
            pixel = s * first[:, None] + entry[None, :] - before
            return xp.astype((pixel >= 0) & (pixel < n), xp.int32)

        axes = zip(self.in_shape[:2], self.kernel, self.stride, self.padding, self.out_size, strict=True)
        rows, cols = (reads(n, k, s, before, m) for n, k, s, (before, _), m in axes)
        return rows, cols


def window(in_shape: tuple[int, ...], kernel: Pair, stride: Pair = 1, padding: Padding = "same") -> Window:
    """The windows of `kernel` pixels on images of `in_shape`.

    padding: "same" as TensorFlow defines it (ceil(n / stride) windows, the odd pixel after), "valid" for none, or the
    number of pixels on every side (or a pair: above and below, left and right).
    Raises ValueError where in_shape is not (height, width, channels) or no window fits.
    """
    if len(in_shape) != 3:
        raise ValueError(f"its input has shape {tuple(in_shape)}, expected (height, width, channels)")
    kernel, stride = pair(kernel), pair(stride)
    if min(kernel) < 1 or min(stride) < 1:
        raise ValueError(f"kernel {kernel} and stride {stride} must be at least 1")
    if padding == "same":
        sides = [same_padding(n, k, s) for n, k, s in zip(in_shape[:2], kernel, stride, strict=True)]
    elif padding == "valid":
        sides = [(0, 0), (0, 0)]
    elif isinstance(padding, str):
        raise ValueError(f'padding "{padding}" is unknown, expected "same", "valid", a number or a pair of numbers')
    else:
        sides = [(p, p) for p in pair(padding)]
    geometry = Window((in_shape[0], in_shape[1], in_shape[2]), kernel, stride, (sides[0], sides[1]))
    if min(geometry.out_size) < 1:
        size = f"{in_shape[0]}x{in_shape[1]}"
        raise ValueError(f"a kernel of {kernel[0]}x{kernel[1]} does not fit its input of {size} with padding {padding}")
    return geometry


def pair(value: Pair) -> tuple[int, int]:
    """(value, value) for a number; a pair as it is."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def same_padding(n: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and after, as TensorFlow's SAME puts them."""
    total = max((ceil(n / stride) - 1) * stride + kernel - n, 0)
    return total // 2, total - total // 2


def patches(x: Array, window: Window, fill: float = 0.0) -> Array:
    """The pixels of every window: (N, H, W, C) -> (N, height, width, kernel pixels, C), padded with `fill`."""
    (height, width), (sh, sw), (kh, kw) = window.out_size, window.stride, window.kernel
    (top, bottom), (left, right) = window.padding
    x = pad(pad(x, 1, top, bottom, fill), 2, left, right, fill)
    entries = [
        x[:, i : i + sh * (height - 1) + 1 : sh, j : j + sw * (width - 1) + 1 : sw, :]
        for i in range(kh)
        for j in range(kw)
    ]
    return array_namespace(x).stack(entries, axis=3)


def overlap_add(p: Array, window: Window) -> Array:
    """The adjoint of `patches`: every window's pixels added back in place, (N, height, width, K, C) -> (N, H, W, C)."""
    (H, W, _), (kh, kw) = window.in_shape, window.kernel
    (top, bottom), (left, right) = window.padding
    total: Array = None
    for i in range(kh):
        row = None
        for j in range(kw):
            entry = spread(p[:, :, :, i * kw + j, :], 2, window.stride[1], j, left + W + right)
            row = entry if row is None else row + entry
        row = spread(row, 1, window.stride[0], i, top + H + bottom)
        total = row if total is None else total + row
    return total[:, top : top + H, left : left + W, :]


def pad(x: Array, axis: int, before: int, after: int, fill: float = 0.0) -> Array:
    """x with `before` and `after` entries of `fill` along an axis."""
    xp = array_namespace(x)

    def side(n):
        shape = (*x.shape[:axis], n, *x.shape[axis + 1 :])
        return xp.full(shape, fill, dtype=x.dtype, device=device(x))

    parts = [side(before)] * (before > 0) + [x] + [side(after)] * (after > 0)
    return xp.concat(parts, axis=axis) if len(parts) > 1 else x


def spread(x: Array, axis: int, stride: int, offset: int, length: int) -> Array:
    """Zeros of `length` along an axis, with x's entries at offset, offset + stride, and so on."""
    xp = array_namespace(x)
    n = x.shape[axis]
    if stride > 1:
        x = pad(xp.expand_dims(x, axis=axis + 1), axis + 1, 0, stride - 1)
        x = xp.reshape(x, (*x.shape[:axis], n * stride, *x.shape[axis + 2 :]))
        span = (n - 1) * stride + 1
        x = x[(slice(None),) * axis + (slice(0, span),) + (slice(None),) * (x.ndim - axis - 1)]
        n = span
    return pad(x, axis, offset, length - offset - n)
