"""Where a run went wrong: the first tensor that was not finite."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ...machine import files
from ...network import Network
from ...types import in_order
from ..runs import checkpoints, sound
from ..spec.building import first_state
from ..spec.experiment import to_name_again

if TYPE_CHECKING:
    from .loop import Training

LOOKED_BACK = 3  # steps examined tensor by tensor before a loss that is not finite


class NotFinite(RuntimeError):
    """A loss that is not finite; the message says where it began."""


@np.errstate(all="ignore")
def diagnosis(run: "Training", bad: int) -> str:
    """A sentence on the first tensor that was not finite, up to step `bad`: the steps since the last checkpoint
    are run again, the last of them tensor by tensor."""
    step, epoch, position = 0, 0, 0
    state, where = first_state(run.experiment, run.built, run.backend), "the start"
    if checkpoints.found(run.out):
        checkpoint = checkpoints.latest(run.out)
        state = checkpoints.state_of(run.backend, checkpoint, state)
        step, epoch, position = (checkpoint.header[name] for name in ("step", "epoch", "position"))
        where = f"the checkpoint {checkpoint.path}, of step {step}"
    shown = {name: run.backend.compile(mode) for name, mode in run.built.algorithm.modes.items()}
    found = None
    while step <= bad and not found:
        for batch in run.batches(epoch, position):
            for mode in run.built.algorithm.schedule(epoch, position):
                if step <= bad - LOOKED_BACK:
                    state, _ = run.modes[mode](state, batch)
                else:
                    state, info = shown[mode](state, batch)
                    arrays = ((n, run.backend.to_numpy(a)) for n, a in in_order(info, state).items())
                    found = found or first_not_finite(arrays)
            step, position = step + 1, position + 1
            if found or step > bad:
                break
        if position == run.shape.steps:
            epoch, position = epoch + 1, 0
    back = way_back(run)
    what = f"{place(found, run.built.network)}, at step {step - 1}" if found else "not found again"
    return (
        f"The loss is not finite after step {bad}; the first tensor that is not: {what}; the last finite state is "
        f"{where}{back}."
    )


def way_back(run: "Training") -> str:
    """The end of a sentence: from which checkpoint the run can go on with a smaller learning rate."""
    steps = [checkpoints.step_of(path) for path in checkpoints.found(run.out)]
    step = sound.newest(steps, run.proven)
    if step is None:
        return ": try a smaller learning rate"
    eta = run.experiment.optimizer.get("eta")
    smaller = f"{eta / 10:g}" if isinstance(eta, int | float) else "..."
    name = checkpoints.name_at(step)
    words = ("--checkpoint", name, "--set", f"optimizer.eta={smaller}", *to_name_again(run.experiment))
    why = "the loss fell or stayed in the epochs learned from it" if step else "it has learned nothing yet"
    return (
        f", and the last one from before the loss rose {name}, as {why}: try a smaller learning rate from there, "
        f"{files.typed('resume', run.out, *words)}"
    )


def first_not_finite(names_and_arrays: Iterable[tuple[str, np.ndarray]]) -> str | None:
    """The name of the first array with an entry that is not finite."""
    for name, array in names_and_arrays:
        if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
            return name
    return None


def place(name: str, network: Network) -> str:
    """A tensor's name with its layer's description, as in "info/h/3, layer 3 (dense 256 · bias · tanh)"."""
    numbers = [int(part) for part in name.split("/") if part.isdigit()]
    if not numbers or numbers[0] >= len(network):
        return name
    return f"{name}, layer {numbers[0]} ({network[numbers[0]].name})"
