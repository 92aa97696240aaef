"""CuPy's own forms of the kernels: windows gathered in chunks and multiplied by cuBLAS, the rest in fused kernels.

None of the code here and in the two modules beside it was ever run on a GPU: nothing is known of its speed there. Tests
run its array logic on NumPy, and compile the bodies of elementwise kernels for a CPU. `each` stays portable: a loop in
Python is what CuPy, which traces nothing, would run in any case.
"""

import math
from typing import Any

from ref_bioplaus import kernels as portable
from ref_bioplaus.backends.cupy_.elementwise import Elementwise
from ref_bioplaus.backends.cupy_.with_torch import TorchConvolutions
from ref_bioplaus.kernels import PORTABLE, Kernels
from ref_bioplaus.types import Array
from ref_bioplaus.windows import Window, pad

COLUMNS = 1 << 28  # bytes of windows gathered for one product


class CupyKernels:
    """Kernels on a namespace: cupy, or numpy where the logic of the arrays is tested."""

    def __init__(self, xp: Any, columns: int = COLUMNS):
        self.xp, self.bytes = xp, columns
        fused = getattr(xp, "fuse", lambda: lambda function: function)()
        self.adam_step, self.momentum_step = fused(adam_step), fused(momentum_step)

    def windows(self, x: Array, window: Window):
        """(N, height, width, kernel height, kernel width, C), a view of the padded images."""
        (height, width), (kh, kw), (sh, sw) = window.out_size, window.kernel, window.stride
        x = self.xp.ascontiguousarray(pad(pad(x, 1, *window.padding[0]), 2, *window.padding[1]))
        n, row, pixel, number = x.strides
        shape = (x.shape[0], height, width, kh, kw, x.shape[3])
        return self.xp.lib.stride_tricks.as_strided(x, shape, (n, sh * row, sw * pixel, row, pixel, number))

    def samples(self, x: Array, window: Window) -> list[slice]:
        """Parts of the batch whose windows fill a chunk."""
        K = math.prod(window.out_size) * math.prod(window.kernel) * window.in_shape[2] * x.dtype.itemsize
        step = max(1, self.bytes // K)
        return [slice(n, min(n + step, x.shape[0])) for n in range(0, x.shape[0], step)]

    def conv_apply(self, W: Array, x: Array, window: Window):
        """u: every window's pixels times the one filter bank."""
        O = W.shape[3]
        u = self.xp.empty((x.shape[0], *window.out_size, O), dtype=x.dtype)
        F = W.reshape(-1, O)
        for part in self.samples(x, window):
            c = self.windows(x[part], window).reshape(-1, len(F))
            u[part] = (c @ F).reshape(-1, *window.out_size, O)
        return u

    def conv_transport(self, B: Array, u: Array, window: Window):
        """x: the exact transpose of conv_apply."""
        F = B.reshape(-1, B.shape[3]).T
        return self.overlap_add(lambda u: u.reshape(-1, B.shape[3]) @ F, u, window)

    def overlap_add(self, pixels: Array, u: Array, window: Window):
        """x from each window's pixels, pixels(signals of some samples), added back in place."""
        (H, W, C), (kh, kw) = window.in_shape, window.kernel
        (top, bottom), (left, right) = window.padding
        x = self.xp.zeros((u.shape[0], top + H + bottom, left + W + right, C), dtype=u.dtype)
        for part in self.samples(u, window):
            p = pixels(u[part]).reshape(-1, *window.out_size, kh, kw, C)
            for i in range(kh):
                for j in range(kw):
                    rows, columns = entry_pixels(window, i, j)
                    x[part, rows, columns] += p[:, :, :, i, j]
        return x[:, top : top + H, left : left + W]

    def conv_correlate(self, x: Array, u: Array, window: Window):
        """W: the sum over chunks of the pixels' transpose times the signal."""
        K, O = math.prod(window.kernel) * window.in_shape[2], u.shape[3]
        W = self.xp.zeros((K, O), dtype=x.dtype)
        for part in self.samples(x, window):
            W += self.windows(x[part], window).reshape(-1, K).T @ u[part].reshape(-1, O)
        return W.reshape(*window.kernel, window.in_shape[2], O)

    # Local connection: one product per window, in one call for all of a chunk's

    def local_apply(self, W: Array, x: Array, window: Window):
        """u: every window's pixels times that window's own filter bank."""
        parts = [self.windows_first(x[part], window) @ W for part in self.samples(x, window)]
        return self.xp.concatenate([p.transpose(2, 0, 1, 3) for p in parts])

    def local_transport(self, B: Array, u: Array, window: Window):
        """x: the exact transpose of local_apply."""

        def pixels(u):
            p = u.transpose(1, 2, 0, 3) @ B.swapaxes(2, 3)
            return p.transpose(2, 0, 1, 3)

        return self.overlap_add(pixels, u, window)

    def local_correlate(self, x: Array, u: Array, window: Window):
        """W: the sum over samples of pixel times signal, window by window."""
        W = self.xp.zeros((*window.out_size, math.prod(window.kernel) * window.in_shape[2], u.shape[3]), dtype=x.dtype)
        for part in self.samples(x, window):
            W += self.windows_first(x[part], window).swapaxes(2, 3) @ u[part].transpose(1, 2, 0, 3)
        return W

    def windows_first(self, x: Array, window: Window):
        """The pixels of every window, (height, width, N, kernel pixels * C)."""
        windows = self.windows(x, window).transpose(1, 2, 0, 3, 4, 5)
        return windows.reshape(*windows.shape[:3], -1)

    # Optimizers

    def sgd(self, p: list, g: list, v: list, keep: list, eta: float | Array, momentum: float, nesterov: bool):
        """v <- momentum v + g;  p <- keep p - eta v, or keep p - eta (g + momentum v) with Nesterov's."""
        if not momentum or nesterov:
            return portable.sgd(p, g, v, keep, eta, momentum, nesterov)
        moved = [self.momentum_step(*arrays, eta, momentum) for arrays in zip(p, g, v, keep, strict=True)]
        new_p, new_v = zip(*moved, strict=True)
        return list(new_p), list(new_v)

    def adam(
        self, p: list, g: list, m: list, v: list, keep: list, eta: float | Array, correction: tuple, b1: float,
        b2: float, epsilon: float, form: str,
    ):  # fmt: skip
        """m, v <- moving averages of g, g^2;  p <- keep p - eta m_hat / (sqrt(v_hat) + epsilon), or the "hat" form."""
        c1, c2 = correction
        root = self.xp.sqrt(c2)
        size, scale = (eta / c1, 1.0 / root) if form == "paper" else (eta * root / c1, 1.0)
        moved = [
            self.adam_step(*arrays, size, scale, b1, 1.0 - b1, b2, 1.0 - b2, epsilon)
            for arrays in zip(p, g, m, v, keep, strict=True)
        ]
        new_p, new_m, new_v = zip(*moved, strict=True)
        return list(new_p), list(new_m), list(new_v)


def entry_pixels(window: Window, i: int, j: int) -> tuple[slice, slice]:
    """The rows and columns of padded images that entry (i, j) of the windows reads."""
    (height, width), (sh, sw) = window.out_size, window.stride
    return slice(i, i + sh * (height - 1) + 1, sh), slice(j, j + sw * (width - 1) + 1, sw)


def momentum_step(p: Array, g: Array, v: Array, keep: Array, eta: float | Array, momentum: float):
    """One tensor's gradient descent with momentum: new p and v."""
    v = momentum * v + g
    return keep * p - eta * v, v


def adam_step(
    p: Array, g: Array, m: Array, v: Array, keep: Array, size: float | Array, scale: float | Array, b1: float,
    rest1: float | Array, b2: float, rest2: float | Array, epsilon: float,
):  # fmt: skip
    """One tensor's step of Adam: new p, m and v. The square root is v ** 0.5: the same function on any namespace."""
    m = b1 * m + rest1 * g
    v = b2 * v + rest2 * (g * g)
    return keep * p - size * m / (scale * v**0.5 + epsilon), m, v


def native(xp: Any, torch_convolutions: bool = False) -> Kernels:
    """CuPy's kernels; what CuPy has no better form of is portable. torch_convolutions: see cupy_torch."""
    parts: list[Any] = [CupyKernels(xp), Elementwise(xp)] + ([TorchConvolutions(xp)] if torch_convolutions else [])
    own: dict[str, Any] = {"name": "native"}
    for part in parts:
        own |= {name: getattr(part, name) for name in Kernels._fields if hasattr(part, name)}
    return PORTABLE._replace(**own)
