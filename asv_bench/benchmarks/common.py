"""Backends for benchmarks."""

from asv_bench.workloads import WORKLOADS, Workload
from ref_bioplaus import backends
from ref_bioplaus.backends import Backend, BackendError
from ref_bioplaus.machine.environment import keep_freed_memory

keep_freed_memory()
BACKENDS = ("numpy", "torch", "jax", "cupy")
SECONDS = 5.0  # of a contest


def backend_for(name: str, workload: str | None = None) -> Backend:
    """A backend with native kernels. Raises NotImplementedError, which asv skips, where it or its GPU is missing."""
    try:
        backend = backends.get(name, kernels="native")
    except BackendError as error:
        raise NotImplementedError(str(error)) from error
    if workload is not None and WORKLOADS[workload].needs_gpu and not backend.on_gpu:
        raise NotImplementedError(f"{workload} is for a GPU")
    return backend


def workload(name: str) -> Workload:
    """A workload by name."""
    return WORKLOADS[name]
