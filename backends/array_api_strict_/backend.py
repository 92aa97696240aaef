"""array-api-strict: the standard itself, refusing whatever it does not promise. A checker, slow by design."""

from typing import Any

import array_api_strict as xp
import numpy as np

from ref_bioplaus.backends.base import Backend, BackendError
from ref_bioplaus.types import Array


class ArrayApiStrictBackend(Backend):
    """array-api-strict arrays."""

    name = "array-api-strict"

    def asarray(self, array: Any, dtype: str | None = None) -> Array:
        """A copy."""
        array = np.asarray(array)
        return xp.asarray(array, dtype=getattr(xp, self.target_dtype(array, dtype)), device=self.device)

    def to_numpy(self, array: Array) -> np.ndarray:
        """A copy on the host."""
        return np.asarray(array)


def backend(
    device: str | None = None, dtype: str = "float32", precision: str = "ieee", kernels: str = "portable"
) -> ArrayApiStrictBackend:
    """array-api-strict. Raises BackendError for a device that is not the CPU."""
    if device not in (None, "cpu"):
        raise BackendError(f'backend "array-api-strict": device "{device}" is not there: choose "cpu"')
    return ArrayApiStrictBackend(xp, xp.Device("CPU_DEVICE"), dtype, precision, kernels)
