"""What options functions take: what each may be, in every algorithm, optimizer, modification, model and loss."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ... import algorithms, initializers, inverses, optimizers, registry
from ...algorithms.sign_symmetry import RULES
from ...registry.names import parameters
from .experiment import Table
from .options import (
    Parser,
    by_layer,
    by_signature,
    drawing,
    flag,
    form_of_inverse,
    in_python_only,
    list_of,
    number,
    own,
    parsed,
    positive,
    share,
    whole,
    word,
)

INITIALIZERS: dict[str, Any] = {
    "fan_in": initializers.fan_in,
    "fan_out": initializers.fan_out,
    "fan_sum": initializers.fan_sum,
    "he_fan_in": initializers.he_fan_in,
    "he_fan_out": initializers.he_fan_out,
    "glorot_normal": initializers.glorot_normal,
    "glorot_uniform": initializers.glorot_uniform,
    "orthogonal": initializers.orthogonal,
    "naive": initializers.naive(),
    "zero": initializers.zero,
}
WORDS: dict[str, dict[str, Any]] = {  # options that are functions, by the names they have in a file, or words
    "initializer": INITIALIZERS,
    "feedback_initializer": INITIALIZERS,
    "inverse_initializer": INITIALIZERS,
    "dense_initializer": INITIALIZERS,
    "rule": {rule.__name__.replace("_", "-"): rule for rule in RULES},
    "inverse": {"mirrored": inverses.mirrored_inverse, "dense": inverses.dense_inverse},
    "schedule": {
        "parallel": algorithms.target_propagation.parallel,
        "in-turn": algorithms.target_propagation.in_turn,
        "alternating": algorithms.alternating,
    },
    "over_units": {"sum": "sum", "mean": "mean"},
    "feedback": {"stored": "stored", "generated": "generated"},
    "skips": {"direct": "direct", "exact": "exact"},
    "layers": {"together": "together", "turns": "turns"},
    "form": {form: form for form in optimizers.DECAY_FORMS},
    "on": {"weights": "weights", "all": "all"},
    "epsilon_form": {"paper": "paper", "hat": "hat"},
}
SHARED = ("noise", "schedule", "inverse", "initializer", "inverse_initializer", "over_units")  # of target propagation
OFTEN = 10**6  # mirror steps for one batch
OPTIONS: dict[str, Parser] = {  # what each option may be, in every algorithm, optimizer, modification, model and loss
    **{name: word(words) for name, words in WORDS.items()},
    **dict.fromkeys(
        ("noise_on_delta", "alpha", "eta_B", "lambda_B", "sigma", "epsilon", "strength", "margin", "gamma", "beta"),
        positive,
    ),
    **dict.fromkeys(("momentum", "rho", "decay", "b1", "b2"), share),
    **dict.fromkeys(("bias_blocking", "symmetric_output", "nesterov", "batch_norm_after_relu"), flag),
    "inverse": form_of_inverse(WORDS["inverse"]),
    **{name: drawing(words) for name, words in WORDS.items() if words is INITIALIZERS},
    "norm": in_python_only,
    "noise": by_layer(positive),
    "mirror_per_batch": number(f"0 to {OFTEN}", lambda value: 0 <= value <= OFTEN),
    "initial_mirroring": whole(0, OFTEN),
    "start": whole(),
    "start_share": number("0 to 1", lambda value: 0 <= value <= 1),
    "in_shape": list_of(whole(1)),
    "classes": whole(1),
    "auxiliary": whole(),
    **dict.fromkeys(("hidden", "channels", "anchors"), whole(1)),
    "width": number("a positive factor below 1e9", lambda value: 0 < value < 1e9),
}


def parameters_of(function: Callable, *but: str) -> dict[str, Any]:
    """A function's parameters and their defaults (Parameter.empty for none), without some."""
    return {name: parameter.default for name, parameter in parameters(function).items() if name not in but}


def options_of(
    what: str,
    function: Callable,
    options: Table,
    given: int = 0,
    more: Mapping[str, Parser] | None = None,
    has: Iterable[str] = (),
) -> dict[str, Any]:
    """A function's options, with functions in the place of their names. given: parameters before them; more: parsers;
    has: options that have a value. Raises ExperimentError."""
    names = list(parameters(function))
    if own(function):
        return by_signature(what, function, options, OPTIONS, names[:given], has, more)
    return parsed(what, names[given:], options, OPTIONS | dict(more or {}))


def algorithm_parameters(row: registry.Row) -> dict[str, Any]:
    """The options that a row's algorithm takes, and their defaults."""
    given = ("network", "loss", "optimizer", "inverse_optimizer", "options")
    own = parameters_of(row.make, *given)
    if "options" in parameters_of(row.make):
        shared = parameters_of(algorithms.target_propagation.target_propagation, *given)
        own |= {name: default for name, default in shared.items() if name in SHARED}
    return own


def resolve_options(row: registry.Row, options: Table) -> dict[str, Any]:
    """An algorithm's options, with functions in the place of their names. Raises ExperimentError."""
    if own(row.make):
        given = [*list(parameters(row.make))[:3], "inverse_optimizer"]
        return by_signature(f'algorithm "{row.name}"', row.make, options, OPTIONS, given, row.options)
    return parsed(f'algorithm "{row.name}"', algorithm_parameters(row), options, OPTIONS)
