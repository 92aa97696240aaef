"""Where a run went wrong: the first tensor that was not finite."""

from typing import TYPE_CHECKING

import numpy as np

from ..types import in_order
from . import monitor
from .runs import checkpoints
from .spec.building import first_state

if TYPE_CHECKING:
    from .running import Training

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
                    found = found or monitor.first_not_finite(arrays)
            step, position = step + 1, position + 1
            if found or step > bad:
                break
        if position == run.shape.steps:
            epoch, position = epoch + 1, 0
    what = f"{monitor.place(found, run.built.network)}, at step {step - 1}" if found else "not found again"
    return (
        f"The loss is not finite after step {bad}; the first tensor that is not: {what}; the last good state is "
        f"{where}: try a smaller learning rate."
    )
