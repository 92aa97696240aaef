"""Where learning starts.

An initializer takes a LinearMap, an address, a dtype and kernels, and returns weights in the layout of W. Fans are
TensorFlow's: a convolution has fan-in k^2 C_in and fan-out k^2 C_out, not divided by the stride; a locally connected
layer the same at each position.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from array_api_compat import array_namespace, device

from .kernels import Kernels
from .linear import Dense, LinearMap
from .network import Network, dtype_of
from .random import normal, tile_words, uniform
from .tree import named_leaves, unflatten
from .types import NO_PARAMS, Address, Array, DType, Key, LayerParams, Optimizer, Params, Pathway, State, Tree

Initializer = Callable[[LinearMap, Address, DType, Kernels], Array]


def gaussian(std: Callable[[LinearMap], float]) -> Initializer:
    """W ~ N(0, std(linear)^2)."""

    def draw(linear, address, dtype, kernels):
        return normal(address, linear.weight_shape, dtype, kernels) * std(linear)

    return draw


fan_in = gaussian(lambda linear: linear.fan_in**-0.5)
"""Variance 1 / n_in, for forward weights (Moskovitz et al. 2018, sec. 5.1)."""

fan_out = gaussian(lambda linear: linear.fan_out**-0.5)
"""Variance 1 / n_out, for feedback weights (Moskovitz et al. 2018, sec. 5.1)."""

he_fan_in = gaussian(lambda linear: (2.0 / linear.fan_in) ** 0.5)
"""Variance 2 / n_in (He et al. 2015)."""

he_fan_out = gaussian(lambda linear: (2.0 / linear.fan_out) ** 0.5)
"""Variance 2 / n_out: k^2 C_out of a convolution (Xiao et al. 2018, their public code)."""

glorot_normal = gaussian(lambda linear: (2.0 / (linear.fan_in + linear.fan_out)) ** 0.5)
"""Variance 2 / (n_in + n_out) (Glorot and Bengio 2010; Moskovitz et al. 2018, sec. 5.1)."""

fan_sum = gaussian(lambda linear: (linear.fan_in + linear.fan_out) ** -0.5)
"""Variance 1 / (n_in + n_out), for W and B (Akrout et al. 2019, their public code)."""


def naive(std: float = 0.1) -> Initializer:
    """One standard deviation everywhere (Moskovitz et al. 2018, fig. 2a); they print none: 0.1 is ours."""
    return gaussian(lambda linear: std)


def bounded(limit: Callable[[LinearMap], float]) -> Initializer:
    """W ~ U(-limit(linear), limit(linear))."""

    def draw(linear, address, dtype, kernels):
        return (2.0 * uniform(address, linear.weight_shape, dtype, kernels) - 1.0) * limit(linear)

    return draw


def within(limit: float) -> Initializer:
    """W ~ U(-limit, limit) everywhere."""
    return bounded(lambda linear: limit)


glorot_uniform = bounded(lambda linear: (6.0 / (linear.fan_in + linear.fan_out)) ** 0.5)
"""Variance 2 / (n_in + n_out), uniform: Keras' default (Glorot and Bengio 2010, eq. 16)."""


def zero(linear: LinearMap, address: Address, dtype: DType, kernels: Kernels) -> Array:
    """W = 0 (Nøkland 2016, for tanh and sigmoid units under DFA)."""
    root = address[0]
    return array_namespace(root).zeros(linear.weight_shape, dtype=dtype, device=device(root))


def orthogonal(linear: LinearMap, address: Address, dtype: DType, kernels: Kernels) -> Array:
    """All singular values 1: U V^T of a Gaussian's singular value decomposition (Lee et al. 2015, rand_ortho).

    W is taken as (n_out, n_in) where it has two axes, and as (everything else, out channels) otherwise.
    """
    g = normal(address, linear.weight_shape, dtype, kernels)
    xp = array_namespace(g)
    matrix = xp.reshape(g, (-1, g.shape[-1]))
    U, _, Vh = xp.linalg.svd(matrix, full_matrices=False)
    return xp.reshape(xp.matmul(U, Vh), g.shape)


class Given(NamedTuple):
    """In an initializer's place: weights, biases and statistics that are there already, of the whole forward path."""

    params: Params
    stats: Tree

    def on(self, network: Network, key: Address) -> tuple[Params, Tree]:
        """Copies in the network's dtype, where the key is. Raises ValueError where they are not the network's."""
        params, stats = forward_params(network, key, zero)
        like, there = {"params": params, "stats": stats}, dict(named_leaves(self._asdict()))
        wanted = dict(named_leaves(like))
        for name in (*wanted, *there):
            found, expected = (tuple(arrays[name].shape) if name in arrays else None for arrays in (there, wanted))
            if found != expected:
                raise ValueError(f"given weights: {name} has shape {found}, expected {expected} as the network has")
        xp = array_namespace(key[0])
        new = [xp.asarray(there[n], dtype=w.dtype, device=device(w), copy=True) for n, w in wanted.items()]
        tree = unflatten(like, new)
        return tree["params"], tree["stats"]


Start = Initializer | Given  # of the forward path


def given(params: Params, stats: Tree) -> Given:
    """Learning starts from these weights, biases and statistics: NumPy arrays, or arrays of the library that learns.

    Every algorithm takes it as its `initializer`, and draws its feedback weights as always.
    """
    return Given(params, stats)


def forward_params(network: Network, key: Address, initializer: Start = fan_in) -> tuple[Params, Tree]:
    """W_l from the initializer, biases 0, and BatchNorm's initial statistics; or those that are given."""
    if isinstance(initializer, Given):
        return initializer.on(network, key)
    dtype = dtype_of(network, key[0])
    params, stats = [], []
    for l, layer in enumerate(network.layers):
        W = draw(initializer, layer.linear, (*key, l), dtype, network.kernels) if layer.linear else None
        local = [op.init(key[0], dtype) for op in layer.local]
        params.append(LayerParams(W, tuple(p for p, _ in local)))
        stats.append(tuple(s for _, s in local))
    return tuple(params), tuple(stats)


def feedback_params(
    network: Network, key: Address, initializer: Initializer = fan_out, symmetric_output: bool = False
) -> Params:
    """B_l in the layout of W_l, for every layer that has other neurons below it.

    symmetric_output: the output layers keep no B, as their feedback is W itself.
    """
    dtype = dtype_of(network, key[0])
    B = [NO_PARAMS] * len(network)
    for l in network.feedback_layers:
        if not (symmetric_output and l in network.outputs):
            B[l] = LayerParams(draw(initializer, network[l].linear, (*key, l), dtype, network.kernels))
    return tuple(B)


def draw(initializer: Initializer, linear: LinearMap, address: Address, dtype: DType, kernels: Kernels) -> Array:
    """Initial weights of a layer, 0 where they could only ever read padding (a locally connected layer's border)."""
    return linear.existing(initializer(linear, address, dtype, kernels))


# Weights that are generated whenever they are needed, and never stored.

TILE = 2**21  # weights that exist at a time: 8 MiB in float32, and 16 MiB of random words


@dataclass(frozen=True)
class Columns(Dense):
    """Some columns of a fully connected W, with the fans of the whole: what an initializer is asked to draw."""

    width: int = 0

    weight_shape = property(lambda self: (self.n_out, self.width))


def check_feedback(name: str, feedback: str, initializer: Initializer) -> None:
    """Raise ValueError where feedback is neither "stored" nor "generated", or cannot be generated tile by tile."""
    if feedback not in ("stored", "generated"):
        raise ValueError(f'{name}: feedback="{feedback}" is unknown, expected "stored" or "generated"')
    if feedback == "generated" and initializer is orthogonal:
        raise ValueError(
            f'{name}: feedback="generated" draws each weight by itself, which `orthogonal` cannot: expected another '
            'initializer, or feedback="stored"'
        )


def generated_columns(
    initializer: Initializer, linear: Dense, address: Address, dtype: DType, kernels: Kernels, start: int | Array,
    width: int,
) -> Array:  # fmt: skip
    """Columns `start` to `start + width` of initializer(linear, address, dtype, kernels), bit for bit: (n_out, width).

    The initializer has to make every weight from the random numbers of that weight alone.
    """

    def words(key, first, n):
        return tile_words(key, linear.n_out, linear.n_in, start, width)

    part = Columns(linear.n_in, linear.n_out, width=width)
    return initializer(part, address, dtype, kernels._replace(random_words=words))


def generated_transport(
    u: Array, initializer: Initializer, linear: Dense, address: Address, dtype: DType, kernels: Kernels
) -> Array:
    """linear.transport(B, u) with B = initializer(linear, address, dtype, kernels), of which one tile exists at a time.

    u (N, n_out) -> (N, n_in). A tile is as many columns of B as hold TILE weights, one at least: no sum is split. The
    result is that of the stored B to the last bit where one tile is all of B or where products do not depend on how
    many columns they have, and to rounding elsewhere.
    """
    width = max(TILE // linear.n_out, 1)
    if width >= linear.n_in:
        return kernels.dense_transport(initializer(linear, address, dtype, kernels), u)

    def product(start, u, *arrays, width=width):
        given = iter(arrays)
        there = tuple(next(given) if hasattr(tag, "shape") else tag for tag in address)
        return kernels.dense_transport(generated_columns(initializer, linear, there, dtype, kernels, start, width), u)

    arrays = (u, *(tag for tag in address if hasattr(tag, "shape")))  # the root key, and a step's number
    rest = linear.n_in % width
    parts = kernels.each(product, list(range(0, linear.n_in - rest, width)), *arrays)
    last = [product(linear.n_in - rest, *arrays, width=rest)] if rest else []
    return array_namespace(u).concat([*parts, *last], axis=1)


def new_state(
    network: Network, key: Key, optimizer: Optimizer, initializer: Start = fan_in,
    feedback: Pathway | None = None,
) -> State:  # fmt: skip
    """The state before the first step, from a root key, int32 (2,)."""
    params, stats = forward_params(network, (key, "forward"), initializer)
    xp = array_namespace(key)
    t = xp.zeros((), dtype=xp.int32, device=device(key))
    memory = optimizer.init(params, (key, "optimizer"), network.kernels)
    return State(t, key, Pathway(params, memory), Pathway(()) if feedback is None else feedback, stats)
