"""The papers' modifications that act on weights or gradients: each takes an optimizer and returns one.

    batch_manhattan(sgd(1e-2))      constant_norm(adam(1e-3))      fixed_signs(adam(1e-3), start=2000)

They act on weights (W, and B where the feedback path has an optimizer), not on biases and BatchNorm, unless on="all".
The outermost wrapper acts first on the gradient and last on the weights.
"""

from collections.abc import Callable

from array_api_compat import array_namespace

from .network import Network, Trace
from .optimizers import check_not_negative, counter
from .random import key_at, normal
from .tree import named_leaves, tree_map, unflatten
from .types import Address, Array, LayerParams, Optimizer, Params, Tree


def batch_manhattan(optimizer: Optimizer, on: str = "weights") -> Optimizer:
    """Batch Manhattan: keep only the gradient's sign (Liao et al. 2015; Moskovitz et al. 2018, sec. 5.1).

    Choices: decay and momentum come after the sign, as in Xiao et al.'s public code.
    """

    def update(grads, memory, params, kernels):
        return optimizer.update(each(lambda g: array_namespace(g).sign(g), on, grads), memory, params, kernels)

    return Optimizer(optimizer.init, update)


def noisy_gradients(optimizer: Optimizer, strength: float = 1.0, on: str = "weights") -> Optimizer:
    """BP + Noise on dW: Gaussian noise of `strength` times each gradient's own variance (Moskovitz et al., sec. 5.3).

    Choices: strength 1 is the paper's "approximately equal" variance, which puts 45 degrees between noisy and true
    gradient; variance is the mean square over a layer's tensor; noise on the error signal itself is backprop's
    `noise_on_delta`.
    """
    check_not_negative("noisy_gradients: strength", strength)

    def init(params, address, kernels):
        return {"inner": optimizer.init(params, address, kernels), "count": counter(address), "key": key_at(address)}

    def update(grads, memory, params, kernels):
        key, count = memory["key"], memory["count"]
        names = unflatten(grads, [name for name, _ in named_leaves(grads)])

        def noisy(g, name):
            xp = array_namespace(g)
            size = xp.sqrt(strength * xp.mean(g * g))
            return g + size * normal((key, "noisy_gradients", name, count), g.shape, g.dtype, kernels)

        params, inner = optimizer.update(each(noisy, on, grads, names), memory["inner"], params, kernels)
        return params, {"inner": inner, "count": count + 1, "key": key}

    return Optimizer(init, update)


def noisy_delta_gradients(
    network: Network, trace: Trace, delta: tuple[Array, ...], grads: Params, strength: float, address: Address
) -> Params:
    """BP + Noise on delta: every W_l learns from delta_l plus noise of `strength` times its own mean square."""
    noisy = {}
    for l in network.weighted:
        xp = array_namespace(delta[l])
        size = xp.sqrt(strength * xp.mean(delta[l] * delta[l]))
        noise = normal((*address, "noisy_delta", l), delta[l].shape, delta[l].dtype, network.kernels)
        noisy[l] = network[l].linear.correlate(trace.x[l], delta[l] + size * noise) / delta[l].shape[0]
    return tuple(g._replace(W=noisy[l]) if l in noisy else g for l, g in enumerate(grads))


def align_to_random(optimizer: Optimizer, strength: float = 1e-3) -> Optimizer:
    """BP + Alignment: a penalty lambda sum (w - v)^2 for fixed random v (Moskovitz et al., eq. 9), lambda = strength.

    Choices: V_l is drawn once, normal, of the variance of W_l at the start.
    """
    check_not_negative("align_to_random: strength", strength)

    def init(params, address, kernels):
        def draw(W, l):
            xp = array_namespace(W)
            return normal((*address, "align_to_random", l), W.shape, W.dtype, kernels) * xp.sqrt(xp.mean(W * W))

        layers = tuple(LayerParams(None if p.W is None else l) for l, p in enumerate(params))
        V = each(draw, "weights", weights_of(params), layers)
        return {"inner": optimizer.init(params, address, kernels), "V": V}

    def update(grads, memory, params, kernels):
        V = memory["V"]
        penalised = each(lambda g, W, V: g + 2.0 * strength * (W - V), "weights", grads, params, V)  # (9)
        params, inner = optimizer.update(penalised, memory["inner"], params, kernels)
        return params, {"inner": inner, "V": V}

    return Optimizer(init, update)


def constant_norm(optimizer: Optimizer, on: str = "weights") -> Optimizer:
    """After each update rescale every W_l to its initial norm (Moskovitz et al. 2018, eq. 10). A zero W stays."""

    def init(params, address, kernels):
        chosen = params if on == "all" else weights_of(params)
        return {"inner": optimizer.init(params, address, kernels), "norm": each(norm, on, chosen)}

    def update(grads, memory, params, kernels):
        params, inner = optimizer.update(grads, memory["inner"], params, kernels)
        scaled = each(scaled_to, on, params, memory["norm"])  # (10)
        return scaled, {"inner": inner, "norm": memory["norm"]}

    return Optimizer(init, update)


def fixed_signs(optimizer: Optimizer, start: int, margin: float = 1e-6) -> Optimizer:
    """E/I: from update `start` on no weight changes its sign (Moskovitz et al. 2018, sec. 3.1 and 4).

    Choices: a weight that would cross zero is clipped to `margin` on its own side; a weight that is 0 at the freeze
    takes the sign it started with, and + where that was 0 too. Raises ValueError for a margin that is not positive and
    normal in float32 (JAX flushes subnormal numbers to 0).
    """
    check_not_negative("fixed_signs: start", start)
    if not margin >= 2.0**-126:
        raise ValueError(f"fixed_signs: margin is {margin}, expected at least 1.2e-38, the smallest normal float32")

    def init(params, address, kernels):
        signs = each(lambda W: sign_or(W, array_namespace(W).ones_like(W)), "weights", weights_of(params))
        return {"inner": optimizer.init(params, address, kernels), "count": counter(address), "signs": signs}

    def update(grads, memory, params, kernels):
        count, signs = memory["count"], memory["signs"]
        params, inner = optimizer.update(grads, memory["inner"], params, kernels)

        def clip(W, s):
            xp = array_namespace(W)
            return xp.where(count >= start, s * xp.maximum(s * W, xp.full_like(W, margin)), W)

        def follow(s, W):
            return array_namespace(W).where(count < start, sign_or(W, s), s)

        moved = each(clip, "weights", params, signs)
        signs = each(follow, "weights", signs, moved)
        return moved, {"inner": inner, "count": count + 1, "signs": signs}

    return Optimizer(init, update)


def frozen_units(optimizer: Optimizer, network: Network, l: int, first: int) -> Optimizer:
    """Layer l's units from `first` on keep their weights and biases, bit for bit, whatever the optimizer does.

    The auxiliary output z of AO-SDTP (Bartunov et al. 2018, eq. 3). Layer l must be dense, as its output is a vector.
    """
    if len(network[l].out_shape) != 1:
        raise ValueError(f"layer {l} ({network[l].name}) has output {network[l].out_shape}, expected a vector of units")

    def update(grads, memory, params, kernels):
        moved, memory = optimizer.update(grads, memory, params, kernels)

        def frozen(new, old):
            return array_namespace(new).concat([new[:first, ...], old[first:, ...]], axis=0)

        return tuple(tree_map(frozen, p, params[k]) if k == l else p for k, p in enumerate(moved)), memory

    return Optimizer(optimizer.init, update)


# Shared by the wrappers


def each(f: Callable, on: str, params: Params, *rest: Tree) -> Params:
    """params with f(tensor, *the same tensor of the other trees) on weights, or on every tensor with on="all"."""
    if on == "all":
        return tree_map(f, params, *rest)
    if on != "weights":
        raise ValueError(f'on="{on}" is unknown, expected "weights" or "all"')
    return tuple(
        p if p.W is None else p._replace(W=f(p.W, *(r.W for r in others)))
        for p, *others in zip(params, *rest, strict=True)
    )


def weights_of(params: Params) -> Params:
    """params without biases and BatchNorm."""
    return tuple(LayerParams(p.W) for p in params)


def norm(W: Array) -> Array:
    """The Euclidean norm of a tensor taken as a vector, ()."""
    xp = array_namespace(W)
    return xp.sqrt(xp.sum(W * W))


def scaled_to(W: Array, target: float | Array) -> Array:
    """W at another norm; a zero W as it is."""
    xp = array_namespace(W)
    n = norm(W)
    return W * xp.where(n == 0, xp.ones_like(n), target / xp.where(n == 0, xp.ones_like(n), n))


def sign_or(W: Array, otherwise: Array) -> Array:
    """The sign of W, and `otherwise` where W is 0."""
    xp = array_namespace(W)
    return xp.where(W == 0, otherwise, xp.sign(W))
