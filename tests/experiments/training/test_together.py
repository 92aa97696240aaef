"""Batches that are learned from by one call: the run is the same, bit for bit, whatever is stopped or changes in it."""

from dataclasses import replace

import numpy as np
import pytest

from ref_bioplaus.backends.base import CompiledStep
from ref_bioplaus.backends.numpy_.backend import NumpyBackend
from ref_bioplaus.experiments.training import progress
from ref_bioplaus.experiments.training.progress import Progress, together
from ref_bioplaus.experiments.training.reporter import Reporter
from ref_bioplaus.experiments.training.starting import NotFinite, resume, train
from ref_bioplaus.types import Batch
from tests.helpers.embedded_data import embedded_data
from tests.helpers.runs import PLAIN, arrays, assert_same, of

CASES = {  # a last partial batch; modes that change within an epoch; two modes on every batch, and none that learns
    "kolen-pollack": (of(algorithm="kolen-pollack", batch=90), {3: 3, 1: 0}),
    "weight mirror": (
        of(**PLAIN, algorithm="weight-mirror", algorithm_options={"mirror_per_batch": 2, "initial_mirroring": 3}),
        {2: 5},
    ),
    "dtp, in turn": (of(**PLAIN, algorithm="dtp", algorithm_options={"schedule": "in-turn"}), {2: 6}),
    "dtp alternating": (of(**PLAIN, algorithm="dtp-alternating"), {2: 6}),
}


def resident():
    """Images as of a dataset that lies on the device: five batches of a hundred, the last one of seventy."""
    data = embedded_data()
    data.resident = True
    return data


class Told(Reporter):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def counted(monkeypatch):
    """How many batches each call was given, but for single ones."""
    found, call = [], CompiledStep.__call__

    def counting(self, state, batch):
        found.extend([batch.x.shape[0]] if self.steps is not None else [])
        return call(self, state, batch)

    monkeypatch.setattr(CompiledStep, "__call__", counting)
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_run_with_stacks_is_the_same_run(case, tmp_path, counted, monkeypatch):
    experiment, expected = CASES[case]
    alone, told = train(experiment, tmp_path / "alone", images=resident()), Told()
    assert not counted
    for most, calls in expected.items():
        counted.clear()
        monkeypatch.setattr(NumpyBackend, "at_once", most)
        found = train(experiment, tmp_path / f"stacks of {most}", images=resident(), reporter=told)
        assert counted == [most] * calls
        assert_same(alone, found)
    sentences = [note for note in told.notes if "by one call" in note]
    assert sentences == [f"The images lie on the device: {max(expected)} batches are learned from by one call."]


def test_a_run_goes_on_with_other_stacks(tmp_path, counted, monkeypatch):
    """Stopped after three of five batches, in the middle of what would have been a stack."""
    experiment = of(**PLAIN)
    whole = train(experiment, tmp_path / "whole", images=resident())
    monkeypatch.setattr(NumpyBackend, "at_once", 2)
    train(replace(experiment, steps=3), tmp_path / "parts", images=resident())
    assert counted == [2]
    again = resume(tmp_path / "parts", images=resident(), epochs=3)
    assert {n: a.tobytes() for n, a in arrays(again).items()} == {n: a.tobytes() for n, a in arrays(whole).items()}
    assert again.records[-1]["train_loss"] == whole.records[-1]["train_loss"]
    assert counted == [2] * 5  # a single one, then two, two and a single one in each epoch


def test_single_batches_where_a_stack_would_not_do(tmp_path, counted, monkeypatch):
    """Large ones, images on the host, many layers, a checkpoint after each."""
    monkeypatch.setattr(NumpyBackend, "at_once", 2)
    data = resident()
    train(of(**PLAIN, checkpoint_every=0.0, epochs=1), tmp_path / "kept", images=data)
    monkeypatch.setattr(progress, "HELD_BATCHES", 100 * (60 + 10) + 1)
    train(of(**PLAIN, epochs=1), tmp_path / "large", images=data)
    assert not counted
    monkeypatch.setattr(progress, "HELD_BATCHES", 2 * 100 * (60 + 10))
    train(of(**PLAIN, epochs=1), tmp_path / "small", images=data)
    assert counted == [2, 2]
    train(of(**PLAIN, epochs=1), tmp_path / "host", images=embedded_data())
    monkeypatch.setattr(progress, "SMALL_DEPTH", 3)
    train(of(**PLAIN, epochs=1), tmp_path / "deep", images=data)
    assert counted == [2, 2]
    monkeypatch.setattr(progress, "SMALL_DEPTH", 16)
    x = np.random.default_rng(0).random((40, 6, 5, 1)).astype(np.float32)
    train(of(**PLAIN, epochs=1, batch=8), tmp_path / "arrays", images=(x, np.arange(40) % 4))
    assert counted == [2, 2, 2, 2]


def test_a_loss_that_is_not_finite_is_found_in_a_stack(tmp_path, monkeypatch):
    experiment = of(**PLAIN, optimizer={"name": "sgd", "eta": 1e38}, epochs=1)
    said = []
    for most in (1, 4):
        monkeypatch.setattr(NumpyBackend, "at_once", most)
        with pytest.raises(NotFinite) as error:
            train(experiment, tmp_path / str(most), images=resident())
        said.append(str(error.value).partition("; the last finite")[0])
    assert said[0] == said[1]
    assert "after step" in said[0]


def test_what_goes_together():
    """Whole stacks of alike batches from multiples of their length on."""

    def taken(sizes, most, start=0, total=100, schedule=lambda epoch, i: ("learn",)):
        at, found = Progress(step=start, position=start), []
        batches = iter([Batch(np.zeros((n, 3)), np.zeros((n, 2))) for n in sizes[start:]])
        for group in together(batches, most, at, total, schedule):
            found.append(tuple(b.x.shape[0] for b in group))
            at.step, at.position = at.step + len(group), at.position + len(group)
        return found

    assert taken([4, 4, 4, 4, 4, 1], 2) == [(4, 4), (4, 4), (4,), (1,)]
    assert taken([4, 4, 4, 4, 4, 1], 3, start=1) == [(4,), (4,), (4,), (4,), (1,)]
    assert taken([4] * 7, 3, start=2) == [(4,), (4, 4, 4), (4,)]
    assert taken([4] * 7, 3, total=5) == [(4, 4, 4), (4,), (4,), (4,), (4,)]
    assert taken([0, 4, 0, 0, 4, 4], 2) == [(0,), (4,), (0,), (0,), (4, 4)]
    assert taken([4] * 6, 2, schedule=lambda epoch, i: ("a",) if i < 3 else ["b"]) == [(4, 4), (4,), (4,), (4, 4)]
    assert taken([4] * 3, 1) == [(4,)] * 3
    assert taken([], 3) == []
