"""Level 0: nonlinearities, pooling, BatchNorm and sums over what shares a bias, as parts and as kernels."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from ref_bioplaus import local
from ref_bioplaus.conformance.checks.alone import values
from ref_bioplaus.conformance.checks.alone.asking import BOTH, COMPILED, Call, Question, as_drawn, drawn, question
from ref_bioplaus.conformance.checks.alone.synapses import LOOSE
from ref_bioplaus.kernels import Kernels
from ref_bioplaus.linear import Part
from ref_bioplaus.local import LocalOperation, MaxPool
from ref_bioplaus.windows import Window

IMAGE = (7, 5, 3)
STEEP = local.nonlinearity(  # one that no kernel can know, under a name that it may know
    "tanh", lambda x: 2.0 * array_namespace(x).tanh(x), lambda y: 2.0 - 0.5 * (y * y)
)
SOFT = local.nonlinearity(
    "softsign", lambda x: x / (1.0 + array_namespace(x).abs(x)), lambda y: (1.0 - array_namespace(y).abs(y)) ** 2
)
NONLINEARITIES = {p.name: p for p in (local.tanh, local.relu, local.sigmoid, local.rectified_tanh, SOFT)} | {
    "another tanh": STEEP
}
SATURATED = ("tanh", "sigmoid", "rectified_tanh", "another tanh")
GRADES = np.array([0.0, -0.0, 1.0, 2.0**-126, 1e-30, 1e-8, 0.25, 0.5, 1.0 - 2.0**-7, 1.0 - 2.0**-20])


def with_kernels(op: LocalOperation, kernels: Kernels) -> Any:
    """An operation bound to other kernels, where it has any."""
    return replace(op, kernels=kernels) if hasattr(op, "kernels") else op  # type: ignore[call-arg]


def forward_and_backward(part: Part) -> Callable[..., dict[str, Any]]:
    """An operation without parameters: what it makes of x, of the error at that, and of another error afterwards."""

    def compute(kernels, x, dy):
        op = with_kernels(part.build(tuple(x.shape[1:])), kernels)
        y, _, cache = op.forward({}, {}, x, (), True)
        dx, other = op.backward({}, cache, dy)[0], op.backward({}, cache, -2.0 * dy)[0]
        return {"y": y, "dx": dx, "dx of another error": other}

    return compute


def nonlinearities() -> Iterator[Question]:
    """From the tiny to where they are flat, with their slopes where the output is given."""
    for name, part in NONLINEARITIES.items():
        largest, bounds = (
            90.0 if name in SATURATED else 1e4,
            1.0 if name == "relu" else 3.0,
        )  # a sigmoid is also 1 / (1 + exp(-x))
        n = len(values.table(1.0))

        def filled(x, dy, largest=largest, n=n):
            return np.concatenate([values.table(largest), x[n:]]), dy

        yield question(f"nonlinearity/{name}", ((n + 64,), (n + 64,)), forward_and_backward(part), {
            "": filled, "large errors": values.scaled(1.0, FAR), "tiny errors": values.scaled(1.0, 1.0 / FAR)},
            bounds=bounds)  # fmt: skip
        signed = name in ("tanh", "softsign", "another tanh")
        grades = np.concatenate([GRADES, -GRADES]) if signed else GRADES

        def slope(kernels, y, dy, part=part):
            return {"dx": kernels.activation_backward(with_kernels(part.build(()), kernels), y, dy)}

        def given(y, dy, grades=grades):
            return np.resize(grades, y.shape), dy

        yield question(f"nonlinearity/{name}/slope", ((3, 20), (3, 20)), slope, {"": given}, COMPILED, bounds)
        nan, inf = np.nan, np.inf
        x = np.array([nan, inf, -inf, 0.0, 0.5, -2.0])  # an infinite error at an infinite x would meet a rounded slope
        dy = np.array([[1.0] * 6, [nan] * 6, [1.0, 1.0, 1.0, inf, inf, -inf]])
        if name != "softsign":  # whose infinity is no number

            def mixed(*_, x=x, dy=dy):
                return np.broadcast_to(x, (3, 6)), dy

            yield question(
                f"nonlinearity/{name}/not finite", ((3, 6), (3, 6)), forward_and_backward(part), {"": mixed}, COMPILED
            )


FAR = values.FAR

# Pooling

UNEVEN = Part(
    "over uneven borders", lambda in_shape: MaxPool(in_shape, Window(in_shape, (3, 3), (2, 1), ((2, 0), (0, 2))))
)
MAX_POOLS = {
    "2": local.max_pool(2), "3x2 over the border": local.max_pool((3, 2), (2, 1), (1, 0)),
    "same": local.max_pool(3, 2, "same"), "apart": local.max_pool((1, 2), (3, 2)), "1": local.max_pool(1),
    "whole": local.max_pool((7, 5)), "overlapping": local.max_pool((2, 3), 1, "same"), "uneven": UNEVEN,
    "more border than kernel": local.max_pool(2, 1, (1, 2)),
    **{f"loose {i}": local.max_pool(*window, "valid") for i, window in enumerate(LOOSE)},
}  # fmt: skip
AVERAGE_POOLS = {
    "2x3": local.average_pool((2, 3)), "same": local.average_pool(3, 2, "same"), "global": local.global_average_pool,
    "over the border": local.average_pool((3, 2), (2, 1), (1, 1)), "overlapping": local.average_pool(3, 1, "same"),
    **{f"loose {i}": local.average_pool(*window, "valid") for i, window in enumerate(LOOSE)},
}  # fmt: skip


def pools() -> Iterator[Question]:
    """Largest values that are distinct, tied, and all below what padding might be; means that leave padding out."""
    for name, part in MAX_POOLS.items():
        yield question(f"max_pool/{name}", shapes(part), forward_and_backward(part), {
            "": as_drawn, "ties": values.changing(values.tied), "all equal": values.changing(values.zero),
            "below -1000": values.changing(lambda x: -1000.0 - 100.0 * np.abs(x)),
            "below -1e30": values.changing(lambda x: -1e31 * (1.0 + np.abs(x))),
            "far above 0": values.changing(lambda x: 1e4 + x),
            "large errors": values.scaled(1.0, 1e30)},
            BOTH if name == "2" else COMPILED)  # fmt: skip
    for name, part in AVERAGE_POOLS.items():
        yield question(f"average_pool/{name}", shapes(part), forward_and_backward(part), {
            "": as_drawn, "far from 0": values.moved(True, True), "ties": values.changing(values.tied),
            "large": values.scaled(1e30, 1e30),
            "NaN": values.changing(values.with_one(np.nan)), "infinite": values.changing(values.with_one(np.inf)),
            "NaN in the error": values.changing(None, values.with_one(np.nan))},
            BOTH if name == "same" else COMPILED)  # fmt: skip
    nan, inf = np.nan, np.inf
    image = np.array([[nan, 1.0, 1.0, inf, -inf, -inf, 3.0, 3.0],
                      [2.0, 3.0, 1.0, nan, -inf, -inf, inf, 1.0],
                      [1.0, inf, -inf, 3.0, 4.0, 5.0, -inf, -inf],
                      [1.0, inf, 4.0, 2.0, 1.0, 2.0, -inf, nan]])  # fmt: skip
    error = np.array([[1.0, 2.0, 3.0, inf], [nan, -inf, nan, inf]])
    for stride in (2, 1):
        pool = local.max_pool(2, stride, "valid")
        height, width, _ = out = pool.build((4, 8, 1)).out_shape
        errors = np.resize(error, (1, height, width, 1))
        yield question(f"max_pool/stride {stride}/not finite", ((1, 4, 8, 1), (1, *out)), forward_and_backward(pool),
                       {"": lambda *_, e=errors: (image[None, :, :, None], e)}, COMPILED)  # fmt: skip


def shapes(part: Part, n: int = 2) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of n images, and of what an operation makes of them."""
    return (n, *IMAGE), (n, *part.build(IMAGE).out_shape)


# BatchNorm


def normalised(kernels: Kernels, x: Any, dy: Any, gamma: Any, beta: Any, mean: Any, root: Any) -> dict[str, Any]:
    """In training and in test, backward twice from one cache."""
    op = with_kernels(local.batch_norm_with(0.3, 1e-3).build(tuple(x.shape[1:])), kernels)
    params, var = {"gamma": gamma, "beta": beta}, root * root + 0.5
    y, after, cache = op.forward(params, {"mean": mean, "var": var}, x, (), True)
    found = {"y": y, "running mean": after["mean"], "running var": after["var"]}
    for name, error in {"": dy, " of another error": -2.0 * dy}.items():
        dx, grads = op.backward(params, cache, error)
        found |= {f"dx{name}": dx, f"dgamma{name}": grads["gamma"], f"dbeta{name}": grads["beta"]}
    test, _, _ = op.forward(params, {"mean": mean, "var": var}, x, (), False)
    return found | {"y in test": test}


def by_epsilon(kernels: Kernels, x: Any, dy: Any, gamma: Any, beta: Any) -> dict[str, Any]:
    """The kernel alone, of several epsilons in one function."""
    found: dict[str, Any] = {}
    for epsilon in (1.0, 1e-5, 1e-8):
        y, mean, var, cache = kernels.batch_norm(x, gamma, beta, epsilon)
        found |= {f"{n} of epsilon {epsilon}": a for n, a in zip(("y", "mean", "var"), (y, mean, var), strict=True)}
        errors = kernels.batch_norm_backward(cache, gamma, dy)
        found |= {f"{n} of epsilon {epsilon}": a for n, a in zip(("dx", "dgamma", "dbeta"), errors, strict=True)}
    return found


def batch_norms() -> Iterator[Question]:
    """On images and vectors: far from 0, constant, large, tiny, not finite; a batch of one; epsilon large and small."""
    kinds: dict[str, Any] = {
        "": as_drawn, "far from 0": values.moved(True), "errors far from 0": values.moved(False, True),
        "a constant channel": values.changing(lambda x: np.where(np.arange(x.shape[-1]) == 1, 3.0, x)),
        "all constant": values.changing(values.zero), "large": values.scaled(FAR, 1.0),
        "tiny": values.scaled(1.0 / FAR, 1.0),
        "large errors": values.scaled(1.0, FAR), "sparse": values.changing(values.sparse),
        "gamma of 0": values.changing(None, None, values.zero),
        "large variance in test": values.scaled(1.0, 1.0, 1.0, 1.0, 1.0, 1e4),
    }  # fmt: skip
    for name, shape in {"images": (4, *IMAGE), "vectors": (9, 5)}.items():
        arguments = (shape, shape, *((shape[-1],),) * 4)
        asked = question(f"batch_norm/{name}", arguments, normalised, kinds, BOTH if name == "images" else COMPILED)

        def calls(dtype, asked=asked, arguments=arguments):
            yield from asked.calls(dtype)
            single = [(1, *s[1:]) if len(s) > 1 else s for s in arguments]
            yield Call("one sample", drawn(asked.name, single, 4))

        yield asked._replace(calls=calls)
        yield question(f"batch_norm/{name}/epsilon", arguments[:4], by_epsilon, {
            "": as_drawn, "small": values.scaled(1e-4), "constant": values.changing(values.zero)},
            COMPILED)  # fmt: skip
        spoilt = {
            f"{v} in {n}": values.changing(*(None,) * i, values.with_one(v))
            for v in (np.nan, np.inf) for i, n in enumerate(("x", "the error", "gamma", "beta"))
            if (v, n) != (np.inf, "gamma")  # gamma z, and the mean times gamma, are both right
        }  # fmt: skip
        yield question(f"batch_norm/{name}/not finite", arguments, normalised, spoilt, COMPILED)


# Sums over what shares a bias


def biased(kernels: Kernels, x: Any, b: Any, c: Any, v: Any, d: Any, cube: Any) -> dict[str, Any]:
    """Biases by channel and by unit, sums of two arrays, and the sums of errors over what shares a bias."""
    add, total = kernels.add, kernels.channel_sum
    return {
        "by channel": add(x, b), "by unit": add(x, c), "of vectors": add(v, d), "of two": add(x, x * 3.0),
        "of vectors, two": add(v, v * v),
        "sum by channel": total(x, (0, 1, 2)), "sum by unit": total(x, (0,)), "sum of vectors": total(v, (0,)),
        "sum of cubes": total(cube, (0,)), "of cubes": add(cube, cube * 3.0),
    }  # fmt: skip


def biases() -> Iterator[Question]:
    """Additions and sums."""
    arguments = ((4, *IMAGE), IMAGE[2:], IMAGE, (9, 11), (11,), (3, 4, 4, 4))
    spoilt = values.with_one(np.nan)
    yield question("bias/add and channel_sum", arguments, biased, {
        "": as_drawn, "far from 0": values.moved(True, False, False, True),
        "large": values.scaled(*(1e30,) * 3, 1e15, 1e30),
        "tiny": values.scaled(*(1e-30,) * 3, 1e-15),
        "sparse": values.changing(values.sparse, values.zero, None, values.sparse),
        "NaN": values.changing(spoilt, None, None, spoilt),
        "NaN in the bias": values.changing(None, spoilt, spoilt, None, spoilt),
        "infinite": values.changing(values.with_one(-np.inf))})  # fmt: skip


def moved() -> Iterator[Question]:
    """Enlarged images, and their pixels as rows."""
    for name, part in {"2": local.upsample(2), "3": local.upsample(3)}.items():
        yield question(f"upsample/{name}", shapes(part), forward_and_backward(part), {
            "": as_drawn, "far from 0": values.moved(True, True), "large": values.scaled(1e30, 1e30),
            "NaN": values.changing(values.with_one(np.nan)),
            "NaN in the error": values.changing(None, values.with_one(np.nan))},
            BOTH if name == "2" else COMPILED)  # fmt: skip
    for name, part in {"pixels": local.rows(), "single": local.rows(1)}.items():
        yield question(f"rows/{name}", shapes(part), forward_and_backward(part), modes=COMPILED)


def questions() -> Iterator[Question]:
    """All of them."""
    yield from moved()
    yield from nonlinearities()
    yield from pools()
    yield from batch_norms()
    yield from biases()
