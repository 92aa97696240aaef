"""Level 0: parameters as PyTorch has them, and back. Names and axes are written down here once more, by hand."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ref_bioplaus import batch_norm, bias, chain, conv, dense, flatten, locally_connected, relu, tanh, unit_bias
from ref_bioplaus.conformance.cases.cases import Case, as_held
from ref_bioplaus.conformance.checks.alone.exact import Comparison, exact_check, on_device, turned
from ref_bioplaus.conformance.checks.outcomes import Check, Subject
from ref_bioplaus.inverses import dense_inverse, mirrored_inverse
from ref_bioplaus.kernels import PORTABLE, Kernels
from ref_bioplaus.layouts import Inverse
from ref_bioplaus.network import Network
from ref_bioplaus.registry import Row
from ref_bioplaus.tree import named_leaves, tree_map
from ref_bioplaus.types import State

Table = dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]]  # name -> path of ours, ours -> theirs


def same(a: np.ndarray) -> np.ndarray:
    """Dense weights, and one number per channel or unit of a vector."""
    return a


def filters(W: np.ndarray) -> np.ndarray:
    """kh, kw, C, O -> O, C, kh, kw."""
    return W.transpose(3, 2, 0, 1)


def image(a: np.ndarray) -> np.ndarray:
    """..., H, W, C -> ..., C, H, W."""
    return np.moveaxis(a, -1, -3)


def behind(height: int, width: int) -> Callable[[np.ndarray], np.ndarray]:
    """Weights behind a flattened image: O, H*W*C -> O, C*H*W."""
    return lambda W: image(W.reshape(len(W), height, width, -1)).reshape(W.shape)


def above(size: tuple[int, int]) -> Callable[[np.ndarray], np.ndarray]:
    """A number for every unit of a flattened image: H*W*C -> C*H*W."""
    return lambda b: image(b.reshape(*size, -1)).reshape(b.shape)


def between(above: tuple[int, int], below: tuple[int, int]) -> Callable[[np.ndarray], np.ndarray]:
    """Dense weights from one flattened image to another."""
    return lambda W: behind(*above)(behind(*below)(W).T).T


def windows(kernel: tuple[int, int]) -> Callable[[np.ndarray], np.ndarray]:
    """Locally connected: H, W, kh*kw*C, O -> H, W, O, C, kh, kw."""
    return lambda W: W.reshape(*W.shape[:2], *kernel, -1, W.shape[3]).transpose(0, 1, 5, 4, 2, 3)


def normalised(l: int, operation: int, n: int) -> Table:
    """BatchNorm, the n-th part of layer l."""
    ours = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "var"}
    place = {
        name: f"stats/{l}/{operation}/" if "running" in name else f"params/{l}/local/{operation}/" for name in ours
    }
    return {f"{l}.{n}.{name}": (f"{place[name]}{our}", same) for name, our in ours.items()}


def residual_blocks() -> Table:
    """The residual network with BatchNorm behind the ReLU."""
    found: Table = {f"{l}.0.weight": (f"params/{l}/W", filters) for l in (1, 2, 3, 5, 6, 7)}
    for l, n in ((1, 2), (2, 2), (4, 1), (5, 2), (8, 1)):
        found |= normalised(l, 1, n)
    return found | {"10.0.weight": ("params/10/W", same), "10.0.bias": ("params/10/local/0/b", same)}


def wide() -> Network:
    """Layers whose axes are longer than those of the suite's networks, and axes of one entry."""
    return chain(
        (9, 8, 1), (conv(67, (3, 2)), batch_norm, relu), (conv(1, (1, 2)), batch_norm, tanh),
        (locally_connected(4, (3, 2), stride=(2, 1)), unit_bias, tanh, flatten), (dense(130), bias), (dense(4), bias),
    )  # fmt: skip


def learned(case: Case, seed: int) -> State:
    """A state in mid-learning whose running statistics have moved, too."""
    state, rng = case.start(seed), np.random.default_rng(seed)
    return state._replace(stats=tree_map(lambda a: as_held(20.0 + rng.uniform(size=a.shape), case.dtype), state.stats))


class Carried(NamedTuple):
    """What of which state is exported, and what it is to be."""

    row: str
    architecture: str
    path: str  # "forward" or "feedback"
    table: Table
    inverse: Inverse = mirrored_inverse

    def theirs(self, params: Any, stats: Any) -> dict[str, np.ndarray]:
        """The arrays of a state, as they are to be exported."""
        ours = dict(named_leaves({"params": params, "stats": stats}))
        return {name: to(ours[path]) for name, (path, to) in self.table.items()}

    def case(self, dtype: str) -> Case:
        """The case, with inverses of that form."""
        options = {"inverse": self.inverse} if self.row == "dtp" else {}

        class Chosen(Case):
            __slots__ = ()

            def chosen(self) -> Row:
                found = Case.chosen(self)
                return found._replace(options=dict(found.options) | options)

            def network(self, kernels: Kernels = PORTABLE) -> Network:
                if self.architecture != "wide":
                    return Case.network(self, kernels)
                return wide().with_dtype(self.dtype).with_kernels(kernels)

        return Chosen(f"carried/{self.architecture}", self.row, self.architecture, "sgd", dtype)


def carried() -> Iterator[Carried]:
    """Every kind of layer and of feedback."""
    yield Carried("kolen-pollack", "conv", "forward", {
        "1.0.weight": ("params/1/W", filters), "1.0.bias": ("params/1/local/0/b", same),
        "3.0.weight": ("params/3/W", filters), **normalised(3, 0, 1),
        "4.0.weight": ("params/4/W", behind(3, 3)), "4.0.bias": ("params/4/local/0/b", same),
        "5.0.weight": ("params/5/W", same), "5.0.bias": ("params/5/local/0/b", same)})  # fmt: skip
    yield Carried("kolen-pollack", "conv", "feedback", {
        "3.0.weight": ("params/3/W", filters), "4.0.weight": ("params/4/W", behind(3, 3)),
        "5.0.weight": ("params/5/W", same)})  # fmt: skip
    yield Carried("kolen-pollack", "LC", "forward", {
        "1.0.weight": ("params/1/W", windows((3, 2))), "1.0.bias": ("params/1/local/0/b", image),
        "2.0.weight": ("params/2/W", windows((3, 3))), "2.0.bias": ("params/2/local/0/b", image),
        "3.0.weight": ("params/3/W", behind(4, 2)), "3.0.bias": ("params/3/local/0/b", same)})  # fmt: skip
    yield Carried("kolen-pollack", "ResNet, BN after ReLU", "forward", residual_blocks())
    yield Carried("kolen-pollack", "wide", "forward", {
        "1.0.weight": ("params/1/W", filters), **normalised(1, 0, 1),
        "2.0.weight": ("params/2/W", filters), **normalised(2, 0, 1),
        "3.0.weight": ("params/3/W", windows((3, 2))), "3.0.bias": ("params/3/local/0/b", image),
        "4.0.weight": ("params/4/W", behind(5, 8)), "4.0.bias": ("params/4/local/0/b", same),
        "5.0.weight": ("params/5/W", same), "5.0.bias": ("params/5/local/0/b", same)})  # fmt: skip
    yield Carried("dfa", "LC", "feedback", {"1.B": ("params/1/B", image), "2.B": ("params/2/B", behind(4, 2))})
    yield Carried("dense-fa", "LC", "feedback", {
        "1.D.3": ("params/1/D/3", image), "2.0.weight": ("params/2/W", windows((3, 3))),
        "3.0.weight": ("params/3/W", behind(4, 2))})  # fmt: skip
    yield Carried("dtp", "LC", "feedback", {
        "2.0.weight": ("params/2/W", windows((3, 3))), "2.0.bias": ("params/2/local/0/b", image)})  # fmt: skip
    yield Carried("dtp", "conv", "feedback", {
        "2.0.weight": ("params/2/W", filters), "2.0.bias": ("params/2/local/0/b", same)})  # fmt: skip
    yield Carried("dtp", "LC", "feedback", {
        "2.0.weight": ("params/2/W", between((4, 3), (4, 2))), "2.0.bias": ("params/2/local/0/b", above((4, 3)))},
        dense_inverse)  # fmt: skip


def exported(one: Carried) -> Check:
    """export_params, against the table; and import_params of that, into other parameters."""

    def look(subject: Subject, comparison: Comparison, mode: str) -> None:
        backend = subject.backend
        case = one.case(subject.dtype)
        network, (state, other) = case.network(backend.kernels), (learned(case, seed) for seed in (1, 2))
        params, stats = getattr(state, one.path).params, state.stats if one.path == "forward" else None
        others = getattr(other, one.path).params, other.stats if stats is not None else None
        expected = one.theirs(params, stats)
        counts = {n.replace("running_var", "num_batches_tracked"): np.array(0) for n in expected if "_var" in n}
        there = turned(subject, (params, stats))
        export, bring = (subject.own(f) for f in (backend.export_params, backend.import_params))
        found = export(network, there[0], there[1], one.inverse)
        second = export(network, *on_device(subject, others), one.inverse)  # the first stays what it was
        for wanted, got in ((expected, found), (one.theirs(*others), second)):
            comparison.problem = comparison.problem or differing(subject.dtype, wanted | counts, got)
        for array in found.values():
            np.copyto(array, 1)  # they are arrays of their own
        comparison.tree("what was exported, after writing into it", (params, stats), there)

        into = on_device(subject, others)
        given = {name: np.array(a, order="F") for name, a in reversed((expected | counts).items())}
        took = bring(network, into[0], given, into[1], one.inverse)
        tree_map(lambda a: np.copyto(a, 1), given)
        comparison.tree("what was imported", params if stats is None else (params, stats), took)
        comparison.tree("what stood in its place", others, into)
        second = bring(network, into[0], one.theirs(*others) | counts, into[1], one.inverse)
        comparison.tree("what was imported next", others[0] if stats is None else others, second)
        name = next(iter(expected))
        longer, less = given | {name: np.zeros(3)}, {n: a for n, a in given.items() if n != name}
        for kind, arrays in (
            ("of another shape", longer),
            ("without a name", less),
            ("of more", given | {"x": given[name]}),
        ):
            try:
                bring(network, into[0], arrays, into[1], one.inverse)
            except (KeyError, ValueError):
                continue
            comparison.wrong(f"parameters {kind} were imported, and nothing was raised")

    form = "" if one.inverse is mirrored_inverse else f", {one.inverse.__name__}"
    name = f"export/{one.row}/{one.architecture}, {one.path}{form}"
    return exact_check(name, "backend", look, ("eager",))


def differing(dtype: str, expected: dict[str, np.ndarray], found: dict[str, Any]) -> str:
    """A sentence on the first exported array that is not what it should be; "" where all are."""
    if {*found} != {*expected}:
        return f"exported are {', '.join(found)}, expected {', '.join(expected)}"
    for name, wanted in expected.items():
        got, of = found[name], wanted.dtype
        if of.kind == "f":
            of = np.dtype("float32" if dtype == "bfloat16" else dtype)
        if not isinstance(got, np.ndarray) or got.dtype != of or got.shape != wanted.shape:
            shape = f"{getattr(got, 'dtype', '')} {getattr(got, 'shape', '')}"
            return f"exported {name} is a {type(got).__name__} {shape}, expected {of} {wanted.shape}"
        if not np.array_equal(got, wanted):
            return f"exported {name} holds other numbers, or in another order, than {wanted.shape} of PyTorch's"
    return ""


def checks() -> tuple[Check, ...]:
    """Export and import."""
    return tuple(map(exported, carried()))
