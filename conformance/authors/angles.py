"""How far a rule's update turns from backpropagation's."""

import numpy as np

from ref_bioplaus.conformance.authors.declared import backprop_moves
from ref_bioplaus.conformance.authors.table import Table
from ref_bioplaus.metrics import angle


def measured(table: Table) -> str:
    """Degrees between what W_l moves by and what backpropagation would move it by, for every layer, from one state."""
    trial, found = table.laws, []
    for mode in trial.teaching:
        state, x, y = trial.decidable(mode)
        own, reference = trial.moved(mode, (state, x, y)).moves, backprop_moves(trial, state, x, y)
        angles = [degrees(own[f"W of layer {l}"].v, reference[f"W of layer {l}"].v) for l in trial.net.weighted]
        found.append((f"{mode} " if len(trial.teaching) > 1 else "") + " ".join(angles))
    return "; ".join(found)


def degrees(update: np.ndarray, reference: np.ndarray) -> str:
    """The angle in words; "-" where one of the two is 0."""
    return f"{float(angle(update, reference)):.0f}" if np.any(update) and np.any(reference) else "-"
