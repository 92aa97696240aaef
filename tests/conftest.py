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


SLOW = (  # parts of the names of tests that mostly wait for a compiler; their shorter neighbours always run
    ("test_backends", "float64_in_jax_leaves_float32"),
    ("test_backends", "mutates_nothing", "jax"),
    ("test_benchmarks", "W6-jax"),
    ("test_benchmarks", "W5-jax"),
    ("test_benchmarks", "dropout_drops[jax]"),
    ("test_conformance_native", "synapses-jax"),
    ("test_conformance_native", "steps", "jax"),
    ("test_conformance_mutants", "right_products", "tf32"),
    ("test_cross_backend", "weight-mirror", "ResNet", "jax"),
    ("test_cross_backend", "weight-mirror", "LC", "jax"),
    ("test_cross_backend", "weight-mirror", "conv", "jax"),
    ("test_cross_backend", "noise-gradient", "jax"),
    ("test_cross_backend", "sdtp-conv-jax"),
    ("test_cross_backend", "sdtp-LC-jax"),
    ("test_cross_backend", "[tp-conv-jax"),
    ("test_cross_backend", "[tp-LC-jax"),
    ("test_cross_backend", "kolen-pollack-ResNet", "jax"),
    ("test_cross_backend", "brsf-ResNet", "jax"),
    ("test_cross_backend", "frsf-ei-ResNet", "jax"),
    ("test_cross_backend", "constant-norm", "ResNet", "jax"),
    *(
        ("test_cross_backend", f"[{row}-ResNet, BN before", "jax")
        for row in ("sn", "usf", "frsf", "xiao", "dfa", "dense-fa")
    ),
    ("test_datasets", "resnet18", "jax"),
    ("test_generated_feedback", "learns", "ResNet", "jax"),
    ("test_generated_feedback", "learns", "conv", "jax"),
    ("test_gradients", "resnet50-jax"),
    ("test_jax_native", "conformance_of_the_kernels[bfloat16"),
    ("test_jax_native", "conformance_of_the_kernels[float32-bf16"),
    ("test_jax_native", "faces_of_windowed", "float64"),
    ("test_linear", "float32_stays", "jax"),
    ("test_new_rule", "one_command"),
    ("test_torch_native", "bit_by_bit", "ResNet"),
    ("test_training", "bit_for_bit", "jax-batch norm"),
    ("test_training", "bit_for_bit", "torch", "batch norm"),
    ("test_training", "bit_for_bit", "jax", "dtp"),
    ("test_training", "bit_for_bit", "jax", "dropout"),
    ("test_training", "bit_for_bit", "torch", "dropout"),
    ("test_training", "bit_for_bit", "torch", "schedule"),
    ("test_training", "bit_for_bit", "jax", "schedule"),
    ("test_training", "bit_for_bit", "jax", "mirror"),
    ("test_training", "bit_for_bit", "torch", "mirror"),
    ("test_training", "the_example", "torch"),
    ("test_training", "the_example", "jax"),
)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests, too, that mostly wait for a compiler")


def pytest_collection_modifyitems(config, items):
    """Without --slow leave out what is named in SLOW."""
    if config.getoption("--slow"):
        return
    slow = [item for item in items if any(all(part in item.nodeid for part in parts) for parts in SLOW)]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in set(slow)]
