"""Level 0: random bits, all 32 of both words: of published answers, far away, under any key, in tiles."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from ref_bioplaus import random
from ref_bioplaus.conformance.cases.cases import as_held
from ref_bioplaus.conformance.checks.alone.exact import Comparison, exact_check
from ref_bioplaus.conformance.checks.outcomes import Check, Subject
from ref_bioplaus.kernels import PORTABLE, Kernels, signed, threefry
from ref_bioplaus.random import normal

KNOWN_ANSWERS = (  # Random123's kat_vectors, threefry2x32 with 20 rounds: counter, key, answer
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
)
KEY = np.array([0x13198A2E, -0x5BF2A1C3], np.int32)
LENGTHS = (1, 3, 64, 1000, 4097, 65535, 65536, 65537)
LONG = 2**21 + 3  # numbers: every entry of the table of normals is met
FAR = 13  # numbers that are drawn far away
STARTS = (1, 2**16 - 6, 2**31 - 5, 2**31, 2**32 - FAR, 2**32, 2**32 + 2**31 - 5, 11 * 2**40 + 7, 2**63 - FAR)
WORDS = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x13198A2E)
TIMES = (0, 1, 5, 2**31 - 1, -1, -(2**31))
TILES = (  # rows, columns, start, width: of matrices whose rows begin below and above 2^32, and lie across it
    (70, 900, 613, 287), (5, 37, 3, 11), (3, 2**31 + 5, 2**31 - 6, 11), (3, 2**32 - 3, 0, 6), (4, 2**33, 2**31 - 6, 5),
)  # fmt: skip


def int32(*words: int) -> np.ndarray:
    """32-bit words as signed numbers."""
    return np.array([signed(word) for word in words], np.int32)


def halves(drawn: Any) -> dict[str, Any]:
    """The two words by name."""
    return dict(zip(("high", "low"), drawn, strict=True))


def keys() -> list[np.ndarray]:
    """Pairs of remarkable words, and keys that differ from one of them in a single bit."""
    pairs = [int32(a, b) for a in WORDS for b in WORDS]
    flips = [(1 << i, 0) for i in range(32)] + [(0, 1 << i) for i in range(32)]
    return pairs + [KEY ^ int32(*flip) for flip in flips]


def some(subject: Subject, mode: str, cases: Sequence) -> Sequence:
    """All cases; every third where a library that compiles goes operation by operation, slowly for every shape."""
    return cases[::3] if mode == "eager" and subject.backend.compiles else cases


def encryption(kernels: Kernels) -> Callable:
    """The block cipher of some kernels."""
    return kernels.threefry or threefry


def known_answers(subject: Subject, comparison: Comparison, mode: str) -> None:
    """What Random123 publishes, and counters of all kinds, one and many at a time."""
    backend = subject.backend
    encrypted = subject.runs(lambda *a: halves(encryption(backend.kernels)(*a)), mode)
    for n in (1, 1000):
        for counter, key, answer in KNOWN_ANSWERS:
            x0, x1 = (np.repeat(int32(word), n) for word in counter)
            got = encrypted(*map(backend.asarray, (int32(*key), x0, x1)))
            expected = [np.repeat(int32(word), n) for word in answer]
            comparison.expect(f"counter {counter[0]:#x}, {n} times", halves(expected), got)
    x0, x1 = PORTABLE.random_words(KEY, 5, LENGTHS[-1])
    comparison.expect("any counters", halves(threefry(KEY, x0, x1)), encrypted(*map(backend.asarray, (KEY, x0, x1))))


def long_draws(subject: Subject, comparison: Comparison, mode: str) -> None:
    """Streams longer than any tile, and shorter ones that end before, at and behind one."""
    backend = subject.backend

    def drawn(key, kernels):
        return {str(n): kernels.random_words(key, 0, n) for n in some(subject, mode, LENGTHS)}

    def longest(key, kernels):
        return kernels.random_words(key, 0, LONG)

    for draw in (drawn, longest):
        got = subject.runs(lambda key, draw=draw: draw(key, backend.kernels), mode)(backend.asarray(KEY))
        comparison.tree("words", draw(KEY, PORTABLE), got)


def far_away(subject: Subject, comparison: Comparison, mode: str) -> None:
    """Streams that begin far from 0, where the counter's words have their sign bits; none crosses 2^32."""
    backend = subject.backend

    def drawn(key, kernels):
        return {str(start): kernels.random_words(key, start, FAR) for start in STARTS}

    got = subject.runs(lambda key: drawn(key, backend.kernels), mode)(backend.asarray(KEY))
    comparison.tree("words from far on", drawn(KEY, PORTABLE), got)
    for start in (2**32 - FAR + 1, 2**33 - 1):
        try:
            subject.runs(lambda key, i=start: backend.kernels.random_words(key, i, FAR), mode)(backend.asarray(KEY))
        except Exception:
            continue
        comparison.wrong(f"{FAR} words from {start} on cross a multiple of 2^32, and nothing was raised")


def every_key(subject: Subject, comparison: Comparison, mode: str) -> None:
    """Each bit of both words of a key, and of a time, changes everything."""
    backend = subject.backend

    def drawn(key, t, kernels):
        address = (key, "conformance", t, 3, "W")
        later = random.words((key, t + 1), (), kernels)  # wraps behind the last int32
        return {"stream": kernels.random_words(key, 0, 5), "key": random.key_at(address, kernels), "t + 1": later}

    found = subject.runs(lambda key, t: drawn(key, t, backend.kernels), mode)
    asked = [*some(subject, mode, [(key, 7) for key in keys()]), *((KEY, t) for t in TIMES)]
    with np.errstate(over="ignore"):
        for key, t in asked:
            given = key, np.array(t, np.int32)
            comparison.tree(f"key {key.tolist()}, t {t}", drawn(*given, PORTABLE), found(*map(backend.asarray, given)))


def tiles(subject: Subject, comparison: Comparison, mode: str) -> None:
    """Columns of a matrix of words, where its first column is a number and where it is an array."""
    backend = subject.backend
    for rows, columns, start, width in some(subject, mode, TILES):

        def drawn(key, shown, rows=rows, columns=columns, start=start, width=width):
            firsts = (start, shown) if rows > 4 else (shown,)
            return [random.tile_words(key, rows, columns, first, width) for first in firsts]

        got = subject.runs(drawn, mode)(backend.asarray(KEY), backend.asarray(np.array(start, np.int32)))
        wanted = word_by_word([i * columns + start + j for i in range(rows) for j in range(width)])
        comparison.tree(f"tile {rows, columns, start, width}", [wanted] * len(got), got)


def word_by_word(places: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The words of a stream at places, from the cipher alone."""
    counters = ([signed(place >> shift) for place in places] for shift in (32, 0))
    high, low = threefry(KEY, *(np.array(counter, np.int32) for counter in counters))
    return high, low


def loops(subject: Subject, comparison: Comparison, mode: str) -> None:
    """kernels.each: a function of every start, in order, of the arrays that it was given, at every call anew."""
    backend = subject.backend

    def words_of(i, key, x):
        return x * 2 + random.tile_words(key, 3, 2**22, i, 2)[1][0:1]

    def every(key, x, y, kernels, starts):
        other = array_namespace(x).permute_dims(x, (1, 0))
        first = kernels.each(words_of, starts, key, x)
        again = kernels.each(words_of, [start + 1 for start in starts], key, x)
        turned = kernels.each(lambda i, x: x + x, starts, other)
        near = array_namespace(x).ones_like(y[:, :1, :1]) * 1000.0
        return first, again, turned, [kernels.each(lambda i, y, x: y + y, starts, a, x) for a in (y, near)]

    x, y = np.arange(-3, 3, dtype=np.int32).reshape(2, 3), normal((KEY, "y"), (3, 5, 11), np.float64)
    y[0, 0, :4] = 0.0, np.inf, -np.inf, np.nan
    y = as_held(y, subject.dtype)
    for starts in ([5, 0], [0, 3, 6, 9, 12, 2**20, 7]):

        def mine(key, x, y, starts=starts):
            return every(key, x, y, backend.kernels, starts)

        got = subject.runs(mine, mode)(*map(backend.asarray, (KEY, x, y)))
        comparison.tree(f"each of {starts}", every(KEY, x, y, PORTABLE, starts), got)


def table(subject: Subject, comparison: Comparison, mode: str) -> None:
    """The table of normal quantiles that the kernels bring, every entry."""
    brought = subject.backend.kernels.normal_table
    if brought is not None:
        comparison.expect("kernels", {"normal_table": random.normal_table()}, {"normal_table": brought})


def checks() -> tuple[Check, ...]:
    """Level 0's random bits."""
    both = ("eager", "compiled")
    found = {"known answers": known_answers, "long": long_draws, "far": far_away, "keys": every_key, "tiles": tiles,
             "each": loops}  # fmt: skip
    return (
        *(exact_check(name, "random", f, both) for name, f in found.items()),
        exact_check("normal table", "random", table, ("eager",)),
    )
