"""JAX's native kernels: each against the portable one in NumPy float64, and all of them by the conformance judge."""

import math
from itertools import product

import numpy as np
import pytest

from ref_bioplaus import backends, kernels
from ref_bioplaus.conformance.checks import runner
from ref_bioplaus.conformance.checks.alone import draws, primitives
from ref_bioplaus.conformance.checks.outcomes import MODES, Subject
from tests.helpers import slow, some_slow
from tests.helpers.faces import WINDOWS

jax = pytest.importorskip("jax")
jax_windows = pytest.importorskip("ref_bioplaus.backends.jax_.windows")

OUT = 4
FACES = {"conv": (jax_windows.TILED, jax_windows.CONVOLUTION), "local": (jax_windows.WINDOWED, jax_windows.LOCAL)}


def drawn(*shape):
    a = np.random.default_rng(math.prod(shape)).standard_normal(shape)
    a.reshape(-1)[0] = 0.0
    return a


def operands(kind, geometry, n):
    """W, x, u"""
    taps = math.prod(geometry.kernel) * geometry.in_shape[2]
    W = (*geometry.kernel, geometry.in_shape[2], OUT) if kind == "conv" else (*geometry.out_size, taps, OUT)
    return drawn(*W), drawn(n, *geometry.in_shape), drawn(n, *geometry.out_size, OUT)


def assert_close(got, wanted, dtype):
    assert got.shape == wanted.shape
    assert got.dtype == dtype
    unit = np.finfo(dtype).eps
    assert np.allclose(got, wanted, rtol=50 * unit, atol=50 * unit * max(np.max(np.abs(wanted)), 1.0))


@pytest.mark.parametrize(("dtype", "n"), [("float32", 1), slow("float64", 5)])
@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("kind", FACES)
def test_the_faces_of_windowed_synapses(kind, name, n, dtype):
    backend, geometry = backends.get("jax", dtype=dtype, kernels="native"), WINDOWS[name]
    W, x, u = operands(kind, geometry, n)

    def faces_of(kernel):
        def compute(W, x, u):
            pairs = {"apply": (W, x), "transport": (W, u), "correlate": (x, u)}
            return [kernel(face)(*pair, geometry) for face, pair in pairs.items()]

        return compute

    wanted = faces_of(lambda face: getattr(kernels, f"{kind}_{face}"))(W, x, u)
    for family in FACES[kind]:
        compute = faces_of(lambda face, family=family: family[f"{kind}_{face}"])
        for got, array in zip(backend.wrap(compute)(*map(backend.asarray, (W, x, u))), wanted, strict=True):
            assert_close(backend.to_numpy(got), array, dtype)


def test_pixels_never_read_get_exactly_0():
    backend, geometry = backends.get("jax", kernels="native"), WINDOWS["pixels never read"]
    W, _, u = map(backend.asarray, operands("conv", geometry, 2))
    for faces in FACES["conv"]:
        x = backend.to_numpy(backend.wrap(lambda W, u, f=faces: f["conv_transport"](W, u, geometry))(W, u))
        assert not x[:, 2].any()
        assert not x[:, :, 1].any()
        assert not x[:, :, 4:].all()


@pytest.mark.parametrize("samples", [1, 3, 4, 8])
def test_tiles_of_the_batch_add_up_to_the_whole(samples, monkeypatch):
    """With a last partial tile of 1 (3), of 3 (4), without one (1), and in one tile (8)."""
    backend, geometry = backends.get("jax", kernels="native"), WINDOWS["same"]
    W, x, u = (np.rint(4.0 * a) for a in operands("conv", geometry, 7))  # whole numbers: any order gives the same sum
    monkeypatch.setattr(jax_windows, "samples_per_tile", lambda x, window: samples)
    for face, pair in {"apply": (W, x), "transport": (W, u), "correlate": (x, u)}.items():
        kernel = jax_windows.TILED[f"conv_{face}"]
        got = backend.wrap(lambda a, b, kernel=kernel: kernel(a, b, geometry))(*map(backend.asarray, pair))
        assert np.array_equal(backend.to_numpy(got), getattr(kernels, f"conv_{face}")(*pair, geometry))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 6])
def test_the_faces_of_dense_synapses(n, dtype):
    backend = backends.get("jax", dtype=dtype, kernels="native")
    W, x, u = drawn(4, 7), drawn(n, 7), drawn(n, 4)
    for face, pair in {"apply": (W, x), "transport": (W, u), "correlate": (x, u)}.items():
        got = backend.wrap(getattr(backend.kernels, f"dense_{face}"))(*map(backend.asarray, pair))
        assert_close(backend.to_numpy(got), getattr(kernels, f"dense_{face}")(*pair), dtype)


@pytest.mark.parametrize(
    ("name", "n", "compiled"),
    some_slow(
        product(WINDOWS, (1, 3), (True, False)),
        lambda name, n, compiled: not compiled and (n == 1 or name not in ("lopsided", "wide stride")),
    ),
)
def test_the_first_of_equal_maxima_takes_the_error(name, n, compiled):
    backend, geometry = backends.get("jax", kernels="native"), WINDOWS[name]
    x = np.rint(drawn(n, *geometry.in_shape))  # many ties, many zeros
    dy = np.rint(4.0 * drawn(n, *geometry.out_size, geometry.in_shape[2]))

    def both(x, dy):
        y, cache = backend.kernels.max_pool(x, geometry)
        return y, backend.kernels.max_pool_backward(cache, dy, geometry)

    y, first = kernels.max_pool(x, geometry)
    run = (backend.wrap if compiled else backend.eager)(both)
    got = [backend.to_numpy(a) for a in run(backend.asarray(x), backend.asarray(dy))]
    assert np.array_equal(got[0], y)
    assert np.array_equal(got[1], kernels.max_pool_backward(first, dy, geometry))


@pytest.mark.parametrize(("precision", "bits"), [("bf16", 7), ("tf32", 10)])
def test_a_lower_precision_rounds_the_operands_and_nothing_else(precision, bits):
    """Products of small whole numbers are exact; 1 + 2^-(bits + 2) is rounded to 1 in every face."""
    backend = backends.get("jax", precision=precision, kernels="native")
    assert backend.probe() == precision
    geometry, rounded, kept = WINDOWS["1x1"], 1.0 + 2.0 ** -(bits + 2), 1.0 + 2.0**-bits
    for kind in ("dense", "conv", "local"):
        shapes = [(OUT, 3), (2, 3), (2, OUT)] if kind == "dense" else [a.shape for a in operands(kind, geometry, 2)]
        rest = () if kind == "dense" else (geometry,)
        for face, pair in {"apply": (0, 1), "transport": (0, 2), "correlate": (1, 2)}.items():
            kernel = getattr(backend.kernels, f"{kind}_{face}")
            for value, survives in ((rounded, 1.0), (kept, kept)):
                for a_value, b_value in ((value, 1.0), (1.0, value)):
                    a, b = np.full(shapes[pair[0]], a_value), np.full(shapes[pair[1]], b_value)
                    got = backend.wrap(lambda a, b, k=kernel: k(a, b, *rest))(backend.asarray(a), backend.asarray(b))
                    terms = getattr(kernels, f"{kind}_{face}")(np.ones(a.shape), np.ones(b.shape), *rest)
                    assert np.array_equal(backend.to_numpy(got), np.float32(survives) * terms.astype(np.float32))
                    assert got.dtype == backend.xp.float32


@pytest.mark.parametrize(
    ("dtype", "precision", "groups", "modes"),
    [
        slow("float32", "ieee", ("synapses",), MODES),
        slow("float32", "ieee", ("max_pool", "average_pool", "nonlinearity", "optimizers", "random"), MODES),
        ("float32", "ieee", ("max_pool", "each", "bias"), ("compiled",)),
        slow("float32", "bf16", ("synapses", "max_pool"), ("compiled",)),
        slow("bfloat16", "ieee", ("synapses", "max_pool"), ("compiled",)),
    ],
)
def test_conformance_of_the_kernels(dtype, precision, groups, modes):
    """Level 0's checks that reach a kernel."""
    subject = Subject(backends.get("jax", dtype=dtype, precision=precision, kernels="native"))
    checks = [check for check in (*primitives.checks(), *draws.checks()) if check.group in groups]
    report = runner.run(subject, checks, modes)
    assert {o.id: o.reason for o in report.outcomes if o.state != "pass"} == {}
    assert len(report.outcomes) == runner.planned(checks, modes) > 10


@pytest.mark.parametrize("form", ["paper", "hat"])
def test_adam(form):
    backend = backends.get("jax", dtype="float64", kernels="native")
    assert backend.kernels.adam is not kernels.adam
    p, g, m = ([drawn(*shape) * scale for shape in ((5, 7), (3,), (1,))] for scale in (1.0, 0.5, 2.0))
    v, correction = [a * a for a in m], (np.asarray(0.1), np.asarray(0.001))
    for keep in ([1.0, 0.9, np.asarray(0.8)], [1.0] * 3):
        given = (p, g, m, v, keep, np.asarray(0.01), correction)
        wanted = kernels.adam(*given, 0.9, 0.999, 1e-3, form)
        found = backend.kernels.adam(*jax.tree.map(backend.asarray, given), 0.9, 0.999, 1e-3, form)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            assert_close(backend.to_numpy(a), b, "float64")
