"""PyTorch's own products: dense, convolutional and locally connected, each with its three faces.

Operands are rounded where the backend's precision asks for it; sums are in float32. Arrays stay channels-last: a
permuted view of them is what torch calls so.
"""

from collections.abc import Callable

import torch

from ref_bioplaus.windows import Window

aten = torch.ops.aten


# Precision


def operand_rounding(device: torch.device, dtype: str, precision: str) -> Callable | None:
    """What float32 operands pass through before they are multiplied; None: nothing.

    On GPUs the library rounds to TF32 by itself.
    """
    if dtype != "float32" or precision == "ieee" or (precision == "tf32" and device.type == "cuda"):
        return None
    return rounded_to_bfloat16 if precision == "bf16" else rounded_to_tf32


def rounded_to_bfloat16(x: torch.Tensor) -> torch.Tensor:
    """The nearest bfloat16, as float32."""
    return x.to(torch.bfloat16).to(x.dtype)


def rounded_to_tf32(x: torch.Tensor) -> torch.Tensor:
    """The nearest number of 10 explicit bits, ties to even; what is not finite stays."""
    bits = x.view(torch.int32)
    nearest = (bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF
    return torch.where(torch.isfinite(x), nearest.view(x.dtype), x)


def with_operands(rounded: Callable | None, product: Callable) -> Callable:
    """A product of two tensors that passes both through `rounded` first."""
    if rounded is None:
        return product

    def of_rounded(a, b, *geometry):
        return product(rounded(a), rounded(b), *geometry)

    return of_rounded


# Dense

LARGE = 1 << 18  # weights from which on oneDNN's product is the faster one


def dense_products(device: torch.device, dtype: str, precision: str, rounded: Callable | None) -> dict[str, Callable]:
    """The three faces of a dense layer. W: (n_out, n_in). x: (N, n_in). u: (N, n_out)."""
    linear = one_dnn_linear(device, dtype)
    narrow = precision == "bf16" and dtype == "float32" and device.type == "cuda"

    def product(a, b):
        """a b^T"""
        if narrow:
            return torch.mm(a.to(torch.bfloat16), b.t().to(torch.bfloat16), out_dtype=torch.float32)
        if linear is not None and a.numel() and max(a.shape[0], b.shape[0]) * b.shape[1] >= LARGE:
            return linear(a, b, None, "none", [], "")
        return torch.mm(a, b.t())

    def dense_apply(W, x):
        return product(x, W)

    def dense_transport(B, u):
        return product(u, B.t())

    def dense_correlate(x, u):
        return product(u.t(), x.t())

    faces = {"dense_apply": dense_apply, "dense_transport": dense_transport, "dense_correlate": dense_correlate}
    return faces if narrow else {name: with_operands(rounded, face) for name, face in faces.items()}


def one_dnn_linear(device: torch.device, dtype: str) -> Callable | None:
    """oneDNN's a b^T + bias; None where this torch does not offer it, and where MKL's is faster.

    On AMD's processors with AVX-512 oneDNN's is the faster one, on those with AVX2 only it takes a third longer.
    """
    if device.type != "cpu" or dtype != "float32" or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    try:
        linear = torch.ops.mkldnn._linear_pointwise.default
        a, b = torch.eye(2, 3), torch.ones(4, 3)
        return linear if torch.equal(linear(a, b, None, "none", [], ""), a @ b.t()) else None
    except (AttributeError, RuntimeError):
        return None


# Convolution. W: (kernel height, kernel width, C, O). x: (N, H, W, C). u: (N, height, width, O).


def padded(x: torch.Tensor, window: Window, fill: float = 0.0) -> tuple[torch.Tensor, list[int]]:
    """Images (N, C, H, W) for torch's operations, and the padding left for these to add."""
    (top, bottom), (left, right) = window.padding
    if (top, left) == (bottom, right):
        return x, [top, left]
    N, C, H, W = x.shape
    full = x.new_full((N, top + H + bottom, left + W + right, C), fill).permute(0, 3, 1, 2)
    full[:, :, top : top + H, left : left + W] = x
    return full, [0, 0]


def cropped(x: torch.Tensor, window: Window) -> torch.Tensor:
    """The pixels inside the padding that `padded` added, of images (N, C, H, W)."""
    (H, W, _), (top, bottom), (left, right) = window.in_shape, *window.padding
    return x if (top, left) == (bottom, right) else x[:, :, top : top + H, left : left + W]


def channels_first(x: torch.Tensor) -> torch.Tensor:
    """(N, H, W, C) -> (N, C, H, W), the same memory."""
    return x.permute(0, 3, 1, 2)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) -> (N, H, W, C), contiguous."""
    return x.permute(0, 2, 3, 1).contiguous()


def filters(W: torch.Tensor) -> torch.Tensor:
    """W as torch's (O, C, kernel height, kernel width), channels last in memory."""
    return W.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)


def conv_apply(W: torch.Tensor, x: torch.Tensor, window: Window) -> torch.Tensor:
    """u = W * x"""
    image, padding = padded(channels_first(x), window)
    u = aten.convolution(image, filters(W), None, window.stride, padding, [1, 1], False, [0, 0], 1)
    return channels_last(u)


def conv_transport(B: torch.Tensor, u: torch.Tensor, window: Window) -> torch.Tensor:
    """x: the gradient of a convolution with B at its input."""
    image, padding = image_like(u, window)
    dx = aten.convolution_backward(
        channels_first(u), image, filters(B), None, window.stride, padding, [1, 1], False, [0, 0], 1,
        [True, False, False],
    )[0]  # fmt: skip
    return channels_last(cropped(dx, window))


def image_like(u: torch.Tensor, window: Window) -> tuple[torch.Tensor, list[int]]:
    """An image of the padded input's shape whose values nobody reads, and the padding left for torch to add."""
    (H, W, C), (top, bottom), (left, right) = window.in_shape, *window.padding
    even = (top, left) == (bottom, right)
    size = (u.shape[0], H, W, C) if even else (u.shape[0], top + H + bottom, left + W + right, C)
    return channels_first(u.new_empty(size)), [top, left] if even else [0, 0]


def conv_correlate(x: torch.Tensor, u: torch.Tensor, window: Window) -> torch.Tensor:
    """W: the gradient of a convolution at its filters, in the order in memory that `filters` takes as it is."""
    image, padding = padded(channels_first(x), window)
    stride = window.stride
    if window.kernel == (1, 1) and not any(padding):
        # only the pixels that are read: for strided 1x1 windows oneDNN writes beyond its memory on AVX2 processors
        (height, width), (sh, sw) = window.out_size, stride
        image, stride = image[:, :, : sh * (height - 1) + 1 : sh, : sw * (width - 1) + 1 : sw], (1, 1)
    filters_like = u.new_empty((u.shape[3], *window.kernel, x.shape[3])).permute(0, 3, 1, 2)
    dW = aten.convolution_backward(
        channels_first(u), image, filters_like, None, stride, padding, [1, 1], False, [0, 0], 1,
        [False, True, False],
    )[1]  # fmt: skip
    return dW.permute(2, 3, 1, 0)


CONV = {"conv_apply": conv_apply, "conv_transport": conv_transport, "conv_correlate": conv_correlate}


# Local connection. W: (height, width, kernel pixels * C, O).


def windows_first(x: torch.Tensor, window: Window) -> torch.Tensor:
    """The pixels of every window, (N, H, W, C) -> (windows, N, kernel pixels * C)."""
    image, (top, left) = padded(channels_first(x), window)
    if top or left:
        image = torch.constant_pad_nd(image, [left, left, top, top])
    (kh, kw), (sh, sw), (height, width) = window.kernel, window.stride, window.out_size
    pixels = image.unfold(2, kh, sh).unfold(3, kw, sw)  # (N, C, height, width, kh, kw)
    return pixels.permute(2, 3, 0, 4, 5, 1).reshape(height * width, x.shape[0], -1)


def signals_first(u: torch.Tensor) -> torch.Tensor:
    """(N, height, width, O) -> (windows, N, O)"""
    return u.reshape(u.shape[0], -1, u.shape[3]).transpose(0, 1)


def local_apply(W: torch.Tensor, x: torch.Tensor, window: Window) -> torch.Tensor:
    """u: one product per window."""
    u = torch.bmm(windows_first(x, window), W.reshape(-1, *W.shape[2:]))
    return u.transpose(0, 1).reshape(x.shape[0], *window.out_size, -1)


def local_transport(B: torch.Tensor, u: torch.Tensor, window: Window) -> torch.Tensor:
    """x: one product per window, added up where windows overlap."""
    (H, W, C), (top, bottom), (left, right) = window.in_shape, *window.padding
    (kh, kw), (sh, sw), (height, width) = window.kernel, window.stride, window.out_size
    p = torch.bmm(signals_first(u), B.reshape(-1, *B.shape[2:]).mT)
    p = p.view(height, width, u.shape[0], kh, kw, C).permute(2, 0, 1, 3, 4, 5)
    x = u.new_zeros((u.shape[0], top + H + bottom, left + W + right, C))
    for i in range(kh):
        for j in range(kw):
            entries = x[:, i : i + sh * (height - 1) + 1 : sh, j : j + sw * (width - 1) + 1 : sw]
            entries.add_(p[:, :, :, i, j])
    return x[:, top : top + H, left : left + W].contiguous()


LARGE_WINDOW = 1 << 17  # weights of one window


def local_correlate(x: torch.Tensor, u: torch.Tensor, window: Window) -> torch.Tensor:
    """W: one product per window; large ones one by one, which is faster than in one batch."""
    pixels, signals = windows_first(x, window).mT, signals_first(u)
    if pixels.shape[1] * signals.shape[2] < LARGE_WINDOW:
        dW = torch.bmm(pixels, signals)
    else:
        dW = torch.empty((*pixels.shape[:2], signals.shape[2]), dtype=u.dtype, device=u.device)
        for i in range(pixels.shape[0]):
            torch.mm(pixels[i], signals[i], out=dW[i])
    return dW.view(*window.out_size, *dW.shape[1:])


LOCAL = {"local_apply": local_apply, "local_transport": local_transport, "local_correlate": local_correlate}
