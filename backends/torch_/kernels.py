"""PyTorch's own forms of the kernels: what is chosen for which tensors, and the local operations.

The products are in products.py, the optimizers in optimizers.py.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from ref_bioplaus import local
from ref_bioplaus.backends.torch_ import loops
from ref_bioplaus.backends.torch_.optimizers import adam, sgd
from ref_bioplaus.backends.torch_.products import (
    CONV,
    LOCAL,
    channels_first,
    channels_last,
    dense_products,
    operand_rounding,
    padded,
    with_operands,
)
from ref_bioplaus.kernels import PORTABLE, Kernels
from ref_bioplaus.windows import Window

aten = torch.ops.aten


def native_kernels(device: torch.device, dtype: str, precision: str) -> Kernels:
    """The kernels for tensors of a dtype on a device.

    bfloat16 tensors take torch's products and activations, and the portable form of everything that adds up small
    differences. precision: of float32 products, "ieee", "tf32" or "bf16".
    """
    rounded = operand_rounding(device, dtype, precision)
    products: dict[str, Any] = {name: with_operands(rounded, product) for name, product in (CONV | LOCAL).items()}
    products |= dense_products(device, dtype, precision, rounded)
    products["name"] = "native"
    if device.type == "cpu":
        from ref_bioplaus.backends.torch_ import random

        products |= {"threefry": random.threefry, "random_words": random.random_words}
    if dtype != "bfloat16":
        products |= {"batch_norm": batch_norm, "batch_norm_backward": batch_norm_backward, "sgd": sgd, "adam": adam}
    return PORTABLE._replace(
        each=loops.each,
        max_pool=max_pool,
        max_pool_backward=max_pool_backward,
        activation=activation,
        activation_backward=activation_backward,
        **products,
    )


# Local operations


def max_pool(x: torch.Tensor, window: Window) -> tuple[torch.Tensor, tuple]:
    """The largest pixel of every window; the cache is for the backward pass."""
    image, padding = padded(channels_first(x), window, -math.inf)
    if any(2 * p > k for p, k in zip(padding, window.kernel, strict=True)):  # more than torch's own pooling takes
        top, left = padding
        image, padding = torch.constant_pad_nd(image, [left, left, top, top], -math.inf), [0, 0]
    y, index = aten.max_pool2d_with_indices(image, window.kernel, window.stride, padding)
    return channels_last(y), (image, index, tuple(padding))


def max_pool_backward(cache: tuple, dy: torch.Tensor, window: Window) -> torch.Tensor:
    """The error at x: each window hands its error to its first maximum."""
    image, index, padding = cache
    dx = aten.max_pool2d_with_indices_backward(
        channels_first(dy), image, window.kernel, window.stride, padding, [1, 1], False, index
    )
    (H, W, _), (top, _), (left, _) = window.in_shape, *window.padding
    return channels_last(dx[:, :, top : top + H, left : left + W] if dx.shape[2:] != (H, W) else dx)


def batch_norm(
    x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple]:
    """Normalised, the batch's mean and its population variance, and what the backward pass needs."""
    image = x if x.ndim == 2 else channels_first(x)
    m = x.numel() // x.shape[-1]
    unbiased, unused = torch.zeros_like(gamma), torch.zeros_like(gamma)
    y, mean, inv_std = aten._native_batch_norm_legit(image, gamma, beta, unused, unbiased, True, 1.0, epsilon)
    var = unbiased * ((m - 1) / m) if m > 1 else torch.zeros_like(gamma)
    return (y if x.ndim == 2 else channels_last(y)), mean, var, (x, mean, inv_std, epsilon)


def batch_norm_backward(
    cache: tuple, gamma: torch.Tensor, dy: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The error at x, and the gradients of gamma and beta."""
    x, mean, inv_std, epsilon = cache
    image, error = (x, dy) if x.ndim == 2 else (channels_first(x), channels_first(dy))
    dx, dgamma, dbeta = aten.native_batch_norm_backward(
        error, image, gamma, None, None, mean, inv_std, True, epsilon, [True, True, True]
    )
    return (dx if x.ndim == 2 else channels_last(dx)), dgamma, dbeta


def function_of(part: Any) -> Callable:
    """The function of one of the package's own nonlinearities."""
    return part.build(()).function


def step(y: torch.Tensor) -> torch.Tensor:
    """The slope of ReLU where its output is y, NaN for NaN: torch's own backward form has 1 there, its sign 0."""
    return torch.ceil(torch.clamp(y, max=0.5))


ACTIVATIONS: dict[Callable, tuple[Callable, Callable]] = {  # function(x); dy * derivative(y)
    function_of(local.tanh): (torch.tanh, lambda y, dy: aten.tanh_backward(dy, y)),
    function_of(local.relu): (torch.relu, lambda y, dy: dy * step(y)),
    function_of(local.sigmoid): (torch.sigmoid, lambda y, dy: aten.sigmoid_backward(dy, y)),
}


def activation(nonlinearity: Any, x: torch.Tensor) -> torch.Tensor:
    """y = function(x); a nonlinearity that is not the package's own by its own function."""
    function, _ = ACTIVATIONS.get(nonlinearity.function, (nonlinearity.function, None))
    return function(x)


def activation_backward(nonlinearity: Any, y: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
    """dy * derivative(y)"""
    if nonlinearity.function in ACTIVATIONS:
        return ACTIVATIONS[nonlinearity.function][1](y, dy)
    return dy * nonlinearity.derivative(y)
