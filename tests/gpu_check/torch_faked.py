"""torch's backend on CUDA tensors without memory (FakeTensorMode): devices, dtypes, shapes and layouts of every call.

What it finds is a list of sentences; an empty one says that on a GPU every tensor of a step lies there, that no call
waits for the GPU or copies between it and the host, and that results are what the same step gives on NumPy.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import array_api_compat.torch as xp
import numpy as np
import torch
from torch._subclasses import fake_impls
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ref_bioplaus import losses
from ref_bioplaus.backends.stacks import one_after_another
from ref_bioplaus.backends.torch_ import loops
from ref_bioplaus.backends.torch_.backend import TorchBackend
from ref_bioplaus.backends.torch_.graphs import synchronising
from ref_bioplaus.backends.torch_.optimizers import dense
from ref_bioplaus.network import predict
from ref_bioplaus.tree import leaves, named_leaves, tree_map
from tests.gpu_check.product import Combination, differing_shapes, expected, whole

aten = torch.ops.aten
CUDA = torch.device("cuda:0")
GUARDS = "_ZN3c104impl26device_guard_impl_registryE"  # what torch asks for the current device of each type
WAITING = {  # calls whose result's shape, or a number of the host, hangs on values: the host waits for the GPU
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default,
    aten.is_nonzero.default, aten._unique2.default, aten.unique_dim.default, aten.unique_consecutive.default,
    aten.repeat_interleave.Tensor, aten.bincount.default, aten.argwhere.default,
}  # fmt: skip
MASKING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._unsafe_index.Tensor}
NUMBERS = {aten.lift_fresh.default, aten.lift_fresh_copy.default}  # a number of Python's, before anything takes it
FUSED = {  # what a fused update is given: lists of tensors, one per parameter, and the counts of updates
    aten._fused_sgd_.default: (3, None), aten._fused_sgd_.tensor_lr: (3, None),
    aten._fused_adam_.default: (4, 5), aten._fused_adam_.tensor_lr: (4, 5),
    aten._fused_adamw_.default: (4, 5), aten._fused_adamw_.tensor_lr: (4, 5),
}  # fmt: skip


def looped(mode: FakeTensorMode, function: Any, *given: Any) -> list:
    """The loops of captured steps on tensors without memory."""
    with mode:
        return loops.run(*given)


UNKNOWN = {**dict.fromkeys(FUSED, lambda *given, **named: None), loops.operation: looped}  # to FakeTensorMode


class Faked(TorchBackend):
    """torch's backend as on a GPU; steps are captured, a stack of them in one line, and not recorded as CUDA graphs."""

    def graphs(self):
        """None."""

    def wrap_stacked(self, step: Callable, donating: bool):
        """As where there are graphs."""
        if not self.native:
            return super().wrap_stacked(step, donating)
        return self.captured(one_after_another(step, self.xp.stack), donating)


class Watched(TorchDispatchMode):
    """Notes every call of a step that would go wrong on a GPU, or slowly."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.found = 0, dict[str, None]()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self.calls += 1
        self.look(function, args, kwargs)
        if function is loops.operation:
            with self:  # its function's calls are looked at, too
                result: Any = loops.run(*args, **kwargs)
        else:
            result = function(*args, **kwargs)
        for t in tensors(result):
            number = function in NUMBERS and t.ndim == 0
            self.note(t.device != CUDA and not number, f"{function} gives a tensor on {t.device}")
        return result

    def note(self, wrong: bool, sentence: str) -> None:
        """Keep a sentence, once."""
        if wrong:
            self.found[sentence] = None

    def look(self, function: Any, args: tuple, kwargs: dict) -> None:
        """What a call is given."""
        given = tensors((args, kwargs))
        filling = function in MASKING and fills(args)
        for t in given:
            number = t.ndim == 0 and (filling or function in NUMBERS)
            self.note(t.device != CUDA and not number, f"{function} takes a tensor on {t.device}")
        self.note(function in WAITING, f"{function} waits for the GPU")
        masks = function in MASKING and any(t.dtype in (torch.bool, torch.uint8) for t in tensors(args[1]))
        self.note(masks and not filling, f"{function} by a mask waits for the GPU")
        if function in FUSED:
            self.fused(function, args)

    def fused(self, function: Any, args: tuple) -> None:
        """What the CUDA kernels of fused updates ask for: tensors of one layout, and counts on the GPU."""
        lists, count = FUSED[function]
        given = [one for one in args[:lists] if one]
        for of in zip(*given, strict=True):
            alike = {(t.shape, t.dtype, t.device, t.stride()) for t in of}
            self.note(len(alike) > 1 or not dense(of[0]), f"{function} takes tensors of different layouts: {alike}")
        if count is not None:
            odd = [t for t in args[count] if t.dtype != torch.float32 or t.shape != () or t.device != CUDA]
            self.note(bool(odd) or len(args[count]) != len(args[0]), f"{function} takes odd counts of updates: {odd}")


def tensors(tree: Any) -> list[torch.Tensor]:
    """The tensors of any tree."""
    return [t for t in tree_leaves(tree) if isinstance(t, torch.Tensor)]


def fills(args: tuple) -> bool:
    """Whether x[mask] = number is what torch makes a fill of, without asking where the mask holds."""
    if len(args) < 3:
        return False
    x, index, value = args[:3]
    return len(index) == 1 and index[0].shape == x.shape and value.numel() == 1 and value.device.type == "cpu"


@contextmanager
def faked() -> Iterator[None]:
    """CUDA tensors without memory, in a torch that was built for CPUs as well: that one lacks what it asks for the
    current device, and here gets the CPU's in its place."""
    library = next((Path(torch.__file__).parent / "lib").glob("*c10.*"))
    guards = (ctypes.c_void_p * 2).in_dll(ctypes.CDLL(str(library)), GUARDS)
    before = guards[1]
    guards[1] = before or guards[0]
    try:
        rng = mock.patch.object(torch.random, "fork_rng", lambda devices=None: nullcontext())
        known = mock.patch.dict(fake_impls.op_implementations_dict, UNKNOWN)
        with rng, known, FakeTensorMode(allow_fallback_kernels=False):
            yield
    finally:
        guards[1] = before


def backend(combination: Combination) -> Faked:
    """torch's backend on cuda:0."""
    found = Faked(xp, CUDA, combination.dtype, combination.precision, combination.kernels)
    if not combination.bits:
        found.kernels = found.kernels._replace(random_words=any_words, threefry=lambda key, x0, x1: (x0, x1))
    return found


def any_words(key: torch.Tensor, start: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What stands for random words: tensors like them."""
    return tuple(torch.empty(n, dtype=torch.int32, device=key.device) for _ in range(2))  # type: ignore[return-value]


def findings(combination: Combination, thorough: bool = True, change: Callable = lambda kernels: kernels) -> list[str]:
    """What is wrong with a combination's steps, in all modes and thrice each, its first state and its predictions.

    Not thorough: with the modes of its first iteration only, once each where nothing is captured. change: what makes
    other kernels of the backend's.
    """
    start, ends = expected(combination._replace(kernels="", dtype="", precision=""))
    with faked():
        library = backend(combination)
        library.kernels = change(library.kernels)
        watched, found = Watched(), list[str]()
        try:
            found += looked_at(library, combination, thorough, start, ends, watched)
        except Exception as error:
            found.append(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")
    return [*watched.found, *found]


def looked_at(
    library: Faked, combination: Combination, thorough: bool, start: Any, ends: dict, watched: Watched
) -> Iterator[str]:
    """The same, of a backend and of what NumPy gives."""
    case = combination.case()
    algorithm, network = case.build(library.kernels), case.network(library.kernels)
    key, batch = library.key(1), library.batch(*combination.given())
    if thorough and combination.bits:
        with watched:
            made = library.eager(algorithm.init)(key)
        yield from differing("the first state", made, start, combination.dtype)
    captured = library.kernels.name == "native"
    for name in algorithm.modes if thorough else dict.fromkeys(algorithm.schedule(0, 0)):
        step = library.compile(algorithm.modes[name], donate=True, steps=combination.steps)
        new = tree_map(lambda a: library.asarray(np.asarray(a)), start)
        calls = 3 if thorough or captured else 1
        for call in range(calls):  # it is captured twice where a state's first layout is not the steps' own
            before = new
            with nullcontext() if captured and call < 2 else watched:
                new, info = step(before, batch)
        yield from differing(f"{name}'s state", new, ends[name][0], combination.dtype)
        yield from differing(f"{name}'s info", info, ends[name][1], combination.dtype)
        yield from layouts(f"{name}'s state", new, before if calls > 1 else new)
        if captured:
            yield from lines(name, step)
    if thorough and not combination.steps:
        with watched:
            y = library.eager(lambda: predict(network, losses.cross_entropy(), new, batch.x))()
        yield from differing("predictions", (y,), (np.zeros(y.shape),), combination.dtype)


def differing(what: str, found: Any, wanted: Any, dtype: str) -> list[str]:
    """Arrays of another shape or dtype than NumPy's, and those that do not lie on the GPU."""
    elsewhere = [f"{what} has {name} on {t.device}" for name, t in named_leaves(found) if t.device != CUDA]
    return elsewhere + differing_shapes(what, found, wanted, dtype)


def layouts(what: str, found: Any, before: Any) -> list[str]:
    """Arrays of a state with gaps between their entries, or whose layout changes with every step."""
    pairs = zip(named_leaves(found), leaves(before), strict=True)
    return [
        f"{what} has {name} of strides {t.stride()} after {b.stride()}"
        for (name, t), b in pairs
        if not dense(t) or t.stride() != b.stride()
    ]


def lines(name: str, step: Any) -> list[str]:
    """What is wrong with the captured lines of a compiled step."""
    found = []
    if len(step.run.lines) > 2:
        found.append(f"{name} is captured {len(step.run.lines)} times for one shape")
    for line in step.run.lines:
        reason = synchronising(line.module.graph)
        found += [f"{name} cannot be a CUDA graph: {reason}"] * (reason is not None)
        for node in line.module.graph.nodes:
            known = [getattr(line.module, node.target)] if node.op == "get_attr" else [node.meta.get("val")]
            found += [f"{name}'s line has {node} on {t.device}" for t in tensors(known) if t.device != CUDA]
    return found


def tasks() -> dict[str, Callable[[], list[str]]]:
    """The whole product."""
    return {combination.id: partial(findings, combination) for combination in whole()}


def versions() -> dict[str, str]:
    """torch's."""
    return {"torch": torch.__version__}
