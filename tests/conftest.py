"""Fixtures: backends by name, and a NumPy whose arrays cannot be written to."""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # several test processes share the machine
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
import pytest

from ref_bioplaus import backends
from ref_bioplaus.backends.numpy_.backend import NumpyBackend


class ReadOnlyArray(np.ndarray):
    """An array, and whatever NumPy derives from it, that refuses to be changed."""

    def _refuse(self, *_):
        raise AssertionError("an array was written to in place")

    __setitem__ = __iadd__ = __isub__ = __imul__ = __itruediv__ = _refuse  # type: ignore[assignment]
    __ifloordiv__ = __ipow__ = __imatmul__ = __ixor__ = _refuse  # type: ignore[assignment]
    __iand__ = __ior__ = __ilshift__ = __irshift__ = _refuse  # type: ignore[assignment]


class ReadOnlyNumpyBackend(NumpyBackend):
    """NumPy on arrays that raise when they are written to."""

    name = "numpy, read-only"

    def asarray(self, array, dtype=None):
        array = np.array(super().asarray(array, dtype)).view(ReadOnlyArray)
        array.flags.writeable = False
        return array


def read_only(device=None, dtype="float32", precision="ieee", kernels="portable"):
    """The read-only backend, as a function that `backends.get` can load."""
    return ReadOnlyNumpyBackend(__import__("array_api_compat.numpy").numpy, "cpu", dtype, precision, kernels)


def get(name: str, dtype: str = "float64"):
    """A backend for tests; the test is skipped, with the reason, where its library is not installed."""
    if name == "read-only":
        return read_only(dtype=dtype)
    if name not in backends.installed():
        pytest.skip(f"{name} is not installed")
    return backends.get(name, dtype=dtype)


@pytest.fixture
def numpy64():
    """NumPy in float64."""
    return get("numpy")


@pytest.fixture(params=["numpy", "torch", "jax", "array-api-strict"])
def any_backend(request):
    """Every backend that a CPU can run, in float64."""
    return get(request.param)


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """The hub's client caches in a folder of the test, says nothing, and stays off the network."""
    import datasets as hf

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hf.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        patch.setattr(hf.config, "HF_HUB_OFFLINE", True)
        hf.disable_progress_bars()
        yield
        hf.enable_progress_bars()
