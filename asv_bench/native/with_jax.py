"""The opponent on JAX: the same networks with jax.grad and optax, the whole step jitted, its state donated.

Forms: "jit"; with dropout also "jit, rbg", which draws masks from the faster generator.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from ref_bioplaus.linear import Convolution, Dense
from ref_bioplaus.local import (  # fmt: skip
    BatchNorm,
    Bias,
    Dropout,
    Flatten,
    GlobalAveragePool,
    LocalOperation,
    MaxPool,
    Nonlinearity,
)
from ref_bioplaus.network import Network
from ref_bioplaus.tree import tree_map
from ref_bioplaus.types import Params

from ..workloads import Workload

ACTIVATIONS: dict[str, Callable] = {"tanh": jnp.tanh, "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}
IMAGES = ("NHWC", "HWIO", "NHWC")
PRECISIONS = {"ieee": "highest", "tf32": "tensorfloat32", "bf16": "bfloat16"}


def forms(network: Network) -> tuple[str, ...]:
    """The forms that make sense for a network."""
    drops = any(isinstance(op, Dropout) for layer in network.layers for op in layer.local)
    return ("jit", "jit, rbg") if drops else ("jit",)


class JaxTraining:
    """A network learning by jax.grad; called as workloads.Training is. params: where to start, as NumPy arrays."""

    def __init__(
        self, workload: Workload, network: Network, params: Params, form: str = "jit", device: Any = None,
        dtype: str = "float32", precision: str = "ieee",
    ):  # fmt: skip
        device = device or jax.devices()[0]
        optimizer = optax.adam(workload.eta) if workload.adam else optax.sgd(workload.eta, 0.9)
        x, labels = workload.data()
        self.x = jax.device_put(jnp.asarray(x, dtype), device)
        self.y = jax.device_put(jnp.asarray(labels), device)
        p: Any = jax.device_put([{"W": q.W, "local": list(q.local)} for q in tree_map(np.asarray, params)], device)
        statistics = [
            [(jnp.zeros_like(q["beta"]), jnp.ones_like(q["beta"])) if "beta" in q else () for q in layer["local"]]
            for layer in p
        ]
        key = jax.random.key(0, impl="rbg" if "rbg" in form else "threefry2x32")

        def loss_of(p, statistics, key, x, y):
            return forward(network, p, statistics, key, x, y)

        def step(state, x, y):  # the batch is an argument: a constant would be folded into the program
            p, memory, statistics, key = state
            key, mine = jax.random.split(key)
            (loss, statistics), g = jax.value_and_grad(loss_of, has_aux=True)(p, statistics, mine, x, y)
            updates, memory = optimizer.update(g, memory, p)
            return (optax.apply_updates(p, updates), memory, statistics, key), loss

        self.precision = PRECISIONS[precision]
        self.state = jax.device_put((p, optimizer.init(p), statistics, key), device)
        self.step = jax.jit(step, donate_argnums=0)
        self.loss: Any = None

    def __call__(self) -> None:
        """One step."""
        with jax.default_matmul_precision(self.precision):
            self.state, self.loss = self.step(self.state, self.x, self.y)

    def wait(self) -> None:
        """Wait for the device."""
        jax.block_until_ready(self.state)


def forward(network: Network, params, statistics, key, x, y):
    """The mean loss of a batch, and BatchNorm's new running statistics."""
    h, moved = [x], [statistics[0]]
    for l in range(1, len(network)):
        layer = network[l]
        value = sum((h[k] for k in layer.inputs[1:]), start=h[layer.inputs[0]])
        if layer.linear is not None:
            value = synapses(layer.linear, params[l]["W"], value)
        new = []
        for i, op in enumerate(layer.local):
            value, s = operation(op, params[l]["local"][i], statistics[l][i], jax.random.fold_in(key, l * 8 + i), value)
            new.append(s)
        h.append(value)
        moved.append(new)
    return optax.softmax_cross_entropy_with_integer_labels(h[-1], y).mean(), moved


def synapses(linear, W, x):
    """u = W x."""
    if isinstance(linear, Dense):
        return x @ W.T
    window = linear.window
    if isinstance(linear, Convolution):
        return lax.conv_general_dilated(x, W, window.stride, window.padding, dimension_numbers=IMAGES)
    (height, width), (kh, kw), (sh, sw) = window.out_size, window.kernel, window.stride
    padded = jnp.pad(x, ((0, 0), *window.padding, (0, 0)))
    columns = jnp.concatenate(
        [padded[:, i : i + sh * height : sh, j : j + sw * width : sw][:, :height, :width]
         for i in range(kh) for j in range(kw)], axis=-1,
    )  # fmt: skip
    return jnp.einsum("nhwk,hwko->nhwo", columns, W)


def operation(op: LocalOperation, p, s, key, x):
    """y, new statistics. Raises ValueError for an operation that no workload has."""
    if isinstance(op, Bias):
        return x + p["b"], s
    if isinstance(op, Nonlinearity):
        return ACTIVATIONS[op.name](x), s
    if isinstance(op, BatchNorm):
        axes = tuple(range(x.ndim - 1))
        mean, var = x.mean(axes), x.var(axes)
        y = (x - mean) * (p["gamma"] * lax.rsqrt(var + op.epsilon)) + p["beta"]
        m = x.size // x.shape[-1]
        new = (mean, var * (m / max(m - 1, 1)))
        return y, tuple(old + op.rate * (lax.stop_gradient(n) - old) for old, n in zip(s, new, strict=True))
    if isinstance(op, Dropout):
        keep = 1.0 - op.probability
        return jnp.where(jax.random.bernoulli(key, keep, x.shape), x / keep, 0), s
    if isinstance(op, MaxPool):
        shape = (1, *op.window.kernel, 1), (1, *op.window.stride, 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, *shape, ((0, 0), *op.window.padding, (0, 0))), s
    if isinstance(op, GlobalAveragePool):
        return x.mean((1, 2)), s
    if isinstance(op, Flatten):
        return x.reshape(x.shape[0], -1), s
    if type(op) is LocalOperation:
        return x, s
    raise ValueError(f"{type(op).__name__} has no native form here: add it to asv_bench/native/with_jax.py")
