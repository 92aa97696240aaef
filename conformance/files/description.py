"""A case in plain data: its network, algorithm, optimizer and loss, so that somebody can rebuild it in any language.

Everything is read from the objects that run, so that it cannot say something else than they do.
"""

import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any

from ref_bioplaus import initializers
from ref_bioplaus.algorithms.target_propagation import target_propagation
from ref_bioplaus.conformance.cases.cases import OPTIMIZERS, Case
from ref_bioplaus.conformance.cases.networks import CHAINS, CLASSES, GRADIENT
from ref_bioplaus.network import SUM, Network
from ref_bioplaus.registry import MODIFICATIONS
from ref_bioplaus.types import Optimizer
from ref_bioplaus.windows import Window

FORMULAS = {
    "tanh": "tanh(u)",
    "relu": "max(u, 0); slope 0 at 0",
    "sigmoid": "1 / (1 + exp(-u))",
    "rectified_tanh": "tanh(max(u, 0)); slope 0 at u <= 0",
}
NAMES = {
    "batch/x": "inputs",
    "batch/y": "targets, one-hot",
    "state/t": "steps done",
    "state/key": "key of the random numbers; never changes",
    "state/forward/params/l/W": "weights of layer l",
    "state/forward/params/l/local/i/b": "bias: model.layers[l].neurons[i]",
    "state/forward/params/l/local/i/gamma": "BatchNorm's scale",
    "state/forward/params/l/local/i/beta": "BatchNorm's shift",
    "state/forward/memory/...": "the optimizer's memory: count (updates done), and one slot per name and parameter",
    "state/feedback/params/l/W": "feedback weights B_l in the layout of W_l; in target propagation the inverse's V_l",
    "state/feedback/params/l/B": "DFA: from the output to the output of layer l",
    "state/feedback/params/l/D/k": "DenseFA: from u of layer k to the output of layer l",
    "state/feedback/params/l/local/i/b": "target propagation: the inverse's bias c_l",
    "state/feedback/memory/...": "the memory of the optimizer of the feedback path",
    "state/stats/l/i/mean": "BatchNorm's running mean",
    "state/stats/l/i/var": "BatchNorm's running variance",
    "random/dropout/l/i": "1 where dropout keeps a unit, else 0; what is kept is then scaled by 1 / (1 - probability)",
    "random/mirror/l": "standard normal noise, which layer l - 1 fires times sigma in mirror mode",
    "random/corruption/l": "standard normal noise, which corrupts h_(l-1) times `noise` when inverse l learns",
    "random/magnitude/l": "brSF: |M_l|, this step's magnitudes of B_l",
    "random/delta/l": "standard normal noise on delta_l, to be scaled by the root of delta_l's mean square",
    "random/gradient/l/W": "standard normal noise on the gradient, to be scaled by the root of its mean square",
    "info/h/l": "output of layer l; h[0] is x, and h[L] the output before the loss's own nonlinearity",
    "info/output": "what the loss makes of h[L], such as softmax",
    "info/loss": "per sample",
    "info/targets/l": "target propagation: the target of layer l",
    "info/delta/l": "error at the pre-activation u_l, that is behind the synapses and before model.layers[l].neurons",
    "info/grads/l/...": "gradients of the forward path, means over the batch",
    "info/feedback_grads/l/...": "gradients of the feedback path, means over the batch",
    "state/...": "as outputs: the same after the step",
}


PARTS = {
    "root/i": "level 0: root key of draws[i]",
    "key/i": "level 0: the key at the address of draws[i]",
    "high/i": "level 0: the high words of draws[i]",
    "low/i": "level 0: the low words of draws[i]",
    "uniform/i": "level 0: uniform numbers of draws[i]",
    "normal/i": "level 0: normal numbers of draws[i]",
    "mask/i": "level 0: 1 or 0, masks of draws[i]",
    "count": "level 0: updates done",
    "eta": "level 0: the learning rate at each count",
    "inverse/of_h/l": "g(h) by the inverse of layer l",
    "inverse/of_target/l": "g of the target by the inverse of layer l",
    "inverse/corrupted/l": "h_(l-1) with noise",
    "inverse/response/l": "what layer l makes of that",
    "inverse/rebuilt/l": "what the inverse makes of the response",
    "inverse/delta/l": "error at the inverse's own pre-activation",
    "mirror/response/l": "what layer l makes of noise in mirror mode",
}


def described(value: Any) -> Any:
    """A value as JSON can hold it: dataclasses and windows by their fields, functions by their names."""
    if isinstance(value, Window):
        padding = dict(zip(("top", "bottom", "left", "right"), (*value.padding[0], *value.padding[1]), strict=True))
        return {"kernel": list(value.kernel), "stride": list(value.stride), "padding": padding}
    if dataclasses.is_dataclass(value):
        kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(value).__name__).lower()
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.name != "kernels"}
        plain = {name: described(field) for name, field in fields.items() if not callable(field)}
        window = plain.pop("window", {})
        return {"kind": kind} | plain | window
    if callable(value):
        return getattr(value, "__name__", str(value))
    if isinstance(value, tuple | list):
        return [described(item) for item in value]
    if isinstance(value, dict):
        return {str(key): described(item) for key, item in value.items()}
    return value


def model_name(case: Case) -> str:
    """The name of a case's network in a manifest: equal for equal networks."""
    chosen, name = case.chosen(), case.architecture
    if chosen.inverses and CHAINS.get(name) is not GRADIENT.get(name):
        name += ", chain"
    return name + ", auxiliary output" * chosen.auxiliary


def model(network: Network) -> dict[str, Any]:
    """The layers in order: where their input comes from, their synapses, what their neurons do, and the shapes."""
    layers = []
    for l, layer in enumerate(network.layers):
        neurons = [described(operation) for operation in layer.local]
        for neuron in neurons:
            if neuron.get("name") in FORMULAS:
                neuron["formula"] = FORMULAS[neuron["name"]]
        row: dict[str, Any] = {"layer": l, "name": layer.name, "inputs": list(layer.inputs)}
        if layer.join != SUM:
            row["join"] = described(layer.join)
        if layer.linear:
            shapes = {name: list(getattr(layer.linear, name)) for name in ("in_shape", "out_shape", "weight_shape")}
            row["synapses"] = described(layer.linear) | shapes
        layers.append(row | {"neurons": neurons, "out_shape": list(layer.out_shape)})
    return {"shapes": "N,H,W,C and kh,kw,C,O, whatever the layout of the arrays", "layers": layers}


def kinds(network: Network) -> list[str]:
    """What a network is made of, in the order in which it first appears."""
    found = []
    for layer in model(network)["layers"]:
        rows = [layer["synapses"]] if "synapses" in layer else []
        found += [row.get("name", row["kind"]) for row in rows + layer["neurons"]]
        found += ["join"] * (len(layer["inputs"]) > 1)
    return list(dict.fromkeys(found))


def numbers(function: Callable) -> dict[str, Any]:
    """A closure's numbers and words by name."""
    return dict(inspect.getclosurevars(function).nonlocals)


def maker(function: Callable) -> str:
    """The function in which another was defined."""
    return function.__qualname__.split(".", 1)[0]


def optimizer(chosen: Optimizer) -> dict[str, Any]:
    """An optimizer's name and numbers, as the update itself holds them."""
    found: dict[str, Any] = {"name": maker(chosen.update)}
    for name, value in sorted(numbers(chosen.update).items()):
        found[name] = schedule(value) if callable(value) else value
    return found


def schedule(eta: Callable) -> dict[str, Any]:
    """A schedule's name and numbers, as it itself holds them; one schedule may hold another."""
    found = sorted(numbers(eta).items())
    return {"schedule": maker(eta)} | {k: schedule(v) if callable(v) else described(v) for k, v in found}


def options(case: Case) -> dict[str, Any]:
    """The options of an algorithm, the defaults included; not those that only choose the first state."""
    skip = ("schedule", "inverse", "mirror_per_batch", "initial_mirroring")
    given = every_option(case).items()
    return {k: described(v) for k, v in given if k not in skip and not k.endswith("initializer")}


def initial(case: Case) -> dict[str, str]:
    """What an algorithm draws its first weights by: names of `ref_bioplaus.initializers`, by name of the option."""
    names = {id(function): name for name, function in vars(initializers).items()}
    return {name: names[id(value)] for name, value in every_option(case).items() if name.endswith("initializer")}


def every_option(case: Case) -> dict[str, Any]:
    """The options of an algorithm by name, the defaults included."""
    chosen = case.chosen()
    found: dict[str, Any] = {}
    makers = (
        (target_propagation, chosen.make) if "options" in inspect.signature(chosen.make).parameters else (chosen.make,)
    )
    for make in makers:
        given = inspect.signature(make).parameters.values()
        found |= {p.name: p.default for p in given if p.default is not inspect.Parameter.empty}
    return found | dict(chosen.options)


def of_case(case: Case) -> dict[str, Any]:
    """What a case is: algorithm, loss, optimizers, and the name of its network."""
    return algorithm(case) | {"architecture": case.architecture, "model": model_name(case)}


def modifications(case: Case) -> list[dict[str, Any]]:
    """The wrappers of the optimizer, the innermost first, with their numbers."""
    found = []
    for name, given in case.chosen().wrappers:
        defaults = inspect.signature(MODIFICATIONS[name]).parameters.values()
        known = {p.name: p.default for p in defaults if p.default is not inspect.Parameter.empty}
        found.append({"name": name} | known | dict(given))
    return found


def loss(case: Case) -> dict[str, Any]:
    """The loss that Case.build chooses."""
    chosen = case.chosen()
    if any(name == "batch-manhattan" for name, _ in chosen.wrappers):
        return {"name": "squared_error", "formula": "sum over units of (h - y)^2, no 1/2", "output": "h"}
    found: dict[str, Any] = {
        "name": "cross_entropy",
        "formula": "-sum over classes of y log softmax(h)",
        "output": "softmax(h)",
    }
    if chosen.auxiliary:
        found["auxiliary"] = f"units from {CLASSES} on are z: output tanh(z), no error, their W and b never change"
    return found


def algorithm(case: Case) -> dict[str, Any]:
    """Which algorithm, where it is printed, where its code stands, with which options, losses and optimizers."""
    chosen = case.chosen()
    found = {
        "algorithm": {
            "name": chosen.name,
            "label": chosen.label,
            "paper": chosen.paper,
            "equations": chosen.equations,
            "file": f"ref_bioplaus/algorithms/{chosen.module}.py",
            "options": options(case),
            "modifications": modifications(case),
        },
        "loss": loss(case),
        "optimizer": optimizer(OPTIMIZERS[case.optimizer]()),
    }
    if chosen.inverses:
        found["inverse_optimizer"] = {"name": "sgd", "eta": 1e-2}
    return found
