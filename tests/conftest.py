"""Fixtures: backends by name, and a NumPy whose arrays cannot be written to."""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # several test processes share the machine
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hashlib
import time
from importlib.util import find_spec

import numpy as np
import pytest

from ref_bioplaus import backends
from ref_bioplaus.backends.numpy_.backend import NumpyBackend
from ref_bioplaus.machine.environment import processor
from tests.helpers import ROOT

# What JAX has compiled is kept for the other worker and the next run: the same program, the same bits. A processor that
# lacks another's instructions has a folder of its own; `make clean` takes them away, and nothing depends on them.
KEPT = ROOT / ".pytest_cache" / f"jax-{hashlib.sha256(processor().encode()).hexdigest()[:8]}"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(KEPT))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")

# Where time is short: so many seconds, after which tests are skipped, and with which of them to begin.
SECONDS, TURN = float(os.environ.get("REF_BIOPLAUS_SECONDS", "inf")), int(os.environ.get("REF_BIOPLAUS_TURN", "0"))
BEGAN = time.monotonic()


def pytest_collection_modifyitems(items):
    first = 37 * TURN % max(1, len(items))
    items[:] = items[first:] + items[:first]


def pytest_runtest_setup(item):
    if time.monotonic() - BEGAN > SECONDS:
        pytest.skip(f"left for another turn: {SECONDS:.0f} seconds are over")


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


@pytest.fixture
def quick_compiler(monkeypatch):
    """JAX's compiler without most of its passes, here and in processes that the test starts: for tests of structure,
    resuming and sentences, which mostly wait for it. What was compiled so is forgotten: others see JAX as users do."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    if find_spec("jax") is None:
        yield
        return
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()
