"""CuPy's kernels compiled by NVRTC without a driver, from the source that CuPy makes of them; and its namespace.

CuPy's arrays can be made without a GPU where they are given memory that is never touched: `unallocated`. With them our
code calls its elementwise kernels, whose arguments say what source CuPy makes, and CuPy traces its fused functions.
What is launched, and what it computes, is not seen here: standing/ runs the calls on NumPy.
"""

import ctypes
import importlib.util
import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cupy
import numpy as np
from cupy._core import _carray, _kernel

from ref_bioplaus import local
from ref_bioplaus.backends.cupy_ import kernels as cupy_kernels
from ref_bioplaus.backends.cupy_.elementwise import FORWARD, Elementwise
from ref_bioplaus.windows import window
from tests.gpu_check import namespace

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
DTYPES = ("float32", "float64")
INCLUDE = Path(cupy.__file__).parent / "_core" / "include"
HEADERS = "".join(
    f"#include <cupy/{name}>\n" for name in ("complex.cuh", "carray.cuh", "atomics.cuh", "math_constants.h")
)
OPTIONS = ("--std=c++17", "-default-device", f"-I{INCLUDE}") + tuple(
    f"-I{INCLUDE}/cupy/_cccl/{part}" for part in ("cub", "libcudacxx", "thrust")
)  # as CuPy calls it, but for CUDA's own headers
ARRAY, INDEXER, SCALAR = 1, 2, 3  # CuPy's kinds of arguments
LAYOUTS = {"in one row": (1, True), "in any order": (4, False)}  # axes that are left, and whether they are contiguous


def installed(package: str) -> Path:
    """The folder of one of NVIDIA's packages. Raises ImportError where it is not installed."""
    found = importlib.util.find_spec("nvidia") and importlib.util.find_spec(f"nvidia.{package}")
    if not found:
        raise ImportError(f"nvidia.{package} is not installed")
    return Path(list(found.submodule_search_locations or ())[0])


def nvrtc() -> Any:
    """NVRTC as CuPy calls it. Raises ImportError where it is not installed."""
    for file in installed("cuda_nvrtc").glob("lib/libnvrtc.so.*"):
        ctypes.CDLL(str(file), ctypes.RTLD_GLOBAL)  # where no search path has it
    from cupy_backends.cuda.libs import nvrtc

    return nvrtc


def unallocated(shape: tuple[int, ...], dtype: Any) -> Any:
    """A CuPy array whose memory must not be touched."""
    size = max(int(np.prod(shape)), 1) * np.dtype(dtype).itemsize
    memory = cupy.cuda.memory.UnownedMemory(4096, size, None, 0)
    return cupy.ndarray(shape, dtype, cupy.cuda.memory.MemoryPointer(memory, 0))


class Noted:
    """An ElementwiseKernel of CuPy's that notes what it is called with."""

    called: list[tuple[Any, tuple]]  # of all of a namespace

    def __init__(self, called: list, *given: Any):
        self.called, self.kernel = called, cupy.ElementwiseKernel(*given)

    def __call__(self, *arguments: Any) -> Any:
        kernel = self.kernel
        assert len(arguments) in (kernel.nin, kernel.nargs), f"{kernel.name} takes {kernel.nin} or {kernel.nargs}"
        self.called.append((kernel, arguments))
        made = arguments[kernel.nin :] or tuple(arguments[-1] for _ in range(kernel.nout))
        return made if len(made) > 1 else made[0]


def calls(dtype: str) -> list[tuple[Any, tuple]]:
    """Every elementwise kernel that we build, and what our code calls it with for arrays of a dtype."""
    called: list[tuple[Any, tuple]] = []
    xp = SimpleNamespace(
        ElementwiseKernel=partial(Noted, called), int32=cupy.int32, uint32=cupy.uint32, ascontiguousarray=lambda x: x,
        empty=unallocated,
    )  # fmt: skip
    own, image, w = Elementwise(xp), unallocated((2, 5, 4, 3), dtype), window((5, 4, 3), (3, 2), (2, 1), 1)
    for part in (*FORWARD, local.relu):
        op = part.build((5, 4, 3))
        own.activation(op, image)
        own.activation_backward(op, image, image)
    y, first = own.max_pool(image, w)
    own.max_pool_backward(first, y, w)
    per_channel = unallocated((3,), dtype)
    own.centre(image, per_channel)
    own.normalise(image, per_channel, per_channel, per_channel)
    own.batch_norm_error(image, image, per_channel, per_channel, per_channel)
    key, counter = unallocated((2,), "int32"), unallocated((7,), "int32")
    own.random_words(key, (3 << 32) + 5, 7)
    own.threefry(key, counter, counter)
    return called


def built() -> set[str]:
    """The names of all elementwise kernels that are built."""
    names: list[str] = []

    def kernel(*given):
        names.append(given[3])

    Elementwise(SimpleNamespace(ElementwiseKernel=kernel))
    return {*names}


def fused(dtype: str, kinds: str) -> Iterator[tuple[Any, tuple]]:
    """Our fused functions as CuPy traces them; kinds: of what may be a number ("n") or a 0-d array ("0"), for three."""
    a, either = unallocated((3, 2), dtype), {"n": 0.1, "0": unallocated((), dtype)}
    given = [either[kind] for kind in kinds]
    yield traced(cupy_kernels.momentum_step, a, a, a, *given[:2], 0.9)
    yield traced(cupy_kernels.adam_step, a, a, a, a, *given, 0.9, 0.1, 0.99, 0.01, 1e-8)


def traced(function: Callable, *arguments: Any) -> tuple[Any, tuple]:
    """A fused function's kernel, and what it is called with. Raises what CuPy raises where it cannot be fused."""
    fusion = cupy.fuse()(function)
    with suppress(cupy.cuda.runtime.CUDARuntimeError):  # it is traced, and would be launched now
        fusion(*arguments)
    ((kernel, _),) = fusion._memo.values()
    return kernel, arguments


def source(kernel: Any, arguments: tuple, dtype: str, layout: str) -> str:
    """The CUDA that CuPy makes of a kernel for such arguments."""
    ndim, contiguous = LAYOUTS[layout]
    infos = []
    for i, parameter in enumerate(kernel.params):
        of = np.dtype(parameter.dtype or dtype)
        scalar = i < len(arguments) and not isinstance(arguments[i], cupy.ndarray)
        if parameter.name == "_ind":
            infos.append((INDEXER, _carray.Indexer, None, ndim, True, True))
        elif scalar:
            infos.append((SCALAR, of.type, of, 0, True, True))
        elif parameter.raw:
            infos.append((ARRAY, cupy.ndarray, of, 1, True, True))
        else:
            infos.append((ARRAY, cupy.ndarray, of, ndim, contiguous, True))
    types = _kernel._TypeMap((("T", np.dtype(dtype)),))
    return _kernel._get_elementwise_kernel_code(
        tuple(_kernel._ArgInfo(*info) for info in infos), types, kernel.params, kernel.operation, kernel.name,
        kernel.preamble,
    )  # fmt: skip


def compiled(code: str, architecture: str) -> str:
    """What NVRTC says against a program: "" where it compiles without a word."""
    library = nvrtc()
    program = library.createProgram(HEADERS + code, "kernels.cu", (), ())
    try:
        headers = f"-I{installed('cuda_runtime') / 'include'}"
        library.compileProgram(program, (f"-arch={architecture}", headers, *OPTIONS))
    except library.NVRTCError:
        return library.getProgramLog(program) or "it does not compile"
    return library.getProgramLog(program).strip()


def elementwise(dtype: str, architecture: str, layout: str) -> list[str]:
    """What is wrong with the elementwise kernels."""
    every = {kernel.name: source(kernel, arguments, dtype, layout) for kernel, arguments in calls(dtype)}
    missing = [f"{name} was not called" for name in sorted(built() - every.keys())]
    said = compiled("\n".join(every.values()), architecture)
    return missing + [line for line in said.splitlines() if "error" in line or "warning" in line]


def fusions(dtype: str, architecture: str, kinds: str) -> list[str]:
    """What is wrong with the fused functions."""
    found = []
    for kernel, arguments in fused(dtype, kinds):
        others = {str(p.dtype) for p in kernel.out_params} - {dtype}
        found += [f"{kernel.name} of {dtype} gives {other}" for other in others]
        said = compiled(source(kernel, arguments, dtype, "in one row"), architecture)
        found += [f"{kernel.name}: {line}" for line in said.splitlines() if "error" in line]  # CuPy's own code warns
    return found


def tasks() -> dict[str, Callable[[], list[str]]]:
    """The whole product."""
    looks = {f"elementwise, {layout}": (elementwise, layout) for layout in LAYOUTS}
    looks |= {f"fused, {''.join(kinds)}": (fusions, "".join(kinds)) for kinds in itertools.product("n0", repeat=3)}
    known = {f"sm_{number}" for number in nvrtc().getSupportedArchs()}
    every = itertools.product(DTYPES, [name for name in ARCHITECTURES if name in known], looks.items())
    kernels = {f"{name}/{dtype}/{arch}": partial(look, dtype, arch, of) for dtype, arch, (name, (look, of)) in every}
    return kernels | {"namespace": namespace.findings}


def versions() -> dict[str, str]:
    """CuPy's and NVRTC's."""
    return {"cupy": cupy.__version__, "nvrtc": ".".join(map(str, nvrtc().getVersion()))}
