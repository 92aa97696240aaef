"""The papers as data: every cell is an experiment that can be built, and every value of it says where it is from."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ref_bioplaus import inverses, losses, models, optimizers, registry
from ref_bioplaus.experiments import papers
from ref_bioplaus.experiments.many import side_by_side
from ref_bioplaus.experiments.many import table as reproduce
from ref_bioplaus.experiments.spec.experiment import NOT_LEARNING, ExperimentError, as_dict
from ref_bioplaus.experiments.spec.taken import OPTIONS
from tests.helpers.small_models import CLASSES, SIZES

CELLS = [(table.name, *cell) for table in papers.tables() for cell in table.cells]
FIELDS = {
    "algorithm", "algorithm_options", "model", "model_options", "dataset", "loss", "optimizer", "inverse_optimizer",
    "loss_options", "boxes", "modifications", "batch", "epochs", "augmentation", "normalise", "held_out",
}  # fmt: skip
NEEDED = (
    "algorithm", "model", "dataset", "loss", "optimizer.name", "optimizer.eta", "batch", "epochs", "augmentation",
    "normalise", "held_out",
)  # fmt: skip
DATASETS = {"ylecun/mnist", "uoft-cs/cifar10", "ILSVRC/imagenet-1k", "detection-datasets/coco"}
LOSSES = {
    "cross-entropy": losses.cross_entropy,
    "sigmoid-cross-entropy": losses.sigmoid_cross_entropy,
    "squared-error": losses.squared_error,
    "detection": partial(losses.detection, CLASSES),
}
SOURCE = re.compile(r"ours: |(sec|app|fig)\. \d|app\. D|tables? \d|eq\. \(\d|public code")
ids = ["-".join(cell) for cell in CELLS]


def fields_of(table, row, column):
    return papers.experiment(table, column=column, row=row)


def rate(eta):
    """A learning rate or schedule as `optimizers` has it, with two updates an epoch."""
    if not isinstance(eta, dict):
        return eta
    kind, epochs = eta["kind"], eta["epochs"]
    if kind == "piecewise":
        return optimizers.piecewise(tuple(eta["values"]), tuple(2 * epoch for epoch in epochs))
    assert kind == "staircase"
    return optimizers.staircase(eta["eta"], eta["factor"], 2 * epochs)


def optimizer(options):
    options = dict(options)
    make = getattr(optimizers, options.pop("name"))
    return make(rate(options.pop("eta")), **options)


def build(fields, numpy):
    """The algorithm of an experiment on the small form of its model."""
    given, size = dict(fields.get("model_options", {})), dict(SIZES[fields["model"]])
    given.pop("in_shape", None)
    given.pop("hidden", None)
    if "auxiliary" in given:
        given["auxiliary"] = 3
    if fields["model"] != "bartunov2018/autoencoder":
        size["classes"] = CLASSES
    network = models.MODELS[fields["model"]](**size, **given).with_dtype("float64").with_kernels(numpy.kernels)
    row = registry.row(fields["algorithm"])
    steps = {name: dict(options) for name, options in fields.get("modifications", {}).items()}
    wrappers = []
    for name, default in row.wrappers:
        options = dict(default) | steps.pop(name, {})
        share = options.pop("start_share", None)
        wrappers.append((name, options if share is None else options | {"start": round(share * fields["epochs"] * 2)}))
    assert not steps, "modifications that the row does not have"
    loss = registry.task_loss(row, LOSSES[fields["loss"]](**fields.get("loss_options", {})), CLASSES)
    options = {
        name: OPTIONS[name](name, value) if name.endswith("initializer") else value
        for name, value in fields.get("algorithm_options", {}).items()
    }
    if "inverse" in options:
        options["inverse"] = inverses.with_neurons(inverses.mirrored_inverse, **options["inverse"])
    inverse = optimizer(fields["inverse_optimizer"]) if "inverse_optimizer" in fields else None
    row = row._replace(wrappers=tuple(wrappers))
    return network, row.build(network, loss, optimizer(fields["optimizer"]), inverse, **options)


@pytest.mark.parametrize("cell", CELLS, ids=ids)
def test_every_cell_is_an_experiment_that_can_be_built(cell, numpy64):
    fields = fields_of(*cell)
    assert set(fields) <= FIELDS
    assert fields["dataset"] in DATASETS
    network, algorithm = build(fields, numpy64)
    state = algorithm.init(numpy64.key(3))
    assert all(np.isfinite(p.W).all() for p in state.forward.params if p.W is not None)
    assert len(state.forward.params) == len(network)
    assert fields["batch"] >= 1
    assert fields["epochs"] >= 1
    assert 0 <= fields.get("held_out", 0) <= 10000


@pytest.mark.parametrize("cell", CELLS, ids=ids)
def test_every_value_has_a_source(cell):
    table, row, column = cell
    fields, sources = fields_of(*cell), papers.sources(table, column=column, row=row)
    assert {path for path, _ in papers.flat(fields)} == set(sources)
    assert set(NEEDED) <= set(sources)
    for path, source in sources.items():
        assert SOURCE.match(source) or source == papers.table(table).source, f"{path}: {source}"
    if "inverse_optimizer" in fields:
        assert {"inverse_optimizer.name", "inverse_optimizer.eta", "algorithm_options.noise"} <= set(sources)
        assert ("algorithm_options.alpha" in sources) == row.startswith("dtp")


@pytest.mark.parametrize("cell", CELLS, ids=ids)
def test_nothing_that_is_learned_is_left_to_a_default(cell):
    table, row, column = cell
    whole = as_dict(reproduce.experiment_of(table, column, row))
    free = {"seed", "dtype", "precision", *NOT_LEARNING} - {"epochs"}
    learning = {path for path, _ in papers.flat(whole) if path.partition(".")[0] not in free}
    assert learning == set(papers.sources(table, column=column, row=row))


def test_the_autoencoders_unit_is_said():
    report = reproduce.reported("bartunov2018/autoencoder", None, Path("nowhere"))
    assert "a sum over 784 pixels" in side_by_side.caption(report)


@pytest.mark.parametrize("cell", CELLS, ids=ids)
def test_rates_are_in_their_ranges(cell):
    fields = fields_of(*cell)
    for name in papers.OPTIMIZERS:
        options = fields.get(name, {})
        for key in ("b1", "b2", "rho", "momentum", "decay", "epsilon"):
            assert 0 <= options.get(key, 0) < 1
        eta = options.get("eta", 0.1)
        values = eta.get("values", [eta.get("eta")]) if isinstance(eta, dict) else [eta]
        assert all(0 < value < 1 for value in values)
    assert 0 < fields["algorithm_options"].get("alpha", 0.1) < 1
    assert 0 < fields["algorithm_options"].get("noise", 0.1) < 1


def test_published_numbers_are_percentages_of_the_right_number():
    for table in papers.tables():
        assert len({row.id for row in table.rows}) == len(table.rows)
        assert len({column.id for column in table.columns}) == len(table.columns)
        assert table.rows
        assert table.columns
        for cell in table.cells.values():
            assert set(cell.values) | set(cell.missing) == set(table.quantities)
            assert not set(cell.values) & set(cell.missing)
            assert all(0 <= number <= 100 for number in cell.values.values())
            assert set(cell.spreads) == (set(table.quantities) if table.spread else set())
            if {"test error", "top-5 test error"} <= set(cell.values):
                assert cell.values["top-5 test error"] < cell.values["test error"]
            if {"test error", "best test error"} <= set(cell.values):
                assert cell.values["best test error"] <= cell.values["test error"]
    names = [table.name for table in papers.tables()]
    assert len(set(names)) == len(names)
    assert {name.partition("/")[0] for name in names} == set(papers.NAMES)


SHAPES = {  # rows, columns, cells, numbers published
    "bartunov2018/table1": (10, 6, 50, 100),
    "bartunov2018/table2": (6, 1, 6, 12),
    "bartunov2018/autoencoder": (3, 2, 5, 0),
    "bartunov2018/figure4": (5, 1, 5, 0),
    "xiao2018/imagenet": (3, 2, 6, 1),
    "xiao2018/coco": (3, 1, 3, 0),
    "moskovitz2018/table1": (12, 5, 60, 42),
    "moskovitz2018/constant-norm": (3, 1, 3, 6),
    "moskovitz2018/figure2": (2, 1, 2, 0),
    "moskovitz2018/figure5": (5, 1, 5, 0),
    "akrout2019/imagenet": (5, 2, 10, 10),
    "akrout2019/imagenet-batch-norm-first": (1, 2, 2, 2),
    "akrout2019/small-resnet": (5, 1, 5, 0),
    "akrout2019/public-code": (4, 2, 8, 12),
    "lee2015/mnist": (2, 1, 2, 0),
    "nokland2016/mnist": (3, 1, 3, 0),
}


def test_the_tables_have_the_papers_shapes():
    found = {}
    for t in papers.tables():
        numbers = sum(len(cell.values) for cell in t.cells.values())
        found[t.name] = (len(t.rows), len(t.columns), len(t.cells), numbers)
    assert found == SHAPES


def test_the_two_tables_of_constant_norm_agree():
    for row in papers.table("moskovitz2018/constant-norm").rows:
        numbers = [
            papers.table(f"moskovitz2018/{t}").cell(row.id, "imagenet-model2").values["test error"]
            for t in ("table1", "constant-norm")
        ]
        assert numbers[0] == numbers[1]


SUMS = {  # of the test errors in each column as printed, to notice a slip of the hand
    "bartunov2018/table1": (21.36, 16.18, 434.65, 397.62, 15.28, 10.69),
    "bartunov2018/table2": (525.42,),
    "xiao2018/imagenet": (37.91, 0.0),
    "moskovitz2018/table1": (7.6, 178.3, 112.3, 578.7, 578.4),
    "moskovitz2018/constant-norm": (164.2,),
    "akrout2019/imagenet": (226.1, 202.9),
    "akrout2019/imagenet-batch-norm-first": (37.8, 32.6),
    "akrout2019/public-code": (6.76, 215.09),
}


@pytest.mark.parametrize("name", SUMS)
def test_the_columns_have_the_papers_sums(name):
    table = papers.table(name)
    sums = [
        sum(table.cells[r.id, c.id].values.get("test error", 0.0) for r in table.rows if (r.id, c.id) in table.cells)
        for c in table.columns
    ]
    assert sums == pytest.approx(SUMS[name])


def test_ao_sdtp_learns_with_sdtps_values():
    """Table 5 has no AO-SDTP: the copy cannot drift from what it was copied from."""
    for column in ("mnist-fc", "mnist-lc", "cifar-fc", "cifar-lc"):
        for suffix in ("", "-alternating"):
            theirs = papers.experiment("bartunov2018/table1", column, f"sdtp{suffix}")
            ours = papers.experiment("bartunov2018/table1", column, f"ao-sdtp{suffix}")
            for field in ("optimizer", "inverse_optimizer", "algorithm_options", "batch", "epochs"):
                assert ours[field] == theirs[field]
            assert ours["model_options"] == {"auxiliary": 512}
    theirs = papers.experiment("bartunov2018/table1", "cifar-fc", "sdtp")
    for row in papers.table("bartunov2018/figure4").rows:
        ours = papers.experiment("bartunov2018/figure4", "cifar-fc", row.id)
        size = ours.pop("model_options", {"auxiliary": 0})["auxiliary"]
        assert row.id == f"auxiliary-{size}" and ours == theirs | {"algorithm": "ao-sdtp" if size else "sdtp"}


@pytest.mark.parametrize(
    ("table", "column"), [("table1", "mnist-fc"), ("table1", "mnist-lc"), ("autoencoder", "autoencoder")]
)
def test_a_column_like_another_differs_in_what_is_said_alone(table, column):
    table = papers.table(f"bartunov2018/{table}")
    columns = (f"{column}-linear", column)
    linear, printed = ({row: column for row, column in table.cells if column == name} for name in columns)
    assert list(linear) == [row for row in printed if "dtp" in row]
    for row in linear:
        assert table.cell(row, columns[0]) == table.cell(row, columns[1])
        mine, theirs = (papers.experiment(table.name, name, row) for name in columns)
        assert mine["algorithm_options"].pop("inverse") == {"nonlinearity": "none"}
        assert mine == theirs
    assert table.column(columns[0]).dataset == "ylecun/mnist"


def test_the_papers_only_column_needs_no_name():
    assert reproduce.find_column(papers.table("bartunov2018/autoencoder"), None).id == "autoencoder"
    with pytest.raises(ExperimentError, match="has several columns, name one: mnist-fc"):
        reproduce.find_column(papers.table("bartunov2018/table1"), None)


def test_one_cell_in_full():
    assert papers.experiment("bartunov2018/table1", column="mnist-fc", row="dtp-alternating") == {
        "algorithm": "dtp-alternating",
        "model": "bartunov2018/mnist-fc",
        "dataset": "ylecun/mnist",
        "loss": "cross-entropy",
        "batch": 128,
        "epochs": 500,
        "augmentation": "none",
        "normalise": False,
        "held_out": 0,
        "optimizer": {
            "name": "adam", "eta": 0.000308, "b1": 0.99, "b2": 0.99, "epsilon": 1e-4, "epsilon_form": "hat",
        },
        "inverse_optimizer": {
            "name": "adam", "eta": 0.004593, "b1": 0.99, "b2": 0.999, "epsilon": 1e-4, "epsilon_form": "hat",
        },
        "algorithm_options": {
            "initializer": "glorot_normal", "inverse_initializer": "glorot_normal", "alpha": 0.231758,
            "noise": 0.220444,
        },
    }  # fmt: skip


def test_an_experiment_is_a_copy():
    first = papers.experiment("bartunov2018/table1", "mnist-fc", "backprop")
    first["optimizer"]["eta"] = 7.0
    papers.experiment("moskovitz2018/table1", "mnist", "backprop")["optimizer"]["eta"]["values"].append(7.0)
    assert papers.experiment("bartunov2018/table1", "mnist-fc", "backprop")["optimizer"]["eta"] == 0.000152
    again = papers.experiment("moskovitz2018/table1", "mnist", "backprop")["optimizer"]["eta"]
    assert again == {"kind": "piecewise", "values": [1e-4, 1e-5], "epochs": [20]}


def test_a_named_optimizer_begins_anew():
    cell = {"name": "moskovitz2018/table1", "column": "cifar10-model2", "row": "backprop"}
    assert set(papers.experiment(**cell)["optimizer"]) == {"name", "momentum", "eta", "decay", "form", "on"}
    assert "optimizer.b1" not in papers.sources(**cell)


def test_every_setting_is_used():
    """A setting whose tables, columns or rows are misspelt would apply nowhere."""
    for paper in papers.NAMES:
        found, settings = papers.read(paper)
        for setting in settings:
            assert set(setting) <= {"source", "tables", "columns", "rows", "set", "per_row"}
            known = {
                "tables": {t.name.partition("/")[2] for t in found.values()},
                "columns": {c.id for t in found.values() for c in t.columns},
                "rows": {r.id for t in found.values() for r in t.rows},
            }
            for key, ids in known.items():
                assert set(setting.get(key, [])) <= ids, setting
            assert "set" in setting or "per_row" in setting


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: papers.table("bartunov2018/tabel1"), 'table "bartunov2018/tabel1".*bartunov2018/table1'),
        (lambda: papers.experiment("bartunov2018/table1", "mnist-fcc", "dtp"), 'column.*"mnist-fcc".*mnist-fc'),
        (lambda: papers.experiment("bartunov2018/table1", "mnist-fc", "dpt"), 'row.*"dpt".*dtp'),
        (lambda: papers.sources("bartunov2018/table1", "mnist-fc", "backprop-convnet"), "mnist-lc, cifar-lc"),
    ],
)
def test_unknown_names_list_the_nearest(call, said):
    with pytest.raises(KeyError, match=said):
        call()
