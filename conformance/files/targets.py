"""Target propagation's targets, and the gradients of every feedback path that learns, as cases of level 0.

Both are given what a step has computed before them (outputs, errors, noise), so that a mistake is found where it is.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from array_api_compat import array_namespace

from ref_bioplaus import algorithms, losses
from ref_bioplaus.algorithms import target_propagation as tp
from ref_bioplaus.conformance.cases.cases import Case, root, step_cases
from ref_bioplaus.conformance.cases.networks import CLASSES
from ref_bioplaus.conformance.files import description
from ref_bioplaus.conformance.files.parts import Part, of
from ref_bioplaus.conformance.files.vectors import Vector, scheduled
from ref_bioplaus.credit import batch_mean, mean_correlation
from ref_bioplaus.inverses import mirrored_inverse
from ref_bioplaus.network import Layer, Network, layer_backward, layer_forward, mirror_response
from ref_bioplaus.registry import task_loss
from ref_bioplaus.tree import named_leaves, unflatten
from ref_bioplaus.types import Array, LayerParams, State, Tree

Arrays = Mapping[str, Any]
FORWARD, FEEDBACK = "state/forward/params", "state/feedback/params"


def targets(case: Case) -> Part:
    """The target that is known -> what the inverses make of outputs and targets, and every target below."""
    network, plain = case.network(), case.chosen().make is algorithms.tp
    rule = tp.propagated if plain else tp.difference_corrected

    def places():
        ends = inverses(case)
        top = max(ends.values())
        return ends, top, {k: f"info/h/{k}" if k < network.L else "info/output" for k in range(1, top + 1)}

    def given(seed):
        found, (_, top, names) = known(case, "parallel", seed), places()
        outputs: Arrays = {} if plain else {name: found[name] for name in names.values()}
        return {**outputs, **matching(found, f"info/targets/{top}$", FEEDBACK)}

    def compute(arrays, wanted):
        here, (ends, top, names) = case._replace(dtype=wanted).network(), places()
        lam, found = taken(first(case).feedback.params, FEEDBACK, arrays), {}
        h = [arrays.get(names.get(k)) for k in range(len(here))]

        def g(l, at):
            name = f"inverse/of_{'h' if at is h[ends[l]] else 'target'}/{l}"
            found[name] = inverted(here, l, lam[l], at)[0]
            return found[name]

        hhat = rule(ends, h, {top: arrays[f"info/targets/{top}"]}, g)
        return found | {f"info/targets/{l}": hhat[l] for l in sorted(hhat, reverse=True) if l < top}

    return part("targets", case, "parallel", "the targets below the one that is known", given, compute)


def learned_inverses(case: Case, mode: str) -> Part:
    """Outputs and noise -> the gradients of target propagation's inverses."""
    loss, noise = task_loss(case.chosen(), losses.cross_entropy(), CLASSES), description.options(case)["noise"]
    reconstructed = tp.noise_preserving if case.chosen().make is algorithms.dtp else tp.de_noising

    def given(seed):
        below = "|".join(str(l - 1) for l in inverses(case))
        return matching(known(case, mode, seed), f"info/h/({below})$", "random/corruption", FORWARD, FEEDBACK)

    def compute(arrays, wanted):
        here, like, ends = case._replace(dtype=wanted).network(), first(case), inverses(case)
        params, lam = (taken(like.forward.params, FORWARD, arrays), taken(like.feedback.params, FEEDBACK, arrays))
        ways: dict[str, Array] = {}
        grads: dict[str, Array] = {}
        for l in reversed(ends):
            h = arrays[f"info/h/{l - 1}"]
            above = htilde = h + noise * arrays[f"random/corruption/{l}"]
            for k in range(l, ends[l] + 1):
                above, _, _ = layer_forward(here[k], params[k], like.stats[k], above)
            above = loss.output(above) if l == here.L else above
            rebuilt, arriving, cache, layer = inverted(here, l, lam[l], above)
            error = 2.0 * (rebuilt - reconstructed(h, htilde))
            error = array_namespace(error).reshape(error, (error.shape[0], *layer.out_shape))
            delta, local = layer_backward(layer, lam[l], cache, error)
            ways |= {f"inverse/corrupted/{l}": htilde, f"inverse/response/{l}": above,
                     f"inverse/rebuilt/{l}": rebuilt, f"inverse/delta/{l}": delta}  # fmt: skip
            learned = LayerParams(mean_correlation(layer.linear, arriving, delta), batch_mean(delta.shape[0], local))
            grads |= named_leaves(learned, f"info/feedback_grads/{l}")
        return ways | grads

    return part("feedback_grads", case, mode, "how the inverses learn", given, compute)


def shared_product(case: Case, mode: str) -> Part:
    """Outputs and errors -> the gradients of B, which are those of W (Kolen-Pollack)."""
    network = case.network()
    arriving = {l: network[l].inputs for l in network.feedback_layers}
    needed = "|".join(str(k) for k in sorted({k for inputs in arriving.values() for k in inputs}))

    def given(seed):
        deltas = [f"info/delta/{l}$" for l in arriving]
        return matching(known(case, mode, seed), f"info/h/({needed})$", *deltas)

    def compute(arrays, wanted):
        here, found = case._replace(dtype=wanted).network(), {}
        for l, inputs in arriving.items():
            x = sum((arrays[f"info/h/{k}"] for k in inputs[1:]), start=arrays[f"info/h/{inputs[0]}"])
            found[f"info/feedback_grads/{l}/W"] = mean_correlation(here[l].linear, x, arrays[f"info/delta/{l}"])
        return found

    return part("feedback_grads", case, mode, "how B learns from what W learns from", given, compute)


def mirrored(case: Case, mode: str) -> Part:
    """Noise -> the responses of mirror mode and what B learns from them (the weight mirror)."""
    network, options = case.network(), description.options(case)
    layers = [l for l in network.feedback_layers if mode in ("mirror", f"mirror_{l}")]

    def given(seed):
        return matching(known(case, mode, seed), "random/mirror", *(f"{FORWARD}/{l}/" for l in layers))

    def compute(arrays, wanted):
        here, ways, grads = case._replace(dtype=wanted).network(), {}, {}
        for l in layers:
            params, linear = taken(first(case).forward.params[l], f"{FORWARD}/{l}", arrays), here[l].linear
            y = options["sigma"] * arrays[f"random/mirror/{l}"]
            ways[f"mirror/response/{l}"] = mirror_response(here[l], params, y, not options["bias_blocking"])
            sums = linear.position_mean(linear.correlate(y, ways[f"mirror/response/{l}"]))
            grads[f"info/feedback_grads/{l}/W"] = sums / y.shape[0]
        return ways | grads

    return part("feedback_grads", case, mode, "how B learns from noise", given, compute)


def part(
    kind: str, case: Case, mode: str, what: str, given: Callable[[int], Arrays],
    compute: Callable[[Arrays, Any], dict[str, Array]],
) -> Part:  # fmt: skip
    """A part of a case's step, from the same seed as that."""
    chosen = case.chosen()
    said = {"case": case.id, **description.of_case(case), "mode": mode, "batch": 6}
    name = case.id if kind == "targets" else f"{case.id}/{mode}"
    reason = f"{chosen.label} ({chosen.paper}, {chosen.equations}): {what}."
    return Part(
        kind, name, case.dtype, reason, given, compute, of(case), said, case, lambda: Vector(case, mode, 6).seed
    )


@cache
def first(case: Case) -> State:
    """A first state: the tree that a case's states have."""
    return case.build().init(root(0))


def inverses(case: Case) -> dict[int, int]:
    """Where the output of every layer with an inverse is, downwards."""
    network, V = case.network(), first(case).feedback.params
    return {l: network.output_of(l) for l in reversed(range(len(network))) if V[l].W is not None}


def inverted(network: Network, l: int, params: LayerParams, h: Array) -> tuple[Array, Array, Any, Layer]:
    """g(h_l), h as it arrives there, what the backward pass needs, and the layer."""
    layer = mirrored_inverse(network, l)
    h = array_namespace(h).reshape(h, (h.shape[0], *layer.in_shape))
    u, _, cache = layer_forward(layer, params, ((),) * len(layer.local), h)
    return array_namespace(u).reshape(u, (h.shape[0], *network[l].in_shape)), h, cache, layer


def taken(like: Tree, prefix: str, arrays: Arrays) -> Any:
    """Parameters from arrays by their names."""
    return unflatten(like, [arrays[name] for name, _ in named_leaves(like, prefix)])


def known(case: Case, mode: str, seed: int) -> Arrays:
    """What a step of six samples is given and computes on its way, by name."""
    vector = Vector(case, mode, 6, seed)
    given = dict(named_leaves(vector.start[0], "state")) | {draw.name: draw.numbers for draw in vector.draws[0]}
    return {name: array for name, array in vector.reference().items() if name.startswith("info")} | given


def matching(arrays: Arrays, *patterns: str) -> Arrays:
    """Those whose names begin with one of some patterns."""
    return {name: array for name, array in arrays.items() if re.match("|".join(patterns), name)}


def parts(dtype: str) -> Iterator[Part]:
    """Of every case with a feedback path that learns, on all of its networks."""
    for case in step_cases(dtype):
        row, modes = case.chosen(), scheduled(case)
        if case.id.count("/") > 1:  # another optimizer
            continue
        if row.inverses and "parallel" in modes:
            yield targets(case)
            yield learned_inverses(case, "parallel")
        elif row.module == "kolen_pollack":
            yield shared_product(case, "learn")
        elif row.module == "weight_mirror":
            yield from (mirrored(case, mode) for mode in modes if mode.startswith("mirror"))
