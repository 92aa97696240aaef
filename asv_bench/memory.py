"""Peak memory of a few steps, each subject in a process of its own.

    python -m asv_bench.memory W1 torch native BP            ours, with native kernels
    python -m asv_bench.memory W1 torch native "form: eager" the native form

On a CPU: the highest resident size during three warm steps, less what the imported libraries took. On a GPU: the most
that the library's allocator had given out.
"""

import ctypes
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

from ref_bioplaus import backends

from .native import native_training, on_gpu
from .workloads import WORKLOADS, Training

ROOT = Path(__file__).parent.parent


def peak_bytes(workload: str, backend_name: str, kernels: str, subject: str, device: str | None = None) -> int:
    """Bytes, measured in a new process. Raises RuntimeError where that process fails."""
    command = [sys.executable, "-m", "asv_bench.memory", workload, backend_name, kernels, subject, device or ""]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"memory of {workload} {subject} on {backend_name}: {done.stderr.strip()[-500:]}")
    return int(json.loads(done.stdout.splitlines()[-1])["bytes"])


def resident(which: str) -> int:
    """Bytes of this process: "VmRSS", what is resident now, or "VmHWM", the most since `forget_peak`."""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (kilobytes,) = re.findall(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) * 1024


def forget_peak() -> None:
    """Give freed memory back, and begin a new high-water mark."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
        if os.access("/proc/self/clear_refs", os.W_OK):
            Path("/proc/self/clear_refs").write_text("5")


def measure(workload_name: str, backend_name: str, kernels: str, subject: str, device: str | None) -> int:
    """Bytes, measured in this process."""
    workload, backend = WORKLOADS[workload_name], backends.get(backend_name, device=device, kernels=kernels)
    before = resident("VmRSS")
    if subject.startswith("form: "):
        training = native_training(workload, subject.removeprefix("form: "), backend)
    else:
        training = Training(workload, subject, backend)
    for _ in range(2):
        training()
    training.wait()
    forget_peak()
    for _ in range(3):
        training()
    training.wait()
    return gpu_peak(backend) if on_gpu(backend) else resident("VmHWM") - before


def gpu_peak(backend) -> int:
    """The most bytes that the library's allocator has given out."""
    if backend.name == "jax":
        return int(backend.device.memory_stats()["peak_bytes_in_use"])
    if backend.name == "cupy":
        import cupy

        return int(cupy.get_default_memory_pool().total_bytes())
    import torch

    return int(torch.cuda.max_memory_allocated())


if __name__ == "__main__":
    *what, place = sys.argv[1:]
    print(json.dumps({"bytes": measure(what[0], what[1], what[2], what[3], place or None)}))
