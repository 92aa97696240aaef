"""Small runs on embedded images: how one is described, stopped, and compared with another."""

import os
import signal

from ref_bioplaus.experiments.runs import logs
from ref_bioplaus.experiments.spec.experiment import Experiment
from ref_bioplaus.tree import named_leaves

TIMES = ("images_per_second", "waiting_for_data", "seconds", "memory")
SMALL = {"model_options": {"width": 8 / 256}, "batch": 100, "epochs": 3, "checkpoint_every": 1000.0}
PLAIN = {"metrics": ()}  # nothing to compile but the steps


def of(**fields):
    return Experiment(**(SMALL | fields))


class Untested:
    """Data without test images, as the hub's ImageNet once its test images have no labels."""

    test = None

    def __init__(self, data):
        self.data = data

    def __getattr__(self, name):
        return getattr(self.data, name)


class Stopping:
    """Data that sends this process a signal while batch number `at` of the run is fetched, or of what it measures."""

    def __init__(self, data, at, number=signal.SIGINT, split="train"):
        self.data, self.at, self.number, self.split, self.met = data, at, number, split, 0

    def __getattr__(self, name):
        return getattr(self.data, name)

    def batches(self, split, backend, batch, seed, epoch, start=0, shuffle=True, flatten=False):
        for found in self.data.batches(split, backend, batch, seed, epoch, start, shuffle, flatten):
            if split == self.split and shuffle == (split == "train"):
                self.met += 1
                if self.met == self.at + shuffle:  # one was fetched for the comparison with backpropagation
                    os.kill(os.getpid(), self.number)
            yield found


def untimed(records):
    return [{k: v for k, v in r.items() if k not in TIMES} for r in records]


def arrays(run):
    return {name: run.backend.to_numpy(leaf) for name, leaf in named_leaves(run.state)}


def assert_same(a, b):
    """Every tensor of two runs' states, bit for bit, and every number of their records."""
    mine, theirs = arrays(a), arrays(b)
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert mine[name].tobytes() == theirs[name].tobytes(), name
    assert untimed(a.records) == untimed(b.records)
    assert untimed(logs.records(b.out)) == untimed(b.records)
