"""Code of one's own in every field that names a thing: by module, by file, and the thing itself."""

import importlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ref_bioplaus import algorithms, losses, metrics, models, modifications, naming, optimizers, registry
from ref_bioplaus.experiments.demo.results import Settings
from ref_bioplaus.experiments.demo.running import run as demo
from ref_bioplaus.experiments.many import jobs
from ref_bioplaus.experiments.runs import checkpoints, logs, sources
from ref_bioplaus.experiments.spec import places
from ref_bioplaus.experiments.spec.checking import checked
from ref_bioplaus.experiments.spec.experiment import (
    Experiment,
    ExperimentError,
    as_dict,
    as_toml,
    from_dict,
    named_code,
    overridden,
    read,
    to_name_again,
)
from ref_bioplaus.experiments.spec.taken import resolve_options
from ref_bioplaus.experiments.training.reporter import Reporter
from ref_bioplaus.experiments.training.starting import NotFinite, evaluate, load, resume, train
from tests.helpers.commands import printed
from tests.helpers.own_code import MARK, OTHERS, RULE
from tests.helpers.runs import untimed

SMALL = {"model": "akrout2019/mlp", "model_options": {"hidden": 3}, "dataset": "embedded", "batch": 700, "steps": 1}
OPTIONS = ("--model", "akrout2019/mlp", "--set", "model_options.hidden=3", "--dataset", "embedded", "--batch", 700)
FIELDS = {  # every place that names a thing, with names of my_rule.py and others.py
    "algorithm": "my_rule.py:rule",
    "model": "others.py:network",
    "model_options": {"units": 4},
    "dataset": "others.py:images",
    "augmentation": "others.py:upside_down",
    "loss": "others.py:loss",
    "optimizer": {
        "name": "others.py:half",
        "eta": 0.1,
        "by_layer": {"last": {"name": "others.py:half", "eta": 0.2, "share": 0.25}},
    },
    "modifications": {"others.py:still": {}},
    "metrics": ("others.py:norms", "matrix_angles"),
}


TABLES = """
import numpy as np
x = np.linspace(-1, 1, 30 * 12).reshape(30, 3, 4, 1).astype("float32")
table = {"train": (x[:20], x[:20, :2, 0, 0]), "test": (x[20:], x[20:, :2, 0, 0])}
def classes():
    names = np.array(list("abc") * 10)
    return {"train": (x[:20], names[:20]), "test": (x[20:], names[20:])}
"""


class Notes(Reporter):
    """Keeps what a run says."""

    def __init__(self):
        self.said = []

    def note(self, sentence):
        self.said.append(sentence)


def test_every_field_takes_a_file_a_module_and_the_thing_itself(here):
    by_file = train(Experiment(**SMALL | FIELDS | {"steps": 2}), "by-file")
    assert by_file.built.network.L == 3
    assert by_file.records[-1]["others.py:norms"].keys() == {"2", "3"}
    assert by_file.records[-1]["matrix_angles"].keys() == {"3"}

    def other(kind, name):
        return name.replace(".py:", ":") if isinstance(name, str) else name

    by_module = train(Experiment(**SMALL | places.changed(FIELDS, other) | {"steps": 2}), "by-module")
    assert by_module.experiment.algorithm == "my_rule:rule"

    def itself(kind, name):
        return naming.load(name, {}, kind) if naming.is_code(name) else name

    by_thing = train(Experiment(**SMALL | places.changed(FIELDS, itself) | {"steps": 2}), "by-thing")
    assert naming.short(by_thing.experiment.algorithm) == "my_rule.py:rule"
    for other in (by_module, by_thing):
        for name in ("train_loss", "test_loss", "test_error"):
            assert other.records[-1][name] == by_file.records[-1][name] > 0
    plain = train(Experiment(**SMALL | FIELDS | {"steps": 2, "augmentation": "none"}), "plain")
    assert plain.records[-1]["train_loss"] != by_file.records[-1]["train_loss"]


def test_the_command_takes_a_rule_a_network_and_a_loss(here):
    said = printed("train", "--algorithm", "my_rule.py:rule", "--model", "others.py:network", "--loss", "others:loss",
                   "--dataset", "embedded", "--batch", 700, "--steps", 1, "--set", "algorithm_options.gain=0.5",
                   "--out", "run")  # fmt: skip
    assert "Done: epoch 0, step 1" in said
    run = read(Path("run") / logs.EXPERIMENT)
    assert (run.algorithm, run.model, run.loss) == ("my_rule.py:rule", "others.py:network", "others:loss")
    for name, file in (("my_rule.py:rule", "my_rule.py"), ("others:loss", "others.py")):
        record, content = run.code[name], (here / file).read_bytes()
        assert record == naming.identity(name) and record["file"] == str(here / file)
        assert (here / "run" / sources.FOLDER / sources.name_of(file, record["sha256"])).read_bytes() == content
    assert "my_rule.py:rule" in printed("compare", "run", "--html", "c.html")


def test_options_of_a_rule_are_those_of_its_signature():
    def rule(network, loss, optimizer, gain: float, times: int = 3, signs=False, kind: "str | None" = None, style=None):
        return algorithms.backprop(network, loss, optimizer)

    row = registry.row(rule)
    assert row.name.endswith("<locals>.rule") and row.label == row.name and not row.inverses
    good = {"gain": -2, "times": -5, "signs": True, "kind": "any"}
    assert resolve_options(row, good) == good
    for options, said in (
        ({"gain": "2"}, "gain of algorithm .* is '2', expected a number"),
        ({"gain": True}, "is True, expected a number"),
        ({"gain": 1, "times": 2.5}, "is 2.5, expected a whole number"),
        ({"gain": 1, "signs": 1}, "is 1, expected true or false"),
        ({"gain": 1, "kind": 3}, "is 3, expected a text"),
        ({"gain": 1, "style": 3}, "annotate it there, as style: float"),
        ({"gain": 1, "gaim": 1}, 'option of algorithm .* "gaim" is unknown: did you mean gain'),
        ({}, "needs the option gain, which has no default"),
    ):
        with pytest.raises(ExperimentError, match=said):
            resolve_options(row, options)


def test_a_row_of_ones_own_has_what_it_says(here):
    row = registry.Row("mine", "Mine", "none", "Nobody 2026", "(1)", algorithms.dtp, {"alpha": 0.01}, inverses=True)
    run = train(Experiment(**SMALL | {"algorithm": row, "metrics": ()}), "run")
    assert run.built.row.label == "Mine" and run.built.row.options["alpha"] == 0.01
    assert run.experiment.inverse_optimizer["name"] == "adam"
    with pytest.raises(ExperimentError, match="alpha of algorithm .* expected a finite number of at least 0"):
        checked(Experiment(**SMALL | {"algorithm": row, "algorithm_options": {"alpha": -1}}))

    def with_inverses(network, loss, optimizer, inverse_optimizer):
        return algorithms.dtp(network, loss, optimizer, inverse_optimizer)

    assert registry.row(with_inverses).inverses


def test_a_file_is_not_run_for_a_name_that_only_a_file_gives(here):
    (here / "e.toml").write_text(as_toml(Experiment(**SMALL | FIELDS)))
    fields = tuple(places.names(FIELDS))
    assert {kind for kind, _ in fields} | {"backend"} == {
        "algorithm", "model", "dataset", "augmentation", "loss", "optimizer", "modification", "metric", "backend",
    }  # fmt: skip
    for kind, name in fields:
        if not naming.is_code(name):
            continue

        def only(other, text, kept=name):
            usual = {"algorithm": "backprop", "model": "akrout2019/mlp", "dataset": "embedded", "augmentation": "none",
                     "loss": "cross-entropy", "optimizer": "sgd", "modification": "batch-manhattan",
                     "metric": "matrix_angles"}  # fmt: skip
            return text if text == kept else usual[other]

        own = places.changed(FIELDS, only) | {"model_options": {}}
        own["optimizer"] = {name: value for name, value in own["optimizer"].items() if name != "by_layer"}
        (here / "one.toml").write_text(as_toml(Experiment(**SMALL | own)))
        said = printed("train", "--experiment", "one.toml", "--out", "run", code=2)
        assert f'"{name}" is code that a file names' in said, (kind, said)
        file = naming.parts(name)[0]
        assert said.endswith(f"name it yourself with --code {file}, in Python code={file!r}.")
    assert not (here / MARK).exists()
    said = printed("train", "--experiment", "e.toml", "--code", "my_rule.py", "--out", "run", code=2)
    assert "--code others.py" in said
    said = printed(
        "train", "--experiment", "e.toml", "--code", "mine.py", "--code", "others.py", "--out", "run", code=2
    )
    assert said == "--code mine.py: there is no such file, name another one."
    printed("train", "--experiment", "e.toml", "--code", "my_rule.py", "--code", "others.py", "--out", "run")
    printed("train", "--experiment", "e.toml", "--algorithm", "my_rule.py:rule", "--code", "others.py", "--out", "two")
    assert untimed(logs.records(Path("run"))) == untimed(logs.records(Path("two")))


def test_nothing_in_a_run_folder_is_run(here):
    train(Experiment(**SMALL | FIELDS), "run")
    (here / MARK).unlink()
    kept = sorted(path.name for path in (here / "run" / sources.FOLDER).iterdir())
    assert [name.rpartition("-")[0] for name in kept] == ["my_rule", "others"]
    for call in (lambda: resume("run", steps=2), lambda: evaluate("run"), lambda: resume("run", steps=2, code="x.py")):
        with pytest.raises(ExperimentError, match=r"is code that a file names \(it was .*, sha256 [0-9a-f]{64}\)"):
            call()
    for arguments in (("resume", "run", "--steps", 2), ("evaluate", "run")):
        assert "name it yourself with --code" in printed(*arguments, code=2)
    assert "my_rule.py:rule" in printed("compare", "run", "--html", "c.html")
    printed("plot", "run", "--figure", "receptive-fields", "--out", "p.svg")
    assert not (here / MARK).exists()
    both = ["my_rule.py", Path("others.py")]
    assert evaluate("run", code=both)["step"] == 1
    image = np.zeros((28, 28), np.uint8)
    assert load("run", code=both).predict(image).output.shape == (1, 10)
    Image.fromarray(image).save("zero.png")
    assert "name it yourself with --code" in printed("predict", "run", "zero.png", code=2)
    printed("predict", "run", "zero.png", "--code", "my_rule.py", "--code", "others.py")
    assert resume("run", steps=2, code=both).step == 2
    shutil.move("my_rule.py", "elsewhere.py")
    folder = here / "moved"
    folder.mkdir()
    shutil.move("elsewhere.py", folder / "my_rule.py")
    said = printed("resume", "run", "--steps", 3, "--code", "moved/my_rule.py", "--code", "others.py")
    assert "Done: epoch 0, step 3" in said
    assert read(Path("run") / logs.EXPERIMENT).algorithm == "moved/my_rule.py:rule"


def test_changed_code_is_refused_with_its_difference(here):
    train(Experiment(**SMALL, algorithm="my_rule.py:rule"), "run")
    kept = sorted((here / "run" / sources.FOLDER).iterdir())
    (here / "my_rule.py").write_text(RULE.replace("return gain * network", "return 2.0 * gain * network"))
    said = printed("resume", "run", "--steps", 2, "--code", "my_rule.py", code=2)
    assert "my_rule.py:rule is not what this run has had so far: sha256" in said
    assert "| - return gain * network[l].linear" in said and "| + return 2.0 * gain * network[l].linear" in said
    assert said.endswith("put it back, or go on with what it is now by --changed-code.")
    with pytest.raises(ExperimentError, match=r"\(@@ -\d+ \+\d+ @@ \| - +return gain"):
        evaluate("run", code="my_rule.py")
    assert evaluate("run", code="my_rule.py", changed_code=True)["step"] == 1
    said = printed("resume", "run", "--steps", 2, "--code", "my_rule.py", "--changed-code")
    assert "is not what this run has had so far" in said and "Done" in said
    assert len(list((here / "run" / sources.FOLDER).iterdir())) == 2 == 1 + len(kept)
    printed("resume", "run", "--steps", 3, "--code", "my_rule.py")
    (here / "my_rule.py").write_text(RULE)
    digest = read(Path("run") / logs.EXPERIMENT).code["my_rule.py:rule"]["sha256"]
    last = here / "run" / sources.FOLDER / sources.name_of("my_rule.py", digest)
    last.write_bytes(b"# edited\n")
    with pytest.raises(ExperimentError, match=r"before [0-9a-f]{64}: put it back"):
        resume("run", steps=4, code="my_rule.py")
    last.unlink()
    with pytest.raises(ExperimentError, match=r"before [0-9a-f]{64}: put it back"):
        resume("run", steps=4, code="my_rule.py")


def test_a_lambda_learns_and_is_resumed_from_python_alone(here):
    rule = lambda network, loss, optimizer: algorithms.backprop(network, loss, optimizer)  # noqa: E731
    notes = Notes()
    run = train(Experiment(**SMALL | {"algorithm": rule}), "run", reporter=notes)
    assert [note for note in notes.said if "can be resumed only from Python: give it again there" in note]
    plain = train(Experiment(**SMALL), "plain")
    assert run.records[-1]["train_loss"] == plain.records[-1]["train_loss"]
    said = printed("resume", "run", "--steps", 2, code=2)
    assert "was given to Python without a name that leads to it: give it again there" in said
    assert resume("run", steps=2, code=rule).step == 2
    assert resume("run", steps=3, algorithm=rule).step == 3
    printed("compare", "run", "--html", "c.html")
    assert "&lt;lambda&gt;" in (here / "c.html").read_text("utf-8")
    (other,) = jobs.run([jobs.Job("it", Experiment(**SMALL | {"algorithm": rule}), Path("job"))])
    assert other.end == jobs.FAILED and "was given to Python without a name" in other.sentence


def test_lambdas_are_told_apart_and_given_again_in_any_order(here):
    image_of = lambda image, words: image[::-1]  # noqa: E731
    rule = lambda network, loss, optimizer: algorithms.backprop(network, loss, optimizer)  # noqa: E731
    norms = [lambda forward: {1: 1.0}, lambda after: {1: 2.0}]
    whole = {"algorithm": rule, "augmentation": image_of, "metrics": tuple(norms), "steps": 1}
    whole["optimizer"] = {"name": lambda eta: optimizers.sgd(eta), "eta": 0.1}
    first = train(Experiment(**SMALL | whole), "run").records[-1]
    names = [name for _, name in places.names(as_dict(Experiment(**SMALL | whole))) if naming.nameless(name)]
    assert len(names) == len(set(names)) == 5
    assert [first[name] for name in names[-2:]] == [{"1": 1.0}, {"1": 2.0}]
    code = [*norms, whole["optimizer"]["name"], image_of, rule]
    again = resume("run", steps=2, code=code).records[-1]
    assert again["test_loss"] == train(Experiment(**SMALL | whole | {"steps": 2}), "whole").records[-1]["test_loss"]
    with pytest.raises(ExperimentError, match="was given to Python without a name"):
        resume("run", steps=3, code=code[:-1])


def test_code_given_as_a_module_is_that_of_its_names(here, monkeypatch):
    monkeypatch.syspath_prepend(here)
    mine = importlib.import_module("my_rule")
    try:
        for name, out in (("my_rule:rule", "a"), ("my_rule.py:rule", "b"), (mine.rule, "c")):
            train(Experiment(**SMALL | {"algorithm": name}), out)
            assert resume(out, steps=2, code=mine).step == 2
    finally:
        del sys.modules["my_rule"]


def test_worker_processes_get_names_by_the_same_gate(here):
    mine = Experiment(**SMALL | FIELDS)
    there = from_dict(json.loads(json.dumps(as_dict(mine))))
    (other,) = jobs.run([jobs.Job("a file's", there, here / "a")])
    assert other.end == jobs.FAILED and "is code that a file names" in other.sentence
    assert not (here / MARK).exists()
    (found,) = jobs.run([jobs.Job("mine", mine, here / "b")])
    assert found.end == jobs.FINISHED, found.sentence


def test_the_demo_takes_a_rule_in_its_processes_too(here):
    names = ("my_rule.py:rule",)
    alone = demo(Settings(("numpy",), names, steps=3))
    assert [t.row.label for t in alone.trainings] == ["my_rule.py:rule"] and not alone.failures
    said = printed("demo", "--backend", "numpy", "--algorithm", "my_rule.py:rule", "--steps", 3, "--out", "page")
    assert "my_rule.py:rule" in said
    (here / "my_rule.py").write_text("x = 1\n")
    assert 'has no "rule", expected a function' in printed(
        "demo", "--backend", "numpy", "--algorithm", "my_rule.py:rule", "--out", "page", code=2
    )


def test_conformance_judges_a_rule_of_ones_own(here):
    said = printed("conformance", "run", "--backend", "numpy", "--algorithm", "my_rule.py:rule", "--level", "1",
                   "--mode", "eager", "--case", "*FC*")  # fmt: skip
    assert "PASS" in said
    said = printed("conformance", "run", "--backend", "numpy", "--algorithm", "my_rule.py:nothing", code=2)
    assert 'has no "nothing"' in said


def test_installed_packages_enrol_by_entry_points(here, monkeypatch):
    """A distribution that lies on the path, as `pip install` leaves it."""
    place = here.parent / "installed"
    (place / "own_package").mkdir(parents=True)
    (place / "own_package" / "__init__.py").write_text("")
    (place / "own_package" / "rules.py").write_text(RULE)
    (place / "own_package" / "others.py").write_text(OTHERS)
    (place / "own_package-1.0.dist-info").mkdir()
    (place / "own_package-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: own_package\n")
    points = {
        "algorithms": ("own-rule", "rules:rule"),
        "models": ("own-net", "others:network"),
        "losses": ("own-loss", "others:loss"),
        "datasets": ("own-images", "others:images"),
        "metrics": ("own-norms", "others:norms"),
        "optimizers": ("own-half", "others:half"),
        "modifications": ("own-still", "others:still"),
        "augmentations": ("own-flip", "others:upside_down"),
    }
    (place / "own_package-1.0.dist-info" / "entry_points.txt").write_text(
        "".join(f"[ref_bioplaus.{group}]\n{name} = own_package.{at}\n" for group, (name, at) in points.items())
    )  # fmt: skip
    monkeypatch.syspath_prepend(place)
    own = {group: name for group, (name, _) in points.items()}
    (here / "e.toml").write_text(
        as_toml(
            Experiment(
                algorithm=own["algorithms"], model=own["models"], dataset=own["datasets"], loss=own["losses"],
                augmentation=own["augmentations"], optimizer={"name": own["optimizers"], "eta": 0.1},
                modifications={own["modifications"]: {}}, metrics=(own["metrics"],), batch=700, steps=1,
            )
        )
    )  # fmt: skip
    printed("train", "--experiment", "e.toml", "--out", "run")  # which no file has to be named for
    assert logs.records(Path("run"))[-1]["own-norms"].keys() == {"2", "3"}
    assert resume("run", steps=2).built.row.label == "own-rule"
    assert "own-rule" in printed("list", "algorithms")
    with pytest.raises(ExperimentError, match='"own-rul" is unknown: did you mean own-rule'):
        checked(Experiment(algorithm="own-rul"))


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        ("algorithm", "x = ", r"x.py cannot be imported \(SyntaxError: .*line 1\)+, mend it"),
        ("algorithm", "\n1 / 0", r"cannot be imported \(ZeroDivisionError: division by zero, line 2 of x.py\)"),
        ("algorithm", "import no_such_module", r"cannot be imported \(ModuleNotFoundError: No module named"),
        ("algorithm", "raise SystemExit(3)", r"cannot be imported \(SystemExit: 3"),
        ("algorithm", "", 'x.py has no "it", expected a function'),
        ("algorithm", None, r"x.py cannot be read \(No such file or directory\), name another file"),
        ("algorithm", "it = 5", r"is a int, expected a function \(network, loss, optimizer"),
        ("algorithm", "def it(network): pass", r"takes \(network\), expected a function \(network, loss, optimizer"),
        ("algorithm", "def it(a, b, c): return 5", "returns a int, expected Algorithm"),
        ("algorithm", "from ref_bioplaus import Algorithm\ndef it(a, b, c): return Algorithm(None, {'step': None})",
         'has the modes step, but its schedule asks for "learn": call one so'),
        ("model", "def it(classes): pass", r"takes \(classes\), expected a function \(in_shape, classes\)"),
        ("model", "def it(in_shape, classes): return 5", "returns a int, expected Network"),
        ("loss", "def it(u, y): pass", r"takes \(u, y\), expected a function without arguments, or a Loss"),
        ("loss", "def it(): return 5", "returns a int, expected Loss"),
        ("dataset", "def it(): return 5", "The dataset .x.py:it.: images are a int"),
        ("metrics", "def it(weights): pass", r"takes \(weights\), expected a function of some of after, batch"),
        ("model", "import ref_bioplaus as rb\ndef it(in_shape, classes): return "
                  "rb.chain(in_shape, rb.flatten, (rb.dense(classes + 1), rb.bias))",
         "has 11 outputs, but the data have 10 classes: make"),
        ("dataset", "def it(): pass", "it returns nothing, expected data"),
        ("metrics", "def it(forward): return 5", r"returns a int, expected a table \{layer: number\}"),
        ("modifications", "def it(optimizer): return 5", "returns a int, expected Optimizer"),
        ("optimizer", "def it(): return 5", "returns a int, expected Optimizer"),
        ("augmentation", "def it(image, words): return image[1:]", r"returns uint8 \(27, 28, 1\), expected"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_gets_one_sentence(here, field, text, said):
    if text is not None:
        (here / "x.py").write_text(text)
    name = "x.py:it"
    value = {"metrics": (name,), "modifications": {name: {}}, "optimizer": {"name": name}}.get(field, name)
    with pytest.raises((ExperimentError, RuntimeError), match=said) as caught:
        train(Experiment(**SMALL | {"model_options": {}, field: value}), "run")
    assert "\n" not in str(caught.value)
    assert not (here / "run").exists() or field in ("metrics", "augmentation")


def test_names_are_taken_apart_on_every_system():
    for name, place, path, short in (
        ("C:\\rules\\x.py:name", "C:\\rules\\x.py", "name", "x.py:name"),
        ("C:\\rules\\x.py", "C:\\rules\\x.py", "", "x.py"),
        ("/a b/x.py:Rules.name", "/a b/x.py", "Rules.name", "x.py:Rules.name"),
        ("own.module:name", "own.module", "name", "own.module:name"),
    ):
        assert naming.parts(name) == (place, path) and naming.short(name) == short
        assert naming.is_code(name)
    assert naming.named_again("/gone/x.py:name", ["C:\\rules\\x.py"]) == "C:\\rules\\x.py:name"
    assert naming.named_again("x.py:name", ["y.py", "x.py:other", "x"]) is None
    assert naming.named_again("own.module:name", ["own.module"]) == "own.module:name"
    for name in ("backprop", "uoft-cs/cifar10", "flip-crop-24"):
        assert not naming.is_code(name)
    with pytest.raises(naming.NamingError, match='"" is no name of an object'):
        naming.load("x.py", {}, "algorithm")


def test_settings_reach_code_in_tables(here):
    found = overridden(Experiment(), ['modifications."others.py:still".x=1', "loss=others.py:loss"])
    assert found.modifications == {"others.py:still": {"x": 1}} and found.loss == "others.py:loss"
    assert not isinstance(found.loss, naming.Stored) and not isinstance([*found.modifications][0], naming.Stored)
    stored = from_dict(as_dict(found) | {"optimizer": {"name": "others.py:half"}}, named_code(as_dict(found)))
    assert isinstance(stored.optimizer["name"], naming.Stored)
    for again in (replace(stored, seed=3), overridden(stored, ["seed=3"]), from_dict(as_dict(stored))):
        assert isinstance(again.optimizer["name"], naming.Stored)
        with pytest.raises(ExperimentError, match="is code that a file names"):
            checked(replace(again, model="akrout2019/mlp", modifications={}))


def test_a_file_that_was_changed_is_run_anew(here):
    for gain in (1, 2):
        (here / "x.py").write_text(f"def it(): return {gain}")
        assert naming.load("x.py:it", {}, "loss")() == gain
        assert (naming.load("x.py:it", {}, "loss") is naming.load("./x.py:it", {}, "loss")) is True
        assert naming.source("x.py:it")[1] == (here / "x.py").read_bytes()


def test_train_goes_on_with_a_rule_that_its_command_names(here):
    words = ("train", "--algorithm", "my_rule.py:rule", "--model", "akrout2019/mlp", "--dataset", "embedded",
             "--batch", 700, "--set", "metrics=[]", "--out", "run", "--resume")  # fmt: skip
    for steps in (1, 2):
        assert f"step {steps}" in printed(*words, "--steps", steps)
    (here / "my_rule.py").write_text(f"{RULE}# more\n")
    assert "| +# more)" in printed(*words, "--steps", 3, code=2)


def test_a_stopped_run_says_how_its_code_is_named_again(here):
    experiment = Experiment(**SMALL | FIELDS | {"backend": "my_backend.py:backend"})
    assert to_name_again(experiment) == (
        "--backend", "my_backend.py:backend", "--code", "my_rule.py", "--code", "others.py"
    )  # fmt: skip
    assert to_name_again(Experiment()) == ()
    options = {"optimizer": {"name": "sgd", "eta": 1e30}, "steps": 7, "loss": "squared-error", "metrics": ()}
    with pytest.raises(NotFinite, match="--set optimizer.eta=1e\\+29 --code my_rule.py`"):
        train(Experiment(**SMALL | options, algorithm="my_rule.py:rule"), "run")


def test_arrays_and_real_valued_targets_of_ones_own(here):
    """As a constant of a file, and as a function: neither says that it learns classes."""
    (here / "mine.py").write_text(TABLES)
    fields = {"model": "others.py:network", "dataset": "mine.py:table", "batch": 7, "steps": 2, "epochs": 1}
    assert "20 train and 10 test images of 3 x 4 x 1" in printed("data", "mine.py:table")
    assert "28 x 28" in printed("data", "others.py:images")
    run = train(Experiment(**fields), "run")
    assert run.experiment.loss == "squared-error" and run.built.network[3].out_shape == (2,)
    assert "train_error" not in run.records[-1]
    assert resume("run", steps=3, code=["mine.py", "others.py"]).step == 3
    again = evaluate("run", code=["mine.py", "others.py"])
    assert again["test_loss"] == pytest.approx(resume("run", steps=3, code=["mine.py", "others.py"]).records[-1]
                                               ["test_loss"])  # fmt: skip
    classes = train(Experiment(**fields | {"dataset": "mine.py:classes"}), "classes")
    assert classes.experiment.loss == "cross-entropy" and classes.experiment.inputs["classes"] == ["a", "b", "c"]


def test_what_is_ours_has_its_own_name(here):
    experiment = Experiment(
        algorithm=algorithms.kolen_pollack, model=models.akrout2019.mlp, loss=losses.squared_error,
        optimizer={"name": optimizers.adam, "eta": 0.1, "by_layer": {"last": {"name": optimizers.sgd}}},
        modifications={modifications.batch_manhattan: {}}, metrics=(metrics.sign_changes,),
    )  # fmt: skip
    assert (experiment.algorithm, experiment.model) == ("kolen-pollack", "akrout2019/mlp")
    assert (experiment.loss, experiment.metrics) == ("squared-error", ("sign_changes",))
    assert experiment.optimizer["name"] == "adam" and experiment.optimizer["by_layer"]["last"]["name"] == "sgd"
    assert list(experiment.modifications) == ["batch-manhattan"] and named_code(as_dict(experiment)) == ()
    assert Experiment(algorithm=registry.row("weight-mirror-turns")).algorithm == "weight-mirror-turns"
    assert Experiment(algorithm=algorithms.tp).algorithm == "tp"


def test_two_things_of_one_name_are_refused(here):
    with pytest.raises(ExperimentError, match="modifications has two functions of one name"):
        Experiment(modifications={modifications.batch_manhattan: {}, "batch-manhattan": {}})
    with pytest.raises(ExperimentError, match="metrics has others.py:norms twice"):
        checked(Experiment(**SMALL, metrics=("others.py:norms", "./others.py:norms")))


def test_runs_of_one_name_and_other_code_are_told_apart(here):
    for i in (1, 2):
        (here / "my_rule.py").write_text(RULE.replace("return gain * network", f"return {i} * gain * network"))
        train(Experiment(**SMALL, seed=i, algorithm="my_rule.py:rule", metrics=()), f"run-{i}")
    said = printed("compare", "run-1", "run-2", "--html", "c.html")
    assert said.count("my_rule.py:rule, code ") >= 2


def test_own_losses_optimizers_and_networks_without_names(here):
    fields = SMALL | {"loss": losses.squared_error(), "optimizer": {"name": lambda: optimizers.sgd(0.1)}}
    run = train(Experiment(**fields), "run")
    ours = train(Experiment(**SMALL | {"loss": "squared-error", "optimizer": {"name": "sgd", "eta": 0.1}}), "ours")
    assert run.records[-1]["train_loss"] == ours.records[-1]["train_loss"]
    tensors = [checkpoints.latest(Path(out)).tensors["forward/params/1/W"] for out in ("run", "ours")]
    assert np.array_equal(*tensors)


@pytest.mark.parametrize("field", ["algorithm", "model", "loss", "dataset", "augmentation", "start"])
def test_a_null_character_in_a_file_s_name_is_one_sentence(field, tmp_path):
    name = "rule\0.py" if field == "start" else "rule\0.py:rule"
    with pytest.raises(ExperimentError, match="cannot be read"):
        train(Experiment(**({"dataset": "embedded"} | {field: name})), tmp_path / "run")
