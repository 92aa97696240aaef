"""What a run asks of the images it learns from."""

from collections.abc import Iterator
from typing import Protocol

from ...backends import Backend
from ...types import Batch


class Split(Protocol):
    """Training, validation or test images."""

    @property
    def count(self) -> int:
        """How many."""
        ...

    def steps(self, batch: int) -> int:
        """Batches in an epoch."""
        ...


class Data(Protocol):
    """What `train` needs of a dataset; `experiments.data.loading.load` returns one.

    Where `classes` is empty, targets are real-valued, `outputs` of them, or without that the inputs. Where it has them,
    a run records `scale` (of what, see images.py), `mean` and `deviation` (per channel, of what the images are
    normalised by), `fingerprint` (what tells the training images from others) and what `digest()` returns (see
    hashing.py).
    """

    @property
    def in_shape(self) -> tuple[int, ...]:
        """(height, width, channels), or (units,) of vectors."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names; none where no classes are learned."""
        ...

    @property
    def train(self) -> Split:
        """The training images."""
        ...

    @property
    def test(self) -> Split | None:
        """The test images; None where there are none with labels."""
        ...

    def batches(
        self, split: str, backend: Backend, batch: int, seed: int, epoch: int, start: int = 0, shuffle: bool = True,
        flatten: bool = False,
    ) -> Iterator[Batch]:  # fmt: skip
        """The batches of one epoch from number `start` on, a function of seed, epoch and number alone."""
        ...
