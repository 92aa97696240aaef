"""PyTorch: without autograd, on a CPU or a GPU; eager, or with native kernels as a captured step."""

import threading
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any

import array_api_compat.torch as xp
import numpy as np
import torch

from ref_bioplaus.backends.base import Backend, BackendError
from ref_bioplaus.backends.ownership import Ownership
from ref_bioplaus.backends.stacks import one_after_another
from ref_bioplaus.backends.torch_.memory import alone
from ref_bioplaus.kernels import Kernels
from ref_bioplaus.types import Array


class TorchBackend(Backend):
    """torch tensors."""

    name = "torch"
    dtypes = ("float32", "float64", "bfloat16")

    def asarray(self, array: Any, dtype: str | None = None) -> Array:
        """A tensor on the device: a copy, since a donated state is written to."""
        array = np.asarray(array, order="C")  # torch knows no negative strides
        of = getattr(torch, self.target_dtype(array, dtype))
        return torch.as_tensor(array).to(device=self.device, dtype=of, copy=True)

    def to_numpy(self, array: Array) -> np.ndarray:
        """A copy as a NumPy array; bfloat16, which NumPy lacks, as float32."""
        dtype = torch.float32 if array.dtype == torch.bfloat16 else array.dtype
        return array.detach().to(device="cpu", dtype=dtype, copy=True).numpy()

    def synchronize(self):
        """Wait for the GPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def versions(self):
        """torch, CUDA and the device's name."""
        cuda = self.device.type == "cuda"
        name = torch.cuda.get_device_name(self.device) if cuda else "cpu"
        return {"torch": torch.__version__, "device": name} | ({"cuda": str(torch.version.cuda)} if cuda else {})

    @property
    def on_gpu(self):
        """Whether the device is a GPU."""
        return self.device.type != "cpu"

    def free_bytes(self):
        """What CUDA says, or the system."""
        return int(torch.cuda.mem_get_info(self.device)[0]) if self.on_gpu else super().free_bytes()

    def peak_bytes(self):
        """The most that torch's allocator had given out, since its peak was forgotten."""
        return int(torch.cuda.max_memory_allocated(self.device)) if self.on_gpu else super().peak_bytes()

    def forget_peak(self):
        """torch's allocator can."""
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)

    def be_deterministic(self):
        """Deterministic kernels on a GPU; those on a CPU are."""
        if not self.on_gpu:
            return super().be_deterministic()
        settings: Any = torch.utils.deterministic
        mode, filled = torch.get_deterministic_debug_mode(), settings.fill_uninitialized_memory
        torch.use_deterministic_algorithms(True)
        settings.fill_uninitialized_memory = False  # every kernel writes all of its result

        def undo() -> None:
            torch.set_deterministic_debug_mode(mode)
            settings.fill_uninitialized_memory = filled

        return undo

    def native_kernels(self) -> Kernels:
        """torch's own forms of the kernels."""
        from ref_bioplaus.backends.torch_.kernels import native_kernels

        return native_kernels(self.device, self.dtype, self.precision)

    def wrap(self, step: Callable):
        """Portable kernels: eager. Native ones: captured once per shape, and run as a straight line of torch calls."""
        return self.captured(step, donating=False) if self.native else self.eager(step)

    def wrap_donating(self, step: Callable):
        """The same; a captured step updates the state, its first argument, in place."""
        return self.captured(step, donating=True) if self.native else super().wrap_donating(step)

    def wrap_stacked(self, step: Callable, donating: bool):
        """Where captured steps become CUDA graphs, one line and one graph of all of them."""
        if not self.native or self.graphs() is None:
            return super().wrap_stacked(step, donating)
        return self.captured(one_after_another(step, self.xp.stack), donating)

    @property
    def at_once(self):
        """On a GPU a small network's steps wait for their launch; their calls are captured step by step."""
        return 8 if self.native and self.on_gpu else 1

    def ownership(self):
        """A captured step's: views and arrays of other libraries are counted by torch."""
        return Ownership(alone, torch.clone) if self.native else None

    def captured(self, step: Callable, donating: bool):
        """The step as a straight line of torch calls."""
        from ref_bioplaus.backends.torch_.capture import Captured

        return Captured(step, lambda: products_in(self.policy, self.device.type), donating, self.graphs())

    def graphs(self) -> Any:
        """What records captured steps once more, as CUDA graphs; None where there is no GPU."""
        if self.device.type != "cuda":
            return None
        from ref_bioplaus.backends.torch_.graphs import CudaGraphs

        return CudaGraphs(self.device)

    @property
    def native(self) -> bool:
        """Whether the kernels are torch's own."""
        return self.kernels.name == "native"

    @property
    def policy(self) -> str:
        """What torch is asked for where native kernels round operands themselves, and where it has to round them.

        On a GPU operands that were rounded to bfloat16 go through TF32, which holds them exactly: the numbers are those
        of a bfloat16 product that is added up and returned in float32.
        """
        if not self.native:
            return self.precision
        return "tf32" if self.device.type == "cuda" and self.precision != "ieee" else "ieee"

    def eager(self, step: Callable):
        """No gradients are recorded, and float32 products have the backend's precision for as long as the step runs."""

        @wraps(step)
        def run(*arguments):
            with torch.no_grad(), products_in(self.policy, self.device.type):
                return step(*arguments)

        return run


class Products:
    """The precision of float32 products on a type of device, which torch keeps once for the whole process.

    Steps that ask for the same one run side by side, whatever their threads; others wait for each other.
    """

    def __init__(self, policies: tuple[Any, ...]):
        """policies: where torch keeps it."""
        self.policies, self.now = policies, ""
        self.threads: list[int] = []  # those inside of a step, once for every step that they are in
        self.changed = threading.Condition()
        self.before: list[str] = []  # what the process had set before the first step

    @contextmanager
    def of(self, precision: str):
        """Set the precision, and put back what was there. Raises BackendError where two threads would wait for ever."""
        me = threading.get_ident()
        with self.changed:
            while self.now not in ("", precision) and self.others(me):
                if me in self.threads:
                    raise BackendError(
                        f"a step in {precision} was called inside of one in {self.now} while another thread runs "
                        "steps, and torch has one precision for all: call them one after the other"
                    )
                self.changed.wait()
            outer = self.now
            if not outer:
                self.before = [policy.fp32_precision for policy in self.policies]
            if outer != precision:
                self.ask([precision] * len(self.policies))
            self.now = precision
            self.threads.append(me)
        try:
            yield
        finally:
            with self.changed:
                self.threads.remove(me)
                while outer not in ("", precision) and self.others(me):
                    self.changed.wait()
                if not self.threads:
                    self.ask(self.before)
                    self.now = ""
                elif outer not in ("", precision):
                    self.ask([outer] * len(self.policies))
                    self.now = outer
                self.changed.notify_all()

    def others(self, me: int) -> bool:
        """Whether another thread is inside of a step."""
        return any(thread != me for thread in self.threads)

    def ask(self, precisions: list[str]) -> None:
        """Tell torch."""
        for policy, precision in zip(self.policies, precisions, strict=True):
            policy.fp32_precision = precision


POLICIES: dict[str, tuple[Any, ...]] = {  # where torch keeps the precision of float32 products, by type of device
    "cpu": (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv),  # type: ignore[attr-defined]
    "cuda": (torch.backends.cuda.matmul, torch.backends.cudnn.conv),  # type: ignore[attr-defined]
}
PRODUCTS = {device: Products(policies) for device, policies in POLICIES.items()}


def products_in(precision: str, device: str):
    """A context in which float32 products on a type of device have a precision."""
    if device == "cuda" and precision == "bf16":
        precision = "ieee"  # torch knows bf16 products of float32 tensors on CPUs only
    return PRODUCTS[device].of(precision) if device in PRODUCTS else nullcontext()


def backend(
    device: str | None = None, dtype: str = "float32", precision: str = "ieee", kernels: str = "portable"
) -> TorchBackend:
    """PyTorch; device None is the first GPU where there is one. Raises BackendError for a device that is not there."""
    wanted = device or ("cuda" if torch.cuda.is_available() else "cpu")
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    try:
        chosen = torch.device(wanted)
    except RuntimeError as error:
        raise BackendError(f'backend "torch": device "{wanted}" is unknown: choose {" or ".join(there)}') from error
    if chosen.type == "cuda" and chosen.index is None:
        chosen = torch.device("cuda:0")
    if str(chosen) not in there:
        raise BackendError(f'backend "torch": device "{wanted}" is not there: choose one of {", ".join(there)}')
    return TorchBackend(xp, chosen, dtype, precision, kernels)
