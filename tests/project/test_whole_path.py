"""The whole path of somebody new, in an environment of its own with the built wheel.

One file with a rule, its oracle, a network, a loss and data: check, train, resume on another library, compare, predict,
export, and a Module of torch.
"""

import json
import shutil
import site
import subprocess
import venv

import pytest

from tests.helpers import ROOT
from tests.helpers.commands import printed
from tests.helpers.packages import run, wheel_of_the_tree

EXAMPLE = ROOT / "ref_bioplaus" / "experiments" / "examples" / "of_your_own.py"
IN_TORCH = """
import json, sys
import numpy as np, torch
from safetensors.torch import load_file
from torch import nn
from ref_bioplaus import experiments
from mine import bars

run = experiments.load("runs/mine", code="mine.py")
hidden, output = nn.Sequential(nn.Linear(63, 30), nn.Tanh()), nn.Sequential(nn.Linear(30, 2))
module = nn.Sequential(nn.Identity(), nn.Flatten(), hidden, output)
module.load_state_dict(load_file("mine.safetensors"), strict=True)
x, y = bars()["test"]
mean, deviation = (run.experiment.inputs[name][0] for name in ("mean", "deviation"))
images = torch.from_numpy(((x / 255.0 - mean) / deviation).astype(np.float32))[:, None]
with torch.no_grad():
    by_torch = torch.softmax(module(images), dim=1).numpy()
ours = run.predict(x)
wrong = 100.0 * np.mean([name != label for name, label in zip(ours.names, y)])
print(json.dumps({"apart": float(np.abs(by_torch - ours.output).max()), "wrong": wrong,
                  "measured": run.evaluate()["test_error"], "place": experiments.__file__}))
"""


def test_the_example_is_short():
    assert len(EXAMPLE.read_text().splitlines()) <= 60


def test_its_oracle_fits_its_own_network_and_fails_a_rule_that_is_another():
    network = ("--quick", "--network", f"{EXAMPLE}:network", "--oracle", f"{EXAMPLE}:oracle")
    assert "PASS the oracle's step" in printed("check", f"{EXAMPLE}:rule", *network)
    assert "FAIL the oracle's step" in printed("check", "dfa", *network, code=1)


@pytest.mark.slow(reason="builds a wheel, and checks and trains in processes of their own")
def test_one_file_of_ones_own_goes_the_whole_path(tmp_path):
    pytest.importorskip("torch")
    venv.create(tmp_path / "environment", with_pip=True)
    python = tmp_path / "environment" / "bin" / "python"
    wheel, _ = wheel_of_the_tree(tmp_path)
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    (packages,) = (tmp_path / "environment" / "lib").glob("*/site-packages")
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))  # what is installed here, but for this tree
    shutil.copy(EXAMPLE, tmp_path / "mine.py")

    def program(*words, code=0):
        done = subprocess.run(
            [python.parent / "ref-bioplaus", *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
        return " ".join((done.stdout + done.stderr).split())

    told = program("check", "mine.py:rule", "--oracle", "mine.py:oracle", "--declares", "B stays")
    assert "PASS the oracle's step" in told and 'PASS declared: "B stays"' in told and "rule: PASS" in told
    things = ("--model", "mine.py:network", "--loss", "mine.py:loss", "--dataset", "mine.py:bars", "--batch", "10")
    program("train", "--algorithm", "mine.py:rule", *things, "--epochs", "10", "--out", "runs/mine")
    program("train", "--algorithm", "bp", *things, "--epochs", "20", "--out", "runs/bp")
    refused = program("resume", "runs/mine", "--backend", "torch", code=2)
    assert "which is not run unasked" in refused and "--code mine.py" in refused
    program("resume", "runs/mine", "--backend", "torch", "--epochs", "20", "--code", "mine.py")
    compared = program("compare", "runs/mine", "runs/bp")
    assert "mine.py:rule 0 20 of 20" in compared and "BP 0 20 of 20" in compared
    from PIL import Image

    Image.new("L", (7, 9)).save(tmp_path / "dark.png")
    assert "dark.png" in program("predict", "runs/mine", "dark.png", "--code", "mine.py")
    program("export", "runs/mine", "mine.safetensors", "--code", "mine.py")
    found = json.loads(run(python, "-c", IN_TORCH, cwd=tmp_path).splitlines()[-1])
    assert found["place"].startswith(str(packages))
    assert found["apart"] < 1e-5 and found["wrong"] == found["measured"] < 20.0
