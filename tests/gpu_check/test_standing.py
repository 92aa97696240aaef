"""CuPy's whole backend on what stands for CuPy, under CuPy's rules where these are not NumPy's."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from ref_bioplaus import backends
from tests.gpu_check.product import ARCHITECTURES, GENERATED
from tests.helpers import ROOT, standing_cupy

STANDING = ROOT / "tests" / "gpu_check" / "standing"


def answered(**environment):
    """What the program says."""
    if standing_cupy.COMPILER is None:
        pytest.skip("there is no C compiler")
    path = os.pathsep.join(map(str, (STANDING, ROOT)))
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu_check.on_standing"], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def answers():
    return answered()


def test_every_row_and_architecture_steps_as_on_numpy(answers):
    assert {case.partition("/")[0] for case in answers["steps"]} >= {"backprop", "sdtp", "weight-mirror"}
    assert {case.split("/")[1] for case in answers["steps"]} == {*ARCHITECTURES, GENERATED[1]}
    assert {case: found for case, found in answers["steps"].items() if found} == {}


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("a function of NumPy's", "Implicit conversion to a NumPy array is not allowed"),
        ("an array of NumPy's", "Unsupported type <class 'numpy.ndarray'>"),
        ("a sum by NumPy", "numpy.sum was called with an array of CuPy's"),
        ("a number that is asked for", "a step asked for a Python value: float at on_standing.py:"),
        ("a decision", "a step asked for a Python value: bool at on_standing.py:"),
        ("out", "nothing is written to `out` here"),
        ("an index", "list indices must be integers"),
        ("a function that CuPy lacks", "has no attribute 'vecdot'"),
        ("another dtype", "dtype float32, expected float64"),
        ("a fused number", "a number made of numbers alone meets a number of Python's"),
    ],
)
def test_what_cupy_does_not_do_as_numpy_is_found(answers, fault, sentence):
    assert any(sentence in one for one in answers["faults"][fault]), answers["faults"][fault]


def test_cupy_without_a_device_leaves_everything_else_as_it_is():
    """As on any machine without a GPU where it is installed: the demo says why, and takes the others."""
    found = answered(NO_GPU="1")
    reason = "found no NVIDIA GPU (cudaErrorNoDevice: no CUDA-capable device is detected): choose numpy, torch or jax"
    assert found["said"] == f'backend "cupy" {reason}'
    assert found["left_out"]["cupy"] == found["said"]
    others = [name for name in backends.installed() if name not in ("cupy", "array-api-strict")]
    assert found["demo"] == others
    assert [line[0] for line in found["list"]] == list(backends.names())
    assert {line[0]: line[1] for line in found["list"]}["cupy"] == "installed"


def test_the_stand_in_lacks_what_cupy_lacks():
    """NumPy's names, by the CuPy that is installed: nothing of ours may find more in the stand-in."""
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed: pip install -e .[gpu-check]")
    told = "cupy.LACKING, cupy.LACKING_LINALG, cupy.LACKING_IN_ARRAYS, cupy.__all__"
    code = f"import cupy, json; print(json.dumps([{told}]))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(STANDING)}
    )
    lacking, linalg, in_arrays, offered = json.loads(done.stdout)
    import cupy

    assert [name for name in lacking if hasattr(cupy, name)] == []
    assert [name for name in linalg if hasattr(cupy.linalg, name)] == []
    assert [name for name in in_arrays if hasattr(cupy.ndarray, name)] == []
    functions = [name for name in offered if isinstance(getattr(np, name), np.ufunc)]
    assert [name for name in functions if not hasattr(cupy, name)] == []
