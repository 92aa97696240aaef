"""A loop that a captured step calls as one operation, however often it goes round."""

import itertools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ref_bioplaus.backends.base import BackendError
from ref_bioplaus.kernels import each as portable_each

LIBRARY = torch.library.Library("ref_bioplaus", "FRAGMENT")
LIBRARY.define("each(int function, int[] starts, Tensor[] arrays) -> Tensor[]")
NUMBERS = itertools.count()


class Loop:
    """A function that a captured step calls again and again; it lives as long as the step."""

    def __init__(self, function: Callable, tracer: Any):
        """tracer: what the step is traced by, until it has been."""
        self.function, self.tracer, self.number = function, tracer, next(NUMBERS)


LOOPS: weakref.WeakValueDictionary[int, Loop] = weakref.WeakValueDictionary()  # by number, of all steps there are
COLLECTING: list[list[Loop]] = []  # what `collected` gave, the innermost last; one thread traces at a time


class Watch(TorchDispatchMode):
    """Refuses calls of tensors that a step computes: a captured loop would see them as they were when it was traced."""

    def __init__(self, arrays: list[torch.Tensor], tracer: Any):
        """arrays: those that the loop is given; tracer: what the step is traced by."""
        super().__init__()
        self.given, self.tracer = {id(t) for t in arrays}, tracer

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        for t in tree_leaves((args, kwargs)):
            other = isinstance(t, torch.Tensor) and id(t) not in self.given
            if other and get_proxy_slot(t, self.tracer, None) is not None:
                raise BackendError(
                    f"a function given to kernels.each reads an array {tuple(t.shape)} of the step that it was not "
                    "given: name it among each's arrays, and take it as an argument"
                )
        return function(*args, **(kwargs or {}))


@contextmanager
def collected() -> Iterator[list[Loop]]:
    """The list of the loops that are captured inside of the `with`: who keeps it keeps them."""
    loops: list[Loop] = []
    COLLECTING.append(loops)
    try:
        yield loops
    finally:
        COLLECTING.pop()


def each(function: Callable, starts: list[int], *arrays: torch.Tensor) -> list[torch.Tensor]:
    """[function(start, *arrays) for every start]; where a step is being captured, as a call of the operation below."""
    mode = get_proxy_mode()
    if mode is None:
        return portable_each(function, starts, *arrays)
    loop = Loop(function, mode.tracer)
    LOOPS[loop.number] = loop
    COLLECTING[-1].append(loop)
    results = operation(loop.number, starts, list(arrays))
    loop.tracer = None
    return results


def run(number: int, starts: list[int], arrays: list[torch.Tensor]) -> list[torch.Tensor]:
    """The loop itself, which runs as its Python code says."""
    loop = LOOPS[number]
    with nullcontext() if loop.tracer is None else Watch(arrays, loop.tracer):
        return portable_each(loop.function, starts, *arrays)


LIBRARY.impl("each", run, "CompositeExplicitAutograd")
operation = torch.ops.ref_bioplaus.each.default
