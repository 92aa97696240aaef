"""The gate: code is imported where a call or a command names it, and for no file."""

import copy
import hashlib
import json
import pickle
import shlex
import shutil
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import tomli_w

from ref_bioplaus import backends, naming
from ref_bioplaus.backends import BackendError
from ref_bioplaus.experiments.many import jobs, search
from ref_bioplaus.experiments.runs import checkpoints, logs
from ref_bioplaus.experiments.spec.checking import checked
from ref_bioplaus.experiments.spec.experiment import Experiment, as_dict, from_dict, overridden, read
from ref_bioplaus.experiments.training.starting import evaluate, resume, train
from ref_bioplaus.machine import files
from tests.helpers.commands import printed

OWN = """
import pathlib
pathlib.Path({marker!r}).touch()
from ref_bioplaus.backends import get
import helper_beside_it
class Backends:
    @staticmethod
    def numpy(device, dtype, precision, kernels):
        import helper_imported_late
        return get("numpy", device, dtype, precision, kernels)
backend = Backends.numpy
"""
NAME = "own_backend_module:backend"
SMALL = Experiment(
    model="akrout2019/mlp", model_options={"hidden": 3}, dataset="embedded", batch=500, steps=1, metrics=()
)
FORGED = {"device": "/bin/sh", "dtype": "sh", "precision": "-c", "kernels": "touch executed"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A current folder with a module of a backend, which leaves a file when it is imported."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "own_backend_module.py").write_text(OWN.format(marker=str(tmp_path / "imported")))
    for beside in ("helper_beside_it", "helper_imported_late"):
        (folder / f"{beside}.py").write_text("")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(folder))])
    yield tmp_path
    for name in ("own_backend_module", "helper_beside_it", "helper_imported_late"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run of NumPy's backend."""
    out = tmp_path_factory.mktemp("runs") / "base"
    train(SMALL, out)
    return out


def forged(base, out, header=True, toml=True, **fields):
    """A copy of a run whose files say otherwise."""
    shutil.copytree(base, out)
    for path in out.glob("*.safetensors") if header else ():
        kept = checkpoints.load(path)
        changed = {**kept.header, "experiment": kept.header["experiment"] | fields}
        files.write_whole(path, checkpoints.encoded(changed, kept.tensors))
    if toml:
        values = as_dict(read(out / logs.EXPERIMENT)) | fields
        (out / logs.EXPERIMENT).write_text(tomli_w.dumps(values))
    return out


@pytest.mark.parametrize(
    "fields", [{"backend": NAME}, {"backend": NAME, **FORGED}, FORGED], ids=["code", "both", "words"]
)
def test_no_file_has_anything_imported_or_called(place, base, fields, monkeypatch):
    monkeypatch.syspath_prepend(place / "here")  # not even what could be imported
    run = forged(base, place / "run", **fields)
    (place / "ranges.toml").write_text(
        'trials = 1\n[[range]]\n[range.of]\n"optimizer.eta" = {kind = "uniform", low = 0.1, high = 0.2}\n'
    )
    (place / "drawn.toml").write_text(
        f'trials = 1\n[[range]]\n[range.of]\nbackend = {{kind = "choice", values = ["{NAME}"]}}\n'
    )
    experiment = run / logs.EXPERIMENT
    refused = [
        ("resume", run, "--epochs", 2), ("evaluate", run),
        ("train", "--experiment", experiment, "--out", place / "new"),
        ("train", "--experiment", experiment, "--out", run, "--resume"),
        ("search", place / "ranges.toml", "--experiment", experiment, "--held-out", 500, "--out", place / "search"),
    ]  # fmt: skip
    if "backend" in fields:
        base_file = base / logs.EXPERIMENT
        refused += [
            ("search", place / "drawn.toml", "--experiment", base_file, "--held-out", 500, "--out", place / "s")
        ]
    for arguments in refused:
        said = printed(*arguments, code=2)
        if "dtype" not in fields:
            assert f'backend "{NAME}" is code that a file names' in said, (arguments, said)
            assert f"name it yourself with --backend {NAME}." in said
    for arguments in (("compare", run, "--html", place / "c.html"), ("plot", run, "--figure", "receptive-fields",
                      "--out", place / "p.svg")):  # fmt: skip
        printed(*arguments)
    for call in (lambda: resume(run), lambda: evaluate(run), lambda: train(read(experiment), place / "python"),
                 lambda: train(replace(read(experiment), epochs=2), place / "python")):  # fmt: skip
        with pytest.raises(BackendError):
            call()
    assert not (place / "imported").exists()
    assert logs.records(run) == logs.records(base)


@pytest.mark.parametrize("word", FORGED)
def test_words_are_looked_at_before_code_is_imported_for_them(place, base, word):
    """Also where a command names the code itself, and a file the rest."""
    with pytest.raises(BackendError, match="unknown|no name of a device"):
        backends.get(NAME, **{word: FORGED[word]})
    printed("resume", forged(base, place / "run", **{word: FORGED[word]}), "--backend", NAME, code=2)
    assert not (place / "imported").exists()


def test_a_worker_is_told_which_names_are_the_users(place, base):
    """The experiment reaches it as text, and its names only by what the parent trusts."""
    asked = replace(SMALL, backend=NAME)
    there = from_dict(json.loads(json.dumps(as_dict(asked))))
    assert there == asked
    (other,) = jobs.run([jobs.Job("a file's", there, place / "a")])
    assert other.end == jobs.FAILED
    assert "is code that a file names" in other.sentence
    assert not (place / "imported").exists()
    (mine,) = jobs.run([jobs.Job("mine", asked, place / "b")])
    assert mine.end == jobs.FINISHED, mine.sentence
    assert (place / "imported").exists()


def test_what_a_file_named_stays_so_however_the_experiment_is_handed_on():
    stored = from_dict({"backend": NAME})
    for same in (stored, checked(stored), replace(stored, seed=1), copy.deepcopy(stored),
                 overridden(stored, ["seed=3"]), pickle.loads(pickle.dumps(stored)), from_dict(as_dict(stored)),
                 search.with_values(stored, {"seed": 4})):  # fmt: skip
        assert isinstance(same.backend, naming.Stored)
        assert same.backend == NAME
    mine = Experiment(backend=NAME)
    for same in (mine, checked(mine), replace(stored, backend=NAME), overridden(mine, ["seed=3"]),
                 overridden(stored, [f"backend={NAME}"]), search.with_values(mine, {"seed": 4}),
                 from_dict(as_dict(stored), (NAME,))):  # fmt: skip
        assert type(same.backend) is str
    assert isinstance(search.with_values(mine, {"backend": "os:execl"}).backend, naming.Stored)


def test_a_run_with_code_of_ones_own_asks_for_it_again(place):
    """By its name; it says which file it was, and says so when the file is another one now."""
    before = list(sys.path)
    module = place / "here" / "own_backend_module.py"
    digest = hashlib.sha256(module.read_bytes()).hexdigest()
    options = ("--model", "akrout2019/mlp", "--set", "model_options.hidden=3", "--dataset", "embedded", "--batch", 500)
    said = printed("train", *options, "--steps", 1, "--backend", NAME, "--out", place / "run")
    assert sys.path == before
    assert read(place / "run" / logs.EXPERIMENT).code == {NAME: {"file": str(module), "sha256": digest}}
    said = printed("resume", place / "run", "--steps", 2, code=2)
    assert f"(it was {module}, sha256 {digest})" in said
    given = shlex.split(said.split("name it yourself with ")[1].rstrip("."))
    said = printed("resume", place / "run", "--steps", 2, *given)
    assert "is not what this run has had so far" not in said
    assert evaluate(place / "run", backend=NAME)["step"] == 2
    module.write_text(module.read_text() + "# changed\n")
    said = printed("resume", place / "run", "--steps", 3, *given)
    assert f"{NAME} is not what this run has had so far: sha256" in said
    assert digest in said
    said = printed("resume", place / "run", "--steps", 4, "--backend", "numpy")
    assert read(place / "run" / logs.EXPERIMENT).code is None


def test_notebooks_entry_points_and_calls_name_code_as_ever(place, monkeypatch):
    def made(device, dtype, precision, kernels):
        return backends.get("numpy", device, dtype, precision, kernels)

    monkeypatch.setattr(sys.modules["__main__"], "own_backend", made, raising=False)
    run = train(replace(SMALL, backend="__main__:own_backend"), place / "notebook")
    assert run.finished
    assert isinstance(backends.get("own_backend_module:Backends.numpy"), backends.Backend)
    entry = EntryPoint("theirs", NAME, "ref_bioplaus.backends")
    monkeypatch.setattr(naming, "entry_points", lambda group: [entry])
    train(replace(SMALL, backend="theirs"), place / "installed")
    assert resume(place / "installed", steps=2).step == 2


def test_the_current_folder_comes_last_and_only_for_what_nobody_else_has(place, monkeypatch):
    folder = str(place / "here")
    for name in ("json:loads", "numpy", "ref_bioplaus.backends.numpy_.backend:backend",
                 naming.stored(NAME, "--backend")):  # fmt: skip
        with naming.importable(name):
            assert folder not in sys.path, name
    for _ in range(2):  # another time, once it has been imported
        with naming.importable(NAME):
            assert sys.path[-1] == folder
        assert folder not in sys.path
        naming.load(NAME, {}, "backend")
        assert folder not in sys.path
    monkeypatch.setattr(sys, "path", [folder, *sys.path])
    with naming.importable(NAME):
        assert sys.path.count(folder) == 1
    assert sys.path[0] == folder


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("os", 'expected "module:object"'),
        ("os:", '"" is no name of an object'),
        ("os:path.", '"path." is no name of an object'),
        ("os: path", '" path" is no name of an object'),
        ("-m os:path", '"-m os" is no name of a module'),
        ("os:path; rm -r x", "is no name of an object"),
        ("os:no_such_thing", r"module os \(.*os.py\) has no \"no_such_thing\""),
    ],
)
def test_what_is_no_name_of_code_gets_a_sentence_before_it_is_repeated_as_an_option(name, said):
    for given in (name, naming.stored(name, "--backend")):
        if "has no" in said and given is not name:
            continue
        with pytest.raises(naming.NamingError, match=said) as caught:
            naming.load(given, {}, "backend")
        assert "--backend" not in str(caught.value)


def test_what_a_file_says_of_its_code_is_repeated_only_where_it_can_be_true():
    digest = "0" * 64
    for file, told in (("/x/m.py", digest), ("/x/m.py, which is safe\nRun it", digest), ("/x/m.py", "safe")):
        stored = naming.stored("m:o", "--backend", {"file": file, "sha256": told})
        with pytest.raises(naming.NamingError) as caught:
            naming.load(stored, {}, "backend")
        assert ("(it was" in str(caught.value)) == (file == "/x/m.py" and told == digest)


def test_a_module_without_a_file_has_no_hash(monkeypatch):
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    assert naming.identity("__main__:backend") == {}
    assert naming.identity("sys:path") == {}
    assert naming.identity("json:loads")["file"] == str(Path(json.__file__).resolve())
