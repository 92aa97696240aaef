"""Where numbers were measured: versions, device, precision and threads."""

import datetime
import os
import platform
import sys

import numpy as np

from .. import __version__
from ..backends import Backend

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
OTHERS = ("OPENBLAS_CORETYPE", "XLA_FLAGS")  # these change speed as well


def restart_with_one_thread_per_library() -> None:
    """Start this program again with one thread for each array library, unless the user has asked for a number.

    The demo's networks are small: more threads are no faster, and on cores with other work they are many times slower.
    NumPy reads these variables when it is imported, which is before any of our code runs. JAX keeps its own threads.
    """
    if any(name in os.environ for name in THREADS) or os.name != "posix":
        return
    os.environ.update(dict.fromkeys(THREADS, "1"))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


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
    return found | {name: os.environ[name] for name in (*THREADS, *OTHERS) if name in os.environ}
