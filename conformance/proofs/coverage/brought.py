"""What a backend brings, name by name: its kernels with their arguments, its own functions; and a fault in each."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import array_api_compat.numpy as compat
import numpy as np

from ref_bioplaus import kernels as portable
from ref_bioplaus import local
from ref_bioplaus.backends import Backend
from ref_bioplaus.backends.numpy_.backend import NumpyBackend
from ref_bioplaus.conformance.checks.outcomes import Subject
from ref_bioplaus.kernels import PORTABLE, Kernels
from ref_bioplaus.random import normal_table
from ref_bioplaus.tree import leaves, tree_map, unflatten
from ref_bioplaus.types import Info

ARRAYS = {"W", "x", "B", "u", "first", "dy", "gamma", "beta", "cache", "y", "p", "g", "v", "m", "key", "a", "b",
          "function", "arrays"}  # fmt: skip  # what a kernel computes with: no options
SIDES = ("kernel", "stride", "padding")  # of a Window
CHANGED: dict[str, Callable[[Any], Any]] = {  # what an argument is taken for that is not looked at
    "epsilon": lambda given: 1e-5,
    "nonlinearity": lambda given: local.tanh.build((3,)),
    "axes": lambda given: (0,),
    "keep": lambda given: [1.0] * len(given),
    "eta": lambda given: 0.05,
    "momentum": lambda given: 0.9,
    "nesterov": lambda given: False,
    "correction": lambda given: (1.0, 1.0),
    "b1": lambda given: 0.9,
    "b2": lambda given: 0.999,
    "form": lambda given: "paper",
    "start": lambda given: 0,
    "n": lambda given: min(given, 64),
    "starts": lambda given: [given[0]] * len(given),
    "kernel": lambda window: replace(window, kernel=window.kernel[::-1]),
    "stride": lambda window: replace(window, stride=window.stride[::-1]),
    "padding": lambda window: replace(window, padding=tuple(side[::-1] for side in window.padding)),
}


def kernel_names() -> Iterator[str]:
    """Every kernel, and every argument of one that is no array: "conv_apply", "conv_apply.window.stride"."""
    for name in Kernels._fields[1:]:
        kernel = getattr(PORTABLE, name) or getattr(portable, name, None)
        yield name
        for argument in inspect.signature(kernel).parameters if callable(kernel) and name != "threefry" else ():
            if argument == "window":
                yield from (f"{name}.window.{side}" for side in SIDES)
            elif argument not in ARRAYS:
                yield f"{name}.{argument}"


def backend_names() -> Iterator[str]:
    """Every public name of a Backend, and every option of its functions: "compile", "compile.keep"."""
    for name, thing in inspect.getmembers_static(Backend):
        if not name.startswith("_"):
            yield name
            given = inspect.signature(thing).parameters.values() if inspect.isfunction(thing) else ()
            yield from (f"{name}.{p.name}" for p in given if p.default is not p.empty and name != "key")


def kernel_fault(name: str) -> Subject:
    """A NumPy with one kernel wrong by a thousandth, or with one of its arguments not looked at."""
    kernel_name, _, option = name.partition(".")
    option, _, side = option.partition(".")
    kernel: Any = getattr(PORTABLE, kernel_name) or getattr(portable, kernel_name, None)
    mine = right_one()
    if kernel_name == "normal_table":
        wrong: Any = np.array(normal_table())
        wrong[len(wrong) // 3] *= 1.001
        wrong = mine.asarray(wrong)
    elif option:
        wrong = not_looking(kernel, option, CHANGED[side or option])
    else:
        wrong = last_for_first if kernel_name == "each" else slightly_wrong(kernel)
    mine.kernels = mine.kernels._replace(**{kernel_name: wrong})
    return Subject(mine)


def slightly_wrong(kernel: Callable) -> Callable:
    """A kernel whose first result is off by a thousandth, or by a bit where it is an integer."""

    def run(*arguments: Any) -> Any:
        found = kernel(*arguments)
        first, *rest = leaves(found)
        wrong = first * 1.001 if first.dtype.kind == "f" else first ^ 1
        return unflatten(found, [wrong, *rest])

    return run


def not_looking(kernel: Callable, option: str, change: Callable[[Any], Any]) -> Callable:
    """A kernel that takes another value for one of its arguments."""
    place = list(inspect.signature(kernel).parameters).index(option)

    def run(*arguments: Any) -> Any:
        return kernel(*arguments[:place], change(arguments[place]), *arguments[place + 1 :])

    return run


def last_for_first(function: Callable, starts: list[int], *arrays: Any) -> list:
    """Tiles, of which the first stands for the last as well."""
    found = portable.each(function, starts, *arrays)
    return [*found[:-1], found[0]]


def with_first_result(run: Callable) -> Callable:
    """A function that keeps its first result."""
    kept: list[Any] = []

    def again(*arguments: Any, **options: Any) -> Any:
        if not kept:
            kept.append(run(*arguments, **options))
        return kept[0]

    return again


def of_the_first(run: Callable) -> Callable:
    """Steps on a stack that learn from its first batch every time."""

    def again(state: Any, key: Any, batches: Any, **options: Any) -> Any:
        return run(state, key, tree_map(lambda a: np.stack([a[0, ...]] * len(a)), batches), **options)

    return again


def in_memory_order(array: Any) -> np.ndarray:
    """The numbers as they lie in memory."""
    found = np.asarray(array)
    return found.ravel(order="K").reshape(found.shape)


def coarse(array: np.ndarray) -> np.ndarray:
    """Floats as float16 has them."""
    return array.astype(np.float16).astype(array.dtype) if array.dtype.kind == "f" else array


def turned(arrays: dict[str, Any]) -> dict[str, Any]:
    """Filters with height and width exchanged where they have both."""
    return {name: np.swapaxes(a, -1, -2) if a.ndim == 4 else a for name, a in arrays.items()}


def without_info(step: Callable) -> Callable:
    """A step that tells nothing."""
    return lambda state, batch: (step(state, batch)[0], Info())


def with_old_stats(found: Any, stats: Any) -> Any:
    """Parameters that were brought in, and the statistics that were there."""
    return found if stats is None else (found[0], stats)


Method = Callable[..., Any]
METHODS: dict[str, Callable[[Method], Method]] = {  # from the right one to a wrong one
    "asarray": lambda right: lambda array, dtype=None: right(in_memory_order(array), dtype),
    "asarray.dtype": lambda right: lambda array, dtype=None: right(array),
    "to_numpy": lambda right: lambda array: coarse(right(array)),
    "batch": lambda right: lambda x, y: right(x, np.flip(y, axis=-1)),
    "key": lambda right: lambda seed=0: right(seed & 0xFFFFFFFF),
    "target_dtype": lambda right: lambda array, dtype: dtype or "float32",
    "compile": lambda right: lambda step, donate=False, keep=None, steps=None: right(
        without_info(step), donate, keep, steps),
    "compile.donate": lambda right: lambda step, donate=False, keep=None, steps=None: right(step, False, keep, steps),
    "compile.keep": lambda right: lambda step, donate=False, keep=None, steps=None: right(step, donate, steps=steps),
    "compile.steps": lambda right: lambda step, donate=False, keep=None, steps=None: right(
        step, donate, keep, steps and 9),
    "eager": lambda right: lambda step: with_first_result(right(step)),
    "wrap": lambda right: lambda step: with_first_result(right(step)),
    "wrap_donating": lambda right: lambda step: with_first_result(right(step)),
    "wrap_stacked": lambda right: lambda step, donating: of_the_first(right(step, donating)),
    "probe": lambda right: lambda: "tf32",
    "export_params": lambda right: lambda *given: turned(right(*given)),
    "export_params.stats": lambda right: lambda net, params, stats=None, *more: right(net, params, None, *more),
    "export_params.inverse": lambda right: lambda net, params, stats=None, inverse=None: right(net, params, stats),
    "import_params": lambda right: lambda net, params, arrays, *more: right(net, params, turned(arrays), *more),
    "import_params.stats": lambda right: lambda net, params, arrays, stats=None, *more: with_old_stats(
        right(net, params, arrays, stats, *more), stats),
    "import_params.inverse": lambda right: lambda net, params, arrays, stats=None, inverse=None: right(
        net, params, arrays, stats),
}  # fmt: skip


def backend_fault(name: str) -> Subject:
    """A NumPy with one of a backend's functions wrong, or with one of their options not looked at."""
    mine, method = right_one(), name.partition(".")[0]
    setattr(mine, method, METHODS[name](getattr(mine, method)) if name in METHODS else True)
    return Subject(mine)


def right_one() -> NumpyBackend:
    """NumPy in float32 with portable kernels."""
    return NumpyBackend(compat, "cpu", "float32", "ieee", "portable")
