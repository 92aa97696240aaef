"""Convolutions of CuPy arrays by PyTorch, that is cuDNN: arrays go there and back by DLPack, which copies nothing.

It has been run on arrays of NumPy and torch on a CPU only, never on a GPU. CuPy and torch both work on CUDA's default
stream unless told otherwise, and DLPack orders the work of different streams.
"""

from collections.abc import Callable
from typing import Any

from ref_bioplaus.types import Array
from ref_bioplaus.windows import Window


class TorchConvolutions:
    """The three faces of a convolution. xp: cupy, or numpy in tests. Products are float32's own, never TF32."""

    def __init__(self, xp: Any):
        import torch

        from ref_bioplaus.backends.torch_ import backend, products

        self.xp, self.torch = xp, torch
        self.products, self.products_in = products, backend.products_in

    def call(self, function: Callable, a: Array, b: Array, window: Window):
        """A function of two tensors and a window on two arrays."""
        a, b = self.torch.from_dlpack(a), self.torch.from_dlpack(b)
        with self.torch.no_grad(), self.products_in("ieee", a.device.type):
            found = function(a, b, window)
            return self.xp.from_dlpack(found.contiguous())

    def conv_apply(self, W: Array, x: Array, window: Window):
        """u: every window's pixels times the one filter bank."""
        return self.call(self.products.conv_apply, W, x, window)

    def conv_transport(self, B: Array, u: Array, window: Window):
        """x: the exact transpose of conv_apply."""
        return self.call(self.products.conv_transport, B, u, window)

    def conv_correlate(self, x: Array, u: Array, window: Window):
        """W: the sum over samples and windows of pixel times signal."""
        return self.call(self.products.conv_correlate, x, u, window)


def available() -> bool:
    """Whether torch is installed and sees a GPU."""
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()
