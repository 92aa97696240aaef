"""The value of an experiment: its file, its overrides, and every mistake in it, said before anything runs."""

import math
import subprocess
import sys
import tomllib
from contextlib import suppress
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest

from ref_bioplaus import algorithms, inverses, registry
from ref_bioplaus.experiments.spec.building import Shape, build, first_state, make_optimizer, rate
from ref_bioplaus.experiments.spec.checking import checked
from ref_bioplaus.experiments.spec.experiment import (
    FIELD_TYPES,
    Experiment,
    ExperimentError,
    as_dict,
    as_toml,
    from_dict,
    overridden,
    read,
)
from ref_bioplaus.experiments.spec.options import parsed
from ref_bioplaus.experiments.spec.taken import (
    INITIALIZERS,
    OPTIONS,
    WORDS,
    algorithm_parameters,
    parameters_of,
    resolve_options,
)
from ref_bioplaus.experiments.training import opening
from ref_bioplaus.experiments.training.reporter import Reporter
from ref_bioplaus.linear import Dense
from ref_bioplaus.models import MODELS
from ref_bioplaus.registry.names import LOSSES, OPTIMIZERS
from ref_bioplaus.tree import named_leaves
from tests.conftest import get
from tests.helpers.embedded_data import embedded_data
from tests.helpers.small_models import DETECTORS

SHAPE = Shape((9, 6, 2), 4, 5)
SMALL = Experiment(model_options={"width": 5 / 256})
EVERY_FIELD = Experiment(
    algorithm="weight-mirror",
    algorithm_options={"eta_B": 0.25, "layers": "turns", "bias_blocking": True, "initial_mirroring": 3},
    model="bartunov2018/mnist-lc",
    model_options={"width": 0.5, "in_shape": [28, 28, 1]},
    dataset="zalando-datasets/fashion_mnist",
    data='a folder/with "quotes" \\ and η',
    augmentation="crop-24",
    boxes={"side": 128, "smallest": 16.0, "best_anchor": True},
    layout={"image_column": "picture", "label_column": "kind", "train_split": "all", "test_split": "rest"},
    normalise=False,
    inputs={"shape": [28, 28, 1], "classes": ["T-shirt", "η"], "mean": [0.0], "deviation": [1.0]},
    held_out=5000,
    skip_unreadable=7,
    test=False,
    loss="squared-error",
    loss_options={"gamma": 1.5},
    optimizer={
        "name": "sgd",
        "eta": {"kind": "warm-up", "epochs": 5, "eta": {"kind": "piecewise", "values": [1e-4, 1e-5], "epochs": [20]}},
        "nesterov": True,
        "momentum": 0.9,
        "by_layer": {"1": {"eta": 1}, "last": {"eta": 1e-30, "decay": 0.0}},
    },
    inverse_optimizer={"name": "adam", "eta": 0.001},
    modifications={"fixed-signs": {"start_share": 0.05}, "batch-manhattan": {}},
    start="weights/η.safetensors",
    start_sha256="e3b0",
    batch=1,
    epochs=500,
    steps=7,
    seed=2**63 - 1,
    backend="my_package.my_module:backend",
    device="cuda:1",
    config="cropped",
    dtype="float64",
    precision="tf32",
    kernels="portable",
    evaluate_every=2,
    checkpoint_every=0.0,
    metrics=("sign_changes",),
    code={"my_package.my_module:backend": {"file": "/home/me/my_package/my_module.py", "sha256": "e3b0"}},
)


# Files


def test_every_field_survives_its_file_and_the_order_of_tables_too(tmp_path):
    default = Experiment()
    for field in fields(Experiment):
        assert getattr(EVERY_FIELD, field.name) != getattr(default, field.name), f"{field.name} is not tested"
    for experiment in (EVERY_FIELD, default, replace(EVERY_FIELD, metrics=(), steps=None, device=None)):
        path = tmp_path / "experiment.toml"
        path.write_text(as_toml(experiment), "utf-8")
        again = read(path)
        assert again == experiment
        assert list(again.modifications) == list(experiment.modifications)
        assert isinstance(again.metrics, tuple)
        assert from_dict(as_dict(again)) == experiment
    assert FIELD_TYPES.keys() == {field.name for field in fields(Experiment)}


def test_tuples_numbers_as_keys_and_none_become_what_toml_has():
    experiment = Experiment(
        algorithm_options={"noise": {2: 0.1, 3: 0.2}, "norm": None}, model_options={"in_shape": (9, 6, 2)}
    )
    found = tomllib.loads(as_toml(experiment))
    assert found["algorithm_options"] == {"noise": {"2": 0.1, "3": 0.2}}
    assert found["model_options"] == {"in_shape": [9, 6, 2]}
    assert "steps" not in found


def test_a_whole_number_of_seconds_is_a_number():
    assert isinstance(from_dict({"checkpoint_every": 60}).checkpoint_every, float)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("batch = ", "is not TOML"),
        ("bacth = 5", 'The field "bacth" is unknown: did you mean batch'),
        ("batch = 5.0", "batch is 5.0, expected a whole number"),
        ("batch = true", "batch is True, expected a whole number"),
        ('test = "yes"', "test is 'yes', expected true or false"),
        ("normalise = 1", "normalise is 1, expected true or false"),
        ("data = 2026-01-01", "expected a text"),
        ("optimizer = 0.1", "optimizer is 0.1, expected a table"),
        ('metrics = "sign_changes"', "metrics is 'sign_changes', expected a list"),
        ('checkpoint_every = "often"', "checkpoint_every is 'often', expected a number"),
        ("steps = [1]", r"steps is \[1\], expected a whole number"),
        ("seed = 1\n\n  [optimizer]\neta = .01", "is not TOML .*at line 4.*: write .01 as 0.01"),
        ("optimizer = { momentum = 0.9, eta = 1. }", "is not TOML .*: write 1. as 1.0"),
        ("test = True # as in Python", "is not TOML .*: write True as true"),
        ("seed = 1" + "0" * 5000, "is not TOML .*digits"),
        ("x = " + "[" * 9000, "is nested too deeply"),
        ("[optimizer" + ".a" * 500 + "]\nx = 1", "optimizer is nested too deeply: expected at most 20"),
        ("[optimizer]\neta = " + "{a = " * 30 + "1" + "}" * 30, "optimizer is nested too deeply: expected at most 20"),
    ],
)
def test_a_file_that_is_not_understood(text, sentence, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ExperimentError, match=sentence):
        read(path)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ExperimentError, match="cannot be read"):
        read(tmp_path / "nowhere.toml")
    (tmp_path / "latin.toml").write_bytes(b'data = "\xfc"')
    with pytest.raises(ExperimentError, match="is not TOML"):
        read(tmp_path / "latin.toml")


# Overrides


@pytest.mark.parametrize(
    ("setting", "name", "value"),
    [
        ("batch=7", "batch", 7),
        ("steps = 3", "steps", 3),
        ("checkpoint_every=2", "checkpoint_every", 2.0),
        ("normalise=false", "normalise", False),
        ("backend=jax", "backend", "jax"),
        ('backend="jax"', "backend", "jax"),
        ("data=../shared/data/mnist", "data", "../shared/data/mnist"),
        ("data=a=b", "data", "a=b"),
        ("metrics=[]", "metrics", ()),
        ('metrics=["sign_changes"]', "metrics", ("sign_changes",)),
        ("optimizer.eta=1e-2", "optimizer", {"name": "sgd", "eta": 0.01, "by_layer": {"2": {"eta": 0.5}}}),
        ("optimizer.by_layer.2.eta=3", "optimizer", {"name": "sgd", "eta": 0.5, "by_layer": {"2": {"eta": 3}}}),
        ('optimizer={name="adam", eta=1}', "optimizer", {"name": "adam", "eta": 1}),
        ("modifications.batch-manhattan={}", "modifications", {"batch-manhattan": {}}),
        ("modifications.fixed-signs.start_share=0.2", "modifications", {"fixed-signs": {"start_share": 0.2}}),
    ],
)
def test_a_setting_changes_one_field_and_no_other(setting, name, value):
    base = Experiment(optimizer={"name": "sgd", "eta": 0.5, "by_layer": {"2": {"eta": 0.5}}})
    changed = overridden(base, [setting])
    assert getattr(changed, name) == value
    assert type(getattr(changed, name)) is type(value)
    assert replace(changed, **{name: getattr(base, name)}) == base
    assert base.optimizer["by_layer"] == {"2": {"eta": 0.5}}


def test_settings_apply_in_their_order():
    settings = ["optimizer.name=adam", "optimizer.eta=1", "optimizer.eta=2"]
    assert overridden(Experiment(), settings).optimizer == {"name": "adam", "eta": 2}


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("batch", 'The setting "batch" is not understood: write it as optimizer.eta=0.01'),
        ("=3", "is not understood"),
        ("batch.size=3", '"batch" is a value, not a table'),
        ("seeed=3", "did you mean seed"),
        ("epochs=1e3", "epochs is 1000.0, expected a whole number"),
        ("seed=1" + "0" * 5000, "The value 1000.* is too long"),
        ("optimizer=" + "[" * 9000, "nested too deeply"),
        ("optimizer" + ".a" * 500 + "=1", "optimizer is nested too deeply: expected at most 20"),
    ],
)
def test_a_setting_that_is_not_understood(setting, sentence):
    with pytest.raises(ExperimentError, match=sentence):
        overridden(Experiment(), [setting])


# Checking


def test_checking_fills_in_and_is_done_once():
    for label, name in (("KP", "kolen-pollack"), ("fa", "feedback-alignment"), ("dtp", "dtp")):
        full = checked(Experiment(algorithm=label))
        assert full.algorithm == name
        assert full.dataset == "ylecun/mnist"
        assert {"name", "eta"} <= set(full.optimizer)
        assert bool(full.inverse_optimizer) == (name == "dtp")
        assert checked(full) == full
        assert checked(from_dict(tomllib.loads(as_toml(full)))) == full
    assert checked(Experiment(algorithm="ao-sdtp")).model_options == {"auxiliary": 512}
    assert checked(Experiment(optimizer={"eta": 3})).optimizer == {"name": "sgd", "eta": 3, "momentum": 0.9}


def test_the_loss_is_what_the_models_targets_ask_for():
    assert checked(Experiment()).loss == "cross-entropy"
    full = checked(Experiment(model="bartunov2018/autoencoder"))
    assert full.loss == "squared-error" and checked(full) == full
    assert full.optimizer == {"name": "adam", "eta": 0.001}
    assert checked(from_dict({"loss": "squared-error"})).loss == "squared-error"
    for loss in ("cross-entropy", "sigmoid-cross-entropy"):
        assert checked(Experiment(loss=loss)).loss == loss
        with pytest.raises(ExperimentError, match=f'loss is "{loss}", but the targets .* choose "squared-error"'):
            checked(Experiment(model="bartunov2018/autoencoder", loss=loss))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["algorithm=kolen-polack"], "did you mean kolen-pollack"),
        (["algorithm=kolen"], r"did you mean kolen-pollack\?"),
        (["model=resnet18"], r"did you mean xiao2018/resnet18, akrout2019/resnet18, lin2017/retinanet-resnet18\?"),
        (["model=resmet20"], r"did you mean he2016/resnet20"),
        (["algorithm=sign-symmetry"], "did you mean usf, usf-batch-manhattan, brsf, .*sn, .*, xiao"),
        (["algorithm=SN"], r"did you mean sn\?"),
        (["model=he2016/resnet19"], "did you mean he2016/resnet"),
        (["loss=cross-entropi"], "did you mean cross-entropy"),
        (['metrics=["sign_change"]'], "did you mean sign_changes"),
        (["metrics=[1]"], "an entry of metrics is 1, expected a text"),
        (["batch=0"], "batch is 0, expected at least 1"),
        (["steps=0"], "steps is 0, expected at least 1"),
        (["checkpoint_every=nan"], "checkpoint_every is nan, expected a finite number of at least 0"),
        (["test=false"], "nothing would be measured"),
        (["optimizer.name=sdg", "optimizer.eta=1"], 'The optimizer.name "sdg" is unknown: did you mean sgd'),
        (["optimizer.name=[1]"], r"optimizer.name is \[1\], expected a text"),
        (["optimizer.name=adam"], "optimizer.eta is missing"),
        (["optimizer.etta=1"], "did you mean eta"),
        (["optimizer.momentum=high"], "momentum of optimizer .* is 'high', expected a number"),
        (["optimizer.nesterov=1"], "expected true or false"),
        (["optimizer.nesterov=true", "optimizer.momentum=0"], "needs momentum above 0"),
        (["optimizer.momentum=1"], 'momentum of optimizer "sgd" is 1, expected a number of at least 0 and below 1'),
        (["optimizer.decay=2"], 'decay of optimizer "sgd" is 2, expected a number of at least 0 and below 1'),
        (["optimizer.eta=-0.1"], "optimizer.eta is -0.1, expected a finite number of at least 0"),
        (["optimizer.eta=nan"], "optimizer.eta is nan, expected a finite"),
        (["optimizer.eta.kind=[]"], r'schedule kind of optimizer.eta "\[\]" is unknown: did you mean piecewise'),
        (["optimizer.eta.kind={}"], 'schedule kind of optimizer.eta "{}" is unknown'),
        (["optimizer.eta.epochs=3"], 'schedule kind of optimizer.eta "None" is unknown'),
        (["optimizer.by_layer.last.name=[]"], r"optimizer.by_layer.last.name is \[\], expected a text"),
        (["optimizer.eta=fast"], "optimizer.eta is 'fast', expected a number"),
        (["optimizer.by_layer.first.eta=1"], 'names "first", expected the number of a layer or "last"'),
        (["optimizer.by_layer.2=1"], "optimizer.by_layer.2 is 1, expected a table"),
        (["optimizer.by_layer.2.etta=1"], "did you mean eta"),
        (["inverse_optimizer.eta=1"], "learns no inverses"),
        (["algorithm=dtp", "inverse_optimizer.eta=[1]"], r"inverse_optimizer.eta is \[1\], expected a number"),
        (["modifications.batch-manhatan={}"], "did you mean batch-manhattan"),
        (["modifications.batch-manhattan=3"], "modifications.batch-manhattan is 3, expected a table"),
        (["modifications.batch-manhattan.optimizer=3"], 'The option of modification "batch-manhattan"'),
        (["modifications.batch-manhattan.on=W"], "on of .*batch-manhattan. is 'W', expected one of weights, all"),
        (["modifications.constant-norm.on=W"], "on of .*constant-norm. is 'W', expected one of weights, all"),
        (["modifications.noisy-gradients.strength=nan"], 'strength of modification "noisy-gradients" is nan, expected'),
        (["modifications.noisy-gradients.strength=-1"], "strength .* is -1, expected a finite number of at least 0"),
        (["modifications.align-to-random.strength=inf"], 'strength of modification "align-to-random" is inf'),
        (["modifications.fixed-signs={start=1, margin=inf}"], 'margin of modification "fixed-signs" is inf'),
        (["modifications.fixed-signs.start=-1"], 'start of modification "fixed-signs" is -1, expected at least 0'),
        (["modifications.fixed-signs.start=3000000000"], "start .* is 3000000000, expected at most 2147483647"),
        (["modifications.fixed-signs={}"], "needs start"),
        (["modifications.fixed-signs.start=0.5"], "start .* is 0.5, expected a whole number"),
        (["modifications.fixed-signs.start_share=1.5"], "start_share .* is 1.5, expected 0 to 1"),
        (["modifications.fixed-signs.start_share=nan"], "start_share .* is nan"),
        (["algorithm_options.noise_on_dela=1"], "did you mean noise_on_delta"),
        (["algorithm=FA", "algorithm_options.feedback_initializer=fan_inn"], "did you mean fan_in"),
        (["algorithm=FA", "algorithm_options.initializer=3"], "initializer .* is 3, expected one of fan_in, fan_out"),
        (["algorithm=usf", "algorithm_options.rule=unifrom"], "did you mean uniform"),
        (["algorithm=dtp", "algorithm_options.schedule=[1]"], "expected one of parallel, in-turn, alt"),
        (["algorithm=dtp", "algorithm_options.alpha=true"], "alpha .* is True, expected a number"),
        (["algorithm=dtp", "algorithm_options.noise=loud"], "noise .* is 'loud', expected a number"),
        (["algorithm=dtp", "algorithm_options.noise.x=1"], 'names "x", expected the number of a layer'),
        (["algorithm=dtp", "algorithm_options.noise.2=loud"], "noise.2 .* is 'loud', expected a number"),
        (["algorithm=dtp", "algorithm_options.inverse.wider=x"], "is 'x', expected a whole number or"),
        (["algorithm=dtp", "algorithm_options.inverse.wider=[3, 0]"], "expected a whole number or"),
        (["algorithm=dtp", "algorithm_options.inverse.wide=3"], "expected one of mirrored, dense"),
        (["algorithm=dtp", "algorithm_options.inverse.bias=no"], "bias of inverse .* is 'no', expected true or false"),
        (["algorithm=dtp", "algorithm_options.inverse.nonlinearity=non"], "nonlinearity of .*did you mean none"),
        (["algorithm=dtp", 'algorithm_options.inverse={bias=true, form="wide"}'], "form of .*, expected one of"),
        (["algorithm=dtp", "algorithm_options.over_units=all"], "over_units .* is 'all', expected one of sum, mean"),
        (["algorithm=FA", "algorithm_options.feedback_initializer.normal=-1"], "normal of .* is -1, expec"),
        (["algorithm=FA", "algorithm_options.initializer.norm=1"], "initializer .*, expected one of fan_in, fan_out"),
        (["algorithm=ao-sdtp", "model=he2016/resnet20"], "needs an auxiliary output, which model"),
        (["algorithm=ao-sdtp", "model_options.auxiliary=-1"], "auxiliary .* is -1, expected at least 0"),
        (["algorithm=ao-sdtp", "model_options.auxiliary=2.5"], "auxiliary .* is 2.5, expected a whole number"),
        (["model_options.auxiliary=7"], 'auxiliary is given, but "backprop" has no use for it'),
        (["model_options.witdh=1"], "did you mean width"),
        (["model_options.width=wide"], "width .* is 'wide', expected a number"),
        (["model_options.in_shape=784"], "in_shape .* is 784, expected a list"),
        (["model_options.in_shape=[3, 2.5, 1]"], "an entry of in_shape .* is 2.5, expected a whole number"),
        (["model_options.width=0"], "width .* is 0, expected a positive factor below 1e9"),
        (["model_options.width=1e300"], "width .* is 1e.300, expected a positive factor below 1e9"),
        (["model_options.width=inf"], "width .* is inf, expected a positive factor below 1e9"),
        (["algorithm=WM", "algorithm_options.layers=turn"], "expected one of together, turns: did you mean turns"),
        (["algorithm=WM", "algorithm_options.norm=2.0"], "norm .* is 2.0, expected a function, which a file cannot"),
        (["algorithm=WM", "algorithm_options.norm=word"], "norm .* is 'word', expected a function"),
        (["algorithm=WM", "algorithm_options.mirror_per_batch=1e30"], "mirror_per_batch .* is 1e.30, expected 0 to"),
        (["algorithm=WM", "algorithm_options.initial_mirroring=10000000"], "is 10000000, expected at most 1000000"),
        (["algorithm=WM", "algorithm_options.sigma=nan"], "sigma .* is nan, expected a finite number of at least 0"),
        (["algorithm=dfa", "algorithm_options.skips=exactly"], "skips .* is 'exactly', expected one of direct, exact"),
        (["optimizer.eta=1" + "0" * 40], "optimizer.eta is 10{40}, expected a finite number of at most 3.4e.38"),
        (["optimizer.eta=1" + "0" * 400], "optimizer.eta is 10{400}, expected a finite number of at most 3.4e.38"),
        (["optimizer.eta=0x" + "f" * 5000], "optimizer.eta is a number of thousands of digits, expected a finite"),
        (["optimizer.epsilon=1", "optimizer.name=adam", "optimizer.eta=1", "optimizer.b1=1"], "b1 .* is 1, expected"),
        (["optimizer.eta.kind=staircase", "optimizer.eta.eta=1e39", "optimizer.eta.factor=1", "optimizer.eta.epochs=1"],
         r"optimizer.eta.eta is 1e\+39, expected a finite number of at most"),
        (["optimizer.by_layer.²=1"], 'names "²", expected the number of a layer or "last"'),
        (["steps=1" + "0" * 30], "steps is 10{30}, expected at most 2147483647"),
        (["epochs=1" + "0" * 30], "epochs is 10{30}, expected at most 2147483647"),
        (["seed=9223372036854775808"], "seed is 9223372036854775808, expected at most 9223372036854775807"),
        (["optimizer.eta=.01"], "optimizer.eta is '.01', expected a number: write it as 0.01"),
        (["optimizer.eta=1."], "optimizer.eta is '1.', expected a number: write it as 1.0"),
        (["batch=007"], "batch is '007', expected a whole number: write it as 7"),
        (["test=True"], "test is 'True', expected true or false: write it as true"),
        (['optimizer.eta="0.1"'], "optimizer.eta is '0.1', expected a number: write it as 0.1"),
        (["batch=1\nseed=5"], "batch is '1.nseed=5', expected a whole number"),
    ],
)  # fmt: skip
def test_a_mistake_is_found_before_anything_is_built(settings, sentence):
    with pytest.raises(ExperimentError, match=sentence):
        checked(overridden(SMALL, settings))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["optimizer.by_layer.99.eta=1"], "by_layer names layer 99, expected one of 0 to 6"),
        (["model_options.in_shape=[784]"], r"in_shape is \[784\], but the images have \(108,\)"),
        (["model_options.classes=5"], "classes is 5, but the dataset has 4"),
        (["model_options.classes=3"], "classes is 3, but the dataset has 4"),
        (["modifications.fixed-signs={start=1, margin=0}"], "margin is 0.0, expected at least"),
        (["algorithm=sdtp", "algorithm_options.noise.2=1"], r"names layers \[2\], expected all of \[2, 3, 4, 5, 6\]"),
        (["algorithm=dtp", "algorithm_options.noise.2=1"], r"names layers \[2\], expected all of \[2, 3, 4, 5\]"),
        (["epochs=2000000000"], "the number of updates is 10000000000, expected at most 2147483647"),
        (["algorithm=dtp", "model=he2016/resnet20"], "needs a chain that ends in synapses"),
    ],
)  # fmt: skip
def test_a_mistake_that_only_the_data_shows(settings, sentence):
    experiment = checked(overridden(SMALL, settings))
    with pytest.raises(ExperimentError, match=sentence):
        build(experiment, get("numpy", "float32"), SHAPE)


def test_a_first_state_that_the_library_refuses_is_a_sentence():
    backend = get("numpy", "float32")
    built = build(checked(SMALL), backend, SHAPE)

    def init(key):
        raise ValueError("W has shape (), expected two axes")

    refusing = built._replace(algorithm=built.algorithm._replace(init=init))
    with pytest.raises(ExperimentError, match=r'"backprop" cannot start on "bartunov2018/mnist-fc": W has shape \(\)'):
        first_state(SMALL, refusing, backend)


def test_pixels_are_normalised_or_not_as_the_field_says(monkeypatch):
    from ref_bioplaus.experiments.data import loading

    asked, told = [], []

    def load(*arguments, **named):
        asked.append(named)
        return SimpleNamespace(train=SimpleNamespace(count=59_997 if named["normalise"] else 7))

    class Teller(Reporter):
        def note(self, sentence):
            told.append(sentence)

    monkeypatch.setattr(loading, "load", load)
    for normalise in (True, False):
        few = Experiment(normalise=normalise, held_out=3, dataset="ylecun/mnist", data="few")
        opening.load_data(checked(few), Teller())
    assert told == ["few has 10 training images, ylecun/mnist has 60,000."]
    assert [named["normalise"] for named in asked] == [True, False]
    assert {named["held_out"] for named in asked} == {3}


FREED = """
import resource
import numpy as np
from ref_bioplaus.machine.environment import keep_freed_memory
kept = {keep}
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(100 << 20)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_memory_is_kept():
    """A hundred megabytes that were freed and are asked for again come without the system's handing out pages."""
    found = {}
    for keep in ("False", "keep_freed_memory()"):
        done = subprocess.run(
            [sys.executable, "-c", FREED.format(keep=keep)], capture_output=True, text=True, check=True
        )
        kept, faults = done.stdout.split()
        found[kept] = int(faults)
    if "True" not in found:
        pytest.skip("the system's C library keeps no memory")
    assert found["True"] < 100
    assert found["True"] < found["False"] / 10


# Schedules


def rates(eta, steps, updates):
    found = rate("optimizer", eta, steps)
    counts = [np.asarray(n, np.int32) for n in updates]
    return [float(found(n, np.float64)) if callable(found) else found for n in counts]


def test_rates_that_are_numbers():
    assert rates(1, 5, [0, 9]) == [1.0, 1.0]
    assert rates(0, 5, [0]) == [0.0]


def test_schedules_in_epochs_and_in_updates():
    piecewise = {"kind": "piecewise", "values": [1, 0.5, 0.25], "epochs": [2, 2.4]}
    assert rates(piecewise, 5, [9, 10, 11, 12]) == [1.0, 0.5, 0.5, 0.25]
    by_updates = {"kind": "piecewise", "values": [1, 0.5, 0.25], "updates": [2, 3]}
    assert rates(by_updates, 5, [1, 2, 3, 99]) == [1.0, 0.5, 0.25, 0.25]
    staircase = {"kind": "staircase", "eta": 0.5, "factor": 0.25, "epochs": 2}
    assert rates(staircase, 3, [0, 5, 6, 12]) == pytest.approx([0.5, 0.5, 0.125, 0.03125])
    assert rates(staircase | {"epochs": 0.01}, 3, [0, 1]) == pytest.approx([0.5, 0.125])  # at least one update
    warm_up = {"kind": "warm-up", "eta": 4, "updates": 4}
    assert rates(warm_up, 3, [0, 1, 3, 4]) == [1.0, 2.0, 4.0, 4.0]


def test_schedules_within_schedules():
    inner = {"kind": "piecewise", "values": [4, 8], "epochs": [2]}
    assert rates({"kind": "warm-up", "eta": inner, "epochs": 1}, 4, [0, 3, 7, 8]) == [1.0, 4.0, 4.0, 8.0]
    twice = {"kind": "warm-up", "eta": {"kind": "warm-up", "eta": 4, "updates": 2}, "updates": 4}
    assert rates(twice, 4, [0, 1, 3]) == [0.5, 2.0, 4.0]


def test_moments_that_fall_together_in_a_short_epoch_are_refused_only_there():
    eta = {"kind": "piecewise", "values": [3, 2, 1], "epochs": [0.6, 1.2]}
    experiment = checked(replace(SMALL, optimizer={"eta": eta}))
    build(experiment, get("numpy", "float32"), SHAPE)
    with pytest.raises(ExperimentError, match="expected one more, increasing"):
        build(experiment, get("numpy", "float32"), SHAPE._replace(steps=1))


@pytest.mark.parametrize(
    ("eta", "sentence"),
    [
        ({}, 'schedule kind of optimizer.eta "None" is unknown'),
        ({"kind": "stair-case"}, "did you mean staircase"),
        ({"kind": "warm-up", "eta": 1}, "needs eta, and either epochs or updates, not both"),
        ({"kind": "warm-up", "eta": 1, "epochs": 1, "updates": 1}, "not both"),
        ({"kind": "warm-up", "updates": 1}, "needs eta"),
        ({"kind": "warm-up", "eta": 1, "epoch": 1}, "did you mean epochs"),
        ({"kind": "warm-up", "eta": -1, "updates": 1}, "expected a finite number of at least 0"),
        ({"kind": "warm-up", "eta": 1, "updates": [1]}, r"optimizer.eta.updates is \[1\], expected a number"),
        ({"kind": "staircase", "eta": 1, "factor": 0, "updates": 1}, "factor is 0, expected a number above 0"),
        ({"kind": "staircase", "eta": 1, "factor": 0.1, "epochs": float("inf")}, "epochs is inf"),
        ({"kind": "staircase", "eta": "a", "factor": 0.1, "epochs": 1}, "optimizer.eta.eta is 'a', expected a number"),
        ({"kind": "piecewise", "values": [1], "updates": 3}, "updates is 3, expected a list"),
        ({"kind": "piecewise", "values": 1, "updates": [3]}, "values is 1, expected a list"),
        ({"kind": "piecewise", "values": [1, 2], "updates": []}, "expected one more, increasing"),
        ({"kind": "piecewise", "values": [1, 2, 3], "updates": [5, 4]}, "increasing"),
        ({"kind": "piecewise", "values": [1, "x"], "updates": [4]}, "values is 'x', expected a number"),
        ({"kind": "piecewise", "values": [1, 2], "updates": ["x"]}, "updates is 'x', expected a number"),
    ],
)
def test_a_schedule_that_is_not_understood(eta, sentence):
    with pytest.raises(ExperimentError, match=sentence):
        rate("optimizer", eta, 5)


# Optimizers, options and modifications


def moved(table, network=None):
    """By how much each layer's weights are moved by a gradient of ones."""
    from ref_bioplaus.types import LayerParams

    make = make_optimizer("optimizer", table, 5, network)
    ones = tuple(LayerParams(np.ones((2, 3)), ()) for _ in range(4))
    kernels = get("numpy").kernels
    params, _ = make.update(ones, make.init(ones, (np.zeros(2, np.int32),), kernels), ones, kernels)
    return [1.0 - float(p.W[0, 0]) for p in params]


def test_layers_have_rates_of_their_own():
    network = SimpleNamespace(weighted=(1, 2, 3), L=3)
    table = {"name": "sgd", "eta": 0.5, "by_layer": {"1": {"eta": 0.25}, "last": {"eta": 0.125, "momentum": 0.5}}}
    assert moved(table, network) == [0.5, 0.25, 0.5, 0.125]
    schedule = {"kind": "warm-up", "eta": 1, "updates": 8}
    assert moved(table | {"by_layer": {"3": {"eta": schedule}}}, network) == [0.5, 0.5, 0.5, 0.125]
    assert moved({"name": "sgd", "eta": 0.5}) == [0.5] * 4
    other = table | {"by_layer": {"2": {"name": "adam", "eta": 0.25}}}
    assert moved(other, network) == pytest.approx([0.5, 0.5, 0.25, 0.5], rel=1e-6)


def test_names_of_functions_stand_for_functions():
    dtp, frsf, dense_fa = (registry.row(name) for name in ("dtp", "frsf", "dense-fa"))
    found = resolve_options(
        dtp, {"schedule": "alternating", "inverse": "dense", "inverse_initializer": "glorot-normal"}
    )
    assert found["schedule"] is algorithms.alternating
    assert found["inverse"] is inverses.dense_inverse
    assert found["inverse_initializer"] is INITIALIZERS["glorot_normal"]
    assert resolve_options(dtp, {"noise": {"2": 1, "3": 0.5}})["noise"] == {2: 1.0, 3: 0.5}
    assert callable(resolve_options(dtp, {"inverse": {"wider": [3, 5]}})["inverse"])
    network = MODELS["bartunov2018/mnist-lc"](width=0.1)
    for given, words in (
        ({"nonlinearity": "none"}, ["Bias", "LocalOperation"]),
        ({"form": "dense", "bias": False}, ["tanh"]),
        ({"form": {"wider": 5}, "nonlinearity": "own"}, ["Bias", "tanh"]),
    ):
        layer = resolve_options(dtp, {"inverse": given})["inverse"](network, 2)
        assert [getattr(op, "name", type(op).__name__) for op in layer.local] == words
        assert isinstance(layer.linear, Dense) == (given.get("form") == "dense")
    key, fa = np.zeros(2, np.int32), registry.row("feedback-alignment")
    for scale in ({"normal": 3}, {"uniform": 3.0}):
        draw = resolve_options(fa, {"feedback_initializer": scale})["feedback_initializer"]
        B = draw(Dense(50, 40), (key, "B"), np.float64, get("numpy").kernels)
        assert np.std(B) == pytest.approx(3 / 3 ** ("uniform" in scale and 0.5), rel=0.05)
        assert ("uniform" in scale) == (np.max(np.abs(B)) <= 3)
    assert resolve_options(frsf, {"rule": "strict-norm"})["rule"] is algorithms.strict_norm
    assert resolve_options(dense_fa, {"dense_initializer": "zero"})["dense_initializer"] is INITIALIZERS["zero"]
    assert resolve_options(registry.row("weight-mirror"), {"mirror_per_batch": 0.25}) == {"mirror_per_batch": 0.25}


@pytest.mark.parametrize("row", [row for row in registry.ROWS if row.inverses], ids=lambda row: row.name)
def test_every_row_of_target_propagation_takes_an_inverse_of_other_neurons_from_the_command_line(row):
    network = MODELS["bartunov2018/mnist-fc"](width=0.1)
    for word, name in (("below", "tanh"), ("none", "LocalOperation"), ("own-softmax", "Softmax")):
        asked = overridden(Experiment(algorithm=row.name), [f"algorithm_options.inverse.nonlinearity={word}"])
        layer = resolve_options(row, checked(asked).algorithm_options)["inverse"](network, network.L)
        assert [getattr(op, "name", type(op).__name__) for op in layer.local] == ["Bias", name]


ABSURD = [
    0, -1, 7, 10**30, 10**5000, -(2**63), 0.0, -0.5, 1e-300, 1e300, math.nan, math.inf, -math.inf, True, "", "x", "\n",
    "²", "a" * 5000, [], [1], [-1], [[1]], ["x"], [10**5000], {}, {"": 1}, {"1": -1}, {"wider": [3]},
]  # fmt: skip


def test_every_option_has_a_parser_that_takes_it_or_says_what_is_wrong():
    """Those of the algorithms, the optimizers, the modifications, the models and the losses, by their signatures."""
    taken = {name for row in registry.ROWS for name in algorithm_parameters(row)} | {"start_share"}
    for function in (*OPTIMIZERS.values(), *registry.MODIFICATIONS.values(), *MODELS.values(), *LOSSES.values()):
        taken |= set(parameters_of(function, "eta", "optimizer"))
    assert taken == set(OPTIONS)
    for name in OPTIONS:
        for value in ABSURD:
            with suppress(ExperimentError):
                found = parsed("it", [name], {name: value}, OPTIONS)[name]
                if isinstance(found, float):
                    np.float32(found)
                    assert 0 <= found <= np.finfo(np.float32).max


@pytest.mark.parametrize("row", registry.ROWS, ids=lambda row: row.name)
def test_every_word_for_a_function_is_taken_where_its_option_is(row):
    for name, words in WORDS.items():
        for word in words:
            options = {name: word}
            try:
                assert resolve_options(row, options)[name] is words[word]
            except ExperimentError as error:
                assert f'The option of algorithm "{row.name}" "{name}" is unknown' in str(error)


def test_modifications_wrap_in_the_order_they_stand_in():
    """The first is innermost, as the names of the memory show; the algorithm's own come before."""

    def memory(*names):
        tables = {name: {"start": 1} if name == "fixed-signs" else {} for name in names}
        experiment = checked(replace(SMALL, modifications=tables, optimizer={"name": "adam", "eta": 0.1}))
        built = build(experiment, get("numpy", "float32"), SHAPE)
        return [name for name, _ in named_leaves(built.algorithm.init(get("numpy").key(0)).forward.memory)]

    assert memory("fixed-signs", "constant-norm") != memory("constant-norm", "fixed-signs")
    experiment = checked(
        replace(SMALL, algorithm="frsf-ei", modifications={"constant-norm": {}, "fixed-signs": {"start": 3}})
    )
    row = build(experiment, get("numpy", "float32"), SHAPE).row
    assert row.wrappers == (("fixed-signs", {"start": 3}), ("constant-norm", {}))


def test_a_share_of_the_run_becomes_an_update():
    experiment = checked(replace(SMALL, epochs=8, modifications={"fixed-signs": {"start_share": 0.25}}))
    built = build(experiment, get("numpy", "float32"), SHAPE)
    assert built.row.wrappers == (("fixed-signs", {"start": 10}),)


@pytest.mark.parametrize("model", sorted({*MODELS} - {*DETECTORS}))
def test_every_model_has_a_dataset_and_the_default_experiment(model):
    full = checked(Experiment(model=model))
    assert full.dataset in ("ylecun/mnist", "uoft-cs/cifar10", "ILSVRC/imagenet-1k")
    assert full.optimizer["name"] == ("adam" if full.loss == "squared-error" else "sgd")


# On a GPU


def test_a_gpu_is_asked_for_the_same_bits_every_time(monkeypatch):
    import os

    torch = pytest.importorskip("torch")
    for before, after in (
        ("", "--xla_gpu_deterministic_ops=true"),
        ("--xla_dump_to=x", "--xla_dump_to=x --xla_gpu_deterministic_ops=true"),
        ("--xla_gpu_deterministic_ops=false", "--xla_gpu_deterministic_ops=false"),  # the user's word
    ):
        monkeypatch.setenv("XLA_FLAGS", before)
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
        opening.get_backend(checked(SMALL), Reporter())
        assert os.environ["XLA_FLAGS"] == after
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    filling = torch.utils.deterministic.fill_uninitialized_memory
    backend = get("torch", "float32")
    for mine in (backend, get("jax", "float32")):
        mine.be_deterministic()()
        assert not torch.are_deterministic_algorithms_enabled()
    backend.device = torch.device("cuda")
    for before in ("default", "warn"):
        torch.set_deterministic_debug_mode(before)
        undo = backend.be_deterministic()
        assert torch.get_deterministic_debug_mode() == 2
        assert torch.utils.deterministic.fill_uninitialized_memory is False
        undo()
        assert torch.get_deterministic_debug_mode() == {"default": 0, "warn": 1}[before]
        assert torch.utils.deterministic.fill_uninitialized_memory is filling
    torch.set_deterministic_debug_mode("default")


def test_jax_takes_the_flag_that_is_set_for_it(tmp_path):
    """XLA ends a process whose flags it does not know."""
    import subprocess
    import sys

    pytest.importorskip("jax")
    code = (
        "from ref_bioplaus.experiments.training import opening, reporter; "
        "from ref_bioplaus.experiments.spec.experiment import Experiment; "
        "b = opening.get_backend(Experiment(backend='jax'), reporter.Reporter()); print(b.to_numpy(b.key(1)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[0 1]\n", done.stderr


def test_the_embedded_data_has_the_form_that_training_asks_for():
    assert opening.shape_of(embedded_data(), Experiment(batch=100)) == Shape((10, 6, 1), 10, 5)
