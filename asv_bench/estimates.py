"""How much memory whole runs take, against what `train` says before them; and the constants that it says it by.

    python -m asv_bench.estimates                        every library with native kernels: half an hour, up to 6 GB
    python -m asv_bench.estimates --backends torch --kernels portable

A run, three steps of it with its measuring and its checkpoints on random images, is a process of its own with one
thread. What it took is the highest resident size less what was resident once the libraries were loaded. The constants
are those by which the worst ratio of said and taken is nearest to 1; put them into experiments/training/needs.py.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from ref_bioplaus.experiments.data import loading
from ref_bioplaus.experiments.data.augmentation import parse
from ref_bioplaus.experiments.spec import building, checking
from ref_bioplaus.experiments.spec.experiment import Experiment
from ref_bioplaus.experiments.training import needs, opening, reporter
from ref_bioplaus.experiments.training.needs import Taken
from ref_bioplaus.experiments.training.starting import train
from ref_bioplaus.machine import environment
from ref_bioplaus.machine.memory import size

from .memory import forget_peak, resident
from .report import chosen

ROOT = Path(__file__).parent.parent
LIBRARIES = ("numpy", "torch", "jax")


class Run(NamedTuple):
    """A run: what learns on images of how many pixels a side."""

    model: str
    algorithm: str
    batch: int
    side: int
    channels: int
    classes: int = 10


RUNS = (
    Run("akrout2019/mlp", "kolen-pollack", 100, 28, 1),
    Run("bartunov2018/mnist-lc", "backprop", 100, 28, 1),
    Run("he2016/resnet20", "feedback-alignment", 50, 32, 3),
    Run("moskovitz2018/cifar10-model2", "kolen-pollack", 50, 32, 3),
    Run("bartunov2018/cifar-convnet", "dtp", 50, 32, 3),
    Run("xiao2018/alexnet", "dfa", 8, 224, 3, 100),
)


def measured(run: Run, backend_name: str, kernels: str) -> dict[str, Any]:
    """What a run took in this process, bytes, and what its estimate is made of."""
    environment.keep_freed_memory()  # as the commands that train do
    n, shape = 4 * run.batch, (run.side, run.side, run.channels)
    pixels = np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)
    labels = (np.arange(n) % run.classes).astype(np.int32)
    splits = [loading.Split(name, np.arange(n), labels, pixels) for name in ("train", "test")]
    names, mean, deviation = tuple(map(str, range(run.classes))), np.full(run.channels, 0.5), np.ones(run.channels)
    data = loading.Dataset("random images", splits[0], None, splits[1], names, shape, parse("none"), mean, deviation)
    experiment = checking.checked(
        Experiment(algorithm=run.algorithm, model=run.model, backend=backend_name, kernels=kernels, batch=run.batch,
                   steps=3, epochs=1, checkpoint_every=0.0)
    )  # fmt: skip
    backend = opening.get_backend(experiment, reporter.Reporter())
    built = building.build(experiment, backend, opening.shape_of(data, experiment))
    said = needs.estimate(experiment, built, backend)
    import safetensors.numpy  # noqa: F401

    backend.wrap(lambda a: a + 1)(backend.asarray(np.ones(3, np.float32)))
    forget_peak()
    before = resident(peak=False)
    with tempfile.TemporaryDirectory() as folder:
        train(experiment, Path(folder) / "run", images=data)
    return {
        "taken": resident(peak=True) - before, "said": said.total, "layers": said.layers, "state": said.state,
        "step": said.steps * said.itemsize * said.activations,
    }  # fmt: skip


def in_a_process(run: Run, backend: str, kernels: str) -> dict[str, Any]:
    """The same in a process of its own. Raises RuntimeError where that fails."""
    command = [sys.executable, "-m", "asv_bench.estimates", "--one", json.dumps([run, backend, kernels])]
    threads = dict.fromkeys(environment.THREADS, "1")
    done = subprocess.run(command, cwd=ROOT, env=os.environ | threads, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{run.model} on {backend}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def fitted(rows: list[dict[str, Any]]) -> tuple[Taken, float]:
    """The constants with the smallest worst ratio, and that: how many times too much or too little they say."""
    taken, layers, state, step = (
        np.array([row[name] for row in rows]) for name in ("taken", "layers", "state", "step")
    )
    axes = (
        np.arange(0.0, 201e6, 5e6),
        np.arange(0.0, 10.1e6, 0.5e6),
        np.arange(1.0, 15.0, 0.5),
        np.arange(0.5, 10.0, 0.5),
    )
    base, layer, saving, times = (a[..., None] for a in np.meshgrid(*axes, indexing="ij"))
    said = base + layer * layers + state + np.maximum(saving * state, times * step)
    worst = np.max(np.abs(np.log(np.maximum(said, 1.0) / taken)), axis=-1)
    best = np.unravel_index(int(np.argmin(worst)), worst.shape)
    return Taken(*(float(axis[i]) for axis, i in zip(axes, best, strict=True))), float(np.exp(worst[best]))


app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)


@app.command()
def main(
    backends: Annotated[str, typer.Option(help="As in torch,jax.")] = ",".join(LIBRARIES),
    kernels: Annotated[str, typer.Option(help='"native" or "portable".')] = "native",
    one: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure every run, and print the constants that fit."""
    if one:
        run, backend, kernels = json.loads(one)
        print(json.dumps(measured(Run(*run), backend, kernels)))
        return
    for backend in chosen(backends, LIBRARIES, "backend"):
        rows = []
        for run in RUNS:
            rows.append(in_a_process(run, backend, kernels))
            said, taken = rows[-1]["said"], rows[-1]["taken"]
            print(f"{backend}, {kernels} kernels: {run.model}, {run.algorithm}, batch {run.batch}: says {size(said)}, "
                  f"took {size(taken)}: {said / taken:.2f}", flush=True)  # fmt: skip
        constants, worst = fitted(rows)
        print(f"{backend}, {kernels} kernels: {constants}, at most {worst:.2f} times too much or too little")


if __name__ == "__main__":
    app()
