"""What a run leaves of its settings in the process, and what is kept in float32 of a run in bfloat16."""

import os
from dataclasses import replace

import numpy as np
import pytest

from ref_bioplaus.backends.numpy_.backend import NumpyBackend
from ref_bioplaus.experiments.spec import building
from ref_bioplaus.experiments.training.loaded import load
from ref_bioplaus.experiments.training.starting import evaluate, resume, train
from ref_bioplaus.machine.environment import DETERMINISM
from ref_bioplaus.tree import leaves
from tests.conftest import get
from tests.helpers.embedded_data import embedded_data
from tests.helpers.runs import PLAIN, arrays, assert_same, of

SMALL_DECAY = {"name": "sgd", "eta": 0.01, "momentum": 0.9, "decay": 1e-3}


@pytest.mark.parametrize("before", [{}, {"XLA_FLAGS": "--xla_dump_to=x", "CUBLAS_WORKSPACE_CONFIG": ":16:8"}])
def test_determinism_is_asked_for_while_a_run_computes_and_no_longer(before, tmp_path, monkeypatch):
    """Also where it is resumed, measured or asked, and where it raises."""
    for name in DETERMINISM:
        monkeypatch.delenv(name, raising=False)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    undone, seen = [], []

    def chosen(self):
        seen.append({name: os.environ.get(name) for name in DETERMINISM})
        return lambda: undone.append(True)

    monkeypatch.setattr(NumpyBackend, "be_deterministic", chosen)

    def is_as_before(times):
        assert len(seen) == len(undone) == times
        assert "xla_gpu_deterministic_ops=true" in seen[-1]["XLA_FLAGS"]
        assert seen[-1]["CUBLAS_WORKSPACE_CONFIG"] == before.get("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        assert {name: os.environ[name] for name in DETERMINISM if name in os.environ} == before

    experiment = of(**PLAIN, epochs=1)
    train(experiment, tmp_path / "run", images=embedded_data())
    is_as_before(1)
    resume(tmp_path / "run", images=embedded_data(), epochs=2)
    is_as_before(2)
    evaluate(tmp_path / "run", images=embedded_data())
    times = len(seen)
    assert times > 2
    is_as_before(times)
    load(tmp_path / "run", images=embedded_data())
    is_as_before(times)

    def stop(record):
        raise LookupError

    with pytest.raises(LookupError):
        train(experiment, tmp_path / "raises", callback=stop, images=embedded_data())
    is_as_before(times + 1)


@pytest.mark.parametrize("algorithm", ["kolen-pollack", "ao-sdtp"])
def test_a_run_in_bfloat16_learns_in_float32(algorithm, tmp_path):
    """Both paths' weights are rounded copies of those that learn, over a stop too; B's wrapper sees float32."""
    get("torch", "float32")
    more = {"optimizer": SMALL_DECAY, "modifications": {"constant-norm": {}}} if algorithm == "kolen-pollack" else {}
    experiment = of(
        **PLAIN, **more, algorithm=algorithm, backend="torch", dtype="bfloat16", kernels="portable", epochs=2
    )
    run = train(experiment, tmp_path / "whole", images=embedded_data())
    for path in (run.state.forward, run.state.feedback):
        masters = path.memory["float32"]
        assert {str(a.dtype) for a in leaves(masters)} == {"torch.float32"}
        pairs = list(zip(leaves(path.params), leaves(masters), strict=True))
        assert any(not bool((p.float() == m).all()) for p, m in pairs)
        frozen = algorithm == "ao-sdtp"  # whose units stay, whatever their copies do
        assert frozen or all(bool((p == m.to(p.dtype)).all()) for p, m in pairs)
    if more:
        start = run.state.forward.memory["inner"]["norm"]
        for p, norm in zip(run.state.forward.memory["float32"][1:], start[1:], strict=True):
            assert abs(float(p.W.norm()) / float(norm.W) - 1.0) < 1e-5
    train(replace(experiment, epochs=1), tmp_path / "parts", images=embedded_data())
    assert_same(run, resume(tmp_path / "parts", images=embedded_data(), epochs=2))
    assert all(np.isfinite(a).all() for a in arrays(run).values())


def test_what_mirrors_moves_feedback_weights_in_float32(tmp_path, monkeypatch):
    """By a decay that changes no weight of 8 bits: they end near those of a run in float32, and else do not."""
    get("torch", "float32")
    options = {"eta_B": 1e-3, "lambda_B": 1e-3}
    experiment = of(
        **PLAIN, algorithm="weight-mirror", algorithm_options=options, backend="torch", dtype="bfloat16",
        kernels="portable", epochs=2,
    )  # fmt: skip
    run = train(experiment, tmp_path / "whole", images=embedded_data())
    exact = train(replace(experiment, dtype="float32"), tmp_path / "exact", images=embedded_data())
    masters = run.state.feedback.memory["float32"]
    for p, m in zip(leaves(run.state.feedback.params), leaves(masters), strict=True):
        assert str(m.dtype) == "torch.float32"
        assert bool((p == m.to(p.dtype)).all()) and not bool((p.float() == m).all())
    assert all(error < 4e-3 for error in errors(masters, exact.state.feedback.params))
    train(replace(experiment, epochs=1), tmp_path / "parts", images=embedded_data())
    assert_same(run, resume(tmp_path / "parts", images=embedded_data(), epochs=2))
    monkeypatch.setattr(building, "feedback_in_float32", lambda algorithm, modes: algorithm)
    alone = train(experiment, tmp_path / "alone", images=embedded_data())
    assert all(error > 8e-3 for error in errors(alone.state.feedback.params, exact.state.feedback.params))


def errors(found, wanted):
    """By array, the size of the difference beside that of the array."""
    pairs = zip(leaves(found), leaves(wanted), strict=True)
    return [float((a.float() - b).norm() / b.norm()) for a, b in pairs]
