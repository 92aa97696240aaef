"""CuPy: eager, on an NVIDIA GPU."""

from collections.abc import Callable
from typing import Any

import array_api_compat.cupy as xp
import cupy
import numpy as np

from ref_bioplaus.backends.base import Backend, BackendError
from ref_bioplaus.backends.cupy_ import kernels as cupy_kernels
from ref_bioplaus.backends.cupy_ import with_torch as cupy_torch
from ref_bioplaus.types import Array


class CupyBackend(Backend):
    """CuPy arrays."""

    name = "cupy"
    on_gpu = True  # it has no mode for determinism: its native kernels add nothing up in an order left to chance
    torch_convolutions = False

    def asarray(self, array: Any, dtype: str | None = None) -> Array:
        """An array on the device."""
        array = np.asarray(array)
        with self.device:
            return cupy.asarray(array, dtype=self.target_dtype(array, dtype))

    def to_numpy(self, array: Array) -> np.ndarray:
        """A NumPy array."""
        return cupy.asnumpy(array)

    def synchronize(self):
        """Wait for the GPU."""
        self.device.synchronize()

    def versions(self):
        """CuPy, CUDA and the device's name."""
        name = cupy.cuda.runtime.getDeviceProperties(self.device.id)["name"].decode()
        return {"cupy": cupy.__version__, "cuda": str(cupy.cuda.runtime.runtimeGetVersion()), "device": name}

    def free_bytes(self):
        """What CUDA says."""
        with self.device:
            return int(cupy.cuda.runtime.memGetInfo()[0])

    def peak_bytes(self):
        """What CuPy's memory pool holds, which gives nothing back by itself."""
        with self.device:
            return int(cupy.get_default_memory_pool().total_bytes())

    def native_kernels(self):
        """Products by cuBLAS, or convolutions by torch; the rest in fused kernels."""
        with self.device:
            return cupy_kernels.native(cupy, self.torch_convolutions)

    def eager(self, step: Callable):
        """The step, on this device."""

        def run(*arguments):
            with self.device:
                return step(*arguments)

        return run


class CupyTorchBackend(CupyBackend):
    """CuPy arrays, whose convolutions are torch's."""

    torch_convolutions = True


def with_torch(
    device: str | None = None, dtype: str = "float32", precision: str = "ieee", kernels: str = "native"
) -> CupyBackend:
    """CuPy with torch's convolutions: --backend ref_bioplaus.backends.cupy_.backend:with_torch.

    Raises BackendError where there is no such GPU, or no torch that sees it.
    """
    if not cupy_torch.available():
        raise BackendError('backend "cupy" with torch needs a torch that sees a GPU: install one, or choose cupy')
    return backend(device, dtype, precision, kernels, CupyTorchBackend)


def backend(
    device: str | None = None, dtype: str = "float32", precision: str = "ieee", kernels: str = "portable",
    kind: Any = CupyBackend,
) -> CupyBackend:  # fmt: skip
    """CuPy. Raises BackendError where there is no such GPU."""
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendError(f'backend "cupy" found no NVIDIA GPU ({error}): choose numpy, torch or jax') from error
    platform, _, index = (device or "cuda:0").partition(":")
    if platform not in ("cuda", "gpu") or not (index or "0").isdigit() or int(index or 0) >= count:
        raise BackendError(f'backend "cupy": device "{device}" is not there: choose cuda:0 to cuda:{count - 1}')
    return kind(xp, cupy.cuda.Device(int(index or 0)), dtype, precision, kernels)
