"""Peak memory of a few steps, each subject in a process of its own.

    python -m asv_bench.memory W1 torch native BP            ours, with native kernels
    python -m asv_bench.memory W1 torch native "form: eager" the native form

On a CPU: the highest resident size during three warm steps, less what the libraries took after they had trained a tiny
network, which imports all of them. On a GPU: the most that the library's allocator had given out.
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ref_bioplaus import backends
from ref_bioplaus.backends import Backend
from ref_bioplaus.machine.environment import resident_memory

from .native import library, native_forms, native_training, on_gpu
from .workloads import WORKLOADS, Training, direct

ROOT = Path(__file__).parent.parent
MODULE = """
import runpy, sys
sys.path.append({root!r})
sys.argv[1:] = {arguments!r}
runpy.run_module("asv_bench.memory", run_name="__main__")
"""


def new_process(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, away from the checkout: what is imported is what is installed."""
    return subprocess.run([sys.executable, "-c", code], cwd=tempfile.gettempdir(), capture_output=True, text=True)


def peak_bytes(
    workload: str, backend_name: str, kernels: str, subject: str, device: str | None = None, precision: str = "ieee"
) -> int:
    """Bytes, measured in a new process. Raises RuntimeError where that process fails."""
    arguments = [workload, backend_name, kernels, subject, device or "", precision]
    done = new_process(MODULE.format(root=str(ROOT), arguments=arguments))
    if done.returncode:
        raise RuntimeError(f"memory of {workload} {subject} on {backend_name}: {done.stderr.strip()[-500:]}")
    return int(json.loads(done.stdout.splitlines()[-1])["bytes"])


def resident(peak: bool) -> int:
    """Bytes of this process that are resident now, or the most since `forget_peak`. Exits where no system says."""
    found = resident_memory(peak)
    if found is None:
        sys.exit("This system does not say how much memory a process has: measure it on Linux or macOS.")
    return found


def forget_peak() -> None:
    """Give freed memory back, and begin a new high-water mark."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
        if os.access("/proc/self/clear_refs", os.W_OK):
            Path("/proc/self/clear_refs").write_text("5")


def measure(
    workload_name: str, backend_name: str, kernels: str, subject: str, device: str | None = None,
    precision: str = "ieee",
) -> int:  # fmt: skip
    """Bytes, measured in this process. subject: an algorithm; "form: " and a native form; "stored" or "generated",
    DFA with such feedback."""
    workload = WORKLOADS[workload_name]
    backend = backends.get(backend_name, device=device, precision=precision, kernels=kernels)
    is_native = subject.startswith("form: ")
    load(backend, is_native)
    before = resident(peak=False)
    if is_native:
        training = native_training(workload, subject.removeprefix("form: "), backend)
    elif subject in ("stored", "generated"):
        training = Training(workload, "DFA", backend, build=direct(subject))
    else:
        training = Training(workload, subject, backend)
    for _ in range(2):
        training()
    training.wait()
    allocator = library(backend_name) if is_native else backend.name
    forget_peak()
    if on_gpu(backend) and allocator == "torch":
        import torch

        torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        training()
    training.wait()
    return gpu_peak(backend, allocator) if on_gpu(backend) else resident(peak=True) - before


def load(backend: Backend, is_native: bool) -> None:
    """A few steps of a tiny network: whatever the libraries import when they are first used does not count."""
    tiny = WORKLOADS["W1"].smaller((6,), batch=2, width=1 / 64)
    if is_native:
        training = native_training(tiny, native_forms(tiny, backend.name, compiled=False)[0], backend)
    else:
        training = Training(tiny, "BP", backend)
    for _ in range(2):
        training()
    training.wait()
    del training
    gc.collect()
    forget_peak()


def gpu_peak(backend: Backend, allocator: str) -> int:
    """The most bytes that a library's allocator has given out: on torch since its peak was forgotten, on JAX and CuPy
    since the process began."""
    if allocator == "jax":
        return int(backend.device.memory_stats()["peak_bytes_in_use"])
    if allocator == "cupy":
        import cupy

        return int(cupy.get_default_memory_pool().total_bytes())
    import torch

    return int(torch.cuda.max_memory_allocated())


if __name__ == "__main__":
    what, place, precision = sys.argv[1:5], *(*sys.argv[5:7], *("", "ieee")[len(sys.argv[5:7]) :])
    if len(what) < 4:
        sys.exit("expected a workload, a backend, native or portable, and an algorithm")
    print(json.dumps({"bytes": measure(what[0], what[1], what[2], what[3], place or None, precision)}))
