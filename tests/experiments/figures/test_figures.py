"""Pictures and pages of runs: what is drawn are the log's numbers."""

import re
from dataclasses import replace
from html import unescape
from io import StringIO
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.text import Text
from rich.console import Console

from ref_bioplaus.experiments.figures import comparison, curves, mosaics, series
from ref_bioplaus.experiments.runs import checkpoints
from ref_bioplaus.experiments.spec.experiment import ExperimentError
from ref_bioplaus.experiments.training import opening
from ref_bioplaus.experiments.training.starting import train
from ref_bioplaus.showing.terminal import new_table
from tests.helpers.commands import command
from tests.helpers.embedded_data import embedded_data
from tests.helpers.runs import of

OF_DETECTORS = ("precision", "boxes")  # see ../boxes/test_learning.py
RUNS = {
    "fa-0": {"algorithm": "feedback-alignment"},
    "fa-1": {"algorithm": "feedback-alignment", "seed": 1},
    "bp": {"algorithm": "backprop", "metrics": ("sign_changes",)},
    "plain": {"algorithm": "backprop", "metrics": ()},
    "ei-1": {"modifications": {"fixed-signs": {"start_share": 0.5}}, "metrics": ()},
    "ei-2": {"modifications": {"fixed-signs": {"start_share": 1.0}}, "metrics": ()},
    "ao-4": {"algorithm": "ao-sdtp", "model_options": {"width": 8 / 256, "auxiliary": 4}, "metrics": ()},
    "ao-9": {"algorithm": "ao-sdtp", "model_options": {"width": 8 / 256, "auxiliary": 9}, "metrics": ()},
    "auto": {"model": "bartunov2018/autoencoder", "model_options": {"width": 1 / 64}, "loss": "squared-error",
             "metrics": ()},
}  # fmt: skip


@pytest.fixture(scope="module")
def data():
    return embedded_data()


@pytest.fixture(scope="module")
def runs(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("runs")
    for name, fields in RUNS.items():
        train(of(epochs=2, **fields), folder / name, images=data)
    return {name: series.read(folder / name) for name in RUNS}


def chosen(runs, *names):
    return [runs[name] for name in names]


def lines(axes):
    """{label: (x, y)} of the lines that have a name."""
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for line in axes.get_lines()
        if not line.get_label().startswith("_")
    }


def logged(run, name, layer=None):
    found = [(r["epoch"], r[name] if layer is None else r[name][layer]) for r in run.records if r.get(name) is not None]
    return [list(column) for column in zip(*found, strict=True)]


def test_learning_curves_are_the_logs_and_bands_reach_over_the_seeds(runs):
    axes = curves.draw("learning", chosen(runs, "fa-0", "bp", "fa-1")).figure.axes[0]
    drawn = lines(axes)
    assert list(drawn) == ["FA, train", "FA, test", "BP, train", "BP, test"]
    assert drawn["BP, test"] == tuple(logged(runs["bp"], "test_error"))
    assert drawn["BP, train"] == tuple(logged(runs["bp"], "train_error"))
    first, second = (logged(runs[name], "test_error")[1] for name in ("fa-0", "fa-1"))
    assert first != second
    assert drawn["FA, test"] == ([0, 1, 2], [(a + b) / 2 for a, b in zip(first, second, strict=True)])
    corners = axes.collections[-1].get_paths()[0].vertices
    for x, a, b in zip((0, 1, 2), first, second, strict=True):
        at = corners[corners[:, 0] == x, 1]
        assert (at.min(), at.max()) == (min(a, b), max(a, b))
    named = [line for line in axes.get_lines() if line.get_label() in drawn]
    assert [line.get_linestyle() for line in named] == ["--", "-", "--", "-"]
    last = {"FA (2 seeds)": (first[-1] + second[-1]) / 2, "BP": logged(runs["bp"], "test_error")[1][-1]}
    highest = sorted(last, key=lambda name: -last[name])
    names = sorted(axes.texts, key=lambda text: -text.xy[1])
    assert [text.get_text() for text in names] == [f"{last[name]:.2f}\u2002{name}" for name in highest]


def test_images_held_out_stand_beside_test_images(runs):
    """Of a run without test images the error on those held out is drawn, whichever run comes first."""
    held = [{name.replace("test_", "validation_"): v for name, v in r.items()} for r in runs["bp"].records]
    without = runs["bp"]._replace(records=held)
    for members in ([runs["fa-0"], without], [without, runs["fa-0"]]):
        picture = curves.draw("learning", members)
        drawn = lines(picture.figure.axes[0])
        assert drawn["BP, validation"] == tuple(logged(runs["bp"], "test_error"))
        assert drawn["FA, test"] == tuple(logged(runs["fa-0"], "test_error"))
        assert "test" in picture.caption and "validation" in picture.caption


def test_an_autoencoders_curves_are_losses(runs):
    drawn = lines(curves.draw("learning", chosen(runs, "auto")).figure.axes[0])
    assert drawn["BP, test"] == tuple(logged(runs["auto"], "test_loss"))


def test_angles_and_sign_changes_are_the_logs_layer_by_layer(runs):
    matrix, delta = (lines(a) for a in curves.draw("angles", chosen(runs, "fa-0")).figure.axes)
    assert list(matrix) == [f"FA, matrix_angles, layer {l}" for l in (2, 3, 4, 5, 6)]
    for l in "23456":
        assert matrix[f"FA, matrix_angles, layer {l}"] == tuple(logged(runs["fa-0"], "matrix_angles", l))
        assert delta[f"FA, delta_angles, layer {l}"] == tuple(logged(runs["fa-0"], "delta_angles", l))
    left, right = (lines(a) for a in curves.draw("sign-changes", chosen(runs, "bp", "fa-0")).figure.axes)
    assert left["BP, sign_changes, layer 1"] == tuple(logged(runs["bp"], "sign_changes", "1"))
    assert right["FA, sign_changes, layer 6"] == tuple(logged(runs["fa-0"], "sign_changes", "6"))


def test_panels_have_one_axis_and_target_propagation_has_V(runs):
    """However many there are, and however far each run has come."""
    early = runs["fa-1"]._replace(records=runs["fa-1"].records[:2])
    angle = [r | {"matrix_angles": {"2": 130.0, "3": 60.0}} for r in runs["ao-4"].records]
    dtp = runs["ao-4"]._replace(records=angle)
    others = [early._replace(experiment=replace(early.experiment, batch=b)) for b in (7, 8, 9)]
    figure = curves.draw("angles", [runs["fa-0"], dtp, *others]).figure
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert len(panels) == 10 and len(figure.axes) == 12
    assert len({axes.get_xlim() for axes in panels}) == len({axes.get_ylim() for axes in panels}) == 1
    assert panels[0].get_ylim()[1] > 130.0
    titles = [axes.get_title(loc="left") for axes in panels]
    assert sum("W and V" in title for title in titles) == 1 and sum("W and B" in title for title in titles) == 4
    assert "AO-SDTP" in next(title for title in titles if "W and V" in title)


def test_a_panel_without_lines_says_why(runs):
    """DFA has no B of W's shape, whether angles are asked for or not."""
    records = [{name: value for name, value in r.items() if name != "matrix_angles"} for r in runs["fa-1"].records]
    for metrics, words in ((("matrix_angles", "delta_angles"), "none here"), (("delta_angles",), "not measured")):
        experiment = replace(runs["fa-1"].experiment, algorithm="dfa", metrics=metrics)
        dfa = runs["fa-1"]._replace(experiment=experiment, records=records)
        _, panel, *_ = curves.draw("angles", [runs["fa-0"], dfa]).figure.axes
        assert [text.get_text() for text in panel.texts] == [words]


def test_gradient_ratios_go_by_depth(runs):
    picture = curves.draw("gradient-ratio", chosen(runs, "fa-0", "fa-1")).figure
    drawn = lines(picture.axes[0])
    dash = {line.get_label(): line.get_linestyle() for line in picture.axes[0].get_lines()}
    named = {line.get_label(): line.get_linestyle() for line in picture.legends[0].get_lines()}
    for which in ("first", "last"):
        assert dash[f"FA, {which}"] == named[f"{which} evaluation"]
    for name, record in (("FA, first", 0), ("FA, last", -1)):
        a, b = (runs[run].records[record]["gradient_ratios"] for run in ("fa-0", "fa-1"))
        assert drawn[name] == ([1, 2, 3, 4, 5, 6], [(a[l] + b[l]) / 2 for l in "123456"])


def test_receptive_fields_are_the_first_layers_weights(runs, data):
    (axes,) = curves.draw("receptive-fields", chosen(runs, "bp"), data).figure.axes
    drawn = axes.images[0].get_array()
    W = checkpoints.latest(runs["bp"].out).tensors["forward/params/1/W"]
    assert drawn.shape == (10, 8 * 7 - 1)  # 8 units of 10 x 6 pixels, one pixel apart
    for unit in (0, 7):
        tile = np.asarray(drawn[:, 7 * unit : 7 * unit + 6])
        np.testing.assert_array_equal(tile, W[unit].reshape(10, 6) / np.abs(W[unit]).max())


@pytest.mark.parametrize("shape", [(5, 3, 3, 7), (4, 2, 25, 7), (4, 2, 27, 7), (7, 60), (7, 75)])
def test_weights_of_every_kind_of_layer_become_images(runs, data, shape):
    W = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    known = data if shape == (7, 60) else None
    found = mosaics.fields(runs["bp"], W, known)
    unit, row, column = 6, 2, 0
    expected = {
        (5, 3, 3, 7): lambda: W[row, column, :, unit],
        (4, 2, 25, 7): lambda: W[2, 1, 5 * row + column, unit],
        (4, 2, 27, 7): lambda: W[2, 1, 3 * (3 * row + column) : 3 * (3 * row + column) + 3, unit],
        (7, 60): lambda: W[unit, 6 * row + column],
        (7, 75): lambda: W[unit, 3 * (5 * row + column) : 3 * (5 * row + column) + 3],
    }[shape]()
    np.testing.assert_array_equal(found[unit, row, column], np.atleast_1d(expected))
    np.testing.assert_array_equal(mosaics.scaled(np.zeros((2, 3, 1))), np.zeros((2, 3, 1)))


def test_the_images_of_a_run_have_the_shape_that_it_says(runs):
    """4 x 9 pixels are as many as 6 x 6."""
    W = np.arange(72.0).reshape(2, 36)
    known = runs["bp"]._replace(experiment=replace(runs["bp"].experiment, inputs={"shape": [4, 9, 1]}))
    assert mosaics.fields(known, W, None).shape == (2, 4, 9, 1)
    older = runs["bp"]._replace(experiment=replace(runs["bp"].experiment, inputs={}))
    assert mosaics.fields(older, W, None).shape == (2, 6, 6, 1)


def test_reconstructions_are_the_networks_outputs(runs, data):
    figure = curves.draw("reconstructions", chosen(runs, "auto"), data).figure
    above, below = (np.asarray(axes.images[0].get_array()) for axes in figure.axes)
    x = data.test.x[:10].reshape(10, -1)
    tensors = checkpoints.latest(runs["auto"].out).tensors
    h = x
    for l in (1, 2, 3, 4):
        h = h @ tensors[f"forward/params/{l}/W"].T + tensors[f"forward/params/{l}/local/0/b"]
        h = np.tanh(h) if l < 4 else h
    for drawn, numbers in ((above, x), (below, h)):
        expected = np.clip((numbers[3].reshape(10, 6) - x.min()) / (x.max() - x.min()), 0, 1)
        np.testing.assert_allclose(drawn[:, 21:27], expected, atol=1e-5)


def test_final_errors_stand_at_their_sizes_and_epochs(runs):
    drawn = lines(curves.draw("auxiliary-size", chosen(runs, "ao-9", "ao-4")).figure.axes[0])
    ends = [runs[name].records[-1]["test_error"] for name in ("ao-4", "ao-9")]
    (test,) = (points for name, points in drawn.items() if name.endswith("test"))
    assert test == ([4, 9], ends)
    (test,) = (
        points
        for name, points in lines(curves.draw("frozen", chosen(runs, "ei-2", "ei-1")).figure.axes[0]).items()
        if name.endswith("test")
    )
    assert test == ([1.0, 2.0], [runs[name].records[-1]["test_error"] for name in ("ei-1", "ei-2")])


def labelled(axis):
    """The labels of an axis that are in view, after the figure is drawn."""
    axis.figure.draw_without_rendering()
    low, high = axis.get_view_interval()
    found = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
    return [label.get_text() for at, label in found if low <= at <= high and label.get_text()]


@pytest.mark.parametrize("ratios", [(0.7, 1.0), (0.95, 0.99), (1.0, 1.0), (1e-9, 1e6), (0.2, 30.0)])
def test_ratios_of_any_size_have_an_axis_with_numbers(runs, ratios):
    records = [r | {"gradient_ratios": {"1": ratios[0], "6": ratios[1]}} for r in runs["fa-0"].records]
    found = labelled(curves.draw("gradient-ratio", [runs["fa-0"]._replace(records=records)]).figure.axes[0].yaxis)
    assert 2 <= len(set(found)) == len(found) <= 12


@pytest.mark.parametrize("errors", [(99.9, 99.8), (90.0, 75.0), (60.0, 51.0), (90.0, 2.0), (90.0, 0.003), (90.0, 0.0)])
def test_errors_of_any_size_have_an_axis_with_numbers(runs, errors):
    records = [r | {"test_error": e, "train_error": e} for r, e in zip(runs["bp"].records, errors, strict=False)]
    picture = curves.draw("learning", [runs["bp"]._replace(records=records)])
    axes = picture.figure.axes[0]
    assert len(labelled(axes.yaxis)) >= 2
    assert axes.get_ylim()[0] >= 0.1
    assert ("below the lower edge" in picture.caption) == (errors[1] < 0.1)


def test_a_loss_that_hardly_moves_has_an_axis_with_numbers(runs):
    losses = (2.302, 2.301, 2.3005)
    records = [r | {"test_loss": l, "train_loss": l} for r, l in zip(runs["auto"].records, losses, strict=True)]
    axes = curves.draw("learning", [runs["auto"]._replace(records=records)]).figure.axes[0]
    assert len(set(labelled(axes.yaxis))) >= 2


@pytest.mark.parametrize("at", [0, 1])
def test_a_single_epoch_is_a_point_on_an_axis_of_whole_epochs(runs, at):
    run = runs["fa-0"]._replace(records=runs["fa-0"].records[at : at + 1])
    for name in ("learning", "sign-changes"):
        axes = curves.draw(name, [run]).figure.axes[0]
        drawn = [line for line in axes.get_lines() if len(line.get_xdata()) == 1]
        assert drawn and {line.get_marker() for line in drawn} == {"o"}
        assert labelled(axes.xaxis) == [["0", "1"], ["0", "1", "2"]][at]


def test_titles_of_receptive_fields_have_room(runs, data, tmp_path):
    optimizers = [{"eta": eta, "epsilon": 1e-8, "decay": eta, "on": "weights"} for eta in (0.0001, 0.0002, 0.0003)]
    members = [
        runs[name]._replace(experiment=replace(runs[name].experiment, algorithm="ao-sdtp-alternating", optimizer=found))
        for name, found in zip(("ao-4", "ao-9", "bp"), optimizers, strict=True)
    ]
    picture = curves.draw("receptive-fields", members, data)
    for figure in (picture.figure, curves.with_room_below(picture)):
        figure.draw_without_rendering()
        boxes = [axes._left_title.get_window_extent() for axes in figure.axes]
        images = [axes.images[0].get_window_extent() for axes in figure.axes]
        assert "decay 0.0003" in figure.axes[2].get_title(loc="left").replace("\n", " ")
        assert all(box.y1 <= figure.bbox.y1 and box.x1 <= figure.bbox.x1 for box in boxes)
        assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))
        assert all(box.y0 >= image.y1 for box, image in zip(boxes, images, strict=True))


@pytest.mark.parametrize("name", ["$\\frac{", "a$b$c"])
def test_a_dollar_in_a_name_begins_no_formula(runs, data, name):
    """A dataset's name stands in labels that tell runs apart."""
    for figure, members in (("learning", ("fa-0", "fa-1")), ("angles", ("fa-0", "fa-1")),
                            ("receptive-fields", ("bp", "fa-0")), ("auxiliary-size", ("ao-4", "ao-9"))):  # fmt: skip
        first, second = chosen(runs, *members)
        first = first._replace(experiment=replace(first.experiment, dataset=name))
        drawn = curves.draw(figure, [first, second], data).figure
        drawn.draw_without_rendering()
        found = [
            text
            for text in drawn.findobj(Text)
            if f"dataset {name}" in text.get_text().replace(r"\$", "$").replace("\n", " ")
        ]
        assert found, figure
        assert not any(text._preprocess_math(text.get_text())[1] for text in found)


def test_signs_fixed_at_an_update_and_after_a_share_are_one_line(runs):
    start = replace(runs["ei-1"].experiment, modifications={"fixed-signs": {"start": 6}})
    by_update = runs["ei-1"]._replace(experiment=start)
    axes = curves.draw("frozen", [by_update, runs["ei-2"]]).figure.axes[0]
    ends = [runs[name].records[-1]["test_error"] for name in ("ei-1", "ei-2")]
    assert lines(axes)["BP, test"] == ([6 / series.epoch_length(by_update), 2.0], ends)


@pytest.mark.parametrize(
    ("figure", "run", "sentence"),
    [
        ("angles", "bp", "is backpropagation"),
        ("sign-changes", "plain", "train again with --set"),
        ("auxiliary-size", "bp", "no auxiliary units"),
        ("frozen", "bp", "fixes no signs"),
        ("reconstructions", "bp", "no autoencoder"),
    ],
)
def test_a_run_that_lacks_what_is_drawn_is_named(runs, figure, run, sentence):
    with pytest.raises(ExperimentError, match=sentence) as error:
        curves.draw(figure, chosen(runs, run))
    assert str(runs[run].out) in str(error.value)
    assert str(error.value).endswith(".")


def test_plot_writes_svg_and_png_and_knows_its_figures(runs, tmp_path):
    folders = [str(runs[name].out) for name in ("fa-0", "fa-1", "bp")]
    for ending in ("svg", "png"):
        out = tmp_path / f"learning.{ending}"
        command("plot", *folders, "--figure", "learning", "--out", out)
    texts = "".join(ElementTree.parse(tmp_path / "learning.svg").getroot().itertext())
    assert "FA (2 seeds)" in texts and "lowest seed" in texts
    assert (tmp_path / "learning.png").read_bytes().startswith(b"\x89PNG")
    result = command("plot", *folders, "--figure", "angels", "--out", tmp_path / "a.svg", code=2)
    assert "did you mean angles" in result.output
    result = command("plot", *folders, "--figure", "learning", "--out", tmp_path / "a.pdf", code=2)
    assert ".svg or .png" in result.output
    result = command("plot", str(tmp_path), "--figure", "learning", "--out", tmp_path / "a.svg", code=2)
    assert "it is no run" in result.output


def test_compare_has_the_logs_numbers_and_its_page_needs_no_other_file(runs, data, tmp_path, monkeypatch):
    members = chosen(runs, "fa-0", "bp", "fa-1")
    headings, rows = comparison.table(members)
    fa, bp = (dict(zip(headings, row, strict=True)) for row in rows)
    errors = [runs[name].records[-1]["test_error"] for name in ("fa-0", "fa-1")]
    assert fa["test error"] == f"{np.mean(errors):.2f} ± {np.std(errors, ddof=1):.2f}"
    assert bp["best test error"] == f"{min(r['test_error'] for r in runs['bp'].records[1:]):.2f}"
    assert (fa["seeds"], bp["seeds"], bp["epochs"]) == ("0, 1", "0", "2 of 2")
    comparison.write(members, tmp_path / "page.html", data)
    page = (tmp_path / "page.html").read_text()
    assert not re.findall(r"https?://|<link|<script|src=", page)
    assert page.count("<svg") == 6 and page.count("</svg>") == 6
    assert fa["test error"] in page
    facts = dict(comparison.facts(members))
    assert facts["model"] == runs["bp"].experiment.model and "training images" in facts["data"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d( to \d{4}-\d\d-\d\d)?", facts["learned"])
    assert f"numpy {np.__version__}" in facts["versions"] and "cpu, float32" in facts["computed on"]
    assert all(words in unescape(page) for words in facts.values())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(opening, "load_data", lambda experiment, reporter: data)
    result = command("compare", *(run.out for run in (*members, members[0])))
    assert "The page is compare.html" in result.output
    assert (tmp_path / "compare.html").read_text().count("<svg") == 6
    assert fa["test error"] in result.output


def test_a_page_says_of_what_it_knows_no_version(runs):
    old = runs["bp"]._replace(segments=())
    facts = dict(comparison.facts([old]))
    assert facts["versions"] == facts["learned"] == "not recorded" and facts["data"] == old.experiment.dataset
    facts = dict(comparison.facts([old, runs["fa-0"]]))
    assert facts["versions"].endswith("; of some runs not recorded")


def test_what_was_measured_before_learning_is_neither_final_nor_best(runs):
    first, *later = runs["bp"].records
    lucky = runs["bp"]._replace(records=[first | {"test_error": 0.0}, *later])
    assert comparison.lowest(lucky, "test_error") == min(r["test_error"] for r in later) > 0.0
    assert comparison.lowest(lucky._replace(records=lucky.records[:1]), "test_error") is None
    assert comparison.final(lucky._replace(records=lucky.records[:1]), "test_error") is None


def test_long_names_leave_room_for_numbers_and_lines(runs):
    many = {f"option_{i}": "a value of its own" for i in range(12)}
    long = runs["fa-0"]._replace(experiment=replace(runs["fa-0"].experiment, algorithm_options=many))
    both = [long, runs["fa-1"]]
    assert len(series.grouped(both)[0].label) > 300
    for name in ("learning", "angles"):
        figure = curves.draw(name, both).figure
        figure.draw_without_rendering()
        assert all(
            axes.get_window_extent().height > 100 and axes.get_window_extent().width > 150 for axes in figure.axes
        )
    console = Console(width=160, file=StringIO())
    console.print(new_table(*comparison.table(both)))
    number = comparison.cell([comparison.final(long, "test_error")], 2)
    assert f" {number} " in console.file.getvalue().splitlines()[1]


def test_labels_tell_groups_apart(runs):
    assert [group.label for group in series.grouped(chosen(runs, "fa-0", "bp", "fa-1"))] == ["FA", "BP"]
    assert [group.label for group in series.grouped(chosen(runs, "ao-4", "ao-9"))] == [
        "AO-SDTP, parallel, auxiliary 4",
        "AO-SDTP, parallel, auxiliary 9",
    ]
    assert [group.label for group in series.grouped(chosen(runs, "plain", "ei-1"))] == [
        "BP",
        "BP, epochs 2, start_share 0.5",
    ]


def test_fields_of_the_same_last_name_are_told_with_their_whole_path(runs):
    def with_b1(forward, inverse, eta):
        optimizers = {"optimizer": {"b1": forward, "eta": eta}, "inverse_optimizer": {"b1": inverse}}
        return runs["ao-4"]._replace(experiment=replace(runs["ao-4"].experiment, **optimizers))

    assert [group.label for group in series.grouped([with_b1(0.9, 0.8, 0.1), with_b1(0.7, 0.6, 0.2)])] == [
        "AO-SDTP, parallel, inverse_optimizer.b1 0.8, optimizer.b1 0.9, eta 0.1",
        "AO-SDTP, parallel, inverse_optimizer.b1 0.6, optimizer.b1 0.7, eta 0.2",
    ]


@pytest.mark.parametrize("name", [name for name in curves.FIGURES if name not in OF_DETECTORS])
def test_a_dollar_is_a_dollar_in_every_figure(name, runs, data, tmp_path):
    """Also two of them, which begin and end a formula elsewhere."""
    able = next(run for run in runs.values() if curves.FIGURES[name].lacks(run) is None)
    odd = able._replace(experiment=replace(able.experiment, dataset=r"a$\b$c"), damage=r"Half of d$\e$f.")
    curves.save(curves.draw(name, [able, odd], data), tmp_path / "p.svg")
    drawn = " ".join((tmp_path / "p.svg").read_text().split())
    assert r"a$\b$c" in drawn and r"d$\e$f" in drawn


def test_a_dot_for_every_seed_by_the_same_epoch_and_the_papers_number(runs, tmp_path):
    """The last record of one seed is better than all others, and later than the other's end: it has no dot."""
    place = tmp_path / "bartunov2018" / "table1" / "mnist-fc" / "feedback-alignment"
    later = [*runs["fa-0"].records, runs["fa-0"].records[-1] | {"epoch": 3, "step": 99, "test_error": 0.5}]
    mnist = replace(runs["fa-0"].experiment, dataset="ylecun/mnist")
    there = [
        runs["fa-0"]._replace(out=place / "seed-0", records=later, experiment=mnist),
        runs["fa-1"]._replace(out=place / "seed-1", experiment=replace(mnist, seed=1)),
    ]
    picture = curves.draw("seeds", [*there, runs["bp"]])
    axes = picture.figure.axes[0]
    dots = {line.get_label(): list(line.get_xdata()) for line in axes.get_lines() if line.get_marker() == "o"}
    lowest, then = ([pick([run.records[i]["test_error"] for i in (1, 2)]) for run in chosen(runs, "fa-0", "fa-1", "bp")]
                    for pick in (min, lambda errors: errors[-1]))  # fmt: skip
    first, second = (label.get_text() for label in axes.get_yticklabels())
    assert dots == {first: lowest[:2], f"{first}, then": then[:2], second: lowest[2:], f"{second}, then": then[2:]}
    (paper,) = (line for line in axes.get_lines() if line.get_marker() != "o")
    assert (list(paper.get_xdata()), round(sum(paper.get_ydata()), 9)) == ([1.85, 1.85], 0)
    assert [text.get_text() for text in axes.texts] == ["2 seeds, epoch 2", "1 seed, epoch 2"]
    assert [label.get_text().split(",")[0] for label in axes.get_yticklabels()] == ["FA", "BP"]
    assert "paper's number is of its own epochs" in picture.caption
    assert "paper" not in curves.draw("seeds", chosen(runs, "fa-0", "bp")).caption
    with pytest.raises(ExperimentError, match="has no error of what it learned"):
        curves.draw("seeds", chosen(runs, "auto"))
