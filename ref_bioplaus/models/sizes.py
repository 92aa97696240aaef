"""How every model here is sized, by keyword only: the defaults are the paper's.

in_shape   (units,) of a fully connected net, whose images come flattened, (height, width, channels) of the others.
classes    units of the output layer, never scaled.
width      factor on the number of units or channels of every other layer, rounded, at least 1.

A smaller model has the same layers, kernels and strides: resnet18(in_shape=(40, 33, 3), classes=4, width=1 / 32).
Weights are float32; network.with_dtype changes that.
"""

from collections.abc import Callable


def scaled(width: float) -> Callable[[int], int]:
    """A paper's number of units or channels -> ours. Raises ValueError unless width is above 0 and below 1e9."""
    if not 0 < width < 1e9:
        raise ValueError(f"width is {width}, expected a positive factor below 1e9 on the number of units and channels")
    return lambda n: max(1, round(n * width))
