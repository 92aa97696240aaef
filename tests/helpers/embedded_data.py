"""The embedded images, and random ones, in the form that `train` takes: small, and not square."""

import hashlib
from typing import NamedTuple

import numpy as np

from ref_bioplaus import embedded


class Split(NamedTuple):
    """Images (n, height, width, channels) and one-hot labels."""

    x: np.ndarray
    y: np.ndarray

    @property
    def count(self):
        return len(self.x)

    def steps(self, batch):
        return -(-len(self.x) // batch)


class Data:
    """Splits in memory; the order of an epoch is a function of seed and epoch."""

    def __init__(self, train, test, validation=None):
        self.train, self.test, self.validation = train, test, validation
        self.in_shape = train.x.shape[1:]
        self.classes = tuple(map(str, range(train.y.shape[1])))
        self.fingerprint = hashlib.sha256(train.y.tobytes()).hexdigest()

    def batches(self, split, backend, batch, seed, epoch, start=0, shuffle=True, flatten=False):
        images = getattr(self, split)
        order = np.random.default_rng((seed, epoch)).permutation(images.count) if shuffle else np.arange(images.count)
        for i in range(start, images.steps(batch)):
            rows = order[i * batch : (i + 1) * batch]
            x = images.x[rows]
            yield backend.batch(x.reshape(len(rows), -1) if flatten else x, images.y[rows])


def embedded_data(train=470, test=130):
    """Some of the embedded images, cut to 10 x 6."""
    images = embedded.fashion_mnist_small()

    def cut(x, y, n):
        return Split(np.ascontiguousarray(x[:n, ::3, 2::5, :]), y[:n])

    return Data(
        cut(images.train_x, images.train_y, train),
        cut(images.test_x, images.test_y, test),
        cut(images.train_x[-100:], images.train_y[-100:], 100),
    )


def whole_embedded_data():
    """All of the embedded images."""
    images = embedded.fashion_mnist_small()
    return Data(Split(images.train_x, images.train_y), Split(images.test_x, images.test_y))
