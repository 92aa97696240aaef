"""What a run has learned goes into a file that torch loads, and a run begins from such a file."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

import ref_bioplaus as rb
from ref_bioplaus import experiments
from ref_bioplaus.experiments.figures import series
from ref_bioplaus.experiments.runs import checkpoints, logs, weights
from ref_bioplaus.experiments.runs.checkpoints import CheckpointError
from ref_bioplaus.experiments.spec.experiment import Experiment, ExperimentError, read
from ref_bioplaus.experiments.training.starting import resume, train
from ref_bioplaus.initializers import forward_params
from ref_bioplaus.models import MODELS
from ref_bioplaus.network import Builder
from ref_bioplaus.tree import leaves
from tests.conftest import get
from tests.helpers import runs
from tests.helpers.commands import printed
from tests.helpers.embedded_data import embedded_data

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402

from tests.helpers.torch_modules import TorchNetwork, channels_first  # noqa: E402


def normalised(*, in_shape=(28, 28, 1), classes=10) -> rb.Network:
    """A small residual network with BatchNorm, on images that are not square."""
    net = Builder(in_shape)
    x = net.add(rb.conv(3, 3, stride=2), rb.batch_norm, rb.relu)
    y = net.add(rb.conv(3, (1, 3)), rb.batch_norm, inputs=(x,))
    net.add(rb.relu, inputs=(x, y))
    net.add(rb.max_pool(2), rb.flatten)
    net.add(rb.dense(classes), rb.bias)
    return net.build()


@pytest.fixture
def small_model(monkeypatch):
    """`normalised` by name."""
    monkeypatch.setitem(MODELS, "normalised", normalised)


def of(**fields):
    """A run of two epochs of five batches, the last of them smaller, on images of 10 x 6 pixels."""
    own = {"model": "normalised", "algorithm": "kolen-pollack", "batch": 100, "epochs": 2, "metrics": ()}
    return Experiment(**(own | {"checkpoint_every": 1000.0} | fields))


STILL = {"name": "sgd", "eta": 0.0, "decay": 0.0}  # learns nothing: the last weights are the first


@pytest.fixture
def run(small_model, tmp_path):
    """A run in float32 that has learned."""
    return train(of(), tmp_path / "kp", images=embedded_data())


def predicted(run, x):
    """What a run's network gives in test mode, as logits."""
    network = run.built.network
    trace, _ = rb.forward(network, run.state.forward.params, run.state.stats, run.backend.asarray(x), train=False)
    return run.backend.to_numpy(trace.h[-1])


def same(a, b):
    """Whether two trees hold the same bits."""
    pairs = zip(leaves(a), leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


# Out of a run


def test_what_is_exported_loads_strictly_and_predicts_the_same(run, tmp_path):
    file = tmp_path / "kp.safetensors"
    arrays = experiments.export(run.out, file)
    network = run.built.network
    module = TorchNetwork(network, torch.float32)
    assert list(arrays) == list(module.state_dict())
    module.load_state_dict(load_file(file), strict=True)
    x = embedded_data().test.x[:7]
    with torch.no_grad():
        found = module.eval()(channels_first(x)).numpy()
    assert np.max(np.abs(found)) > 0.1 and np.allclose(found, predicted(run, x), rtol=1e-4, atol=1e-5)
    assert arrays["1.1.num_batches_tracked"].shape == load_file(file)["1.1.num_batches_tracked"].shape == ()
    assert np.array_equal(arrays["1.1.running_mean"], np.asarray(run.state.stats[1][0]["mean"]))
    assert np.ptp(arrays["1.1.running_mean"]) > 0


def test_the_command_and_its_checkpoint(run, tmp_path):
    best, newest = tmp_path / "best.safetensors", tmp_path / "newest.safetensors"
    words = printed("export", run.out, newest)
    assert "holds 14 tensors, 1.0.weight to 5.0.bias, of" in words
    printed("export", run.out, best, "--checkpoint", "best")
    stored = checkpoints.latest(run.out, "best").tensors["forward/params/5/local/0/b"]
    assert np.array_equal(load_file(best)["5.0.bias"].numpy(), stored)
    assert np.array_equal(load_file(newest)["5.0.bias"].numpy(), np.asarray(run.state.forward.params[5].local[0]["b"]))


def test_export_keeps_the_dtype_and_is_the_same_elsewhere(small_model, tmp_path):
    wide = train(of(dtype="float64", steps=2), tmp_path / "wide", images=embedded_data())
    arrays = experiments.export(wide.out, tmp_path / "wide.safetensors")
    elsewhere = experiments.load(wide.out, backend="torch").export(tmp_path / "torch.safetensors")
    assert (tmp_path / "torch.safetensors").read_bytes() == (tmp_path / "wide.safetensors").read_bytes()
    assert elsewhere.keys() == arrays.keys()
    assert arrays["5.0.weight"].dtype == np.float64
    assert {a.dtype.name for a in arrays.values()} == {"float64", "int64"}


def test_what_cannot_be_exported_is_a_sentence(run, tmp_path):
    assert "has no checkpoint: start with" in printed("export", tmp_path / "nothing", tmp_path / "x", code=2)
    words = printed("export", run.out, tmp_path / "no" / "x.safetensors", code=2)
    assert "cannot be written (No such file or directory): name another one." in words
    found = checkpoints.latest(run.out)
    fewer = {name: tensor for name, tensor in found.tensors.items() if name != "forward/params/5/W"}
    found.path.write_bytes(checkpoints.encoded(found.header, fewer))
    with pytest.raises(CheckpointError, match="does not fit its experiment: it has 76 parameters, expected 136"):
        experiments.export(run.out, tmp_path / "x")


# Into a run


def test_a_run_begins_from_a_file_and_records_its_hash(run, tmp_path):
    file = tmp_path / "kp.safetensors"
    experiments.export(run.out, file)
    drawn = train(of(optimizer=STILL, steps=1), tmp_path / "drawn", images=embedded_data())
    begun = train(of(optimizer=STILL, steps=1, start=str(file)), tmp_path / "begun", images=embedded_data())
    assert same(begun.state.forward.params, run.state.forward.params)
    assert not same(begun.state.forward.params, drawn.state.forward.params)
    assert same(begun.state.feedback.params, drawn.state.feedback.params)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert (begun.out / weights.START).read_bytes() == file.read_bytes()
    written = read(begun.out / "experiment.toml")
    assert (written.start, written.start_sha256) == (str(file), sha256)
    (segment,) = logs.told(begun.out).segments
    assert (segment["experiment"]["start"], segment["experiment"]["start_sha256"]) == (file.name, sha256)
    assert drawn.experiment.start_sha256 is None and not (drawn.out / weights.START).exists()
    (one,), (other,) = (group.runs for group in series.grouped(map(series.read, (drawn.out, begun.out))))
    assert series.known_by(other).items() - series.known_by(one).items() == {("weights", sha256[:12])}


def test_files_modules_and_trees_begin_the_same(run, tmp_path):
    """By another algorithm, and on another library; statistics come with the weights."""
    file = tmp_path / "kp.safetensors"
    experiments.export(run.out, file)
    module = TorchNetwork(run.built.network, torch.float32)
    module.load_state_dict(load_file(file))
    tree = (run.state.forward.params, run.state.stats)
    still = of(optimizer=STILL, steps=1, algorithm="dfa")
    found = [
        train(still, tmp_path / str(i), images=embedded_data(), params=given)
        for i, given in enumerate((file, module.state_dict(), tree, rb.interop.FromTorch(run.built.network, *tree)))
    ]
    for other in found:
        assert same(other.state.forward.params, run.state.forward.params)
        assert same(other.state.stats, found[0].state.stats)
        assert len(other.experiment.start_sha256) == 64 and other.experiment.start is None
    assert not same(found[0].state.stats, run.state.stats)  # one batch has moved them
    assert found[2].experiment.start_sha256 == found[3].experiment.start_sha256
    other = train(
        replace(still, backend="torch", kernels="portable"), tmp_path / "t", images=embedded_data(), params=file
    )
    assert same(other.state.forward.params, run.state.forward.params)


class Own(torch.nn.Module):
    """A residual Module with BatchNorm, for images of 10 x 6 pixels."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.BatchNorm2d(4)
        self.more, self.out = torch.nn.Conv2d(4, 4, 3, padding=1), torch.nn.Linear(60, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        x = torch.nn.functional.max_pool2d(torch.relu(x + self.more(x)), 2)
        return self.out(x.flatten(1))


def test_a_module_of_ones_own_is_trained_and_goes_back(tmp_path):
    """From torch, a run of its network that begins from its weights, an export, and into the Module again."""
    torch.manual_seed(0)
    module = Own()
    network, params, stats = rb.interop.from_torch(module, torch.zeros(1, 1, 10, 6))
    before = predicted_by(module)
    own = of(model=lambda *, in_shape, classes: network, metrics=("sign_changes",))
    run = train(own, tmp_path / "own", images=embedded_data(), params=(params, stats))
    assert np.allclose(before, theirs(network, params, stats), rtol=1e-4, atol=1e-5)
    run_again = experiments.load(run.out, code=run.experiment.model)
    run_again.export(tmp_path / "own.safetensors")
    module.load_state_dict(load_file(tmp_path / "own.safetensors"), strict=True)
    assert np.allclose(predicted_by(module), predicted(run, embedded_data().test.x[:5]), rtol=1e-4, atol=1e-5)
    assert np.max(np.abs(before - predicted_by(module))) > 0.1
    x, y = embedded_data().test
    with torch.no_grad():
        wrong = 100 * np.mean(module.eval()(channels_first(x)).argmax(1).numpy() != y.argmax(1))
    assert abs(wrong - run.records[-1]["test_error"]) < 1e-9


def theirs(network, params, stats):
    """What a network gives for the five images that `predicted_by` has."""
    return rb.forward(network, params, stats, embedded_data().test.x[:5], train=False)[0].h[-1]


def predicted_by(module):
    """What a Module gives for five images, in test mode."""
    with torch.no_grad():
        return module.eval()(channels_first(embedded_data().test.x[:5])).numpy()


def test_numbers_of_float64_come_whole(small_model, tmp_path):
    params, stats = forward_params(normalised(in_shape=(10, 6, 1)).with_dtype("float64"), (get("numpy").key(7),))
    begun = train(
        of(optimizer=STILL, steps=1, dtype="float64"), tmp_path / "a", images=embedded_data(), params=(params, stats)
    )
    assert same(begun.state.forward.params, params)


def test_a_run_from_given_weights_goes_on_as_if_never_stopped(run, tmp_path):
    """Its signs change since the weights that it was given, not since drawn ones; the file itself may be gone."""
    file = tmp_path / "kp.safetensors"
    experiments.export(run.out, file)
    experiment = of(start=str(file), metrics=("sign_changes",), algorithm="weight-mirror", seed=2)
    whole = train(experiment, tmp_path / "whole", images=embedded_data())
    stopped = train(experiment, tmp_path / "part", images=runs.Stopping(embedded_data(), at=7))
    assert not stopped.finished
    file.unlink()
    runs.assert_same(whole, resume(stopped.out, images=embedded_data()))
    again = train(replace(experiment, start=None), tmp_path / "part", images=embedded_data(), resume=True)
    assert again.experiment.start_sha256 == whole.experiment.start_sha256
    (tmp_path / "whole" / weights.START).write_bytes(b"other")
    with pytest.raises(
        CheckpointError, match="start.safetensors, were altered: put the file back, or leave sign_changes"
    ):
        resume(whole.out, images=embedded_data(), epochs=3)
    (tmp_path / "whole" / weights.START).unlink()
    with pytest.raises(CheckpointError, match="cannot be read .No such file or directory.: put the file back"):
        resume(whole.out, images=embedded_data(), epochs=3)
    assert resume(whole.out, images=embedded_data(), epochs=3, metrics=()).finished


def test_a_run_that_has_no_checkpoint_yet_starts_again_from_the_same_weights(run, tmp_path):
    file, out = tmp_path / "kp.safetensors", tmp_path / "killed"
    experiments.export(run.out, file)
    killed = train(of(start=str(file)), out, images=embedded_data())
    for path in (*checkpoints.found(out), out / checkpoints.BEST):
        path.unlink()
    runs.assert_same(killed, train(of(start=str(file)), out, images=embedded_data(), resume=True))


def refused(tmp_path, match, params=None, **fields):
    """What is said of weights that cannot be begun from, before anything is written."""
    with pytest.raises(ExperimentError, match=match) as error:
        train(of(**fields), tmp_path / "refused", images=embedded_data(), params=params)
    assert str(error.value).count("\n") == 0 and str(error.value).endswith(".")
    assert not (tmp_path / "refused").exists()


def test_weights_that_cannot_be_begun_from_are_a_sentence(run, tmp_path):
    file, wrong = tmp_path / "kp.safetensors", tmp_path / "wrong.safetensors"
    arrays = experiments.export(run.out, file)
    refused(tmp_path, "x.safetensors cannot be read .No such file or directory.: name another", start="x.safetensors")
    wrong.write_bytes(b"no tensors")
    refused(tmp_path, "wrong.safetensors are no safetensors that NumPy reads", start=str(wrong))
    save_file({"a": torch.zeros(2, dtype=torch.bfloat16)}, wrong)
    refused(tmp_path, "wrong.safetensors (are no safetensors that NumPy reads|do not fit the model)", start=str(wrong))
    save_file({n: torch.from_numpy(a) for n, a in arrays.items() if n != "1.0.weight"}, wrong)
    refused(tmp_path, 'wrong.safetensors do not fit the model: "1.0.weight" is missing', start=str(wrong))
    narrow = {name: array[..., :2] if name == "5.0.weight" else array for name, array in arrays.items()}
    refused(tmp_path, r"that are given do not fit the model: 5.0.weight has shape \(10, 2\), expected", params=narrow)
    refused(tmp_path, "they are a checkpoint: write them by `ref-bioplaus export RUN FILE` first", start=str(
        run.out / checkpoints.BEST
    ))  # fmt: skip
    params, stats = run.state.forward.params, run.state.stats
    refused(tmp_path, r"params/5/W has shape None, expected \(10, 6\)", params=(params[:5], stats))
    refused(tmp_path, "are a float, expected a safetensors file, a Module's state_dict", params=0.5)
    refused(tmp_path, "cannot be read by NumPy", params={"a": torch.zeros(2, requires_grad=True)})
    refused(tmp_path, "leave out one of them", start=str(file), algorithm_options={"initializer": "zero"})
    refused(tmp_path, "but the experiment begins from e3b0: name those", start=str(file), start_sha256="e3b0")
    refused(tmp_path, "begins from weights of sha256 e3b0, which are not here: name their file", start_sha256="e3b0")

    def own(network, loss, optimizer):
        return rb.algorithms.feedback_alignment(network, loss, optimizer)

    refused(tmp_path, 'The algorithm ".*own" takes no initializer', start=str(file), algorithm=own)


def test_a_run_does_not_go_on_from_other_weights(run, tmp_path):
    file = tmp_path / "kp.safetensors"
    experiments.export(run.out, file)
    begun = train(of(start=str(file), steps=3), tmp_path / "begun", images=embedded_data())
    other = {name: 2 * array for name, array in experiments.export(run.out, file).items()}
    with pytest.raises(
        ExperimentError, match="has start_sha256 = '.*', not '.*': leave it as it is, or start in another"
    ):
        train(of(steps=4), begun.out, images=embedded_data(), resume=True, params=other)


def test_the_option(run, tmp_path):
    experiments.export(run.out, tmp_path / "kp.safetensors")
    words = printed("train", "--out", tmp_path / "new", "--start", tmp_path / "no.safetensors", code=2)
    assert "no.safetensors cannot be read (No such file or directory): name another file." in words
    words = printed(
        "train", "--dataset", "embedded", "--steps", 1, "--start", tmp_path / "kp.safetensors",
        "--out", tmp_path / "new", code=2,
    )  # fmt: skip
    assert "kp.safetensors do not fit the model:" in words
    mlp = train(Experiment(**(runs.SMALL | runs.PLAIN | {"steps": 1})), tmp_path / "mlp", images=embedded_data())
    assert mlp.finished
    small = ("--dataset", "embedded", "--set", "model_options.width=0.03", "--steps", 1, "--set", "metrics=[]")
    printed("train", *small, "--out", tmp_path / "first")
    printed("export", tmp_path / "first", tmp_path / "first.safetensors")
    printed("train", *small, "--out", tmp_path / "second", "--start", tmp_path / "first.safetensors", "--seed", 3)
    sha256 = hashlib.sha256((tmp_path / "first.safetensors").read_bytes()).hexdigest()
    line = json.loads((tmp_path / "second" / "log.jsonl").read_text().splitlines()[0])
    assert line["segment"]["experiment"]["start_sha256"] == sha256
    assert line["segment"]["given"]["start"] == "first.safetensors"
