"""A rule, its oracle, a network, a loss and data of one's own in one file; README's section says what uses it how."""

import numpy as np

import ref_bioplaus as rb


def rule(network, loss, optimizer, gain: float = 1.0, initializer=rb.initializers.fan_in):
    """Feedback alignment whose feedback may be larger or smaller."""

    def init(key):
        B = rb.initializers.feedback_params(network, (key, "feedback"))
        return rb.initializers.new_state(network, key, optimizer, initializer, rb.Pathway(B))

    def learn(state, batch):
        params, B = state.forward.params, state.feedback.params
        trace, stats = rb.forward(network, params, state.stats, batch.x, (state.key, "step", state.t))
        u = trace.h[-1]

        def feedback(l, delta):
            return gain * network[l].linear.transport(B[l].W, delta[l])

        delta, grads = rb.backward(network, params, trace, loss.gradient(u, batch.y), feedback)
        forward = rb.Pathway(*optimizer.update(grads, state.forward.memory, params, network.kernels))
        info = rb.Info(loss.value(u, batch.y), loss.output(u), trace.h, delta, grads=grads)
        return state._replace(t=state.t + 1, forward=forward, stats=stats), info

    return rb.Algorithm(init, {"learn": learn})


def oracle(given):
    """The rule's step in layers of tanh, with softmax and cross-entropy, in plain NumPy."""
    h, delta, pairs = {0: given.x.reshape(len(given.x), -1)}, {}, [*zip([0, *given.W], given.W, strict=False)]
    for k, l in pairs:  # layers with weights, each behind the one below it
        u = h[k] @ given.W[l].T + given.b[l]
        h[l] = np.tanh(u) if l < given.L else u
    delta[given.L] = np.exp(u) / np.exp(u).sum(axis=1, keepdims=True) - given.y
    for k, l in pairs[:0:-1]:
        delta[k] = (1 - h[k] ** 2) * (delta[l] @ given.B[l])
    return {"dW": {l: delta[l].T @ h[k] / len(h[k]) for k, l in pairs}, "db": {l: d.mean(0) for l, d in delta.items()}}


def network(in_shape, classes):
    """30 units between pixels and classes."""
    return rb.chain(in_shape, rb.flatten, (rb.dense(30), rb.bias, rb.tanh), (rb.dense(classes), rb.bias))


def loss():
    """Cross-entropy of a target of which a fifth goes to all classes alike (label smoothing)."""
    of, smooth = rb.losses.cross_entropy(), lambda y: 0.8 * y + 0.2 / y.shape[-1]
    return of._replace(value=lambda u, y: of.value(u, smooth(y)), gradient=lambda u, y: of.gradient(u, smooth(y)))


def bars(count=600, seed=0):
    """Noisy images of 9 x 7 with a bright bar, which goes down or across."""
    random = np.random.default_rng(seed)
    images, y = random.integers(0, 120, (count, 9, 7), dtype=np.uint8), random.choice(["down", "across"], count)
    for image, name in zip(images, y, strict=True):
        image[(slice(None), random.integers(7)) if name == "down" else random.integers(9)] += 100
    return {"train": (images[100:], y[100:]), "test": (images[:100], y[:100])}
