"""Stored vectors, files for implementations in other languages, and the page that explains both."""

import json
import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from ref_bioplaus import optimizers, types
from ref_bioplaus.__main__ import app
from ref_bioplaus.conformance.cases.cases import OPTIMIZERS, Case
from ref_bioplaus.conformance.cases.networks import CHAINS, EQUAL, GRADIENT
from ref_bioplaus.conformance.commands.exchange import exchange_app
from ref_bioplaus.conformance.files import axes, description, draws, exchange, vectors
from ref_bioplaus.conformance.files.vectors import Vector
from ref_bioplaus.conformance.judging import judge
from ref_bioplaus.conformance.proofs import high_precision
from ref_bioplaus.kernels import PORTABLE
from ref_bioplaus.registry import ROWS
from ref_bioplaus.tree import leaves, named_leaves, tree_map
from ref_bioplaus.types import LayerParams
from tests.conftest import get
from tests.helpers import ROOT, commands, slow

FA = Vector(Case("feedback-alignment/FC", "feedback-alignment", "FC", "sgd"), "learn", 6, 0)
KP = Vector(Case("kolen-pollack/FC", "kolen-pollack", "FC", "sgd"), "learn", 6, 0)
WM = Vector(Case("weight-mirror/FC", "weight-mirror", "FC", "adam"), "mirror", 6, 0)
LOSS = FA.reference()["info/loss"]
PAGE = (ROOT / "conformance" / "README.md").read_text()


def command(*arguments, code=0):
    """The output of a command; it must end with an exit code."""
    return commands.command(*arguments, code=code, app=exchange_app).output


def rewrite(file, **changed):
    """An .npz with some arrays changed."""
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez_compressed(file, **(arrays | changed))
    return arrays


# Stored vectors


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder with three vectors."""
    folder = tmp_path_factory.mktemp("vectors")
    vectors.regenerate(folder, (FA, KP, WM))
    return folder


@pytest.fixture
def copied(small, tmp_path):
    """The same, to be damaged, and what check says of it."""
    for file in small.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path, lambda: vectors.check(tmp_path, (FA, KP, WM))


def test_the_stored_files_are_what_the_source_gives():
    found = CliRunner().invoke(exchange_app, ["regenerate", "--check"])
    assert found.exit_code == 0, f"{found.output}run: make generated (ALL=--all where an algorithm has changed)"
    assert "are what the source gives" in found.output
    assert sum(file.stat().st_size for file in vectors.FOLDER.iterdir()) < 9e6
    stored = json.loads((vectors.FOLDER / "manifest.json").read_text())
    rows = {(row["algorithm"]["name"], row["architecture"], row["batch"]) for row in stored["vectors"]}
    assert {row.name for row in ROWS} == {name for name, architecture, _ in rows if architecture == "FC"}
    for row in ROWS:
        if not row.asked.variant:
            assert {a for name, a, _ in rows if name == row.name} == {*(CHAINS if row.inverses else GRADIENT), *EQUAL}
    assert ("kolen-pollack", "conv", 1) in rows
    for row in stored["vectors"]:
        assert row["reason"] and row["judge"] == "rounding, float64, ieee"
        assert row["random_numbers"] == "given", f"{row['id']} draws where draws.known does not look: name the address"


def test_digests_are_stable_and_see_every_change():
    arrays = {name: tensor.array for name, tensor in FA.inputs().items()}
    first = vectors.digest(arrays)
    stored = json.loads((vectors.FOLDER / "manifest.json").read_text())["vectors"]
    assert {row["id"]: row["inputs_sha256"] for row in stored}[FA.id] == first
    assert vectors.digest(dict(reversed(arrays.items()))) == first
    x = arrays["batch/x"]
    for other in (np.nextafter(x, 2.0), x.reshape(9, 6), x.astype(np.float32), -x):
        assert vectors.digest(arrays | {"batch/x": other}) != first
    assert vectors.digest({"batch/z" if n == "batch/x" else n: a for n, a in arrays.items()}) != first


def test_only_what_is_new_is_made_anew(copied):
    """What is stored stays, here with another last bit, unless everything is asked for or a file was altered."""
    folder, check = copied
    first = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert vectors.regenerate(folder, (FA, KP, WM)) == []
    name = f"{FA.id}/info/loss"
    arrays = rewrite(folder / "feedback_alignment.npz")
    other = np.nextafter(arrays[name], 2.0 * arrays[name])
    rewrite(folder / "feedback_alignment.npz", **{name: other})
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["feedback_alignment.npz"] = vectors.file_digest(folder / "feedback_alignment.npz")
    manifest["vectors"] = [row for row in manifest["vectors"] if row["id"] != KP.id]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert vectors.regenerate(folder, (FA, KP, WM)) == [KP.id]
    assert np.array_equal(np.load(folder / "feedback_alignment.npz")[name], other)
    assert check() == []
    rewrite(folder / "feedback_alignment.npz", **{name: 2.0 * other})  # without the manifest's knowing
    assert vectors.regenerate(folder, (FA, KP, WM)) == [FA.id]
    assert vectors.regenerate(folder, (FA, KP, WM), all=True) == [FA.id, KP.id, WM.id]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == first


def test_files_are_the_same_when_written_again(small, tmp_path):
    vectors.regenerate(tmp_path, (FA, KP, WM))
    for file in small.iterdir():
        assert file.read_bytes() == (tmp_path / file.name).read_bytes(), file.name
    assert vectors.check(tmp_path, (FA, KP, WM)) == []


def test_check_finds_an_altered_output(copied):
    folder, check = copied
    name = f"{KP.id}/info/delta/2"
    before = rewrite(folder / "kolen_pollack.npz")[name]
    wrong = np.array(before)
    wrong[3, 1] *= 1.0 + 1e-12
    rewrite(folder / "kolen_pollack.npz", **{name: wrong})
    altered, departs = check()
    assert altered == "The file kolen_pollack.npz was altered: its sha256 is not the manifest's."
    assert re.search(rf"in {KP.id}, info/delta/2\[3, 1\] departs first: .*score", departs)


def test_check_finds_integers_names_and_files_that_are_not_the_sources(copied):
    folder, check = copied
    rewrite(folder / "kolen_pollack.npz", **{f"{KP.id}/state/t": np.array(7, np.int32)})
    assert any("state/t departs first" in problem for problem in check())
    arrays = rewrite(folder / "weight_mirror.npz")
    first, *others = arrays
    np.savez_compressed(folder / "weight_mirror.npz", **{name: arrays[name] for name in others}, more=np.zeros(1))
    assert f"weight_mirror.npz lacks {first}." in check()
    assert "weight_mirror.npz holds more, which the source does not." in check()
    (folder / "weight_mirror.npz").unlink()
    (folder / "more.npz").write_bytes(b"")
    (folder / "feedback_alignment.npz").write_bytes(b"no zip")
    problems = check()
    assert "The file weight_mirror.npz is missing." in problems
    assert "The file more.npz is not one of the vectors'." in problems
    assert any(problem.startswith("The file feedback_alignment.npz cannot be read as .npz") for problem in problems)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: m["vectors"].pop(0), f"The manifest lacks the vector {FA.id}."),
        (lambda m: m["vectors"].append(m["vectors"][0] | {"id": "x"}), "has a vector x, which the source does not."),
        (lambda m: m["vectors"][1]["optimizer"].update(momentum=0.8), f"row of {KP.id} .* see optimizer"),
        (lambda m: m["vectors"][2].update(inputs_sha256="0"), f"inputs of {WM.id} are not those that the generator"),
        (lambda m: m["models"]["FC"]["layers"].pop(), '"models" is not what the source gives'),
        (lambda m: m["files"].update({"weight_mirror.npz": "0"}), "weight_mirror.npz was altered"),
    ],
)
def test_check_finds_a_changed_manifest(copied, change, sentence):
    folder, check = copied
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (problem,) = check()
    assert re.search(sentence, problem)


def test_check_wants_a_manifest(copied):
    folder, check = copied
    for text, sentence in (("{", "is not JSON"), ("[]", "is not a manifest of vectors (it is a list of 0, expected")):
        (folder / "manifest.json").write_text(text)
        assert sentence in check()[0]
    (folder / "manifest.json").unlink()
    assert "is missing" in check()[0]
    assert "is missing" in command("regenerate", "--check", "--folder", folder, code=1)
    assert "cannot be read (No such file" in command("regenerate", "--check", "--folder", folder / "no", code=2)


# What the manifest says


def test_every_array_has_its_axes_in_both_layouts():
    """Shapes agree, going there and back changes nothing, names are explained."""
    seen = set()
    for vector in vectors.steps():
        if vector.n == 1 or (vector.case.row, vector.mode) in seen and vector.case.architecture == "FC":
            continue
        seen.add((vector.case.row, vector.mode))
        tensors = vector.inputs() | vector.tensors(vector.expected().tensors)
        for name, (array, known) in tensors.items():
            assert known is axes.NUMBER or known.shape("NHWC") == tuple(array.shape), name
            patterns = [re.sub(r"\b[lik]\b", r"\\d+", key).replace("...", ".*") for key in description.NAMES]
            assert any(re.fullmatch(pattern, name) for pattern in patterns), name
        for name, (array, known) in vector.inputs().items():
            there = known.to("NCHW", array)
            assert there.shape == known.shape("NCHW") or known is axes.NUMBER
            assert np.array_equal(known.back("NCHW", there), array), name
    assert len(seen) > 30
    with pytest.raises(ValueError, match="no rule gives the axes"):
        axes.axes_of("info/unheard", np.zeros(3), FA.case.network())


def test_descriptions_are_those_of_what_runs():
    """An optimizer made from its description does what the described one does; so do loss and inverse optimizer."""
    params = (LayerParams(None), LayerParams(np.arange(6.0).reshape(2, 3), ({"b": np.ones(2)},)))
    grads = (LayerParams(None), LayerParams(np.cos(params[1].W), ({"b": np.ones(2)},)))
    for name, make in OPTIMIZERS.items():
        given = make()
        found = description.optimizer(given)
        eta = found["eta"]
        if isinstance(eta, dict):
            eta = optimizers.piecewise(tuple(eta["values"]), tuple(eta["boundaries"]))
        numbers = {k: v for k, v in found.items() if k not in ("name", "eta")}
        rebuilt = getattr(optimizers, found["name"])(eta, **numbers)
        results = []
        for optimizer in (given, rebuilt):
            p, memory = params, optimizer.init(params, (np.zeros(2, np.int32),), PORTABLE)
            for _ in range(4):
                p, memory = optimizer.update(grads, memory, p, PORTABLE)
            results.append(leaves(p))
        assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True)), name

    manhattan = Vector(Case("usf-batch-manhattan/FC", "usf-batch-manhattan", "FC", "sgd"), "learn", 6, 0)
    assert manhattan.describe()["loss"]["name"] == "squared_error"
    out, y = manhattan.reference(), manhattan.start[2]
    np.testing.assert_allclose(out["info/loss"], np.sum((out["info/h/3"] - y) ** 2, axis=1), rtol=1e-12)

    dtp = Vector(Case("dtp/FC", "dtp", "FC", "adam"), "parallel", 6, 0)
    row, out, start = dtp.describe(), dtp.reference(), dict(named_leaves(dtp.start[0], "state"))
    assert row["inverse_optimizer"]["name"] == "sgd"
    assert row["algorithm"]["options"] == {"alpha": 0.1, "noise": 0.1, "over_units": "sum"}
    moved = start["state/feedback/params/2/W"] - row["inverse_optimizer"]["eta"] * out["info/feedback_grads/2/W"]
    np.testing.assert_allclose(out["state/feedback/params/2/W"], moved, rtol=1e-12)
    assert WM.describe()["algorithm"]["options"]["eta_B"] == 0.1


def test_a_step_that_draws_elsewhere_is_said_to_need_the_generator(monkeypatch):
    assert [draw.name for draw in WM.draws[0]] == ["random/mirror/2", "random/mirror/3"]
    monkeypatch.setattr(draws, "known", lambda network, state, n: iter(()))
    assert draws.drawn(WM.case, WM.mode, *WM.start) == ([], False)
    assert draws.drawn(FA.case, FA.mode, *FA.start) == ([], True)
    assert "needs the generator" in Vector(WM.case, WM.mode, 6, 0).describe()["random_numbers"]


# Files

CHOSEN = "1/*/*/*/6"
ROUND = ("kolen-pollack/ResNet, BN after ReLU", "dense-fa/conv", "dfa/LC", "sdtp/LC", "dtp/conv", "brsf/conv",
         "weight-mirror/LC", "backprop-noise-gradient/conv", "usf-constant-norm-ei/conv", "ao-sdtp/FC")  # fmt: skip


def in_numpy(vector, layout, dtype):
    """Our own outputs of a step as a stranger would give them."""
    backend = get("numpy", dtype)
    state, x, y = vector.start
    step = vector.case.build().modes[vector.mode]
    state, info = step(tree_map(backend.asarray, state), backend.batch(x, y))
    tensors = vector.tensors(types.in_order(info, state))
    return {name: known.to(layout, np.asarray(array)) for name, (array, known) in tensors.items()}


@pytest.mark.parametrize(("layout", "dtype"), [("NHWC", "float64"), slow("NCHW", "float64"), ("NCHW", "float32")])
def test_our_own_outputs_pass_and_a_changed_one_fails(tmp_path, layout, dtype):
    exchange.emit(tmp_path, CHOSEN, layout, dtype)
    (tmp_path / "outputs").mkdir()
    mine = [v for v in vectors.steps(dtype) if v.n == 6 and v.case.id in ROUND]
    given = {}
    for vector in mine:
        with np.load(tmp_path / "inputs" / f"{vector.file}.npz") as archive:
            assert archive["batch/x"].dtype == dtype
            assert archive["batch/x"].shape == vector.inputs()["batch/x"].axes.shape(layout)
        given[vector.id] = in_numpy(vector, layout, dtype)
        np.savez(tmp_path / "outputs" / f"{vector.file}.npz", **given[vector.id])
    found = {v.id: v for v in exchange.verdicts(tmp_path)}
    assert {id for id, v in found.items() if v.state == "pass"} == {v.id for v in mine}
    assert {v.state for v in found.values()} == {"pass", "not run"}
    assert all(v.missing == () and v.score < 4.0 for v in found.values() if v.state == "pass")

    wrong, changed = {}, {}
    for vector in mine:  # one element of a tensor in the middle, and all of the last, which must not be named
        wrong[vector.id] = arrays = dict(given[vector.id])
        names = [name for name in arrays if name.startswith(("info/delta", "info/feedback_grads", "state/feedback"))]
        first, last = names[1], list(arrays)[-1]
        place = np.unravel_index(int(np.argmax(np.abs(arrays[first]))), arrays[first].shape)
        arrays[first] = np.array(arrays[first])
        arrays[first][place] *= 1.001
        arrays[last] = arrays[last] + np.ones_like(arrays[last])
        changed[vector.id] = f"{first}[{', '.join(map(str, place))}]"
        np.savez(tmp_path / "outputs" / f"{vector.file}.npz", **dict(reversed(arrays.items())))
    found = {v.id: v for v in exchange.verdicts(tmp_path) if v.state != "not run"}
    for id, place in changed.items():
        assert found[id].state == "fail" and found[id].text.startswith(place), found[id]


def emitted(folder, pattern, layout="NHWC"):
    """The rows and inputs of a manifest, as somebody without our code reads them."""
    command("emit", folder, "--case", pattern, "--layout", layout)
    content = json.loads((folder / "manifest.json").read_text())
    (folder / "outputs").mkdir(exist_ok=True)
    for row in content["cases"]:
        with np.load(folder / "inputs" / row["file"]) as archive:
            arrays = {name: archive[name] for name in archive.files}
        assert {n: (list(a.shape), a.dtype.name) for n, a in arrays.items()} == {
            n: (d["shape"], d["dtype"]) for n, d in row["inputs"].items()
        }
        yield row, content["models"][row["model"]]["layers"], arrays


def by_autograd(row, layers, given):
    """Backpropagation by PyTorch, channels first, from what the manifest says of the network and from nothing else."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    given = {name: torch.as_tensor(array) for name, array in given.items()}
    learned = {n: a.requires_grad_() for n, a in given.items() if n.startswith("state/forward/params")}
    h, u, out = [], {}, {}
    for layer in layers:
        l, x = layer["layer"], sum(h[k] for k in layer["inputs"]) if layer["inputs"] else given["batch/x"]
        if synapses := layer.get("synapses"):
            W = given[f"state/forward/params/{l}/W"]
            if synapses["kind"] == "dense":
                x = x @ W.T
            else:
                p = synapses["padding"]
                x = functional.pad(x, (p["left"], p["right"], p["top"], p["bottom"]))
                if synapses["kind"] == "convolution":
                    x = functional.conv2d(x, W, stride=synapses["stride"])
                else:
                    windows = functional.unfold(x, synapses["kernel"], stride=synapses["stride"])
                    height, width, channels = W.shape[:3]
                    x = torch.einsum("nkl,lok->nol", windows, W.reshape(height * width, channels, -1))
                    x = x.reshape(-1, channels, height, width)
        u[l] = x
        if x.requires_grad:
            x.retain_grad()
        for i, neuron in enumerate(layer["neurons"]):
            own = {n: learned.get(f"state/forward/params/{l}/local/{i}/{n}") for n in ("b", "gamma", "beta")}
            match neuron["kind"]:
                case "bias":
                    x = x + (own["b"].reshape(-1, 1, 1) if own["b"].ndim == 1 and x.ndim == 4 else own["b"])
                case "nonlinearity":
                    x = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid}[neuron["name"]](x)
                case "batch norm":
                    mean, var = (given[f"state/stats/{l}/{i}/{n}"].clone() for n in ("mean", "var"))
                    x = functional.batch_norm(
                        x, mean, var, own["gamma"], own["beta"], True, neuron["rate"], neuron["epsilon"]
                    )
                    out |= {f"state/stats/{l}/{i}/mean": mean, f"state/stats/{l}/{i}/var": var}
                case "dropout":
                    x = x * given[f"random/dropout/{l}/{i}"] / (1 - neuron["probability"])
                case "max pool":
                    p = neuron["padding"]
                    x = functional.pad(x, (p["left"], p["right"], p["top"], p["bottom"]), value=-np.inf)
                    x = functional.max_pool2d(x, neuron["kernel"], neuron["stride"])
                case "global average pool":
                    x = x.mean(dim=(2, 3))
                case "flatten":
                    x = x.flatten(1)
                case other:
                    raise AssertionError(other)
        h.append(x)
        out[f"info/h/{l}"] = x
    loss = functional.cross_entropy(h[-1], given["batch/y"], reduction="none")
    loss.sum().backward()
    out |= {"info/loss": loss} | {f"info/delta/{l}": a.grad for l, a in u.items() if a.grad is not None}
    for name, a in learned.items():
        out[name.replace("state/forward/params", "info/grads")] = a.grad / row["batch"]
    return {name: tensor.detach().numpy() for name, tensor in out.items()}


def test_pytorch_agrees_from_what_the_manifest_says(tmp_path):
    """All five networks in another library, another layout and by automatic differentiation: nothing was left out."""
    count = 0
    for row, layers, given in emitted(tmp_path, "1/backprop/*", "NCHW"):
        np.savez(tmp_path / "outputs" / row["file"], **by_autograd(row, layers, given))
        count += row["batch"] == 6
    assert count >= 5
    assert f"cases: {len(list((tmp_path / 'outputs').iterdir()))} pass; " in command("judge", tmp_path)


def test_random_numbers_that_are_given_are_all_it_needs(tmp_path):
    """Mirror mode, and brSF's error one layer down, by hand."""
    for row, _, given in emitted(tmp_path, "1/weight-mirror/FC/mirror/6"):
        o, out = row["algorithm"]["options"], {}
        for l in (2, 3):
            noise, W = o["sigma"] * given[f"random/mirror/{l}"], given[f"state/forward/params/{l}/W"]
            response = noise @ W.T + given[f"state/forward/params/{l}/local/0/b"]
            response = np.tanh(response) if l == 2 else response
            B, delta = given[f"state/feedback/params/{l}/W"], response.T @ noise / row["batch"]
            out[f"state/feedback/params/{l}/W"] = (1 - o["lambda_B"]) * B + o["eta_B"] * delta
        np.savez(tmp_path / "outputs" / row["file"], **out)
    assert "pass     1/weight-mirror/FC/mirror/6: 2 outputs" in command("judge", tmp_path)
    for row, _, given in emitted(tmp_path, "1/brsf/FC/*"):
        h = [given["batch/x"]]
        for l in (1, 2, 3):
            u = h[-1] @ given[f"state/forward/params/{l}/W"].T + given[f"state/forward/params/{l}/local/0/b"]
            h.append(np.tanh(u) if l < 3 else u)
        e = np.exp(h[3]) / np.sum(np.exp(h[3]), axis=1, keepdims=True) - given["batch/y"]
        B = given["random/magnitude/3"] * np.sign(given["state/forward/params/3/W"])
        delta = (e @ B) * (1 - h[2] ** 2)
        np.savez(tmp_path / "outputs" / row["file"], **{"info/grads/2/W": delta.T @ h[1] / row["batch"]})
    assert "1 pass" in command("judge", tmp_path)


# What can go wrong


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A folder with one case and its outputs."""
    folder = tmp_path_factory.mktemp("one")
    (row,) = [row for row, _, _ in emitted(folder, FA.id)]
    np.savez(folder / "outputs" / row["file"], **FA.reference())
    return folder, f"{FA.file}.npz"


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"info/los": np.zeros(6)}, 'error .*"info/los" is not one of its outputs: did you mean "info/loss"?'),
        ({"info/h/1": FA.reference()["info/h/1"]}, "error .*nothing that tells: give at least one of info/loss"),
        ({"info/loss": np.array(["a"] * 6)}, "error .*info/loss has dtype <U1, expected numbers"),
        ({"info/loss": np.zeros((6, 1))}, r"fail .*info/loss departs first: it has shape \(6, 1\), expected \(6,\)"),
        ({"info/loss": np.full(6, np.nan)}, "fail .*info/loss.* departs first: nan"),
        ({"info/loss": np.zeros(6), "state/t": np.array(2)}, r"fail .*info/loss\[\d\] \(N\) departs first: 0, expec"),
        ({"info/loss": LOSS, "state/t": np.array(7)}, "state/t departs first: 7, expected exactly 2"),
        ({"info/loss": LOSS.astype(np.float32)}, "it is float32, judged as float64: emit with --dtype float32"),
    ],
)  # fmt: skip
def test_outputs_that_do_not_pass_are_told_why(one, tmp_path, arrays, sentence):
    folder, file = one
    np.savez(tmp_path / file, **arrays)
    said = command("judge", folder, "--outputs", tmp_path, code=2 if sentence.startswith("error") else 1)
    assert re.search(sentence, said), said


def test_a_subset_passes_and_what_is_missing_is_named(one, tmp_path):
    folder, file = one
    assert "1 case: 1 pass; the largest score of those that pass is " in command("judge", folder)
    np.savez(tmp_path / file, **{"info/loss": LOSS})
    said = command("judge", folder, "--outputs", tmp_path)
    assert "pass     1/feedback-alignment/FC/learn/6: 1 outputs" in said
    assert "not given: info/h/0, info/h/1, info/h/2 and 28 more" in said


def test_files_and_requests_that_cannot_be_used_get_one_sentence(one, tmp_path):
    folder, file = one
    wrong = [
        (("judge", tmp_path), "manifest.json cannot be read .*: write it with `ref-bioplaus conformance emit"),
        (
            ("judge", folder, "--outputs", tmp_path / "no"),
            r"no cannot be read \(No such file or directory\): write outputs there",
        ),
        (("judge", folder, "--outputs", folder), "holds no outputs, such as 1-feedback-alignment-FC-learn-6.npz"),
        (("judge", folder, "--dtype", "float32"), "holds float64 inputs, which float32 cannot hold"),
        (("judge", folder, "--dtype", "half"), 'The dtype "half" is unknown: choose float32 or float64'),
        (("emit", tmp_path, "--case", "FA"), 'No case matches "FA", ids are such as 1/'),
        (("emit", tmp_path, "--layout", "CHW"), 'The layout "CHW" is unknown: choose NHWC or NCHW'),
        (("emit", folder / "manifest.json"), "cannot be written to"),
        (("regenerate", "--folder", folder / "manifest.json"), "cannot be written to"),
    ]
    for arguments, sentence in wrong:
        said = command(*arguments, code=2)
        assert re.search(sentence, said) and said.strip().endswith(".") and said.count("\n") == 1, said
    for text, sentence in (("[", "is not JSON"), ("[]", "is not a manifest of format"), ("{}", "is not a manifest")):
        (tmp_path / "manifest.json").write_text(text)
        assert sentence in command("judge", tmp_path, code=2)
    content = json.loads((folder / "manifest.json").read_text())
    (tmp_path / file).write_bytes(b"nothing")
    for change, sentence in (
        ({}, "cannot be read as .npz"),
        ({"inputs_sha256": "0" * 64}, "not those that this version of the package gives"),
        ({"id": "1/gone"}, "the package has no such case"),
    ):
        (tmp_path / "manifest.json").write_text(json.dumps(content | {"cases": [content["cases"][0] | change]}))
        said = command("judge", tmp_path, "--outputs", tmp_path, code=2)
        assert said.startswith("error ") and sentence in said


def test_float32_inputs_are_held_and_may_be_judged_as_either(tmp_path):
    (row,) = exchange.emit(tmp_path, FA.id, dtype="float32")
    vector = Vector(FA.case._replace(dtype="float32"), "learn", 6, 0)
    (tmp_path / "outputs").mkdir()
    np.savez(tmp_path / "outputs" / f"{FA.file}.npz", **vector.reference())  # in float64, from float32 inputs
    for dtype in ("float32", "float64"):
        (found,) = exchange.verdicts(tmp_path, dtype=dtype)
        assert found.state == "pass" and found.score < 2.0
    np.savez(tmp_path / "outputs" / f"{FA.file}.npz", **in_numpy(vector, "NHWC", "float32"))
    assert [v.state for v in exchange.verdicts(tmp_path)] == ["pass"]
    assert [v.state for v in exchange.verdicts(tmp_path, dtype="float64")] == ["fail"]


# The reference in many digits


def test_the_reference_agrees_with_fifty_digits():
    pytest.importorskip("mparray")
    for vector in (KP, WM):
        found = high_precision.compared(vector)
        assert found.keys() == vector.expected().tensors.keys()
        assert max(score for score, _ in found.values()) < 2.0
        assert 1e-17 < max(error for _, error in found.values()) < 1e-14
    truth, expected = high_precision.exact(KP), KP.expected()
    tensor = expected.tensors["info/grads/1/W"]
    wrong = tensor.v * (1.0 + 1e-13)
    score, error = high_precision.distance(tensor, wrong, truth["info/grads/1/W"], expected.tiny, 50)
    assert score > judge.LIMIT and 1e-14 < error < 1e-12
    count = expected.tensors["state/t"]
    assert high_precision.distance(count, count.v + 1, truth["state/t"], 0.0, 50) == (np.inf, np.inf)


def test_its_stored_result_speaks_of_every_step_and_is_within_the_limit():
    stored = json.loads(high_precision.FILE.read_text())
    assert stored["digits"] >= 40
    assert stored["identities"] == {v.id: v.identity() for v in vectors.steps()}, "run: make generated"
    assert stored["steps"].keys() == stored["identities"].keys()
    scores = [score for row in stored["steps"].values() for score, _ in row.values()]
    assert max(scores) == stored["largest_score"] < judge.LIMIT
    assert stored["tensors"] == len(scores) > 5000
    assert set(stored["steps"][KP.id]) == set(KP.expected().tensors)
    assert f"within a score of {stored['largest_score']} " in " ".join(PAGE.split()) + " "


# The page


@pytest.fixture(scope="module")
def shell():
    """What the page calls `ref-bioplaus`, `python` and the current folder."""
    ours = [sys.executable, "-c", "from ref_bioplaus.__main__ import app; app()"]

    def run(line, folder, code=0):
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', line)]
        environment = dict(os.environ)
        while re.fullmatch(r"[A-Z]+=\S+", words[0]):
            name, value = words.pop(0).split("=")
            environment[name] = str(folder if value == "." else value)
        program, *arguments = words
        start = {"ref-bioplaus": ours, "python": [sys.executable]}[program]
        done = subprocess.run(
            [*start, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    return run


def blocks(kind):
    """The page's code of a kind."""
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.S)


def test_the_pages_backend_runs(shell, tmp_path):
    code, line = blocks("python")[0], blocks("sh")[0].strip()
    (tmp_path / "my_backend.py").write_text(code)
    assert len(code.splitlines()) < 45
    assert line == "ref-bioplaus conformance run --backend my_backend:backend --level 0-1"
    shell(f'{line} --case "1/feedback-alignment/conv/*"', tmp_path)
    (tmp_path / "my_backend.py").write_text(code.replace("patches(x, window)", "1.00001 * patches(x, window)"))
    said = shell(f'{line} --case "1/feedback-alignment/conv/*"', tmp_path, code=1)
    printed = blocks("text")[0].split()
    assert " ".join(printed) in " ".join(said.split())


def test_the_pages_files_are_judged(shell, tmp_path):
    emit, (compute, judged) = blocks("sh")[2].strip(), blocks("sh")[3].strip().splitlines()
    code = blocks("python")[1]
    assert "ref_bioplaus" not in code.split('"""')[2]
    (tmp_path / "by_hand.py").write_text(code)
    shell(emit, tmp_path)
    shell(compute, tmp_path)
    assert shell(judged, tmp_path) == blocks("text")[1]
    (tmp_path / "by_hand.py").write_text(code.replace("@ B[l + 1]", "@ W[l + 1]"))
    shell(compute, tmp_path)
    said = shell(judged, tmp_path, code=1)
    assert " ".join(blocks("text")[2].split()) in " ".join(said.split())


def test_the_pages_other_words_are_true(shell, tmp_path):
    assert f"the limit is {judge.LIMIT:g}." in PAGE
    for link in re.findall(r"\]\((?!http|#)([^)#]+)\)", PAGE):
        assert (ROOT / "conformance" / link).exists(), link
    known: Any = get_command(app)
    for line in "".join(blocks("sh")).splitlines():
        words = line.split()
        if "conformance" in words:
            assert words[words.index("conformance") + 1] in known.commands["conformance"].commands
    from ref_bioplaus.conformance.checks import outcomes
    from ref_bioplaus.conformance.reporting import deviations

    assert tuple(re.findall(r"^\| ([a-z ]+) \| ", PAGE.partition("## States")[2], re.M))[1:] == outcomes.STATES
    (tmp_path / "mine.toml").write_text(blocks("toml")[0])
    (deviation,) = deviations.load("mine", tmp_path)
    assert deviation.matches(type("Outcome", (), {"id": "1/dfa/conv/learn/6", "mode": "eager"}))
