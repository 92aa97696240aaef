"""How learning differs from backpropagation on one batch."""

import math

import numpy as np

from ... import algorithms, naming
from ...backends import Backend
from ...registry.rows import BACKPROP, feedback_weights
from ...types import Batch, Info, Optimizer, Params, State
from ..spec.building import Built
from ..spec.experiment import ExperimentError
from ..spec.names import METRIC, reads, thing

STILL = Optimizer(lambda params, address, kernels: (), lambda grads, memory, params, kernels: (params, memory))


class Comparison:
    """Angles, ratios and sign changes on one batch that stays the same; the state is not touched."""

    def __init__(self, backend: Backend, built: Built, names: tuple[str, ...], start: Params | None, batch: Batch):
        """names: of metrics, see spec/names.py. start: the weights before the first step, for those that read them."""
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
    chosen = {name: (thing(METRIC, name), reads(name)) for name in names}
    if row.name == BACKPROP.name:  # itself
        chosen = {name: one for name, one in chosen.items() if name not in METRIC.known or "reference" not in one[1]}
    if row.make is BACKPROP.make:  # BP + Noise walks back with the clean deltas
        chosen.pop("delta_angles", None)
    wanted = set[str]().union(*(needed for _, needed in chosen.values()))
    mine = row.build(network, built.loss, STILL, STILL if row.inverses else None)
    step = next(step for mode, step in mine.modes.items() if row.learns(mode))
    exact = algorithms.backprop(network, built.loss, STILL).modes["learn"]

    def run(state, start, batch):
        params = state.forward.params
        known = {"network": network, "loss": built.loss, "state": state, "batch": batch}
        known |= {"forward": params, "before": start, "after": params}
        known["feedback"] = feedback_weights(row, network, state) if "feedback" in wanted else None
        known["info"] = step(state, batch)[1] if "info" in wanted else Info()
        known["reference"] = exact(state, batch)[1] if "reference" in wanted else Info()
        unknown = {"delta_angles": known["info"].delta is None, "gradient_ratios": known["info"].grads is None}
        found = {}
        for name, (metric, needed) in chosen.items():
            if not unknown.get(name, False):
                found[naming.short(name)] = metric(**{part: known[part] for part in needed})
        for name, by_layer in found.items():
            if not isinstance(by_layer, dict):
                what = type(by_layer).__name__
                raise ExperimentError(f'The metric "{name}" returns a {what}, expected a table {{layer: number}}.')
        return {name: by_layer for name, by_layer in found.items() if by_layer}

    return run


def finite(number: float) -> float | None:
    """The number; None, which JSON knows, where it is not finite."""
    return number if math.isfinite(number) else None
