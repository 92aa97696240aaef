"""Images decoded and augmented by several processes, ahead of the device.

`concurrent.futures` of the standard library does it. `grain` and torch's `DataLoader` were tried: on two cores, random
crops of 224 x 224 from JPEGs of that size came at 580 and 560 images a second, one row being asked for at a time, and
at 1,870 here, where a task is several rows and its pixels come back through shared memory. Nor does anything depend on
absl's flags or on torch. A task is a pure function of some rows and an epoch, so a batch is the same whoever decodes
it, and an epoch begins anywhere without a replay.

Processes are spawned, since to fork a process that runs JAX or torch can lock it up: a script that trains needs
`if __name__ == "__main__":`, or workers=0, which decodes in threads of its own process.
"""

import math
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, NamedTuple

import numpy as np

from ...machine.environment import SAFE_PATH, cores
from .augmentation import Augmentation, DataError, image_words, view
from .hub import Source

PART = 16  # images of one task
AHEAD = 32  # tasks decoded ahead of the batch in use; more where it takes more to give each worker two
MOST = {"win32": 61}  # processes that can be waited for at once
WORKER: dict[str, Any] = {}  # what a worker process was given


def views(
    source: Source, rows: np.ndarray, augmentation: Augmentation, draw: tuple[int, int] | None, grey: bool | None,
    resize_first: bool, shape: tuple[int, ...], skip: bool,
) -> tuple[np.ndarray, list[tuple[int, str]]]:  # fmt: skip
    """Images as the network gets them, uint8 (N, height, width, channels), and (row, sentence) of those left out.

    skip: whether those that cannot be decoded are; else they raise Unreadable. draw: seed and epoch, None: not
    augmented. grey: one channel or three; None: one where no image has colour. shape: begins with the height and width
    expected. Raises DataError for an image of another size.
    """
    words = None if draw is None else image_words(augmentation, *draw, rows)
    images: list[np.ndarray] = []
    unreadable: list[tuple[int, str]] = []
    for i, image in enumerate(source.images(rows, grey, unreadable if skip else None)):
        if image is None:
            continue
        one = view(image, augmentation, None if words is None else words[i], resize_first)
        if one.shape[:2] != shape[:2]:
            raise DataError(
                f"{source.place(int(rows[i]), None)} has {one.shape[0]} x {one.shape[1]} pixels, not {shape[0]} x "
                f"{shape[1]} as others: choose an augmentation that makes sizes equal, as centre-crop-224."
            )
        images.append(one)
    channels = max((one.shape[2] for one in images), default=3 if grey is False else 1)
    pixels = np.empty((len(images), *shape[:2], channels), np.uint8)
    for i, one in enumerate(images):
        pixels[i] = one
    return pixels, unreadable


def work(
    name: str, slot: int | None, rows: np.ndarray, *arguments: Any
) -> tuple[np.ndarray | None, list[tuple[int, str]]]:
    """`views` in a worker process, the pixels put into a slot of the memory shared with its parent, and returned where
    there is no slot."""
    pixels, unreadable = views(WORKER["sources"][name], rows, *arguments)
    if slot is None:
        return pixels, unreadable
    WORKER["slots"][slot, : len(pixels)] = pixels
    return None, unreadable


def begin(sources: dict[str, Source], memory: Any, shape: tuple[int, int, int]) -> None:
    """A worker process begins: it leaves Ctrl-C to its parent, and ends when its parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    WORKER.update(sources=sources, slots=slots_of(memory, shape))
    threading.Thread(target=end_with_parent, daemon=True).start()


def slots_of(memory: Any, shape: tuple[int, int, int]) -> np.ndarray:
    """Shared memory as places for the images of one task each, (slots, PART, *shape)."""
    return np.frombuffer(memory, dtype=np.uint8).reshape(-1, PART, *shape)


def end_with_parent() -> None:
    """Wait for the parent to end, however it does, and end."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def safe_path() -> Iterator[None]:
    """Let no Python that starts within this import from the current folder, as `python -c` does; see python -P."""
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SAFE_PATH]
        else:
            os.environ[SAFE_PATH] = before


class Process(SpawnProcess):
    """A process that imports nothing from the current folder, unless its parent does."""

    def start(self) -> None:
        """Start it."""
        with safe_path():
            super().start()


class Context(SpawnContext):
    """Starts such processes."""

    Process = Process


class Task(NamedTuple):
    """Some rows that are being decoded, and where they will lie."""

    future: Future
    slot: int | None
    images: int


class Decoders:
    """Processes, or with workers=0 threads, that decode the images of some sources to one shape."""

    def __init__(self, sources: dict[str, Source], shape: tuple[int, int, int], workers: int):
        self.sources = sources
        workers = min(workers, MOST.get(sys.platform, workers))
        self.ahead = max(AHEAD, 2 * (workers or cores()))
        self.free: list[int] = []  # slots that hold nothing
        self.executor: Executor
        if workers:
            context = Context()
            memory = context.RawArray("B", self.ahead * PART * math.prod(shape))
            self.slots = slots_of(memory, shape)
            self.free = list(range(self.ahead))
            with safe_path():  # a process that keeps count of shared things starts with the first of them
                self.executor = ProcessPoolExecutor(workers, context, begin, (sources, memory, shape))
        else:
            self.executor = ThreadPoolExecutor(cores())

    def submit(self, name: str, rows: np.ndarray, *arguments: Any) -> Task:
        """Begin to decode some rows of a source."""
        if isinstance(self.executor, ThreadPoolExecutor):
            return Task(self.executor.submit(views, self.sources[name], rows, *arguments), None, len(rows))
        slot = self.free.pop() if self.free else None  # none: another epoch, begun and left, holds them
        return Task(self.executor.submit(work, name, slot, rows, *arguments), slot, len(rows))

    def take(self, task: Task) -> tuple[np.ndarray, list[tuple[int, str]]]:
        """What a task decoded, once it has, as `views` returns it. Its slot is free again. Raises DataError."""
        pixels, unreadable = task.future.result()
        if task.slot is not None:
            pixels = self.slots[task.slot, : task.images - len(unreadable)].copy()
            self.free.append(task.slot)
        return pixels, unreadable

    def drop(self, task: Task) -> None:
        """Cancel a task; its slot is free once nobody writes to it."""
        task.future.cancel()
        slot = task.slot
        if slot is not None:
            task.future.add_done_callback(lambda _: self.free.append(slot))

    def batches(
        self, name: str, batches: list[np.ndarray], *arguments: Any
    ) -> Iterator[tuple[np.ndarray, list[tuple[int, str]]]]:
        """The batches of rows, decoded, in their order, as `views` returns them. Raises DataError; what was begun by
        then is cancelled."""
        parts = (batch[i : i + PART] for batch in batches for i in range(0, len(batch), PART))
        waiting: deque[Task] = deque()
        try:
            for batch in batches:
                images: list[np.ndarray] = []
                unreadable: list[tuple[int, str]] = []
                for _ in range(0, len(batch), PART):
                    for part in islice(parts, self.ahead - len(waiting)):
                        waiting.append(self.submit(name, part, *arguments))
                    pixels, without = self.take(waiting[0])
                    images.append(pixels)
                    unreadable += without
                    waiting.popleft()
                yield np.concatenate(images), unreadable
        except BrokenProcessPool:
            raise DataError(
                "A process that decodes images has died: it had too little memory, or the script that trains lacks "
                '`if __name__ == "__main__":`; choose workers=0 to decode without processes.'
            ) from None
        finally:
            for task in waiting:
                self.drop(task)

    def close(self) -> None:
        """End the workers, without their remaining tasks."""
        self.executor.shutdown(wait=True, cancel_futures=True)
