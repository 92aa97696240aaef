"""The commands `train`, `resume` and `evaluate`. Libraries are imported when a command needs them.

Exit codes: 0 done · 1 the loss is not finite · 2 not understood, or cannot be done as asked · 130 and 143 stopped by
Ctrl-C or SIGTERM, with a checkpoint.
"""

import signal
import time
from collections.abc import Callable
from os.path import isfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from ... import naming
from ...backends import BackendError
from ...machine.environment import keep_freed_memory
from ...machine.files import NotOrdinary, typed
from ...registry.names import LOSSES
from ...showing.terminal import bars, fail, new_console, say
from ..boxes import precision
from ..data.loading import DataError
from ..runs.checkpoints import CheckpointError
from ..spec.experiment import Experiment, ExperimentError, overridden, read, to_name_again
from ..training import starting
from ..training.loop import NotFinite
from ..training.reporter import Reporter

OF_BOXES = tuple(f"test_{name}" for name in precision.NAMES)
BackendName = Annotated[
    str | None, typer.Option(help='The array library, as in `list backends`, or "module:object", "file.py:object".')
]
DeviceName = Annotated[str | None, typer.Option(help='"cpu", "cuda", "cuda:1". Default: the library\'s usual one.')]
DataFolder = Annotated[
    Path | None,
    typer.Option(
        help="A folder with the images, in the layout of Hugging Face's hub, or of arrays x_train.npy, y_train.npy, "
        "x_test.npy and y_test.npy, or one .npz of these."
    ),
]
Config = Annotated[str | None, typer.Option(help="A configuration of the dataset, where it has several.")]
ImageColumn = Annotated[str | None, typer.Option(help="The dataset's column of images, where it has several.")]
LabelColumn = Annotated[str | None, typer.Option(help="The dataset's column of class labels, or of real numbers.")]
TrainSplit = Annotated[str | None, typer.Option(help='The dataset\'s training split, where it is not "train".')]
TestSplit = Annotated[str | None, typer.Option(help='The dataset\'s test split. Default: "test", or "validation".')]
CheckpointName = Annotated[
    str | None,
    typer.Option(
        help='A checkpoint\'s file name, or "best": by the images held out, or by the training batches where none are. '
        "Default: the newest."
    ),
]
Kernels = Annotated[str | None, typer.Option(help='"native", the library\'s own, or "portable", the definition.')]
Epochs = Annotated[int | None, typer.Option(help="How often to go through the training images.")]
Steps = Annotated[int | None, typer.Option(help="Batches after which to stop, wherever in an epoch.")]
WithTensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Write what TensorBoard shows to OUT/tensorboard.")
]
SkipUnreadable = Annotated[
    int | None, typer.Option(help="So many images at most are left out that cannot be read. Default: 0.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A field of the experiment, as optimizer.eta=0.01; repeatable. Comes last."),
]


def there(code: list[str] | None) -> list[str] | None:
    """The files and modules of --code as they are; one sentence where such a file is not there."""
    for name in code or ():
        place, _ = naming.parts(name)
        if naming.is_file(place) and not isfile(place):
            fail(f"--code {name}: there is no such file, name another one.")
    return code


Code = Annotated[
    list[str] | None,
    typer.Option(
        "--code",
        callback=there,
        help="A file or module of your own that holds code which a file names, as my_rule.py; repeatable. What is not "
        "named so is not run.",
    ),
]
ChangedCode = Annotated[bool, typer.Option("--changed-code", help="Go on though code of your own is another now.")]
Adjustments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A number of the optimizer that is another one from here on, as optimizer.eta=0.01, or a field that "
        "leaves what is learned as it is, as evaluate_every=2; repeatable. The log says from which step on.",
    ),
]


def train(
    out: Annotated[Path, typer.Option(help="The folder that gets the experiment, the log and the checkpoints.")],
    experiment: Annotated[Path | None, typer.Option(help="A TOML file to start from.")] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(help='As in `list algorithms`, a label, as KP, or one of your own, as "my_rule.py:rule".'),
    ] = None,
    model: Annotated[str | None, typer.Option(help='As in `list models`, or as "my_net.py:network".')] = None,
    loss: Annotated[
        str | None,
        typer.Option(help=f'{", ".join(LOSSES)}, or as "my_loss.py:loss".'),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help='An id of Hugging Face\'s hub, "embedded", or as "my_data.py:data". Default: what the model is for.'
        ),
    ] = None,
    data: DataFolder = None,
    config: Config = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    train_split: TrainSplit = None,
    test_split: TestSplit = None,
    backend: BackendName = None,
    device: DeviceName = None,
    dtype: Annotated[str | None, typer.Option(help='"float32", "float64" or "bfloat16".')] = None,
    precision: Annotated[str | None, typer.Option(help='Of float32 products: "ieee", "tf32" or "bf16".')] = None,
    kernels: Kernels = None,
    batch: Annotated[int | None, typer.Option(help="Images in a batch.")] = None,
    epochs: Epochs = None,
    steps: Steps = None,
    seed: Annotated[int | None, typer.Option(help="Of initial weights, noise and batches.")] = None,
    held_out: Annotated[int | None, typer.Option(help="Training images kept for validation.")] = None,
    skip_unreadable: SkipUnreadable = None,
    augmentation: Annotated[str | None, typer.Option(help="How training images are cropped and flipped.")] = None,
    start: Annotated[
        Path | None, typer.Option(help="Weights to begin from, as `export` writes them; feedback weights are drawn.")
    ] = None,
    setting: Settings = None,
    code: Code = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue what OUT holds, where it holds anything.")] = False,
    tensorboard: WithTensorBoard = False,
) -> None:
    """An algorithm learns a dataset: any algorithm, model, dataset and backend, and any of your own."""
    named = {
        "algorithm": algorithm, "model": model, "loss": loss, "dataset": dataset,
        "data": None if data is None else str(data), "config": config, "backend": backend, "device": device,
        "dtype": dtype, "precision": precision,
        "kernels": kernels, "batch": batch, "epochs": epochs, "steps": steps, "seed": seed, "held_out": held_out,
        "augmentation": augmentation, "skip_unreadable": skip_unreadable,
        "start": None if start is None else str(start),
    }  # fmt: skip
    layout = given(
        {"image_column": image_column, "label_column": label_column, "train_split": train_split,
         "test_split": test_split}
    )  # fmt: skip

    def work(reporter):
        from dataclasses import replace

        chosen = Experiment() if experiment is None else read(experiment, code or ())
        chosen = replace(chosen, **given(named), layout=dict(chosen.layout) | layout)
        chosen = overridden(chosen, setting or ())
        if experiment is None and algorithm is None and chosen.algorithm == Experiment().algorithm:
            reporter.note("No --algorithm is named, so this is backpropagation: see `ref-bioplaus list algorithms`.")
        return starting.train(chosen, out, resume=resume, reporter=reporter, tensorboard=tensorboard)

    carry_out(work)


def resume(
    out: Annotated[Path, typer.Argument(help="The folder of a run.")],
    checkpoint: CheckpointName = None,
    data: DataFolder = None,
    skip_unreadable: SkipUnreadable = None,
    backend: BackendName = None,
    device: DeviceName = None,
    kernels: Kernels = None,
    epochs: Epochs = None,
    steps: Steps = None,
    setting: Adjustments = None,
    code: Code = None,
    changed_code: ChangedCode = False,
    despite_lost_log: Annotated[
        bool, typer.Option("--despite-lost-log", help="Go on with what is left of a log that was deleted or cut.")
    ] = False,
    tensorboard: WithTensorBoard = False,
) -> None:
    """Continue a run that was stopped, bit for bit on the same backend and device, or on another one.

    A run whose loss was not finite has named a checkpoint, from which it goes on with a smaller learning rate, by
    --checkpoint and --set. The checkpoints and the records behind one that is gone back to are deleted.

    On GPUs `train` and `resume` ask for deterministic kernels (torch.use_deterministic_algorithms,
    CUBLAS_WORKSPACE_CONFIG, XLA_FLAGS --xla_gpu_deterministic_ops=true; CuPy has only the second).
    """
    changes: dict[str, Any] = {
        "data": None if data is None else str(data), "backend": backend, "device": device, "kernels": kernels,
        "epochs": epochs, "steps": steps, "skip_unreadable": skip_unreadable,
    }  # fmt: skip

    def work(reporter):
        return starting.resume(
            out, checkpoint, reporter=reporter, tensorboard=tensorboard, despite_lost_log=despite_lost_log,
            settings=setting or (), code=code, changed_code=changed_code, **given(changes),
        )  # fmt: skip

    carry_out(work)


def evaluate(
    out: Annotated[Path, typer.Argument(help="The folder of a run.")],
    checkpoint: CheckpointName = None,
    data: DataFolder = None,
    skip_unreadable: SkipUnreadable = None,
    backend: BackendName = None,
    device: DeviceName = None,
    code: Code = None,
    changed_code: ChangedCode = False,
) -> None:
    """Loss and errors of a checkpoint on every split, as one line of JSON."""
    import json

    changes: dict[str, Any] = {
        "data": None if data is None else str(data), "backend": backend, "device": device,
        "skip_unreadable": skip_unreadable,
    }  # fmt: skip

    def measure():
        return starting.evaluate(out, checkpoint, code=code, changed_code=changed_code, **given(changes))

    print(json.dumps(sentences(measure)))


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were named."""
    return {name: value for name, value in options.items() if value is not None}


def carry_out(work: Callable) -> None:
    """Run, showing how it goes, and stop with the run's exit code."""
    keep_freed_memory()
    console = new_console()
    with bars(console) as rich:
        run = sentences(lambda: work(Bar(console, rich)))
    last = run.records[-1] if run.records else {}
    if run.finished:
        say(console, f"Done: {line(last)}. The log is {run.out / 'log.jsonl'}.")
        return
    again = typed("resume", run.out, *to_name_again(run.experiment))
    say(console, f"Stopped after step {run.step}, with a checkpoint: continue with {again}.")
    raise typer.Exit(128 + signal.Signals[run.stopped_by])


def sentences(work: Callable) -> Any:
    """What `work` returns; what it raises for a user to read becomes a sentence and an exit code."""
    try:
        return work()
    except NotFinite as error:
        fail(str(error), 1)
    except (BackendError, CheckpointError, DataError, ExperimentError, NotOrdinary, ImportError) as error:
        sentence = str(error)
        fail(sentence if sentence.endswith((".", "?")) else f"{sentence}.")


def line(record: dict[str, Any]) -> str:
    """A record's numbers that fit in a line."""
    shown = [f"epoch {record.get('epoch', 0)}, step {record.get('step', 0)}"]
    for name in ("train_loss", "train_error", "validation_error", "test_loss", "test_error", *OF_BOXES):
        if record.get(name) is not None and (name not in OF_BOXES or record[name] >= 0):  # -1: there are no such boxes
            unit = " %" if name.endswith("error") else ""
            shown.append(f"{name.replace('_', ' ')} {record[name]:.4g}{unit}")
    for name in ("train", "validation", "test"):
        if record.get(f"{name}_skipped"):
            shown.append(f"{record[f'{name}_skipped']} {name} images left out")
    if record.get("images_per_second"):
        shown.append(f"{record['images_per_second']:,.0f} images/s")
    return ", ".join(shown)


class Bar(Reporter):
    """A run as a bar in a terminal, where there is one, and its notes and records as lines.

    name: of one among others. every: seconds between its lines; a bar of a name has its records instead.
    """

    def __init__(self, console: Console, rich: Progress, name: str = "", every: float = 0.0):
        self.console, self.rich, self.name, self.every = console, rich, name, every
        self.task = rich.add_task(name or "step", total=None)
        self.last = -every  # when a line was printed

    def say(self, sentence: str) -> None:
        """A line of this run."""
        say(self.console, f"{self.name}: {sentence}" if self.name else sentence)

    def note(self, sentence: str):
        """A line."""
        self.say(sentence)

    def start(self, steps: int, done: int):
        """How long the bar is."""
        self.rich.update(self.task, total=steps, completed=done)

    def progress(self, step: int, loss: float | None):
        """How far it is."""
        self.rich.update(self.task, completed=step)
        if not self.name:
            self.rich.update(self.task, description="step" if loss is None else f"loss {loss:.4g}")

    def record(self, record: dict[str, Any]):
        """A line, or an epoch behind the bar's name."""
        if self.name and self.console.is_terminal:
            self.rich.update(self.task, description=f"{self.name}, epoch {record['epoch']}")
        elif time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            self.say(line(record))
