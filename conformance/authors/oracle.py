"""An author's oracle: one step as the paper has it, in plain NumPy, against what every library makes of the rule."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ref_bioplaus.backends import Backend
from ref_bioplaus.conformance.authors.table import IN_FULL, Table
from ref_bioplaus.conformance.authors.trials import ETA, NotJudged, says, told
from ref_bioplaus.conformance.files.draws import drawn
from ref_bioplaus.conformance.judging import judge
from ref_bioplaus.conformance.judging.judge import expect
from ref_bioplaus.conformance.judging.rounding import Rounded
from ref_bioplaus.tree import named_leaves
from ref_bioplaus.types import State

SIZES = (6, 1)
WINDOWED = ("local", "conv", "residual")


class Given(NamedTuple):
    """What an oracle is given: NumPy arrays in float64, by layer as the papers number them, the output is layer L."""

    x: np.ndarray  # inputs (N, *in_shape)
    y: np.ndarray  # targets (N, *out_shape)
    W: Mapping[int, np.ndarray]  # forward weights, (n_out, n_in) of a dense layer
    b: Mapping[int, np.ndarray]  # biases
    B: Mapping[int, np.ndarray]  # feedback weights as the state holds them: in the layout of W_l for most rules
    L: int
    mode: str  # the step that is asked for, "learn" for most rules
    random: Mapping[str, np.ndarray]  # numbers that the step draws, as "dropout/1/2" or "mirror/2"
    state: State  # everything else


Oracle = Callable[[Given], Mapping[str, Any]]
RETURNS = {
    "h": "outputs {l: (N, *out_shape_l)}",
    "loss": "(N,)",
    "output": "(N, *out_shape)",
    "delta": "errors at the pre-activations {l: (N, *out_shape_l)}",
    "dW": "gradients {l: like W_l}: W_l becomes W_l - dW_l",
    "db": "gradients {l: like b_l}: b_l becomes b_l - db_l",
    "dB": "gradients {l: like B_l}: B_l becomes B_l - dB_l",
    "W": "new weights {l: like W_l}",
    "b": "new biases {l: like b_l}",
    "B": "new feedback weights {l: like B_l}",
}  # what an oracle may return, in a dict; one of dW and W at least


class OracleError(ValueError):
    """An oracle that returns what it must not; the message is one sentence."""


def agrees(oracle: Oracle) -> Callable[[Table], str]:
    """Every library computes what the oracle says, of every mode that it knows, from six samples and from one.

    It is asked on chains of dense layers, and on an author's own network.
    """

    def ask(table: Table) -> str:
        if table.trial.name in WINDOWED:
            raise NotJudged("asked on dense networks, and on your own")
        trial, asked = table.laws._replace(dtype="float32"), 0
        own = Table(trial, table.libraries)
        for mode in trial.modes:
            for n in SIZES:
                try:
                    answers = answered(oracle, own, mode, n)
                except OracleError as error:
                    return f"mode {mode}: {error}"
                asked += bool(answers)
                for name, library in table.libraries.items() if answers else ():
                    if n == 1 and library.backend.compiles and trial.name not in IN_FULL:
                        continue
                    problem = departs(own, library.backend, mode, n, answers)
                    if problem:
                        return f"on {name}, mode {mode}, {n} sample{'s' if n > 1 else ''}: {problem}"
        if not asked:
            raise NotJudged("the oracle returns nothing for any mode")
        return ""

    return ask


def answered(oracle: Oracle, table: Table, mode: str, n: int) -> dict[str, np.ndarray]:
    """The oracle's tensors under the names that the suite gives them. Raises OracleError."""
    state, x, y = table.given(mode, n)
    answers = oracle(given(table, mode, state, x, y))
    if not isinstance(answers, Mapping):
        raise OracleError(
            f"the oracle returns a {type(answers).__name__}, expected a dict with some of {', '.join(RETURNS)}"
        )
    unknown = [name for name in answers if name not in RETURNS]
    if unknown:
        raise OracleError(f'the oracle returns "{unknown[0]}", expected some of {", ".join(RETURNS)}')
    if answers and not {"dW", "W"} & answers.keys():
        raise OracleError("the oracle returns neither dW nor W, by which an update is judged")
    found: dict[str, np.ndarray] = {}
    for name, values in answers.items():
        if name in ("loss", "output"):
            found[f"info/{name}"] = np.asarray(values)
            continue
        for l, value in values.items():
            for place, old in places(table, name, l, state):
                value = np.asarray(value, np.float64)
                found[place] = old - ETA * value if old is not None and old.shape == value.shape else value
    return found


def given(table: Table, mode: str, state: State, x: np.ndarray, y: np.ndarray) -> Given:
    """What the oracle is given."""
    forward, feedback = state.forward.params, state.feedback.params
    numbers, _ = drawn(table.trial._replace(dtype="float64"), mode, state, x, y)
    return Given(
        x,
        y,
        {l: p.W for l, p in enumerate(forward) if p.W is not None},
        {l: op["b"] for l, p in enumerate(forward) for op in p.local if "b" in op},
        feedback_weights(feedback),
        table.trial.net.L,
        mode,
        {draw.name.removeprefix("random/"): draw.numbers for draw in numbers},
        state,
    )


def feedback_weights(params: Any) -> dict[Any, np.ndarray]:
    """{l: B_l} of a feedback path: of layers' tuples with W or B, or of arrays, one behind the other or by layer."""
    found = params.items() if isinstance(params, dict) else enumerate(params)
    weights = {l: p if hasattr(p, "shape") else getattr(p, "W", getattr(p, "B", None)) for l, p in found}
    return {l: B for l, B in weights.items() if B is not None}


def places(table: Table, name: str, l: int, state: State) -> list[tuple[str, np.ndarray | None]]:
    """The tensors that an answer is judged by: names, and what it is subtracted from to give a new parameter."""
    if name in ("h", "delta"):
        return [(f"info/{name}/{l}", None)]
    path = "feedback" if name in ("dB", "B") else "forward"
    held = dict(named_leaves(getattr(state, path).params))
    ends = [f"local/{i}/b" for i in range(9)] if name in ("db", "b") else ["W", "B", ""]
    there = (f"{l}/{end}".rstrip("/") for end in ends)
    place = next((place for place in there if place in held), None)
    if place is None:
        raise OracleError(f"the oracle returns {name} of layer {l}, of which the state has none")
    new, old = f"state/{path}/params/{place}", held[place]
    if name[0] != "d":
        return [(new, None)]
    return [(f"info/{'grads' if path == 'forward' else 'feedback_grads'}/{place}", None), (new, old)]


def departs(table: Table, backend: Backend, mode: str, n: int, answers: dict[str, np.ndarray]) -> str:
    """A sentence on the first tensor of a library that is not the oracle's, to within the errors that both may have."""
    tensors, expected = table.computed(backend, mode, "compiled", n)
    exact = expect(table.trial._replace(dtype="float64"), mode, *table.given(mode, n)).tensors
    scores = []
    for name, rule in expected.tensors.items():
        if name not in answers or name not in tensors:
            continue
        answer, s = answers[name], rule.s + exact[name].s  # the library's error and the oracle's own
        aim = Rounded(rule.space, answer, s if answer.shape == rule.shape else None)
        scores.append(judge.score(told(name), aim, backend.to_numpy(tensors[name]), expected.tiny))
    missing = [name for name in answers if name.startswith("state/") and name not in tensors]
    if missing:
        return f"the state has no {told(missing[0])}"
    first = judge.first_departure(scores)
    if first is None:
        return ""
    return f"{says(first, 'is', 'by the oracle')}, score {first.score:.3g}"
