"""The random numbers that one step draws, as arrays: somebody without our generator can still compute the step.

Numbers live at addresses. Those that the library is known to draw at are listed here by name; the addresses at which a
step really drew are seen by kernels that take note. A step that drew anywhere else needs the generator.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ref_bioplaus.algorithms.sign_symmetry import magnitudes_at
from ref_bioplaus.conformance.cases.cases import Stepped
from ref_bioplaus.initializers import fan_out
from ref_bioplaus.kernels import PORTABLE
from ref_bioplaus.layouts import Axes, places, plain, weights
from ref_bioplaus.local import Dropout
from ref_bioplaus.network import Network
from ref_bioplaus.random import bernoulli, key_at, normal
from ref_bioplaus.types import Address, Batch, State


class Draw(NamedTuple):
    """Numbers at an address: where they are used, what they are and their axes."""

    name: str
    address: Address
    numbers: np.ndarray
    axes: Axes


def drawn(case: Stepped, mode: str, state: State, x: np.ndarray, y: np.ndarray) -> tuple[list[Draw], bool]:
    """The random numbers of one step in the order of their names, and whether these are all that it draws.

    case: in float64, as the state is.
    """
    seen: set[tuple[int, ...]] = set()

    def noted(key, start, n):
        seen.add(words_of(key))
        return PORTABLE.random_words(key, start, n)

    case.build(PORTABLE._replace(random_words=noted)).modes[mode](state, Batch(x, y))
    used = {words_of(key_at(draw.address)): draw for draw in known(case.network(), state, x.shape[0])}
    return [draw for words, draw in used.items() if words in seen], seen <= used.keys()


def words_of(key: np.ndarray) -> tuple[int, ...]:
    """A key as plain numbers."""
    return tuple(int(word) for word in key)


def known(network: Network, state: State, n: int) -> Iterator[Draw]:
    """Everything that a step of any algorithm may draw."""
    layers = places(network)

    def gaussian(name, address, shape, axes):
        return Draw(f"random/{name}", address, normal(address, shape, np.float64), axes)

    for l, layer in enumerate(network.layers):
        for i, operation in enumerate(layer.local):
            if isinstance(operation, Dropout):
                mask: Address = (state.key, "step", state.t, l, i)
                kept = bernoulli(mask, 1.0 - operation.probability, (n, *operation.in_shape)).astype(np.float64)
                yield Draw(f"random/dropout/{l}/{i}", mask, kept, layers[l].operations[i].behind("N", n))
    for l in network.weighted:
        linear, below = network[l].linear, network[network[l].inputs[0]].out_shape
        axes, arriving = weights(linear, layers[l].arriving), layers[l].arriving.behind("N", n)
        address: Address = magnitudes_at(state, l)
        magnitudes = np.abs(fan_out(linear, address, np.float64, PORTABLE))
        yield Draw(f"random/magnitude/{l}", address, magnitudes, axes)
        yield gaussian(f"mirror/{l}", (state.key, "mirror", state.t, l), (n, *linear.in_shape), arriving)
        yield gaussian(f"corruption/{l}", (state.key, "corrupt", state.t, l), (n, *below), arriving)
        address = (state.key, state.t, "noisy_delta", l)
        yield gaussian(f"delta/{l}", address, (n, *linear.out_shape), plain(linear.out_shape).behind("N", n))
        memory = state.forward.memory
        if isinstance(memory, dict) and "key" in memory:
            address = (memory["key"], "noisy_gradients", f"{l}/W", memory["count"])
            yield gaussian(f"gradient/{l}/W", address, linear.weight_shape, axes)
