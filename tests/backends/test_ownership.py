"""Who owns what around a compiled step: whatever a caller can still reach keeps its value, and results are the step's.

A caller makes plain and donating calls in random order, of all modes of all algorithms and of steps that a generator
writes (constants, closures, aliases, shared leaves, leaves passed through), keeps states, parts, views and Infos, and
after every call looks at all of it. One comparison is one array that the caller can still reach, after one call,
against its copy from before, or one result against the step that is not compiled. `make ownership` makes a million.
"""

import gc
import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ref_bioplaus import algorithms, backends, losses
from ref_bioplaus.backends import BackendError, ownership
from ref_bioplaus.conformance.cases.cases import step_cases
from ref_bioplaus.conformance.cases.networks import batch
from ref_bioplaus.linear import dense
from ref_bioplaus.local import bias, tanh
from ref_bioplaus.network import chain
from ref_bioplaus.optimizers import sgd
from ref_bioplaus.tree import leaves, tree_map
from ref_bioplaus.types import Batch, Info, Pathway, State
from tests.conftest import get

WHOLE = int(os.environ.get("REF_BIOPLAUS_LOOKS", "0"))  # comparisons per backend; 0: a part that takes seconds
BACKENDS = [("numpy", "native"), ("torch", "native"), ("torch", "portable"), ("jax", "native")]
NAMES = [f"{library}, {kernels}" for library, kernels in BACKENDS]
CASES = {c.row: c for c in step_cases() if c.id == f"{c.row}/{c.architecture}" and c.architecture == "FC"}
IN_PART = {  # the rows that a part tries: a capture takes a second, a compilation several
    "torch, native": ("backprop", "kolen-pollack", "weight-mirror", "dfa", "frsf-ei", "dtp", "sdtp-alternating"),
    "jax, native": ("feedback-alignment",),
}
COUNTED: Counter = Counter()  # comparisons, by backend


def made(name: str, dtype: str = "float64"):
    library, kernels = BACKENDS[NAMES.index(name)]
    get(library)
    return backends.get(library, dtype=dtype, kernels=kernels)


@pytest.fixture(params=NAMES)
def backend(request):
    """A backend for each way in which steps are run."""
    return made(request.param)


@pytest.fixture(scope="module", autouse=True)
def report():
    yield
    if COUNTED:
        print(f"\ncomparisons: {dict(COUNTED)}, {sum(COUNTED.values())} in all")


class Caller:
    """Calls steps and looks at all that it can still reach. It holds states by their roots, as callers do."""

    def __init__(self, backend, seed: int, exact: bool = True):
        """exact: whether a compiled result is the other one bit for bit."""
        self.backend, self.exact = backend, exact
        self.random = np.random.default_rng(seed)
        self.kept: list[tuple[str, object, list[np.ndarray]]] = []
        self.looks = 0
        self.stayed = 0  # arrays of a new state that lie where one of the donated state lay

    def arrays(self, tree) -> list[np.ndarray]:
        return [
            np.array(leaf if isinstance(leaf, np.ndarray) else self.backend.to_numpy(leaf)) for leaf in leaves(tree)
        ]

    def keep(self, what: str, tree) -> None:
        """Look at this from now on."""
        self.kept.append((what, tree, self.arrays(tree)))

    def forget(self, tree) -> None:
        """Not at this, which was donated."""
        self.kept = [entry for entry in self.kept if entry[1] is not tree]

    def look(self, after: str) -> None:
        """Everything is as it was."""
        for what, tree, before in self.kept:
            for i, (now, then) in enumerate(zip(self.arrays(tree), before, strict=True)):
                self.looks += 1
                assert np.array_equal(now, then, equal_nan=True), f"array {i} of {what} changed in {after}"

    def compare(self, found, expected: list[np.ndarray], what: str) -> None:
        """A result is that of the step which is not compiled."""
        for i, (a, b) in enumerate(zip(self.arrays(found), expected, strict=True)):
            self.looks += 1
            scale = 0.0 if self.exact or b.dtype.kind != "f" else 1e-11 * (1.0 + np.max(np.abs(b), initial=0.0))
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            assert np.max(np.abs(a - b), initial=0.0) <= scale, f"array {i} of {what}: {a}, expected {b}"

    def places(self, tree) -> list[int]:
        """Where arrays lie in memory, as torch tells."""
        return [t.data_ptr() for t in leaves(tree) if hasattr(t, "data_ptr") and t.is_floating_point() and t.numel()]

    def call(self, step, compiled, state, given, donate: bool, what: str):
        """One call, everything looked at; returns the new state."""
        expected = [self.arrays(tree) for tree in self.backend.eager(step)(state, given)]
        before = self.places(state) if donate else []
        if donate:
            self.forget(state)
        new, info = compiled(state, given)
        self.stayed += len(set(before) & set(self.places(new)))
        self.compare(new, expected[0], f"the state after {what}")
        self.compare(info, expected[1], f"the Info of {what}")
        self.look(what)
        if donate:
            with pytest.raises(BackendError, match="donated"):
                compiled(state, given)
        self.keep(f"the Info of {what}", info)
        return new

    def hold(self, state) -> None:
        """Perhaps hold a part of a state, an array of it or what shares its memory."""
        part = self.random.choice(["nothing", "nothing", "forward", "params", "array", "view", "host"])
        array = (
            state.feedback.params["a"] if isinstance(state.feedback.params, dict) else leaves(state.forward.params)[0]
        )
        if part == "forward":
            self.keep("a path", state.feedback)
        elif part == "params":
            self.keep("parameters", (state.forward.params,))
        elif part == "array":
            self.keep("an array", (array,))
        elif part == "view":
            self.keep("a view", (array[..., 1:],))
        elif part == "host":
            self.keep(
                "a host's array", (self.backend.to_numpy(array) if self.backend.name != "torch" else array.numpy(),)
            )


# Steps that a generator writes. Their numbers are whole and small: compiled and not, they are the same bit for bit.

SHAPES = {"a": (3,), "b": (3,), "c": (2, 3), "d": (3,), "e": (2, 3), "f": ()}


def first_state(backend, random) -> State:
    """Small whole numbers by name; two of the leaves may be one array, or one a view of another."""
    params = {n: backend.asarray(random.integers(-4, 5, shape).astype(np.float64)) for n, shape in SHAPES.items()}
    if random.random() < 0.3:
        params["b"] = params["a"]
    if random.random() < 0.3:
        params["d"] = params["c"][1, ...]
    t = backend.asarray(np.array(0, np.int32))
    return State(t, backend.key(1), Pathway(()), Pathway(params, (params["e"],) if random.random() < 0.3 else ()), ())


def written_step(backend, seed: int, state):
    """A step whose parts are drawn at random: what each leaf becomes, what Info shows, whether t goes on."""
    random = np.random.default_rng(seed)
    closed = {n: backend.asarray(random.integers(-4, 5, shape).astype(np.float64)) for n, shape in SHAPES.items()}
    of_state = {n: state.feedback.params[n] for n in ("a", "c")}  # arrays of the first state, and views of them
    views = {"a": of_state["a"][:], "c": of_state["c"][0:2, :]}

    def part():
        return random.choice(
            ["same", "other", "constant", "closed", "first", "view", "sum", "twice", "batch", "turned"]
        )

    plan = {n: (part(), part(), int(random.integers(0, 3))) for n in SHAPES}
    shown = [(part(), random.choice(list(SHAPES))) for _ in range(4)]
    goes_on, shared = random.random() < 0.7, random.random() < 0.5

    def computed(kind, name, params, given):
        xp, shape = backend.xp, SHAPES[name]
        a = params[name]
        like = [n for n in SHAPES if SHAPES[n] == shape]
        other = params[like[(like.index(name) + 1) % len(like)]]
        if kind == "other":
            return other
        if kind == "constant":
            return xp.full(shape, 2.0, dtype=a.dtype)
        if kind == "closed":
            return closed[name]
        if kind == "first" and name in of_state:
            return a - of_state[name]
        if kind == "view" and name in views:
            return views[name] + 1.0
        if kind == "sum":
            return a + other
        if kind == "twice":
            return 2.0 * a
        if kind == "batch":
            return a + xp.sum(given.x) if shape == () else a + xp.sum(given.x, axis=0)
        if kind == "turned":
            return xp.reshape(xp.flip(xp.reshape(a, (-1,)), axis=0), shape)
        return a

    def step(state, given):
        params = state.feedback.params
        new = {n: computed(kind, n, params, given) for n, (kind, _, _) in plan.items()}
        for n, (_, kind, depth) in plan.items():
            for _ in range(depth if kind in ("sum", "twice", "batch") else 0):
                new[n] = computed(kind, n, new, given)
        if shared:
            new["b"] = new["d"]
        infos = [computed(kind, n, params if i % 2 else new, given) for i, (kind, n) in enumerate(shown)]
        t = state.t + 1 if goes_on else state.t
        memory = (new["e"],) if state.feedback.memory else ()
        return State(t, state.key, state.forward, Pathway(new, memory), ()), Info(
            infos[0], infos[1], h=tuple(infos[2:])
        )

    return step


def one_rule(backend, seed: int) -> Caller:
    """A few states through two written steps, plain and donating."""
    caller = Caller(backend, seed)
    random = caller.random
    first = first_state(backend, random)
    steps = [written_step(backend, 2 * seed + i, first) for i in range(2)]
    compiled = {(i, d): backend.compile(s, donate=d) for i, s in enumerate(steps) for d in (False, True)}
    states = [first]
    first = None
    caller.keep("a state", states[0])
    for k in range(8):
        state = states.pop(int(random.integers(len(states))))
        given = backend.batch(
            random.integers(-2, 3, (int(random.integers(1, 3)), 3)).astype(np.float64), np.zeros((1, 1))
        )
        i, donate = int(random.integers(2)), bool(random.integers(2))
        caller.hold(state)
        caller.keep("a batch", given)
        if random.random() < 0.2:  # a mistake costs nothing
            wrong = Batch(backend.asarray(np.zeros((1, 5))), given.y)
            with pytest.raises(Exception) as error:  # noqa: PT011 - each library's own
                compiled[i, donate](state, wrong)
                raise LookupError("this step does not read the batch")
            assert "donated" not in str(error.value)
            if isinstance(error.value, LookupError) and donate:
                caller.forget(state)
                states = states or [first_state(backend, random)]
                continue
            error = None
            caller.look("a call that raised")
        new = caller.call(steps[i], compiled[i, donate], state, given, donate, f"call {k}, step {i}, donate={donate}")
        if not donate:
            states.append(state)
        states.append(new)
        if random.random() < 0.5:
            caller.keep("a state", new)
        state = new = None
        states = [s for s in states if max(np.max(np.abs(a)) for a in caller.arrays(s.feedback)) < 2.0**20][-3:]
        states = states or [first_state(backend, random)]
    return caller


@pytest.mark.parametrize("name", NAMES)
def test_written_steps(name):
    backend, looks, stayed, seed = made(name), 0, 0, 0
    while looks < (WHOLE or 1500):
        caller = one_rule(backend, seed)
        looks, stayed, seed = looks + caller.looks, stayed + caller.stayed, seed + 1
    COUNTED[name] += looks
    if name == "torch, native":
        assert stayed > seed  # donated memory was used again: not everything was copied


@pytest.mark.parametrize("row", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_all_modes_of_all_algorithms(name, row):
    """Plain and donating calls in random order, parts and states kept, a batch of one and a second shape."""
    if not WHOLE and row not in IN_PART.get(name, CASES):
        pytest.skip("compiling takes long: `make ownership` tries all rows")
    backend, case = made(name), CASES[row]
    algorithm = case.build(backend.kernels)
    compiled = {(m, d): backend.compile(s, donate=d) for m, s in algorithm.modes.items() for d in (False, True)}
    caller = Caller(backend, 7, exact=not backend.compiles)
    states = [algorithm.init(backend.key(3))]
    caller.keep("a state", states[0])
    order = [mode for epoch in range(4) for mode in algorithm.schedule(epoch, 0)]
    for k, mode in enumerate(
        dict.fromkeys([*order, *algorithm.modes]) if not WHOLE else [*order, *algorithm.modes] * 2
    ):
        for donate in (False, True, True):
            state = states.pop(int(caller.random.integers(len(states))))
            given = backend.batch(*batch(case.network(), 1 if backend.name != "jax" and k % 2 else 6, k))
            caller.hold(state)
            new = caller.call(algorithm.modes[mode], compiled[mode, donate], state, given, donate, f"{mode}, {donate}")
            states = [*states, *([] if donate else [state]), new][-3:]
            state = new = None
    COUNTED[name] += caller.looks


# Known answers, one for each way in which memory or numbers were once changed in silence.


def of(backend, **arrays):
    """A state with these feedback parameters, and a batch."""
    params = {n: backend.asarray(np.array(a, np.float64)) for n, a in arrays.items()}
    state = State(backend.asarray(np.array(0, np.int32)), backend.key(0), Pathway(()), Pathway(params), ())
    return state, backend.batch(np.ones((1, 3)), np.ones((1, 2)))


def after(state, **params):
    """The state with these parameters, one step later."""
    return state._replace(t=state.t + 1, feedback=Pathway(params))


@pytest.mark.parametrize("donate", [False, True])
def test_a_closed_over_array_stays_what_it_was(backend, donate):
    """Also where it is an argument of the first call, as a measure of the way from the start closes over."""
    state, given = of(backend, a=[1.0, 2.0])
    start = state.feedback.params["a"]

    def step(state, batch):
        a = state.feedback.params["a"]
        return after(state, a=a * 1.5), Info(loss=a - start)

    run, seen = backend.compile(step, donate=donate), []
    for _ in range(3):
        state, info = run(state, given)
        seen.append(float(backend.to_numpy(info.loss).sum()))
    assert seen == [0.0, 1.5, 3.75]
    assert backend.to_numpy(start).tolist() == [1.0, 2.0]


def test_a_constant_that_became_state_stays_constant(backend):
    state, given = of(backend, a=[1.0, 1.0], b=[1.0, 1.0])
    own, seen = backend.asarray(np.array([1.0, 2.0])), []

    def step(state, batch):
        return after(state, a=2.0 * state.feedback.params["b"], b=own), Info()

    run = backend.compile(step, donate=True)
    for _ in range(4):
        state, _ = run(state, given)
        seen.append([backend.to_numpy(state.feedback.params[n]).tolist() for n in "ab"])
    assert seen == [[[2.0, 2.0], [1.0, 2.0]], *[[[2.0, 4.0], [1.0, 2.0]]] * 3]
    assert backend.to_numpy(own).tolist() == [1.0, 2.0]


def test_states_that_share_an_array_go_their_own_ways(backend):
    """A plain call passes B on, a later donating one changes it; and states that a caller put together."""
    state, given = of(backend, W=[[1.0, 2.0]], B=[3.0])

    def engaged(state, batch):
        return after(state, W=2.0 * state.feedback.params["W"], B=state.feedback.params["B"]), Info()

    def mirror(state, batch):
        return after(state, W=state.feedback.params["W"], B=10.0 * state.feedback.params["B"]), Info()

    plain, donating = backend.compile(engaged), backend.compile(mirror, donate=True)
    other = state._replace(t=backend.asarray(np.array(7, np.int32)))
    mirrored, _ = donating(plain(state, given)[0], given)
    again, _ = donating(other, given)
    for found, W, B in ((state, [[1.0, 2.0]], 3.0), (mirrored, [[2.0, 4.0]], 30.0), (again, [[1.0, 2.0]], 30.0)):
        assert backend.to_numpy(found.feedback.params["W"]).tolist() == W
        assert backend.to_numpy(found.feedback.params["B"]).tolist() == [B]


def test_a_mistake_does_not_cost_the_state(backend):
    state, given = of(backend, a=[1.0, 2.0, 3.0])
    run = backend.compile(lambda s, b: (after(s, a=s.feedback.params["a"] + b.x[0, ...]), Info()), donate=True)
    for wrong in (np.ones((1, 2)), np.ones((2, 5))):
        with pytest.raises((ValueError, TypeError, RuntimeError)):
            run(state, backend.batch(wrong, wrong))
    new, _ = run(state, given)
    assert backend.to_numpy(new.feedback.params["a"]).tolist() == [2.0, 3.0, 4.0]


def test_a_step_that_was_stopped_while_it_wrote_has_cost_the_state(monkeypatch):
    backend = made("torch, native")
    state, given = of(backend, a=[1.0, 2.0, 3.0])
    run = backend.compile(lambda s, b: (after(s, a=2.0 * s.feedback.params["a"]), Info()), donate=True)
    state, _ = run(state, given)
    (line,) = run.run.lines

    def stopped(*tensors):
        line.run(*tensors)
        raise KeyboardInterrupt

    monkeypatch.setattr(run.run, "lines", [line._replace(run=stopped)])
    with pytest.raises(KeyboardInterrupt):
        run(state, given)
    with pytest.raises(BackendError, match="donated"):
        run(state, given)


@pytest.mark.parametrize("donate", [False, True])
def test_a_step_that_leaves_t_alone_can_be_called_again(backend, donate):
    state, given = of(backend, a=[1.0])
    run = backend.compile(
        lambda s, b: (s._replace(feedback=Pathway({"a": 2.0 * s.feedback.params["a"]})), Info()), donate=donate
    )
    states = [state]
    for _ in range(3):
        states.append(run(states[-1], given)[0])
    assert backend.to_numpy(states[-1].feedback.params["a"]).tolist() == [8.0]
    for old in states[:3] if donate else ():
        with pytest.raises(BackendError, match="donated"):
            run(old, given)


@pytest.mark.parametrize("donate", [False, True])
def test_feedback_that_starts_as_the_weights_themselves_stays_equal(backend, donate):
    """KP with B = W, the very same arrays."""
    net = chain((7,), (dense(5), bias, tanh), (dense(6), bias, tanh), (dense(4), bias))
    net = net.with_kernels(backend.kernels).with_dtype("float64")
    algorithm = algorithms.kolen_pollack(net, losses.cross_entropy(), sgd(0.1, decay=1e-3))
    state = algorithm.init(backend.key(0))
    pairs = zip(state.forward.params, state.feedback.params, strict=True)
    same = tuple(q if q.W is None else q._replace(W=p.W) for p, q in pairs)
    state = state._replace(feedback=state.feedback._replace(params=same))
    first = state.forward.params[2].W
    kept = backend.to_numpy(first).copy()
    learn = backend.compile(algorithm.modes["learn"], donate=donate)
    for seed in range(3):
        state, _ = learn(state, backend.batch(*batch(net, 6, seed)))
    for p, q in zip(state.forward.params, state.feedback.params, strict=True):
        assert q.W is None or np.array_equal(backend.to_numpy(p.W), backend.to_numpy(q.W))
    assert np.array_equal(backend.to_numpy(first), kept)
    assert not np.array_equal(backend.to_numpy(state.forward.params[2].W), kept)


def test_torch_draws_what_the_step_draws():
    """Equal draws are two draws, one that nobody reads is made, constants do not freeze one, and their order stays."""
    import torch

    backend = made("torch, native")
    state, given = of(backend, a=[1.0, 2.0, 3.0])
    constant = backend.asarray(np.ones(3))

    def step(state, batch):
        noisy = state.feedback.params["a"].clone() * torch.rand(3, dtype=torch.float64)
        torch.rand(5)
        return after(state, a=noisy), Info(loss=torch.rand(2), output=torch.rand(2), h=(torch.rand_like(constant),))

    torch.manual_seed(5)
    s, expected = state, []
    for _ in range(3):
        s, info = step(s, given)
        expected.append([a.numpy().copy() for a in leaves((s.feedback, info))])
    for donate in (False, True):
        run, s = backend.compile(step, donate=donate), tree_map(torch.clone, state)
        torch.manual_seed(5)
        for wanted in expected:
            s, info = run(s, given)
            assert all(map(np.array_equal, leaves((s.feedback, tree_map(torch.Tensor.numpy, info))), wanted))
            assert not np.array_equal(info.loss, info.output)


def test_a_loop_that_reads_an_array_it_was_not_given_is_refused_or_right(backend):
    state, given = of(backend, a=[1.0, 2.0, 3.0])
    constant = backend.asarray(np.array([10.0, 10.0, 10.0]))

    def reading(closed):
        def step(state, batch):
            a = state.feedback.params["a"] * 2.0
            other = a if closed else constant
            first, second = backend.kernels.each(lambda start, x: x + other * (start + 1), [0, 1], batch.x)
            return after(state, a=a), Info(loss=first[0, ...], output=second[0, ...])

        return backend.compile(step)

    _, info = reading(False)(state, given)  # a constant of the caller's
    assert backend.to_numpy(info.output).tolist() == [21.0] * 3
    if backend.name == "torch" and backend.kernels.name == "native":
        with pytest.raises(
            BackendError, match=r"reads an array \(3,\) of the step that it was not given: name it among"
        ):
            reading(True)(state, given)
    else:
        run = reading(True)
        for factor in (1.0, 2.0):
            state, info = run(state, given)
            assert backend.to_numpy(info.output).tolist() == [1.0 + 4.0 * factor * n for n in (1.0, 2.0, 3.0)]


def test_a_captured_loop_lives_as_long_as_its_step():
    from ref_bioplaus.backends.torch_ import loops

    backend = made("torch, native")
    state, given = of(backend, a=[1.0, 2.0, 3.0])
    gc.collect()
    before = len(loops.LOOPS)

    def step(state, batch):
        parts = backend.kernels.each(lambda start, x: x * (start + 1), [0, 1], state.feedback.params["a"])
        return after(state, a=parts[1]), Info()

    run = backend.compile(step)
    for _ in range(2):
        state, _ = run(state, given)
    assert backend.to_numpy(state.feedback.params["a"]).tolist() == [4.0, 8.0, 12.0]
    assert len(loops.LOOPS) == before + 1
    del run
    gc.collect()
    assert len(loops.LOOPS) == before


# Threads


def test_threads_get_the_numbers_that_each_gets_alone(backend):
    """Two threads compile and run steps of different algorithms and shapes at once, on one backend."""
    rows = ("feedback-alignment", "backprop") if backend.compiles else ("kolen-pollack", "weight-mirror")

    def learn(row, n, start=None):
        case = CASES[row]
        algorithm = case.build(backend.kernels)
        modes = {m: backend.compile(s, donate=True, keep=("loss",)) for m, s in algorithm.modes.items()}
        state, seen = algorithm.init(backend.key(1)), []
        if start is not None:
            start.wait(60)
        for i in range(6):
            for mode in algorithm.schedule(i, 0):
                state, info = modes[mode](state, backend.batch(*batch(case.network(), n, i)))
                seen += [backend.to_numpy(leaf).copy() for leaf in leaves(info)]
        return [*seen, *(backend.to_numpy(leaf) for leaf in leaves(state))]

    alone = [learn(row, n) for row, n in zip(rows, (6, 3), strict=True)]
    start = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        together = [pool.submit(learn, row, n, start) for row, n in zip(rows, (6, 3), strict=True)]
        for one, other in zip(together, alone, strict=True):
            assert all(map(np.array_equal, one.result(timeout=120), other))


def test_torch_has_each_steps_precision_in_every_thread_and_its_own_afterwards():
    torch_backend = pytest.importorskip("ref_bioplaus.backends.torch_.backend")
    policies = torch_backend.POLICIES["cpu"]
    before = [policy.fp32_precision for policy in policies]
    ready, inside = threading.Barrier(2), Counter()

    def steps(precision):
        backend = torch_backend.backend("cpu", "float32", precision, "portable")
        run = backend.eager(lambda: (inside.update([precision]), [p.fp32_precision for p in policies])[1])
        ready.wait(60)
        for _ in range(300):
            assert run() == [precision] * len(policies)
        return precision

    with ThreadPoolExecutor(2) as pool:
        assert [f.result(timeout=60) for f in [pool.submit(steps, p) for p in ("ieee", "bf16")]] == ["ieee", "bf16"]
    assert inside == {"ieee": 300, "bf16": 300}
    assert [policy.fp32_precision for policy in policies] == before


def test_a_step_inside_of_one_in_another_precision_runs_alone_or_says_so():
    torch_backend = pytest.importorskip("ref_bioplaus.backends.torch_.backend")
    policies = torch_backend.POLICIES["cpu"]
    before = [policy.fp32_precision for policy in policies]
    outer, inner = (torch_backend.backend("cpu", "float32", p, "portable") for p in ("ieee", "bf16"))
    entered, leave = threading.Event(), threading.Event()

    def now():
        return policies[0].fp32_precision

    assert outer.eager(lambda: (now(), inner.eager(now)(), now()))() == ("ieee", "bf16", "ieee")
    other = threading.Thread(target=outer.eager(lambda: (entered.set(), leave.wait(60))))
    other.start()
    entered.wait(60)
    with pytest.raises(BackendError, match="bf16 was called inside of one in ieee while another thread runs steps"):
        outer.eager(inner.eager(now))()
    leave.set()
    other.join()
    assert [policy.fp32_precision for policy in policies] == before


# The rule can be broken, and then the sequences find it.


@pytest.mark.parametrize("name", ["torch, native", "jax, native"])
def test_a_step_that_asks_nobody_is_found(name, monkeypatch):
    monkeypatch.setattr(ownership.Ownership, "take", lambda self, tree: tree)
    with pytest.raises((AssertionError, RuntimeError, ValueError)):
        for seed in range(20):
            one_rule(made(name), seed)


@pytest.mark.parametrize("held", ["references", "views"])
def test_each_half_of_the_question_is_needed(held, monkeypatch):
    """Torch: Python's references alone, or the counts of storages alone, are not enough."""
    if held == "references":
        monkeypatch.setattr(ownership.sys, "getrefcount", lambda branch: ownership.ONE)
    else:
        alone = lambda self: ownership.Ownership(lambda t: True, lambda t: t.clone())  # noqa: E731
        monkeypatch.setattr(type(made("torch, native")), "ownership", alone)
    with pytest.raises(AssertionError, match="changed in|expected"):
        for seed in range(40):
            one_rule(made("torch, native"), seed)


@pytest.mark.parametrize("name", ["storage_owners", "tensor_owners"])
def test_without_torchs_counts_everything_is_copied_and_right(name, monkeypatch):
    import sys

    from ref_bioplaus.backends.torch_ import memory as torch_memory

    monkeypatch.setattr(torch_memory, name, lambda whose: sys.maxsize)
    callers = [one_rule(made("torch, native"), seed) for seed in range(3)]
    assert sum(caller.looks for caller in callers) > 100
    assert sum(caller.stayed for caller in callers) == 0
