"""Wrong backends and wrong algorithms: the suite is right if it finds every one of them, at its level, for its reason.

Each is a mistake that was made in public code, or is easy to make. A mutant names the checks to ask (by pattern), the
level at which it must be found, and words that must stand in the reason.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import array_api_compat.numpy as compat
import numpy as np

from ref_bioplaus import algorithms, optimizers
from ref_bioplaus import kernels as portable
from ref_bioplaus.algorithms import target_propagation as tp
from ref_bioplaus.backends import Backend
from ref_bioplaus.backends.numpy_.backend import NumpyBackend
from ref_bioplaus.conformance.cases.cases import OPTIMIZERS, Case
from ref_bioplaus.conformance.checks.outcomes import Subject, built
from ref_bioplaus.kernels import Kernels
from ref_bioplaus.linear import Convolution
from ref_bioplaus.local import BatchNorm, Dropout
from ref_bioplaus.network import Network
from ref_bioplaus.registry import ROWS, Row
from ref_bioplaus.tree import leaves, unflatten
from ref_bioplaus.types import (
    Address,
    Algorithm,
    Array,
    Key,
    LayerParams,
    Loss,
    Optimizer,
    Pathway,
    State,
    Tree,
    always,
)
from ref_bioplaus.windows import Window

Build = Callable[[Case, Kernels], Algorithm]


@dataclass(frozen=True)
class Mutant:
    """One mistake."""

    name: str
    level: int
    checks: str  # fnmatch pattern of the ids to ask; the level's number stands in front
    reason: str  # words that the report must name it by
    build: Build = built
    kernels: Mapping[str, Callable] = field(default_factory=dict)  # wrong kernels by name
    namespace: Mapping[str, Callable] = field(default_factory=dict)  # wrong functions of NumPy's namespace by name
    dtype: str = "float32"
    mode: str = "compiled"
    backend: Callable[..., Backend] | None = None  # another backend than a NumPy with those kernels

    def subject(self) -> Subject:
        """The wrong implementation, as something that can be asked."""
        if self.backend is not None:
            return Subject(self.backend(), self.build)
        backend = NumpyBackend(compat, "cpu", self.dtype, "ieee", "portable")
        backend.kernels = backend.kernels._replace(**dict(self.kernels))  # type: ignore[arg-type]
        return Subject(backend, self.build)


# Wrong by a change of the state before and after a right step


def around(
    before: Callable = lambda case, state: state,
    after: Callable = lambda case, old, new: new,
    modes: tuple[str, ...] = (),
) -> Build:
    """A build whose steps change the state they are given, or the one they return. modes: () for all."""

    def build(case: Case, kernels: Kernels) -> Algorithm:
        algorithm = case.build(kernels)

        def wrong(step):
            def run(state, batch):
                new, info = step(before(case, state), batch)
                return after(case, state, new), info

            return run

        chosen = {name: wrong(s) if not modes or name in modes else s for name, s in algorithm.modes.items()}
        return algorithm._replace(modes=chosen)

    return build


def with_B(state: State, change: Callable[[int, Any], Any]) -> State:
    """The state with change(l, B_l) in place of B_l."""
    B = tuple(p if p.W is None else p._replace(W=change(l, p.W)) for l, p in enumerate(state.feedback.params))
    return state._replace(feedback=state.feedback._replace(params=B))


def keeping(old: State, new: State) -> State:
    """The new state with the old feedback weights."""
    return new._replace(feedback=new.feedback._replace(params=old.feedback.params))


def symmetric(case: Case, state: State):
    """B_l = W_l."""
    return with_B(state, lambda l, B: state.forward.params[l].W)


def turned_where_square(case: Case, state: State):
    """B_l transposed where its shape allows it."""
    return with_B(state, lambda l, B: B.T if B.ndim == 2 and B.shape[0] == B.shape[1] else B)


def times_batch(case: Case, state: State):
    """DFA's B times the batch size: its hidden errors are not divided by it."""
    B = tuple(b if b.B is None else b._replace(B=6.0 * b.B) for b in state.feedback.params)
    return state._replace(feedback=Pathway(B))


def without_first_update(case: Case, old: State, new: State):
    """Layer 1's weights never learn."""
    params = list(new.forward.params)
    params[1] = params[1]._replace(W=old.forward.params[1].W)
    return new._replace(forward=new.forward._replace(params=tuple(params)))


def shared_buffer(case: Case, state: State):
    """W's momentum buffer in place of B's."""
    v, own = state.forward.memory["v"], state.feedback.memory
    swapped = tuple(o if o.W is None else LayerParams(v[l].W) for l, o in enumerate(own["v"]))
    return state._replace(feedback=state.feedback._replace(memory=own | {"v": swapped}))


def written_into(case: Case, state: State):
    """A step that changes its argument."""
    state.forward.params[1].W[...] = 0.5 * state.forward.params[1].W
    return state


def moved_statistics(case: Case, old: State, new: State):
    """Mirror mode moves BatchNorm's running means."""
    stats = tuple(tuple({k: 0.9 * v for k, v in op.items()} if op else op for op in layer) for layer in new.stats)
    return new._replace(stats=stats)


# Wrong by another optimizer, another option, another network


def with_optimizer(change: Callable[[Case], Optimizer]) -> Build:
    """A build with another optimizer than the case says."""

    def build(case: Case, kernels: Kernels) -> Algorithm:
        name = f"wrong {case.optimizer}"
        if name not in OPTIMIZERS:
            OPTIMIZERS[name] = lambda: change(case)
        try:
            return case._replace(optimizer=name).build(kernels)
        finally:
            del OPTIMIZERS[name]

    return build


def bias_twice(case: Case) -> Optimizer:
    """Bias gradients divided by the batch a second time."""
    right = OPTIMIZERS[case.optimizer]()

    def update(grads, memory, params, kernels):
        halved = tuple(g._replace(local=tuple({k: v / 6.0 for k, v in op.items()} for op in g.local)) for g in grads)
        return right.update(halved, memory, params, kernels)

    return Optimizer(right.init, update)


def growing(case: Case) -> Optimizer:
    """Decay with the wrong sign."""
    right = optimizers.sgd(0.05, momentum=0.9)

    def update(grads, memory, params, kernels):
        new, memory = right.update(grads, memory, params, kernels)
        grown = (n if p.W is None else n._replace(W=n.W + 0.01 * p.W) for n, p in zip(new, params, strict=True))
        return tuple(grown), memory

    return Optimizer(right.init, update)


def uncorrected_adam(
    p: list, g: list, m: list, v: list, keep: list, eta: float | Array, correction: tuple, b1: float, b2: float,
    epsilon: float, form: str,
):  # fmt: skip
    """Adam without bias correction."""
    one = correction[0] * 0.0 + 1.0
    return portable.adam(p, g, m, v, keep, eta, (one, one), b1, b2, epsilon, form)


def other_epsilon(
    p: list, g: list, m: list, v: list, keep: list, eta: float | Array, correction: tuple, b1: float, b2: float,
    epsilon: float, form: str,
):  # fmt: skip
    """Adam with the other form of epsilon."""
    other = {"paper": "hat", "hat": "paper"}[form]
    return portable.adam(p, g, m, v, keep, eta, correction, b1, b2, epsilon, other)


def with_options(**options: Any) -> Build:
    """A build with other options than the row says."""

    def build(case: Case, kernels: Kernels) -> Algorithm:
        chosen = case.chosen()
        wrong = chosen._replace(options=dict(chosen.options) | options)
        return rebuilt(case, kernels, wrong)

    return build


def rebuilt(case: Case, kernels: Kernels, chosen: Row, network: Network | None = None) -> Algorithm:
    """A case with another row or network."""

    class Wrong(Case):
        __slots__ = ()

        def chosen(self):
            return chosen

        def network(self, kernels=portable.PORTABLE):
            return Case.network(self, kernels) if network is None else network

    return Wrong(*case).build(kernels)


def denoising_dtp(
    network: Network, loss: Loss, optimizer: Optimizer, inverse_optimizer: Optimizer, alpha: float = 0.1, **options: Any
) -> Algorithm:
    """DTP with SDTP's inverse loss."""
    return tp.target_propagation(
        network, loss, optimizer, inverse_optimizer, tp.difference_corrected, tp.de_noising, alpha=alpha, **options
    )


def noise_preserving_sdtp(
    network: Network, loss: Loss, optimizer: Optimizer, inverse_optimizer: Optimizer, **options: Any
) -> Algorithm:
    """SDTP with DTP's inverse loss."""
    return tp.target_propagation(
        network, loss, optimizer, inverse_optimizer, tp.difference_corrected, tp.noise_preserving, **options
    )


def signed_zero(x: Array):
    """A sign that is 1 at 0."""
    return np.where(x == 0, np.ones_like(x), np.sign(x))


def shifted_tanh(x: Array):
    """A tanh that is off by 3e-6."""
    return np.tanh(x) + 3e-6 * np.sign(x)


def with_row(make: Callable[..., Algorithm]) -> Build:
    """A build by another function than the row's."""
    return lambda case, kernels: rebuilt(case, kernels, case.chosen()._replace(make=make))


def both_at_once(case: Case, kernels: Kernels) -> Algorithm:
    """Alternating that updates both paths in either mode."""
    algorithm = case.build(kernels)
    return algorithm._replace(
        modes=dict.fromkeys(algorithm.modes, algorithm.modes["parallel"]), schedule=always("inverse")
    )


def with_operation(old: type, change: Callable) -> Build:
    """A build on a network whose operations of a type are changed."""

    def build(case: Case, kernels: Kernels) -> Algorithm:
        network = case.network(kernels)
        layers = tuple(
            replace(layer, local=tuple(change(op) if isinstance(op, old) else op for op in layer.local))
            for layer in network.layers
        )
        return rebuilt(case, kernels, case.chosen(), replace(network, layers=layers))

    return build


def with_synapses(old: type, change: Callable) -> Build:
    """A build on a network whose synapses of a type are changed."""

    def build(case: Case, kernels: Kernels) -> Algorithm:
        network = case.network(kernels)
        layers = tuple(
            replace(layer, linear=change(layer.linear)) if isinstance(layer.linear, old) else layer
            for layer in network.layers
        )
        return rebuilt(case, kernels, case.chosen(), replace(network, layers=layers))

    return build


class Summing(Convolution):
    """A convolution that sums over the positions that share a weight where it is asked for their mean."""

    def position_mean(self, sums: Array):
        """The sums."""
        return sums


class UnscaledDropout(Dropout):
    """Dropout whose mask is not rescaled."""

    def forward(self, params: Tree, stats: Tree, x: Array, key: Address, train: bool):
        """x times a mask of 0 and 1."""
        y, stats, mask = super().forward(params, stats, x, key, train)
        kept = mask if mask is None else mask * (1.0 - self.probability)
        return (y if kept is None else x * kept), stats, kept


# Wrong kernels


def sample_variance(x: Array, gamma: Array, beta: Array, epsilon: float):
    """BatchNorm that divides by the sample's standard deviation, m - 1."""
    m = int(np.prod(x.shape[:-1]))
    centred = x - x.mean(axis=tuple(range(x.ndim - 1)))
    var = (centred * centred).sum(axis=tuple(range(x.ndim - 1))) / max(m - 1, 1)
    inv_std = 1.0 / np.sqrt(var + epsilon)
    z = centred * inv_std
    return gamma * z + beta, x.mean(axis=tuple(range(x.ndim - 1))), var, (z, inv_std)


def last_maximum(x: Array, window: Window):
    """Max-pooling whose last maximum takes the error."""
    p = portable.patches(x, window, fill=-np.inf)
    last = p.shape[3] - 1 - np.argmax(p[:, :, :, ::-1, :], axis=3, keepdims=True)
    return p.max(axis=3), np.arange(p.shape[3]).reshape(1, 1, 1, -1, 1) == last


def equal_to_the_maximum(x: Array, window: Window):
    """Max-pooling whose error goes where the maximum is met again: NaN, which equals nothing, never is."""
    p = portable.patches(x, window, fill=-np.inf)
    met = p == p.max(axis=3, keepdims=True)
    return p.max(axis=3), met & (np.cumsum(met, axis=3) == 1)


def spread_by_a_mask(first: Array, dy: Array, window: Window):
    """Max-pooling whose error is multiplied by the mask: NaN times 0 is NaN, all over the window."""
    return portable.overlap_add(np.expand_dims(dy, axis=3) * first, window)


def masked_slope(nonlinearity: Any, y: Array, dy: Array):
    """Errors times slopes, and 0 where ReLU's output is not above 0, be it NaN."""
    dx = portable.activation_backward(nonlinearity, y, dy)
    return np.where(y > 0, dx, np.zeros_like(dx)) if nonlinearity.name == "relu" else dx


def padded_wrongly(window: Window) -> Window:
    """SAME padding with its odd pixel before, not after."""
    (top, bottom), (left, right) = window.padding
    return replace(window, padding=((bottom, top), (right, left)))


def constant_words(key: Key, start: Array, n: int):
    """Random bits that do not hang on their address."""
    return portable.random_words(np.array([1, 2], np.int32), start, n)


def cut(bits: int) -> Callable:
    """A product whose operands lose all but some bits of their significands."""

    def matmul(x, y):
        def rounded(a):
            a = np.ascontiguousarray(a, dtype=np.float32).view(np.uint32)
            return (a & np.uint32((0xFFFFFFFF << (23 - bits)) & 0xFFFFFFFF)).view(np.float32)

        return np.matmul(rounded(x), rounded(y)) if np.asarray(x).dtype == np.float32 else np.matmul(x, y)

    return matmul


class Retracing(NumpyBackend):
    """A backend that claims to compile, and traces every time."""

    compiles = True


def retracing() -> Backend:
    """Retracing, in float32."""
    return Retracing(compat, "cpu", "float32", "ieee", "portable")


def other_sign(case: Case, state: State):
    """The first feedback weights with the other sign."""
    first, *rest = leaves(state.feedback.params)
    return state._replace(feedback=state.feedback._replace(params=unflatten(state.feedback.params, [-first, *rest])))


def of_every_row() -> Iterator[Mutant]:
    """Mistakes that can be made in any algorithm: a new row has them, too."""
    for r in ROWS:
        if not r.asked.variant:
            checks = f"1/{r.name}/FC/*"
            yield Mutant(f"{r.label}: one layer's weights left out of the update", 1, checks,
                         "state/forward/params/1/W", build=around(after=without_first_update))  # fmt: skip
            if leaves(Case(r.name, r.name, "FC", "sgd").build().init(np.zeros(2, np.int32)).feedback.params):
                yield Mutant(f"{r.label}: feedback with the other sign", 1, checks, "info/",
                             build=around(other_sign, lambda c, old, new: keeping(old, new)))  # fmt: skip


MUTANTS = (
    *of_every_row(),
    Mutant("tanh off by 3e-6", 0, "0/elementwise/tanh", "tanh", namespace={"tanh": shifted_tanh}),
    Mutant("TF32 products that claim ieee", 0, "0/products/*", "products are in tf32", namespace={"matmul": cut(10)}),
    Mutant("bfloat16 products that claim ieee", 0, "0/products/*", "products are in bf16",
           namespace={"matmul": cut(7)}),
    Mutant("TF32 products, seen in a step", 1, "1/backprop/FC/*", "info/h/1", namespace={"matmul": cut(10)}),
    Mutant("sample variance in BatchNorm", 0, "0/batch_norm/images", ": y[", kernels={"batch_norm": sample_variance}),
    Mutant("last maximum in a tie", 0, "0/max_pool/*", "ties: dx[", kernels={"max_pool": last_maximum}),
    Mutant("SAME padding on the wrong side", 0, "0/synapses/conv*", ": apply[",
           kernels={"conv_apply": lambda W, x, w: portable.conv_apply(W, x, padded_wrongly(w))}),
    Mutant("convolution's transport on the wrong side", 0, "0/synapses/conv*", ": transport[",
           kernels={"conv_transport": lambda B, u, w: portable.conv_transport(B, u, padded_wrongly(w))}),
    Mutant("a slope of ReLU that loses NaN", 0, "0/nonlinearity/relu/*", ": dx[",
           kernels={"activation_backward": masked_slope}),
    Mutant("a maximum that passes NaN over", 0, "0/nonlinearity/rectified_tanh/*", ": y[",
           namespace={"maximum": np.fmax}),
    Mutant("a sign that is 0 at NaN", 0, "0/elementwise/sign/*", "sign",
           namespace={"sign": lambda x: np.nan_to_num(np.sign(x))}),
    Mutant("a maximum that is NaN and takes no error", 0, "0/max_pool/*/not finite", ": dx[",
           kernels={"max_pool": equal_to_the_maximum}),
    Mutant("an error that is NaN all over its window", 0, "0/max_pool/*/not finite", ": dx[",
           kernels={"max_pool_backward": spread_by_a_mask}),
    Mutant("sign(0) = 1", 0, "0/elementwise/sign", "sign", namespace={"sign": signed_zero}),
    Mutant("sign(0) = 1, seen in sign-symmetry", 1, "1/sn/FC/*", "info/delta/2",
           namespace={"sign": signed_zero}),
    Mutant("a random stream that repeats", 0, "0/random/*", "the stream repeats",
           kernels={"random_words": constant_words}),
    Mutant("dropout not rescaled", 1, "1/backprop/conv/*", "info/h/4",
           build=with_operation(Dropout, lambda op: UnscaledDropout(op.in_shape, op.probability, op.kernels))),
    Mutant("BatchNorm's statistics do not move", 1, "1/backprop/conv/*", "state/stats",
           build=with_operation(BatchNorm, lambda op: replace(op, rate=0.0))),
    Mutant("BatchNorm's statistics move in mirror mode", 1, "1/weight-mirror/conv/mirror/*", "state/stats",
           build=around(after=moved_statistics, modes=("mirror",))),
    Mutant("B used transposed in a square layer", 1, "1/feedback-alignment/square/*", "info/delta/1",
           build=around(turned_where_square, lambda c, old, new: keeping(old, new))),
    Mutant("FA that silently is BP", 3, "3/backprop when B = W/feedback-alignment/FC", "W is used in place of B",
           build=around(symmetric, lambda c, old, new: keeping(old, new) if c.row == "feedback-alignment" else new)),
    Mutant("FA that silently is BP, in a step", 1, "1/feedback-alignment/FC/*", "info/delta/2",
           build=around(symmetric, lambda c, old, new: keeping(old, new))),
    Mutant("stale feedback by one step", 2, "2/shadow/kolen-pollack/FC", "state/feedback",
           build=around(after=lambda c, old, new: keeping(old, new))),
    Mutant("learning rate applied twice", 1, "1/kolen-pollack/FC/learn/6", "state/forward/params",
           build=with_optimizer(lambda c: optimizers.sgd(0.05**2, momentum=0.9, decay=0.01))),
    Mutant("bias gradient divided by the batch twice", 1, "1/kolen-pollack/FC/learn/6", "/b",
           build=with_optimizer(bias_twice)),
    Mutant("decay with the wrong sign", 1, "1/kolen-pollack/FC/learn/6", "/W", build=with_optimizer(growing)),
    Mutant("decay scaled by eta", 3, "3/kolen-pollack shrinks W - B/FC/sgd", "W - B of layer",
           build=with_optimizer(lambda c: optimizers.sgd(0.05, momentum=0.9, decay=0.01, form="decoupled"))),
    Mutant("Adam without bias correction", 1, "1/dfa/FC/*", "state/forward/params", kernels={"adam": uncorrected_adam}),
    Mutant("Adam with the other form of epsilon", 1, "1/kolen-pollack/FC/adam, epsilon*", "state/forward/params",
           kernels={"adam": other_epsilon}),
    Mutant("momentum buffer shared by W and B", 2, "2/shadow/kolen-pollack/FC/sgd, coupled*", "state/feedback",
           build=around(shared_buffer)),
    Mutant("DFA not divided by the batch", 1, "1/dfa/FC/*", "info/delta/2",
           build=around(times_batch, lambda c, old, new: keeping(old, new))),
    Mutant("de-noising where the noise is to be kept", 1, "1/dtp/FC/parallel/*", "info/feedback_grads",
           build=with_row(denoising_dtp)),
    Mutant("noise kept where it is to be removed", 1, "1/sdtp/FC/parallel/*", "info/feedback_grads",
           build=with_row(noise_preserving_sdtp)),
    Mutant("alternating that updates both", 3, "3/stays/*/dtp/LC/inverse", "the forward path changed",
           build=both_at_once),
    Mutant("AO-SDTP whose z learns", 3, "3/stays/the auxiliary units/*", "the auxiliary units changed",
           build=with_row(algorithms.sdtp)),
    Mutant("mirror mode without bias-blocking", 1, "1/weight-mirror-turns/FC/mirror_2/*", "info/feedback_grads/2",
           build=with_options(bias_blocking=False)),
    Mutant("mirroring that sums over positions", 3, "3/mirroring/*", "times as large",
           build=with_synapses(Convolution, lambda c: Summing(c.window, c.channels, c.kernels))),
    Mutant("a step that writes into its argument", 3, "3/manners/backprop/FC/learn", "wrote into the state",
           build=around(written_into)),
    Mutant("a compiled step that retraces", 3, "3/manners/backprop/FC/learn", "retraces", backend=retracing),
    Mutant("SDTP in the place of TP", 1, "1/tp/FC/parallel/*", "info/targets/1", build=with_row(algorithms.sdtp)),
)  # fmt: skip
