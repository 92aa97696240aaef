"""Predictions and metrics of a subject: whoever gets one wrong is found."""

import pytest

from ref_bioplaus import metrics, network
from ref_bioplaus.conformance.checks import looking, runner
from ref_bioplaus.conformance.checks.outcomes import Subject
from ref_bioplaus.conformance.proofs.faults import ignoring, replaced
from tests.conftest import get
from tests.helpers import slow

CHECKS = {check.id: check for check in looking.checks()}


def swapped(tree):
    return {l: tree[m] for l, m in zip(tree, reversed(list(tree)), strict=True)}


def of(function, change):
    return lambda *arguments: change(function(*arguments))


FAULTS = {
    "a prediction with the batch's statistics": (network.forward, ignoring(network.forward, "train", True),
                                                 "1/predict/backprop/ResNet, BN before ReLU/6"),
    "an angle in radians": (metrics.angle, of(metrics.angle, lambda a: a * 0.0174533), "1/metrics/delta_angles"),
    "an angle by the cosine alone": (
        metrics.angle,
        lambda a, b: 57.29578 * metrics.array_namespace(a).acos(metrics.array_namespace(a).sum(a * b) / (
            metrics._norm(a) * metrics._norm(b))),
        "1/metrics/matrix_angles, nearly parallel"),
    "a ratio turned over": (metrics._norm, lambda a: 1.0 / metrics.array_namespace(a).sqrt(
        metrics.array_namespace(a).sum(a * a)), "1/metrics/gradient_ratios"),
    "signs of which 0 counts as plus": (metrics._fraction, lambda a, b: metrics.array_namespace(a).mean(
        metrics.array_namespace(a).astype((a >= 0) != (b >= 0), a.dtype)), "1/metrics/sign_changes"),
    "an error of the first alone": (metrics.top_k_error, ignoring(metrics.top_k_error, "k", 1),
                                    "1/metrics/top_k_error/2 of 4, 8 samples"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_prediction_or_metric_is_found(name):
    old, new, id = FAULTS[name]
    backend = get("numpy", "float32")
    right = runner.run(Subject(backend), [CHECKS[id]], ("compiled",))
    assert right.sound and right.outcomes[0].comparisons
    wrong = runner.run(Subject(backend, under=lambda: replaced(old, new)), [CHECKS[id]], ("compiled",))
    assert wrong.outcomes[0].state == "fail", wrong.outcomes[0]


@pytest.mark.parametrize("name", ["numpy", "torch", "array-api-strict", slow("jax")])
def test_right_ones_pass(name):
    report = runner.run(Subject(get(name, "float32")), list(CHECKS.values()))
    assert [(o.id, o.reason) for o in report.outcomes if o.state != "pass"] == []
