"""Level 0: what algorithms are made of, judged by its rounding errors."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from ref_bioplaus import local, losses
from ref_bioplaus.conformance.cases.cases import as_held, root
from ref_bioplaus.conformance.checks.outcomes import Check, Finding, Subject
from ref_bioplaus.conformance.judging.judge import Expected, Score, bounded, judge, named
from ref_bioplaus.conformance.judging.rounding import PRECISIONS, Rounding
from ref_bioplaus.kernels import PORTABLE, Kernels
from ref_bioplaus.linear import Convolution, LinearMap, LocalConnection, Part, conv, dense, locally_connected
from ref_bioplaus.local import LocalOperation
from ref_bioplaus.random import normal

SEEDS = (0, 1, 2)
IMAGE = (7, 5, 3)
NONLINEARITIES = (local.tanh, local.relu, local.sigmoid, local.rectified_tanh)
LOSSES = ("cross_entropy", "sigmoid_cross_entropy", "squared_error")


class Primitive(NamedTuple):
    """A function of arrays, the shapes of its normal inputs, and what is put in their places by hand."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    compute: Callable[..., dict[str, Any]]  # kernels, arrays -> results by name
    prepare: Callable[..., tuple[np.ndarray, ...]] = lambda *arrays: arrays
    bounded: bool = False  # judged by the rigorous bound: so many units in the last place, and not one more


def elementwise() -> Iterator[Primitive]:
    """Functions of one number, over tables from the tiny to the large, with exact zeros."""

    def table(x):
        ladder = np.concatenate([10.0 ** np.linspace(-6, 1.2, 150), np.linspace(0.01, 4.0, 150)])
        return (np.concatenate([x[:3] * 0.0, ladder, -ladder, x]),)

    def positive(x):
        return (np.abs(table(x)[0]) + 1e-3,)

    for name in ("tanh", "exp", "expm1", "abs", "sign"):
        yield Primitive(
            f"elementwise/{name}", ((64,),), lambda _, x, f=name: {f: getattr(array_namespace(x), f)(x)}, table
        )
    for name in ("log", "log1p", "sqrt"):
        yield Primitive(
            f"elementwise/{name}", ((64,),), lambda _, x, f=name: {f: getattr(array_namespace(x), f)(x)}, positive, True
        )
    yield Primitive(
        "elementwise/arithmetic", ((31,), (31,)), lambda _, x, y: {"x + y": x + y, "x * y": x * y, "x / y": x / y}
    )
    for part in NONLINEARITIES:
        yield Primitive(f"nonlinearity/{part.name}", ((5, 11), (5, 11)), forward_and_backward(part),
                        lambda x, dy: (with_zero(x), dy), True)  # fmt: skip


def products() -> Iterator[Primitive]:
    """Products and sums."""
    yield Primitive("products/matmul", ((7, 33), (33, 5)), lambda _, x, y: {"xy": array_namespace(x).matmul(x, y)})
    yield Primitive(
        "products/batched", ((2, 3, 4, 9), (2, 3, 9, 5)), lambda _, x, y: {"xy": array_namespace(x).matmul(x, y)}
    )
    yield Primitive(
        "products/tensordot", ((4, 3, 5), (3, 5, 2)), lambda _, x, y: {"xy": array_namespace(x).tensordot(x, y, axes=2)}
    )
    yield Primitive("products/long", ((3, 1500), (1500, 2)), lambda _, x, y: {"xy": array_namespace(x).matmul(x, y)})
    yield Primitive(
        "products/sums",
        ((6, 5, 4, 3),),
        lambda _, x: {
            "sum": array_namespace(x).sum(x, axis=(0, 1, 2)),
            "mean": array_namespace(x).mean(x, axis=(1, 2)),
            "all": array_namespace(x).sum(x),
        },
    )


def synapses() -> Iterator[Primitive]:
    """The three faces of every connectivity, on shapes that are not square, and of one sample; and their identity."""
    parts = [
        dense(4), conv(4, 3), conv(4, (2, 3), stride=2), conv(2, 3, stride=(1, 3)), conv(4, (4, 2), stride=(3, 1)),
        conv(4, (3, 2), padding="valid"), conv(4, 3, stride=2, padding=(2, 1)), conv(4, 1, stride=2),
        locally_connected(4, 3), locally_connected(4, (2, 3), stride=(2, 1)), locally_connected(2, 3, 2, 1),
    ]  # fmt: skip
    for part in parts:
        linear = part.build(IMAGE if part.name[0] != "d" else (6,))

        def faces(kernels, W, x, u, linear=linear):
            bound = linear.__class__(linear.window, linear.channels, kernels) if is_windowed(linear) else linear
            xp = array_namespace(W)
            applied, transported, correlated = bound.apply(W, x), bound.transport(W, u), bound.correlate(x, u)
            identity = xp.sum(applied * u) - xp.sum(x * transported)
            other = xp.sum(applied * u) - xp.sum(W * correlated)
            return {"apply": applied, "transport": transported, "correlate": correlated, "<Wx,u> - <x,W'u>": identity,
                    "<Wx,u> - <W,xu'>": other}  # fmt: skip

        for n in (3, 1):
            shapes = (linear.weight_shape, (n, *linear.in_shape), (n, *linear.out_shape))
            yield Primitive(f"synapses/{part.name}/{n}", shapes, faces)


def is_windowed(linear: LinearMap) -> bool:
    """Whether synapses have a window, and so kernels."""
    return isinstance(linear, Convolution | LocalConnection)


def operations() -> Iterator[Primitive]:
    """Pooling (ties, padding), BatchNorm in training and test, dropout, losses."""

    def ties(x, dy):
        return np.where(np.abs(x) < 0.7, 0.0, np.rint(x)), dy  # many equal maxima, many exact zeros

    pools = {"2": local.max_pool(2), "3x2 over the border": local.max_pool((3, 2), (2, 1), (1, 0)),
             "same": local.max_pool(3, 2, "same")}  # fmt: skip
    for name, part in pools.items():
        for prepare, kind in ((lambda x, dy: (x, dy), "distinct"), (ties, "ties")):
            shapes = ((2, *IMAGE), (2, *part.build(IMAGE).out_shape))
            yield Primitive(f"max_pool/{name}/{kind}", shapes, forward_and_backward(part), prepare)
    for name, part in {"2x3": local.average_pool((2, 3)), "same": local.average_pool(3, 2, "same"),
                       "global": local.global_average_pool}.items():  # fmt: skip
        shapes = ((2, *IMAGE), (2, *part.build(IMAGE).out_shape))
        yield Primitive(f"average_pool/{name}", shapes, forward_and_backward(part))
    for n in (4, 1):

        def normalised(kernels, x, dy, gamma, beta, mean, var):
            op, params = with_kernels(local.batch_norm.build(IMAGE), kernels), {"gamma": gamma, "beta": beta}
            var = var * var + 0.5
            y, moved, cache = op.forward(params, {"mean": mean, "var": var}, x, (), True)
            dx, grads = op.backward(params, cache, dy)
            test, _, _ = op.forward(params, {"mean": mean, "var": var}, x, (), False)
            return {"y": y, "running mean": moved["mean"], "running var": moved["var"], "dx": dx,
                    "dgamma": grads["gamma"], "dbeta": grads["beta"], "y in test": test}  # fmt: skip

        yield Primitive(f"batch_norm/{n}", ((n, *IMAGE), (n, *IMAGE), *((3,),) * 4), normalised)
    for name in LOSSES:
        yield Primitive(
            f"loss/{name}", ((5, 4), (5, 4)), loss_of(name), lambda u, y: (3 * u, np.eye(4)[np.argmax(y, axis=1)])
        )


def not_finite() -> Iterator[Primitive]:
    """NaN and infinities, forward and backward: they come out where they have to, and nowhere else."""
    nan, inf = np.nan, np.inf

    def given(*tables):
        return lambda *drawn: tuple(np.broadcast_to(t, a.shape) for t, a in zip(tables, drawn, strict=True))

    x = np.array([nan, inf, -inf, 0.0, 0.5, -2.0])  # an infinite error at an infinite x would meet a rounded slope
    dy = np.array([[1.0] * 6, [nan] * 6, [1.0, 1.0, 1.0, inf, inf, -inf]])
    for part in NONLINEARITIES:
        name = f"nonlinearity/{part.name}/not finite"
        yield Primitive(name, ((3, 6), (3, 6)), forward_and_backward(part), given(x, dy))
    image = np.array([[nan, 1.0, 1.0, inf, -inf, -inf, 3.0, 3.0],
                      [2.0, 3.0, 1.0, nan, -inf, -inf, inf, 1.0],
                      [1.0, inf, -inf, 3.0, 4.0, 5.0, -inf, -inf],
                      [1.0, inf, 4.0, 2.0, 1.0, 2.0, -inf, nan]])  # fmt: skip
    error = np.array([[1.0, 2.0, 3.0, inf], [nan, -inf, nan, inf]])
    for stride in (2, 1):
        pool = local.max_pool(2, stride, "valid")
        height, width, _ = out = pool.build((4, 8, 1)).out_shape
        errors = np.resize(error, (height, width))[..., None]
        yield Primitive(f"max_pool/stride {stride}/not finite", ((1, 4, 8, 1), (1, *out)),
                        forward_and_backward(pool), given(image[..., None], errors))  # fmt: skip
    u = np.array([[nan, 1.0, 2.0], [inf, 1.0, 2.0], [1.0, -inf, 2.0], [1.0, 2.0, nan]])
    for name in LOSSES:
        yield Primitive(f"loss/{name}/not finite", ((4, 3), (4, 3)), loss_of(name), given(u, np.eye(3)[[0, 1, 1, 2]]))
    yield Primitive("elementwise/sign/not finite", ((6,),), lambda _, x: {"sign": array_namespace(x).sign(x)}, given(x))


def forward_and_backward(part: Part) -> Callable[..., dict[str, Any]]:
    """An operation without parameters: what it makes of x, and of the error at that."""

    def compute(kernels, x, dy):
        op = with_kernels(part.build(tuple(x.shape[1:])), kernels)
        y, _, cache = op.forward({}, {}, x, (), True)
        return {"y": y, "dx": op.backward({}, cache, dy)[0]}

    return compute


def loss_of(name: str) -> Callable[..., dict[str, Any]]:
    """A loss, by name."""

    def compute(_, u, y):
        loss = getattr(losses, name)()
        return {"value": loss.value(u, y), "output": loss.output(u), "gradient": loss.gradient(u, y)}

    return compute


def with_kernels(op: LocalOperation, kernels: Kernels):
    """An operation bound to other kernels."""
    fields = {name: getattr(op, name) for name in op.__dataclass_fields__}
    return type(op)(**(fields | ({"kernels": kernels} if "kernels" in fields else {})))


def with_zero(x: np.ndarray) -> np.ndarray:
    """x with an exact 0 in front."""
    return np.concatenate([np.zeros_like(x.reshape(-1)[:1]), x.reshape(-1)[1:]]).reshape(x.shape)


def primitive_check(primitive: Primitive) -> Check:
    """The check of one primitive, over seeds."""

    def run(subject: Subject, mode: str) -> Finding:
        backend = subject.backend
        found = subject.runs(lambda *arrays: primitive.compute(backend.kernels, *arrays), mode)
        scores: list[Score] = []
        undecidable = 0
        for seed in SEEDS:
            drawn = (
                normal((root(seed), primitive.name, i), shape, np.float64) for i, shape in enumerate(primitive.shapes)
            )
            inputs = [as_held(np.asarray(a, np.float64), subject.dtype) for a in primitive.prepare(*drawn)]
            space = Rounding(PRECISIONS[subject.dtype, backend.precision], subject.dtype)
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                tensors = primitive.compute(PORTABLE, *map(space.exact, inputs))
                got = {} if space.undecidable else found(*(backend.asarray(a) for a in inputs))
            if space.undecidable:
                undecidable += space.undecidable
                continue
            if primitive.bounded:
                tensors = {name: bounded(tensor) for name, tensor in tensors.items()}
            arrays = {name: backend.to_numpy(a) for name, a in got.items()}
            scores += named(judge(Expected(tensors, 0, space.precision.tiny), arrays), f"seed {seed}")
        return Finding(tuple(scores), undecidable=0 if scores else undecidable)

    return Check(f"0/{primitive.name}", 0, primitive.name.split("/")[0], run, ("eager", "compiled"))


def precision_check() -> Check:
    """Products have the precision that the backend claims, found by multiplying, not by asking."""

    def run(subject: Subject, mode: str) -> Finding:
        if subject.dtype != "float32":
            return Finding(unsupported=f"precision is a policy of float32 products, not of {subject.dtype}")
        found, claimed = subject.backend.probe(), subject.backend.precision
        return Finding(problem="" if found == claimed else f"products are in {found}, but the backend claims {claimed}")

    return Check("0/products/precision", 0, "products", run, ("compiled",))


def constant_check() -> Check:
    """A product of constants, whose roundings are not independent: within the rigorous error bound."""

    def compute(x, y):
        xp = array_namespace(x)
        return {"xy": xp.matmul(x, y), "sum": xp.sum(x, axis=1)}

    def run(subject: Subject, mode: str) -> Finding:
        backend = subject.backend
        x, y = (as_held(np.full(shape, value), subject.dtype) for shape, value in (((3, 700), 0.1), ((700, 2), 0.3)))
        space = Rounding(PRECISIONS[subject.dtype, backend.precision], subject.dtype)
        tensors = compute(space.exact(x), space.exact(y))
        got = subject.runs(compute, mode)(backend.asarray(x), backend.asarray(y))
        for name, tensor in tensors.items():
            excess = np.abs(backend.to_numpy(got[name]).astype(np.float64) - tensor.v) / tensor.b
            if not np.all(excess <= 1.0):
                return Finding(
                    problem=f"{name} of constants is {np.max(excess):.3g} times its rigorous error bound away"
                )
        return Finding()

    return Check("0/products/constants", 0, "products", run, ("eager", "compiled"))


def checks() -> tuple[Check, ...]:
    """Level 0."""
    families = (elementwise, products, synapses, operations, not_finite)
    return (
        precision_check(), constant_check(), *(primitive_check(p) for family in families for p in family())
    )  # fmt: skip
