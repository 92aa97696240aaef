"""Random numbers: known answers, and the same bits everywhere."""

import numpy as np
import pytest
from array_api_compat import array_namespace

from ref_bioplaus import random
from ref_bioplaus.embedded import make_normal_table
from ref_bioplaus.kernels import PORTABLE, random_words, signed, threefry
from tests.conftest import get

KEY = np.array([7, -20181103], dtype=np.int32)
BACKENDS = ("torch", "jax", "array-api-strict")

# Random123's kat_vectors, threefry 2x32 with 20 rounds: counter, key, answer
KNOWN_ANSWERS = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


def int32(*words):
    return np.array([signed(w) for w in words], dtype=np.int32)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
@pytest.mark.parametrize("name", ["numpy", *BACKENDS])
def test_threefry_gives_random123s_known_answers(counter, key, answer, name):
    backend = get(name)
    x0, x1 = (backend.asarray(int32(word)) for word in counter)
    found = [backend.to_numpy(word)[0] for word in threefry(backend.asarray(int32(*key)), x0, x1)]
    assert found == list(int32(*answer))


def test_words_are_jax_random_bits():
    jax = pytest.importorskip("jax")
    get("jax")  # turns x64 on
    high, low = random_words(KEY, 0, 1001)
    ours = (high.view(np.uint32).astype(np.uint64) << np.uint64(32)) | low.view(np.uint32)
    key = jax.random.wrap_key_data(jax.numpy.asarray(KEY.view(np.uint32)), impl="threefry2x32")
    assert np.array_equal(ours, np.asarray(jax.random.bits(key, (1001,), "uint64")))
    assert np.array_equal((high ^ low).view(np.uint32), np.asarray(jax.random.bits(key, (1001,), "uint32")))


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("compiled", [False, True])
def test_numbers_are_bit_equal_on_every_backend(name, dtype, compiled):
    reference, backend = get("numpy", dtype), get(name, dtype)
    t = np.array(5, dtype=np.int32)

    def draw(key, t, backend=reference):
        address, shape, dt = (key, "layer", t, 3), (3, 5, 7), getattr(backend.xp, dtype)
        kernels = backend.kernels
        return (
            random.uniform(address, shape, dt, kernels),
            random.normal(address, shape, dt, kernels),
            random.bernoulli(address, 0.3, shape, kernels),
        )

    def on_backend(key, t):
        return draw(key, t, backend)

    found = (backend.wrap(on_backend) if compiled else on_backend)(backend.asarray(KEY), backend.asarray(t))
    for expected, array in zip(draw(KEY, t), found, strict=True):
        assert backend.to_numpy(array).dtype == expected.dtype
        assert np.array_equal(backend.to_numpy(array), expected)


def test_an_element_depends_on_its_address_and_place_alone():
    whole = random.normal((KEY, "a", 1), (10, 7), np.float32)
    tile = random.normal((KEY, "a", 1), (3, 7), np.float32, start=2 * 7)
    assert np.array_equal(whole[2:5], tile)
    assert np.array_equal(whole, random.normal((KEY, "a", 1), (10, 7), np.float32))
    far = random.uniform((KEY, "a"), (4,), np.float64, start=(1 << 32) - 4)
    assert np.array_equal(far[2:], random.uniform((KEY, "a"), (2,), np.float64, start=(1 << 32) - 2))
    with pytest.raises(ValueError, match="two tiles"):
        random.uniform((KEY, "a"), (4,), np.float64, start=(1 << 32) - 2)


def test_other_addresses_give_other_numbers():
    t = [np.array(i, dtype=np.int32) for i in (0, 1)]
    addresses = [(KEY, "a"), (KEY, "b"), (KEY, "a", 1), (KEY, "a", 2), (KEY, "a", t[1]), (KEY[::-1].copy(), "a")]
    drawn = [random.normal(a, (64,), np.float64) for a in addresses]
    for i, a in enumerate(drawn):
        for b in drawn[:i]:
            assert abs(np.corrcoef(a, b)[0, 1]) < 0.5
    assert np.array_equal(drawn[0], random.normal((KEY, "a", t[0]), (64,), np.float64))  # time 0 is no time
    with pytest.raises(ValueError, match="one at most"):
        random.normal((KEY, t[0], t[1]), (3,), np.float64)


def test_float32_uniforms_are_the_float64_ones_cut_to_24_bits():
    u64, u32 = (random.uniform((KEY, "u"), (5000,), dtype) for dtype in (np.float64, np.float32))
    assert np.array_equal(u32.astype(np.float64), np.floor(u64 * 2.0**24) * 2.0**-24)
    assert np.array_equal(u64 * 2.0**53, np.round(u64 * 2.0**53))
    assert u64.min() >= 0.0
    assert u64.max() < 1.0


def test_float32_normals_are_the_float64_ones():
    n64, n32 = (random.normal((KEY, "n"), (20000,), dtype) for dtype in (np.float64, np.float32))
    assert np.array_equal(n32.astype(np.float64), n64)
    assert np.all(n64 != 0.0)


def test_normals_are_normal():
    """Moments of 2 million draws within 5 standard errors, and the distribution function within the KS bound."""
    n = 2_000_000
    x = random.normal((KEY, "moments"), (n,), np.float64)
    for power, moment, variance in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        # the table's kurtosis is 2.9987: allow its known 0.0013 beside sampling
        assert abs(np.mean(x**power) - moment) < 5 * np.sqrt(variance / n) + (0.0013 if power == 4 else 0.0)
    from statistics import NormalDist

    grid = np.linspace(-4, 4, 81)
    empirical = np.searchsorted(np.sort(x), grid, side="right") / n
    exact = np.array([NormalDist().cdf(g) for g in grid])
    assert np.max(np.abs(empirical - exact)) < 2.0 / np.sqrt(n)


def test_bernoulli_has_its_probability_and_the_extremes_are_certain():
    n = 400_000
    for p in (0.1, 0.5, 0.8):
        mean = np.mean(random.bernoulli((KEY, "b", str(p)), p, (n,)))
        assert abs(mean - p) < 5 * np.sqrt(p * (1 - p) / n)
    assert random.bernoulli((KEY, "b"), 1.0, (1000,)).all()
    assert not random.bernoulli((KEY, "b"), 0.0, (1000,)).any()


def test_the_stored_table_is_what_its_script_makes():
    stored, made = random.normal_table(), make_normal_table.make()
    assert stored.dtype == np.int32
    assert np.max(np.abs(stored - made)) <= 1  # another libm may round a quantile the other way
    assert np.array_equal(stored, -stored[::-1])
    assert np.all(np.diff(stored) > 0)
    assert 4 * np.abs(stored).max() + 1 < 2**24  # twice a sum of two, and 1, is exact in float32
    assert abs(2 * np.mean((stored * 2 * random.GRID) ** 2) - 1) < 1e-7


@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
def test_normals_drawn_in_parts_are_the_same(name):
    backend = get(name, "float32")
    address = (backend.key(3), "large")
    float32 = array_namespace(backend.key(3)).float32
    whole = backend.to_numpy(random.normal(address, (7, 11), float32))
    parts = backend.to_numpy(random.normal(address, (7, 11), float32, PORTABLE._replace(drawn=10)))
    assert parts.tobytes() == whole.tobytes()
