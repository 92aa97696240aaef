"""What every backend offers, and the parts that do not depend on the library."""

import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, overload

import numpy as np
from array_api_compat import array_namespace

from ref_bioplaus.backends.host import free_host_memory, resident_memory
from ref_bioplaus.backends.ownership import Ownership
from ref_bioplaus.backends.stacks import count, one_after_another
from ref_bioplaus.inverses import mirrored_inverse
from ref_bioplaus.kernels import PORTABLE, Kernels
from ref_bioplaus.layouts import Inverse, tensors
from ref_bioplaus.network import Network
from ref_bioplaus.random import normal_table
from ref_bioplaus.tree import named_leaves, unflatten
from ref_bioplaus.types import Array, Batch, Info, State, Step, Tree


class BackendError(RuntimeError):
    """A backend that cannot be had as asked for; the message says what to install or choose."""


class NoNativeKernels(BackendError):
    """A backend that has the portable kernels only."""


class Backend:
    """An array library on one device, with one dtype for parameters and one precision for float32 products."""

    name = ""
    dtypes: tuple[str, ...] = ("float32", "float64")
    compiles = False  # whether `wrap` compiles, once per shape

    def __init__(self, xp: Any, device: Any, dtype: str, precision: str, kernels: str):
        if dtype not in self.dtypes:
            raise BackendError(f'backend "{self.name}" has no dtype "{dtype}": choose one of {", ".join(self.dtypes)}')
        if precision not in ("ieee", "tf32", "bf16"):
            raise BackendError(f'precision "{precision}" is unknown: choose one of ieee, tf32, bf16')
        if kernels not in ("portable", "native"):
            raise BackendError(f'kernels "{kernels}" are unknown: choose "portable" or "native"')
        self.xp, self.device, self.dtype, self.precision = xp, device, dtype, precision
        self.kept: dict[Any, Callable] = {}  # compiled functions by what makes them the same; they die with the backend
        self.kernels: Kernels = PORTABLE if kernels == "portable" else self.native_kernels()
        self.kernels = self.kernels._replace(normal_table=self.asarray(normal_table()))
        self.consumed: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()  # t of each donated state

    def __repr__(self) -> str:
        return f"<{self.name} on {self.device}, {self.dtype}, {self.precision}, {self.kernels.name} kernels>"

    # What a library has to say for itself

    def asarray(self, array: Any, dtype: str | None = None) -> Array:
        """A NumPy array (or number) on the device; floats in the backend's dtype unless `dtype` names another."""
        raise NotImplementedError(f"{type(self).__name__} must define asarray")

    def to_numpy(self, array: Array) -> np.ndarray:
        """A NumPy array on the host; bfloat16 as float32."""
        raise NotImplementedError(f"{type(self).__name__} must define to_numpy")

    def synchronize(self) -> None:
        """Wait until the device has done all that was asked of it."""

    def versions(self) -> dict[str, str]:
        """The library's version and the device's name."""
        return {self.name: getattr(self.xp, "__version__", ""), "device": str(self.device)}

    def native_kernels(self) -> Kernels:
        """The library's own forms of the portable kernels. Raises NoNativeKernels where there are none."""
        raise NoNativeKernels(f'backend "{self.name}" has no native kernels: choose kernels="portable"')

    def eager(self, step: Callable) -> Callable:
        """`step` run operation by operation, on this device and in this precision."""
        return step

    def wrap(self, step: Callable) -> Callable:
        """`step` as the library runs it best; eager, unless said otherwise."""
        return self.eager(step)

    def wrap_donating(self, step: Callable) -> Callable:
        """The same for a step (state, key, batch) that may write over the state, as a function with a keyword more.

        begin: a function without arguments, to be called before anything of the state is written over or given back.
        """
        run = self.wrap(step)
        return lambda state, key, batch, *, begin: run(state, key, batch)

    def wrap_stacked(self, step: Callable, donating: bool) -> Callable:
        """The same, donating or not, for a stack of batches in place of one: here one step after the other."""
        run = self.wrap_donating(step) if donating else self.wrap(step)
        return one_after_another(run, self.xp.stack, self.ownership() if donating else None)

    @property
    def at_once(self) -> int:
        """How many steps of a small network are best compiled to be run by one call; 1 where it makes no difference."""
        return 1

    def share_programs(self, folder: str) -> None:
        """Keep what is compiled from now on in a folder, for this process and those that share it, where the library
        can. It holds until the process ends."""

    # The machine that it computes on. Without them it is a CPU's, which this process and the system tell of

    @property
    def on_gpu(self) -> bool:
        """Whether it computes in another memory than the host's."""
        return False

    def free_bytes(self) -> int | None:
        """Bytes that are free where it computes; None where nothing says so."""
        return free_host_memory()

    def peak_bytes(self) -> int | None:
        """The most bytes that arrays have held where it computes, on a CPU this process; None where nothing says so."""
        return resident_memory(peak=True)

    def forget_peak(self) -> None:
        """Begin a new peak on the device, where its library can; on a CPU the system keeps it."""

    def be_deterministic(self) -> Callable[[], None]:
        """Choose operations that give the same bits every time, until the function that this returns is called."""
        return lambda: None

    def ownership(self) -> Ownership | None:
        """What a step that writes over a donated state asks whether others see it; None where no step does."""
        return None

    # The same for all

    def target_dtype(self, array: np.ndarray, dtype: str | None) -> str:
        """The name of the dtype that an array gets on the device: its own, the backend's for floats, or `dtype`."""
        return dtype or (self.dtype if np.issubdtype(array.dtype, np.floating) else array.dtype.name)

    def key(self, seed: int = 0) -> Array:
        """The root key of a seed from 0 to 2^63 - 1, int32 (2,)."""
        if not 0 <= seed < 1 << 63:
            raise BackendError(f"seed is {seed}, expected 0 to 2^63 - 1")
        return self.asarray(np.array([seed >> 32, seed & 0xFFFFFFFF], dtype=np.uint32).view(np.int32))

    def batch(self, x: Any, y: Any) -> Batch:
        """NumPy inputs and targets as a Batch on the device, in the backend's dtype."""
        return Batch(self.asarray(x, self.dtype), self.asarray(y, self.dtype))

    def compile(
        self, step: Step, donate: bool = False, keep: tuple[str, ...] | None = None, steps: int | None = None
    ) -> "CompiledStep":
        """A step (state, batch) -> (state, info) as fast as the library makes it.

        donate=True gives the state away: its memory may hold the new one. keep: the fields of Info to return; None for
        all of them. steps: so many batches at most, 1 at least, are learned from by one call, which takes a stack of
        them, Batch(x (k, N, ...), y (k, N, ...)); every array of Info comes with a first axis k. The numbers are those
        of k calls. JAX scans over the stack, and torch's native kernels make one CUDA graph of the steps on a GPU: a
        stack of another length is compiled anew; elsewhere one step runs after the other. Who owns what is the same on
        every library, a stack being one step:

        - Before a call all arrays are the caller's. A step with donate=False never writes to any of them.
        - A donating step consumes the State that it is given and nothing else. Whoever gives that State to a step again
          gets a BackendError, and its arrays must not be read through it any more: they are deleted (JAX) or hold what
          later steps wrote (torch). An array of it that the caller can reach in any other way keeps its value, at the
          price of a copy: through another State, a part of this one (`state.forward`), an Info, a list, a view, a
          closure.
        - After a call its results are the caller's, the new State and every array of Info; no later call changes them,
          but for a State that is donated in its turn.
        - A call that raises before its calculation has begun, as at a batch of a wrong shape, has not consumed its
          State. One that was stopped in the middle may have written: its State is refused as if it had been donated.
        - A State is known by its t, and every call returns a t of its own. States that share a t are one State.
        - A step's Python code runs once for every structure and shape where the library compiles. What it closes over
          has the value of that moment for good, also where it is an array of a State that is donated later: what
          changes belongs in the state.
        - Steps may run in several threads, each with a State of its own.
        """
        return CompiledStep(self, step, donate, keep, steps)

    def check(self) -> None:
        """Raise BackendError where the device does not multiply in the precision asked for."""
        if self.dtype == "float32":
            found = self.probe()
            if found != self.precision:
                raise BackendError(
                    f'backend "{self.name}" on {self.device} multiplies float32 in {found}, not in {self.precision}: '
                    f'choose precision="{found}"'
                )

    def probe(self) -> str:
        """The precision of float32 products, found by multiplying: "ieee", "tf32" or "bf16".

        1 + 2^-12 needs more bits than TF32 has, 1 + 2^-9 more than bfloat16.
        """
        n = 256
        ones = self.asarray(np.ones((n, n), np.float32), "float32")
        product = self.wrap(lambda a, b: self.kernels.dense_transport(b, a))

        def survives(value):
            factor = self.asarray(np.full((n, n), value, np.float32), "float32")
            return bool(np.all(self.to_numpy(product(factor, ones)) == np.float32(n * value)))

        if survives(1.0 + 2.0**-12):
            return "ieee"
        return "tf32" if survives(1.0 + 2.0**-9) else "bf16"

    def export_params(
        self, network: Network, params: Tree, stats: Tree = None, inverse: Inverse = mirrored_inverse
    ) -> dict[str, np.ndarray]:
        """Parameters as NumPy arrays of their own, in PyTorch's layout and under its names, as layouts.py says.

        params: of the forward path, or B, D, V and c of the feedback path, which come as W and b do; inverse: the form
        of V. stats: BatchNorm's running statistics, state.stats, without which a Module with BatchNorm misses some.
        Raises ValueError for parameters of another network.
        """
        leaves = dict(named_leaves({"params": params, "stats": stats}))
        return {
            name: np.array(axes.to("NCHW", self.to_numpy(leaves[path])) if path else 0, order="C")
            for name, (path, axes) in tensors(network, params, stats, inverse).items()
        }

    @overload
    def import_params(
        self, network: Network, params: Tree, arrays: Mapping[str, Any], stats: None = None, inverse: Inverse = ...
    ) -> Tree: ...
    @overload
    def import_params(
        self, network: Network, params: Tree, arrays: Mapping[str, Any], stats: Tree, inverse: Inverse = ...
    ) -> tuple[Tree, Tree]: ...
    def import_params(
        self, network: Network, params: Tree, arrays: Mapping[str, Any], stats: Tree = None,
        inverse: Inverse = mirrored_inverse,
    ):  # fmt: skip
        """`params` with the arrays of `export_params`, or a Module's state_dict(), in their places; their own memory.

        With `stats`: (params, stats). Raises KeyError for missing names, and ValueError for names that are not the
        network's, a shape that does not fit and what NumPy cannot read.
        """
        wanted, tree = tensors(network, params, stats, inverse), {"params": params, "stats": stats}
        missing, unknown = [n for n in wanted if n not in arrays], [n for n in arrays if n not in wanted]
        if missing:
            others = f" (and {listed(unknown)} unknown)" if unknown else ""
            raise KeyError(f"{listed(missing)} missing{others}: expected the names that export_params gives")
        if unknown:
            raise ValueError(
                f"{listed(unknown)} unknown: expected the names that export_params gives, and no others; BatchNorm's "
                "running statistics go with stats=state.stats"
            )
        found, leaves = {}, dict(named_leaves(tree))
        for name, (path, axes) in wanted.items():
            try:
                array, shape = np.asarray(arrays[name]), axes.shape("NCHW")
            except (TypeError, ValueError, RuntimeError) as error:  # on a GPU, in bfloat16, with a gradient to come
                raise ValueError(
                    f"{name} cannot be read by NumPy ({error}): detach it, on the CPU, in float32"
                ) from None
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}, expected {shape} ({axes.theirs or 'a number'})")
            if path:
                dtype = str(leaves[path].dtype).rpartition(".")[2]
                found[path] = self.asarray(np.array(axes.back("NCHW", array), order="C"), dtype)
        new = unflatten(tree, [found[path] for path in leaves])
        return new["params"] if stats is None else (new["params"], new["stats"])


def listed(names: list[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f'"{name}"' for name in names[:3]) + more + (" is" if len(names) == 1 else " are")


class CompiledStep:
    """A step bound to a backend: donation, which fields of Info come back, and how many batches a call may take."""

    def __init__(
        self, backend: Backend, step: Step, donate: bool, keep: tuple[str, ...] | None, steps: int | None = None
    ):
        for name in keep or ():
            if name not in Info._fields:
                raise BackendError(f'keep names "{name}", expected fields of Info: {", ".join(Info._fields)}')
        if steps is not None and steps < 1:
            raise BackendError(f"steps is {steps}, expected None for single batches, or 1 or more for stacks of them")
        self.steps = steps
        self.traces = 0  # how often the step's Python code ran: once per call, or per compilation where there is one
        self.donate = donate
        self.consumed = backend.consumed
        self.ownership = backend.ownership() if donate else None

        def pure(state: State, key: Array, batch: Batch) -> tuple[State, Info]:
            self.traces += 1
            new, info = step(state._replace(key=key), batch)
            if new.t is state.t:  # a state is known by its t
                new = new._replace(t=array_namespace(new.t).asarray(new.t, copy=True))
            return new._replace(key=None), info if keep is None else Info(**{n: getattr(info, n) for n in keep})

        if steps is not None:
            self.run = backend.wrap_stacked(pure, donate)
        else:
            self.run = backend.wrap_donating(pure) if donate else backend.wrap(pure)

    def __call__(self, state: State, batch: Batch) -> tuple[State, Info]:
        if self.consumed.get(id(state.t)) is state.t:
            raise BackendError("this state was donated to an earlier step and is gone: use the state it returned")
        if self.steps is not None and not 1 <= count(batch) <= self.steps:
            raise BackendError(
                f"a stack with x of shape {tuple(batch.x.shape)} and y of shape {tuple(batch.y.shape)} was given, "
                f"expected x and y of 1 to {self.steps} batches along their first axis"
            )
        if not self.donate:
            new, info = self.run(state._replace(key=None), state.key, batch)
            return new._replace(key=state.key), info
        given = state if self.ownership is None else self.ownership.take(state)
        new, info = self.run(given._replace(key=None), state.key, batch, begin=lambda: self.consume(state))
        self.consume(state)
        return new._replace(key=state.key), info

    def consume(self, state: State) -> None:
        """Have the state refused from now on."""
        with suppress(TypeError):  # a NumPy number, which cannot be remembered
            self.consumed[id(state.t)] = state.t
