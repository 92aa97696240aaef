"""Synapses: one bilinear map with three faces, and each connectivity against another library's."""

import numpy as np
import pytest

from ref_bioplaus import conv, dense, locally_connected, shared_conv
from ref_bioplaus.layouts import plain, weights
from ref_bioplaus.linear import Transpose
from tests.conftest import get
from tests.helpers import slow

IMAGE = (7, 5, 3)
PARTS = {
    "dense": (dense(4), (6,)),
    "conv same": (conv(4, 3), IMAGE),
    "conv kernel 2x3, stride 2": (conv(4, (2, 3), stride=2), IMAGE),
    "conv stride 1x3": (conv(2, 3, stride=(1, 3)), IMAGE),
    "conv valid": (conv(4, (3, 2), padding="valid"), IMAGE),
    "conv padding 2x1, stride 2": (conv(4, 3, stride=2, padding=(2, 1)), IMAGE),
    "conv 1x1, stride 2": (conv(4, 1, stride=2), IMAGE),
    "conv stride larger than kernel": (conv(4, (1, 2), stride=(2, 3), padding="valid"), IMAGE),
    "conv as large as the image": (conv(2, (7, 5), padding="valid"), IMAGE),
    "conv even kernel, same": (conv(3, (4, 2), stride=(3, 1)), IMAGE),
    "shared by two images": (shared_conv(4, (2, 3), [(7, 5), (3, 2)], stride=(2, 1)), (41, 3)),
    "LC same": (locally_connected(4, 3), IMAGE),
    "LC kernel 2x3, stride 2x1": (locally_connected(4, (2, 3), stride=(2, 1)), IMAGE),
    "LC valid": (locally_connected(2, (3, 2), padding="valid"), IMAGE),
    "LC padding 1, stride 2": (locally_connected(2, 3, stride=2, padding=1), IMAGE),
}


@pytest.fixture(params=list(PARTS), ids=list(PARTS))
def linear(request):
    part, in_shape = PARTS[request.param]
    return part.build(in_shape)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_three_faces_of_one_bilinear_map(linear, any_backend, n, transposed):
    linear = Transpose(linear) if transposed else linear
    rng = np.random.default_rng(0)
    host = [rng.standard_normal(s) for s in (linear.weight_shape, (n, *linear.in_shape), (n, *linear.out_shape))]
    W, x, u = (any_backend.asarray(a) for a in host)
    applied, transported, correlated = (
        any_backend.to_numpy(a) for a in (linear.apply(W, x), linear.transport(W, u), linear.correlate(x, u))
    )
    assert applied.shape == host[2].shape
    assert transported.shape == host[1].shape
    assert correlated.shape == host[0].shape
    scale = np.sum(np.abs(applied * host[2]))
    assert abs(np.sum(applied * host[2]) - np.sum(transported * host[1])) < 1e-13 * scale
    assert abs(np.sum(applied * host[2]) - np.sum(correlated * host[0])) < 1e-13 * scale


def same_padding(n, k, s):
    """TensorFlow's documentation of SAME, written out."""
    total = max(k - s, 0) if n % s == 0 else max(k - n % s, 0)
    return total // 2, total - total // 2


@pytest.mark.parametrize("name", [n for n in PARTS if n.startswith("conv")])
def test_convolution_is_torch_conv2d(name):
    torch = pytest.importorskip("torch")
    linear = PARTS[name][0].build(IMAGE)
    rng = np.random.default_rng(1)
    W, x = rng.standard_normal(linear.weight_shape), rng.standard_normal((2, *IMAGE))
    (top, bottom), (left, right) = linear.window.padding
    image = torch.nn.functional.pad(torch.tensor(x).permute(0, 3, 1, 2), (left, right, top, bottom))
    theirs = torch.tensor(weights(linear, plain(IMAGE)).to("NCHW", W))
    wanted = torch.nn.functional.conv2d(image, theirs, stride=linear.window.stride)
    assert np.allclose(linear.apply(W, x), wanted.permute(0, 2, 3, 1).numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [4, 5, 6, 7])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_padding_is_tensorflows(size, kernel, stride):
    window = conv(1, (kernel, 1), stride=(stride, 1)).build((size, 2, 1)).window
    assert window.padding[0] == same_padding(size, kernel, stride)
    assert window.out_size == (-(-size // stride), 2)


@pytest.mark.parametrize("name", [n for n in PARTS if n.startswith("LC")])
def test_local_connection_with_equal_filters_is_a_convolution(name):
    local = PARTS[name][0].build(IMAGE)
    w = local.window
    convolution = conv(local.channels, w.kernel, w.stride, tuple(p[0] for p in w.padding)).build(IMAGE)
    if convolution.window != w:
        convolution = type(convolution)(w, local.channels)
    rng = np.random.default_rng(2)
    shared, x = rng.standard_normal(convolution.weight_shape), rng.standard_normal((2, *IMAGE))
    W = np.broadcast_to(shared.reshape(-1, local.channels), local.weight_shape)
    assert np.allclose(local.apply(W, x), convolution.apply(shared, x), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", [n for n in PARTS if n.startswith("LC")])
def test_local_connection_by_loops(name):
    local = PARTS[name][0].build(IMAGE)
    rng = np.random.default_rng(3)
    W, x = rng.standard_normal(local.weight_shape), rng.standard_normal((2, *IMAGE))
    (height, width), (sh, sw), (kh, kw) = local.window.out_size, local.window.stride, local.window.kernel
    padded = np.pad(x, ((0, 0), *local.window.padding, (0, 0)))
    expected = np.zeros((2, *local.out_shape))
    for i in range(height):
        for j in range(width):
            pixels = padded[:, i * sh : i * sh + kh, j * sw : j * sw + kw, :].reshape(2, -1)
            expected[:, i, j, :] = pixels @ W[i, j]
    assert np.allclose(local.apply(W, x), expected, rtol=1e-13, atol=1e-13)


def test_fans_are_tensorflows():
    convolution, local = (make(8, (3, 5), stride=2).build((9, 7, 2)) for make in (conv, locally_connected))
    assert (convolution.fan_in, convolution.fan_out) == (3 * 5 * 2, 3 * 5 * 8)  # not divided by the stride
    assert (local.fan_in, local.fan_out) == (3 * 5 * 2, 3 * 5 * 8)
    assert (dense(4).build((6,)).fan_in, dense(4).build((6,)).fan_out) == (6, 4)
    assert (Transpose(convolution).fan_in, Transpose(convolution).fan_out) == (3 * 5 * 8, 3 * 5 * 2)


def test_position_mean_counts_the_windows_that_read_a_pixel():
    linear = conv(1, 3).build((2, 4, 1))
    counts = linear.correlate(np.ones((1, 2, 4, 1)), np.ones((1, 2, 4, 1)))  # how often each entry read a 1
    assert counts[:, :, 0, 0].tolist() == [[3, 4, 3], [6, 8, 6], [3, 4, 3]]
    assert np.array_equal(linear.position_mean(counts), np.ones_like(counts))
    lonely = conv(1, 3).build((1, 1, 1))  # eight entries only ever read padding
    assert np.array_equal(lonely.position_mean(np.zeros((3, 3, 1, 1))), np.zeros((3, 3, 1, 1)))


def test_a_shared_convolution_is_that_of_every_image():
    images, rng = [(4, 3), (1, 2), (2, 5)], np.random.default_rng(7)
    linear = shared_conv(2, (3, 2), images, stride=(1, 2), padding=1).build((24, 3))
    W, x = rng.standard_normal(linear.weight_shape), rng.standard_normal((2, 24, 3))
    u, each = linear.apply(W, x), [conv(2, (3, 2), (1, 2), 1).build((*size, 3)) for size in images]
    assert linear.out_shape == u.shape[1:] == (sum(c.out_shape[0] * c.out_shape[1] for c in each), 2)
    start = end = 0
    reads = np.zeros_like(W)
    for c, (height, width) in zip(each, images, strict=True):
        image = x[:, start : start + height * width].reshape(2, height, width, 3)
        wanted = c.apply(W, image).reshape(2, -1, 2)
        assert np.array_equal(u[:, end : end + wanted.shape[1]], wanted)
        reads = reads + c.correlate(np.ones((1, *c.in_shape)), np.ones((1, *c.out_shape)))
        start, end = start + height * width, end + wanted.shape[1]
    assert np.allclose(linear.position_mean(W), W / np.maximum(reads, 1.0), rtol=1e-14)
    assert (linear.fan_in, linear.fan_out) == (each[0].fan_in, each[0].fan_out) and linear.existing(W) is W
    for shape in ((25, 3), (4, 6, 3)):
        with pytest.raises(ValueError, match=r"its input has shape .*, expected \(24, channels\): the images' pixels"):
            shared_conv(2, 3, images).build(shape)


def test_weights_on_padding_do_not_exist():
    linear = locally_connected(2, 3, stride=2, padding=1).build((5, 4, 2))
    W = np.ones(linear.weight_shape)
    exists = linear.existing(W)
    gradient = linear.correlate(np.ones((1, *linear.in_shape)), np.ones((1, *linear.out_shape)))
    assert np.array_equal(exists, gradient)
    assert exists.min() == 0


@pytest.mark.parametrize("name", list(PARTS))
def test_torch_layout_there_and_back(name):
    part, in_shape = PARTS[name]
    linear = part.build(in_shape)
    W = np.random.default_rng(4).standard_normal(linear.weight_shape)
    axes = weights(linear, plain(in_shape))
    there = axes.to("NCHW", W)
    if name.startswith(("conv", "shared")):
        assert there.shape == (linear.channels, IMAGE[2], *linear.window.kernel)
    assert np.array_equal(axes.back("NCHW", there), W)


@pytest.mark.parametrize("name", ["torch", slow("jax"), "array-api-strict"])
def test_float32_stays_float32(name):
    backend = get(name, "float32")
    for part, in_shape in PARTS.values():
        linear = part.build(in_shape)
        W, x, u = (
            backend.asarray(np.ones(s)) for s in (linear.weight_shape, (2, *linear.in_shape), (2, *linear.out_shape))
        )
        for result in (linear.apply(W, x), linear.transport(W, u), linear.correlate(x, u)):
            assert result.dtype == backend.xp.float32
