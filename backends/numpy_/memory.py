"""Memory and threads of NumPy's native kernels: results in memory that is used again, and blocks shared by threads."""

import math
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import numpy as np

from ref_bioplaus.types import DType

BLOCK = 1 << 16  # elements worked on at a time: several such arrays stay in the caches
LARGE = 1 << 20  # bytes from which on memory is worth keeping
FORGET = 1000  # requests to the arena after which a size that nobody asked for is given back
THREADS = 4  # more of them would mostly wait for the interpreter


class Arena:
    """Memory for results, handed out again once every array and every view of it is gone.

    A result is a view of a buffer, and so is every view of a result: where nothing refers to a buffer but the arena,
    nobody can see it. What somebody keeps, an array of an old state or a view of one, is therefore never reused.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.buffers: dict[int, list[np.ndarray]] = {}  # by size in bytes
        self.asked: dict[int, int] = {}  # by size: the latest request for it
        self.requests = 0
        self.unshared = self.references([np.empty(1, np.uint8)], 0)
        self.counts = getattr(sys, "_is_gil_enabled", lambda: True)()  # reference counts are exact under the GIL only

    @staticmethod
    def references(buffers: list[np.ndarray], i: int) -> int:
        """How many references there are to an entry of a list."""
        return sys.getrefcount(buffers[i])

    def empty(self, shape: tuple[int, ...], dtype: DType) -> np.ndarray:
        """An array of any content that nobody else can see."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size < LARGE or not self.counts:
            return np.empty(shape, dtype)
        with self.lock:
            return self.buffer(size).view(dtype).reshape(shape)

    def buffer(self, size: int) -> np.ndarray:
        """An unused buffer of so many bytes."""
        self.requests += 1
        self.asked[size] = self.requests
        buffers = self.buffers.setdefault(size, [])
        for i in range(len(buffers)):
            if self.references(buffers, i) == self.unshared:
                return buffers[i]
        for other in [s for s, last in self.asked.items() if self.requests - last > FORGET]:
            del self.asked[other], self.buffers[other]
        buffers.append(np.empty(size, np.uint8))
        return buffers[-1]


class Scratch(threading.local):
    """Buffers that no result shows, one set per thread."""

    def __init__(self) -> None:
        self.buffers: dict[tuple[str, Any], np.ndarray] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: DType) -> np.ndarray:
        """The buffer of that name, with any content, valid until it is taken again."""
        size = math.prod(shape)
        buffer = self.buffers.get((name, dtype))
        if buffer is None or buffer.size < size:
            buffer = self.buffers[name, dtype] = np.empty(size, dtype)
        return buffer[:size].reshape(shape)


class Workers:
    """Threads that share the blocks of one operation: NumPy lets go of the interpreter inside its loops."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.pool: ThreadPoolExecutor | None = None
        self.process = os.getpid()

    def share(self, work: Callable[[Sequence], Any], items: Sequence) -> list:
        """[work(some of the items), work(the next ones), ...], each by a thread of its own; in order."""
        n = min(self.threads, len(items))
        if n < 2:
            return [work(items)]
        if self.pool is None or self.process != os.getpid():  # threads do not survive a fork
            self.pool, self.process = ThreadPoolExecutor(self.threads - 1), os.getpid()
        ends = [len(items) * i // n for i in range(n + 1)]
        parts = [items[a:b] for a, b in zip(ends[1:-1], ends[2:], strict=True)]
        later = [self.pool.submit(copy_context().run, work, part) for part in parts]  # with the caller's np.errstate
        return [work(items[: ends[1]]), *(future.result() for future in later)]


def threads(environment: Mapping[str, str] = os.environ) -> int:
    """How many threads share an operation: as many as BLAS has, where these sleep when they have nothing to do.

    OpenBLAS's threads wait for 2^OPENBLAS_THREAD_TIMEOUT cycles before they sleep, by default 2^28, a tenth of a
    second; on AMD processors they keep their cores all that time. Where they wait long, one thread does all.
    """
    timeout = environment.get("OPENBLAS_THREAD_TIMEOUT", "")
    if not timeout.isdigit() or int(timeout) > 22:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = (environment.get(name) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"))
    return max(1, min(cores, THREADS, *(int(limit) for limit in limits if limit and limit.isdigit())))


class Workspace:
    """The memory and the threads that the kernels of one backend share; without an arena large results are new."""

    def __init__(self, arena: bool = True) -> None:
        self.arena, self.scratch, self.workers = Arena(), Scratch(), Workers(threads())
        self.empty: Callable[..., np.ndarray] = self.arena.empty if arena else np.empty
        self.take, self.share = self.scratch.take, self.workers.share

    def like(self, a: np.ndarray) -> np.ndarray:
        """An array of a's shape and dtype, of any content."""
        return self.empty(a.shape, a.dtype)


def blocks(size: int, channels: int = 1) -> list[slice]:
    """Consecutive parts of `size` elements, each of whole rows of `channels`."""
    step = whole_rows(channels)
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def whole_rows(channels: int) -> int:
    """The elements of a block of whole rows."""
    return max(1, BLOCK // channels) * channels


def repeated(a: np.ndarray) -> np.ndarray:
    """A vector (C,) again and again, so that a block of whole rows is one run of memory."""
    return np.tile(a, whole_rows(len(a)) // len(a))


def flat(*arrays: np.ndarray) -> list[np.ndarray]:
    """The arrays as vectors; a copy where one is not contiguous."""
    return [np.reshape(a, -1) for a in arrays]
