"""Whole runs against an independent program: target propagation's algorithm 1 and FA, in torch with autograd.

It shares with the project the first state, the batches and the noise, which are inputs, and nothing else: every local
loss is written as the papers print it and differentiated by autograd, and Adam is written out (Kingma and Ba 2014, with
epsilon in TensorFlow's place). After each of twenty steps all weights of both paths are the same, to rounding; with
the readings of what the paper leaves open as well.
"""

import numpy as np
import pytest

from ref_bioplaus import algorithms, losses, random
from ref_bioplaus.inverses import mirrored_inverse, with_neurons
from ref_bioplaus.kernels import PORTABLE
from ref_bioplaus.linear import dense
from ref_bioplaus.local import bias, tanh
from ref_bioplaus.network import chain
from ref_bioplaus.optimizers import adam, sgd
from ref_bioplaus.registry import ROWS
from tests.conftest import get

torch = pytest.importorskip("torch")
F = torch.nn.functional

SIZES, CLASSES, AUXILIARY = (7, 6, 8, 5), 4, 3
STEPS, EPOCH = 20, 5  # steps of a run, and of an epoch
FORWARD, INVERSE = (0.01, 0.9, 0.95, 1e-3), (0.02, 0.8, 0.99, 1e-4)  # eta, b1, b2, epsilon
SIGMA, ALPHA, DECAY = 0.3, 0.2, 0.01  # decay of the forward weights, from which auxiliary units are kept
TARGET_ROWS = [row for row in ROWS if row.inverses]
TRIED = [(row, "below", True, "sum") for row in TARGET_ROWS] + [(row, "none", True, "sum") for row in TARGET_ROWS]
OTHERWISE = [("own", True, "sum"), ("own-softmax", False, "sum"), ("none", False, "mean"), ("below", True, "mean")]
TRIED += [(row, *reading) for row in TARGET_ROWS if row.name in ("tp", "dtp", "ao-sdtp") for reading in OTHERWISE]


class Adam:
    """p <- p - eta sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon), matrices scaled by 1 - decay before that."""

    def __init__(self, parameters, eta, b1, b2, epsilon, decay=0.0):
        self.p, self.eta, self.b1, self.b2, self.epsilon, self.t = parameters, eta, b1, b2, epsilon, 0
        self.keep = [1 - decay * (p.ndim == 2) for p in parameters]
        self.m, self.v = ([torch.zeros_like(p) for p in parameters] for _ in range(2))

    def step(self, loss):
        self.t += 1
        rate = self.eta * (1 - self.b2**self.t) ** 0.5 / (1 - self.b1**self.t)
        for i, g in enumerate(torch.autograd.grad(loss, self.p)):
            self.m[i] = self.b1 * self.m[i] + (1 - self.b1) * g
            self.v[i] = self.b2 * self.v[i] + (1 - self.b2) * g**2
            with torch.no_grad():
                self.p[i] *= self.keep[i]
                self.p[i] -= rate * self.m[i] / (self.v[i].sqrt() + self.epsilon)


def target_propagation(kind, W, b, V, c, batches, noise, schedule, neurons="below", over_units="sum"):
    """Bartunov et al. 2018, algorithm 1; yields after every step. kind: tp, dtp, sdtp or ao-sdtp.

    Lists are indexed by layer; c: None where inverses have no biases. neurons: of the inverses, see `g`.
    """
    L = len(W) - 1
    auxiliary = [p[CLASSES:].detach().clone() for p in (W[L], b[L])]
    theta = Adam([p for l in range(1, L + 1) for p in (W[l], b[l])], *FORWARD, DECAY)
    lam = Adam([p for l in V for p in (V[l], c[l]) if p is not None], *INVERSE)

    def f(l, h):
        u = h @ W[l].T + b[l]
        return torch.tanh(u) if l < L else u

    def output(u):
        return torch.cat([F.softmax(u[:, :CLASSES], 1), torch.tanh(u[:, CLASSES:])], 1)

    def g(l, h):
        u = h @ V[l] + (0 if c[l] is None else c[l])
        if neurons == "own-softmax" and l == L:
            return F.softmax(u, 1)
        return u if neurons == "none" or (neurons == "own" and l == L) else torch.tanh(u)

    def squares(difference):
        """||.||^2 over units, its mean over samples."""
        return (difference**2).mean() if over_units == "mean" else (difference**2).sum(1).mean()

    for t, (x, y) in enumerate(batches):
        h = [x]
        for l in range(1, L + 1):
            h.append(f(l, h[-1]).detach())
        o = output(h[L])
        local_inverse = local_forward = None
        if schedule(t) in ("parallel", "inverse"):
            local_inverse = 0
            for l in V:
                corrupted = h[l - 1] + SIGMA * noise(t, l, h[l - 1].shape)
                above = f(l, corrupted).detach()
                wanted = corrupted if kind == "dtp" else h[l - 1]
                local_inverse = local_inverse + squares(g(l, output(above) if l == L else above) - wanted)
        if schedule(t) in ("parallel", "forward"):
            target = {L: torch.cat([y, o[:, CLASSES:]], 1)}
            if kind == "dtp":  # a step along each sample's own gradient
                below = h[L - 1].clone().requires_grad_()
                F.cross_entropy(f(L, below)[:, :CLASSES], y, reduction="sum").backward(inputs=[below])
                target[L - 1] = h[L - 1] - ALPHA * below.grad
            for l in range(L - (kind == "dtp"), 1, -1):
                correction = 0 if kind == "tp" else h[l - 1] - g(l, o if l == L else h[l])
                target[l - 1] = (correction + g(l, target[l])).detach()
            local_forward = F.cross_entropy(f(L, h[L - 1])[:, :CLASSES], y)
            for l in range(1, L):
                local_forward = local_forward + squares(f(l, h[l - 1]) - target[l])
        for optimizer, loss in ((lam, local_inverse), (theta, local_forward)):
            if loss is not None:
                optimizer.step(loss)
        with torch.no_grad():  # auxiliary outputs are random and fixed
            W[L][CLASSES:], b[L][CLASSES:] = auxiliary
        yield


def feedback_alignment(W, b, B, batches, eta, momentum):
    """Akrout et al. 2019 (1), (3), (4): autograd at each neuron, B in place of the weights; yields after every step."""
    L = len(W) - 1
    parameters = [p for l in range(1, L + 1) for p in (W[l], b[l])]
    velocity = [torch.zeros_like(p) for p in parameters]
    for x, y in batches:
        u, h = {}, {0: x}
        for l in range(1, L + 1):
            u[l] = (h[l - 1].detach() @ W[l].T + b[l]).requires_grad_()
            h[l] = torch.tanh(u[l]) if l < L else u[l]
        delta = {L: torch.autograd.grad(F.cross_entropy(u[L], y), u[L], retain_graph=True)[0]}
        for l in range(L - 1, 0, -1):
            (delta[l],) = torch.autograd.grad(h[l], u[l], delta[l + 1] @ B[l + 1], retain_graph=True)
        surrogate = sum((u[l] * delta[l]).sum() for l in u)  # whose gradient at W_l is delta_l^T h_{l-1}
        for i, gradient in enumerate(torch.autograd.grad(surrogate, parameters)):
            velocity[i] = momentum * velocity[i] + gradient
            with torch.no_grad():
                parameters[i] -= eta * velocity[i]
        yield


def made(auxiliary=0):
    """The network."""
    hidden = [(dense(n), bias, tanh) for n in SIZES[1:]]
    return chain(SIZES[:1], *hidden, (dense(CLASSES + auxiliary), bias)).with_dtype("float64")


def drawn(backend):
    """Batches of six, one sample of zeros among them; the last of an epoch is a single sample."""
    generator = np.random.default_rng(5)
    for t in range(STEPS):
        n = 1 if t % EPOCH == EPOCH - 1 else 6
        x, y = generator.standard_normal((n, SIZES[0])), np.eye(CLASSES)[generator.integers(0, CLASSES, n)]
        x[0] = 0.0 if t % 3 == 0 else x[0]
        yield backend.batch(x, y), (torch.tensor(x), torch.tensor(y))


def taken(params):
    """Copies of W and the bias of every layer as torch has them; None for a layer without."""

    def pick(p):
        both = (p.W, next((d["b"] for d in p.local if d), None))
        return tuple(None if a is None else torch.tensor(np.array(a), requires_grad=True) for a in both)

    W, b = zip(*map(pick, params), strict=True)
    return list(W), list(b)


def compare(state, W, b, feedback=((), ())):
    """All parameters are the same, to rounding."""
    for ours, theirs in ((state.forward.params, (W, b)), (state.feedback.params, feedback)):
        for p, *others in zip(ours, *theirs, strict=False):
            if p.W is not None:
                bias_of = next((d["b"] for d in p.local if d), None)
                for a, other in zip((p.W, bias_of), others, strict=True):
                    if a is not None:
                        assert np.allclose(a, other.detach().numpy(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("row", "neurons", "biases", "over_units"), TRIED, ids=lambda it: str(getattr(it, "name", it)))
def test_target_propagation_is_algorithm_1(row, neurons, biases, over_units):
    backend, kind = get("numpy"), row.name.removesuffix("-alternating")
    extra = AUXILIARY if row.auxiliary else 0
    loss = losses.with_auxiliary_output(losses.cross_entropy(), CLASSES) if extra else losses.cross_entropy()
    optimizers = adam(*FORWARD, epsilon_form="hat", decay=DECAY), adam(*INVERSE, epsilon_form="hat")
    options = dict(row.options) | {"noise": SIGMA, "over_units": over_units}
    if (neurons, biases) != ("below", True):
        options["inverse"] = with_neurons(mirrored_inverse, neurons, biases)
    algorithm = row.make(made(extra), loss, *optimizers, **options | ({"alpha": ALPHA} if kind == "dtp" else {}))
    state = first = algorithm.init(backend.key(2))

    def mode(t):  # alternating: an epoch of inverse learning, then one of forward learning
        return "parallel" if kind == row.name else ("inverse", "forward")[t // EPOCH % 2]

    def noise(t, l, shape):
        address = (first.key, "corrupt", np.array(t, np.int32), l)
        return torch.tensor(np.array(random.normal(address, tuple(shape), np.dtype("float64"), PORTABLE)))

    W, b = taken(state.forward.params)
    V, c = ({l: p[l] for l, params in enumerate(state.feedback.params) if params.W is not None}
            for p in taken(state.feedback.params))  # fmt: skip
    assert list(V) == list(range(2, len(W) - (kind == "dtp")))
    assert all((c[l] is not None) == biases for l in V)
    ours, theirs = zip(*drawn(backend), strict=True)
    steps = target_propagation(kind, W, b, V, c, theirs, noise, mode, neurons, over_units)
    for t, batch in enumerate(ours):
        for name in algorithm.schedule(t // EPOCH, t % EPOCH):
            state, _ = algorithm.modes[name](state, batch)
        next(steps)
        compare(state, W, b, [[p.get(l) for l in range(len(W))] for p in (V, c)])
    pairs = [*zip(state.forward.params, first.forward.params), *zip(state.feedback.params, first.feedback.params)]
    assert min(np.max(np.abs(p.W - q.W)) for p, q in pairs if p.W is not None) > 1e-3


def test_feedback_alignment_is_the_papers():
    backend = get("numpy")
    algorithm = algorithms.feedback_alignment(made(), losses.cross_entropy(), sgd(0.1, momentum=0.9))
    state = first = algorithm.init(backend.key(2))
    W, b = taken(state.forward.params)
    B = [None if p.W is None else torch.tensor(np.array(p.W)) for p in state.feedback.params]
    ours, theirs = zip(*drawn(backend), strict=True)
    steps = feedback_alignment(W, b, B, theirs, 0.1, 0.9)
    for batch in ours:
        state, _ = algorithm.modes["learn"](state, batch)
        next(steps)
        compare(state, W, b)
    assert np.max(np.abs(state.forward.params[1].W - first.forward.params[1].W)) > 1e-3
