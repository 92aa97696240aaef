"""What stands for CuPy where there is no GPU: NumPy's numbers under CuPy's rules, wherever these are not NumPy's.

With this folder's parent on PYTHONPATH `import cupy` finds it, in the library, its programs and array_api_compat:

- What has no axes is an array still, of a reduction, an index and a function of numbers' arrays.
- NumPy's arrays and CuPy's do not meet: not in an operation, not by np.asarray, not by a function of NumPy's.
- Asking an array for a Python value waits for the GPU; WAITED says who asked. An array is no index.
- Nothing is written to `out`.
- Elementwise kernels take dtypes as they are, write to whole arrays, and are compiled from the text (by a C compiler).
- Fused functions take arrays and numbers, know no `if`, and in some releases add no number to what was made of numbers
  and 0-d arrays alone (cupy#8536).

NO_GPU=1 in the environment: without a device, as CuPy is on any machine where it is installed.
"""

import operator
import os
import sys
import tempfile
import traceback
import types
from pathlib import Path
from typing import Any

import numpy as np

LACKING = [
    "asmatrix", "block", "bmat", "core", "datetime64", "einsum_path", "emath", "errstate", "frompyfunc", "geomspace",
    "getbufsize", "geterr", "info", "insert", "isnat", "ma", "matrix", "matvec", "memmap", "nanpercentile", "nditer",
    "ndenumerate", "object_", "polydiv", "rec", "recarray", "record", "seterr", "spacing", "str_", "strings",
    "timedelta64", "typecodes", "unstack", "vecdot", "vecmat", "void",
]  # of NumPy's names  # fmt: skip
LACKING_LINALG = [
    "diagonal", "matrix_norm", "multi_dot", "outer", "svdvals", "tensordot", "trace", "vecdot", "vector_norm",
]  # fmt: skip
LACKING_IN_ARRAYS = ["ctypes", "getfield", "resize", "setfield", "setflags", "to_device"]
WAITED: list[str] = []  # where an array was asked for a Python value
__version__ = "14.2.0+standing"
__all__ = [n for n in dir(np) if n[0] != "_" and n not in LACKING]


class ndarray:
    """An array of CuPy's on NumPy's memory."""

    __slots__ = ("own", "__weakref__")
    own: np.ndarray

    def __init__(self, own: Any):
        self.own = own if isinstance(own, np.ndarray) else np.asarray(own)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in LACKING_IN_ARRAYS:
            raise AttributeError(f"'cupy.ndarray' object has no attribute '{name}'")
        if name in ("item", "tolist"):
            waits(name)
            return getattr(self.own, name)
        found = getattr(self.own, name)
        if callable(found):
            return lambda *args, **options: called(found, *args, **options)
        return ndarray(found) if isinstance(found, np.ndarray) else found

    @property
    def device(self) -> "Device":
        """The one there is."""
        return Device(0)

    def get(self) -> np.ndarray:
        """A copy on the host, asked for by name."""
        return self.own.copy()

    def __array__(self, *args: Any, **options: Any) -> None:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    def __array_function__(self, function: Any, *_: Any) -> None:
        raise TypeError(f"numpy.{function.__name__} was called with an array of CuPy's")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__":
            raise TypeError(f"numpy.{ufunc.__name__}.{method} was called with an array of CuPy's")
        return called(ufunc, *inputs, **options)

    def __len__(self) -> int:
        return len(self.own)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> "ndarray":
        return ndarray(np.asarray(self.own[plain(index)]))

    def __setitem__(self, index: Any, value: Any) -> None:
        self.own[plain(index)] = plain(value)

    def __repr__(self) -> str:
        return f"cupy{self.own!r}"

    def __dlpack__(self, **options: Any) -> Any:
        return self.own.__dlpack__()

    def __dlpack_device__(self) -> tuple:
        return self.own.__dlpack_device__()

    __hash__ = None  # type: ignore[assignment]


def waits(what: str) -> None:
    """Note who asked an array for a Python value."""
    caller = next(f for f in reversed(traceback.extract_stack()) if Path(f.filename) != Path(__file__))
    WAITED.append(f"{what} at {Path(caller.filename).name}:{caller.lineno}")


def plain(value: Any) -> Any:
    """NumPy's arrays for CuPy's, in any tuple or list. Raises TypeError for an array of NumPy's."""
    if isinstance(value, ndarray):
        return value.own
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, tuple | list):
        return type(value)(map(plain, value))
    return value


def wrapped(value: Any) -> Any:
    """CuPy's arrays for NumPy's and for its numbers."""
    if isinstance(value, np.ndarray | np.generic):
        return ndarray(np.asarray(value))
    if isinstance(value, tuple | list):
        return (type(value)(*map(wrapped, value))) if hasattr(value, "_fields") else type(value)(map(wrapped, value))
    return value


def called(function: Any, *args: Any, **options: Any) -> Any:
    """A function of NumPy's on CuPy's arrays."""
    if options.pop("out", None) is not None:
        raise TypeError("nothing is written to `out` here")
    with np.errstate(all="ignore"):
        return wrapped(function(*map(plain, args), **{name: plain(value) for name, value in options.items()}))


def operators() -> None:
    """Give arrays NumPy's operators, and what asks for a Python value."""
    arithmetic = [
        "add",
        "sub",
        "mul",
        "truediv",
        "floordiv",
        "mod",
        "pow",
        "matmul",
        "and",
        "or",
        "xor",
        "lshift",
        "rshift",
    ]
    names = [f"__{side}{name}__" for name in arithmetic for side in ("", "r")]
    names += [f"__{name}__" for name in ["lt", "le", "eq", "ne", "gt", "ge", "neg", "pos", "abs", "invert"]]

    def calculating(name):
        return lambda self, *others: called(getattr(np.ndarray, name), self, *map(strict, others))

    def in_place(name):
        def change(self, other):
            self.own = getattr(np.ndarray, name)(self.own, plain(other))
            return self

        return change

    def asking(name, of):
        def ask(self):
            waits(name)
            return of(self.own)

        return ask

    for name in names:
        setattr(ndarray, name, calculating(name))
    for name in ("add", "sub", "mul", "truediv", "pow", "and", "or", "xor"):
        setattr(ndarray, f"__i{name}__", in_place(f"__i{name}__"))
    for name, of in (("bool", bool), ("int", int), ("float", float)):
        setattr(ndarray, f"__{name}__", asking(name, of))


def strict(other: Any) -> Any:
    """What an operator may be given."""
    if isinstance(other, np.ndarray):
        raise TypeError(f"Unsupported type {type(other)}")
    return other


def asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False) -> ndarray:
    """An array on the device, of a host's too."""
    return ndarray(np.array(hosts(a), dtype=dtype, copy=copy, order=order or "C"))


def array(obj: Any, dtype: Any = None, copy: Any = True, order: str = "K", **options: Any) -> ndarray:
    """The same, and a copy unless said otherwise."""
    return ndarray(np.array(hosts(obj), dtype=dtype, copy=copy or None, order=order))


def hosts(value: Any) -> Any:
    """A host's array, or a list of arrays, as NumPy takes it."""
    if isinstance(value, tuple | list):
        return type(value)(map(hosts, value))
    return value.own if isinstance(value, ndarray) else value


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    """In one row; itself where it is."""
    found = np.ascontiguousarray(hosts(a), dtype) if hosts(a).ndim else hosts(a)
    return a if found is hosts(a) else ndarray(found)


def asnumpy(a: Any, *args: Any, **options: Any) -> np.ndarray:
    """A copy on the host."""
    return np.array(hosts(a))


def from_dlpack(x: Any, **options: Any) -> ndarray:
    """Another library's array."""
    return ndarray(np.from_dlpack(x))


def ElementwiseKernel(in_params: str, out_params: str, operation: str, name: str = "kernel", **options: Any) -> Any:
    """A kernel whose body a C compiler compiles; see tests/helpers/standing_cupy.py."""
    from tests.helpers import standing_cupy

    folder = Path(tempfile.gettempdir()) / f"standing_cupy-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    kernel = standing_cupy.cupy(folder).ElementwiseKernel(in_params, out_params, operation, name)
    return lambda *given: wrapped(kernel(*map(plain, given)))


class Traced:
    """A value inside of a fused function: an array's element, or a number made of numbers and 0-d arrays alone."""

    def __init__(self, value: Any, number: bool, made: bool = True):
        self.value, self.number, self.made = value, number, made

    def __bool__(self) -> bool:
        raise TypeError("a fused function has no `if`")


def traced(name: str, turned: bool) -> Any:
    """One operator of such values, or the same from the right."""
    function = getattr(operator, name)

    def apply(self, *others):
        numbers = [other for other in others if not isinstance(other, Traced)]
        if self.number and self.made and numbers:
            raise TypeError("a number made of numbers alone meets a number of Python's (cupy#8536)")
        values = [self.value, *(other.value if isinstance(other, Traced) else other for other in others)]
        number = self.number and all(other.number for other in others if isinstance(other, Traced))
        return Traced(function(*(reversed(values) if turned else values)), number)

    return apply


for _name in ("add", "sub", "mul", "truediv", "pow"):
    setattr(Traced, f"__{_name}__", traced(_name, False))
    setattr(Traced, f"__r{_name}__", traced(_name, True))
Traced.__neg__ = traced("neg", False)  # type: ignore[attr-defined]


def fuse(*args: Any, **options: Any) -> Any:
    """A function of arrays and numbers, element by element."""

    def decorate(function):
        def fused(*given):
            for value in given:
                if not isinstance(value, ndarray | np.generic | bool | int | float):
                    raise TypeError(f"Unsupported argument type {type(value)} of a fused function")
            results = function(*(Traced(v, getattr(v, "ndim", 0) == 0, made=False) for v in given))
            return tuple(r.value for r in results) if isinstance(results, tuple) else results.value

        return fused

    return decorate(args[0]) if args and callable(args[0]) else decorate


class CUDARuntimeError(RuntimeError):
    """What CuPy raises where CUDA fails."""


class Device:
    """The only one."""

    def __init__(self, device: Any = None):
        self.id = int(getattr(device, "id", device) or 0)

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def synchronize(self) -> None:
        """Nothing to wait for."""


def device_count() -> int:
    """One, or what CuPy says where there is none."""
    if os.environ.get("NO_GPU"):
        raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
    return 1


runtime = types.SimpleNamespace(
    CUDARuntimeError=CUDARuntimeError, getDeviceCount=device_count, runtimeGetVersion=lambda: 12090,
    getDeviceProperties=lambda number: {"name": b"NumPy under CuPy's rules"}, memGetInfo=lambda: (1 << 34, 1 << 34),
)  # fmt: skip
cuda: Any = types.ModuleType("cupy.cuda")
cuda.Device, cuda.runtime, cuda.is_available = Device, runtime, lambda: not os.environ.get("NO_GPU")
cuda.device = types.ModuleType("cupy.cuda.device")
cuda.device.Device = Device
sys.modules |= {"cupy.cuda": cuda, "cupy.cuda.device": cuda.device}
lib = types.SimpleNamespace(stride_tricks=types.SimpleNamespace(
    as_strided=lambda x, shape=None, strides=None: called(np.lib.stride_tricks.as_strided, x, shape, strides)
))  # fmt: skip


def get_default_memory_pool() -> Any:
    """The pool."""
    return types.SimpleNamespace(total_bytes=lambda: 0)


def of(module: Any, lacking: list[str]) -> Any:
    """A module's function by name, on CuPy's arrays."""

    def find(name):
        if name.startswith("__") or name in lacking or not hasattr(module, name):
            raise AttributeError(f"module 'cupy' has no attribute '{name}'")
        found = getattr(module, name)
        if isinstance(found, type) or not callable(found):
            return found
        return lambda *args, **options: called(found, *args, **options)

    return find


__getattr__ = of(np, LACKING)
for _name, _lacking in (("linalg", LACKING_LINALG), ("fft", [])):
    _module: Any = types.ModuleType(f"cupy.{_name}")
    _module.__getattr__ = of(getattr(np, _name), _lacking)
    _module.__all__ = [n for n in dir(getattr(np, _name)) if n[0] != "_" and n not in _lacking]
    sys.modules[f"cupy.{_name}"] = globals()[_name] = _module
operators()
