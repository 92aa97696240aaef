"""What a backend replaces besides kernels is judged: faults in how arrays come and go, and in how steps are run."""

import array_api_compat.numpy as compat
import numpy as np
import pytest

from ref_bioplaus import backends
from ref_bioplaus.backends.numpy_.backend import NumpyBackend
from ref_bioplaus.conformance.checks import runner
from ref_bioplaus.conformance.checks.backend import bringing, running
from ref_bioplaus.conformance.checks.outcomes import MODES, Subject
from ref_bioplaus.tree import leaves, tree_map
from ref_bioplaus.types import Batch, Info
from tests.conftest import get
from tests.helpers import slow, some_slow

CHECKS = {check.id.removeprefix("0/backend/"): check for check in (*bringing.checks(), *running.checks())}
CASES = [(name, "float32") for name in ("numpy", "torch", "jax", "array-api-strict")]
CASES += [("read-only", "float64"), ("torch", "bfloat16")]


def asked(subject, *names):
    """(id, mode) of the checks of some that do not pass, and why."""
    report = runner.run(subject, [CHECKS[name] for name in names or CHECKS], MODES)
    return {(o.id.removeprefix("0/backend/"), o.mode): o.reason for o in report.outcomes if o.state != "pass"}


def wrong(dtype="float32", **methods):
    """A NumPy with other methods."""
    return Subject(type("Wrong", (NumpyBackend,), methods)(compat, "cpu", dtype, "ieee", "portable"))


@pytest.mark.parametrize(("name", "dtype"), some_slow(CASES, lambda name, dtype: name == "jax"))
def test_right_backends_pass(name, dtype):
    assert asked(Subject(get(name, dtype))) == {}


@pytest.mark.parametrize("name", ["numpy", slow("torch", reason="each function is captured anew")])
def test_native_ones_pass(name):
    assert asked(Subject(backends.get(name, kernels="native"))) == {}


# Keys


def key_of(words, check=True):
    """A key of the words of a seed."""

    def key(self, seed=0):
        if check and not 0 <= seed < 1 << 63:
            raise ValueError(seed)
        return self.asarray(np.array([w & 0xFFFFFFFF for w in words(seed)], np.uint32).view(np.int32))

    return key


KEYS = {
    "the upper word forgotten": key_of(lambda seed: (0, seed)),
    "the lower word forgotten": key_of(lambda seed: (seed >> 32, 0)),
    "the wrong order": key_of(lambda seed: (seed, seed >> 32)),
    "a shift by 31": key_of(lambda seed: (seed >> 31, seed)),
    "a seed of 31 bits": key_of(lambda seed: (seed >> 32, seed & 0x7FFFFFFF)),
    "a seed of 53 bits": key_of(lambda seed: (int(float(seed)) >> 32, int(float(seed)))),
    "one more": key_of(lambda seed: (seed >> 32, seed + 1)),
    "any number": key_of(lambda seed: (seed >> 32, seed), check=False),
    "without a sign": lambda self, seed=0: key_of(lambda s: (s >> 32, s))(self, seed).view(np.uint32),
    "wide words": lambda self, seed=0: key_of(lambda s: (s >> 32, s))(self, seed).astype(np.int64),
    "a row": lambda self, seed=0: key_of(lambda s: (s >> 32, s))(self, seed)[None, :],
    "a list": lambda self, seed=0: key_of(lambda s: (s >> 32, s))(self, seed).tolist(),
    "another default": lambda self, seed=1: key_of(lambda s: (s >> 32, s))(self, seed),
}


@pytest.mark.parametrize("fault", KEYS)
def test_a_wrong_key_is_found(fault):
    assert ("key", "eager") in asked(wrong(key=KEYS[fault]), "key")


# Arrays


def brought(change):
    """asarray, its result or its argument changed: change(array, dtype's name, right)."""

    def asarray(self, array, dtype=None):
        array = np.asarray(array)
        return change(array, self.target_dtype(array, dtype), NumpyBackend.asarray)

    return {"asarray": asarray}


def in_memory_order(array, to, right):
    """The numbers as they lie in memory, in the shape that they have."""
    flat = array.ravel(order="K") if array.ndim > 1 else array
    return flat.astype(to).reshape(array.shape)


def cut_to(array, to, right):
    """float64 cut, not rounded, to float32."""
    if array.dtype != np.float64 or to != "float32" or not array.size:
        return array.astype(to)
    near = array.astype(np.float32)
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(near) > np.abs(array), np.nextafter(near, np.float32(0)), near).astype(np.float32)


def remembered():
    """By shape: what came first comes again."""
    known = {}

    def asarray(self, array, dtype=None):
        new = NumpyBackend.asarray(self, array, dtype)
        return known.setdefault((new.shape, new.dtype), new) if new.size == 72 else new

    return {"asarray": asarray}


def once():
    """An array that came before is not looked at again, whatever was written into it."""
    known = {}

    def asarray(self, array, dtype=None):
        place, new = (id(array), dtype), np.array(NumpyBackend.asarray(self, array, dtype))
        return known.setdefault(place, (array, new))[1]

    return {"asarray": asarray}


ARRAYS = {
    "numbers as they lie in memory": (brought(in_memory_order), "float32", "asarray"),
    "cut, not rounded": (brought(cut_to), "float32", "asarray"),
    "by float32": (brought(lambda a, to, right: a.astype(np.float32).astype(to) if a.dtype.kind == "f"
                           else a.astype(to)), "float64", "asarray"),
    "floats as they came": (brought(lambda a, to, right: np.array(a)), "float32", "asarray"),
    "every number a float": (brought(lambda a, to, right: a.astype(np.float32)), "float32", "asarray"),
    "bool as a number": (brought(lambda a, to, right: a.astype("u1" if to == "bool" else to)), "float32", "asarray"),
    "no array ()": (brought(lambda a, to, right: np.atleast_1d(a.astype(to))), "float32", "asarray"),
    "no empty array": (brought(lambda a, to, right: a.astype(to) if a.size else np.zeros((0,), to)), "float32",
                       "asarray"),
    "no NaN": (brought(lambda a, to, right: np.nan_to_num(a.astype(to))), "float32", "asarray"),
    "65,536 at most": (brought(lambda a, to, right: np.where(np.arange(a.size).reshape(a.shape) < 65536, a, 0)
                               .astype(to)), "float32", "asarray"),
    "the first of each shape": (remembered(), "float32", "asarray"),
    "the same array only once": (once(), "float32", "asarray"),
    "the dtype that was asked for ignored": (
        {"asarray": lambda self, a, dtype=None: NumpyBackend.asarray(self, a)}, "float32", "asarray"),
    "turned memory": (
        {"to_numpy": lambda self, a: a.ravel(order="K").reshape(a.shape)}, "float32", "to_numpy"),
    "back as float64": ({"to_numpy": lambda self, a: np.asarray(a, np.float64)}, "float32", "to_numpy"),
    "back as float16": (
        {"to_numpy": lambda self, a: a.astype("f2").astype(a.dtype) if a.dtype.kind == "f" else a}, "float32",
        "asarray"),
    "bools back as numbers": ({"to_numpy": lambda self, a: a * 1}, "float32", "to_numpy"),
    "a number from an array ()": ({"to_numpy": lambda self, a: a if a.ndim else a.item()}, "float32", "to_numpy"),
    "a list": ({"to_numpy": lambda self, a: a.tolist()}, "float32", "to_numpy"),
    "x and y swapped": ({"batch": lambda self, x, y: Batch(self.asarray(y, "float32"), self.asarray(x, "float32"))},
                        "float32", "batch"),
    "images from 0 to 1": (
        {"batch": lambda self, x, y: Batch(self.asarray(x, "float32") / (255 if x.dtype == np.uint8 else 1),
                                           self.asarray(y, "float32"))}, "float32", "batch"),
    "targets as they came": ({"batch": lambda self, x, y: Batch(self.asarray(x, "float32"), self.asarray(y))},
                             "float32", "batch"),
}  # fmt: skip


@pytest.mark.parametrize("fault", ARRAYS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_arrays_that_come_or_go_wrongly_are_found(fault):
    methods, dtype, check = ARRAYS[fault]
    assert (check, "eager") in asked(wrong(dtype, **methods), check)


# Functions


def compiled_by(mark, result=False):
    """wrap, one compilation or result for all that have the same mark (function, arguments)."""
    known = {}

    def wrap(self, step):
        def run(*arguments):
            if not result:
                return known.setdefault(mark(step, arguments), step)(*arguments)
            key = mark(step, arguments)
            if key not in known:
                known[key] = step(*arguments)
            return known[key]

        return self.eager(run)

    return {"wrap": wrap}


def shapes_of(arguments):
    return tuple((a.shape, str(a.dtype)) for a in leaves(arguments))


def over(change):
    """wrap whose results are changed: change(arguments, result)."""
    return {"wrap": lambda self, step: self.eager(lambda *arguments: change(arguments, step(*arguments)))}


def first_shape():
    """wrap that computes in the shape it was first called with: later samples are cut off, or repeated."""

    def wrap(self, step):
        seen = []

        def run(*arguments):
            n = seen[0] if seen else (seen.append(len(arguments[0])) or seen[0]) if arguments[0].ndim else 0
            return step(*(np.resize(a, (n, *a.shape[1:])) if a.ndim else a for a in arguments))

        return self.eager(lambda *a: run(*a) if all(isinstance(x, np.ndarray) for x in a) else step(*a))

    return {"wrap": wrap}


def same_memory():
    """wrap whose results of one shape lie in one memory."""
    memory = {}

    def into(array):
        place = memory.setdefault((array.shape, str(array.dtype)), np.empty_like(array))
        np.copyto(place, array)
        return place

    return over(lambda arguments, result: tree_map(into, result))


def in_order_of_leaves(arguments, result):
    """A result that is an argument comes back as a copy of the argument before."""
    given = leaves(arguments)
    found = [next((g for g in given if g is r), r) for r in leaves(result)]
    again = iter(found[:1] + found[:-1] if len({id(f) for f in found}) < len(found) else found)
    return tree_map(lambda _: next(again), result)


def few_programs(most):
    """wrap that knows so many shapes, and takes the first one's number of samples for every further one."""

    def wrap(self, step):
        seen = []

        def run(*arguments):
            shapes = shapes_of(arguments)
            seen.extend([shapes] * (shapes not in seen and len(seen) < most))
            if shapes in seen or not all(isinstance(a, np.ndarray) and a.ndim for a in arguments):
                return step(*arguments)
            return step(*(np.resize(a, shape) for a, (shape, _) in zip(arguments, seen[0], strict=True)))

        return self.eager(run)

    return {"wrap": wrap}


FUNCTIONS = {
    "eight shapes at most": few_programs(8),
    "results by identity": compiled_by(lambda f, a: (f, tuple(id(x) for x in leaves(a))), result=True),
    "compiled by name": compiled_by(lambda f, a: f if f.__name__ == "<lambda>" else f.__name__),
    "compiled by code": compiled_by(lambda f, a: f.__code__),
    "compiled by line": compiled_by(lambda f, a: f.__code__.co_firstlineno),
    "results by shape": compiled_by(lambda f, a: (f, shapes_of(a)), result=True),
    "results by numbers": compiled_by(lambda f, a: (f, b"".join(x.tobytes() for x in leaves(a))), result=True),
    "the first shape": first_shape(),
    "one memory for results": same_memory(),
    "None forgotten": over(lambda a, r: {k: v for k, v in r.items() if k != "c"} if isinstance(r, dict) else r),
    "lists as tuples": over(lambda a, r: tuple(r) if isinstance(r, list) else r),
    "plain tuples": over(lambda a, r: tuple(r) if hasattr(r, "_fields") else r),
    "aliases mixed up": over(in_order_of_leaves),
    "arguments given back": over(lambda a, r: tree_map(lambda x: a[0] if x.shape == getattr(a[0], "shape", 0) else x,
                                                       r)),
}  # fmt: skip


@pytest.mark.parametrize("fault", FUNCTIONS)
def test_functions_that_are_run_wrongly_are_found(fault):
    found = asked(wrong(**FUNCTIONS[fault]), "functions")
    assert ("functions", "compiled") in found
    assert ("functions", "eager") not in found


def test_eager_functions_are_looked_at_as_well():
    def eager(self, step):
        return lambda *arguments: tree_map(lambda a: np.asanyarray(a) + 0 * np.asanyarray(a)[..., :1], step(*arguments))

    assert ("functions", "eager") in asked(wrong(eager=eager), "functions")


# Steps


def steps(change):
    """compile, its step's results changed: change(state before, batch, results, what the step has of its own)."""

    def compile(self, step, donate=False, keep=None):
        if step is not running.counted and keep == ("los",):
            raise ValueError(keep)
        run, own = NumpyBackend.compile(self, step, donate, keep), {"keep": keep, "donate": donate}
        return lambda state, batch: change(state, batch, run(state, batch), own)

    return {"compile": compile}


def fields(pick):
    """compile with other fields of Info: pick(keep, info)."""
    return steps(lambda state, batch, found, own: (found[0], pick(own["keep"], found[1])))


def everything(self, step, donate=False, keep=None):
    """All fields, whatever was asked for."""
    return NumpyBackend.compile(self, step, donate)


def neighbours(keep, info):
    """The value of the field before."""
    if not keep:
        return info
    values = [getattr(info, name) for name in keep]
    return Info(**dict(zip(keep, values[1:] + values[:1], strict=True)))


def one_buffer(state, batch, found, own):
    """Donated states all written into one memory."""
    if not own["donate"]:
        return found
    own.setdefault("W", np.array(found[0].forward.params[1].W))[...] = found[0].forward.params[1].W
    layer = found[0].forward.params[1]._replace(W=own["W"])
    return found[0]._replace(forward=found[0].forward._replace(params=(found[0].forward.params[0], layer))), found[1]


def into_the_old(state, batch, found, own):
    """A donated W holds the new one, whoever else can see it."""
    if own["donate"]:
        state.forward.params[1].W[...] = found[0].forward.params[1].W
    return found


def into_the_batch(state, batch, found, own):
    """The batch's memory holds something else afterwards."""
    batch.x[...] = 7.0
    return found


def first_sizes(self, step, donate=False, keep=None):
    """The step for the batch size that came first, whatever comes."""
    run, sizes = NumpyBackend.compile(self, step, donate, keep), []

    def cut(state, batch):
        sizes.append(len(batch.x))
        x, y = (np.resize(a, (sizes[0], *a.shape[1:])) for a in batch)
        return run(state, Batch(x, y))

    return cut


def by_name():
    """One compiled step for all of one name."""
    known = {}
    return {"compile": lambda self, step, donate=False, keep=None: known.setdefault(
        (step.__name__, donate, keep), NumpyBackend.compile(self, step, donate, keep))}  # fmt: skip


def with_field(**change):
    """compile whose new states have a field changed: change(old state, new state)."""
    return steps(lambda state, batch, found, own: (
        found[0]._replace(**{name: f(state, found[0]) for name, f in change.items()}), found[1]))  # fmt: skip


def into_a_part(state, batch, found, own):
    """A donated part of the state is emptied, whoever holds it."""
    if own["donate"]:
        state.forward.params[1].local[0]["b"][...] = 0.0
    return found


STEPS = {
    "a part of a donated state written over": (steps(into_a_part), "sequences"),
    "all fields": ({"compile": everything}, "keep"),
    "no fields": (fields(lambda keep, info: Info()), "keep"),
    "the field beside it": (fields(neighbours), "keep"),
    "the loss always": (fields(lambda keep, info: info._replace(loss=np.zeros(6, np.float32))), "keep"),
    "deltas without their None": (
        fields(lambda keep, info: info if info.delta is None else info._replace(delta=info.delta[1:])), "keep"),
    "any name": (
        {"compile": lambda self, step, donate=False, keep=None: NumpyBackend.compile(
            self, step, donate, None if keep is None else tuple(k for k in keep if k in Info._fields))}, "keep"),
    "the first size": ({"compile": first_sizes}, "sequences"),
    "one step of each name": (by_name(), "sequences"),
    "one memory for all": (steps(one_buffer), "sequences"),
    "a donated W written over": (steps(into_the_old), "sequences"),
    "the batch written over": (steps(into_the_batch), "sequences"),
    "t that stays": (with_field(t=lambda old, new: old.t), "sequences"),
    "a key that is lost": (with_field(key=lambda old, new: None), "sequences"),
    "statistics that stay": (with_field(stats=lambda old, new: old.stats), "sequences"),
    "feedback that stays": (with_field(feedback=lambda old, new: old.feedback), "sequences"),
    "memories that are lost": (with_field(forward=lambda old, new: new.forward._replace(memory=())), "sequences"),
}  # fmt: skip


@pytest.mark.parametrize("fault", STEPS)
def test_steps_that_are_run_wrongly_are_found(fault):
    methods, check = STEPS[fault]
    found = asked(wrong(**methods), check)
    assert (check, "donating") in found
    assert (check, "eager") not in found


FACTS = {"on_gpu": property(lambda self: None), "free_bytes": lambda self: 0,
         "peak_bytes": lambda self: -5, "synchronize": lambda self: self}  # fmt: skip


@pytest.mark.parametrize("fault", FACTS)
def test_facts_that_cannot_be_are_found(fault):
    assert fault in asked(wrong(**{fault: FACTS[fault]}), "facts")["facts", "eager"]


def test_a_view_that_a_donating_step_writes_over_is_found():
    """The fault of one_buffer, seen by who kept what to_numpy gave."""
    found = asked(wrong(**steps(into_the_old)), "sequences, wide")
    assert ("sequences, wide", "donating") in found
    assert ("sequences, wide", "compiled") not in found
