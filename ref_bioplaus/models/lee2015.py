"""Lee et al. 2015, "Difference target propagation": the continuous net of their public code (conti_dtp.py).

Choices: the output layer is linear here, its softmax is in losses.cross_entropy.
"""

from ..linear import dense
from ..local import bias, tanh
from ..network import Network, chain
from ..types import Shape
from .sizes import scaled


def mnist(*, in_shape: Shape = (784,), classes: int = 10, width: float = 1.0) -> Network:
    """784-7x240-10 with tanh (Lee et al. 2015, public code: conti_dtp.py)."""
    n = scaled(width)
    return chain(
        in_shape,
        *[(dense(n(240)), bias, tanh)] * 7,
        (dense(classes), bias),
    )
