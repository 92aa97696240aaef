"""Every option of the library that changes what a step computes, and the check that fails where it is ignored.

The options are found by looking at the functions themselves: a new one without a line here fails a test.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from ref_bioplaus import (
    algorithms,
    initializers,
    inverses,
    linear,
    local,
    losses,
    modifications,
    network,
    optimizers,
)
from ref_bioplaus.algorithms import target_propagation as tp
from ref_bioplaus.initializers import Initializer
from ref_bioplaus.network import Layer, Network
from ref_bioplaus.optimizers import LearningRate
from ref_bioplaus.types import Algorithm, Loss, Optimizer

ROOMS: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (algorithms, tp, optimizers, modifications, losses, local, linear, inverses, initializers)
}
MADE = (Algorithm, Optimizer, LearningRate, Loss, linear.Part, Initializer, Callable[[Network, int], Layer])
OTHERS: dict[str, tuple[Any, str]] = {  # functions that make none of these, but have an option: owner, name
    "network.forward": (network, "forward"),
    "network.mirror_response": (network, "mirror_response"),
    "network.Builder.add": (network.Builder, "add"),
    "modifications.noisy_delta_gradients": (modifications, "noisy_delta_gradients"),
}
GIVEN = {"network", "loss", "optimizer", "inverse_optimizer", "algorithm"}  # what a function acts on: no options


class Ignored(NamedTuple):
    """An option that an implementation does not look at."""

    value: Any  # what it computes with in its place: the default, where there is one
    check: str  # the id of the check that fails


def functions() -> Iterator[tuple[str, Callable]]:
    """The functions whose options are judged, by name, as "optimizers.sgd"."""
    for room, module in ROOMS.items():
        for name, function in vars(module).items():
            ours = inspect.isfunction(function) and not name.startswith("_")
            if ours and (module is algorithms or function.__module__ == module.__name__):
                if module is tp and inspect.isfunction(getattr(algorithms, name, None)):
                    continue
                if inspect.signature(function).return_annotation in MADE:
                    yield f"{room}.{name}", function
    for name, (owner, attribute) in OTHERS.items():
        yield name, getattr(owner, attribute)


def options() -> dict[str, Callable]:
    """Every option by its full name, as "optimizers.sgd.momentum", and the function that takes it."""
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = {}
    for name, function in functions():
        for option, parameter in inspect.signature(function).parameters.items():
            plain = parameter.kind not in several and option not in GIVEN
            if plain and (name not in OTHERS or f"{name}.{option}" in IGNORED):
                found[f"{name}.{option}"] = function
    return found


def at(check: str, **values: Any) -> dict[str, Ignored]:
    """Options that one check judges."""
    return {option: Ignored(value, check) for option, value in values.items()}


def of(function: str, *those: Mapping[str, Ignored]) -> dict[str, Ignored]:
    """A function's options under their full names."""
    return {f"{function}.{option}": ignored for some in those for option, ignored in some.items()}


SMALL = "1/backprop/small, "
SGD, COUPLED = SMALL + "sgd, warmed up, Nesterov, decoupled on all/learn/5", SMALL + "sgd, staircase, coupled/learn/5"
NOISY = SMALL + "noisy gradients 0.25 on all/learn/5"
ADAM = SMALL + "adam, warmed up, epsilon-hat, coupled on all/learn/5"
RMSPROP = SMALL + "rmsprop, staircase, decoupled on all/learn/5"
AVERAGES, MAXIMA = "1/backprop/averages/learn/5", "1/backprop/maxima/learn/5"
SIGMOID, SQUARED = SMALL + "sigmoid cross-entropy/init", "1/kolen-pollack/small, squared error/init"
FA, EXACT = "1/feedback-alignment/FC, symmetric output", "1/dfa/branching, exact skips"
DENSE, SS, WM = "1/dense-fa/FC, ", "1/frsf/FC, symmetric output", "weight-mirror/FC, sizes"
DTP, TP = "dtp/chain, dense inverse", "1/tp/FC, noise preserved/parallel/5"
INVERSE, AUXILIARY = "1/sdtp/conv, wider inverse, own neurons/inverse/5", "1/ao-sdtp/FC, sigmoid/parallel/5"
IN, OUT = initializers.fan_in, initializers.fan_out
GLOROT = initializers.glorot_normal


IGNORED: dict[str, Ignored] = {
    **of("algorithms.backprop", at(SIGMOID, initializer=IN),
         at(SMALL + "noise on delta 0.25/learn/5", noise_on_delta=0.0)),
    **of("algorithms.feedback_alignment",
         at(FA + "/init", initializer=IN, feedback_initializer=OUT, symmetric_output=False)),
    **of("algorithms.direct_feedback_alignment", at(EXACT + "/init", initializer=IN, feedback_initializer=OUT),
         at(EXACT + ", generated/learn/5", skips="direct", feedback="stored")),
    **of("algorithms.dense_feedback_alignment", at(DENSE + "generated/learn/5", feedback="stored"),
         at(DENSE + "stored/init", initializer=IN, feedback_initializer=OUT, dense_initializer=OUT)),
    **of("algorithms.sign_symmetry", at(SS + "/init", initializer=IN, feedback_initializer=OUT),
         at(SS + "/learn/5", rule=algorithms.strict_norm, symmetric_output=False)),
    **of("algorithms.kolen_pollack", at(SQUARED, initializer=IN, feedback_initializer=OUT)),
    **of("algorithms.weight_mirror",
         at(f"1/{WM}/mirror/5", eta_B=0.1, lambda_B=0.1, sigma=1.0, bias_blocking=False),
         at(f"1/{WM}/init", initializer=IN, feedback_initializer=OUT, symmetric_output=False),
         at(f"3/modes/{WM}", mirror_per_batch=1, initial_mirroring=0),
         at("1/weight-mirror/norm, together/mirror/5", norm=None),
         at("3/modes/weight-mirror/norm, turns", layers="together")),
    **of("algorithms.dtp", at(f"1/{DTP}/parallel/5", alpha=0.1)),
    **of("target_propagation.target_propagation",
         at(TP, targets=tp.difference_corrected, reconstructed=tp.de_noising),
         at(f"1/{DTP}/parallel/5", alpha=None, noise=0.1, inverse=inverses.mirrored_inverse, over_units="sum"),
         at(f"1/{DTP}/init", initializer=GLOROT, inverse_initializer=GLOROT),
         at(f"3/modes/{DTP}", schedule=tp.parallel)),
    **of("optimizers.sgd", at(SMALL + "sgd without momentum/learn/5", eta=0.05),
         at(SGD, momentum=0.5, nesterov=False, decay=0.0, form="paper", on="weights")),
    **of("optimizers.adam",
         at(ADAM, eta=0.25, b1=0.9, b2=0.999, epsilon=1e-8, epsilon_form="paper", form="paper", on="weights"),
         at(SMALL + "adam, piecewise, on all/learn/5", decay=0.0)),
    **of("optimizers.rmsprop",
         at(RMSPROP, eta=0.25, rho=0.95, momentum=0.9, epsilon=1e-3, form="paper", decay=0.0, on="weights")),
    **of("optimizers.by_layer", at(SMALL + "by layer/learn/5", default=optimizers.sgd(0.25, 0.5), special={})),
    **of("optimizers.piecewise", at(SMALL + "adam, piecewise, on all/learn/5",
                                    values=(0.25, 0.0625, 0.0625), boundaries=(3, 9))),
    **of("optimizers.staircase", at(COUPLED, eta=0.25, factor=0.5, every=5)),
    **of("optimizers.warm_up", at(SGD, eta=0.5, updates=5)),
    **of("modifications.batch_manhattan", at(SMALL + "Batch Manhattan on all/learn/5", on="weights")),
    **of("modifications.noisy_gradients", at(NOISY, strength=1.0, on="weights")),
    **of("modifications.align_to_random", at(SMALL + "alignment 0.25/learn/5", strength=1e-3)),
    **of("modifications.constant_norm", at(SMALL + "constant norm on all/learn/5", on="weights")),
    **of("modifications.fixed_signs", at(SMALL + "signs fixed from 6 on/learn/5", start=7, margin=1e-6)),
    **of("modifications.frozen_units", at(AUXILIARY, l=2, first=5)),
    **of("modifications.noisy_delta_gradients", at(SMALL + "noise on delta 0.25/learn/5", strength=1.0)),
    **of("losses.focal", at(SMALL + "focal/learn/5", gamma=2.0, alpha=0.25)),
    **of("losses.smooth_l1", at(SMALL + "smooth L1/learn/5", beta=1.0)),
    **of("losses.detection", at("1/backprop/cells, detection/learn/5", classes=3, gamma=2.0, alpha=0.25, beta=0.0)),
    **of("losses.with_auxiliary_output", at(AUXILIARY, n=5, activation=local.tanh)),
    **of("local.nonlinearity", at(AVERAGES, function=abs, derivative=lambda y: 1.0 - abs(y))),
    **of("local.batch_norm_with", at(AVERAGES, rate=0.1, epsilon=1e-5)),
    **of("local.dropout", at(AVERAGES, probability=0.5)),
    **of("local.average_pool", at(AVERAGES, kernel=(3, 3), stride=None, padding="valid")),
    **of("local.max_pool", at(MAXIMA, kernel=(2, 2), stride=None, padding="valid")),
    **of("local.bias_from", at("1/backprop/pyramid/init", start=0.0)),
    **of("local.rows", at("1/backprop/pyramid/learn/5", units=None)),
    **of("local.upsample", at("1/backprop/pyramid/learn/5", factor=1)),
    **of("linear.dense", at(EXACT + "/init", n_out=4)),
    **of("linear.conv", at(AVERAGES, channels=4, kernel=3, stride=1, padding="same")),
    **of("linear.shared_conv", at("1/backprop/pyramid/learn/5", channels=5, kernel=1, images=((5, 9), (3, 5)), stride=1,
                                  padding="valid")),
    **of("linear.locally_connected", at(AVERAGES, channels=3, kernel=3, stride=1, padding="same")),
    **of("inverses.wider_inverse", at(INVERSE, kernel=3)),
    **of("inverses.with_neurons", at(INVERSE, form=inverses.mirrored_inverse, nonlinearity="below", bias=True)),
    **of("initializers.gaussian", at(SQUARED, std=lambda linear: 0.1)),
    **of("initializers.naive", at(SQUARED, std=0.1)),
    **of("initializers.bounded", at(SIGMOID, limit=lambda linear: 0.1)),
    **of("initializers.within", at(SIGMOID, limit=0.1)),
    **of("network.forward", at("1/backprop/averages/predict", train=True), at(AVERAGES, key=())),
    **of("network.mirror_response", at(f"1/{WM}/mirror/5", biases=True)),
    **of("network.Builder.add", at(EXACT + "/learn/5", inputs=None),
         at("1/backprop/pyramid/learn/5", concat=None)),
}  # fmt: skip
UNJUDGED = {
    "local.nonlinearity.name": "a word to show; no kernel that goes by it computes a nonlinearity of one's own",
    "optimizers.feedback_in_float32.modes": "whatever moves, its master is exact; the tests of `train` judge which",
}
