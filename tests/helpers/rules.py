"""Feedback alignment as an author would write it outside of the package, an oracle of it, and wrong versions of it."""

from typing import NamedTuple

import numpy as np
from array_api_compat import array_namespace

from ref_bioplaus.credit import backward
from ref_bioplaus.initializers import fan_in, fan_out, feedback_params, new_state
from ref_bioplaus.network import forward
from ref_bioplaus.random import normal
from ref_bioplaus.tree import tree_map
from ref_bioplaus.types import Algorithm, Info, Pathway

DECLARES = (
    "B stays", "B has W's layout", "hidden errors do not read W above them", "equals BP when B = W",
    "linear in the error", "the same for two losses",
)  # fmt: skip


def oracle(given):
    """Feedback alignment on layers of tanh under softmax and cross-entropy, from the paper."""
    h, N = {0: given.x}, len(given.x)
    for l in range(1, given.L + 1):
        u = h[l - 1] @ given.W[l].T + given.b[l]
        h[l] = np.tanh(u) if l < given.L else u
    e = np.exp(h[given.L] - np.max(h[given.L], axis=1, keepdims=True))
    delta = {given.L: e / np.sum(e, axis=1, keepdims=True) - given.y}
    for l in range(given.L - 1, 0, -1):
        delta[l] = (delta[l + 1] @ given.B[l + 1]) * (1 - h[l] ** 2)
    dW = {l: delta[l].T @ h[l - 1] / N for l in delta}
    db = {l: np.mean(delta[l], axis=0) for l in delta}
    return {"h": h, "delta": delta, "dW": dW, "db": db, "B": given.B}


class Parts(NamedTuple):
    """Where a version may differ. Everything is as in the paper unless given."""

    B: object = None  # (network, state, l) -> the feedback weights of layer l
    delivered: object = None  # (error that arrives, network, state, l, delta) -> what layer l delivers
    error: object = None  # (error at the output, u, y, loss) -> error
    trace: object = None  # (network, trace) -> trace that the walk back uses
    grads: object = None  # (grads, state, batch, loss values) -> grads
    params: object = None  # (new params, old params, state) -> params
    feedback: object = None  # (feedback params, state, grads) -> feedback params
    state: object = None  # (new state, old state) -> state


def version(name, **parts):
    """A rule: feedback alignment with some parts of its own."""
    parts = Parts(**parts)

    def rule(network, loss, optimizer, initializer=fan_in):
        def init(key):
            return new_state(
                network, key, optimizer, initializer, Pathway(feedback_params(network, (key, "B"), fan_out))
            )

        def learn(state, batch):
            params, B = state.forward.params, state.feedback.params
            trace, stats = forward(network, params, state.stats, batch.x, (state.key, "step", state.t))
            u = trace.h[-1]

            def feedback(l, delta):
                weights = parts.B(network, state, l) if parts.B else B[l].W
                arriving = network[l].linear.transport(weights, delta[l])
                return parts.delivered(arriving, network, state, l, delta) if parts.delivered else arriving

            error, values = loss.gradient(u, batch.y), loss.value(u, batch.y)
            error = parts.error(error, u, batch.y, loss) if parts.error else error
            walked = parts.trace(network, trace) if parts.trace else trace
            delta, grads = backward(network, params, walked, error, feedback)
            grads = parts.grads(grads, state, batch, values) if parts.grads else grads
            new, memory = optimizer.update(grads, state.forward.memory, params, network.kernels)
            new = parts.params(new, params, state) if parts.params else new
            B = parts.feedback(B, state, grads) if parts.feedback else B
            info = Info(values, loss.output(u), trace.h, delta, grads=grads)
            after = state._replace(t=state.t + 1, forward=Pathway(new, memory), feedback=Pathway(B), stats=stats)
            return (parts.state(after, state) if parts.state else after), info

        return Algorithm(init, {"learn": learn})

    rule.__name__ = name
    return rule


right = version("right")


def by_hand(network, loss, optimizer):
    """Feedback alignment on layers of tanh, with operators alone: forward and backward pass are the author's own."""
    if any(not layer.linear or len(layer.in_shape) != 1 or len(layer.out_shape) != 1 for layer in network.layers[1:]):
        raise ValueError("expected dense layers of tanh")
    L = network.L

    def init(key):
        state = new_state(network, key, optimizer)
        dtype = state.forward.params[1].W.dtype
        B = {l: normal((key, "B", l), network[l].linear.weight_shape, dtype, network.kernels) for l in range(2, L + 1)}
        return state._replace(feedback=Pathway(B))

    def learn(state, batch):
        params, B, xp = state.forward.params, state.feedback.params, array_namespace(batch.x)
        h, N = [batch.x], batch.x.shape[0]
        for l in range(1, L + 1):
            u = h[-1] @ params[l].W.T + params[l].local[0]["b"]
            h.append(xp.tanh(u) if l < L else u)
        delta = {L: loss.gradient(u, batch.y)}
        for l in range(L - 1, 0, -1):
            delta[l] = (delta[l + 1] @ B[l + 1]) * (1 - h[l] ** 2)
        grads = [params[0]] + [
            params[l]._replace(
                W=delta[l].T @ h[l - 1] / N, local=({"b": xp.mean(delta[l], axis=0)}, *params[l].local[1:])
            )
            for l in range(1, L + 1)
        ]
        new, memory = optimizer.update(tuple(grads), state.forward.memory, params, network.kernels)
        return state._replace(t=state.t + 1, forward=Pathway(new, memory)), Info(loss.value(u, batch.y))

    return Algorithm(init, {"learn": learn})


# What is wrong


def redrawn(network, state, l):
    """B of this step alone."""
    return fan_out(network[l].linear, (state.key, "B", state.t, l), state.forward.params[l].W.dtype, network.kernels)


def of_another_layer(network, state, l):
    """B of the next layer of that shape."""
    B = {k: state.feedback.params[k].W for k in network.feedback_layers}
    alike = [k for k in B if B[k].shape == B[l].shape]
    return B[alike[(alike.index(l) + 1) % len(alike)]]


def without_slope(network, trace):
    """tanh has slope 1 where its output is 0."""
    cache = [tuple(a if isinstance(a, tuple) else array_namespace(a).zeros_like(a) for a in c) for c in trace.cache]
    return trace._replace(cache=tuple(cache))


def half(arriving, network, state, l, delta):
    return 0.5 * arriving


def scaled(grads, factor):
    return tree_map(lambda g: g * factor, grads)


def only(grads, layers, factor=0.0):
    """The gradients of some layers times a factor."""
    return tuple(scaled(g, factor) if l in layers else g for l, g in enumerate(grads))


def transposed_where_square(network, state, l):
    B = state.feedback.params[l].W
    return array_namespace(B).matrix_transpose(B) if B.shape[0] == B.shape[1] else B


def own_W_on_top(network, state, l):
    path = state.forward if l == network.L else state.feedback
    return path.params[l].W


def a_little_of_W(network, state, l):
    return state.feedback.params[l].W + 0.2 * state.forward.params[l].W


def biases_that_stay(grads, state, batch, values):
    return tuple(g._replace(local=scaled(g.local, 0.0)) for g in grads)


def normalised(error, u, y, loss):
    xp = array_namespace(u)
    return error / xp.sqrt(xp.sum(error * error))


def by_the_loss(grads, state, batch, values):
    return scaled(grads, array_namespace(values).mean(values))


def squares(error, u, y, loss):
    return 3.0 * error * array_namespace(u).abs(error)


def first_sample_counts_twice(error, u, y, loss):
    xp = array_namespace(u)
    return xp.concat([2.0 * error[:1, ...], error[1:, ...]], axis=0)


def fading(B, state, grads):
    return tuple(p if p.W is None else p._replace(W=0.99 * p.W) for p in B)


def learning_B(B, state, grads):
    return tuple(p if p.W is None else p._replace(W=p.W - 0.05 * g.W) for p, g in zip(B, grads, strict=True))


def shaken(new, old, state):
    def at(l, W):
        return W + 1e-3 * normal((state.key, "shake", state.t, l), W.shape, W.dtype)

    return tuple(p if p.W is None else p._replace(W=at(l, p.W)) for l, p in enumerate(new))


def counting(name="counts_outside"):
    """A rate that falls with the number of calls, which the state does not hold."""

    def make(network, loss, optimizer):
        calls = [0.0]

        def slower(grads, state, batch, values):
            calls[0] += 1.0
            return scaled(grads, 1.0 / (1.0 + 0.01 * calls[0]))

        return version(name, grads=slower)(network, loss, optimizer)

    make.__name__ = name
    return make


def remembering_the_first_batch(name="first_batch"):
    """Divides by the size of the first batch that it met."""

    def make(network, loss, optimizer):
        sizes = []

        def mean(grads, state, batch, values):
            sizes.append(batch.x.shape[0])
            return scaled(grads, sizes[-1] / sizes[0])

        return version(name, grads=mean)(network, loss, optimizer)

    make.__name__ = name
    return make


def written_into(new, old, state):
    """The update is written into the weights that were given."""
    old[1].W[...] = new[1].W
    return new


class Wrong(NamedTuple):
    """A wrong version, and what catches it."""

    rule: object
    check: str
    network: str = "equal"
    words: str = ""  # that the sentence has
    oracle: bool = True  # whether the oracle sees it, too
    learns: bool = True  # shapes stay, numbers are finite and the loss falls


NAMED = (  # those that are easily made, and pass when a rule is compared with itself on other libraries
    Wrong(version("redrawn", B=redrawn), 'declared: "B stays"', words="B is not taken from there"),
    Wrong(version("another_layer", B=of_another_layer), 'declared: "equals BP when B = W"', words="W of layer"),
    Wrong(version("a_sign", delivered=lambda a, *rest: -a), 'declared: "equals BP when B = W"', words="W of layer"),
    Wrong(version("no_slope", trace=without_slope), 'declared: "equals BP when B = W"', words="W of layer"),
    Wrong(version("mean_twice", grads=lambda g, s, b, v: scaled(g, 1.0 / b.x.shape[0])),
          "doubled samples give the same update", words="every sample twice"),
)  # fmt: skip
OWN = (
    Wrong(version("sum", grads=lambda g, s, b, v: scaled(g, b.x.shape[0])), "doubled samples give the same update"),
    Wrong(version("transposed", B=transposed_where_square), "the oracle's step", words="delta of layer"),
    Wrong(version("W_on_top", B=own_W_on_top), 'declared: "hidden errors do not read W above them"'),
    Wrong(version("some_W", B=a_little_of_W), 'declared: "hidden errors do not read W above them"'),
    Wrong(version("half_an_error", delivered=half), 'declared: "equals BP when B = W"'),
    Wrong(version("frozen_first", grads=lambda g, s, b, v: only(g, (1,))), 'declared: "equals BP when B = W"'),
    Wrong(version("biases_stay", grads=biases_that_stay), 'declared: "equals BP when B = W"', words="b of layer"),
    Wrong(version("normalised", error=normalised), 'declared: "linear in the error"'),
    Wrong(version("by_the_loss", grads=by_the_loss), 'declared: "the same for two losses"'),
    Wrong(version("squares", error=squares), 'declared: "linear in the error"'),
    Wrong(version("first_twice", error=first_sample_counts_twice), "permuted samples give the same update"),
    Wrong(version("fading", feedback=fading), 'declared: "B stays"', words="changes feedback.params/2/W"),
    Wrong(version("learning_B", feedback=learning_B), 'declared: "B stays"'),
    Wrong(version("shaken", params=shaken), "no error, no update", words="an error of 0"),
    Wrong(counting(), "steps are pure", words="other bits the second time", oracle=False),
    Wrong(counting("counts_too"), "k steps resumed are k steps", words="resumed after 2", oracle=False),
    Wrong(remembering_the_first_batch(), "a last partial batch", words="4 samples", oracle=False),
    Wrong(version("t_stands", state=lambda new, old: new._replace(t=old.t + 0)), "the state keeps its form",
          words="t went from", oracle=False),
    Wrong(version("memory_lost", state=lambda new, old: new._replace(forward=Pathway(new.forward.params))),
          "the state keeps its form", words="is not there", oracle=False, learns=False),
    Wrong(version("loss_summed", grads=lambda g, s, b, v: scaled(g, float(v[0]) * 0 + 1.0)),
          "no host transfer inside a step", words="__float__ of an array", oracle=False),
    Wrong(version("writes", params=written_into), "steps are pure", words="wrote into the state", oracle=False),
)  # fmt: skip
