"""Where numbers were measured: versions, device, precision and threads."""

import ctypes
import datetime
import os
import platform
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from importlib.util import find_spec
from os.path import exists
from pathlib import Path

import numpy as np

from .. import __version__
from ..backends import Backend

KEEP = ((-4, 0), (-1, 2**31 - 1))  # malloc.h: no M_MMAP_MAX for arrays of their own, M_TRIM_THRESHOLD out of reach
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SAFE_PATH = "PYTHONSAFEPATH"  # as python -P
XLA_DETERMINISTIC = "xla_gpu_deterministic_ops"
DETERMINISM = ("CUBLAS_WORKSPACE_CONFIG", "XLA_FLAGS")
# Variables by which the libraries are set: how fast they are, and some of what they compute.
SETTINGS = re.compile(
    r"(OMP|OPENBLAS|MKL|KMP|GOMP|XLA|JAX|TORCH|CUDA|NVIDIA|CUPY|MALLOC|ONEDNN|DNNL|ATEN)_\w+|LD_PRELOAD"
)

VECTORS = re.compile(r"(avx|amx|fma|asimd|neon|sve)\w*")


def restart_with_one_thread_per_library() -> None:
    """Start this program again with one thread for each array library, unless the user has asked for a number.

    The demo's networks are small: more threads are no faster, and on cores with other work they are many times slower.
    NumPy reads these variables when it is imported, which is before any of our code runs. JAX keeps its own threads.
    """
    if any(name in os.environ for name in THREADS) or os.name != "posix":
        return
    os.environ.update(dict.fromkeys(THREADS, "1"))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def keep_freed_memory() -> bool:
    """Let this process keep the memory that arrays give back, for the next arrays; whether the system takes that.

    glibc returns every array above 32 MiB to the system when it is freed, and the system hands out pages one by one,
    each filled with zeros: on large networks a fifth to a half of a step of torch's on a CPU. It is for the whole
    process, and so for programs: the commands that train call it, the library does not.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and all(mallopt(option, value) for option, value in KEEP)


def leave_the_current_folder_alone() -> None:
    """Let no Python that this process starts import from the current folder, as `python -c` does, and matplotlib not
    read its settings there, which may have it evaluate expressions and start TeX. For programs: it is for the whole
    process."""
    os.environ[SAFE_PATH] = "1"
    spec = find_spec("matplotlib") if os.path.lexists("matplotlibrc") else None
    if spec is not None and spec.origin is not None:
        with chdir(os.path.dirname(spec.origin)):
            import matplotlib  # noqa: F401


def ask_for_determinism(flag: str = XLA_DETERMINISTIC) -> None:
    """Ask CUDA's and XLA's libraries for the same bits every time; they read this once, before their first product.

    cuBLAS, under torch and CuPy alike, and JAX's compiler on GPUs, by this flag of its; nothing changes on a CPU.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    flags = os.environ.get("XLA_FLAGS", "")
    if flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{flag}=true".strip()


@contextmanager
def as_it_was() -> Iterator[None]:
    """Put back, at the end, the variables by which determinism is asked for: other code in this process is not ours."""
    before = {name: os.environ.get(name) for name in DETERMINISM}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})


@contextmanager
def deterministic(backend: Backend) -> Iterator[None]:
    """The same bits every time on a GPU, for as long as this lasts."""
    with as_it_was():
        ask_for_determinism()
        undo = backend.be_deterministic()
        try:
            yield
        finally:
            undo()


def versions(backend: Backend) -> dict[str, str]:
    """The versions of what computes, {name: version}."""
    ours = {"ref_bioplaus": __version__, "python": platform.python_version(), "numpy": np.__version__}
    return ours | backend.versions()


def processor() -> str:
    """The processor's name."""
    path = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", path.read_text()) if exists(path) else []
    return names[0] if names else platform.processor() or platform.machine() or "unknown"


def instructions() -> str:
    """The processor's vector instructions, by which libraries choose their code, in alphabetical order; "" where the
    system does not tell them."""
    path = Path("/proc/cpuinfo")
    lines = re.findall(r"^(?:flags|Features)\s*:\s*(.+)", path.read_text(), re.M) if exists(path) else []
    return " ".join(sorted(set(filter(VECTORS.fullmatch, lines[0].split())))) if lines else ""


def environment(learning: dict[str, Backend]) -> dict[str, str]:
    """What to print beside every figure, {name: text}."""
    found = {
        "date": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "ref_bioplaus": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "numpy": np.__version__,
    }
    for name, backend in learning.items():
        versions = ", ".join(f"{k} {v}" for k, v in backend.versions().items())
        found[f"backend {name}"] = f"{versions}; {backend.dtype}, {backend.precision}, {backend.kernels.name} kernels"
    return found | settings()


def settings() -> dict[str, str]:
    """The variables of the environment by which the libraries are set, {name: value}."""
    return {name: value for name, value in sorted(os.environ.items()) if SETTINGS.fullmatch(name)}


def cores() -> int:
    """The processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shares(parallel: int, threads: int | None) -> list[list[int]]:
    """The cores of each of so many processes, apart as long as there are enough; [] for one, which takes what it likes.

    Those come first that the fewest other processes are bound to; among equals, another process begins elsewhere. JAX
    has no other limit on its threads.
    """
    if parallel == 1 and threads is None:
        return [[]]
    there = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    first = os.getpid() % len(there)
    there = sorted(there[first:] + there[:first], key=bound(set(there)).__getitem__)
    share = threads or max(1, len(there) // parallel)
    return [[there[(slot * share + i) % len(there)] for i in range(share)] for slot in range(parallel)]


def bound(there: set[int]) -> Counter[int]:
    """How many processes may run on each of some cores and not on all of them, where Linux tells."""
    found: Counter[int] = Counter()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes():  # a thread of the kernel has none
                found.update(theirs if (theirs := os.sched_getaffinity(int(process.name))) < there else ())
        except OSError:  # it has ended, or is another user's
            continue
    return found
