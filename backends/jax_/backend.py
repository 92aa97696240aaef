"""JAX: whole steps compiled, on a CPU, GPU or TPU."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as xp
import numpy as np
from jax import lax

from ref_bioplaus.backends.base import Backend, BackendError
from ref_bioplaus.backends.jax_.kernels import native_kernels
from ref_bioplaus.backends.ownership import Ownership
from ref_bioplaus.tree import leaves
from ref_bioplaus.types import Array

PRECISIONS = {"ieee": "highest", "tf32": "tensorfloat32", "bf16": "bfloat16"}


class JaxBackend(Backend):
    """JAX arrays."""

    name = "jax"
    dtypes = ("float32", "float64", "bfloat16")
    compiles = True

    def asarray(self, array: Any, dtype: str | None = None) -> Array:
        """An array on the device."""
        array = np.asarray(array)
        return jax.device_put(array.astype(xp.dtype(self.target_dtype(array, dtype))), self.device)

    def to_numpy(self, array: Array) -> np.ndarray:
        """A NumPy array; bfloat16 as float32."""
        return np.asarray(array.astype(xp.float32) if array.dtype == xp.bfloat16 else array)

    def synchronize(self):
        """Wait for every array that is still being computed."""
        for array in jax.live_arrays(self.device.platform):
            array.block_until_ready()

    def versions(self):
        """JAX and the device's kind."""
        return {"jax": jax.__version__, "device": self.device.device_kind}

    @property
    def on_gpu(self):
        """Whether the device is no CPU."""
        return self.device.platform != "cpu"

    def free_bytes(self):
        """What the device says, or the system."""
        if not self.on_gpu:
            return super().free_bytes()
        found = self.device.memory_stats() or {}
        return found["bytes_limit"] - found["bytes_in_use"] if "bytes_limit" in found else None

    def peak_bytes(self):
        """The most that JAX has given out on the device since the process began."""
        return (self.device.memory_stats() or {}).get("peak_bytes_in_use") if self.on_gpu else super().peak_bytes()

    def native_kernels(self):
        """JAX's forms for the device (see kernels.py)."""
        return native_kernels(self.device.platform, self.dtype, self.precision)

    def wrap(self, step: Callable):
        """The whole step under jit."""
        return self.jit(step)

    def wrap_donating(self, step: Callable):
        """The same, reusing the memory of its first argument, the state; key and batch stay."""
        run = self.jit(step, donate_argnums=0)

        def donating(state, key, batch, *, begin):
            try:
                return run(state, key, batch)
            except BaseException:
                if any(array.is_deleted() for array in leaves(state)):
                    begin()
                raise

        return donating

    def wrap_stacked(self, step: Callable, donating: bool):
        """A scan over the stack, as one program."""

        def scanned(state, key, batches):
            return lax.scan(lambda state, batch: step(state, key, batch), state, batches)

        return self.wrap_donating(scanned) if donating else self.wrap(scanned)

    @property
    def at_once(self):
        """On a GPU a small network's steps wait for their launch."""
        return 16 if self.on_gpu else 1

    def share_programs(self, folder: str):
        """JAX's persistent compilation cache, of everything; a folder that the user has named for it stays."""
        if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
            return
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

    def ownership(self):
        """JAX's arrays have no views that it does not know of itself."""
        return Ownership(lambda array: True, lambda array: xp.array(array, copy=True))

    def jit(self, step: Callable, **options: Any):
        """jit, with products in the backend's precision: set while tracing, so that a call costs nothing more.

        It runs where its arguments are: whatever the backend makes stays on its device.
        """

        def precise(*arguments):
            with jax.default_matmul_precision(PRECISIONS[self.precision]):
                return step(*arguments)

        return jax.jit(precise, **options)

    def eager(self, step: Callable):
        """Products have the backend's precision for as long as the step runs."""

        def run(*arguments):
            with jax.default_matmul_precision(PRECISIONS[self.precision]), jax.default_device(self.device):
                return step(*arguments)

        return run


def backend(
    device: str | None = None, dtype: str = "float32", precision: str = "ieee", kernels: str = "portable"
) -> JaxBackend:
    """JAX; device None is its default one. Raises BackendError for a device that is not there.

    float64 turns x64 on for the whole process, and nothing turns it off again: every array names its dtype, so that
    float32 runs do not change.
    """
    if dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    platform, _, index = (device or "").partition(":")
    try:
        devices = jax.devices(platform or None)
    except RuntimeError as error:
        there = ", ".join(sorted({d.platform for d in jax.devices()} | {"cpu"}))
        raise BackendError(f'backend "jax": device "{device}" is not there: choose one of {there}') from error
    if index and (not index.isdigit() or int(index) >= len(devices)):
        raise BackendError(f'backend "jax": device "{device}" is not there: choose {platform}:0 to :{len(devices) - 1}')
    return JaxBackend(xp, devices[int(index or 0)], dtype, precision, kernels)
