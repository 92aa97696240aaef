"""Where arrays come from. The library never imports this: its arrays carry their own namespace and device.

    backend = backends.get("torch", device="cuda:0", dtype="float32", precision="tf32")
    learn = backend.compile(algorithm.modes["learn"], donate=True, keep=("loss",))

A package adds a backend of its own by an entry point in the group "ref_bioplaus.backends"; a function can also be
named directly, as "my_package.my_module:backend", though not by a file (see naming.py). It is called with (device,
dtype, precision, kernels) and returns a Backend.
"""

import difflib
import importlib.util
import json
import re
from collections.abc import Callable

from ref_bioplaus import naming
from ref_bioplaus.backends.base import Backend as Backend
from ref_bioplaus.backends.base import BackendError as BackendError
from ref_bioplaus.backends.base import NoNativeKernels as NoNativeKernels

BUILT_IN = {
    "numpy": ("numpy", "ref_bioplaus.backends.numpy_.backend:backend"),
    "torch": ("torch", "ref_bioplaus.backends.torch_.backend:backend"),
    "jax": ("jax", "ref_bioplaus.backends.jax_.backend:backend"),
    "cupy": ("cupy", "ref_bioplaus.backends.cupy_.backend:backend"),
    "array-api-strict": ("array_api_strict", "ref_bioplaus.backends.array_api_strict_.backend:backend"),
}
INSTALL = {
    "torch": "pip install torch",
    "jax": "pip install jax",
    "cupy": "pip install cupy-cuda13x (or cupy-cuda12x; it needs an NVIDIA GPU)",
    "array-api-strict": "pip install array-api-strict",
}
DTYPES, PRECISIONS, KERNELS = ("float32", "float64", "bfloat16"), ("ieee", "tf32", "bf16"), ("portable", "native")
DEVICE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}(:[0-9]{1,4})?")


def names() -> tuple[str, ...]:
    """Every backend known by name: the built-in ones, then those that other packages have registered."""
    return (*BUILT_IN, *sorted(set(registered()) - set(BUILT_IN)))


def registered() -> dict[str, str]:
    """Backends from entry points, {name: "module:function"}."""
    return naming.enrolled("ref_bioplaus.backends")


def installed() -> tuple[str, ...]:
    """Backends whose library can be imported; nothing is imported to find out."""
    return tuple(
        name for name in names() if name not in BUILT_IN or importlib.util.find_spec(BUILT_IN[name][0]) is not None
    )


def get(
    name: str, device: str | None = None, dtype: str = "float32", precision: str = "ieee", kernels: str = "portable"
) -> Backend:
    """A backend, its library imported now.

    name: one of `names()`, or "module:function". device: None for the library's usual one, or "cpu", "cuda", "cuda:1".
    dtype: "float32", "float64" or "bfloat16". precision: of float32 products, "ieee", "tf32" or "bf16", read back by a
    probe. kernels: "portable", the definition, or "native", the library's own. Raises BackendError, one sentence saying
    what to install or choose, before anything is imported where it can be known.
    """
    check_words(device, dtype, precision, kernels)
    device = "cpu" if device == "cpu:0" else device
    make = loader(name)
    try:
        with naming.importable(name):
            backend = make(device, dtype, precision, kernels)
    except TypeError as error:
        raise BackendError(
            f'backend "{name}" cannot be made ({error}): expected a function of (device, dtype, precision, kernels)'
        ) from error
    if not isinstance(backend, Backend):
        raise BackendError(
            f'backend "{name}" is a {type(backend).__name__}, expected a function that returns a Backend'
        )
    backend.check()
    return backend


def check_words(device: str | None, dtype: str, precision: str, kernels: str) -> None:
    """Raise BackendError for what no backend can be asked for."""
    for kind, word, known in (
        ("dtype", dtype, DTYPES), ("precision", precision, PRECISIONS), ("kernels", kernels, KERNELS)
    ):  # fmt: skip
        if word not in known:
            verb = "are" if kind == "kernels" else "is"
            raise BackendError(f"{kind} {json.dumps(word)} {verb} unknown: choose one of {', '.join(known)}")
    if device is not None and not DEVICE.fullmatch(device):
        raise BackendError(f"device {json.dumps(device)} is no name of a device: choose one as cpu, cuda or cuda:1")


def loader(name: str) -> Callable[..., Backend]:
    """The function that makes a backend. Raises BackendError."""
    known = registered() | {known: place for known, (_, place) in BUILT_IN.items()}
    if name not in known and not naming.is_code(name):
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f'did you mean "{close[0]}"? Known' if close else "known"
        raise BackendError(f'backend "{name}" is unknown: {hint} are {", ".join(names())}')
    try:
        found = naming.load(name, known, "backend")
    except naming.NamingError as error:
        raise BackendError(str(error)) from error
    except ImportError as error:
        other = ", ".join(n for n in installed() if n != name)
        module = known.get(name, name).partition(":")[0]
        how = f"install it with {INSTALL[name]}" if name in INSTALL else f"install what provides {module}"
        raise BackendError(f'backend "{name}" cannot be imported ({error}): {how}, or choose one of {other}') from error
    if not callable(found):
        raise BackendError(f'backend "{name}" is a {type(found).__name__}, expected a function that returns a Backend')
    return found
