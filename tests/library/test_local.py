"""What a neuron does by itself: every operation against automatic differentiation, and its special cases."""

import numpy as np
import pytest

from ref_bioplaus import local
from ref_bioplaus.local import (
    average_pool,
    batch_norm,
    batch_norm_with,
    bias,
    dropout,
    flatten,
    global_average_pool,
    max_pool,
    nonlinearity,
    rectified_tanh,
    relu,
    rows,
    sigmoid,
    tanh,
    unit_bias,
    upsample,
)
from tests.conftest import get

KEY = (np.array([1, 2], dtype=np.int32), "step", np.array(3, dtype=np.int32))
PARTS = {
    "tanh": tanh,
    "relu": relu,
    "sigmoid": sigmoid,
    "rectified_tanh": rectified_tanh,
    "own": nonlinearity("softsign-like", lambda x: x / (1.0 + x * x) ** 0.5, lambda y: (1.0 - y * y) ** 1.5),
    "bias": bias,
    "unit_bias": unit_bias,
    "batch_norm": batch_norm,
    "dropout": dropout(0.3),
    "max_pool 2": max_pool(2),
    "max_pool 3x2, stride 2x1, padding 1x0": max_pool((3, 2), (2, 1), (1, 0)),
    "max_pool same": max_pool(3, 2, "same"),
    "average_pool 2x3": average_pool((2, 3)),
    "average_pool same": average_pool(3, 2, "same"),
    "global_average_pool": global_average_pool,
    "flatten": flatten,
    "rows": rows(),
    "rows(1)": rows(1),
    "upsample 2": upsample(),
    "upsample 3": upsample(3),
}
IMAGE = (6, 5, 3)


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("name", list(PARTS))
@pytest.mark.parametrize("library", ["torch", "jax"])
def test_backward_is_the_derivative(name, n, library):
    backend = get(library)
    op = PARTS[name].build(IMAGE)
    rng = np.random.default_rng(0)
    params, stats = op.init(KEY[0], np.float64)
    host = {k: v + 0.3 * rng.standard_normal(v.shape) for k, v in params.items()}
    x, dy = rng.standard_normal((n, *IMAGE)), rng.standard_normal((n, *op.out_shape))
    _, _, cache = op.forward(host, stats, x, KEY, True)
    dx, dparams = op.backward(host, cache, dy)

    key = (backend.asarray(KEY[0]), KEY[1], backend.asarray(KEY[2]))
    stats = {k: backend.asarray(v) for k, v in stats.items()}

    def objective(params, x):
        y, _, _ = op.forward(params, stats, x, key, True)
        return backend.xp.sum(y * backend.asarray(dy))

    if library == "torch":
        import torch

        leaf, leaf_params = (
            torch.tensor(x, requires_grad=True),
            {k: torch.tensor(v, requires_grad=True) for k, v in host.items()},
        )
        objective(leaf_params, leaf).backward()
        wanted, wanted_params = leaf.grad.numpy(), {k: v.grad.numpy() for k, v in leaf_params.items()}
    else:
        import jax

        wanted_params, wanted = jax.grad(objective, (0, 1))(
            {k: backend.asarray(v) for k, v in host.items()}, backend.asarray(x)
        )
    assert dx.shape == x.shape
    assert np.allclose(dx, wanted, rtol=1e-10, atol=1e-10 * np.max(np.abs(wanted)))
    assert dparams.keys() == host.keys()
    for k in host:
        assert np.allclose(dparams[k], wanted_params[k], rtol=1e-10, atol=1e-12)


def test_slopes_at_zero():
    zero, one = np.zeros((1, 3)), np.ones((1, 3))
    for part, slope in ((relu, 0.0), (rectified_tanh, 0.0), (tanh, 1.0), (sigmoid, 0.25)):
        op = part.build((3,))
        _, _, cache = op.forward({}, {}, zero, (), True)
        dx, _ = op.backward({}, cache, one)
        assert np.array_equal(dx, slope * one), part.name


def test_nonlinearities_have_known_values():
    x = np.array([[-800.0, -1.0, 0.0, 0.5, 800.0]])
    values = {
        part.name: part.build((5,)).forward({}, {}, x, (), True)[0][0] for part in (tanh, relu, sigmoid, rectified_tanh)
    }
    assert values["relu"].tolist() == [0.0, 0.0, 0.0, 0.5, 800.0]
    assert np.allclose(values["sigmoid"], [0.0, 1 / (1 + np.e), 0.5, 1 / (1 + np.exp(-0.5)), 1.0], rtol=0, atol=1e-15)
    assert np.allclose(values["rectified_tanh"], [0.0, 0.0, 0.0, np.tanh(0.5), 1.0], rtol=1e-15, atol=0)
    for part in (tanh, relu, sigmoid, rectified_tanh):
        op = part.build((1,))
        y, _, cache = op.forward({}, {}, np.array([[np.nan]]), (), True)
        assert np.isnan(y).all()  # a NaN is not hidden
        assert np.isnan(op.backward({}, cache, np.ones((1, 1)))[0]).all()


@pytest.mark.parametrize("name", ["numpy", "torch", "jax", "array-api-strict"])
def test_of_equal_maxima_the_first_takes_the_error(name):
    backend = get(name)
    op = max_pool(2).build((2, 4, 1))
    x = np.array([[[1.0, 5.0, 0.0, 0.0], [5.0, 5.0, 0.0, 0.0]]])[..., None]  # ties: three 5s; four exact zeros
    y, _, cache = op.forward({}, {}, backend.asarray(x), (), True)
    dx, _ = op.backward({}, cache, backend.asarray(np.array([[[10.0, 20.0]]])[..., None]))
    assert backend.to_numpy(y)[0, 0, :, 0].tolist() == [5.0, 0.0]
    assert backend.to_numpy(dx)[0, :, :, 0].tolist() == [[0.0, 10.0, 20.0, 0.0], [0.0, 0.0, 0.0, 0.0]]


def test_padding_never_wins_a_maximum():
    op = max_pool(3, 2, "same").build((3, 3, 1))
    y, _, _ = op.forward({}, {}, -np.ones((1, 3, 3, 1)), (), True)
    assert np.array_equal(y, -np.ones((1, 2, 2, 1)))


def test_average_pool_leaves_padding_out():
    op = average_pool(3, 2, "same").build((3, 4, 2))
    y, _, _ = op.forward({}, {}, np.ones((1, 3, 4, 2)), (), True)
    assert np.allclose(y, 1.0, rtol=1e-15)


def test_upsampling_is_pytorchs_nearest():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 2))
    for factor in (1, 2, 3):
        y, _, _ = upsample(factor).build((3, 4, 2)).forward({}, {}, x, (), True)
        wanted = torch.nn.functional.interpolate(torch.tensor(x).permute(0, 3, 1, 2), scale_factor=factor)
        assert np.array_equal(y, wanted.permute(0, 2, 3, 1).numpy())
    with pytest.raises(ValueError, match=r"upsample\(0\): expected a factor of at least 1"):
        upsample(0)
    with pytest.raises(ValueError, match=r"shape \(6,\), expected \(height, width, channels\)"):
        upsample().build((6,))


def test_rows_are_pixels_or_parts_of_them():
    x = np.arange(24.0).reshape(1, 2, 3, 4)
    assert np.array_equal(rows().build((2, 3, 4)).forward({}, {}, x, (), True)[0], x.reshape(1, 6, 4))
    assert rows(2).build((6, 4)).out_shape == (12, 2) and rows(2).name == "rows(2)"
    for shape in ((6, 3), (4,)):
        with pytest.raises(ValueError, match=r"expected a multiple of 2 channels"):
            rows(2).build(shape)


def test_batch_norm_is_pytorchs():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    op = batch_norm_with(rate=0.2, epsilon=1e-3).build((4, 3, 5))
    theirs = torch.nn.BatchNorm2d(5, momentum=0.2, eps=1e-3, dtype=torch.float64)
    params, stats = op.init(KEY[0], np.float64)
    for _ in range(3):
        x = 2.0 + 3.0 * rng.standard_normal((6, 4, 3, 5))
        y, stats, _ = op.forward(params, stats, x, (), True)
        wanted = theirs(torch.tensor(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).detach().numpy()
        assert np.allclose(y, wanted, rtol=1e-12, atol=1e-12)
    assert np.allclose(stats["mean"], theirs.running_mean.numpy(), rtol=1e-13)
    assert np.allclose(stats["var"], theirs.running_var.numpy(), rtol=1e-13)
    theirs.eval()
    y, same, _ = op.forward(params, stats, x, (), False)
    wanted = theirs(torch.tensor(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).detach().numpy()
    assert np.allclose(y, wanted, rtol=1e-12, atol=1e-12)
    assert same is stats


def test_batch_norm_of_one_value_per_channel_is_finite():
    op = batch_norm.build((3,))
    params, stats = op.init(KEY[0], np.float64)
    y, moved, _ = op.forward(params, stats, np.array([[1.0, -2.0, 0.0]]), (), True)
    assert np.array_equal(y, np.zeros((1, 3)))
    assert np.allclose(moved["var"], 0.9)


def test_dropout_drops_its_share_and_scales_the_rest():
    op = dropout(0.2).build((500, 40, 1))
    x = np.ones((3, 500, 40, 1))
    y, _, mask = op.forward({}, {}, x, KEY, True)
    again, _, _ = op.forward({}, {}, x, KEY, True)
    later, _, _ = op.forward({}, {}, x, (*KEY[:2], KEY[2] + 1), True)
    assert set(np.unique(y)) == {0.0, 1.25}
    assert abs(np.mean(y == 0.0) - 0.2) < 5 * np.sqrt(0.2 * 0.8 / y.size)
    assert np.array_equal(y, again)
    assert not np.array_equal(y, later)
    assert np.array_equal(op.backward({}, mask, 2 * x)[0], 2 * y)
    assert op.forward({}, {}, x, KEY, False)[0] is x
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        dropout(1.0)


def test_every_operation_is_tried_here():
    made = {type(part.build(IMAGE)) for part in PARTS.values()}
    operations = {
        value for value in vars(local).values() if isinstance(value, type) and issubclass(value, local.LocalOperation)
    }
    assert made == operations - {local.LocalOperation}
