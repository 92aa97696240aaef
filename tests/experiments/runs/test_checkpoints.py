"""Checkpoints: exact, refused where damaged, and whole after a kill between any two of the system's operations."""

import copy
import json
import os
import shutil
import types
from contextlib import suppress

import numpy as np
import pytest

from ref_bioplaus.experiments.runs import checkpoints
from ref_bioplaus.experiments.runs.checkpoints import BEST, CheckpointError, found, latest, load, name_at, save
from ref_bioplaus.machine import files
from ref_bioplaus.machine.files import write_whole
from tests.conftest import get

HEADER = {"step": 3, "words": "η = 0.1", "numbers": [0.1, None], "in order": {"b": 1, "a": 2}}
TENSORS = {
    "forward/params/1/W": np.array([[0.0, -0.0, 1e-42], [np.pi, -1.5, 3e38]], np.float32),
    "forward/params/1/local/0/b": np.zeros((0, 4)),
    "t": np.array(7, np.int32),
    "key": np.array([-1, 2**31 - 1], np.int32),
}


class Killed(BaseException):
    """The process is no more: nothing catches this."""


class System:
    """The system's operations, up to the one at which the process is killed.

    A write that is cut short has written half. lose: what was not synced is lost, as in a power cut.
    """

    def __init__(self, end):
        self.end, self.count, self.opened, self.synced = end, 0, {}, set()

    def __getattr__(self, name):
        return getattr(os, name)

    def count_down(self):
        self.count += 1
        if self.count > self.end:
            raise Killed

    def open(self, path, *rest):
        self.count_down()
        file = os.open(path, *rest)
        self.opened[file] = path
        return file

    def write(self, file, content):
        self.count += 1
        if self.count > self.end:
            os.write(file, content[: len(content) // 2])
            raise Killed
        return os.write(file, content[: max(1, len(content) * 2 // 3)])

    def fsync(self, file):
        self.count_down()
        os.fsync(file)
        self.synced.add(str(self.opened[file]))

    def replace(self, old, new):
        self.count_down()
        if str(old) not in self.synced:  # a rename that reaches the disk before the content does
            with open(old, "r+b") as file:
                file.truncate(10)
        os.replace(old, new)

    def unlink(self, path):
        self.count_down()
        os.unlink(path)

    def close(self, file):
        os.close(file)


def tensors_at(step):
    return TENSORS | {"t": np.array(step, np.int32)}


def test_what_is_loaded_is_what_was_saved_bit_for_bit(tmp_path):
    path = save(tmp_path, 3, HEADER, TENSORS)
    loaded = load(path)
    assert {k: v for k, v in loaded.header.items() if k != "format"} == HEADER
    assert list(loaded.header["in order"]) == ["b", "a"]
    assert loaded.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert loaded.tensors[name].shape == tensor.shape
        assert loaded.tensors[name].tobytes() == tensor.tobytes(), name


def test_it_is_a_safetensors_file_that_others_can_read(tmp_path):
    from safetensors import safe_open

    with safe_open(save(tmp_path, 3, HEADER, TENSORS), "numpy") as file:
        assert json.loads(file.metadata()["ref_bioplaus"])["words"] == "η = 0.1"
        assert np.array_equal(file.get_tensor("key"), TENSORS["key"])


def test_the_two_newest_and_the_best_are_kept(tmp_path):
    for step in range(5):
        save(tmp_path, step, HEADER | {"step": step}, tensors_at(step), best=step == 1)
    assert [p.name for p in found(tmp_path)] == [name_at(4), name_at(3)]
    assert latest(tmp_path).header["step"] == 4
    assert latest(tmp_path, "best").header["step"] == 1
    assert latest(tmp_path, name_at(3)).header["step"] == 3
    save(tmp_path, 2, HEADER | {"step": 2}, tensors_at(2))  # a run that went on from an earlier one
    assert [p.name for p in found(tmp_path)] == [name_at(2)]


def test_every_altered_byte_and_every_truncation_is_refused(tmp_path):
    save(tmp_path, 2, HEADER, TENSORS)
    path = save(tmp_path, 3, HEADER, TENSORS)
    content = path.read_bytes()
    for i in range(len(content)):
        path.write_bytes(content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :])
        with pytest.raises(CheckpointError, match="truncated or altered: continue .* --checkpoint step-000000000002"):
            load(path)
    for n in (*range(0, 40), *range(40, len(content), 37), len(content) - 1):
        path.write_bytes(content[:n])
        with pytest.raises(CheckpointError, match="truncated or altered"):
            load(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(CheckpointError, match="truncated or altered"):
        load(path)
    path.write_bytes(content)
    assert load(path).header["step"] == 3


def test_a_folder_without_the_checkpoint_says_what_it_has(tmp_path):
    with pytest.raises(CheckpointError, match="has no checkpoint: start with"):
        latest(tmp_path)
    path = save(tmp_path, 3, HEADER, TENSORS)
    with pytest.raises(CheckpointError, match=f"it has {name_at(3)}"):
        latest(tmp_path, "best")
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="there is none before it"):
        latest(tmp_path)


def use(system, monkeypatch):
    for module in (checkpoints, files):
        monkeypatch.setattr(module, "os", system)


def operations(tmp_path, monkeypatch):
    """How many operations one save takes."""
    system = System(10**9)
    use(system, monkeypatch)
    folder = tmp_path / "count"
    folder.mkdir()
    for step in (1, 2, 3):
        system.count = 0
        save(folder, step, HEADER | {"step": step}, tensors_at(step), best=True)
    monkeypatch.undo()
    return system.count


def test_a_kill_between_any_two_operations_leaves_a_whole_checkpoint(tmp_path, monkeypatch):
    count = operations(tmp_path, monkeypatch)
    assert count > 15
    seen = set()
    for end in range(count + 1):
        folder = tmp_path / str(end)
        folder.mkdir()
        for step in (1, 2):
            save(folder, step, HEADER | {"step": step}, tensors_at(step), best=True)
        use(System(end), monkeypatch)
        with suppress(Killed):
            save(folder, 3, HEADER | {"step": 3}, tensors_at(3), best=True)
        monkeypatch.undo()
        checkpoint = latest(folder)
        step = checkpoint.header["step"]
        assert step in (2, 3)
        assert int(checkpoint.tensors["t"]) == step
        assert latest(folder, "best").header["step"] in ((2, 3) if step == 2 else (3,))
        checkpoints.remove_temporaries(folder)
        assert {p.name for p in folder.iterdir()} <= {name_at(1), name_at(2), name_at(3), BEST}
        seen.add(step)
    assert seen == {2, 3}


def test_a_full_disk_is_a_sentence_and_leaves_the_one_before(tmp_path, monkeypatch):
    save(tmp_path, 1, HEADER | {"step": 1}, tensors_at(1))

    def full(file, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "os", types.SimpleNamespace(**{**vars(os), "write": full}))
    with pytest.raises(CheckpointError, match="No space left on device"):
        save(tmp_path, 2, HEADER | {"step": 2}, tensors_at(2))
    monkeypatch.undo()
    assert latest(tmp_path).header["step"] == 1


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_bfloat16_is_kept_exactly(name, tmp_path, quick_compiler):
    from ref_bioplaus import losses, optimizers
    from ref_bioplaus.algorithms import backprop
    from ref_bioplaus.tree import named_leaves
    from tests.helpers.small_models import small

    backend = get(name, "bfloat16")
    network = small("bartunov2018/mnist-lc").with_dtype("bfloat16")
    algorithm = backprop(network, losses.cross_entropy(), optimizers.adam(0.1))
    state = algorithm.init(backend.key(5))
    path = save(tmp_path, 0, {"step": 0}, checkpoints.tensors_of(backend, state))
    again = checkpoints.state_of(backend, load(path), algorithm.init(backend.key(6)))
    for (place, a), (_, b) in zip(named_leaves(state), named_leaves(again), strict=True):
        assert a.dtype == b.dtype, place
        assert np.array_equal(backend.to_numpy(a), backend.to_numpy(b)), place


def test_a_checkpoint_of_another_network_does_not_fit(tmp_path, numpy64):
    from ref_bioplaus import losses, optimizers
    from ref_bioplaus.algorithms import backprop
    from tests.helpers.small_models import small

    def start(model):
        return backprop(small(model), losses.cross_entropy(), optimizers.sgd(0.1)).init(numpy64.key(0))

    path = save(tmp_path, 0, {}, checkpoints.tensors_of(numpy64, start("bartunov2018/mnist-fc")))
    with pytest.raises(CheckpointError, match="does not fit its experiment: forward/params"):
        checkpoints.state_of(numpy64, load(path), start("akrout2019/mlp"))


@pytest.mark.parametrize("dtype", ["bool", "uint64", "int32", "float16", "float64"])
@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
def test_tensors_of_another_kind_do_not_fit(library, dtype, tmp_path):
    """Floats of another precision are taken, as a run may go on in another; counters and flags are no weights."""
    from ref_bioplaus import losses, optimizers
    from ref_bioplaus.algorithms import backprop
    from tests.helpers.small_models import small

    backend = get(library, "float64")
    like = backprop(small("akrout2019/mlp"), losses.cross_entropy(), optimizers.sgd(0.1)).init(backend.key(0))
    tensors = checkpoints.tensors_of(backend, like)
    name = "forward/params/1/W"
    held = checkpoints.Checkpoint(tmp_path / "x", {}, tensors | {name: np.ones(tensors[name].shape, dtype)})
    if "float" in dtype:
        state = checkpoints.state_of(backend, held, like)
        assert np.all(backend.to_numpy(state.forward.params[1].W) == 1.0)
    else:
        with pytest.raises(CheckpointError, match=f"{name} has dtype {dtype}, expected float64"):
            checkpoints.state_of(backend, held, like)
    if dtype == "uint64":
        held = checkpoints.Checkpoint(tmp_path / "x", {}, tensors | {"t": np.array(0, dtype)})
        with pytest.raises(CheckpointError, match="t has dtype uint64, expected int32"):
            checkpoints.state_of(backend, held, like)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two epochs, and its newest checkpoint."""
    from ref_bioplaus.experiments.spec.experiment import Experiment
    from ref_bioplaus.experiments.training.starting import train

    out = tmp_path_factory.mktemp("headers") / "run"
    train(
        Experiment(model="akrout2019/mlp", model_options={"hidden": 4}, dataset="embedded", batch=1000, epochs=2), out
    )
    return out, latest(out)


def forged(path, value):
    """A change of a header's entry, which may lie in a table; ... takes the entry away."""

    def change(header):
        *tables, last = path.split(".")
        place = header
        for name in tables:
            place = place[name]
        if value is ...:
            del place[last]
        else:
            place[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("step", ..., "lacks step"), ("progress", ..., "lacks progress"), ("experiment", ..., "lacks experiment"),
        ("progress.position", ..., "lacks progress.position"),
        ("step", "x", "says that step is 'x', expected a whole number"), ("step", True, "says that step is True"),
        ("log_size", 1.5, "says that log_size is 1.5"), ("images", [], r"says that images is \[\]"),
        ("experiment", "x", "says that experiment is 'x', expected a table"), ("progress", None, "expected a table"),
        ("progress.losses", float("nan"), "says that progress.losses is nan, expected a finite number"),
        ("progress.best", "x", "says that progress.best is 'x'"), ("progress.due", 1, "expected true or false"),
        ("progress.pending", [], r"says that progress.pending is \[\], expected no such entry"),
        ("progress.epoch", -1, "says that progress.epoch is -1"), ("unknown", 1, "unknown is 1, expected no such"),
        ("progress.step", 7, "contradicts itself: step is 10, and progress.step 7"),
        ("step", 10**400, "says that step is"),
        ("experiment.model_options.hidden", 10**9, "does not fit its experiment: it has .* parameters, expected"),
    ],
)  # fmt: skip
def test_a_header_that_no_run_has_written_is_a_sentence(path, value, sentence, run, tmp_path):
    """With a right checksum: whoever wrote it meant it."""
    from ref_bioplaus.experiments.spec.experiment import ExperimentError
    from ref_bioplaus.experiments.training.starting import evaluate, resume

    out, newest = run
    shutil.copytree(out, tmp_path / "run")
    header = copy.deepcopy(newest.header)
    forged(path, value)(header)
    write_whole(tmp_path / "run" / newest.path.name, checkpoints.encoded(header, newest.tensors))
    (tmp_path / "run" / "experiment.toml").unlink()
    before = (tmp_path / "run" / "log.jsonl").read_bytes()
    for use in (resume, evaluate):
        with pytest.raises((CheckpointError, ExperimentError), match=sentence):
            use(tmp_path / "run")
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == before


def test_more_batches_than_an_epoch_has_are_a_sentence(run, tmp_path):
    from ref_bioplaus.experiments.training.starting import resume

    out, newest = run
    shutil.copytree(out, tmp_path / "run")
    header = newest.header | {"position": 6, "progress": newest.header["progress"] | {"position": 6}}
    write_whole(tmp_path / "run" / newest.path.name, checkpoints.encoded(header, newest.tensors))
    with pytest.raises(CheckpointError, match="it has 6 batches learned, expected 5 in an epoch at most"):
        resume(tmp_path / "run", epochs=3)
