"""How learning differs from backpropagation on one batch."""

import math

import numpy as np

from ... import algorithms, metrics
from ...backends import Backend
from ...registry.rows import BACKPROP, feedback_weights
from ...types import Batch, Optimizer, Params, State
from ..spec.building import Built

STILL = Optimizer(lambda params, address, kernels: (), lambda grads, memory, params, kernels: (params, memory))


class Comparison:
    """Angles, ratios and sign changes on one batch that stays the same; the state is not touched."""

    def __init__(self, backend: Backend, built: Built, names: tuple[str, ...], start: Params | None, batch: Batch):
        """names: of experiment.METRICS. start: the weights before the first step, for sign changes."""
        self.backend, self.start, self.batch = backend, start, batch
        self.run = backend.wrap(comparing(built, names)) if names else None

    @np.errstate(all="ignore")  # the angle of a zero vector is NaN
    def __call__(self, state: State) -> dict[str, dict[str, float | None]]:
        """{metric: {layer: number}}."""
        if self.run is None:
            return {}
        state = state._replace(forward=state.forward._replace(memory=()), feedback=state.feedback._replace(memory=()))
        found = self.run(state, self.start, self.batch)
        return {
            name: {str(l): finite(float(self.backend.to_numpy(a))) for l, a in by_layer.items()}
            for name, by_layer in found.items()
        }


def comparing(built: Built, names: tuple[str, ...]):
    """A function (state, first weights, batch) -> {metric: {layer: array ()}}, which updates nothing."""
    network, row = built.network, built.row._replace(wrappers=())
    mine = row.build(network, built.loss, STILL, STILL if row.inverses else None)
    step = next(step for mode, step in mine.modes.items() if row.learns(mode))
    reference = algorithms.backprop(network, built.loss, STILL).modes["learn"]
    compares = {"delta_angles", "gradient_ratios"}.intersection(names) and row.name != BACKPROP.name

    def run(state, start, batch):
        found = {}
        if "matrix_angles" in names:
            found["matrix_angles"] = metrics.matrix_angles(state.forward.params, feedback_weights(row, network, state))
        if compares:
            info, exact = step(state, batch)[1], reference(state, batch)[1]
            if "delta_angles" in names and row.make is not BACKPROP.make:  # BP + Noise walks back with the clean deltas
                found["delta_angles"] = metrics.delta_angles(info, exact)
            if "gradient_ratios" in names:
                found["gradient_ratios"] = metrics.gradient_ratios(exact, info)
        if "sign_changes" in names:
            found["sign_changes"] = metrics.sign_changes(start, state.forward.params)
        return {name: by_layer for name, by_layer in found.items() if by_layer}

    return run


def finite(number: float) -> float | None:
    """The number; None, which JSON knows, where it is not finite."""
    return number if math.isfinite(number) else None
