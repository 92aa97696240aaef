"""Parameters in PyTorch's layout, for exchange with other code.

dense               (out, in)                                                  as ours; the papers' B transposed
convolution         ours (kernel height, kernel width, in, out)                OIHW
locally connected   ours (height, width, kernel height * kernel width * in, out)
                                                      (height, width, out, in, kernel height, kernel width)
"""

from array_api_compat import array_namespace

from .linear import Convolution, LinearMap, LocalConnection, Transpose
from .types import Array


def to_torch(linear: LinearMap, W: Array) -> Array:
    """Our layout -> PyTorch's."""
    xp = array_namespace(W)
    if isinstance(linear, Transpose):
        return to_torch(linear.linear, W)
    if isinstance(linear, Convolution):
        return xp.permute_dims(W, (3, 2, 0, 1))
    if isinstance(linear, LocalConnection):
        each = xp.reshape(W, (*linear.window.out_size, *linear.window.kernel, -1, linear.channels))
        return xp.permute_dims(each, (0, 1, 5, 4, 2, 3))
    return W


def from_torch(linear: LinearMap, W: Array) -> Array:
    """PyTorch's layout -> ours. Raises ValueError where the shape is not the layer's."""
    xp = array_namespace(W)
    if isinstance(linear, Transpose):
        return from_torch(linear.linear, W)
    if isinstance(linear, Convolution) and W.ndim == 4:
        W = xp.permute_dims(W, (2, 3, 1, 0))
    elif isinstance(linear, LocalConnection) and W.ndim == 6:
        W = xp.permute_dims(W, (0, 1, 4, 5, 3, 2))
        W = xp.reshape(W, (*W.shape[:2], W.shape[2] * W.shape[3] * W.shape[4], W.shape[5]))
    if tuple(W.shape) != tuple(linear.weight_shape):
        raise ValueError(f"weights have shape {tuple(W.shape)} in our layout, expected {tuple(linear.weight_shape)}")
    return W
