"""Nøkland 2016, "Direct feedback alignment provides learning in deep neural networks": a net of the public code.

Choices: the output layer is linear here, its sigmoids are in losses.sigmoid_cross_entropy.
"""

from ..linear import dense
from ..local import bias, tanh
from ..network import Network, chain
from ..types import Shape
from .sizes import scaled


def mnist(*, in_shape: Shape = (784,), classes: int = 10, width: float = 1.0) -> Network:
    """784-2x800-10 with tanh (Nøkland 2016, public code: Models/mlp.lua)."""
    n = scaled(width)
    return chain(in_shape, *[(dense(n(800)), bias, tanh)] * 2, (dense(classes), bias))
