"""The table of settings: options of algorithms, optimizers, modifications, losses and layers away from their defaults.

Beside the cases, whose rows and optimizers leave most options alone. A setting has several options at once, each with a
value that one step shows: an implementation that ignores one of them is found (options.py says by which check).
Everything that a setting calls is looked up when it is built.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import ref_bioplaus as rb
from ref_bioplaus import algorithms, initializers, inverses, local, losses, modifications, optimizers
from ref_bioplaus.algorithms import target_propagation as tp
from ref_bioplaus.conformance.cases.cases import Moment, drawn_inputs, mid_learning, root
from ref_bioplaus.conformance.cases.networks import CLASSES, convolutional_chain, detector, fully_connected, pyramid
from ref_bioplaus.kernels import PORTABLE, Kernels
from ref_bioplaus.network import Network
from ref_bioplaus.random import words
from ref_bioplaus.registry import row
from ref_bioplaus.types import Algorithm, Loss, Optimizer, State, Step

HERE = (Moment(6, 5, 3), Moment(2**20, 40, 70))  # two ordinary moments
N = 5


class Setting(NamedTuple):
    """An algorithm with options of its own on a small network."""

    id: str  # "feedback-alignment/FC, symmetric output": the algorithm's row, the network, what is set
    net: Callable[[], Network]
    rule: Callable[[Network], Algorithm]
    asks: tuple[str, ...] = ("learn",)  # modes to take one step of, "init" and "predict"
    moments: tuple[Moment, ...] = HERE
    # "one-hot"; "sizes": any numbers; "shares": from 0 to 1; "weighted": one-hot times numbers; "boxes": of detection
    targets: str = "one-hot"
    scale: float = 1.0  # of the inputs
    dtype: str = "float64"

    @property
    def row(self) -> str:
        """The registry's, among whose checks it is counted."""
        return self.id.partition("/")[0]

    def network(self, kernels: Kernels = PORTABLE) -> Network:
        """The network, in the setting's dtype."""
        return self.net().with_dtype(self.dtype).with_kernels(kernels)

    def build(self, kernels: Kernels = PORTABLE) -> Algorithm:
        """The algorithm."""
        return self.rule(self.network(kernels))

    def start(self, seed: int) -> State:
        """A state in mid-learning, as Case.start."""
        state = self._replace(dtype="float64").build().init(root(seed))
        return mid_learning(state, (root(seed), self.id), self.dtype)

    def batch(self, seed: int, n: int = N) -> tuple[np.ndarray, np.ndarray]:
        """x (n, *in_shape), of which the first sample is 0, and y (n, classes or more): NumPy, held by every dtype."""
        if self.targets == "boxes":
            return self.scale * drawn_inputs(self, seed, n), boxes((root(seed), self.id, "y", n), n, self.network())
        high, low = words((root(seed), self.id, "y", n), (n, CLASSES))
        eighths = high % 8 / 8.0  # 0 to 7/8
        one_hot = np.eye(CLASSES)[low[:, 0] % CLASSES]
        kinds = {"sizes": 2.0 * eighths - 1.0, "shares": eighths, "weighted": one_hot * (2.0 * eighths[:, :1])}
        return self.scale * drawn_inputs(self, seed, n), kinds.get(self.targets, one_hot)


def boxes(address: tuple, n: int, network: Network) -> np.ndarray:
    """Targets of losses.detection, (n, ..., 6): the classes of anchors, ignored ones, background, boxes."""
    *anchors, units = network[network.L].out_shape
    high, low = words(address, (n, *anchors, 6))
    label = low[..., :1] % (units - 2) - 2.0
    boxed = (label >= 0.0) * 1.0
    return np.concatenate([label, boxed, boxed * (high[..., 2:] % 16 / 8.0 - 1.0)], axis=-1)


def at(*counts: int) -> tuple[Moment, ...]:
    """Moments of some numbers of updates, each at another iteration."""
    return tuple(Moment(3 * count + 1, count, count) for count in counts)


# Networks


def small() -> Network:
    """One hidden layer."""
    return rb.chain((5,), (rb.dense(6), rb.bias, rb.tanh), (rb.dense(CLASSES), rb.bias))


def single() -> Network:
    """No hidden layer: nothing has a feedback weight."""
    return rb.chain((5,), (rb.dense(CLASSES), rb.bias))


def branching() -> Network:
    """Dense layers, a population that feeds two of them, and joins of two and of three."""
    net = rb.Builder((5,))
    x = net.add(rb.dense(6), rb.bias, rb.tanh)
    y = net.add(rb.dense(6), rb.bias, rb.sigmoid, inputs=(x,))
    z = net.add(rb.dense(6), rb.bias, rb.tanh, inputs=(x,))
    net.add(rb.tanh, inputs=(x, y, z))
    net.add(rb.dense(CLASSES), rb.bias)
    return net.build()


def pooled_averages() -> Network:
    """Windows padded by a pair and by a number, at strides of their own, that leave pixels over; averages, BatchNorm,
    dropout, and a nonlinearity that no library has under that name."""
    softsign = local.nonlinearity("softsign", lambda u: u / (1.0 + abs(u)), lambda y: (1.0 - abs(y)) * (1.0 - abs(y)))
    return rb.chain(
        (8, 7, 2),
        (rb.conv(3, (3, 2), stride=(1, 2), padding=(2, 1)), rb.bias, local.batch_norm_with(rate=0.3, epsilon=0.05)),
        (rb.average_pool((3, 2), stride=(2, 1), padding=1), softsign),
        (rb.locally_connected(4, (2, 3), stride=(2, 1), padding=(1, 0)), rb.unit_bias, rb.sigmoid, rb.flatten),
        (rb.dense(5), rb.bias, rb.dropout(0.25), rb.tanh),
        (rb.dense(CLASSES), rb.bias),
    )


def pooled_maxima() -> Network:
    """Windows without padding, maxima whose windows overlap and are padded, and a mean over what is left."""
    return rb.chain(
        (9, 7, 2),
        (rb.conv(3, (2, 3), stride=(2, 1), padding="valid"), rb.bias, rb.relu),
        rb.max_pool((2, 3), stride=1, padding=(0, 1)),
        (rb.locally_connected(4, 2, padding="valid"), rb.bias, rb.rectified_tanh),
        rb.average_pool(2),
        (rb.conv(3, 1), local.batch_norm_with(0.5, 0.2), rb.global_average_pool),
        (rb.dense(CLASSES), rb.bias),
    )


def invertible() -> Network:
    """A chain that is pooled behind its first layer, which a dense inverse alone can undo."""
    return rb.chain(
        (7, 5, 2),
        (rb.conv(3, (3, 2)), rb.bias, rb.tanh),
        rb.max_pool(2),
        (rb.locally_connected(4, (2, 3), stride=2), rb.unit_bias, rb.rectified_tanh, rb.flatten),
        (rb.dense(CLASSES), rb.bias),
    )


def cells() -> Network:
    """An anchor at every pixel of its output: logits of the classes and four offsets."""
    return rb.chain((5, 4, 2), (rb.conv(3, (2, 3)), rb.bias, rb.tanh), (rb.conv(CLASSES + 4, 2, stride=2), rb.bias))


def images() -> Network:
    """Two convolutions, the first of which leaves an image to the second."""
    return rb.chain(
        (5, 4, 2),
        (rb.conv(3, (2, 3)), rb.bias, rb.tanh),
        (rb.conv(2, 3, stride=2), rb.bias, rb.tanh, rb.flatten),
        (rb.dense(CLASSES), rb.bias),
    )


# Losses and rules


def task() -> Loss:
    """The usual loss."""
    return losses.cross_entropy()


def plain() -> Optimizer:
    """Gradient descent."""
    return optimizers.sgd(0.05)


def by(make: Callable[[], Optimizer], **options: Any) -> Callable[[Network], Algorithm]:
    """Backpropagation with an optimizer."""
    return lambda net: algorithms.backprop(net, task(), make(), **options)


def in_tiles(algorithm: Algorithm, weights: int) -> Algorithm:
    """The algorithm where no more generated weights than so many may exist at a time: large layers on small ones."""

    def within(step: Step) -> Step:
        def run(state, batch):
            with mock.patch.object(initializers, "TILE", weights):
                return step(state, batch)

        return run

    return algorithm._replace(modes={name: within(step) for name, step in algorithm.modes.items()})


# The table

STEPS: dict[str, Callable[[], Optimizer]] = {  # optimizers, by the schedules and options that they are given
    "sgd, warmed up, Nesterov, decoupled on all": lambda: optimizers.sgd(
        optimizers.warm_up(optimizers.piecewise((0.5, 0.125), (8,)), 6), 0.75, nesterov=True, decay=0.25,
        form="decoupled", on="all",
    ),
    "sgd, staircase, coupled": lambda: optimizers.sgd(
        optimizers.staircase(0.5, 0.25, 4), 0.5, decay=0.125, form="coupled"
    ),
    "sgd without momentum": lambda: optimizers.sgd(0.25),
    "adam, warmed up, epsilon-hat, coupled on all": lambda: optimizers.adam(
        optimizers.warm_up(0.25, 4), 0.75, 0.875, 0.0625, epsilon_form="hat", decay=0.125, form="coupled", on="all"
    ),
    "adam, piecewise, on all": lambda: optimizers.adam(
        optimizers.piecewise((0.25, 0.0625, 0.125), (3, 8)), epsilon=0.125, decay=0.125, on="all"
    ),
    "rmsprop, staircase, decoupled on all": lambda: optimizers.rmsprop(
        optimizers.staircase(0.25, 0.5, 4), rho=0.75, momentum=0.5, epsilon=0.0625, decay=0.25, form="decoupled",
        on="all",
    ),
    "rmsprop, coupled": lambda: optimizers.rmsprop(0.125, decay=0.25, form="coupled"),
    "by layer": lambda: optimizers.by_layer(
        optimizers.sgd(0.25, 0.5, decay=0.125), {2: optimizers.adam(0.125, on="all", decay=0.125)}
    ),
}  # fmt: skip
WRAPPED: dict[str, Callable[[], Optimizer]] = {  # modifications
    "Batch Manhattan on all": lambda: modifications.batch_manhattan(optimizers.sgd(0.25, 0.5), on="all"),
    "noisy gradients 0.25 on all": lambda: modifications.noisy_gradients(plain(), 0.25, on="all"),
    "alignment 0.25": lambda: modifications.align_to_random(plain(), 0.25),
    "constant norm on all": lambda: modifications.constant_norm(optimizers.adam(0.125, epsilon=0.125), on="all"),
    "signs fixed from 6 on": lambda: modifications.fixed_signs(optimizers.sgd(0.5), 6, margin=0.125),
    "wrapped thrice": lambda: modifications.fixed_signs(
        modifications.constant_norm(modifications.noisy_gradients(optimizers.adam(0.125, epsilon=0.125))), 4, 0.03125
    ),
}
CORNERS = at(0, 2, 3, 4, 5, 6, 7, 8, 12, 2**20)


def settings() -> Iterator[Setting]:
    """Every setting, built by nothing yet."""
    for name, make in (STEPS | WRAPPED).items():
        yield Setting(
            f"backprop/small, {name}", small, by(make), ("learn", "init") if "thrice" in name else ("learn",), CORNERS
        )
    yield Setting("backprop/small, noise on delta 0.25", small, by(plain, noise_on_delta=0.25))
    yield Setting("backprop/averages", pooled_averages, by(plain), ("learn", "predict"))
    yield Setting("backprop/maxima", pooled_maxima, by(plain), ("learn", "predict"))
    yield Setting("backprop/branching, targets weighted", branching, by(plain), targets="weighted")
    yield Setting("backprop/single, large outputs", single, by(plain), scale=1024.0)
    yield Setting(
        "backprop/small, sigmoid cross-entropy", small,
        lambda net: algorithms.backprop(net, losses.sigmoid_cross_entropy(), plain(), initializers.within(0.25)),
        ("learn", "init"), targets="shares",
    )  # fmt: skip
    yield Setting(
        "kolen-pollack/small, squared error", small,
        lambda net: algorithms.kolen_pollack(
            net, losses.squared_error(), optimizers.rmsprop(0.05, decay=0.125), initializers.naive(0.25),
            initializers.glorot_uniform,
        ),
        ("learn", "init"), targets="sizes",
    )  # fmt: skip
    yield Setting(
        "backprop/small, focal", small, lambda net: algorithms.backprop(net, losses.focal(1.5, 0.625), plain()),
    )  # fmt: skip
    yield Setting(
        "backprop/small, smooth L1", small, lambda net: algorithms.backprop(net, losses.smooth_l1(0.5), plain()),
        targets="sizes",
    )  # fmt: skip
    yield Setting(
        "backprop/cells, detection", cells,
        lambda net: algorithms.backprop(net, losses.detection(CLASSES, 1.5, 0.625, 0.25), plain()), targets="boxes",
    )  # fmt: skip
    yield Setting(
        "kolen-pollack/single", single, lambda net: algorithms.kolen_pollack(net, task(), optimizers.adam(0.05))
    )
    yield from feedback()
    yield from pyramids()
    yield from mirrors()
    yield from inverted()


def of_row(name: str) -> Callable[[Network], Algorithm]:
    """A row of the registry as it is."""
    return lambda net: row(name).build(net, task(), plain())


def generated(weights: int, **options: Any) -> Callable[[Network], Algorithm]:
    """DFA whose feedback weights are never stored, and exist so many at a time."""
    return lambda net: in_tiles(
        algorithms.direct_feedback_alignment(
            net, task(), plain(), feedback_initializer=initializers.fan_sum, feedback="generated", **options
        ),
        weights,
    )


def dense_feedback(kept: str) -> Callable[[Network], Algorithm]:
    """DenseFA, stored or generated in tiles."""
    return lambda net: in_tiles(
        algorithms.dense_feedback_alignment(
            net, task(), plain(), initializers.fan_sum, initializers.he_fan_out, initializers.glorot_normal, kept
        ),
        20,
    )


def normed(layers: str) -> Callable[[Network], Algorithm]:
    """WM whose feedback weights keep a norm."""
    return lambda net: algorithms.weight_mirror(
        net, task(), plain(), eta_B=0.25, norm=lambda linear: 3.0 * linear.fan_in**-0.5, layers=layers,
        mirror_per_batch=3,
    )  # fmt: skip


def feedback() -> Iterator[Setting]:
    """Random and sign-symmetric feedback."""
    yield Setting(
        "feedback-alignment/FC, symmetric output", fully_connected,
        lambda net: algorithms.feedback_alignment(
            net, task(), plain(), initializers.glorot_uniform, initializers.he_fan_out, symmetric_output=True
        ),
        ("learn", "init"),
    )  # fmt: skip
    yield Setting(
        "dfa/branching, exact skips", branching,
        lambda net: algorithms.direct_feedback_alignment(
            net, task(), plain(), initializers.he_fan_out, initializers.glorot_uniform, skips="exact"
        ),
        ("learn", "init"),
    )  # fmt: skip
    yield Setting("dfa/branching, exact skips, generated", branching, generated(4 * CLASSES, skips="exact"))
    yield Setting("dfa/images, generated", images, generated(1000))
    yield Setting("dense-fa/FC, stored", fully_connected, dense_feedback("stored"), ("init",))
    yield Setting("dense-fa/FC, generated", fully_connected, dense_feedback("generated"))
    yield Setting(
        "frsf/FC, symmetric output", fully_connected,
        lambda net: algorithms.sign_symmetry(
            net, task(), plain(), algorithms.initial_magnitude, initializers.he_fan_in, initializers.he_fan_out,
            symmetric_output=True,
        ),
        ("learn", "init"),
    )  # fmt: skip


def pyramids() -> Iterator[Setting]:
    """Layers that are enlarged and concatenated, and synapses that several images share: a parameter exists once."""
    yield Setting("backprop/pyramid", pyramid, by(plain), ("learn", "init", "predict"))
    yield Setting(
        "xiao/detector", detector,
        lambda net: algorithms.sign_symmetry(
            net, losses.detection(CLASSES - 1), optimizers.adam(0.05), algorithms.fan_out_scale, symmetric_output=True
        ),
        targets="boxes",
    )  # fmt: skip
    for name in ("kolen-pollack", "dfa", "dense-fa"):
        yield Setting(f"{name}/pyramid", pyramid, of_row(name))
    yield Setting("weight-mirror/pyramid", pyramid, of_row("weight-mirror"), ("engaged", "mirror"))


def mirrors() -> Iterator[Setting]:
    """Weight mirrors."""
    yield Setting(
        "weight-mirror/FC, sizes", fully_connected,
        lambda net: algorithms.weight_mirror(
            net, task(), plain(), eta_B=0.25, lambda_B=0.125, sigma=0.5, bias_blocking=True, mirror_per_batch=0.5,
            initial_mirroring=2, initializer=initializers.he_fan_in, feedback_initializer=initializers.he_fan_out,
            symmetric_output=True,
        ),
        ("engaged", "mirror", "init"),
    )  # fmt: skip
    yield Setting("weight-mirror/norm, turns", fully_connected, normed("turns"), ("mirror_3",))
    yield Setting("weight-mirror/norm, together", images, normed("together"), ("mirror",))


def inverted() -> Iterator[Setting]:
    """Target propagation."""
    yield Setting(
        "dtp/chain, dense inverse", invertible,
        lambda net: algorithms.dtp(
            net, task(), plain(), optimizers.adam(0.05), alpha=0.25, noise={3: 0.25, 4: 0.5},
            schedule=tp.in_turn, inverse=inverses.dense_inverse, over_units="mean", initializer=initializers.he_fan_in,
            inverse_initializer=initializers.he_fan_out,
        ),
        ("parallel", "init"),
    )  # fmt: skip
    yield Setting(
        "sdtp/chain, dense inverse", invertible,
        lambda net: algorithms.sdtp(
            net, task(), plain(), optimizers.by_layer(plain(), {4: optimizers.adam(0.05)}), noise=0.25,
            inverse=inverses.dense_inverse,
        ),
        ("inverse",),
    )  # fmt: skip
    yield Setting(
        "sdtp/conv, wider inverse, own neurons", convolutional_chain,
        lambda net: algorithms.sdtp(
            net, task(), plain(), plain(), noise=0.5,
            inverse=inverses.with_neurons(inverses.wider_inverse((5, 3)), "own-softmax", bias=False),
        ),
        ("inverse",),
    )  # fmt: skip
    yield Setting(
        "tp/FC, noise preserved", fully_connected,
        lambda net: tp.target_propagation(
            net, losses.sigmoid_cross_entropy(), plain(), plain(), tp.propagated, tp.noise_preserving, noise=0.25
        ),
        ("parallel",), targets="shares",
    )  # fmt: skip
    yield Setting(
        "ao-sdtp/FC, sigmoid", lambda: fully_connected(CLASSES + 2),
        lambda net: algorithms.ao_sdtp(
            net, losses.with_auxiliary_output(losses.sigmoid_cross_entropy(), CLASSES, rb.sigmoid),
            optimizers.adam(0.05, decay=0.125, on="all"), plain(), noise=0.25,
        ),
        ("parallel",), targets="shares",
    )  # fmt: skip
