"""A wrong random number is found wherever it lies: faults of a backend's bits, and of what is made of them."""

from functools import partial

import array_api_compat.numpy as compat
import numpy as np
import pytest
from array_api_compat import array_namespace

from ref_bioplaus import kernels, random
from ref_bioplaus.backends.numpy_.backend import NumpyBackend
from ref_bioplaus.conformance.checks import runner
from ref_bioplaus.conformance.checks.alone import bits, draws
from ref_bioplaus.conformance.checks.outcomes import MODES, Subject
from ref_bioplaus.conformance.proofs.faults import replaced
from ref_bioplaus.local import Dropout
from tests.conftest import get
from tests.helpers import slow

CHECKS = {check.id.removeprefix("0/random/"): check for check in (*bits.checks(), *draws.checks())}


def asked(subject, *names):
    """The checks that fail of some, or of all, and why."""
    report = runner.run(subject, [CHECKS[name] for name in names or CHECKS], MODES)
    assert not report.count("error"), [(o.id, o.reason) for o in report.outcomes if o.state == "error"]
    return {o.id.removeprefix("0/random/"): o.reason for o in report.outcomes if o.state == "fail"}


def brings(**own):
    """A NumPy with kernels of its own."""
    backend = NumpyBackend(compat, "cpu", "float32", "ieee", "portable")
    backend.kernels = backend.kernels._replace(**own)
    return Subject(backend)


def computes(old, new):
    """A NumPy with a fault in the library's own code."""
    return Subject(get("numpy", "float32"), under=lambda: replaced(old, new))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("numpy", "float32"),
        slow("numpy", "float64", reason="millions of numbers once more"),
        slow("torch", "bfloat16", reason="millions of numbers once more"),
        slow("read-only", "float64", reason="millions of numbers once more"),
    ],
)
def test_right_bits_pass(name, dtype):
    assert asked(Subject(get(name, dtype))) == {}


def words_but(change):
    """random_words whose results are changed: change(high, low, key, start)."""

    def random_words(key, start, n):
        return change(*kernels.random_words(key, start, n), key, start)

    return {"random_words": random_words}


def behind(place, change=1):
    """One bit wrong in each word behind a place of the stream."""

    def changed(high, low, key, start):
        far = np.arange(len(low)) + start >= place
        return high, np.where(far, low ^ np.int32(change), low)

    return words_but(changed)


def other_key(change):
    """random_words under another key than the one that is given."""
    return {"random_words": lambda key, start, n: kernels.random_words(change(key), start, n)}


def at_most(limit, key, start, n):
    """A stream whose counter begins again."""
    return tuple(np.resize(word, n) for word in kernels.random_words(key, start, min(n, limit)))


def wrong_rotation(key, x0, x1):
    """The cipher with a rotation of the other half in its last round but one group."""
    ks, x0, x1 = (key[0:1], key[1:2], key[0:1] ^ key[1:2] ^ 0x1BD11BDA), x0 + key[0:1], x1 + key[1:2]
    for i in range(5):
        for r in ((13, 15, 26, 6), (17, 29, 16, 24 if i < 3 else 6))[i % 2]:
            x0 = x0 + x1
            x1 = kernels.rotate_left(x1, r) ^ x0
        x0, x1 = x0 + ks[(i + 1) % 3], x1 + (ks[(i + 2) % 3] + (i + 1))
    return x0, x1


def odd_entry(place):
    """The table of normal quantiles with one entry a unit too high."""
    table = random.normal_table().copy()
    table[place] += 1
    return {"normal_table": table}


def unstarted(function, starts, *arrays):
    """A loop that does not count on."""
    return [function(starts[0] + i, *arrays) for i, _ in enumerate(starts)]


def last_columns(function, starts, *arrays):
    """A loop that goes round the other way."""
    return [function(start, *arrays) for start in reversed(starts)]


WORDS = {
    "one bit from word 4,096 on": (behind(4096), "long"),
    "one bit from word 2,000,000 on": (behind(2_000_000), "long"),
    "one bit from 2^31 on": (behind(2**31), "far"),
    "one bit from 2^40 on": (behind(2**40), "far"),
    "16 bits only": (words_but(lambda high, low, key, start: (high & -65536, low & -65536)), "long"),
    "the lowest bit of the high word": (words_but(lambda high, low, key, start: (high & ~1, low)), "far"),
    "the words swapped": (words_but(lambda high, low, key, start: (low, high)), "far"),
    "words without a sign": (words_but(lambda high, low, key, start: (high.view("u4"), low.view("u4"))), "far"),
    "a stream of 65,536 words that repeats": ({"random_words": partial(at_most, 65536)}, "long"),
    "one word too few at 65,537": (words_but(lambda h, l, k, s: (h[:65536], l[:65536])), "long"),
    "the counter's high word forgotten": (
        {"random_words": lambda key, start, n: kernels.random_words(key, start % 2**32, n)}, "far"),
    "a counter of 31 bits": (
        {"random_words": lambda key, start, n: kernels.random_words(key, start % 2**31, n)}, "far"),
    "a counter that carries": (
        {"random_words": lambda key, start, n: bits.word_by_word([start + i for i in range(n)])
         if start % 2**32 + n > 2**32 else kernels.random_words(key, start, n)}, "far"),
    "the key's first word alone": (other_key(lambda key: np.array([key[0], 0], np.int32)), "keys"),
    "the key's second word alone": (other_key(lambda key: np.array([0, key[1]], np.int32)), "keys"),
    "the key's words swapped": (other_key(lambda key: key[::-1]), "keys"),
    "the key's words added up": (other_key(lambda key: np.array([key[0] ^ key[1], 0], np.int32)), "keys"),
    "the key without its sign bits": (other_key(lambda key: key & 0x7FFFFFFF), "keys"),
    "the key's bit 17": (other_key(lambda key: key & ~np.array([0, 1 << 17], np.int32)), "keys"),
    "another cipher": ({"threefry": wrong_rotation}, "known answers"),
    "another cipher for one block": (
        {"threefry": lambda key, *x: (wrong_rotation if x[0].shape == (1,) else kernels.threefry)(key, *x)}, "keys"),
    "another cipher for many blocks": (
        {"threefry": lambda key, *x: (wrong_rotation if x[0].size > 60_000 else kernels.threefry)(key, *x)},
        "known answers"),
    "the cipher's key without its sign": ({"threefry": lambda key, *x: kernels.threefry(key & 0x7FFFFFFF, *x)}, "keys"),
    "an entry of the table": (odd_entry(9_999), "normal table"),
    "the table's first entry": (odd_entry(0), "normal, long"),
    "a table of floats": ({"normal_table": random.normal_table().astype(np.float32)}, "normal table"),
    "a loop that does not count on": ({"each": unstarted}, "each"),
    "a loop that turns round": ({"each": last_columns}, "each"),
    "a loop that loses the last": ({"each": lambda f, starts, *a: [f(s, *a) for s in starts[:-1]]}, "each"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WORDS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_wrong_bits_of_a_backend_are_found(fault):
    own, check = WORDS[fault]
    assert check in asked(brings(**own), check)


def uniform_up_to_one(address, shape, dtype, kernels=kernels.PORTABLE, start=0):
    """A uniform number of 32 bits, which rounds to 1 at the top, and has other grids."""
    high, _ = random.words(address, shape, kernels, start)
    return (high.view(np.uint32).astype(np.float64) * 2.0**-32).astype(dtype)


def uniform_one_alone(address, shape, dtype, kernels=kernels.PORTABLE, start=0):
    """Right everywhere but at its largest number."""
    right = UNIFORM(address, shape, dtype, kernels, start)
    return np.where(right == 1.0 - 2.0**-24, np.ones_like(right), right)


def bernoulli_or_equal(address, probability, shape, kernels=kernels.PORTABLE, start=0):
    """True at the threshold as well."""
    high, _ = random.words(address, shape, kernels, start)
    return kernels_shift(high, 8) <= round(probability * 2**24)


def bernoulli_of_floats(address, probability, shape, kernels=kernels.PORTABLE, start=0):
    """A uniform number of the dtype, and a probability that was not rounded to 24 bits."""
    return UNIFORM(address, shape, np.float32, kernels, start) < probability


def normal_of_one_entry(address, shape, dtype, kernels=kernels.PORTABLE, start=0):
    """One entry of the table, twice."""
    high, _ = random.words(address, shape, kernels, start)
    at = kernels_shift(high, 18)
    return (4 * random.normal_table()[at] * random.GRID).astype(dtype)


def normal_without_the_half(address, shape, dtype, kernels=kernels.PORTABLE, start=0):
    """Without the 2^-21 that keeps it from 0."""
    right = NORMAL(address, shape, np.float64, kernels, start)
    return (np.rint(right * 2.0**20) * 2.0**-20).astype(dtype)


def normal_in_equal_parts(address, shape, dtype, kernels=kernels.PORTABLE, start=0):
    """Parts that all begin where the first does."""
    n, most = int(np.prod(shape, dtype=int)), kernels.drawn
    parts = [NORMAL(address, (min(most, n - i),), dtype, kernels, start) for i in range(0, n, most)]
    return np.concatenate(parts).reshape(shape)


def key_without_names(address, kernels=kernels.PORTABLE):
    """Names that do not count."""
    return KEY_AT((address[0], *(tag for tag in address[1:] if hasattr(tag, "shape"))), kernels)


def key_of_a_set(address, kernels=kernels.PORTABLE):
    """Names in any order."""
    names = sorted(str(tag) for tag in address[1:] if not hasattr(tag, "shape"))
    return KEY_AT((address[0], *names, *(tag for tag in address[1:] if hasattr(tag, "shape"))), kernels)


def key_of_short_times(address, kernels=kernels.PORTABLE):
    """A time of 16 bits."""
    return KEY_AT(tuple(tag & 0xFFFF if hasattr(tag, "shape") and tag.shape == () else tag for tag in address), kernels)


def words_of_small_shapes(address, shape, kernels=kernels.PORTABLE, start=0):
    """Right for what is small, and from the start alone."""
    return WORDS_AT(address, shape, kernels, start if np.prod(shape, dtype=int) < 9 else 0)


def tile_without_carry(key, rows, columns, start, width):
    """Rows whose counters' high words never count on."""
    places = np.indices((rows, 1), dtype=np.int64)[0] * columns
    low = places.astype(np.uint32).view(np.int32) + (np.arange(width, dtype=np.int32) + start)[None, :]
    high = np.broadcast_to((places >> 32).astype(np.int32), low.shape)
    return kernels.threefry(key, high.reshape(-1), low.reshape(-1))


def tile_carrying_with_a_sign(key, rows, columns, start, width):
    """The carry of signed words."""
    places = np.indices((rows, 1), dtype=np.int64)[0] * columns
    low = places.astype(np.uint32).view(np.int32)
    counter = low + (np.arange(width, dtype=np.int32) + start)[None, :]
    high = (places >> 32).astype(np.int32) + (counter < low)
    return kernels.threefry(key, high.reshape(-1), counter.reshape(-1))


class Kept(Dropout):
    """Dropout that drops by what it is to keep."""

    def forward(self, params, stats, x, key, train):
        """x times the other mask."""
        kept = random.bernoulli(key, self.probability, x.shape, self.kernels)
        mask = array_namespace(x).astype(kept, x.dtype) * (1.0 / (1.0 - self.probability))
        return x * mask, stats, mask


kernels_shift, UNIFORM, NORMAL, KEY_AT, WORDS_AT = (
    kernels.shift_right, random.uniform, random.normal, random.key_at, random.words
)  # fmt: skip
LIBRARY = {
    "a uniform number of 32 bits": (random.uniform, uniform_up_to_one, "uniform"),
    "a uniform number that is 1 at the top": (random.uniform, uniform_one_alone, "of given words"),
    "a coin with <= for <": (random.bernoulli, bernoulli_or_equal, "of given words"),
    "a coin of floats": (random.bernoulli, bernoulli_of_floats, "of given words"),
    "a normal number of one entry": (random.normal, normal_of_one_entry, "normal"),
    "a normal number that may be 0": (random.normal, normal_without_the_half, "normal"),
    "parts that all begin alike": (random.normal, normal_in_equal_parts, "normal, in parts"),
    "names that do not count": (random.key_at, key_without_names, "addresses"),
    "names in any order": (random.key_at, key_of_a_set, "addresses"),
    "a time of 16 bits": (random.key_at, key_of_short_times, "keys"),
    "a part that begins at 0": (random.words, words_of_small_shapes, "uniform"),
    "a tile without a carry": (random.tile_words, tile_without_carry, "tiles"),
    "a tile that carries with a sign": (random.tile_words, tile_carrying_with_a_sign, "tiles"),
    "dropout the other way round": (Dropout, Kept, "masks of dropout"),
    "a shift that copies the sign": (kernels.shift_right, lambda x, r: x >> r, "known answers"),
}


@pytest.mark.parametrize("fault", LIBRARY)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_wrong_numbers_of_the_library_are_found(fault):
    old, new, check = LIBRARY[fault]
    assert check in asked(computes(old, new), check)


def test_other_bits_of_the_same_words_pass():
    """Honest: words made in pieces, tables made anew, parts of another size."""

    def in_pieces(key, start, n):
        parts = [kernels.random_words(key, start + i, min(1000, n - i)) for i in range(0, n, 1000)]
        if start % 2**32 + n > 2**32:
            raise ValueError("not across 2^32")
        return tuple(np.concatenate(words) for words in zip(*parts, strict=True))

    assert asked(brings(random_words=in_pieces, normal_table=None, drawn=70_001)) == {}
