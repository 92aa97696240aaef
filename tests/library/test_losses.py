"""Losses of detectors: against slow formulas, torch's own, finite differences and automatic differentiation."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch

from ref_bioplaus import losses

LOGITS = (-1e4, -40.0, -3.0, -0.5, 0.0, 0.25, 2.0, 40.0, 1e4)
K = 3


def slow_focal(z, y, gamma, alpha):
    """One unit's loss with 50 digits."""
    if y < 0:
        return 0.0
    z, weight = (z, alpha) if y > 0 else (-z, 1 - alpha)
    with localcontext(prec=50):
        p, rest = (1 / (1 + Decimal(-a).exp()) for a in (z, -z))
        return float(-Decimal(weight) * rest ** Decimal(gamma) * p.ln())


def anchors(seed=0, shape=(2, 5)):
    """Outputs and targets of N x A anchors: classes, ignored ones, background; the last image has no box."""
    rng = np.random.default_rng(seed)
    u = rng.standard_normal((*shape, K + 4))
    label = rng.integers(-2, K, (*shape, 1))
    label[-1] = np.minimum(label[-1], -1)
    boxed = (label >= 0) * 1.0
    return u, np.concatenate([label, boxed, rng.standard_normal((*shape, 4)) * boxed], axis=-1)


def slow_detection(u, y, gamma, alpha, beta):
    """A loop over images, anchors and units."""
    found = []
    for image, targets in zip(u.reshape(len(u), -1, K + 4), y.reshape(len(y), -1, 6), strict=True):
        total, boxes = 0.0, 0
        for units, (label, boxed, *offsets) in zip(image, targets, strict=True):
            for k in range(K):
                total += slow_focal(units[k], -1 if label == -1 else float(label == k), gamma, alpha)
            boxes += boxed
            for d in (units[K:] - offsets) * boxed:
                total += abs(d) - beta / 2 if abs(d) >= beta else d * d / (2 * beta)
        found.append(total / max(boxes, 1))
    return np.array(found)


def difference_quotient(value, u, direction, step=1e-6):
    """A directional derivative, by central differences."""
    return (value(u + step * direction) - value(u - step * direction)) / (2 * step)


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.0, 0.5), (1.5, 1.0)])
def test_the_focal_loss_is_its_formula(gamma, alpha):
    loss = losses.focal(gamma, alpha)
    for z in LOGITS:
        for y in (1.0, 0.0, -1.0):
            u, targets = np.array([[z, 0.0]]), np.array([[y, -1.0]])
            assert np.allclose(loss.value(u, targets), slow_focal(z, y, gamma, alpha), rtol=1e-13, atol=1e-300)
            found = loss.gradient(u, targets)
            assert np.isfinite(found).all() and found[0, 1] == 0.0
            if abs(z) < 30:
                slope = difference_quotient(lambda u, t=targets: loss.value(u, t)[0], u, np.array([[1.0, 0.0]]))
                assert abs(found[0, 0] - slope) < 1e-9
            assert found[0, 0] * (2 * y - 1) <= 0.0 and (y >= 0 or found[0, 0] == 0.0)
    assert not loss.value(np.full((2, 4), 5.0), np.full((2, 4), -1.0)).any()


def test_the_focal_loss_without_focus_is_half_a_cross_entropy():
    u, y = np.random.default_rng(0).standard_normal((4, 5)), np.eye(5)[[0, 3, 3, 1]]
    plain, found = losses.sigmoid_cross_entropy(), losses.focal(0.0, 0.5)
    assert np.allclose(2 * found.value(u, y), plain.value(u, y), rtol=1e-14)
    assert np.allclose(2 * found.gradient(u, y), plain.gradient(u, y), rtol=1e-12)
    assert np.array_equal(found.output(u), plain.output(u))
    assert np.array_equal(found.target(u, np.where(y > 0, 1.0, -1.0)), np.where(y > 0, 1.0, u))


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_smooth_l1_is_torchs(beta):
    u, y = np.random.default_rng(1).standard_normal((2, 3, 2, 5))
    u[0, 0, 0], y[1, 1, 1] = y[0, 0, 0], u[1, 1, 1] + beta
    loss = losses.smooth_l1(beta) if beta else losses.l1()
    leaf = torch.tensor(u, requires_grad=True)
    each = torch.nn.functional.smooth_l1_loss(leaf, torch.tensor(y), reduction="none", beta=beta)
    each.sum().backward()
    assert np.allclose(loss.value(u, y), each.detach().sum(dim=(1, 2)).numpy(), rtol=1e-14)
    assert np.allclose(loss.gradient(u, y), leaf.grad.numpy(), rtol=1e-12)
    assert np.array_equal(loss.gradient(u, u), np.zeros_like(u))


@pytest.mark.parametrize("shape", [(2, 5), (3, 2, 3, 4), (1, 1)])
@pytest.mark.parametrize("beta", [0.0, 1 / 9])
def test_the_loss_of_a_detector_is_a_slow_loop(shape, beta):
    u, y = anchors(2, shape)
    loss = losses.detection(K, beta=beta)
    assert np.allclose(loss.value(u, y), slow_detection(u, y, 2.0, 0.25, beta), rtol=1e-13)
    direction = np.random.default_rng(3).standard_normal(u.shape)
    slope = difference_quotient(lambda u: loss.value(u, y).sum(), u, direction)
    found = loss.gradient(u, y)
    assert abs(np.sum(found * direction) - slope) < 1e-7 * max(abs(slope), 1.0)
    assert not found[-1, ..., K:].any() and np.isfinite(loss.value(u, y)).all()  # an image without boxes
    assert not found[y[..., 0] == -1].any() and found[-1].any() == (y[-1, ..., 0] == -2).any()
    assert not loss.gradient(u, np.where(np.arange(6) == 0, -1.0, 0.0 * y)).any()  # every anchor ignored


def test_what_a_detector_gives_and_what_it_should():
    u, y = anchors(4)
    loss = losses.detection(K)
    h, hhat = loss.output(u), loss.target(loss.output(u), y)
    assert np.allclose(h[..., :K], 1 / (1 + np.exp(-u[..., :K])), rtol=1e-14) and np.array_equal(h[..., K:], u[..., K:])
    kept = y[..., 0] == -1
    assert np.array_equal(hhat[kept], h[kept])
    assert np.array_equal(hhat[..., :K][~kept], (y[..., :1] == np.arange(K))[~kept])
    boxed = y[..., 1] == 1
    assert np.array_equal(hhat[..., K:], np.where(boxed[..., None], y[..., 2:], h[..., K:])) and boxed.any()
    assert np.array_equal(loss.value(np.where(boxed[..., None], hhat, 0.0), y)[-1:], loss.value(0.0 * u, y)[-1:])


def test_a_nan_reaches_the_loss_of_a_detector():
    u, y = anchors(5)
    for place in ((0, 0, 0), (1, 2, K + 1)):  # a logit; an offset of an anchor without a box
        wrong = np.array(u)
        wrong[place] = np.nan
        assert np.isnan(losses.detection(K).value(wrong, y)[place[0]])
        assert np.isnan(losses.detection(K).gradient(wrong, y)[place])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: losses.focal(-1.0), r"focal: gamma is -1.0, expected a finite number of at least 0"),
        (lambda: losses.focal(alpha=1.5), r"focal: alpha is 1.5, expected a number from 0 to 1"),
        (lambda: losses.smooth_l1(-0.5), r"smooth_l1: beta is -0.5, expected a finite number of at least 0"),
        (lambda: losses.detection(2).value(*anchors()), r"the output has 7 units per anchor, expected 2 classes and 4"),
        (lambda: losses.detection(K).gradient(anchors()[0], anchors()[0]),
         r"targets y have shape \(2, 5, 7\), expected \(2, 5, 6\): per anchor its class \(-1: ignored, -2: background"),
        (lambda: losses.l1().value(np.zeros((2, 3)), np.zeros(2)), r"targets y have shape \(2,\), expected \(2, 3\)"),
    ],
)  # fmt: skip
def test_what_a_loss_cannot_use_gets_a_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
