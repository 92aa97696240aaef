"""CuPy's kernels compiled by NVRTC without a driver, and what is reached in its namespace."""

import ast

import pytest

cupy = pytest.importorskip("cupy", reason="CuPy is not installed: pip install -e .[gpu-check]", exc_type=ImportError)
for needed in ("nvidia.cuda_nvrtc", "nvidia.cuda_runtime"):
    pytest.importorskip(needed, reason=f"{needed} is not installed: pip install -e .[gpu-check]")

from tests.gpu_check import cupy_compiled, namespace  # noqa: E402

TASKS = cupy_compiled.tasks()
COVERING = [
    *(f"elementwise, {layout}/{dtype}/sm_90" for layout in cupy_compiled.LAYOUTS for dtype in cupy_compiled.DTYPES),
    *(f"elementwise, in one row/float32/{architecture}" for architecture in ("sm_80", "sm_100")),
    *(f"fused, {kinds}/{dtype}/sm_90" for kinds, dtype in (("nnn", "float32"), ("000", "float64"), ("0n0", "float32"))),
    "namespace",
]


@pytest.mark.parametrize("task", COVERING)
def test_nothing_is_wrong(task):
    if task not in TASKS and "sm_100" in task:
        pytest.skip("this NVRTC does not know sm_100")
    assert TASKS[task]() == []


def test_every_kernel_that_is_built_is_called():
    called = {kernel.name for kernel, _ in cupy_compiled.calls("float32")}
    assert called == cupy_compiled.built()
    assert len(called) == 15


def kernel_with(body, *arguments):
    """What NVRTC says of y from x."""
    kernel = cupy.ElementwiseKernel("T x", "T y", body, "wrong")
    given = arguments or (cupy_compiled.unallocated((3,), "float32"),)
    return cupy_compiled.compiled(cupy_compiled.source(kernel, given, "float32", "in one row"), "sm_90")


def test_what_does_not_compile_is_found(monkeypatch):
    assert kernel_with("y = tanh(x)") == ""
    assert 'identifier "no_such_function" is undefined' in kernel_with("y = no_such_function(x)")
    assert "error" in kernel_with("y = x[0]")  # x is not raw
    assert "warning" in kernel_with("int unused = 1; y = x")
    monkeypatch.setitem(cupy_compiled.FORWARD, next(iter(cupy_compiled.FORWARD)), "y = tanh(z)")
    found = cupy_compiled.elementwise("float32", "sm_90", "in one row")
    assert any('identifier "z" is undefined' in one for one in found), found


def test_fused_functions_that_cupy_cannot_trace_or_that_widen_are_found(monkeypatch):
    def asks(p, g, v, keep, eta, momentum):
        return (p if p > 0 else g), v

    def widens(p, g, v, keep, eta, momentum):
        return p.astype("float64"), v

    monkeypatch.setattr(cupy_compiled.cupy_kernels, "momentum_step", asks)
    with pytest.raises(Exception, match=r"."):
        cupy_compiled.fusions("float32", "sm_90", "nnn")
    monkeypatch.setattr(cupy_compiled.cupy_kernels, "momentum_step", widens)
    assert "widens of float32 gives float64" in cupy_compiled.fusions("float32", "sm_90", "nnn")


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("xp.no_such_function(x)", "a.py:1: cupy has no no_such_function"),
        ("xp.linalg.no_such_function(x)", "a.py:1: cupy has no linalg.no_such_function"),
        ("xp.concatenate([a], axis=0, no=1)", "got an unexpected keyword argument 'no'"),
        ("xp.concatenate()", "missing a required argument"),
        ("xp.sqrt(x, y, z)", "a.py:1: sqrt is a ufunc of 1 arguments"),
        ("xp.sqrt(x, axis=0)", "a.py:1: sqrt is a ufunc of 1 arguments"),
        ("xp.sqrt(x)", ""),
        ("xp.concatenate([a], axis=0)", ""),
        ("array_namespace(x, y).sqrt(x, y, z)", "sqrt is a ufunc"),
        ("hasattr(xp, 'vecdot') and xp.vecdot(x, y)", ""),
    ],
)
def test_what_is_not_there_is_found(code, sentence, tmp_path):
    file = tmp_path / "a.py"
    file.write_text(code)
    assert ast.parse(code)
    found = [said for use in namespace.uses(file, ("xp", "array_namespace")) if (said := namespace.wrong(use, cupy))]
    assert (sentence in found[0] and len(found) == 1) if sentence else found == []


def test_uses_are_found_in_our_code():
    names = {use.name for use, _ in namespace.every()}
    assert {"ElementwiseKernel", "lib.stride_tricks.as_strided", "cuda.runtime.getDeviceCount", "matmul"} <= names
    assert len(names) > 80
