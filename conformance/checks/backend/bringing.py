"""Level 0: how arrays come to the subject's library and back: keys, arrays of every layout and kind, batches."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from ref_bioplaus import random
from ref_bioplaus.conformance.cases.cases import as_held
from ref_bioplaus.conformance.checks.alone.bits import KEY, int32
from ref_bioplaus.conformance.checks.alone.exact import Comparison, exact_check
from ref_bioplaus.conformance.checks.outcomes import Check, Subject
from ref_bioplaus.random import normal

SEEDS = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40 + 5, 2**63 - 1)
NO_SEEDS = (-1, 2**63)
SHAPE = (4, 3, 6)
LONG = 70_001
CALLS = 60  # of a function, one after the other


def keys(subject: Subject, comparison: Comparison, mode: str) -> None:
    """The root key of a seed: its upper and lower 32 bits, and what is drawn under it; other seeds are refused."""
    key = subject.own(subject.backend.key)
    drawn = subject.runs(lambda key: random.words((key, "seed"), (3,), subject.backend.kernels), mode)
    for seed in SEEDS:
        words = int32(seed >> 32, seed)
        comparison.expect(f"key({seed})", {"key": words}, {"key": key(seed)})
        comparison.tree(f"words under key({seed})", random.words((words, "seed"), (3,)), drawn(key(seed)))
    for seed in range(CALLS):
        comparison.expect(f"key({seed})", {"key": int32(0, seed)}, {"key": key(seed)})
    comparison.expect("key()", {"key": int32(0, 0)}, {"key": key()})
    for seed in NO_SEEDS:
        try:
            key(seed)
        except Exception:
            continue
        comparison.wrong(f"a key was made of seed {seed}, and nothing was raised")


def layouts(array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The same kind of numbers as NumPy may hold them: every order of the axes, steps, parts, nothing at all."""
    yield "in rows", array
    yield "in columns", np.asfortranarray(array)
    yield "turned", array.transpose(2, 0, 1)
    yield "every other", array[:, ::2, 1::3]
    yield "backwards", array[::-1, :, ::-1]
    yield "one column", array[:, 1, 2]
    yield "axes of one", array[:1, :, 2:3]
    yield "an axis of one", array[:, 1:2]
    yield "large", np.resize(array, (3, 67, 131, 2))
    yield "alike", np.resize(array, (4, 4, 4))
    yield "repeated", np.lib.stride_tricks.as_strided(array, SHAPE, (0, *array.strides[1:]))
    yield "one number", array[2, 1, 3]
    yield "an array ()", array[2:3, 1, 3].reshape(())
    yield "nothing", array[:0]
    yield "long", np.resize(array, LONG)


def given() -> dict[str, np.ndarray]:
    """Numbers of every kind: some that no dtype holds, some that few do, and those at the ends."""
    floats = normal((KEY, "given"), SHAPE, np.float64) * (1.0 + 2.0**-30)
    floats[0, 0, :5] = np.nan, np.inf, -np.inf, 0.0, -1e-30
    integers = np.array(random.words((KEY, "given"), SHAPE)[0])
    integers[0, 0, :3] = 2**31 - 1, -(2**31), 0
    found = {"float64": floats, "float32": -floats.astype(np.float32), "float16": (2 * floats).astype(np.float16)}
    return found | {"int32": integers, "uint8": integers.astype(np.uint8), "bool": integers > 0}


def arrays(subject: Subject, comparison: Comparison, mode: str) -> None:
    """asarray: floats in the subject's dtype, others in their own, any in the one that is named; of every layout."""
    asarray = subject.own(subject.backend.asarray)
    for kind, array in given().items():
        for layout, laid in layouts(array):
            before = np.array(laid)
            comparison.expect(f"{kind}, {layout}", {"array": before}, {"array": asarray(laid)})
            same = np.array_equal(before, laid, equal_nan=array.dtype.kind == "f")
            if not same:
                comparison.wrong(f"asarray wrote into an array of {kind}, {layout}")
        buffer = np.array(array)
        for i in (1, 2):  # written anew, as by who reads one batch after the other into it
            np.copyto(buffer, np.roll(array, i))
            got = {"array": asarray(buffer)}
            comparison.expect(f"{kind}, written anew", {"array": np.roll(array, i)}, got, stays=False)
    dtype = subject.dtype
    small = np.arange(-3, 4)
    for kind in ("int32", "int8", "float64", "float32"):
        for to in (dtype, "int32", "float32"):
            of = small.astype(kind)
            wanted = as_held(of.astype(np.float64), to) if to != "int32" else of.astype(to)
            comparison.expect(f"{kind} as {to}", {"array": wanted}, {"array": asarray(of, to)}, to)
    comparison.expect("bool as a float", {"array": np.eye(3)}, {"array": asarray(np.eye(3) > 0, dtype)})
    comparison.expect("a number", {"array": np.array(0.3)}, {"array": asarray(0.3)})
    comparison.expect("a number", {"array": np.array(7, np.int32)}, {"array": asarray(7, "int32")})


def back(subject: Subject, comparison: Comparison, mode: str) -> None:
    """to_numpy: what was computed, whatever lies where in the library's memory."""
    backend = subject.backend

    def laid(x):
        xp = array_namespace(x)
        return {
            "itself": x, "turned": xp.permute_dims(x, (2, 0, 1)), "backwards": xp.flip(x, axis=1), "above": x > 0,
            "one column": x[:, 1, 2], "repeated": xp.broadcast_to(x[:1, ...], SHAPE), "nothing": x[:0, ...],
            "reshaped": xp.reshape(xp.permute_dims(x, (1, 0, 2)), (-1,)), "part": x[:, 1:3, 2:],
            "integers": xp.astype(x, xp.int32), "sum": xp.sum(x[0, 0, ...]), "joined": xp.concat([x, x], axis=1),
        }  # fmt: skip

    x = np.rint(8.0 * normal((KEY, "back"), SHAPE, np.float64))
    found, expected = subject.runs(laid, mode)(backend.asarray(x)), laid(x)
    comparison.tree("results", expected, found)
    for name, array in found.items():
        wanted = expected[name].dtype.name
        if wanted == "float64":
            wanted = "float32" if subject.dtype == "bfloat16" else subject.dtype
        got = backend.to_numpy(array)
        if not isinstance(got, np.ndarray) or got.dtype != np.dtype(wanted):
            comparison.wrong(f"to_numpy gave {name} as {described(got)}, expected a NumPy array of {wanted}")


def described(thing: Any) -> str:
    """A thing's type, and its dtype where it has one."""
    return f"a {type(thing).__name__} of {getattr(thing, 'dtype', 'no dtype')}"


def batches(subject: Subject, comparison: Comparison, mode: str) -> None:
    """Inputs and targets of every kind become the subject's dtype, each in its own place."""
    batch = subject.own(subject.backend.batch)
    for kind, array in given().items():
        for layout, x in layouts(array):
            if x.ndim > 1 and kind != "int32":
                made = batch(x, np.eye(3, 5, dtype=np.uint8))
                expected = {"x": x.astype(np.float64), "y": np.eye(3, 5)}
                comparison.expect(f"a batch of {kind}, {layout}", expected, made._asdict())


def checks() -> tuple[Check, ...]:
    """How arrays come and go."""
    both = ("eager", "compiled")
    return (
        exact_check("key", "backend", keys, both), exact_check("asarray", "backend", arrays, ("eager",)),
        exact_check("to_numpy", "backend", back, both), exact_check("batch", "backend", batches, ("eager",)),
    )  # fmt: skip
