"""Convolutions and local connections take some samples at a time: the same results, in bounded memory."""

import tracemalloc

import numpy as np
import pytest

from ref_bioplaus import chain, conv, kernels, locally_connected, max_pool

IMAGE = (7, 5, 3)
PARTS = {
    "conv": conv(4, (2, 3), stride=(2, 1)),
    "conv valid": conv(4, (3, 2), padding="valid"),
    "LC": locally_connected(4, (2, 3), stride=(2, 1)),
}


def faces(linear, W, x, u):
    """The three faces."""
    return linear.apply(W, x), linear.transport(W, u), linear.correlate(x, u)


@pytest.mark.parametrize("samples", [0, 1, 2, 3, 5, 7])
@pytest.mark.parametrize("name", PARTS)
def test_chunks_add_up_to_the_whole(name, samples, any_backend, monkeypatch):
    """Chunks of one sample (also where not even one fits), with a last partial one, of all samples at once."""
    linear, N = PARTS[name].build(IMAGE), 5
    rng = np.random.default_rng(0)
    host = [rng.standard_normal(s) for s in (linear.weight_shape, (N, *linear.in_shape), (N, *linear.out_shape))]
    arrays = [any_backend.asarray(a) for a in host]
    expected = faces(linear, *arrays)
    each = linear.fan_in * linear.window.out_size[0] * linear.window.out_size[1]
    monkeypatch.setattr(kernels, "COLUMNS", samples * each + each // 2)
    chunks = []
    list(kernels.in_chunks(lambda a: chunks.append(a.shape[0]), linear.window, arrays[1]))
    size = max(samples, 1)
    assert chunks == ([5] if size >= 5 else [size] * (5 // size) + [5 % size] * (5 % size > 0))
    found = any_backend.wrap(lambda *a: faces(linear, *a))(*arrays)
    for a, b in zip(expected, found, strict=True):
        assert a.dtype == b.dtype
        assert np.allclose(any_backend.to_numpy(b), any_backend.to_numpy(a), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("samples", [0, 1, 2, 3, 5])
def test_pools_in_chunks_are_the_pool_of_the_whole(samples, any_backend, monkeypatch):
    """Overlapping windows with ties: the same maxima, and errors to the same pixels, bit for bit."""
    (pool,) = (layer.local[0] for layer in chain((7, 5, 3), max_pool((3, 2), (2, 1)), conv(2, 1)).layers if layer.local)
    rng, window = np.random.default_rng(0), pool.window
    x = any_backend.asarray(rng.integers(-2, 3, (5, 7, 5, 3)) * 0.5)
    dy = any_backend.asarray(rng.standard_normal((5, *window.out_size, 3)))

    def both(x, dy):
        y, first = kernels.max_pool(x, window)
        return y, first, kernels.max_pool_backward(first, dy, window)

    expected = both(x, dy)
    each = 3 * 6 * window.out_size[0] * window.out_size[1]
    monkeypatch.setattr(kernels, "COLUMNS", samples * each + each // 2)
    for a, b in zip(expected, any_backend.wrap(both)(x, dy), strict=True):
        assert np.array_equal(any_backend.to_numpy(a), any_backend.to_numpy(b))


def test_memory_of_a_pool_stays_near_that_of_the_arrays(monkeypatch):
    """Output and mask, twice while they are joined, and a few chunks; all samples at once take more than that."""
    (pool,) = (
        layer.local[0] for layer in chain((16, 12, 16), max_pool(3, 1, "same"), conv(2, 1)).layers if layer.local
    )
    x, N, chunk = np.random.default_rng(0).standard_normal((96, 16, 12, 16)).astype(np.float32), 96, 2**17
    bound = 2 * (x.nbytes + N * 16 * 12 * 16 * 9) + 3 * 4 * chunk
    _, first = kernels.max_pool(x, pool.window)
    for call in ((kernels.max_pool, x), (kernels.max_pool_backward, first, x)):
        for most, within in ((chunk, True), (2**40, False)):
            monkeypatch.setattr(kernels, "COLUMNS", most)
            assert (peak(*call, pool.window) < bound) == within, call[0].__name__


def peak(function, *arrays):
    """Bytes that a call takes at most, its result included."""
    tracemalloc.start()
    function(*arrays)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


@pytest.mark.parametrize("part", [conv(16, 3), locally_connected(8, 3)], ids=["conv", "LC"])
def test_memory_stays_near_that_of_the_arrays(part, monkeypatch):
    """Within input, output and weights again, and three chunks; all samples at once take more than that."""
    linear = part.build((16, 12, 16))
    rng, N = np.random.default_rng(0), 96
    W, x, u = (
        rng.standard_normal(s).astype(np.float32)
        for s in (linear.weight_shape, (N, *linear.in_shape), (N, *linear.out_shape))
    )
    chunk = 2**17
    bound = W.nbytes + x.nbytes + u.nbytes + 3 * 4 * chunk
    calls = {
        "apply": (linear.apply, W, x),
        "transport": (linear.transport, W, u),
        "correlate": (linear.correlate, x, u),
    }
    for name, (face, *arrays) in calls.items():
        monkeypatch.setattr(kernels, "COLUMNS", chunk)
        assert peak(face, *arrays) < bound, name
        monkeypatch.setattr(kernels, "COLUMNS", 2**40)
        assert peak(face, *arrays) > bound, name
