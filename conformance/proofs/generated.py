"""Wrong backends made from the code: every function that a third party replaces x every way to be wrong (kinds.py).

The functions are the fields of `Kernels`, the functions and operators of the array namespace that the library's own
source calls, and the methods of `Backend` that hand arrays on. A mutant is drawn uniformly over the pairs of function
and kind, then its parameters, by a seed and an index; both stand in its name. None is taken out for what comes of it.
They live on NumPy in float32.
"""

import ast
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from inspect import signature
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import array_api_compat.numpy as compat
import numpy as np

from ref_bioplaus import kernels as portable
from ref_bioplaus.backends import Backend
from ref_bioplaus.backends.numpy_.backend import NumpyBackend
from ref_bioplaus.conformance.checks.outcomes import Subject
from ref_bioplaus.conformance.proofs.kinds import KINDS
from ref_bioplaus.conformance.proofs.mistakes import Drawn, Facts, Kind
from ref_bioplaus.conformance.proofs.special import SPECIAL
from ref_bioplaus.kernels import Kernels
from ref_bioplaus.tree import tree_map

LIBRARY = Path(portable.__file__).parent
ROOMS = (".", "algorithms", "models")  # whose code runs on the subject's arrays
NOT_TRIED = {  # of the table and of Backend, and why
    "name": "a label", "mean_of_product": "both of its values are right", "drawn": "every number is right",
    "synchronize": "waits", "versions": "a label", "on_gpu": "a label", "free_bytes": "of the machine",
    "peak_bytes": "of the machine", "forget_peak": "of the machine", "be_deterministic": "of the machine",
    "ownership": "hands no array on", "check": "asks probe", "probe": "asks the kernels", "native_kernels": "a table",
    "target_dtype": "a label", "at_once": "every number is right",
    "share_programs": "changes no number", "wrap_stacked": "wraps by wrap and wrap_donating",
}  # fmt: skip
NO_ARRAYS = ("normal_table", "compile")  # neither takes nor gives any: only what is special to them
OPERATORS = {
    ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "divide", ast.USub: "negative",
    ast.Lt: "less", ast.LtE: "less_equal", ast.Gt: "greater", ast.GtE: "greater_equal", ast.Eq: "equal",
    ast.BitAnd: "bitwise_and", ast.BitXor: "bitwise_xor", ast.BitOr: "bitwise_or",
    ast.LShift: "left_shift", ast.RShift: "right_shift",
}  # fmt: skip
OF_SIZES = ("greater", "less_equal")  # which the library asks of sizes only, never of arrays
WHOLE_NUMBERS = ("bitwise_and", "bitwise_xor", "bitwise_or", "left_shift", "right_shift")
COMPARED = ("less", "greater_equal", "equal")
SUMMED: dict[str, tuple[tuple[int, int], ...]] = {  # (argument, axis) that a sum runs over
    "dense_apply": ((0, -1), (1, -1)), "dense_transport": ((0, 0), (1, -1)), "dense_correlate": ((0, 0), (1, 0)),
    "conv_correlate": ((0, 0), (1, 0)), "local_correlate": ((0, 0), (1, 0)), "matmul": ((0, -1), (1, -2)),
}  # fmt: skip
NAMESPACE = {  # what its functions take and give, where that is not floats and floats
    "arange": Facts("", "i"), "zeros": Facts(""), "full": Facts(""), "asarray": Facts("fi", "fi"),
    "astype": Facts("fi", "fi"), "take": Facts("fi", "fi"), "reshape": Facts("fi", "fi"), "concat": Facts("fi", "fi"),
    "argmax": Facts("f", "i"), "argsort": Facts("f", "i"), "any": Facts("i", "b"), "all": Facts("i", "b"),
}  # fmt: skip


class Target(NamedTuple):
    """A function that a third party replaces."""

    place: str  # "kernels", "xp", "operator" or "backend"
    name: str
    facts: Facts

    def __str__(self) -> str:
        return f"{self.place}.{self.name}" if self.place == "xp" else self.name


class Mutant(NamedTuple):
    """One wrong backend."""

    seed: int
    number: int
    target: Target
    kind: Kind
    text: str

    @property
    def id(self) -> str:
        """Seed and index."""
        return f"{self.seed}/{self.number}"

    def __str__(self) -> str:
        return f"{self.target}: {self.text}"

    def drawn(self, mode: Callable[[], str]) -> Drawn:
        """The mistake anew, with nothing in its memory. mode: says in which a step runs."""
        return self.kind.draw(Random(f"{self.seed}/{self.number}/parameters"), self.target.facts._replace(mode=mode))

    def subject(self) -> Subject:
        """The wrong backend, to be asked."""
        backend = Wrong(self)
        return Subject(backend, under=backend.under)


# What there is


def kernels() -> Iterator[Target]:
    """The fields of the table."""
    whole = {"random_words": Facts("i", "i"), "threefry": Facts("i", "i"), "normal_table": Facts("", "i")}
    masks = {"max_pool": Facts("f", "fb"), "max_pool_backward": Facts("fb", "f"), "each": Facts("f", "f")}
    for name in Kernels._fields:
        if name not in NOT_TRIED:
            facts = (whole | masks).get(name, Facts())
            options = tuple(o for o in parameters(name) if o in TABLE_OPTIONS)
            summed = SUMMED.get(name, ())
            sums = name in ("channel_sum", "batch_norm_backward") or name.endswith("correlate")
            yield Target("kernels", name, facts._replace(options=options, contracts=summed, sums=sums))


TABLE_OPTIONS = (
    "window", "epsilon", "momentum", "nesterov", "keep", "eta", "correction", "b1", "b2", "form", "nonlinearity",
    "axes", "start",
)  # fmt: skip


def parameters(name: str) -> tuple[str, ...]:
    """Of a portable kernel; none of the table of quantiles."""
    return () if name == "normal_table" else tuple(signature(getattr(portable, name)).parameters)


@cache
def called() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The functions of a namespace that the library calls, and the operators that it writes, by name."""
    functions, operators = set(), set()
    for room in ROOMS:
        for path in sorted((LIBRARY / room).glob("*.py")):
            tree = ast.parse(path.read_text("utf-8"))
            asked = {id(inner) for node in ast.walk(tree) for test in tests(node) for inner in ast.walk(test)}
            for node in ast.walk(tree):
                of = node.func if isinstance(node, ast.Call) else None
                if isinstance(of, ast.Attribute) and of_namespace(of.value):
                    functions.add(of.attr)
                if isinstance(node, ast.BinOp | ast.UnaryOp):
                    operators.add(OPERATORS.get(type(node.op), ""))
                if isinstance(node, ast.Compare) and id(node) not in asked:
                    operators |= {OPERATORS.get(type(op), "") for op in node.ops}
    return tuple(sorted(functions)), tuple(sorted(operators - {"", *OF_SIZES}))


def tests(node: ast.AST) -> Iterator[ast.AST]:
    """The expressions below a node whose truth is asked, which are never arrays."""
    if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert):
        yield node.test
    if isinstance(node, ast.comprehension):
        yield from node.ifs
    if isinstance(node, ast.BoolOp):
        yield node
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("any", "all", "bool"):
        yield from node.args


def of_namespace(node: ast.expr) -> bool:
    """Whether an expression is an array namespace."""
    named = isinstance(node, ast.Name) and node.id == "xp"
    asked = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "array_namespace"
    return named or asked


def namespace() -> Iterator[Target]:
    """Its functions, and its arrays' operators."""
    functions, operators = called()
    for name in functions:
        facts = NAMESPACE.get(name, Facts())
        sums = name == "sum"
        yield Target("xp", name, facts._replace(contracts=SUMMED.get(name, ()), sums=sums))
    for name in operators:
        whole = name in WHOLE_NUMBERS
        yield Target("operator", name, Facts("i" if whole else "f", "i" if whole else "b" if name in COMPARED else "f"))


def methods() -> Iterator[Target]:
    """Backend's methods that hand arrays on. Of those that run a step, what they return is the function."""
    facts = {"key": Facts("", "i"), "asarray": Facts("fi", "fi"), "to_numpy": Facts("fi", "fi")}
    for name, found in vars(Backend).items():
        if callable(found) and not name.startswith("_") and name not in NOT_TRIED:
            yield Target("backend", name, facts.get(name, Facts("fi", "fi")))


@cache
def pairs() -> tuple[tuple[Target, Kind], ...]:
    """Every function with every kind that it can be asked for."""
    targets = (*kernels(), *namespace(), *methods())
    usual = [(t, kind) for t in targets if t.name not in NO_ARRAYS for kind in KINDS if kind.fits(t.facts)]
    special = [(t, kind) for t in targets for kind in SPECIAL.get(t.name, ())]
    return (*usual, *special)


def mutant(seed: int, index: int) -> Mutant:
    """The mutant of a seed and an index."""
    target, kind = Random(f"{seed}/{index}").choice(pairs())
    made = Mutant(seed, index, target, kind, "")
    return made._replace(text=made.drawn(lambda: "eager").text)


# The backend that it is


class Wrong(NumpyBackend):
    """NumPy with one function replaced, while the subject computes and only then."""

    marked: type | None = None  # arrays one of whose operators is wrong
    replaced: tuple[str, Any] | None = None  # a function of the namespace by name, and the wrong one

    def __init__(self, mutant: Mutant):
        super().__init__(compat, "cpu", "float32", "ieee", "portable")
        self.running: list[str] = []  # the modes in which steps run, innermost last
        wrap = mutant.drawn(lambda: self.running[-1] if self.running else "eager").wrap
        place, name = mutant.target.place, mutant.target.name
        if place == "kernels":
            right = getattr(self.kernels, name)
            right = portable.threefry if name == "threefry" else right
            self.kernels = self.kernels._replace(**{name: wrap(right)})  # type: ignore[arg-type]
        elif place == "xp":
            self.replaced = name, wrap(getattr(compat, name))
        elif place == "operator":
            self.marked = with_operator(getattr(np, name), wrap(getattr(np, name)))
            self.kernels = self.kernels._replace(normal_table=self.own(self.kernels.normal_table))
        else:
            right = getattr(self, name)
            runs = name in ("eager", "wrap", "wrap_donating")
            setattr(self, name, (lambda step: wrap(right(step))) if runs else wrap(right))

    def asarray(self, array: Any, dtype: str | None = None):
        """A copy, which a mutant may write into."""
        return self.own(np.array(super().asarray(array, dtype)))

    def own(self, array: Any):
        """An array of the kind whose operators are wrong, where they are."""
        array = np.asanyarray(array)
        return array if self.marked is None else array.view(self.marked)

    def to_numpy(self, array: Any):
        """The array, with NumPy's operators."""
        return np.asarray(array)

    def under(self) -> AbstractContextManager:
        """The namespace's wrong function in its place."""
        return replaced(self.replaced)

    def in_mode(self, step: Callable, mode: str) -> Callable:
        """A step that is known to run in a mode."""

        def run(*arguments, **options):
            self.running.append(mode)
            try:
                with self.under():
                    return tree_map(self.own, step(*arguments))
            finally:
                self.running.pop()

        return run

    def eager(self, step: Callable):
        """Run operation by operation."""
        return self.in_mode(step, "eager")

    def wrap(self, step: Callable):
        """Run as a compiler would run it."""
        return self.in_mode(step, "compiled")

    def wrap_donating(self, step: Callable):
        """Run as a donating step."""
        return self.in_mode(step, "donating")


@contextmanager
def replaced(what: tuple[str, Any] | None) -> Iterator[None]:
    """A function of the namespace by name, and another in its place for a while."""
    if what is None:
        yield
        return
    name, new = what
    old = getattr(compat, name)
    setattr(compat, name, new)
    try:
        yield
    finally:
        setattr(compat, name, old)


def with_operator(right: np.ufunc, wrong: Callable) -> type:
    """NumPy's arrays, one of whose operators is wrong."""

    class Marked(np.ndarray):
        """An array."""

        def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
            plain = [np.asarray(a) if isinstance(a, Marked) else a for a in inputs]
            if out is not None:
                options["out"] = tuple(np.asarray(a) for a in out)
            asked = ufunc is right and method == "__call__" and out is None
            found = wrong(*plain, **options) if asked else getattr(ufunc, method)(*plain, **options)
            return out[0] if out is not None else tree_map(lambda a: np.asarray(a).view(Marked), found)

    return Marked
