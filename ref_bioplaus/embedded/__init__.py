"""The real data inside the package: 5,000 training and 1,000 test images of Fashion-MNIST, equally many per class.

Beside their reader lies what made them, and what made the table of normal numbers. From outside: `fashion_mnist_small`,
`batches`, `Images`, `CLASSES`. Imports nothing of ours.
"""

import hashlib
import io
from collections.abc import Iterator
from importlib import resources
from typing import NamedTuple

import numpy as np

DATA_FOLDER = resources.files(__name__)
FILE_NAME = "fashion_mnist_small.npz"
FILE_SHA256 = "a97961033a6f8fdbd83ff9626b295dc0364a467f5a42a11a339c108c417f7d09"
CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
SHAPES = {
    "train_images": (5000, 28, 28),
    "train_labels": (5000,),
    "test_images": (1000, 28, 28),
    "test_labels": (1000,),
}


class Images(NamedTuple):
    """Images, (n, height, width, 1) float32 brightness in [0, 1], and their one-hot labels, (n, classes) float32."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    classes: tuple[str, ...]


def fashion_mnist_small() -> Images:
    """Return the embedded images, n = 5000 and 1000 of 28 x 28 pixels, 10 classes; raise FileNotFoundError if the
    package's data file is missing and ValueError if it is damaged."""
    path = DATA_FOLDER / FILE_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"The data file {path} is missing: install the package again.") from error
    damaged = f"The data file {path} is damaged: install the package again"
    if (found := hashlib.sha256(content).hexdigest()) != FILE_SHA256:
        raise ValueError(f"{damaged} (expected sha256 {FILE_SHA256}, found {found}).")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for name, shape in SHAPES.items():
        if name not in arrays or arrays[name].shape != shape or arrays[name].dtype != np.uint8:
            raise ValueError(f"{damaged} (expected {name} as uint8 of shape {shape}).")
    one_hot = np.eye(len(CLASSES), dtype=np.float32)
    return Images(
        train_x=arrays["train_images"][..., None].astype(np.float32) / 255,
        train_y=one_hot[arrays["train_labels"]],
        test_x=arrays["test_images"][..., None].astype(np.float32) / 255,
        test_y=one_hot[arrays["test_labels"]],
        classes=CLASSES,
    )


def batches(images: Images, batch_size: int, epoch: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the training images of one epoch as (x, y) of at most batch_size rows, the last maybe fewer, in an order
    set by seed and epoch alone; raise ValueError if batch_size < 1 or seed or epoch is outside 0 to 2**64 - 1."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    if not (0 <= seed < 2**64 and 0 <= epoch < 2**64):
        raise ValueError(f"seed and epoch must be from 0 to 2**64 - 1, got seed {seed} and epoch {epoch}.")
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)))
    order = generator.permutation(len(images.train_x))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        yield images.train_x[rows], images.train_y[rows]
