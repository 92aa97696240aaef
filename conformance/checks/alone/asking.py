"""Level 0's questions: a function of arrays, the calls that are made of it, and what has to come of them.

All calls of a question go to one function, the first of them again at the end, and the results are looked at after the
last of them: memory that a later call writes over, and what was kept of an earlier one, show. Arguments must stay what
they were; results are of the subject's library, dtype and device. Eagerly the first call is made once more with
arguments that lie otherwise in memory.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, device

from ref_bioplaus.conformance.cases.cases import as_held, root
from ref_bioplaus.conformance.checks.outcomes import Check, Finding, Subject
from ref_bioplaus.conformance.judging.judge import Expected, Score, bounded, judge, named
from ref_bioplaus.conformance.judging.rounding import PRECISIONS, Rounded, Rounding
from ref_bioplaus.kernels import PORTABLE
from ref_bioplaus.random import normal
from ref_bioplaus.types import Array, Shape

SEEDS = (0, 1, 2)
BOTH, COMPILED = ("eager", "compiled"), ("compiled",)
Arrays = tuple[np.ndarray, ...]
Prepare = Callable[..., Arrays]  # normal numbers of the question's shapes -> the arguments


class Call(NamedTuple):
    """Arguments, and what a finding names them by."""

    name: str
    arrays: Arrays


class Question(NamedTuple):
    """A function of arrays, and the calls that are made of it, in order."""

    name: str  # "batch_norm/images": the family, and what of it
    compute: Callable[..., dict[str, Any]]  # kernels, arrays -> results by name
    calls: Callable[[str], Iterable[Call]]  # of a dtype
    modes: tuple[str, ...] = BOTH
    bounds: float = 0.0  # judged by so many of the rigorous bound's units in the last place; 0: by the variance
    more: Callable[[str], Iterable[Call]] = lambda dtype: ()  # made too, eagerly, where that compiles no shape

    @property
    def check(self) -> Check:
        """The question as a check of level 0."""
        return Check(f"0/{self.name}", 0, self.name.split("/")[0], self.ask, self.modes)

    def ask(self, subject: Subject, mode: str) -> Finding:
        """What a subject answers."""
        backend, tiny = subject.backend, PRECISIONS[subject.dtype, subject.backend.precision].tiny
        found = subject.runs(lambda *arrays: self.compute(backend.kernels, *arrays), mode)
        wanted, undecidable = expected(self.calls, self, subject.dtype, backend.precision)
        asked, answers = [(*call, found) for call in (*wanted, *wanted[:1])], []
        if not backend.compiles:
            eager = subject.runs(lambda *arrays: self.compute(backend.kernels, *arrays), "eager")
            asked += [(*call, eager) for call in expected(self.more, self, subject.dtype, backend.precision)[0]]
        if mode == "eager":
            strided = subject.runs(lambda *arrays: self.compute(backend.kernels, *map(turned, arrays)), mode)
            asked += [
                (f"{name}, in another order in memory", [spread(a) for a in inputs], tensors, strided)
                for name, inputs, tensors in wanted[:1]
            ]
        for name, inputs, tensors, function in asked:
            given = [backend.asarray(np.array(a)) for a in inputs]
            with np.errstate(all="ignore"):
                answers.append((name, tensors, function(*given)))
            for i, (a, b) in enumerate(zip(inputs, given, strict=True)):
                if not np.array_equal(a, backend.to_numpy(b).astype(a.dtype), equal_nan=a.dtype.kind == "f"):
                    return Finding(problem=f"{name}: it wrote into its argument {i}")
        scores: list[Score] = []
        for name, tensors, got in answers:
            if problem := misplaced(subject, tensors, got):
                return Finding(tuple(scores), f"{name}: {problem}")
            arrays = {n: backend.to_numpy(a) for n, a in got.items()}
            scores += named(judge(Expected(tensors, 0, tiny), arrays), name)
        return Finding(tuple(scores), undecidable=0 if scores else undecidable)


@lru_cache(maxsize=2)  # the modes of a check follow each other
def expected(
    calls: Callable[[str], Iterable[Call]], question: Question, dtype: str, precision: str
) -> tuple[tuple, int]:
    """(name, arguments, results) of every call whose decisions are beyond doubt, and how many decisions are not."""
    found, undecidable = [], 0
    for name, arrays in calls(dtype):
        inputs = [as_held(np.asarray(a), dtype) for a in arrays]
        space = Rounding(PRECISIONS[dtype, precision], dtype)
        with np.errstate(all="ignore"):
            tensors = question.compute(PORTABLE, *map(space.exact, inputs))
            if question.bounds:
                tensors = {n: bounded(widened(tensor, question.bounds)) for n, tensor in tensors.items()}
        undecidable += space.undecidable
        if not space.undecidable:
            found.append((name, inputs, tensors))
    return tuple(found), undecidable


def spread(a: np.ndarray) -> np.ndarray:
    """What `turned` makes an array of: its axes in the other order, or every number twice."""
    return np.repeat(a, 2) if a.ndim == 1 else np.ascontiguousarray(np.transpose(a)) if a.ndim else a


def turned(a: Array) -> Array:
    """An array whose neighbours do not lie side by side in memory, where a library's arrays tell of that."""
    return (
        a if not a.ndim else a[::2] if a.ndim == 1 else array_namespace(a).permute_dims(a, tuple(range(a.ndim))[::-1])
    )


def widened(tensor: Rounded, times: float) -> Rounded:
    """The tensor with so many times its bound."""
    return tensor if tensor.s is None else Rounded(tensor.space, tensor.v, tensor.s, times * tensor.b)


def misplaced(subject: Subject, tensors: Mapping[str, Rounded], got: Mapping[str, Array]) -> str:
    """A sentence on the first result of another library, dtype or device than it should have; "" for none."""
    like = subject.backend.asarray(np.zeros(2))
    for name, leaf in got.items():
        if type(leaf) is not type(like):
            return f"{name} is a {type(leaf).__name__}, expected {type(like).__name__}"
        dtype, wanted = str(leaf.dtype).rpartition(".")[2], name in tensors and str(tensors[name].dtype)
        if wanted and dtype != wanted and not (wanted == "int64" and dtype == "int32"):  # an index has either
            return f"{name} has dtype {dtype}, expected {wanted}"
        if device(leaf) != device(like):
            return f"{name} is on {device(leaf)}, expected {device(like)}"
    return ""


def drawn(name: str, shapes: Iterable[Shape], seed: int = 0) -> Arrays:
    """Normal numbers of some shapes, by address."""
    return tuple(normal((root(seed), name, i), shape, np.float64) for i, shape in enumerate(shapes))


def as_drawn(*arrays: np.ndarray) -> Arrays:
    """The arguments as they are."""
    return arrays


def question(
    name: str, shapes: Iterable[Shape], compute: Callable[..., dict[str, Any]],
    values: Mapping[str, Callable] | None = None, modes: tuple[str, ...] = BOTH,
    bounds: float = 0.0,
) -> Question:  # fmt: skip
    """A question on arguments of fixed shapes: normal numbers of three seeds, and then other values by what they are.

    values: functions of the normal numbers, the first of which takes the place of these; `of_dtype` marks those that
    hang on the dtype.
    """
    shapes, kinds = tuple(shapes), dict[str, Callable](values or {"": as_drawn})

    def calls(dtype):
        for i, (kind, prepare) in enumerate(kinds.items()):
            prepare = prepare(dtype) if getattr(prepare, "of_dtype", False) else prepare
            for seed in SEEDS if i == 0 else SEEDS[:1]:
                label = f"{kind}, seed {seed}" if kind and i == 0 else kind or f"seed {seed}"
                yield Call(label, prepare(*drawn(name, shapes, seed)))

    return Question(name, compute, calls, modes, bounds)


def of_dtype(prepare: Callable[[str], Prepare]) -> Callable[[str], Prepare]:
    """Marks a function of a dtype that gives the function of normal numbers."""
    prepare.of_dtype = True  # type: ignore[attr-defined]
    return prepare
