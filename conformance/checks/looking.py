"""Level 1: what looks at a network that learns, and is no step: predictions in test mode, and the metrics."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ref_bioplaus import inverses, losses, metrics
from ref_bioplaus.backends import Backend
from ref_bioplaus.conformance.cases.cases import Case, root
from ref_bioplaus.conformance.cases.networks import CHAINS, GRADIENT
from ref_bioplaus.conformance.cases.variety import in_time
from ref_bioplaus.conformance.checks.alone.primitives import CALLS
from ref_bioplaus.conformance.checks.outcomes import Check, Finding, Subject
from ref_bioplaus.conformance.checks.prepared import stored
from ref_bioplaus.conformance.judging.judge import Expected, Score, judge
from ref_bioplaus.conformance.judging.rounding import PRECISIONS, Rounding
from ref_bioplaus.kernels import PORTABLE, Kernels
from ref_bioplaus.network import predict
from ref_bioplaus.random import normal
from ref_bioplaus.registry import row, task_loss
from ref_bioplaus.tree import tree_map
from ref_bioplaus.types import Info, LayerParams

Compute = Callable[[Kernels, Any], dict[str, Any]]  # kernels, a tree of arrays -> results by name
SHAPES = ((), (7, 5), (3, 2, 4, 5), (9, 3))  # of the weights that metrics are asked about; layer 0 has none
BOTH = ("eager", "compiled")
OUTPUTS = np.array([
    [3.0, 1.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0], [-1.0, -2.0, -1.0, -3.0], [np.nan, 2.0, 1.0, 0.0],
    [0.0, 5.0, 5.0, 6.0], [2.0, 0.0, -np.inf, np.inf], [0.0, -0.0, 0.0, 1.0], [9.0, 8.0, 7.0, 6.0],
])  # fmt: skip
LABELS = (0, 2, 2, 1, 2, 3, 1, 3)


def looked_at(
    name: str,
    group: str,
    given: Callable[[Subject], Any],
    compute: Callable[[Subject], Compute],
    modes: tuple[str, ...] = ("compiled",),
) -> Check:
    """A check of a function of a tree of arrays, which runs on the subject and on the reference's arithmetic."""

    def run(subject: Subject, mode: str) -> Finding:
        backend, found = (
            subject.backend,
            subject.runs(lambda tree: compute(subject)(subject.backend.kernels, tree), mode),
        )
        answers: list[tuple[Expected, Any]] = []
        for held in (given(subject), tree_map(halved, given(subject))):  # both are looked at behind the last
            space = Rounding(PRECISIONS[subject.dtype, backend.precision], subject.dtype)
            with np.errstate(invalid="ignore"):
                expected = compute(subject)(PORTABLE, tree_map(space.exact, held))
            if space.undecidable:
                return Finding(undecidable=space.undecidable)
            answers.append((Expected(expected, 0, space.precision.tiny), found(tree_map(backend.asarray, held))))
        return Finding(tuple(score for answer in answers for score in judged(backend, *answer)))

    return Check(f"1/{name}", 1, group, run, modes)


def judged(backend: Backend, expected: Expected, got: dict[str, Any]) -> list[Score]:
    """The scores of results."""
    return judge(expected, {name: backend.to_numpy(value) for name, value in got.items()})


def halved(array: np.ndarray) -> np.ndarray:
    """Other numbers of the same kind: floats halved, integers as they are."""
    return 0.5 * array if array.dtype.kind == "f" else array


def predicted(row_name: str, architecture: str, n: int) -> Check:
    """Outputs in test mode: running statistics, no dropout, and what the loss makes of the last layer."""
    case = Case(f"{row_name}/{architecture}", row_name, architecture, "sgd")

    def compute(subject: Subject) -> Compute:
        here = case._replace(dtype=subject.dtype)
        loss = task_loss(row(row_name), losses.cross_entropy(), 4)
        return lambda kernels, given: {"output": predict(here.network(kernels), loss, *given)}

    def given(subject: Subject) -> Any:
        here = case._replace(dtype=subject.dtype)
        return in_time(stored(here, 1), here.moments[1]), here.batch(1, n)[0]

    modes = BOTH if architecture == "FC" else ("compiled",)
    return looked_at(f"predict/{row_name}/{architecture}/{n}", "predict", given, compute, modes)


def params(word: str, zeros: bool = False) -> tuple[LayerParams, ...]:
    """Weights of several layers; some are exactly 0."""
    drawn = [
        normal((root(0), "metrics", word, l), shape, np.float32).astype(np.float64) for l, shape in enumerate(SHAPES)
    ]
    held = [np.where(np.abs(W) < 0.3, 0.0, W) if zeros else W for W in drawn]
    return tuple(LayerParams(W if shape else None) for W, shape in zip(held, SHAPES, strict=True))


def measured() -> Iterator[Check]:
    """The metrics, on arrays of several shapes."""
    first, second = params("a"), params("b")
    deltas = tuple(p.W for p in first), tuple(p.W for p in second)

    def by_layer(name: str, compute: Callable, *given: Any) -> Check:
        def named_layers(kernels: Kernels, tree: Any) -> dict[str, Any]:
            return {f"layer {l}": value for l, value in compute(*tree).items()}

        return looked_at(f"metrics/{name}", "metrics", lambda subject: given, lambda subject: named_layers, BOTH)

    yield by_layer("matrix_angles", metrics.matrix_angles, first, (*second[:2], LayerParams(None), second[3]))
    near = tuple(
        p if p.W is None else LayerParams(p.W * (1.0 + 2.0**-10 * q.W)) for p, q in zip(first, second, strict=True)
    )
    yield by_layer("matrix_angles, nearly parallel", metrics.matrix_angles, first, tree_map(as_float32, near))
    yield by_layer("delta_angles", lambda a, b: metrics.delta_angles(Info(delta=a), Info(delta=b)), *deltas)
    yield by_layer("gradient_ratios", lambda a, b: metrics.gradient_ratios(Info(grads=a), Info(grads=b)), first, second)
    yield by_layer("sign_changes", metrics.sign_changes, params("a", True), params("b", True))
    yield from top_ks()
    yield reconstruction()


def as_float32(array: np.ndarray) -> np.ndarray:
    """The nearest numbers of float32, as float64."""
    return array.astype(np.float32).astype(np.float64)


def top_k(k: int, *batches: np.ndarray) -> Check:
    """The error among ties, NaN and infinities: a known answer, which all dtypes hold."""

    def wrong(output: np.ndarray, label: int) -> bool:
        best = sorted(range(len(output)), key=lambda i: (-output[i], i))[:k]
        return label not in best or bool(np.isnan(output).any())

    def run(subject: Subject, mode: str) -> Finding:
        backend, found = subject.backend, subject.runs(lambda u, y: metrics.top_k_error(u, y, k), mode)
        space, answers = Rounding(PRECISIONS[subject.dtype, backend.precision], subject.dtype), []
        for outputs in batches:
            n, classes = outputs.shape
            labels = np.resize(LABELS, n) * (classes // 4)
            share = np.mean([wrong(o, label) for o, label in zip(outputs, labels, strict=True)])
            expected = Expected({"error": space.exact(share)}, 0, space.precision.tiny)
            y = backend.asarray(np.eye(classes)[labels])
            answers.append((expected, {"error": found(backend.asarray(np.array(outputs)), y)}))
        return Finding(tuple(score for answer in answers for score in judged(backend, *answer)))

    return Check(
        f"1/metrics/top_k_error/{k} of {batches[0].shape[1]}, {len(batches[0])} samples", 1, "metrics", run, BOTH
    )


def top_ks() -> Iterator[Check]:
    """Of four classes, once many times; of one class; and of many, of which many are taken."""
    turned = (OUTPUTS, OUTPUTS[:, ::-1], OUTPUTS[::-1])
    yield top_k(1, *turned)
    yield top_k(2, *turned, *(np.roll(OUTPUTS, i, 1) + i % 8 for i in range(CALLS)))
    yield top_k(4, *turned)
    yield top_k(2, OUTPUTS[4:])
    yield top_k(1, OUTPUTS[:, :1], OUTPUTS[:1, 1:2])
    yield top_k(90, *((np.arange(130.0) * step % 131 + np.arange(8.0)[:, None] * step) % 131 for step in (7, 11)))


def reconstruction() -> Check:
    """How well learned inverses rebuild what lies below, on locally connected layers."""
    case = Case("dtp/LC", "dtp", "LC", "adam")

    def compute(subject: Subject) -> Compute:
        def errors(kernels: Kernels, given: Any) -> dict[str, Any]:
            network = case._replace(dtype=subject.dtype).network(kernels)
            layers = {l: inverses.mirrored_inverse(network, l) for l in network.weighted if 1 < l < network.L}
            found = metrics.reconstruction_errors(network, losses.cross_entropy(), layers, *given)
            return {f"layer {l}": value for l, value in found.items()}

        return errors

    def given(subject: Subject) -> Any:
        here = case._replace(dtype=subject.dtype)
        return stored(here, 0), here.batch(3, 5)[0][1:]  # without the sample that is 0

    return looked_at("metrics/reconstruction_errors", "metrics", given, compute, BOTH)


def checks() -> tuple[Check, ...]:
    """Those that hang on the backend, not on a rule."""
    gradient = [predicted("backprop", name, n) for name, n in (*((name, 6) for name in GRADIENT), ("conv", 1))]
    chains = [predicted(row_name, name, 3) for row_name, name in (("dtp", "conv"), ("ao-sdtp", "FC")) if name in CHAINS]
    return (*gradient, *chains, *measured())
