"""Lines of pictures: told apart by anybody, named at their ends, and found by a pointer."""

import itertools
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from ref_bioplaus.showing import ends
from ref_bioplaus.showing.svg import COLOURS, GREY, mark, svg

XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
SIGHT = {  # linear RGB as it is seen (Machado et al. 2009, severity 1)
    "normal": np.eye(3),
    "deuteranopia": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "protanopia": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
}


def linear(colour):
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    x = XYZ @ np.clip(rgb, 0, 1) / (0.9505, 1.0, 1.089)
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_lines_differ_in_luminance_and_stand_out_from_white():
    luminance = sorted(lab(linear(colour))[0] for colour in COLOURS)
    assert min(b - a for a, b in itertools.pairwise(luminance)) > 5
    assert all(1.05 / (linear(colour) @ XYZ[1] + 0.05) >= 3 for colour in (*COLOURS, GREY))


@pytest.mark.parametrize("sight", SIGHT)
def test_lines_are_told_apart_by_everybody(sight):
    seen = [lab(SIGHT[sight] @ linear(colour)) for colour in COLOURS]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 20


@pytest.mark.parametrize(
    "wanted, gap, found",
    [
        ([], 0.1, []),
        ([0.3], 0.1, [0.3]),
        ([0.9, 0.2], 0.1, [0.9, 0.2]),
        ([0.5, 0.5, 0.5], 0.1, [0.4, 0.5, 0.6]),
        ([0.0, 0.0], 0.1, [0.0, 0.1]),
        ([1.0, 0.99, 0.2], 0.1, [1.0, 0.9, 0.2]),
        ([0.1, 0.9, 0.5], 0.8, [0.0, 1.0, 0.5]),  # there is no room
    ],
)
def test_names_keep_their_order_and_their_distance(wanted, gap, found):
    assert ends.places(wanted, gap) == pytest.approx(found)


def test_names_stand_as_near_as_they_can():
    wanted = np.random.default_rng(0).uniform(0.3, 0.7, 8)
    found = np.array(ends.places(list(wanted), 0.06))
    assert list(np.argsort(found, kind="stable")) == list(np.argsort(wanted))
    assert np.diff(np.sort(found)).min() >= 0.06 - 1e-12
    assert np.mean(found) == pytest.approx(np.mean(wanted), abs=1e-9)  # of one block or several: the nearest


def test_a_pointer_finds_a_line_and_its_name():
    figure = Figure(figsize=(4, 3))
    axes = figure.add_axes((0.1, 0.1, 0.5, 0.8))
    for i, name in enumerate(('FA "a" <b>', "BP")):
        (line,) = axes.plot([0, 1, 2], [3, 2, 1 + i], "--", color=COLOURS[i])
        mark(line, i, name)
    axes.set_ylim(0, 4)
    axes.set_xlim(0, 4)
    found = [ends.End(i, f"{i}. name", 2.0, y, {"color": COLOURS[i]}) for i, y in enumerate((1.0, float("nan")))]
    ends.name_ends(axes, found, 2.0, 2.4)
    text = svg(figure, "two lines")
    assert "mark:" not in text and text == svg(figure, "two lines")
    (root,) = [ElementTree.fromstring(text.replace("xlink:href", "href"))]
    groups = [g for g in root.iter() if g.get("class", "").startswith("mark ")]
    titles = [next(iter(g)).text for g in groups]
    assert titles[:2] == ["FA 'a' <b>", "BP"]
    assert sorted(titles[2:]) == ["0. name"] * 3 + ["1. name"] * 2
    assert [g.get("class") for g in groups[:2]] == ["mark m0", "mark m1"]
    near = [path for g in groups[:2] for path in g if path.get("class") == "near"]
    assert len(near) == 2
    for path in near:
        style = path.get("style")
        assert "stroke-opacity: 0" in style and "pointer-events: stroke" in style
        assert not re.search("dash|#(?!000)", style)
    places = [text.xy[1] for text in axes.texts]
    assert places == pytest.approx([0.25, 1.0])  # one that has no end stands at the top
