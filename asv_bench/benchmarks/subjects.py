"""Training steps and single kernels by name, as in "torch W1 FA" and "numpy conv_apply", by public names alone.

A step is that of a network of README's first lines: rb.chain, an algorithm, backend.compile; "torch W1 BP together"
takes several batches by one call, and "torch W1 BP bfloat16" and "torch W1 BP mixed" hold weights in 16 bits, mixed
ones beside copies in float32. A kernel is a face of a layer's linear map, in the layer that stands in the network.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import numpy as np

import ref_bioplaus as rb

N, CLASSES, TOGETHER = 128, 10, 8
LIBRARIES = tuple(name for name in ("numpy", "torch", "jax") if find_spec(name))
ALGORITHMS = ("BP", "FA", "DFA", "SN", "KP", "DTP")
FACES = ("apply", "transport", "correlate")
LAYERS = {
    "dense": ((1024,), lambda: rb.dense(1024), 64),
    "conv": ((16, 16, 64), lambda: rb.conv(96, 3), 16),
    "local": ((16, 16, 32), lambda: rb.locally_connected(32, 5, stride=2), 64),
}  # by name: the input's shape, the layer, the batch
KERNELS = tuple(f"{layer}_{face}" for layer in LAYERS for face in FACES)


def names() -> list[str]:
    """Every subject of the libraries that are installed; all can be had."""
    steps = [f"W1 {algorithm}" for algorithm in ALGORITHMS] + ["conv BP"]
    return [f"{library} {what}" for library in LIBRARIES for what in [*steps, *KERNELS]]


def subject(name: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """(a call of it, a function that waits for what was called). Raises KeyError for another name."""
    library, what, *algorithm = name.split()
    dtype = "bfloat16" if {*algorithm} & {"bfloat16", "mixed"} else "float32"
    backend = rb.backends.get(library, dtype=dtype, kernels="native")
    return step(backend, what, *algorithm) if algorithm else (kernel(backend, what), backend.synchronize)


def network(name: str) -> rb.Network:
    """The 784-256x5-10 of W1, the 3072-1024x3-10 of W2, or a small convolutional one."""
    if name in ("W1", "W2"):
        inputs, units, depth = {"W1": (784, 256, 5), "W2": (3072, 1024, 3)}[name]
        return rb.chain((inputs,), *[(rb.dense(units), rb.bias, rb.tanh)] * depth, (rb.dense(CLASSES), rb.bias))
    return rb.chain(
        (16, 16, 3), (rb.conv(32, 3), rb.bias, rb.relu), (rb.conv(32, 3, stride=2), rb.bias, rb.relu, rb.flatten),
        (rb.dense(CLASSES), rb.bias),
    )  # fmt: skip


def algorithm(name: str, net: rb.Network, mixed: bool = False):
    """An algorithm with Adam, for a network; mixed: which learns in float32 whatever the network's dtype."""
    loss, optimizer = rb.losses.cross_entropy(), rb.optimizers.adam(1e-4)
    optimizer = rb.optimizers.in_float32(optimizer) if mixed else optimizer
    make = {
        "BP": rb.algorithms.backprop,
        "FA": rb.algorithms.feedback_alignment,
        "DFA": rb.algorithms.direct_feedback_alignment,
        "SN": rb.algorithms.sign_symmetry,
        "KP": rb.algorithms.kolen_pollack,
    }
    if name == "DTP":
        return rb.algorithms.dtp(net, loss, optimizer, rb.optimizers.adam(1e-4))
    return make[name](net, loss, optimizer)


def step(backend, name: str, by: str, how: str = "") -> tuple[Callable[[], None], Callable[[], None]]:
    """A training step, which goes on from where the last one came to. how: see above."""
    net = network(name).with_kernels(backend.kernels).with_dtype(backend.dtype)
    made = algorithm(by, net, mixed=how == "mixed")
    random = np.random.default_rng(1)
    x = random.standard_normal((N, *net[0].out_shape)).astype("float32")
    given, options = (x, np.eye(CLASSES, dtype="float32")[random.integers(0, CLASSES, N)]), {}
    if how == "together":
        given, options = tuple(np.stack([a] * TOGETHER) for a in given), {"steps": TOGETHER}
    batch = backend.batch(*given)
    run = backend.compile(made.modes[made.schedule(0, 0)[0]], donate=True, keep=("loss",), **options)
    kept = {"state": made.init(backend.key(0))}

    def once():
        kept["state"], _ = run(kept["state"], batch)

    def wait():
        backend.synchronize()
        backend.to_numpy(kept["state"].t)  # comes with the rest of the step

    return once, wait


def kernel(backend, name: str) -> Callable[[], None]:
    """A face of a layer's linear map, of random arrays."""
    layer, face = name.split("_")
    shape, part, batch = LAYERS[layer]
    linear = rb.chain(shape, (part(),)).with_kernels(backend.kernels)[1].linear
    random = np.random.default_rng(0)
    shapes = {"W": linear.weight_shape, "x": (batch, *linear.in_shape), "u": (batch, *linear.out_shape)}
    given = {"apply": "Wx", "transport": "Wu", "correlate": "xu"}[face]
    arrays = [backend.asarray(random.standard_normal(shapes[which]), "float32") for which in given]
    run = backend.wrap(getattr(linear, face))
    return lambda: done(run(*arrays))


def yardstick(library: str) -> Callable[[], None]:
    """A product of matrices in the library itself, which no commit of the package changes."""
    a, b = np.random.default_rng(2).standard_normal((2, 448, 448)).astype("float32")

    def in_torch():
        import torch

        return partial(torch.mm, torch.from_numpy(a), torch.from_numpy(b))

    def in_jax():
        import jax

        return partial(jax.jit(jax.numpy.matmul), jax.numpy.asarray(a), jax.numpy.asarray(b))

    product = {"numpy": lambda: partial(np.matmul, a, b), "torch": in_torch, "jax": in_jax}[library]()
    return lambda: done(product())


def done(array) -> None:
    """Wait for an array of a library that does not."""
    if hasattr(array, "block_until_ready"):
        array.block_until_ready()
