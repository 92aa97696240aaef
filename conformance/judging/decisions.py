"""How the implementation under test decided: every comparison, sign, ceiling and largest index of a step, in order.

A step runs on arrays that wrap the subject's own, through its own namespace, eagerly or inside its compiler; what it
decides comes back beside what it computes. The judge takes these decisions where a correct implementation might have
decided otherwise, and counts those that differ where it might not.
"""

from collections.abc import Callable
from typing import Any

from array_api_compat import array_namespace, device

from ref_bioplaus.kernels import PORTABLE, Kernels
from ref_bioplaus.tree import leaves, tree_map
from ref_bioplaus.types import Array

DECIDING = ("activation", "activation_backward", "max_pool")  # kernels whose portable form decides


class HostTransfer(TypeError):
    """A step asked an array for its values, which a compiler does not have."""


class InPlace(TypeError):
    """A step wrote into an array, which not every library can."""


class Recorded:
    """An array of the subject, whose decisions are written down. It refuses to leave the device."""

    __slots__ = ("array", "space")

    def __init__(self, space: "Recording", array: Array):
        self.space, self.array = space, array

    shape = property(lambda self: self.array.shape)
    ndim = property(lambda self: self.array.ndim)
    dtype = property(lambda self: self.array.dtype)
    device = property(lambda self: device(self.array))

    def __array_namespace__(self, api_version=None):
        """The namespace that made it."""
        return self.space

    def __getitem__(self, index):
        return Recorded(self.space, self.array[index])

    def __setitem__(self, index, value):
        raise InPlace("an array is written to in place")

    def __len__(self):
        return self.array.shape[0]

    def __neg__(self):
        return Recorded(self.space, -self.array)

    @property
    def T(self):
        """A matrix transposed."""
        return Recorded(self.space, self.array.T)

    @property
    def mT(self):
        """Matrices transposed."""
        return self.space.matrix_transpose(self)

    def __abs__(self):
        return self.space.abs(self)

    __hash__ = None  # type: ignore[assignment]


def refusal(name: str) -> Callable:
    """A method that would bring values to the host."""

    def refuse(self, *arguments, **options):
        raise HostTransfer(f"{name} of an array")

    return refuse


for _name in ("bool", "float", "int", "complex", "index", "array"):
    setattr(Recorded, f"__{_name}__", refusal(f"__{_name}__"))
for _name in ("item", "tolist", "numpy"):
    setattr(Recorded, _name, refusal(_name))


def operator(name: str, decides: bool) -> Callable:
    """A binary operator of the wrapped arrays."""

    def apply(self, other):
        result = getattr(self.array, name)(other.array if isinstance(other, Recorded) else other)
        return self.space.decided(result, self.array) if decides else Recorded(self.space, result)

    return apply


for _name in ("add", "sub", "mul", "truediv", "floordiv", "pow", "matmul", "and", "or", "xor"):
    setattr(Recorded, f"__{_name}__", operator(f"__{_name}__", False))
    setattr(Recorded, f"__r{_name}__", operator(f"__r{_name}__", False))
for _name in ("lshift", "rshift"):
    setattr(Recorded, f"__{_name}__", operator(f"__{_name}__", False))
for _name in ("gt", "ge", "lt", "le", "eq", "ne"):
    setattr(Recorded, f"__{_name}__", operator(f"__{_name}__", True))


class Recording:
    """The subject's namespace, on wrapped arrays."""

    __name__ = "ref_bioplaus.conformance.judging.decisions"

    def __init__(self, xp: Any):
        self._xp = xp
        self.decisions: list[Any] = []

    def decided(self, result: Array, about: Array) -> Recorded:
        """A result that decides, written down where it is about floats."""
        if self._xp.isdtype(about.dtype, "real floating") or "float" in str(about.dtype):
            self.decisions.append(result)
        return Recorded(self, result)

    def __getattr__(self, name: str):
        thing = getattr(self._xp, name)
        if not callable(thing) or isinstance(thing, type) or name.startswith(("float", "int", "bfloat", "bool")):
            return thing

        def call(*arguments, **options):
            raw = tree_map(unwrapped, list(arguments)), {k: unwrapped(v) for k, v in options.items()}
            result = thing(*raw[0], **raw[1])
            if name in ("sign", "ceil", "argmax"):
                return self.decided(result, raw[0][0])
            return Recorded(self, result) if hasattr(result, "shape") else result

        return call


def unwrapped(value: Array):
    """The subject's own array."""
    return value.array if isinstance(value, Recorded) else value


def recordable(kernels: Kernels) -> Kernels:
    """The same kernels for wrapped arrays.

    One that is not the portable one gets the subject's own arrays, as it may call functions of its library. What it
    decides inside cannot be seen: the portable one decides beside it, on the same numbers.
    """

    def wrapped(name, kernel):
        def run(*arguments, **options):
            space = next((a.space for a in leaves((arguments, options)) if isinstance(a, Recorded)), None)
            if name in DECIDING:
                getattr(PORTABLE, name)(*arguments, **options)
            result = kernel(*tree_map(unwrapped, arguments), **tree_map(unwrapped, options))
            return tree_map(lambda a: Recorded(space, a) if space and hasattr(a, "shape") else a, result)

        return run

    own = {name: getattr(kernels, name) for name in Kernels._fields if callable(getattr(kernels, name))}
    foreign = {name: kernel for name, kernel in own.items() if kernel is not getattr(PORTABLE, name) and name != "each"}
    return kernels._replace(**{name: wrapped(name, kernel) for name, kernel in foreign.items()}, each=PORTABLE.each)


def recorded(step: Callable) -> Callable:
    """(state, batch) -> (state, info, decisions), the step on wrapped arrays."""

    def run(state, batch):
        space = Recording(array_namespace(batch.x))
        new, info = step(*(tree_map(lambda a: Recorded(space, a), tree) for tree in (state, batch)))
        return tree_map(unwrapped, new), tree_map(unwrapped, info), tuple(space.decisions)

    return run
