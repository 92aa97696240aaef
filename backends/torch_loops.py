"""A loop that a captured step calls as one operation, however often it goes round."""

from collections.abc import Callable

import torch
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from ref_bioplaus.kernels import each as portable_each

LIBRARY = torch.library.Library("ref_bioplaus", "FRAGMENT")
LIBRARY.define("each(int function, int[] starts, Tensor[] arrays) -> Tensor[]")
FUNCTIONS: list[Callable] = []  # of the loops that have been captured, by number


def each(function: Callable, starts: list[int], *arrays: torch.Tensor) -> list[torch.Tensor]:
    """[function(start, *arrays) for every start]; where a step is being captured, as a call of the operation below."""
    if get_proxy_mode() is None:
        return portable_each(function, starts, *arrays)
    FUNCTIONS.append(function)
    return operation(len(FUNCTIONS) - 1, starts, list(arrays))


def run(number: int, starts: list[int], arrays: list[torch.Tensor]) -> list[torch.Tensor]:
    """The loop itself, which runs as its Python code says."""
    return portable_each(FUNCTIONS[number], starts, *arrays)


LIBRARY.impl("each", run, "CompositeExplicitAutograd")
operation = torch.ops.ref_bioplaus.each.default
