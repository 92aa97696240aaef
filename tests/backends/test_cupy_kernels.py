"""CuPy's kernels where there is no GPU: array logic on NumPy, elementwise bodies compiled by a C compiler."""

import numpy as np
import pytest

from ref_bioplaus import kernels, local
from ref_bioplaus.backends.cupy_ import elementwise, with_torch
from ref_bioplaus.backends.cupy_ import kernels as cupy_kernels
from ref_bioplaus.kernels import PORTABLE
from tests.helpers import standing_cupy
from tests.helpers.faces import SHORTCUTS, WINDOWS, arrays, same

WINDOWS = WINDOWS | SHORTCUTS


@pytest.mark.parametrize("columns", [1, 3000, 1 << 20])
@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("name", WINDOWS)
def test_convolution_and_local_connection(name, n, columns):
    w, own = WINDOWS[name], cupy_kernels.CupyKernels(np, columns)
    W, V, x, u = arrays(
        (*w.kernel, w.in_shape[2], 4), (*w.out_size, w.kernel[0] * w.kernel[1] * w.in_shape[2], 4), (n, *w.in_shape),
        (n, *w.out_size, 4),
    )  # fmt: skip
    for kind, weight in (("conv", W), ("local", V)):
        for face, given in (("apply", (weight, x)), ("transport", (weight, u)), ("correlate", (x, u))):
            function = f"{kind}_{face}"
            same(getattr(own, function)(*given, w), getattr(PORTABLE, function)(*given, w))


@pytest.mark.parametrize("name", WINDOWS)
def test_torchs_convolutions(name):
    pytest.importorskip("torch")
    w, own = WINDOWS[name], with_torch.TorchConvolutions(np)
    W, x, u = (a.copy() for a in arrays((*w.kernel, w.in_shape[2], 4), (5, *w.in_shape), (5, *w.out_size, 4)))
    same(own.conv_apply(W, x, w), PORTABLE.conv_apply(W, x, w))
    same(own.conv_transport(W, u, w), PORTABLE.conv_transport(W, u, w))
    same(own.conv_correlate(x, u, w), PORTABLE.conv_correlate(x, u, w))


@pytest.mark.parametrize("eta", [0.01, np.asarray(0.01)])
def test_optimizers(eta):
    own = cupy_kernels.CupyKernels(np)
    p, g, m = (arrays((5, 7), (3,), (1,), seed=s) for s in range(3))
    v, keep = [a * a for a in m], [1.0, 0.9, np.asarray(0.8)]
    for momentum, nesterov in ((0.0, False), (0.9, False), (0.9, True)):
        same(*(k.sgd(p, g, m, keep, eta, momentum, nesterov) for k in (own, PORTABLE)))
    for form in ("paper", "hat"):
        given = (p, g, m, v, keep, eta, (np.asarray(0.1), np.asarray(0.001)), 0.9, 0.999, 1e-3, form)
        same(*(k.adam(*given) for k in (own, PORTABLE)))


@pytest.fixture(scope="module")
def cupy(tmp_path_factory):
    if standing_cupy.COMPILER is None:
        pytest.skip("there is no C compiler")
    return standing_cupy.cupy(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="module")
def native(cupy):
    return cupy_kernels.native(cupy)


def test_every_kernel_but_those_that_have_no_better_form_is_cupys(native):
    portable = {name for name in kernels.Kernels._fields if getattr(native, name) is getattr(PORTABLE, name)}
    products = {"dense_apply", "dense_transport", "dense_correlate", "channel_sum"}
    assert portable == products | {"add", "each", "mean_of_product", "normal_table", "drawn"}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("name", WINDOWS)
def test_max_pool(native, name, n, dtype):
    w = WINDOWS[name]
    x, dy = arrays((n, *w.in_shape), (n, *w.out_size, w.in_shape[2]), dtype=dtype)
    one_nan = x.copy()
    one_nan[0, 0, w.in_shape[1] // 4, 0] = np.nan
    for image in (x, np.rint(x), -np.abs(x), one_nan):  # np.rint: ties
        (y, first), (expected, mask) = native.max_pool(image, w), PORTABLE.max_pool(image, w)
        same(y, expected, dtype)
        assert first.dtype == np.int32
        np.testing.assert_array_equal(first, np.argmax(mask, axis=3))
        same(native.max_pool_backward(first, dy, w), PORTABLE.max_pool_backward(mask, dy, w), dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n", [1, 7])
def test_local_operations(native, n, dtype):
    image, dy, gamma, beta = arrays((n, 5, 3, 4), (n, 5, 3, 4), (4,), (4,), dtype=dtype)
    found, expected = (k.batch_norm(image, gamma, beta, 1e-5) for k in (native, PORTABLE))
    same(found, expected, dtype)
    same(native.batch_norm_backward(found[3], gamma, dy), PORTABLE.batch_norm_backward(expected[3], gamma, dy), dtype)
    own = local.nonlinearity("relu", lambda x: 0.5 * x, lambda y: 0.5 + 0.0 * y)  # named like a usual one
    zero = np.where(np.abs(image) < 0.3, 0.0, image).astype(dtype)
    for part in (local.tanh, local.relu, local.sigmoid, local.rectified_tanh, own):
        op = part.build((5, 3, 4))
        y = native.activation(op, zero)
        same(y, PORTABLE.activation(op, zero), dtype)
        same(native.activation_backward(op, y, dy), PORTABLE.activation_backward(op, y, dy), dtype)
    x, error = (np.asarray(a, dtype) for a in ([np.nan, -1.0, 1.0, 0.0, -1.0], [1.0, 1.0, 1.0, np.nan, np.inf]))
    for part in elementwise.FORWARD:
        op = part.build(())
        y = native.activation(op, x)
        assert np.isnan(y).tolist() == [True, *[False] * 4]
        with np.errstate(invalid="ignore"):
            expected = PORTABLE.activation_backward(op, y, error)
        same(native.activation_backward(op, y, error), expected, dtype)
        assert np.isnan(expected[[0, 3]]).all()


@pytest.mark.parametrize(("start", "n"), [(0, 1), (3, 57), ((1 << 32) - 40, 40), ((5 << 32) + 9, 33)])
def test_random_words(native, start, n):
    key = np.array([-7, 123456], np.int32)
    for a, b in zip(native.random_words(key, start, n), kernels.random_words(key, start, n), strict=True):
        assert a.dtype == np.int32
        assert np.array_equal(a, b)
    with pytest.raises(ValueError, match="cross a multiple"):
        native.random_words(key, (1 << 32) - 3, 4)


def test_threefry(native):
    key, (x0, x1) = np.array([5, -9], np.int32), np.random.default_rng(0).integers(-(2**31), 2**31, (2, 21), np.int32)
    for a, b in zip(native.threefry(key, x0, x1), kernels.threefry(key, x0, x1), strict=True):
        assert a.dtype == np.int32
        assert np.array_equal(a, b)
