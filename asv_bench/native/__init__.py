"""The strongest native form of a workload, for each of our backends: what ours is compared with."""

from typing import Any

from ref_bioplaus import algorithms, losses
from ref_bioplaus.backends import Backend, get

from ..workloads import Workload, without_dropout


def library(backend_name: str) -> str:
    """The library whose native form a backend is compared with: JAX's own for JAX, else PyTorch's."""
    return "jax" if backend_name == "jax" else "torch"


def native_forms(workload: Workload, backend_name: str, compiled: bool = True, on_gpu: bool = False) -> tuple[str, ...]:
    """Names of the forms to try. Raises NotImplementedError where the library is not installed."""
    network = workload.network()
    try:
        if library(backend_name) == "jax":
            from . import with_jax

            return with_jax.forms(network)
        from . import with_torch

        return with_torch.forms(network, compiled, on_gpu)
    except ImportError as error:
        raise NotImplementedError(f"{backend_name} is compared with a library that is missing ({error})") from error


def forget_compiled(backend_name: str) -> None:
    """Forget what was compiled for other workloads."""
    if library(backend_name) == "torch":
        from . import with_torch

        with_torch.forget_compiled()


def native_training(workload: Workload, form: str, backend: Backend, dropout: bool = True, state=None) -> Any:
    """A native training of a workload on the backend's device, from `state` or from the backend's own first state.

    It is called as workloads.Training is.
    """
    network = workload.network().with_dtype(backend.dtype)
    network = network if dropout else without_dropout(network)
    if state is None:
        start = opponent(backend)
        algorithm = algorithms.backprop(network, losses.cross_entropy(), workload.optimizer())
        state = algorithm.init(start.key(0))
    params = state.forward.params
    if library(backend.name) == "jax":
        from .with_jax import JaxTraining

        return JaxTraining(workload, network, params, form, backend.device, backend.dtype, backend.precision)
    from .with_torch import TorchTraining

    return TorchTraining(workload, network, params, form, device_name(backend), backend.dtype, backend.precision)


def device_name(backend: Backend) -> str:
    """The kind of device, as torch and JAX both name it: "cpu" or "cuda"."""
    return "cuda" if backend.on_gpu else "cpu"


def opponent(backend: Backend) -> Backend:
    """The backend of the library whose native form it is compared with, on the same kind of device."""
    return get(library(backend.name), device=device_name(backend), dtype=backend.dtype)
