"""A mistake at the keyboard gets one sentence, in Python as in the shell; what a sentence says to type can be typed."""

import inspect
import shlex
import subprocess
import sys

import numpy as np
import pytest

import ref_bioplaus as rb
from ref_bioplaus import registry
from ref_bioplaus.experiments.data.inside import not_ordinary
from ref_bioplaus.machine.files import typed
from tests.helpers.commands import command

BACKEND = rb.backends.get("numpy")
NETWORK = rb.chain((6,), (rb.dense(4), rb.bias, rb.tanh), (rb.dense(3), rb.bias))
LOSS, SGD = rb.losses.cross_entropy(), rb.optimizers.sgd(0.1)
MAKERS = {row.make.__name__: row.make for row in registry.ROWS}


def made(name):
    loss = rb.losses.with_auxiliary_output(LOSS, 3) if name == "ao_sdtp" else LOSS
    given = {"network": NETWORK, "loss": loss, "optimizer": SGD, "inverse_optimizer": SGD}
    return {p: given[p] for p in inspect.signature(MAKERS[name]).parameters if p in given}


@pytest.mark.parametrize("name", MAKERS)
def test_what_an_algorithm_is_given_is_of_its_kind(name):
    make, given = MAKERS[name], made(name)
    wrong = {
        "network": (rb.models.MODELS["lee2015/mnist"], "network is the function mnist, expected what rb.chain"),
        "loss": (rb.losses.cross_entropy, r"loss is the function cross_entropy, expected .*cross_entropy\(\) gives"),
        "optimizer": (0.1, r"optimizer is 0.1, expected what rb.optimizers.sgd\(0.1\) gives"),
        "inverse_optimizer": (rb.optimizers.adam, "inverse_optimizer is the function adam, expected what"),
    }  # fmt: skip
    for parameter in given:
        value, sentence = wrong[parameter]
        with pytest.raises(ValueError, match=f"{name}: {sentence}"):
            make(**given | {parameter: value})
        with pytest.raises(ValueError, match=f"{name}: {sentence}"):
            make(*(given | {parameter: value}).values())


@pytest.mark.parametrize("name", MAKERS)
def test_a_seed_is_no_key_and_a_pair_is_no_batch(name):
    algorithm = MAKERS[name](**made(name))
    for key, sentence in (
        (0, r"the key is 0, expected a backend's: backend.key\(seed=0\)"),
        (np.zeros(2), r"the key has shape \(2,\) and dtype float64, expected int32"),
    ):
        with pytest.raises(ValueError, match=sentence):
            algorithm.init(key)
    state, pair = algorithm.init(BACKEND.key(0)), (np.ones((2, 6), np.float32), np.eye(3, dtype=np.float32)[:2])
    for mode in algorithm.modes.values():
        with pytest.raises(ValueError, match=r"the batch is a tuple, expected a Batch: backend.batch\(x, y\)"):
            mode(state, pair)
    with pytest.raises(ValueError, match="the batch is a tuple"):
        BACKEND.compile(mode, donate=True)(state, pair)
    BACKEND.compile(mode)(state, BACKEND.batch(*pair))  # the state was not given away


@pytest.mark.parametrize("name", MAKERS)
def test_help_shows_the_equations(name):
    text = inspect.getdoc(MAKERS[name])
    assert text.startswith(inspect.getdoc(sys.modules[MAKERS[name].__module__])[:60])
    assert all(part in text for part in ("State:", "Choices:"))
    assert list(inspect.signature(MAKERS[name]).parameters)[:3] == ["network", "loss", "optimizer"]


def test_a_network_is_shown_a_line_a_layer():
    lines = repr(NETWORK).splitlines()
    assert len(lines) == len(NETWORK) + 1
    assert lines[1].split() == ["1", "dense(4)", "·", "bias", "·", "tanh", "(4,)"]
    assert lines[-1] == "43 parameters, float32"
    assert str(NETWORK) == repr(NETWORK)


def test_what_is_imported_later_is_listed():
    assert {"backends", "experiments", "conformance", "chain", "__version__"} <= set(dir(rb))


@pytest.mark.parametrize("name", ["numpy", "torch", "jax", "array-api-strict"])
def test_the_first_cpu_is_the_cpu(name):
    assert str(rb.backends.get(name, device="cpu:0").device) == str(rb.backends.get(name, device="cpu").device)
    with pytest.raises(rb.backends.BackendError, match='device "cpu:9" is not there'):
        rb.backends.get(name, device="cpu:9")


def test_what_a_hint_says_to_install_is_on_the_index():
    for how in rb.backends.INSTALL.values():
        assert how.startswith("pip install ") and "ref-bioplaus" not in how


@pytest.mark.parametrize("folder", ["runs/kp", "my run's; rm -rf ~", "$HOME", "ü `x`"])
def test_a_hint_can_be_typed_whatever_a_folder_is_called(folder, tmp_path):
    assert shlex.split(typed("resume", tmp_path / folder)[1:-1]) == ["ref-bioplaus", "resume", str(tmp_path / folder)]
    code = "from ref_bioplaus.__main__ import app; app()"
    done = subprocess.run(
        [sys.executable, "-c", code, "resume", str(tmp_path / folder)], capture_output=True, text=True
    )
    assert done.returncode == 2
    found = done.stderr.partition("start with `")[2].rpartition("`")[0]
    assert shlex.split(found) == ["ref-bioplaus", "train", "--out", str(tmp_path / folder)]


@pytest.mark.parametrize(
    ("options", "said"), [((), True), (("--algorithm", "BP"), False), (("--set", "algorithm=FA"), False)]
)
def test_a_run_without_the_name_of_an_algorithm_says_which_it_is(options, said, tmp_path):
    small = ("--dataset", "embedded", "--model", "akrout2019/mlp", "--set", "model_options.hidden=4", "--steps", "1")
    done = command("train", *small, *options, "--out", tmp_path / "out")
    assert ("No --algorithm is named, so this is backpropagation" in done.stdout) == said


@pytest.mark.parametrize("where", [("--data",), ("--dataset", "embedded", "--data")])
def test_a_folder_of_a_name_too_long_is_not_there(where, tmp_path):
    done = command("train", *where, "x" * 5000, "--out", tmp_path / "out", code=2)
    assert "is not there" in done.stderr and len(done.stderr.splitlines()) == 1


def test_links_that_lead_in_a_circle_are_no_devices(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert list(not_ordinary(tmp_path)) == []
