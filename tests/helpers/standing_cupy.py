"""What stands for CuPy where there is no GPU: NumPy, and elementwise kernels whose bodies a C compiler compiles.

It checks what C and CUDA share: the bodies, their arguments, broadcasting, dtypes. A call takes what CuPy's takes: the
inputs and, last, the outputs, which are allocated where they are not given; the size comes from what is not raw.
"""

import ctypes
import hashlib
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np

C_TYPES = {"int32": "int", "uint32": "unsigned int", "float32": "float", "float64": "double"}
COMPILER = shutil.which("gcc") or shutil.which("cc")


def cupy(folder: Path) -> SimpleNamespace:
    """NumPy with ElementwiseKernel, compiling into a folder."""

    class ElementwiseKernel:
        def __init__(self, in_params: str, out_params: str, operation: str, name: str):
            self.inputs, self.outputs = parameters(in_params), parameters(out_params)
            self.operation, self.name, self.compiled = operation, name, {}

        def __call__(self, *arguments):
            given = dict(zip([*self.inputs, *self.outputs], arguments, strict=False))
            assert len(arguments) in (len(self.inputs), len(self.inputs) + len(self.outputs)), self.name
            kinds = self.inputs | self.outputs
            (T,) = {
                a.dtype.name for name, a in given.items() if kinds[name][1] == "T" and isinstance(a, np.ndarray)
            } or {"int32"}
            arrays = [a for name, a in given.items() if not kinds[name][0]]
            shape = np.broadcast_shapes(*(np.shape(a) for a in arrays))
            values = {}
            for name, (raw, kind) in kinds.items():
                dtype = np.dtype(T if kind == "T" else kind)
                if name not in given:
                    given[name] = np.empty(shape, dtype)
                value = given[name]
                if isinstance(value, np.ndarray):
                    assert value.dtype == dtype, (self.name, name, value.dtype, dtype)
                if name in self.outputs:
                    assert value.shape == shape, (self.name, name, value.shape, shape)
                    assert value.flags.c_contiguous
                elif raw:
                    assert value.flags.c_contiguous
                else:
                    value = np.ascontiguousarray(np.broadcast_to(np.asarray(value, dtype), shape))
                values[name] = value
            pointers = [ctypes.c_void_p(v.ctypes.data) for v in values.values()]
            self.function(T)(ctypes.c_longlong(int(np.prod(shape))), *pointers)
            outputs = tuple(values[name] for name in self.outputs)
            return outputs if len(outputs) > 1 else outputs[0]

        def function(self, T: str):
            """The compiled loop over all elements."""
            if T not in self.compiled:
                kinds = self.inputs | self.outputs
                types = {name: "T" if kind == "T" else C_TYPES[kind] for name, (_, kind) in kinds.items()}
                heads = "".join(f", {'' if name in self.outputs else 'const '}{types[name]} *_{name}" for name in kinds)
                inner = "".join(
                    f"#define {name} _{name}\n" if kinds[name][0] else f"#define {name} _{name}[i]\n" for name in kinds
                )
                code = (
                    f"#include <tgmath.h>\ntypedef {C_TYPES[T]} T;\n{inner}"
                    f"void run(long long _size{heads}) {{\n"
                    f"for (long long i = 0; i < _size; ++i) {{\n{self.operation};\n}}\n}}\n"
                )
                path = folder / f"{self.name}-{hashlib.sha1(code.encode()).hexdigest()[:12]}"
                path.with_suffix(".c").write_text(code)
                command = [
                    COMPILER,
                    "-O1",
                    "-Wall",
                    "-Werror",
                    "-shared",
                    "-fPIC",
                    "-o",
                    f"{path}.so",
                    f"{path}.c",
                    "-lm",
                ]
                subprocess.run(command, check=True, capture_output=True)
                self.compiled[T] = ctypes.CDLL(f"{path}.so").run
            return self.compiled[T]

    return SimpleNamespace(**{n: getattr(np, n) for n in dir(np) if n[0] != "_"}, ElementwiseKernel=ElementwiseKernel)


def parameters(text: str) -> dict[str, tuple[bool, str]]:
    """A list of CuPy's parameters by name: whether it is raw, and its type."""
    words = [parameter.split() for parameter in text.split(",")]
    return {w[-1]: (w[0] == "raw", w[-2]) for w in words}
