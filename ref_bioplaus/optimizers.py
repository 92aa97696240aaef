"""Optimizers: (init, update), two pure functions.

    init(params, address, kernels) -> memory                    address: where their random numbers live
    update(grads, memory, params, kernels) -> params, memory

Every optimizer counts its own updates, so that another mode's steps (mirroring) never shift a schedule. A learning rate
is a number or a schedule: a function (updates done, int32 (); dtype) -> array () of that dtype. Parameters without a
tensor stay as they are: the feedback path of a network with one layer of weights.

Weight decay has three forms, which differ as soon as the learning rate or the momentum does:

    "paper"      p <- (1 - lambda) p - step         Akrout et al. 2019, eq. (16) to (18): schedules leave lambda alone
    "decoupled"  p <- (1 - eta lambda) p - step     Loshchilov and Hutter 2019 (AdamW)
    "coupled"    g <- g + lambda p                  an L2 penalty lambda ||p||^2 / 2, which momentum and Adam then see

Decay acts on weights only (W and B, not on biases and BatchNorm) unless on="all".
"""

import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Real

from array_api_compat import array_namespace, device

from .kernels import scaled
from .tree import leaves, tree_map, unflatten
from .types import NO_PARAMS, Address, Algorithm, Array, DType, LayerParams, Optimizer, Params, Pathway, Tree

LearningRate = float | Callable[[Array, DType], Array]
DECAY_FORMS = ("paper", "decoupled", "coupled")


def sgd(
    eta: LearningRate, momentum: float = 0.0, nesterov: bool = False, decay: float = 0.0, form: str = "paper",
    on: str = "weights",
) -> Optimizer:  # fmt: skip
    """Gradient descent: v <- momentum v + g;  p <- p - eta v, or p - eta (g + momentum v) with Nesterov's momentum.

    The learning rate scales v when it is used, not when it is gathered (PyTorch's form; Sutskever et al. 2013 scale g:
    the same but for a learning rate that changes). Raises ValueError for an unknown form, `on`, a rate below 0, a
    momentum outside of [0, 1), or Nesterov's without momentum.
    """
    check_rate("sgd", eta)
    check_decay(decay, form, on)
    check_share("sgd: momentum", momentum)
    if nesterov and not momentum:
        raise ValueError("sgd: Nesterov's momentum needs momentum above 0, got momentum=0.0")

    def init(params, address, kernels):
        return {"count": counter(address)} | ({"v": zeros_like(params)} if momentum else {})

    def update(grads, memory, params, kernels):
        if not (p := leaves(params)):
            return params, memory
        eta_t = rate(eta, memory["count"], p[0].dtype)
        g, keep = decayed(leaves(grads), p, mask(params, on), decay, form, eta_t)
        p, v = kernels.sgd(p, g, leaves(memory["v"]) if momentum else g, keep, eta_t, momentum, nesterov)
        slots = {"v": unflatten(params, v)} if momentum else {}
        return unflatten(params, p), {"count": memory["count"] + 1} | slots

    return Optimizer(init, update)


def adam(
    eta: LearningRate, b1: float = 0.9, b2: float = 0.999, epsilon: float = 1e-8, epsilon_form: str = "paper",
    decay: float = 0.0, form: str = "paper", on: str = "weights",
) -> Optimizer:  # fmt: skip
    """Kingma and Ba 2014.

    epsilon_form "paper" is their algorithm 1 (and PyTorch's): p <- p - eta m_hat / (sqrt(v_hat) + epsilon).
    "hat" is the form of their section 2 (and TensorFlow 1's): p <- p - eta_t m / (sqrt(v) + epsilon), eta_t = eta
    sqrt(1 - b2^t) / (1 - b1^t); it differs visibly where epsilon is large. Raises ValueError for an unknown
    form, and for eta, b1, b2 or epsilon out of range.
    """
    check_rate("adam", eta)
    check_decay(decay, form, on)
    check_share("adam: b1", b1)
    check_share("adam: b2", b2)
    check_not_negative("adam: epsilon", epsilon)
    if epsilon_form not in ("paper", "hat"):
        raise ValueError(f'adam: epsilon_form "{epsilon_form}" is unknown, expected "paper" or "hat"')

    def init(params, address, kernels):
        return {"count": counter(address), "m": zeros_like(params), "v": zeros_like(params)}

    def update(grads, memory, params, kernels):
        if not (p := leaves(params)):
            return params, memory
        count = memory["count"] + 1
        eta_t = rate(eta, memory["count"], p[0].dtype)
        g, keep = decayed(leaves(grads), p, mask(params, on), decay, form, eta_t)
        xp = array_namespace(count)
        t = xp.astype(count, p[0].dtype)
        correction = tuple(-xp.expm1(t * (math.log(b) if b else -math.inf)) for b in (b1, b2))  # 1 - b^t
        p, m, v = kernels.adam(
            p, g, leaves(memory["m"]), leaves(memory["v"]), keep, eta_t, correction, b1, b2, epsilon, epsilon_form
        )
        return unflatten(params, p), {"count": count, "m": unflatten(params, m), "v": unflatten(params, v)}

    return Optimizer(init, update)


def rmsprop(
    eta: LearningRate, rho: float = 0.95, momentum: float = 0.9, epsilon: float = 1e-3, decay: float = 0.0,
    form: str = "paper", on: str = "weights",
) -> Optimizer:  # fmt: skip
    """Centred RMSprop with momentum, epsilon inside the root (Graves 2013; Lee et al. 2015, their public code).

    n, a <- moving averages (rho) of g^2, g;  v <- momentum v + eta g / sqrt(n - a^2 + epsilon);  p <- p - v
    Raises ValueError for an unknown form, and for eta, rho, momentum or epsilon out of range.
    """
    check_rate("rmsprop", eta)
    check_decay(decay, form, on)
    check_share("rmsprop: rho", rho)
    check_share("rmsprop: momentum", momentum)
    check_not_negative("rmsprop: epsilon", epsilon)

    def init(params, address, kernels):
        return {"count": counter(address)} | {slot: zeros_like(params) for slot in ("n", "a", "v")}

    def update(grads, memory, params, kernels):
        if not (p := leaves(params)):
            return params, memory
        xp = array_namespace(p[0])
        eta_t = rate(eta, memory["count"], p[0].dtype)
        g, keep = decayed(leaves(grads), p, mask(params, on), decay, form, eta_t)
        g = unflatten(params, g)
        n = tree_map(lambda n, g: rho * n + (1.0 - rho) * (g * g), memory["n"], g)
        a = tree_map(lambda a, g: rho * a + (1.0 - rho) * g, memory["a"], g)
        v = tree_map(lambda v, g, n, a: momentum * v + eta_t * g / xp.sqrt(n - a * a + epsilon), memory["v"], g, n, a)
        moved = [scaled(k, p_) - v_ for k, p_, v_ in zip(keep, p, leaves(v), strict=True)]
        return unflatten(params, moved), {"count": memory["count"] + 1, "n": n, "a": a, "v": v}

    return Optimizer(init, update)


def by_layer(default: Optimizer, special: Mapping[int, Optimizer]) -> Optimizer:
    """An optimizer of their own for some layers (Xiao et al. 2018 give the last layer its own rate)."""

    def groups(n):
        for l in special:
            if not 0 <= l < n:
                raise ValueError(f"by_layer: layer {l} is not in the network, expected 0 to {n - 1}")
        alone = [(str(l), optimizer, (l,)) for l, optimizer in sorted(special.items())]
        return [("default", default, tuple(l for l in range(n) if l not in special)), *alone]

    def part(params, layers):
        return tuple(p if l in layers else NO_PARAMS for l, p in enumerate(params))

    def init(params, address, kernels):
        return {
            name: optimizer.init(part(params, layers), (*address, name), kernels)
            for name, optimizer, layers in groups(len(params))
            if leaves(part(params, layers))
        }

    def update(grads, memory, params, kernels):
        moved, new = list(params), dict(memory)
        for name, optimizer, layers in groups(len(params)):
            if name in memory:
                mine = part(params, layers)
                updated, new[name] = optimizer.update(part(grads, layers), memory[name], mine, kernels)
                for l in layers:
                    moved[l] = updated[l]
        return tuple(moved), new

    return Optimizer(init, update)


def in_float32(optimizer: Optimizer) -> Optimizer:
    """Mixed precision: weights of 16 bits are rounded copies of weights in float32, which learn, and the optimizer's
    memory is in float32 too (Micikevicius et al. 2018, sec. 3.1). Wrapped around everything else.

    In bfloat16 alone, which has 8 bits, a decay below 2^-9 changes no weight, and Adam's second moment cannot shrink.
    """

    def init(params, address, kernels):
        masters = tree_map(widened, params)
        return {"inner": optimizer.init(masters, address, kernels), "float32": masters}

    def update(grads, memory, params, kernels):
        grads = tree_map(widened, grads)
        masters, inner = optimizer.update(grads, memory["inner"], memory["float32"], kernels)
        return rounded(masters, params), {"inner": inner, "float32": masters}

    return Optimizer(init, update)


def feedback_in_float32(algorithm: Algorithm, modes: Iterable[str]) -> Algorithm:
    """The same for feedback weights that a rule moves without an optimizer, in these of its modes (weight mirror): what
    moves is in float32 and lies in the feedback path's memory; all other modes read it rounded."""

    def init(key):
        state = algorithm.init(key)
        B = state.feedback.params
        return state._replace(feedback=Pathway(B, {"float32": tree_map(widened, B)}))

    def moving(step):
        def run(state, batch):
            B, memory = state.feedback
            new, info = step(state._replace(feedback=Pathway(memory["float32"])), batch)
            masters = new.feedback.params
            return new._replace(feedback=Pathway(rounded(masters, B), {"float32": masters})), info

        return run

    return algorithm._replace(init=init, modes={**algorithm.modes, **{m: moving(algorithm.modes[m]) for m in modes}})


def rounded(masters: Tree, params: Tree) -> Tree:
    """The masters in the dtypes of the parameters."""
    return tree_map(lambda m, p: array_namespace(m).astype(m, p.dtype), masters, params)


def widened(array: Array) -> Array:
    """The numbers in float32, in memory of their own."""
    xp = array_namespace(array)
    return xp.astype(array, xp.float32, copy=True)


# Schedules, in updates of the optimizer that uses them.


def piecewise(values: tuple[float, ...], boundaries: tuple[int, ...]) -> LearningRate:
    """values[0] until boundaries[0] updates are done, then values[1], and so on.

    Moskovitz et al. 2018 (7.1), MNIST: piecewise((1e-4, 1e-5), (20 * updates an epoch,)).
    Raises ValueError unless there is one value more than boundaries, and these increase, and for a value below 0.
    """
    for value in values:
        check_rate("piecewise", value)
    if len(values) != len(boundaries) + 1 or list(boundaries) != sorted(set(boundaries)):
        raise ValueError(f"piecewise: {len(values)} values for boundaries {boundaries}, expected one more, increasing")

    def schedule(count, dtype):
        xp = array_namespace(count)
        eta = [xp.full((), value, dtype=dtype, device=device(count)) for value in values]
        current = eta[0]
        for boundary, value in zip(boundaries, eta[1:], strict=True):
            current = xp.where(count >= boundary, value, current)
        return current

    return schedule


def staircase(eta: float, factor: float, every: int) -> LearningRate:
    """eta factor^n after n times `every` updates.

    Moskovitz et al. 2018 (7.1), CIFAR-10 model 1: staircase(5e-4, 0.8, 30 epochs); Xiao et al. 2018 (public code):
    staircase(0.1, 0.1, 10 epochs). Raises ValueError for a number out of range.
    """
    check_rate("staircase", eta)
    check_above("staircase: factor", factor)
    check_above("staircase: every", every)

    def schedule(count, dtype):
        xp = array_namespace(count)
        return eta * xp.exp(xp.astype(count // every, dtype) * math.log(factor))

    return schedule


def warm_up(eta: LearningRate, updates: int) -> LearningRate:
    """Rise linearly from eta / updates to eta in the first `updates` (Akrout et al. 2019, sec. 6, imply a warm-up).

    Raises ValueError for a number out of range.
    """
    check_rate("warm_up", eta)
    check_above("warm_up: updates", updates)

    def schedule(count, dtype):
        xp = array_namespace(count)
        done = xp.astype(count, dtype) + 1.0
        share = done / updates
        return xp.minimum(share, xp.ones_like(share)) * rate(eta, count, dtype)

    return schedule


def rate(eta: LearningRate, count: Array, dtype: DType) -> float | Array:
    """The learning rate after `count` updates: a number, or an array ()."""
    return eta(count, dtype) if callable(eta) else eta


# Shared by the optimizers


def decayed(g: list, p: list, on: list[bool], decay: float, form: str, eta_t: float | Array) -> tuple[list, list]:
    """Gradients, and the factor that every tensor keeps of itself, under one of the three forms of decay."""
    if form == "coupled" and decay:
        g = [g_ + decay * p_ if yes else g_ for g_, p_, yes in zip(g, p, on, strict=True)]
    keep = {"paper": 1.0 - decay, "decoupled": 1.0 - eta_t * decay if decay else 1.0, "coupled": 1.0}[form]
    return g, [keep if yes else 1.0 for yes in on]


def mask(params: Params, on: str) -> list[bool]:
    """For each tensor, in the order of `leaves`: whether it is a weight, or True for all."""
    marked = tuple(
        LayerParams(None if layer.W is None else True, tree_map(lambda _: on == "all", layer.local)) for layer in params
    )
    return leaves(marked)


def check_decay(decay: float, form: str, on: str) -> None:
    """Raise ValueError for a decay form, a target or a strength that does not exist."""
    if form not in DECAY_FORMS:
        raise ValueError(f'decay form "{form}" is unknown, expected one of {", ".join(DECAY_FORMS)}')
    if on not in ("weights", "all"):
        raise ValueError(f'on="{on}" is unknown, expected "weights" or "all"')
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"decay is {decay}, expected a number in [0, 1)")


def check_rate(what: str, eta: LearningRate) -> None:
    """Raise ValueError unless a learning rate is a schedule, or a finite number of at least 0."""
    if not callable(eta) and not (isinstance(eta, Real) and 0.0 <= eta < math.inf):
        raise ValueError(f"{what}: the learning rate is {eta!r}, expected a finite number of at least 0, or a schedule")


def check_above(what: str, value: float) -> None:
    """Raise ValueError unless a number is finite and above 0."""
    if not 0.0 < value < math.inf:
        raise ValueError(f"{what} is {value}, expected a finite number above 0")


def check_share(what: str, value: float) -> None:
    """Raise ValueError unless a number is in [0, 1)."""
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{what} is {value}, expected a number in [0, 1)")


def check_not_negative(what: str, value: float) -> None:
    """Raise ValueError unless a number is finite and not below 0."""
    if not 0.0 <= value < math.inf:
        raise ValueError(f"{what} is {value}, expected a finite number of at least 0")


def zeros_like(params: Tree) -> Tree:
    """Zeros in the shape of a tree."""
    return tree_map(lambda p: array_namespace(p).zeros_like(p), params)


def counter(address: Address) -> Array:
    """0, int32 (), where the root key is."""
    xp = array_namespace(address[0])
    return xp.zeros((), dtype=xp.int32, device=device(address[0]))
