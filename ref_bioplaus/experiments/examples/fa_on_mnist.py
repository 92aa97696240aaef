"""Feedback alignment on MNIST, the same lines on every backend:

    python -m ref_bioplaus.experiments.examples.fa_on_mnist [FOLDER]

FOLDER holds MNIST in the layout of Hugging Face's hub; without it the images inside the package are learned.
"""

import sys
from tempfile import TemporaryDirectory
from typing import Any

from ... import backends
from .. import Experiment, train


def learn(backend: str, data: str | None = None, epochs: int = 2) -> list[dict[str, Any]]:
    """What was recorded of the run, one row per epoch: pandas.DataFrame(learn("numpy")).plot("epoch", "test_error")."""
    experiment = Experiment(
        algorithm="feedback-alignment",
        model="bartunov2018/mnist-fc",
        dataset="ylecun/mnist" if data else "embedded",
        data=data,
        optimizer={"name": "sgd", "eta": 0.05, "momentum": 0.9},
        backend=backend,
        epochs=epochs,
    )
    with TemporaryDirectory() as out:  # name a folder of your own to keep the log and the checkpoints
        return train(experiment, out, callback=lambda r: print(f"{backend}: {r['test_error']:.2f} %")).records


if __name__ == "__main__":
    for name in ("numpy", "torch", "jax", "cupy"):
        if name in backends.installed():
            learn(name, sys.argv[1] if sys.argv[1:] else None)
