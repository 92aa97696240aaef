"""Level 0: the optimizers' kernels, loops over tiles, and losses."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from ref_bioplaus import losses
from ref_bioplaus.conformance.checks.alone import values
from ref_bioplaus.conformance.checks.alone.asking import COMPILED, Prepare, Question, as_drawn, question
from ref_bioplaus.kernels import Kernels

SHAPES = ((4, 3), (5,), (1,), (2, 3, 2, 2), ())
N = len(SHAPES)
BETAS = ((0.9, 0.999), (0.5, 0.9), (0.99, 0.9))
DECAYED = (1.0, 0.9, 1.0, 0.99, 1.0)  # numbers that tensors keep of themselves


def tensors(arrays: tuple, i: int) -> list:
    """The i-th list of tensors among a kernel's arrays."""
    return list(arrays[N * i : N * (i + 1)])


def numbered(name: str, lists: dict[str, list]) -> dict[str, Any]:
    """Lists of results by name."""
    return {f"{name}: {part}[{i}]": a for part, found in lists.items() for i, a in enumerate(found)}


def factors(eta: Any) -> dict[str, list]:
    """What tensors keep of themselves: all, numbers, an array, and of each kind some."""
    kept = 1.0 - 0.1 * eta
    return {"all kept": [1.0] * N, "decayed": list(DECAYED), "decayed by an array": [1.0, kept, kept, 0.9, 1.0]}


def sgd(kernels: Kernels, eta: Any, *arrays: Any) -> dict[str, Any]:
    """With and without momentum, Nesterov's, a rate that is an array or a number, and all kinds of decay."""
    found: dict[str, Any] = {}
    p, g, v = (tensors(arrays, i) for i in range(3))
    for momentum, nesterov in ((0.0, False), (0.9, False), (0.5, True)):
        for kind, keep in factors(eta).items():
            for rate in (eta, 0.05):
                new, velocity = kernels.sgd(p, g, v if momentum else g, keep, rate, momentum, nesterov)
                name = (
                    f"momentum {momentum}{', Nesterov' * nesterov}, {kind}, {'an array' if rate is eta else 'a number'}"
                )
                found |= numbered(name, {"p": new, "v": velocity})
    return found


def adam(kernels: Kernels, eta: Any, t: Any, *arrays: Any) -> dict[str, Any]:
    """Both forms of epsilon, large and small, a rate that is an array or a number, and all kinds of decay."""
    xp, found = array_namespace(t), dict[str, Any]()
    p, g, m, v = (tensors(arrays, i) for i in range(4))
    for form, epsilon, betas in (
        ("paper", 1e-8, BETAS[0]),
        ("hat", 1e-3, BETAS[1]),
        ("paper", 1e-2, BETAS[2]),
        ("hat", 1e-8, BETAS[0]),
    ):
        correction = tuple(-xp.expm1(t * math.log(b)) for b in betas)
        for kind, keep in factors(eta).items():
            for rate in (eta, 0.05):
                lists = kernels.adam(p, g, m, v, keep, rate, correction, *betas, epsilon, form)
                name = f"{form}, epsilon {epsilon}, {kind}, {'an array' if rate is eta else 'a number'}"
                found |= numbered(name, dict(zip("pmv", lists, strict=True)))
    return found


def updating(lists: int, numbers: tuple[float, ...], change: Callable = lambda name, i, a: a) -> Prepare:
    """The rates and counts, and `change` of the tensors: of the list and the number in it."""

    def prepare(*drawn):
        rest = drawn[len(numbers) :]
        changed = [change("pgmv"[i // N] if lists == 4 else "pgv"[i // N], i % N, a) for i, a in enumerate(rest)]
        if lists == 4:
            changed[3 * N :] = [a * a for a in changed[3 * N :]]
        return (*(np.full((), n) for n in numbers), *changed)

    return prepare


def spoilt(value: float, one: bool) -> Callable:
    """A gradient whose one element, or all of them, are a number."""

    def change(name, i, a):
        if name != "g" or i != (3 if one else 1):
            return a
        return values.with_one(value)(a) if one else np.full_like(a, value)

    return change


def optimizers() -> Iterator[Question]:
    """The kernels alone: ordinary, 0, large and tiny gradients, and one that is not finite, which stays where it is."""
    sizes: dict[str, Callable] = {
        "": lambda name, i, a: a,
        "large gradients": lambda name, i, a: a * 1e12 if name == "g" else a,
        "tiny gradients": lambda name, i, a: a * 1e-12 if name != "p" else a,
        "gradients of 0": lambda name, i, a: 0.0 * a if name != "p" else a,
        "weights of 0": lambda name, i, a: 0.0 * a if name == "p" else a,
        "NaN in a tensor": spoilt(np.nan, False), "one NaN": spoilt(np.nan, True), "one infinity": spoilt(np.inf, True),
    }  # fmt: skip
    kinds = {kind: updating(3, (0.02,), change) for kind, change in sizes.items()}
    kinds |= {"another rate": updating(3, (0.5,)), "rate 0": updating(3, (0.0,))}
    yield question("optimizers/sgd", ((), *SHAPES * 3), sgd, kinds, COMPILED)
    del sizes["one infinity"]  # of a moving average both its sum and its step towards a gradient are right
    kinds = {kind: updating(4, (0.02, 3.0), change) for kind, change in sizes.items()}
    kinds |= {f"after {t:g} updates": updating(4, (0.02, t)) for t in (1.0, 2.0, 40.0, 1000.0, 1e6)}
    kinds |= {"another rate": updating(4, (0.5, 7.0))}
    yield question("optimizers/adam", ((), (), *SHAPES * 4), adam, kinds, COMPILED)


def both(kernels: Kernels, *arrays: Any) -> dict[str, Any]:
    """One update by each, for what a library does eagerly, and with arrays that lie otherwise in memory."""
    p, g, v = ([a] for a in arrays[:3])
    first = kernels.sgd(p, g, v, [0.9], 0.05, 0.9, True)
    c1, c2 = (0.0 * a + 0.271 for a in arrays[3:])
    second = kernels.adam(p, g, v, [v[0] * v[0]], [0.9], 0.05, (c1, 0.0 * c2 + 0.002997001), 0.9, 0.999, 1e-8, "paper")
    return {f"sgd: {n}": a for n, [a] in zip("pv", first, strict=True)} | {
        f"adam: {n}": a for n, [a] in zip("pmv", second, strict=True)
    }


def looped(kernels: Kernels, a: Any, b: Any, c: Any) -> dict[str, Any]:
    """Tiles that begin anywhere, in any order, of arrays and of none."""
    xp = array_namespace(a)
    width = 3

    def columns(start, a, b):
        index = xp.arange(width, dtype=xp.int32, device=device(a)) + start
        return xp.matmul(xp.take(a, index, axis=1), xp.take(b, index, axis=0)) + xp.take(a, index, axis=1)[:, :1]

    def counted(start):
        return xp.arange(width, dtype=xp.int32, device=device(a)) * 2 + start

    def one_row(start, a):
        return xp.take(a, xp.arange(1, dtype=xp.int32, device=device(a)) + start, axis=0)

    lists = {
        "tiles": kernels.each(columns, [0, 3, 6, 9], a, b), "anywhere": kernels.each(columns, [7, 1, 1, 8, 2], a, b),
        "one tile": kernels.each(columns, [5], a, b), "without arrays": kernels.each(counted, [4, 0, 11]),
        "more arrays": kernels.each(lambda s, a, b, c: columns(s, a, b) + c[:5, :1], [2, 9], a, b, b),
        "rows": kernels.each(one_row, list(range(8, -1, -1)), b),
        "long tiles": kernels.each(lambda s, a, c: xp.matmul(c, one_row(s, a)), [3, 0], a, c),
    }  # fmt: skip
    return {f"{name}[{i}]": tile for name, tiles in lists.items() for i, tile in enumerate(list(tiles))}


# Losses

LOSSES = {name: getattr(losses, name)() for name in ("cross_entropy", "sigmoid_cross_entropy", "squared_error")}
FAR = values.FAR
UNITS = 4  # that the task sees, where there are others


def asked_of(loss: Any) -> Callable[..., dict[str, Any]]:
    """The four functions of a loss."""

    def compute(_, u, y):
        target = loss.target(u, y)
        return {"value": loss.value(u, y), "output": loss.output(u), "gradient": loss.gradient(u, y), "target": target}

    return compute


def one_hot(u: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
    """Outputs of some size, and classes."""
    return 3.0 * u, values.one_hot(y)


def extreme(size: float) -> Prepare:
    """Outputs of a size, of both signs, with ties and zeros among them."""
    return lambda u, y: (size * np.resize([1.0, -1.0, 0.0, 1.0, -1.0, -1.0, 0.5], u.shape), values.one_hot(y))


def loss_questions() -> Iterator[Question]:
    """Outputs that exponentials overflow at, far from 0, tied; targets: classes, shares, no distribution."""
    kinds: dict[str, Any] = {
        "": one_hot, "shares": lambda u, y: (u, np.exp(y) / np.sum(np.exp(y), axis=1, keepdims=True)),
        "no distribution": lambda u, y: (u, np.abs(y)), "far from 0": lambda u, y: (u + 500.0, values.one_hot(y)),
        "far below 0": lambda u, y: (u - 500.0, values.one_hot(y)),
        "ties": lambda u, y: (values.tied(u), values.one_hot(y)), "all 0": lambda u, y: (0.0 * u, values.one_hot(y)),
        "targets of 0": lambda u, y: (u, 0.0 * y),
        **{f"outputs of {size:g}": extreme(size) for size in (15.0, 40.0, 100.0, 1e4)},
    }  # fmt: skip
    single = {"classes": lambda u, y: (3.0 * u, (y > 0.0) * 1.0)} | {
        f"outputs of {size:g}": lambda u, y, n=size: (n * np.sign(u), (y > 0.0) * 1.0) for size in (15.0, 40.0, 1e4)
    }
    nan, inf = np.nan, np.inf
    wrong = np.array([[nan, 1.0, 2.0], [inf, 1.0, 2.0], [1.0, -inf, 2.0], [1.0, 2.0, nan]])
    not_finite = {"": lambda u, y: (wrong, np.eye(3)[[0, 1, 1, 2]])}
    behind = values.changing(lambda u: np.where(np.arange(u.shape[1]) == UNITS, nan, u), values.one_hot)
    for name, loss in LOSSES.items():
        sizes = {"large": values.scaled(FAR, FAR), "tiny": values.scaled(1.0 / FAR)} if name == "squared_error" else {}
        yield question(f"loss/{name}", ((5, 4), (5, 4)), asked_of(loss), kinds | sizes)
        yield question(f"loss/{name}/one unit", ((7, 1), (7, 1)), asked_of(loss), single, COMPILED)
        yield question(f"loss/{name}/not finite", ((4, 3), (4, 3)), asked_of(loss), not_finite, COMPILED)
        auxiliary, shapes = asked_of(losses.with_auxiliary_output(loss, UNITS)), ((5, UNITS + 3), (5, UNITS))
        yield question(f"loss/{name}/auxiliary", shapes, auxiliary, {"": one_hot, "NaN behind": behind}, COMPILED)
    yield from detecting(kinds)


KINDS = 3  # of things to be detected


def anchored(logits: float, offsets: float, label: Callable[[np.ndarray], np.ndarray]) -> Prepare:
    """Outputs of a size, and the anchors' classes, which those that are no background and not ignored have boxes for.

    label: from whole numbers of either sign.
    """

    def prepare(u, y):
        found = np.where(np.abs(y[..., :1]) < 2.0, label(np.rint(1.5 * y[..., :1])), -2.0)
        sizes = np.where(
            np.arange(u.shape[-1]) < KINDS, logits * np.resize([1.0, -1.0, 1.0, 0.7], u.shape), offsets * u
        )
        boxed = (found >= 0.0) * 1.0
        return sizes, np.concatenate([found, boxed, boxed * y[..., 2:]], axis=-1)

    return prepare


def detecting(kinds: dict[str, Any]) -> Iterator[Question]:
    """Losses of a detector: logits that a sigmoid is flat at, no box, every anchor ignored, offsets that are met."""
    whole = values.changing(None, values.tied)
    some = {"some ignored": lambda u, y: (3.0 * u, np.sign(np.rint(y))), "tied": whole}
    all_of_it = {"all ignored": lambda u, y: (3.0 * u, 0.0 * y - 1.0)}
    yield question("loss/focal", ((5, 4), (5, 4)), asked_of(losses.focal()), kinds | some | all_of_it)
    yield question("loss/focal/gamma", ((5, 4), (5, 4)), asked_of(losses.focal(1.5, 0.625)), kinds | some, COMPILED)
    for name, loss in (("smooth_l1", losses.smooth_l1(0.5)), ("l1", losses.l1())):
        far = {
            "": whole,
            "large": values.scaled(FAR, FAR),
            "met": lambda u, y: (y, y),
            "near": lambda u, y: (y + u / 8.0, y),
        }
        yield question(f"loss/{name}", ((5, 2, 3), (5, 2, 3)), asked_of(loss), far)
    labels: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "": lambda n: np.clip(n, -2.0, KINDS - 1.0), "no box": lambda n: np.clip(n, -2.0, -1.0),
        "all background": lambda n: 0.0 * n - 2.0, "all ignored": lambda n: 0.0 * n - 1.0,
        "all boxes": lambda n: abs(n) % KINDS,
    }  # fmt: skip
    asked = {
        name + (f", logits of {size:g}" if size != 1.0 else ""): anchored(size, 0.5, label)
        for size in (1.0, 40.0) for name, label in labels.items()
    }  # fmt: skip
    for name, beta, anchors in (("", 0.0, (7,)), ("/smooth", 0.25, (2, 3, 2))):
        shapes = ((3, *anchors, KINDS + 4), (3, *anchors, 6))
        yield question(f"loss/detection{name}", shapes, asked_of(losses.detection(KINDS, beta=beta)), asked)


def questions() -> Iterator[Question]:
    """All of them."""
    yield from optimizers()
    yield question("optimizers/both", (*((4, 3),) * 3, (), ()), both)
    yield question("each/tiles", ((5, 12), (12, 4), (67, 1)), looped, {"": as_drawn})
    yield from loss_questions()
