"""NumPy: eager, on the CPU. The reference."""

from collections.abc import Callable
from typing import Any

import array_api_compat.numpy as xp
import numpy as np

from ref_bioplaus.backends.base import Backend, BackendError
from ref_bioplaus.backends.numpy_ import kernels as numpy_kernels
from ref_bioplaus.tree import tree_map
from ref_bioplaus.types import Array


class NumpyBackend(Backend):
    """NumPy arrays."""

    name = "numpy"

    def asarray(self, array: Any, dtype: str | None = None) -> Array:
        """A copy in the dtype asked for, or the array itself where it is that already."""
        array = np.asarray(array)
        return np.asarray(array, dtype=self.target_dtype(array, dtype))

    def to_numpy(self, array: Array) -> np.ndarray:
        """The array itself."""
        return np.asarray(array)

    def native_kernels(self):
        """Blocks that stay in the cache, products by BLAS, and results in memory that is used again."""
        return numpy_kernels.native()

    def eager(self, step: Callable):
        """NumPy turns arrays () into scalars: here they stay arrays."""

        def run(*arguments):
            return tree_map(np.asanyarray, step(*arguments))

        return run


def backend(
    device: str | None = None, dtype: str = "float32", precision: str = "ieee", kernels: str = "portable"
) -> NumpyBackend:
    """NumPy. Raises BackendError for a device that is not the CPU."""
    if device not in (None, "cpu"):
        raise BackendError(f'backend "numpy": device "{device}" is not there: choose "cpu"')
    return NumpyBackend(xp, "cpu", dtype, precision, kernels)
