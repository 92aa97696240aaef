"""Level 0: how the subject runs a function and a step, on functions whose results are known exactly."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from ref_bioplaus.conformance.cases.cases import root
from ref_bioplaus.conformance.checks.alone.exact import Comparison, exact_check, on_device, turned
from ref_bioplaus.conformance.checks.outcomes import MODES, Check, Subject
from ref_bioplaus.tree import tree_map
from ref_bioplaus.types import NO_PARAMS, Batch, Info, LayerParams, Pathway, State, Step

SIZES = (6, 1, 5, 6, 2, 6, 1)  # of batches, one after the other
STACKS = (3, 1, 3, 2)  # so many batches, one call after the other
WIDE, FEW = 30_001, (3, 1, 3)  # so many units, where memory may be used again; and batches of them
ALIKE = ((3, 3, 3), (4, 4), (2, 2, 2, 2))  # shapes in which one does not see axes change their places
WIDER = ((70, 131), (3, 67, 70), (5, 1), (1, 1, 9), (2, 1, 3))  # beyond small sizes, and axes of one entry
OTHERS = (*range(1, 66), 100, 128)  # batches that cost nothing where nothing is compiled
ODD = np.array([[np.inf, -np.inf, np.nan], [0.0, -0.0, 0.5]])
MANY = 12  # shapes, and calls, of one function
KEEP: tuple[tuple[str, ...] | None, ...] = (
    (), ("loss",), ("h",), ("feedback_grads", "targets", "delta", "output"), ("grads", "loss"), None,
)  # fmt: skip


def whole(shape: tuple[int, ...], first: int = -3) -> np.ndarray:
    """Whole numbers, none alike, that every dtype holds."""
    return np.arange(first, first + int(np.prod(shape)), dtype=np.float64).reshape(shape)


def times(factor: float) -> Callable:
    """A function that differs from others in what it closes over, not in its code."""

    def scaled(x):
        return x * factor

    return scaled


def functions(subject: Subject, comparison: Comparison, mode: str) -> None:
    """Functions of trees: called again with other numbers, shapes, dtypes, structures; what came out stays."""
    called: list[tuple[str, Any, Any]] = []

    def call(name: str, function: Callable, *givens: tuple) -> None:
        run = subject.runs(function, mode)
        called.extend((f"{name}, call {i}", function(*given), run(*on_device(subject, given)))
                      for i, given in enumerate(givens))  # fmt: skip

    def of_one(x):
        return {"sum": x + x, "a": x * 2.0}

    x, y = whole((2, 3)), whole((2, 3), 20)
    shapes = [(whole(shape),) for shape in ((3,), (2, 3), (), (1,))]
    call("other shapes and numbers", of_one, *shapes, (x,), (y,), (whole((3,), 7),))
    call("other dtypes", lambda x: x + x, (x,), (whole((2, 3)).astype(np.int32),), (y,))
    call("axes alike", times(2.0), *((whole(shape),) for shape in ALIKE))
    call("larger ones", times(2.0), *((np.remainder(whole(shape), 101.0),) for shape in WIDER))
    call("all kinds of numbers", lambda x: {"x": x, "larger": x * 2.0}, (ODD,), (x,))
    lying = subject.runs(times(3.0), mode)
    for shape in (*ALIKE, (2, 5), (4, 3, 2)):
        called.append((f"turned in memory, {shape}", 3.0 * whole(shape), lying(turned(subject, whole(shape)))))
    for factor in (2.0, 3.0):
        call(f"closing over {factor}", times(factor), (x,), (y,))

    def of_trees(tree, z):
        inside = tree["z"] + tree["a"][0] * 2.0
        none = tree["a"][1]
        return {"y": (inside, None, [z]), "b": tree["z"], "b again": tree["z"], "c": z if none is None else none}

    trees = ({"z": x, "a": (y, None, [x])}, {"a": (x, None, [y]), "z": y}, {"z": x, "a": (x, y, [])})
    call("trees", of_trees, *((tree, whole((4,))) for tree in trees), (trees[0], whole((5,))))
    call("names", lambda p: Batch(p.y, LayerParams(p.x, ({"b": p.y},))), (Batch(x, y),), (Batch(y, x),))
    call("lists and tuples", lambda p: [p[1], (p[0],)], ((x, y),), ([y, x],), ((x, x),))
    call("many", lambda a, b, c: (c, a, b), (x, y, whole((2, 3), 40)), (y, x, x))
    call("constants", lambda x: (x * 0.0 + 3.0, array_namespace(x).ones_like(x)), (x,), (whole((3, 1)),))
    many = [(whole((n,)),) for n in (*range(1, MANY), 1, 2, MANY - 1)]
    call("many shapes", times(2.0), *many)
    call("many numbers", times(3.0), *((whole((3,), i),) for i in range(MANY)))
    twice = subject.runs(times(2.0), mode)
    called.append(("its own result", 4.0 * x, twice(twice(on_device(subject, x)))))
    for name, expected, got in called:
        comparison.tree(name, expected, got)


def facts(subject: Subject, comparison: Comparison, mode: str) -> None:
    """What a backend says of itself and its device, as far as it can be told from anything else."""
    backend = subject.backend
    own = subject.own
    said: tuple[tuple[str, Any, type], ...] = (
        ("on_gpu", backend.on_gpu, bool), ("synchronize()", own(backend.synchronize)(), type(None)),
        ("versions()", own(backend.versions)(), dict),
    )  # fmt: skip
    sizes = {"free_bytes()": own(backend.free_bytes)(), "peak_bytes()": own(backend.peak_bytes)()}
    for name, found, kind in said:
        if not isinstance(found, kind):
            comparison.wrong(f"{name} is {found!r}, expected {kind.__name__}")
    for name, size in sizes.items():
        if size is not None and not (isinstance(size, int) and size > 0):
            comparison.wrong(f"{name} is {size!r}, expected a positive number or None")


def counting(sign: float) -> Step:
    """A step in whole numbers that computes every field of Info, and hands on arrays that it was given."""

    def counted(state, batch):
        xp = array_namespace(batch.x)
        x, (W, local) = sign * batch.x, state.forward.params[1]
        dW, db = xp.sum(x, axis=0), xp.sum(batch.y, axis=0)
        info = Info(
            loss=xp.sum(x * x, axis=1), output=x - W, h=(batch.x, x + W, W), delta=(None, batch.y),
            targets=(None, 3.0 * batch.y), grads=(NO_PARAMS, LayerParams(dW, ({"b": db},))),
            feedback_grads=(NO_PARAMS, LayerParams(-dW)),
        )  # fmt: skip
        layer = LayerParams(W + dW, ({"b": local[0]["b"] + db},))
        forward = Pathway((NO_PARAMS, layer), {"v": dW, "count": state.t})
        B = LayerParams(state.feedback.params[1].W - dW)
        feedback = Pathway((NO_PARAMS, B), state.feedback.memory)
        return State(state.t + 1, state.key, forward, feedback, (None, ({"mean": W},))), info

    return counted


counted, sideways = counting(1.0), counting(-1.0)  # two steps that differ in what they close over alone


def first_state(seed: int, units: int = 3) -> State:
    """Whole numbers to start from, of so many units; some stay as they are, through every step."""
    W, key, t = np.remainder(whole((units,), seed), 13.0), root(seed), np.zeros((), np.int32)
    forward = Pathway((NO_PARAMS, LayerParams(W, ({"b": whole((2,), seed + 5)},))), {"v": 0.0 * W, "count": t})
    feedback = Pathway(
        (NO_PARAMS, LayerParams(-W)), {"stays": (*(np.remainder(whole(s, seed), 13.0) for s in (*ALIKE, *WIDER)), ODD)}
    )
    return State(t, key, forward, feedback, (None, ({"mean": 0.0 * W},)))


def batch_of(n: int, i: int, units: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A batch of small whole numbers, other ones at every i."""
    x, y = np.sin(whole((n, units), i)), np.cos(whole((n, 2), -i))
    return np.rint(x), np.rint(y)


def bound(subject: Subject, mode: str, step: Callable, keep: tuple[str, ...] | None = None) -> Callable:
    """A step as a mode runs it."""
    compiled = subject.backend.compile
    if mode == "eager":
        return subject.backend.eager(subject.own(step))
    return compiled(subject.own(step), donate=mode == "donating", keep=keep)


def kept_fields(subject: Subject, comparison: Comparison, mode: str) -> None:
    """compile's `keep`: the fields that are named, each in its own place, and no others; all of the state."""
    for keep in KEEP if mode == "compiled" else KEEP[-2:]:
        run = bound(subject, mode, counted, keep)
        for seed, n in ((1, 6), (0, 4)) if keep is None else ((1, 6),):
            new, info = counted(first_state(seed), Batch(*batch_of(n, seed)))
            wanted = info if keep is None else Info(**{name: getattr(info, name) for name in keep})
            given = on_device(subject, first_state(seed)), subject.backend.batch(*batch_of(n, seed))
            comparison.tree(f"keep={keep}, {n} samples", (new, wanted), run(*given))
    try:
        subject.backend.compile(counted, keep=("los",))
    except Exception:
        return
    comparison.wrong('compile took keep=("los",), and nothing was raised')


def sequences(
    subject: Subject, comparison: Comparison, mode: str, units: int = 3, sizes: tuple[int, ...] = SIZES
) -> None:  # fmt: skip
    """One step over batches of changing sizes, two states in turns: each result, then and at the end.

    Donating, a state is gone after its step: what was read of it before, its results and the batches are not.
    """
    backend, run, other = subject.backend, bound(subject, mode, counted), bound(subject, mode, sideways)
    starts = {seed: first_state(seed, units) for seed in (0, 3)}
    states = {0: (starts[0], on_device(subject, starts[0])), 3: (starts[3], turned(subject, starts[3]))}
    read: list[tuple[str, np.ndarray, np.ndarray]] = []
    more = () if backend.compiles or sizes is not SIZES else OTHERS
    for i, n in enumerate((*sizes, *more)):
        turns = [(0, run, counted), (3, run, counted), (3, other, sideways)]
        turns = turns[: 1 if i >= len(sizes) else 3 if n == sizes[0] else 2]
        for seed, step, pure in turns:
            where = f"step {i} of {n} samples from state {seed}"
            x, y = batch_of(n, i + seed, units)
            expected, state = states[seed]
            batch = backend.batch(x, y)
            held: Any = None
            if i % 3 == 1:  # otherwise nobody else sees the state, and a donating step may write over all of it
                views = [backend.to_numpy(state.forward.params[1].W), backend.to_numpy(state.stats[1][0]["mean"])]
                read += [(where, view, np.array(view)) for view in views]
            elif i % 3 == 2:
                held = expected.forward, state.forward
            expected, wanted = pure(expected, Batch(x, y))
            state, info = step(state, batch)
            comparison.tree(where, expected, state, stays=mode != "donating")
            comparison.tree(f"{where}, and its batch", (wanted, Batch(x, y)), (info, batch))
            if held:
                comparison.tree(f"a part of the state that {where} was given", *held)
            states[seed] = expected, state
    for where, view, copy in read:
        if not np.array_equal(view, copy):
            comparison.wrong(f"what to_numpy gave before {where} was written over")


def stacks(subject: Subject, comparison: Comparison, mode: str) -> None:
    """compile's `steps`: two states in turns learn from stacks, the last one shorter; other stacks raise."""
    backend, most = subject.backend, max(STACKS)
    run = backend.compile(subject.own(counted), donate=mode == "donating", steps=most)
    starts = {seed: first_state(seed) for seed in (0, 3)}
    states = {seed: (start, on_device(subject, start)) for seed, start in starts.items()}
    for i, k in enumerate(STACKS):
        for seed in (0, 3):
            expected, state = states[seed]
            given = [batch_of(SIZES[i], most * i + j + seed) for j in range(k)]
            infos = []
            for x, y in given:
                expected, info = counted(expected, Batch(x, y))
                infos.append(info)
            wanted = tree_map(lambda *arrays: np.stack(arrays), *infos)
            stack = backend.batch(*map(np.stack, zip(*given, strict=True)))
            state, found = run(state, stack)
            comparison.tree(
                f"{k} steps from state {seed}", (expected, wanted), (state, found), stays=mode != "donating"
            )
            states[seed] = expected, state
    for k in (0, most + 1):
        x, y = batch_of(2, 0)
        try:
            run(on_device(subject, first_state(1)), backend.batch(np.stack([x] * 9)[:k], np.stack([y] * 9)[:k]))
        except Exception:
            continue
        comparison.wrong(f"a stack of {k} batches was taken with steps={most}, and nothing was raised")


def checks() -> tuple[Check, ...]:
    """How functions and steps are run."""
    return (
        exact_check("functions", "backend", functions, ("eager", "compiled")),
        exact_check("facts", "backend", facts, ("eager",)),
        exact_check("keep", "backend", kept_fields, MODES[1:]),
        exact_check("stacks", "backend", stacks, MODES[1:]),
        exact_check("sequences", "backend", sequences, MODES),
        exact_check("sequences, wide", "backend", partial(sequences, units=WIDE, sizes=FEW), MODES[1:]),
    )
