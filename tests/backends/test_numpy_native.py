"""NumPy's native kernels: the portable ones' results, nothing written to, nothing shared that somebody can see."""

import numpy as np
import pytest

from ref_bioplaus import backends, kernels, local
from ref_bioplaus.backends.numpy_ import kernels as numpy_kernels
from ref_bioplaus.backends.numpy_ import memory, products, windows
from ref_bioplaus.conformance.cases.cases import step_cases
from ref_bioplaus.conformance.cases.networks import batch
from ref_bioplaus.conformance.checks import outcomes, runner
from ref_bioplaus.conformance.checks.alone import draws, primitives
from ref_bioplaus.kernels import PORTABLE
from ref_bioplaus.registry import ROWS
from ref_bioplaus.tree import leaves
from tests.helpers import slow
from tests.helpers.faces import SHORTCUTS, WINDOWS, arrays, same

WINDOWS = WINDOWS | SHORTCUTS


@pytest.fixture(params=["small blocks", "small blocks, two threads", "rows, small blocks, two threads", "one block"])
def native(request, monkeypatch):
    """The kernels; in small blocks every operation has several chunks, the last one partial, and keeps its memory."""
    if "small blocks" in request.param:
        monkeypatch.setattr(memory, "BLOCK", 10)
        monkeypatch.setattr(memory, "LARGE", 8)
        monkeypatch.setattr(windows, "COLUMNS", 700)
    if "two threads" in request.param:
        monkeypatch.setattr(memory, "threads", lambda: 2)
    if "rows" in request.param:
        monkeypatch.setattr(products, "ROW", 1)
    return numpy_kernels.native()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("name", WINDOWS)
def test_windows(native, name, n, dtype):
    w = WINDOWS[name]
    W, V, x, u, dy = arrays(
        (*w.kernel, w.in_shape[2], 4), (*w.out_size, w.kernel[0] * w.kernel[1] * w.in_shape[2], 4), (n, *w.in_shape),
        (n, *w.out_size, 4), (n, *w.out_size, w.in_shape[2]), dtype=dtype,
    )  # fmt: skip
    for kind, weight in (("conv", W), ("local", V)):
        for face, given in (("apply", (weight, x)), ("transport", (weight, u)), ("correlate", (x, u))):
            function = f"{kind}_{face}"
            same(getattr(native, function)(*given, w), getattr(PORTABLE, function)(*given, w), dtype)
    for image in (x, np.rint(x), -np.abs(x)):
        found, expected = native.max_pool(image, w), PORTABLE.max_pool(image, w)
        same(found, expected, dtype)
        same(native.max_pool_backward(found[1], dy, w), PORTABLE.max_pool_backward(expected[1], dy, w), dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n", [1, 7])
def test_dense_and_local_operations(native, n, dtype):
    W, x, u, image, dy, gamma, beta = arrays(
        (4, 6), (n, 6), (n, 4), (n, 5, 3, 4), (n, 5, 3, 4), (4,), (4,), dtype=dtype
    )
    same(native.dense_apply(W, x), PORTABLE.dense_apply(W, x), dtype)
    same(native.dense_transport(W, u), PORTABLE.dense_transport(W, u), dtype)
    same(native.dense_correlate(x, u), PORTABLE.dense_correlate(x, u), dtype)
    for b in (beta, dy[0], dy, dy[:1]):
        same(native.add(image, b), image + b, dtype)
    for axes in ((0, 1, 2), (0,)):
        same(native.channel_sum(image, axes), PORTABLE.channel_sum(image, axes), dtype)
    found, expected = (k.batch_norm(image, gamma, beta, 1e-5) for k in (native, PORTABLE))
    same(found, expected, dtype)
    same(native.batch_norm_backward(found[3], gamma, dy), PORTABLE.batch_norm_backward(expected[3], gamma, dy), dtype)
    own = local.nonlinearity("relu", lambda x: 0.5 * x, lambda y: 0.5 + 0.0 * y)  # named like a usual one
    zero = np.where(np.abs(image) < 0.3, 0.0, image).astype(dtype)
    for part in (local.tanh, local.relu, local.sigmoid, local.rectified_tanh, own):
        op = part.build((5, 3, 4))
        y = native.activation(op, zero)
        same(y, PORTABLE.activation(op, zero), dtype)
        same(native.activation_backward(op, y, dy), PORTABLE.activation_backward(op, y, dy), dtype)
    assert np.all(native.activation_backward(local.relu.build(()), np.zeros((3,)), np.ones((3,))) == 0.0)


@pytest.mark.parametrize("eta", [0.01, np.asarray(0.01)])
def test_optimizers(native, eta):
    shapes = ((5, 7), (3,), (1,))
    p, g, m = (arrays(*shapes, seed=s) for s in range(3))
    v = [a * a for a in m]
    for keep in ([1.0, 0.9, np.asarray(0.8)], [1.0] * 3):
        for momentum, nesterov in ((0.0, False), (0.9, False), (0.9, True)):
            same(*(k.sgd(p, g, m, keep, eta, momentum, nesterov) for k in (native, PORTABLE)))
        for form in ("paper", "hat"):
            given = (p, g, m, v, keep, eta, (np.asarray(0.1), np.asarray(0.001)), 0.9, 0.999, 1e-3, form)
            same(*(k.adam(*given) for k in (native, PORTABLE)))


@pytest.mark.parametrize(("start", "n"), [(0, 1), (3, 57), ((1 << 32) - 40, 40), ((5 << 32) + 9, 33)])
def test_random_words(native, start, n):
    key = np.array([-7, 123456], np.int32)
    for a, b in zip(native.random_words(key, start, n), kernels.random_words(key, start, n), strict=True):
        assert a.dtype == np.int32
        assert np.array_equal(a, b)
    with pytest.raises(ValueError, match="cross a multiple"):
        native.random_words(key, (1 << 32) - 3, 4)


def test_memory_is_used_again_only_when_nobody_holds_it():
    arena = memory.Arena()
    shape = (1 << 10, 1 << 9)
    first = arena.empty(shape, np.float32)
    address, view = first.ctypes.data, first[3:5, ::2].T
    del first
    view[...] = 7.0
    others = [arena.empty(shape, np.float32) for _ in range(3)]
    for other in others:
        other.fill(1.0)
    assert len({address, *(o.ctypes.data for o in others)}) == 4
    assert np.all(view == 7.0)
    del view
    assert arena.empty(shape, np.float32).ctypes.data == address


def test_threads_do_all_of_the_work_in_order_and_survive_a_fork():
    workers = memory.Workers(3)
    for n in (0, 1, 2, 3, 10):
        assert [i for part in workers.share(list, range(n)) for i in part] == list(range(n))
    assert len(workers.share(list, range(10))) == 3
    with pytest.raises(ZeroDivisionError):
        workers.share(lambda items: [1 // (9 - i) for i in items], range(10))
    pool, workers.process = workers.pool, -1  # as in a child, where the threads are gone
    assert workers.share(sum, range(10)) == [3, 12, 30]
    assert workers.pool is not pool


def test_threads_share_blocks_only_where_those_of_blas_sleep():
    cores = memory.threads({"OPENBLAS_THREAD_TIMEOUT": "8"})
    assert 1 <= cores <= memory.THREADS
    assert memory.threads({}) == memory.threads({"OPENBLAS_THREAD_TIMEOUT": "26"}) == 1
    assert memory.threads({"OPENBLAS_THREAD_TIMEOUT": "soon"}) == 1
    assert memory.threads({"OPENBLAS_THREAD_TIMEOUT": "8", "OMP_NUM_THREADS": "1"}) == 1


def test_sizes_nobody_asks_for_are_given_back(monkeypatch):
    monkeypatch.setattr(memory, "FORGET", 3)
    monkeypatch.setattr(memory, "LARGE", 1)
    arena = memory.Arena()
    for size in range(1, 9):
        arena.empty((size,), np.float64)
    assert len(arena.buffers) <= 5


@pytest.mark.parametrize("dtype", ["float32", slow("float64", reason="level 0 once more")])
def test_the_judge_accepts_every_primitive(dtype):
    subject = outcomes.Subject(backends.get("numpy", dtype=dtype, kernels="native"))
    report = runner.run(subject, (*primitives.checks(), *draws.checks()))
    assert [o.id for o in report.outcomes if o.state not in ("pass", "unsupported")] == []


CASES = {case.row: case for case in step_cases() if case.id == f"{case.row}/{case.architecture}"}


@pytest.mark.parametrize("name", [row.name for row in ROWS])
def test_a_donated_run_is_the_same_and_changes_nothing_that_is_kept(name, monkeypatch):
    for limit in ("LARGE", "BLOCK"):
        monkeypatch.setattr(memory, limit, 16)
    ends = []
    for donate in (False, True):
        backend = backends.get("numpy", dtype="float64", kernels="native")
        algorithm = CASES[name].build(backend.kernels)
        steps = {mode: backend.compile(step, donate=donate) for mode, step in algorithm.modes.items()}
        state, kept = algorithm.init(backend.key(1)), []
        for i, n in enumerate((6, 6, 1)):
            b = backend.batch(*batch(CASES[name].network(), n, i))
            for mode in algorithm.schedule(i, 0):
                kept += [(a[...], a.copy()) for a in leaves(state)]  # a view
                state, _ = steps[mode](state, b)
        assert all(np.array_equal(view, copy) for view, copy in kept)
        ends.append(leaves(state))
    assert all(np.array_equal(a, b) for a, b in zip(*ends, strict=True))
