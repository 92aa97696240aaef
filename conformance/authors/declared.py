"""What a row declares of its rule, tested by changing what must not matter: a function for each declaration."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ref_bioplaus.conformance.authors.table import Table
from ref_bioplaus.conformance.authors.trials import NotJudged, Trial, departure, given_error, layer_of, says
from ref_bioplaus.conformance.judging.rounding import Rounded
from ref_bioplaus.network import forward
from ref_bioplaus.random import normal
from ref_bioplaus.registry.rows import BACKPROP
from ref_bioplaus.tree import leaves, named_leaves, tree_map, unflatten
from ref_bioplaus.types import Pathway, State

FEW = 2  # samples, so that other weights can leave the forward pass as it is
LARGEST = 2000  # outputs of a layer for which other weights are looked for
LEFT = 0.05  # of a random change of W: what is smaller is taken for rounding
EPSILON = 2.0**-53
DIGITS = 2.0**20  # errors are multiples of one over it, so that sums of them are exact
PARTS = (1.0, -1.5)  # how much of two errors is summed


def forward_moves(moves: dict[str, Rounded]) -> dict[str, Rounded]:
    """Those of the forward path."""
    return {name: m for name, m in moves.items() if name[0] != "B" and "feedback" not in name}


def turned(state: State, place: str) -> State:
    """The state with -1.5 times one array of the feedback path's parameters."""
    held = [-1.5 * a if name == place else a for name, a in named_leaves(state.feedback.params)]
    return with_feedback(state, unflatten(state.feedback.params, held))


def with_feedback(state: State, params: Any) -> State:
    """The state with other parameters in the feedback path."""
    return state._replace(feedback=state.feedback._replace(params=params))


def stays(table: Table) -> str:
    """B stays."""
    trial, backend = table.laws, table.numpy.backend
    for mode in table.single.modes:
        given = table.given(mode)
        if not leaves(given[0].feedback.params):
            return "the state holds no feedback weights"
        start, batch = table.prepared(backend, mode, "eager").inputs(*given)
        new, _ = table.prepared(backend, mode, "eager").run(start, batch)
        after = dict(named_leaves(new.feedback.params))
        for place, before in named_leaves(start.feedback.params):
            if not np.array_equal(before, after[place]):
                moved = float(np.max(np.abs(after[place] - before)))
                return f"mode {mode} changes feedback.params/{place} by up to {moved:.3g}"
    for mode in trial.teaching:
        state, x, y = given = trial.decidable(mode)
        plain = trial.moved(mode, given).moves
        for place, held in named_leaves(state.feedback.params):
            if held.dtype.kind == "f" and not departure(trial.moved(mode, (turned(state, place), x, y)).moves, plain):
                return f"mode {mode}: -1.5 times feedback.params/{place} changes no update: B is not taken from there"
        if not trial.drops:
            later = state._replace(t=state.t + 5, key=state.key + 3)
            first = departure(trial.moved(mode, (later, x, y)).moves, plain)
            if first is not None:
                return f"mode {mode}, the same state at another t and key: {says(first)}: B is not the state's alone"
    return ""


def layout(table: Table) -> str:
    """B has W's layout."""
    state = table.laws.start(0)
    for l in table.laws.net.feedback_layers:
        try:
            shape = tuple(state.feedback.params[l].W.shape)
        except (LookupError, AttributeError, TypeError):
            shape = None
        if shape != state.forward.params[l].W.shape:
            return f"B of layer {l} has shape {shape}, W has {state.forward.params[l].W.shape}"
    return ""


def keeps_none(table: Table) -> str:
    """Keeps no feedback weights."""
    found = [name for name, _ in named_leaves(table.laws.start(0).feedback)]
    return f"the state holds feedback/{found[0]}" if found else ""


def moves_alike(table: Table) -> str:
    """B moves as W does."""
    for mode in table.laws.teaching:
        moves = table.laws.moved(mode).moves
        first = departure(moves, {f"B of layer {l}": moves[f"W of layer {l}"] for l in table.laws.net.feedback_layers})
        if first is not None:
            return f"mode {mode}: {says(first, wanted='as much as W would be')}"
    return ""


def no_transport(table: Table) -> str:
    """Hidden errors do not read W above them."""
    trial, asked = table.laws, 0
    for mode in trial.teaching:
        state, x, y = given = trial.decidable(mode, FEW)
        plain = forward_moves(trial.moved(mode, given).moves)
        for l in trial.net.feedback_layers:
            other = unseen_change(trial, state, x, l)
            if other is None:
                continue
            asked += 1
            moves = forward_moves(trial.moved(mode, (other[0], x, y), variances=other[1]).moves)
            first = departure(moves, {name: m for name, m in plain.items() if layer_of(name) < l})
            if first is not None:
                return f"mode {mode}, another W of layer {l} that leaves its output as it is: {says(first)}"
    if not asked:
        raise NotJudged("no other W was found that leaves the forward pass as it is")
    return ""


def unseen_change(trial: Trial, state: State, x: np.ndarray, l: int) -> tuple[State, State] | None:
    """The state with another W_l that makes the same of this batch, and the variances of what rounding leaves; None
    where there is none, and where looking for it takes too long.

    What is added to W_l is a random change R without its part that is seen: R - A^T (A A^T)^-1 A R, A = apply(., x_l).
    """
    network, params = trial.network(), state.forward.params
    trace, _ = forward(network, params, state.stats, x, (state.key, "step", state.t))
    linear, x_l = network[l].linear, trace.x[l]
    count = x_l.shape[0] * int(np.prod(linear.out_shape))
    if count > LARGEST:
        return None
    gram = np.stack([
        linear.apply(linear.correlate(x_l, unit.reshape(x_l.shape[0], *linear.out_shape)), x_l).ravel()
        for unit in np.eye(count)
    ])  # fmt: skip
    W = params[l].W
    first = change = linear.existing(normal((state.key, "another W", l), W.shape, np.float64)) * np.std(W)
    for _ in range(2):  # the second time for what rounding left
        seen = np.linalg.lstsq(gram, linear.apply(change, x_l).ravel(), rcond=1e-9)[0]
        change = change - linear.correlate(x_l, seen.reshape(x_l.shape[0], *linear.out_shape))
    if np.linalg.norm(change) < LEFT * np.linalg.norm(first):
        return None
    left = np.max(np.abs(linear.apply(change, x_l))) ** 2 / linear.fan_in / np.mean(x_l * x_l)
    none = tree_map(np.zeros_like, state)
    return with_W(state, l, W + change), with_W(none, l, left + (EPSILON * (W + change)) ** 2)


def with_W(state: State, l: int, W: np.ndarray) -> State:
    """The state with another W_l."""
    params = tuple(p._replace(W=W) if k == l else p for k, p in enumerate(state.forward.params))
    return state._replace(forward=state.forward._replace(params=params))


def backprop_when_symmetric(table: Table) -> str:
    """Equals BP when B = W."""
    trial = table.laws
    problem = layout(table)
    if problem:
        return problem
    layers = trial.net.feedback_layers
    for mode in trial.teaching:
        state, x, y = trial.decidable(mode)
        forward_params = state.forward.params
        symmetric = with_feedback(
            state,
            tuple(p._replace(W=forward_params[l].W) if l in layers else p for l, p in enumerate(state.feedback.params)),
        )
        reference = forward_moves(backprop_moves(trial, state, x, y))
        first = departure(forward_moves(trial.moved(mode, (symmetric, x, y)).moves), reference)
        if first is not None:
            return f"mode {mode}, B = W: {says(first, wanted='backpropagation by')}"
        own = forward_moves(trial.moved(mode, (state, x, y)).moves)
        if layers and departure(own, reference) is None:
            return f"mode {mode}: with its own B the update is backpropagation's, too: W stands in place of B"
    return ""


def backprop_moves(trial: Trial, state: State, x: np.ndarray, y: np.ndarray) -> dict[str, Rounded]:
    """What backpropagation moves from the same forward path."""
    plain = state._replace(feedback=Pathway(()))
    return trial.of(BACKPROP).moved("learn", (plain, x, y)).moves


def errors(trial: Trial, seed: int) -> np.ndarray:
    """Errors at the output, (6, *out_shape), of which sums are exact."""
    shape = (6, *trial.batch(0)[1].shape[1:])
    return np.rint(DIGITS * normal((trial.start(0).key, "error", seed), shape, np.float64)) / DIGITS


def linear(table: Table) -> str:
    """Linear in the error."""
    trial, (a, b) = table.trial.laws(given_error()), PARTS
    for mode in table.laws.teaching:
        state, x, _ = table.laws.decidable(mode)
        e = [errors(trial, seed) for seed in (1, 2)]
        both = forward_moves(trial.moved(mode, (state, x, a * e[0] + b * e[1])).moves)
        one, two = (forward_moves(trial.moved(mode, (state, x, error)).moves) for error in e)
        sums = {n: Rounded(m.space, a * m.v + b * two[n].v, a * a * m.s + b * b * two[n].s) for n, m in one.items()}
        first = departure(both, sums)
        if first is not None:
            return f"mode {mode}, an error e + {b:g} f: {says(first, wanted=f'by e and {b:g} times by f')}"
    return ""


def two_losses(table: Table) -> str:
    """The same for two losses."""
    other = given_error(
        value=lambda u, y: 3.0 * (u * u * y)[..., 0] + 1.0, output=lambda u: 0.5 * u + 1.0, target=lambda h, y: 0.3 * h
    )
    for mode in table.laws.teaching:
        state, x, _ = table.laws.decidable(mode)
        given = state, x, errors(table.laws, 1)
        one, two = (table.trial.laws(loss).moved(mode, given).moves for loss in (given_error(), other))
        first = departure(two, one)
        if first is not None:
            return f"mode {mode}, another loss of the same gradient: {says(first)}"
    return ""


def other_targets(trial: Trial, mode: str) -> tuple[dict[str, Rounded], dict[str, Rounded]]:
    """The moves of a step, and those with the targets of other samples."""
    state, x, y = given = trial.decidable(mode)
    other = np.roll(y, 1, axis=-1)
    return trial.moved(mode, given).moves, trial.moved(mode, (state, x, other)).moves


def no_global_error(table: Table) -> str:
    """Needs no global error."""
    L = table.laws.net.weighted[-1]
    for mode in table.laws.modes:
        one, two = other_targets(table.laws, mode)
        first = departure(two, {name: m for name, m in one.items() if layer_of(name) < L})
        if first is not None:
            return f"mode {mode}, other targets: {says(first)}"
    return ""


def without_targets(table: Table) -> str:
    """B learns without targets."""
    modes = [mode for mode in table.laws.modes if mode not in table.laws.teaching]
    if not modes:
        return "every mode moves the forward weights"
    for mode in modes:
        one, two = other_targets(table.laws, mode)
        first = departure(two, one)
        if first is not None:
            return f"mode {mode}, other targets: {says(first)}"
    return ""


TESTS: dict[str, Callable[[Table], str]] = {
    "B stays": stays,
    "B has W's layout": layout,
    "keeps no feedback weights": keeps_none,
    "B moves as W does": moves_alike,
    "hidden errors do not read W above them": no_transport,
    "equals BP when B = W": backprop_when_symmetric,
    "linear in the error": linear,
    "the same for two losses": two_losses,
    "needs no global error": no_global_error,
    "B learns without targets": without_targets,
}  # "moves without an error" is tested where all rules are asked not to
