"""JAX's steps lowered for CUDA, which needs no GPU, and what is found in the StableHLO that XLA would be given.

It says in which precision XLA is asked to multiply, what it may write over and that it gets nothing from the host; not
what XLA makes of it.
"""

import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as xp

from ref_bioplaus.backends.jax_.backend import JaxBackend
from ref_bioplaus.backends.jax_.kernels import native_kernels
from ref_bioplaus.tree import leaves
from tests.gpu_check.product import Combination, differing_shapes, expected, whole

PRECISIONS = {"ieee": "HIGHEST", "tf32": "HIGH", "bf16": "DEFAULT"}  # what is asked of XLA
LARGEST = 1 << 20  # bytes of a constant
BYTES = {"f64": 8, "i64": 8, "ui64": 8, "f32": 4, "i32": 4, "ui32": 4, "bf16": 2, "f16": 2, "i16": 2, "i8": 1, "i1": 1}
MOVES = {  # what gives the numbers that it takes, and zeros
    "transpose", "reshape", "broadcast_in_dim", "concatenate", "slice", "dynamic_slice", "pad", "reverse", "copy",
    "optimization_barrier", "convert",
}  # fmt: skip


class Lowering(JaxBackend):
    """JAX's backend, its kernels those for GPUs; what it compiles is kept to be lowered."""

    jitted: Any

    def native_kernels(self):
        """JAX's forms for a GPU."""
        return native_kernels("gpu", self.dtype, self.precision)

    def jit(self, step: Callable, **options: Any):
        """As JAX's, and kept."""
        self.jitted = super().jit(step, **options)
        return self.jitted


class Call(NamedTuple):
    """One operation of StableHLO's text."""

    name: str
    operands: tuple[str, ...]
    text: str


def backend(combination: Combination) -> Lowering:
    """JAX's backend as for a GPU, its arrays on the CPU."""
    found = Lowering(xp, jax.devices("cpu")[0], combination.dtype, combination.precision, combination.kernels)
    if not combination.bits:
        found.kernels = found.kernels._replace(random_words=any_words, threefry=lambda key, x0, x1: (x0, x1))
    return found


def any_words(key: Any, start: int, n: int) -> tuple:
    """What stands for random words: arrays like them."""
    return tuple(xp.broadcast_to(key[i], (n,)) for i in range(2))


def findings(
    combination: Combination, thorough: bool = True, change: Callable = lambda kernels: kernels, donate: bool = True
) -> list[str]:
    """What is wrong with a combination's lowered steps, in all modes, and its first state.

    64-bit types are on, as after somebody's float64 run in the same process: whatever is one here was not asked for.
    Not thorough: with the modes of its first iteration only. change: what makes other kernels of the backend's.
    """
    with jax.enable_x64(True):
        library = backend(combination)
        library.kernels = change(library.kernels)
        try:
            return [*looked_at(library, combination, thorough, donate)]
        except Exception as error:
            return [f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"]


def looked_at(library: Lowering, combination: Combination, thorough: bool, donate: bool) -> Iterator[str]:
    """The same, of a backend."""
    case, dtype = combination.case(), combination.dtype
    start, ends = expected(combination._replace(kernels="", dtype="", precision=""))
    algorithm, key = case.build(library.kernels), jax.ShapeDtypeStruct((2,), xp.int32)
    state, batch = jax.eval_shape(algorithm.init, key), library.batch(*combination.given())
    yield from differing_shapes("the first state", state, start, dtype)
    if thorough and combination.bits:
        library.jit(algorithm.init)
        yield from (f"the first state: {said}" for said in of_text(lowered(library.jitted, key), combination))
    for name in algorithm.modes if thorough else dict.fromkeys(algorithm.schedule(0, 0)):
        library.compile(algorithm.modes[name], donate=donate, steps=combination.steps)
        given = state._replace(key=None), key, batch
        traced = library.jitted.trace(*given)
        new, info = traced.out_info
        yield from differing_shapes(f"{name}'s state", new, ends[name][0]._replace(key=None), dtype)
        yield from differing_shapes(f"{name}'s info", info, ends[name][1], dtype)
        text = lowered(library.jitted, *given)
        yield from (f"{name}: {said}" for said in of_text(text, combination))
        yield from (f"{name}: {said}" for said in donated(text, len(leaves(given[0]))))


def lowered(jitted: Any, *given: Any) -> str:
    """A function's StableHLO for CUDA."""
    return jitted.trace(*given).lower(lowering_platforms=("cuda",)).as_text()


def of_text(text: str, combination: Combination) -> Iterator[str]:
    """What is wrong with StableHLO, whichever its arguments."""
    for function in re.split(r"\n  func\.func ", text)[1:]:
        calls = {name: call for line in function.splitlines() for name, call in read(line)}
        for name, call in calls.items():
            if call.name in ("dot_general", "convolution"):
                yield from of_product(name, call, calls, combination)
            if call.name == "constant" and (size := size_of(call.text)) > LARGEST:
                yield f"a constant of {size} bytes: {call.text[-60:]}"
    for target in sorted(set(re.findall(r"custom_call @(\w+)", text))):
        yield f"it calls {target}"
    for word in sorted(set(re.findall(r"stablehlo\.(infeed|outfeed|send|recv)\b", text))):
        yield f"it exchanges data with the host: {word}"
    if combination.dtype != "float64" and re.search(r"\bf64\b|xf64>", text):
        yield f"float64 in a run of {combination.dtype}"


def read(line: str) -> Iterator[tuple[str, Call]]:
    """The name of a line's result, and the operation, where it is one."""
    found = re.match(r'\s*(%\w+)(?::\d+)? = "?(?:stablehlo\.)?([\w.]+)"?(.*)', line)
    if found:
        name, operation, rest = found.groups()
        before = rest.split(" : ")[0] if operation != "constant" else ""
        yield name, Call(operation, tuple(re.findall(r"%\w+", before)), rest)


def of_product(name: str, call: Call, calls: dict[str, Call], combination: Combination) -> Iterator[str]:
    """What is wrong with one product: its precision, and what its operands went through."""
    asked = re.findall(r"\b(HIGHEST|HIGH|DEFAULT)\b", call.text) or ["DEFAULT", "DEFAULT"]
    if {*asked} != {PRECISIONS[combination.precision]} or "algorithm" in call.text:
        yield f"{call.name} in {'/'.join(asked)}, not in {PRECISIONS[combination.precision]}"
    if (combination.kernels, combination.precision) == ("native", "bf16"):
        for operand in call.operands[:2]:
            if not rounded(operand, calls):
                yield f"{call.name} of an operand that was not rounded to bfloat16"


def rounded(name: str, calls: dict[str, Call]) -> bool:
    """Whether all that a value is made of was rounded to bfloat16, or is a constant."""
    call = calls.get(name)
    if call is None:
        return False
    if call.name == "reduce_precision":
        return "e8m7" in call.text
    if call.name == "constant":
        return True
    moved = call.operands[:1] if call.name == "dynamic_slice" else call.operands
    moves = call.name in MOVES or (call.name == "call" and bool(re.match(r" @_flip(_\d+)?\(", call.text)))
    return moves and all(rounded(operand, calls) for operand in moved)


def size_of(text: str) -> int:
    """The bytes of a constant: 0 for one number in all places, which takes no memory."""
    shape = re.search(r": tensor<((?:\d+x)*)(\w+)>\s*(?:loc.*)?$", text)
    if shape is None or not re.search(r'dense<["\[]', text):
        return 0
    return math.prod(map(int, shape[1].split("x")[:-1])) * BYTES[shape[2]]


def donated(text: str, n: int) -> Iterator[str]:
    """Whether the first n arguments, the state's arrays, are those that are given away."""
    main = re.search(r"func\.func public @main\((.*?)\) -> ", text, re.DOTALL)
    arguments = re.split(r", (?=%arg\d+: )", main[1]) if main else []
    given = [bool(re.search(r"tf\.aliasing_output|jax\.buffer_donor", argument)) for argument in arguments]
    kept = [i for i in range(n) if not given[i : i + 1] or not given[i]]
    if kept:
        yield f"arguments {kept} of the state's {n} are not donated"
    if any(given[n:]):
        yield f"arguments {[i for i in range(n, len(given)) if given[i]]} are donated and no part of the state"


def tasks() -> dict[str, Callable[[], list[str]]]:
    """The whole product."""
    return {combination.id: partial(findings, combination) for combination in whole()}


def versions() -> dict[str, str]:
    """JAX's."""
    return {"jax": jax.__version__}
