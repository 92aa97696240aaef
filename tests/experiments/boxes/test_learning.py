"""A detector learns from a folder of images with boxes: by the command, stopped and resumed, evaluated and exported."""

import json
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from ref_bioplaus.experiments import Experiment, ExperimentError, evaluate, export, load, resume, train
from ref_bioplaus.experiments.boxes.detections import Found
from ref_bioplaus.experiments.boxes.precision import NAMES, Truth
from ref_bioplaus.experiments.data import hub
from ref_bioplaus.experiments.data.augmentation import DataError
from ref_bioplaus.experiments.figures import comparison, curves, detection, series
from ref_bioplaus.experiments.spec.building import build_loss
from ref_bioplaus.experiments.spec.checking import checked
from ref_bioplaus.experiments.training import opening
from ref_bioplaus.experiments.training.reporter import Reporter
from ref_bioplaus.tree import leaves
from tests.helpers.commands import command

pytest.importorskip("datasets")
pytest.importorskip("faster_coco_eval")
Image = pytest.importorskip("PIL.Image")
SMALL = {"width": 1 / 32, "channels": 128}
FIELDS = {
    "algorithm": "xiao", "model": "lin2017/retinanet-resnet18", "model_options": SMALL, "batch": 4, "metrics": (),
    "boxes": {"side": 128, "smallest": 16.0, "best_anchor": True, "ignored_below": 26.0}, "augmentation": "flip",
    "optimizer": {"name": "adam", "eta": 0.003}, "epochs": 2, "algorithm_options": {"initializer": "he_fan_out"},
}  # fmt: skip

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230)}


def boxed_folder(folder, images=6, tests=3, size=(128, 112), seed=0):
    """Rectangles on a plain ground, whose colour is the class; the last image of each split has none."""
    import datasets as hf
    from PIL import Image

    rng = np.random.default_rng(seed)
    objects = {
        "bbox": hf.List(hf.List(hf.Value("float64"), length=4)),
        "category": hf.List(hf.ClassLabel(names=list(COLOURS))),
    }
    (folder / "data").mkdir(parents=True)
    for name, count in (("train", images), ("val", tests)):
        rows = {"image": [], "objects": []}
        for i in range(count):
            pixels = np.full((size[1], size[0], 3), 127, np.uint8)
            boxes, labels = [], []
            for _ in range(0 if i == count - 1 else rng.integers(1, 3)):
                x, y = rng.integers(0, 70), rng.integers(0, 60)
                w, h = rng.integers(24, 50, 2)
                label = int(rng.integers(0, 3))
                pixels[y : y + h, x : x + w] = list(COLOURS.values())[label]
                boxes.append([float(v) for v in (x, y, x + w, min(y + h, size[1]))])
                labels.append(label)
            rows["image"].append(Image.fromarray(pixels))
            rows["objects"].append({"bbox": boxes, "category": labels})
        table = hf.Dataset.from_dict(rows, features=hf.Features({"image": hf.Image(), "objects": objects}))
        table.to_parquet(folder / "data" / f"{name}-00000.parquet")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory, own_cache):
    return boxed_folder(tmp_path_factory.mktemp("boxes"))


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """A run of two epochs."""
    return train(Experiment(**FIELDS, data=str(folder)), tmp_path_factory.mktemp("whole") / "run")


def test_a_run_is_measured_resumed_evaluated_and_exported(folder, whole, tmp_path):
    experiment = Experiment(**FIELDS, data=str(folder))
    train(replace(experiment, steps=1), tmp_path / "run")
    run = resume(tmp_path / "run", epochs=2)
    assert (whole.step, run.step) == (4, 4) and whole.built.targets == "boxes"
    for a, b in zip(leaves(whole.state), leaves(run.state), strict=True):
        assert np.array_equal(a, b)
    last = run.records[-1]
    assert last["test_loss"] == whole.records[-1]["test_loss"] > 0
    assert all(-1 <= last[f"test_{name}"] <= 1 for name in NAMES) and "train_error" not in last
    found = evaluate(tmp_path / "run")
    assert {f"{split}_{name}" for split in ("train", "test") for name in (*NAMES, "loss")} <= set(found)
    assert found["test_loss"] == last["test_loss"] and "train_AP50_all" in found  # some boxes are ignored
    arrays = export(tmp_path / "run", tmp_path / "weights.safetensors")
    assert arrays["head.classification_head.cls_logits.weight"].shape == (27, 4, 3, 3)
    assert run.experiment.loss == "detection" and run.experiment.inputs["classes"] == ["red", "green", "blue"]
    with pytest.raises(ExperimentError, match=r"finds boxes: ask for .find\(images\)"):
        load(tmp_path / "run").predict(np.zeros((128, 128, 3), np.uint8))
    images = np.random.default_rng(0).integers(0, 255, (2, 60, 90, 3), np.uint8)
    both, (first,) = load(tmp_path / "run").find(images), load(tmp_path / "run").find(images[0])
    assert len(both) == 2 and np.allclose(both[0].scores, first.scores, atol=1e-5)
    assert both[0].boxes[:, 2].max(initial=0) <= 90 and both[0].boxes[:, 3].max(initial=0) <= 60 + 1e-9


def test_the_command_says_what_the_anchors_cover_and_how_precise_it_is(folder, tmp_path):
    words = [word for name, value in {"model_options.width": 1 / 64, "boxes.side": 128, "boxes.smallest": 16.0}.items()
             for word in ("--set", f"{name}={value}")]  # fmt: skip
    found = command(
        "train", "--model", "lin2017/retinanet-resnet18", "--data", folder, "--algorithm", "feedback-alignment",
        "--batch", 3, "--steps", 1, *words, "--set", "metrics=[]", "--out", tmp_path / "run",
    )  # fmt: skip
    assert "boxes to be learned from, some anchor covers" in found.output
    said = " ".join(found.output.split())
    assert all(f"test {name} " in said for name in ("AP", "AP50", "AP75", "AP medium"))
    assert "AP large" not in said  # there are no such boxes
    command("plot", tmp_path / "run", "--figure", "boxes", "--out", tmp_path / "boxes.png")
    with Image.open(tmp_path / "boxes.png") as picture:
        assert picture.size[0] > 300
    compared = command("compare", tmp_path / "run", "--html", tmp_path / "compare.html")
    assert "test AP50" in compared.output
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((40, 70, 3), 90, np.uint8)).save(tmp_path / name)
    (tmp_path / "c.png").write_text("no image")
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    told = command("predict", tmp_path / "run", *paths, "--json", "--top", 2, code=2)
    lines = [json.loads(line) for line in told.stdout.splitlines() if line.startswith("{")]
    assert [line["image"] for line in lines] == [str(path) for path in paths[:2]]
    for line in lines:
        assert len(line["boxes"]) <= 2
        for box in line["boxes"]:
            assert box["name"] in COLOURS and 0.05 < box["score"] <= 1.0
            assert 0 <= box["box"][0] < box["box"][2] <= 70 and 0 <= box["box"][1] < box["box"][3] <= 40
    assert "c.png is damaged" in told.output
    assert "score" in command("predict", tmp_path / "run", paths[0]).output


def test_curves_are_the_logs_and_pictures_have_the_boxes(whole):
    run = series.read(whole.out)
    assert all(f"test_{name}" in run.records[-1] for name in NAMES)
    left, right = curves.draw("precision", [run]).figure.axes
    for axes, names in ((left, ("test_AP", "test_AP50")), (right, ("train_loss", "test_loss"))):
        drawn = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
        for name in names:
            logged = [r[name] for r in run.records if r[name] is not None]
            assert drawn[f"SS, {name.replace('_', ' ')}"] == logged and len(logged) >= 2
    assert all(r["test_AP_large"] == -1 for r in run.records)  # there are no such boxes
    headings, _ = comparison.table([run])
    assert {"test AP", "test AP50", "test AP75", "test AP medium"} <= {*headings} and "test AP large" not in headings
    panels = curves.draw("boxes", [run]).figure.axes
    images = opening.load_data(run.experiment, Reporter())
    assert len(panels) == 3 == images.test.count and len(images.test.truths[2].boxes) == 0
    for axes, truth, size in zip(panels, images.test.truths, images.test.sizes, strict=True):
        assert axes.images[0].get_array().shape == (size[1], size[0], 3)
        corners = [(*p.get_xy(), p.get_x() + p.get_width(), p.get_y() + p.get_height()) for p in axes.patches]
        assert np.allclose(corners[: len(truth.boxes)], truth.boxes.tolist())
        dashes = [p.get_linestyle() for p in axes.patches[: len(truth.boxes)]]
        assert dashes == [":" if i else "--" for i in truth.ignored]


@pytest.mark.parametrize("name", ["precision", "boxes"])
def test_a_dollar_is_a_dollar_in_a_detectors_figures(name, whole, tmp_path):
    run = series.read(whole.out)
    odd = run._replace(experiment=replace(run.experiment, dataset=r"a$\b$c"), damage=r"Half of d$\e$f.")
    curves.save(curves.draw(name, [run, odd]), tmp_path / "p.svg")
    drawn = " ".join((tmp_path / "p.svg").read_text().split())
    assert r"a$\b$c" in drawn and r"d$\e$f" in drawn


def test_what_is_found_is_drawn_where_it_is(whole):
    """Whatever the network says; surer than .3 alone, in pixels of the scaled image."""
    data = opening.load_data(whole.experiment, Reporter())
    boxes = np.array([[10.0, 20.0, 50.0, 90.0], [0.0, 0.0, 9.0, 9.0]])
    found = Found(boxes, np.array([2, 0]), np.array([0.9, 0.29]))
    data.test.scales[1] = 0.5
    shown = detection.scene(data.test, 1, found)
    assert shown.found.boxes.tolist() == [[5.0, 10.0, 25.0, 45.0]] and shown.found.labels.tolist() == [2]
    axes = Figure().add_subplot()
    detection.draw(axes, shown._replace(truth=Truth(boxes[:0], found.labels[:0], found.labels[:0] > 0)), tuple(COLOURS))
    (only,) = axes.patches
    assert (*only.get_xy(), only.get_width(), only.get_height()) == (5.0, 10.0, 20.0, 35.0)
    assert [text.get_text() for text in axes.texts] == ["blue 0.90"]


def test_a_run_without_boxes_has_no_picture_of_them(whole):
    run = series.read(whole.out)
    other = run._replace(experiment=replace(run.experiment, boxes={}))
    for name in ("precision", "boxes"):
        with pytest.raises(ExperimentError, match="finds no boxes: draw a run of a detector"):
            curves.draw(name, [other])
    without = run._replace(records=[{k: v for k, v in r.items() if k != "test_AP"} for r in run.records])
    with pytest.raises(ExperimentError, match="has measured no test images"):
        curves.draw("precision", [without])


def test_splits_are_chosen_by_name(folder):
    """Both may be the same; other columns than those of boxes there are none."""
    experiment = checked(Experiment(**FIELDS, data=str(folder), layout={"test_split": "train"}))
    data = opening.load_data(experiment, Reporter())
    assert np.array_equal(data.train.pixels, data.test.pixels) and data.train.count == 6
    other = opening.load_data(replace(experiment, layout={"train_split": "validation"}), Reporter())
    assert (other.train.count, other.test) == (3, None)
    with pytest.raises(DataError, match='has no split "rest", only train, validation: choose one with --test-split'):
        opening.load_data(replace(experiment, layout={"test_split": "rest"}), Reporter())
    with pytest.raises(DataError, match=r"no class label .*, only image, objects: .* found by a model of lin2017\.$"):
        hub.find("own", folder)
    with pytest.raises(DataError, match="stand in the columns image and objects: leave out label_column"):
        opening.load_data(replace(experiment, layout={"label_column": "kind"}), Reporter())


def test_the_losss_options_are_those_of_its_function(whole):
    u, y = np.linspace(-3.0, 3.0, 2 * 5 * 7).reshape(2, 5, 7), np.zeros((2, 5, 6))
    shape = opening.shape_of(opening.load_data(whole.experiment, Reporter()), whole.experiment)
    losses = [
        build_loss(replace(whole.experiment, loss_options=options), shape.classes).value(u, y)
        for options in ({}, {"gamma": 2.0, "alpha": 0.25, "beta": 0}, {"gamma": 0.5})
    ]
    assert np.array_equal(losses[0], losses[1]) and not np.any(losses[0] == losses[2])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"loss": "cross-entropy"}, 'loss is "cross-entropy", but model "lin2017/.*" finds boxes: choose "detection"'),
        ({"model": "xiao2018/resnet18", "model_options": {}, "boxes": {}, "loss": "detection"},
         'loss is "detection", but nothing here finds boxes: choose "cross-entropy"'),
        ({"model": "xiao2018/resnet18", "model_options": {}},
         'boxes is given, but the model "xiao2018/resnet18" finds none: leave it out'),
        ({"boxes": {"sides": 3}}, "sides"),
        ({"boxes": {"side": 64}}, "side of boxes is 64, expected at least 128"),
        ({"augmentation": "flip-crop"}, "Images with boxes are not held out, always normalised, and mirrored at most"),
        ({"held_out": 2}, "Images with boxes are not held out"),
        ({"loss_options": {"alpha": 2}}, 'loss "detection" cannot be built: focal: alpha is 2.0, expected a number'),
        ({"loss_options": {"beta": -1}}, 'beta of loss "detection" is -1'),
        ({"loss_options": {"classes": 3}}, 'The option of loss "detection" "classes" is unknown'),
    ],
)  # fmt: skip
def test_what_a_detector_cannot_learn_by_gets_a_sentence(changes, sentence):
    with pytest.raises(ExperimentError, match=sentence):
        checked(Experiment(**FIELDS | changes))


def test_other_anchors_than_the_datas_are_refused(folder, tmp_path):
    with pytest.raises(ExperimentError, match="model_options.anchors is 3, but the boxes here are matched with 9"):
        train(Experiment(**FIELDS | {"model_options": {"anchors": 3}}, data=str(folder)), tmp_path / "run")


def test_what_is_not_said_is_filled_in():
    full = checked(Experiment(model="lin2017/retinanet-resnet50"))
    assert full.boxes == {"side": 256, "smallest": 32.0, "best_anchor": False, "ignored_below": 0.0}
    assert (full.dataset, full.loss, full.optimizer["name"]) == ("detection-datasets/coco", "detection", "adam")
    assert checked(full) == full and checked(Experiment()).boxes == {}


@pytest.mark.slow(reason="240 steps of two rules, which take minutes")
def test_sign_symmetry_finds_what_feedback_alignment_does_not(folder, tmp_path):
    """The training images again, after as many steps: AP50 was .57 and .10, of backpropagation .67."""
    pytest.importorskip("torch")
    fields = FIELDS | {
        "model_options": {"width": 1 / 16, "channels": 256}, "batch": 3, "epochs": 120, "evaluate_every": 1000,
        "boxes": {"side": 128, "smallest": 16.0, "best_anchor": True}, "augmentation": "none", "backend": "torch",
    }  # fmt: skip
    both = {"feedback_initializer": "he_fan_out", "symmetric_output": True}
    found = {}
    for rule, options in (("xiao", {}), ("feedback-alignment", both)):
        fields |= {"algorithm": rule, "algorithm_options": {"initializer": "he_fan_out"} | options}
        train(Experiment(**fields, data=str(folder)), tmp_path / rule)
        found[rule] = evaluate(tmp_path / rule)["train_AP50"]
    assert found["xiao"] > 0.4 and found["feedback-alignment"] < 0.25
