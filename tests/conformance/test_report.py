"""Reports and deviations of the conformance suite, and the command that makes them."""

import datetime
import io
import json
import math
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from ref_bioplaus import backends
from ref_bioplaus.conformance.checks import levels, runner
from ref_bioplaus.conformance.checks.outcomes import STATES, Check, Finding, Subject
from ref_bioplaus.conformance.commands.asking import parse_levels
from ref_bioplaus.conformance.commands.conformance import Bar
from ref_bioplaus.conformance.files import reading
from ref_bioplaus.conformance.judging.judge import LIMIT, Score
from ref_bioplaus.conformance.reporting import deviations, lists, page, report
from ref_bioplaus.conformance.reporting.deviations import Deviation
from tests.helpers.commands import command

TODAY = datetime.date(2025, 7, 1)
GOOD = Finding((Score("info/h/1", LIMIT / 4, (0,), 1.0, 1.1, 0.05), Score("state/t", 0.0)))
BAD = Finding(
    (
        Score("info/h/1", 0.25),
        Score("state/forward/params/0/W", 5 * LIMIT, (1, 2), 0.25, 0.25 + 1e-9, 1e-11),
        Score("state/t", math.inf),
    )
)


def raising(subject, mode):
    """A check that finds a broken backend."""
    raise RuntimeError("no <kernel> & \x1b[31mno\x00 luck \ud800")


def fake(id, group, finding, modes=("eager", "compiled", "donating")):
    """A check that finds what it is told to."""
    return Check(id, int(id[0]), group, finding if callable(finding) else lambda subject, mode: finding, modes)


PASSING, FAILING, RAISING = (
    fake("1/kolen-pollack/FC/learn/6", "kolen-pollack", GOOD),
    fake("1/dtp/FC/learn/6", "dtp", BAD, ("eager", "compiled")),
    fake("0/loss/<hinge>", "loss", raising, ("eager",)),
)
EVERYTHING = (
    PASSING,
    FAILING,
    RAISING,
    fake("0/loss/exact", "loss", Finding((Score("value", 0.0),)), ("eager", "compiled")),
    fake("2/shadow/dfa/FC", "dfa", Finding((Score("h", math.inf),)), ("eager",)),
    fake("1/dfa/FC/learn/6", "dfa", Finding(GOOD.scores, "the batch was written to"), ("donating",)),
    fake("3/determinism", "truths", Finding(unsupported="precision is no policy of float64"), ("eager",)),
    fake("1/usf/FC/learn/6", "usf", Finding(undecidable=3), ("eager",)),
)


def ran(checks, modes=("eager", "compiled", "donating"), **changes):
    """A report of checks."""
    found = runner.run(Subject(backends.get("numpy")), checks, modes)
    for name, value in changes.items():
        setattr(found, name, value)
    return found


@pytest.fixture
def reports():
    """A report in which everything happens, and one without a fault on another device."""
    wrong = ran(EVERYTHING)
    deviations.apply(wrong, [deviation(id="2/shadow/*")], TODAY)
    return [wrong, ran([PASSING], ("eager", "donating"), backend="other", device="cuda:0", dtype="float64")]


def deviation(**changes):
    """A row that is in order, with changes."""
    row = Deviation(
        "1/dtp/*", "cpu", "float32", "It fuses x * y + z.", "https://example.org/7",
        datetime.date(2025, 1, 1), datetime.date(2025, 12, 31), place="numpy.toml, row 1",
    )  # fmt: skip
    return row._replace(**changes)


# JSON


def objections(data):
    """What the published schema objects to."""
    schema = json.loads(report.SCHEMA_FILE.read_text())
    return list(reading.objections(data, schema, schema))


def test_json_holds_everything_and_comes_back_the_same(reports):
    data = report.to_json(reports)
    text = report.as_text(data)
    assert json.loads(text, parse_constant=pytest.fail) == data
    back = report.from_json(json.loads(text))
    assert report.as_text(report.to_json(back)) == text
    for old, new in zip(reports, back, strict=True):
        assert [(o.id, o.mode, o.state, o.group, o.level, o.reason) for o in old.outcomes] == [
            (o.id, o.mode, o.state, o.group, o.level, o.reason) for o in new.outcomes
        ]
        assert [o.departure for o in old.outcomes] == [o.departure for o in new.outcomes]
        assert [o.score for o in old.outcomes] == [o.score for o in new.outcomes]
        assert [o.comparisons for o in old.outcomes] == [o.comparisons for o in new.outcomes]
        assert [o.undecidable for o in old.outcomes] == [o.undecidable for o in new.outcomes]
        assert (new.sound, new.versions, new.limit) == (old.sound, old.versions, old.limit)
    assert data["sound"] is False and [r["sound"] for r in data["reports"]] == [False, True]
    assert data["reports"][0]["counts"] == {
        "pass": 5, "fail": 3, "deviates": 1, "unsupported": 1, "error": 1, "not run": 1
    }  # fmt: skip


def test_every_check_has_a_line_of_its_own_and_a_pass_is_short(reports):
    lines = report.as_text(report.to_json(reports)).splitlines()
    for check in EVERYTHING:
        found = [line for line in lines if json.dumps(check.id) in line]
        assert len(found) == (2 if check is PASSING else 1)
    many = ran([fake(f"1/weight-mirror/ResNet, BN after ReLU/mirror/{i}", "weight-mirror", GOOD) for i in range(1000)])
    assert len(many.outcomes) == 3000
    assert len(report.as_text(report.to_json([many]))) < 300_000


def test_the_histogram_counts_every_tensor_once(reports):
    found = report.histograms(reports[0])
    assert set(found) == {0, 1, 2}
    assert (found[0].exact, sum(found[0].counts)) == (2, 0)
    assert found[1].exact == 3 + 1  # the times
    edges = [0.0, *report.EDGES, math.inf]
    scores = [LIMIT / 4] * 4 + [0.25] * 2 + [5 * LIMIT] * 2
    for low, high, n in zip(edges[:-1], edges[1:], found[1].counts, strict=True):
        assert n == sum(low < s / LIMIT <= high for s in scores) + 2 * (high == math.inf), (low, high)
    assert found[2].counts == [0] * len(report.EDGES) + [1]
    again = report.histograms(report.from_json(report.to_json(reports))[0])
    assert again == found


def test_a_score_at_the_limit_passes_and_is_drawn_on_that_side():
    found = ran([fake("1/usf/FC", "usf", Finding((Score("h", LIMIT), Score("k", LIMIT / 10))))], ("eager",))
    assert found.sound
    (histogram,) = report.histograms(found).values()
    limit = report.EDGES.index(1.0)
    assert histogram.counts[limit] == 1 and sum(histogram.counts[limit + 1 :]) == 0


def test_the_schema_accepts_what_is_written(reports):
    assert objections(report.to_json(reports)) == []
    assert objections(report.to_json([])) == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("schema",), "ref_bioplaus.conformance/2"),
        (("sound",), 1),
        (("extra",), 1),
        (("edges", 0), 0),
        (("reports", 0, "limit"), "8"),
        (("reports", 0, "versions", "numpy"), 2),
        (("reports", 0, "counts", "pass"), -1),
        (("reports", 0, "checks", 0, "level"), 5),
        (("reports", 0, "checks", 0, "modes"), {}),
        (("reports", 0, "checks", 0, "modes", "eager"), [0, 0, 0]),
        (("reports", 0, "checks", 0, "modes", "eager", 0), "infinite"),
        (("reports", 0, "checks", 1, "modes", "eager", "state"), "passes"),
        (("reports", 0, "checks", 1, "modes", "eager", "departure", "index"), [0.5]),
        (("reports", 0, "histogram", "1", "counts", 0), 0.5),
    ],
)
def test_the_schema_objects_to_what_is_wrong(reports, place, value):
    data = report.to_json(reports)
    target = data
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    assert objections(data)


def test_another_schema_is_refused():
    with pytest.raises(ValueError, match='schema is "older", expected "ref_bioplaus.conformance/1"'):
        report.from_json({"schema": "older", "reports": []})


@pytest.mark.parametrize(
    ("value", "digits", "stored"),
    [(math.inf, 6, "inf"), (-math.inf, 6, "-inf"), (math.nan, 6, "nan"), (1 / 3, 6, 0.333333), (4.0, 6, 4),
     (0.1 + 0.2, 17, 0.1 + 0.2), (1e300, 6, 1e300)],
)  # fmt: skip
def test_numbers_are_finite_and_short(value, digits, stored):
    assert report.number(value, digits) == stored


# The page


def test_the_page_needs_nothing_but_itself_and_names_every_failure(reports):
    text = report.to_html(reports)
    html = re.sub(r'xmlns(:\w+)?="[^"]*"|<a href="https://example.org/7" rel="noopener">[^<]*</a>', "", text)
    assert not re.search(r"https?:|//|\bsrc=|<link|<script|<iframe|@import|url\((?!#)", html)
    assert "https://example.org/7" in text and "It fuses x * y + z" in text
    for found in reports:
        for o in found.outcomes:
            if o.state in ("fail", "error"):
                assert o.id.replace("<", "&lt;").replace(">", "&gt;") in text
    assert "no &lt;kernel&gt; &amp;" in text
    assert "state/forward/params/0/W[1, 2]" in text and "0.250000001" in text
    assert "algorithms/target_propagation.py (Bartunov et al. 2018: (2))" in text
    assert "--level 1 --case 1/dtp/FC/learn/6" in text
    names = re.findall(r'\bid="([^"]*)"', html)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]*)', html))
    assert used <= set(names) and all(names.count(name) == 1 for name in used)


def test_the_matrix_has_a_cell_for_every_group_and_report(reports):
    text = report.to_html(reports)
    (matrix,) = re.findall(r'<table class="matrix">.*?</table>', text, re.DOTALL)
    rows = dict(re.findall(r'<tr data-group="([^"]*)">(.*?)</tr>', matrix, re.DOTALL))
    assert list(rows) == ["dfa", "usf", "kolen-pollack", "dtp", "loss", "truths"]
    cells = {group: re.findall(r"<td.*?</td>", row, re.DOTALL) for group, row in rows.items()}
    assert {len(found) for found in cells.values()} == {5}  # three modes, two modes
    said = {group: [re.sub(r"<[^>]*>", " ", cell).split() for cell in found] for group, found in cells.items()}
    assert said["kolen-pollack"] == [["0.25", "P"]] * 5
    assert said["dtp"] == [["∞", "F"], ["∞", "F"], [], [], []]
    assert said["loss"] == [["0", "E", "1", "E,", "1", "P"], ["0", "P"], [], [], []]
    assert said["dfa"] == [["∞", "D"], [], ["0.25", "F"], [], []]
    assert said["usf"][0] == ["N"] and said["truths"][0] == ["U"]
    assert f"largest score {LIMIT / 4:.3g} of {LIMIT:g} in 1/kolen-pollack/FC/learn/6" in cells["kolen-pollack"][0]
    assert matrix.count("numpy") and "cuda:0, float64" in matrix


def test_a_cell_has_the_largest_score_and_the_worst_state():
    low, high = (fake(f"1/usf/{s}", "usf", Finding((Score("h", s * LIMIT),))) for s in (0.1, 0.5))
    skipped = fake("1/usf/?", "usf", Finding(undecidable=1))
    for checks in ([low, high, skipped], [skipped, high, low]):
        ((_, [(group, _, [cell])]),) = page.matrix([page.Column(ran(checks, ("eager",)), "eager", True)])
        assert (group, cell.letter, cell.number, cell.note) == ("usf", "P", "0.50", "2 P, 1 N")
        assert cell.title.endswith(f"eager: 2 pass, 1 not run; largest score {LIMIT / 2:.3g} of {LIMIT:g} in 1/usf/0.5")


def test_the_colours_tell_and_can_be_read():
    def luminance(colour):
        digits = colour.lstrip("#")
        digits = "".join(c * 2 for c in digits) if len(digits) == 3 else digits
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    ratios = [0.0, 1e-9, *(10 ** (i / 10) for i in range(-50, 60)), math.inf]
    for state in STATES:
        shades = []
        for ratio in ratios:
            background, ink = page.colours(state, ratio)
            bright, dark = sorted((luminance(background or "#f1f1ef"), luminance(ink)), reverse=True)
            assert (bright + 0.05) / (dark + 0.05) > 3.9, (state, ratio, background, ink)
            shades.append(luminance(background or "#fff"))
        if state == "pass":
            assert shades == sorted(shades, reverse=True) and shades[0] > shades[50] > shades[-1]
    assert page.colours("fail", 2.0) != page.colours("fail", 1e4) == page.colours("fail", 0.5)
    assert len({page.colours(state, 0.5)[0] for state in STATES}) == 5  # "not run" and "unsupported" are both hatched


@pytest.mark.parametrize(
    ("ratio", "shown"),
    [(0.0, "0"), (0.004, "<.01"), (0.256, "0.26"), (1.004, "1.00"), (9.7, "9.7"), (310.0, "310"), (2e13, "2e13"),
     (math.inf, "∞"), (math.nan, "∞")],
)  # fmt: skip
def test_a_cell_shows_a_score_in_few_characters(ratio, shown):
    assert page.times(ratio) == shown


def test_reports_that_were_read_back_give_the_same_page(reports):
    again = report.from_json(report.to_json(reports))
    assert report.to_html(again) == report.to_html(reports)


def test_what_to_read_exists():
    root = Path(report.__file__).parents[2]
    for words in (*page.FILES.values(), *(page.what_to_read(row.name) for row in page.ROWS), page.what_to_read("new")):
        for folder, name in re.findall(r"(ref_bioplaus/(?:algorithms/)?|conformance/|and |, )(\w+\.py)", words):
            base = folder.removeprefix("ref_bioplaus/") if "/" in folder else ""
            assert (root / base / name).is_file(), words


def test_a_browser_shows_the_page(reports, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no chromium is installed to open the page in")
    probe = """<script>
      const box = e => e.getBoundingClientRect(), all = s => [...document.querySelectorAll(s)];
      document.body.dataset.found = JSON.stringify({
        wide: document.documentElement.scrollWidth > document.documentElement.clientWidth,
        cells: all(".matrix td.cell").filter(e => box(e).width > 30 && box(e).height > 10).length,
        colours: new Set(all(".matrix td.cell").map(e => getComputedStyle(e).backgroundColor)).size,
        pictures: all("svg").filter(e => box(e).width > 200 && box(e).height > 100).length,
        failures: all(".failures tbody tr").filter(e => box(e).height > 10).length,
      });</script></body>"""
    file = tmp_path / "report.html"
    html = report.to_html(reports)
    file.write_text(html.replace("</body>", probe), encoding="utf-8", errors="replace")
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    flags += " disable-component-update disable-sync enable-logging=stderr dump-dom window-size=700,900"
    done = subprocess.run(
        [browser, *(f"--{flag}" for flag in flags.split()), f"--user-data-dir={tmp_path / 'profile'}", file.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    (found,) = re.findall(r'data-found="([^"]*)"', done.stdout)
    assert json.loads(found.replace("&quot;", '"')) == {
        "wide": False, "cells": 13, "colours": 6, "pictures": 2, "failures": 3
    }  # fmt: skip
    assert "0/loss/&lt;hinge&gt;" in done.stdout


# Deviations


def test_a_deviation_excuses_a_failure_and_an_error_and_says_why():
    found = ran([PASSING, FAILING, RAISING])
    rows = [deviation(), deviation(id="0/loss/*", reason="There is none.", place="numpy.toml, row 2")]
    deviations.apply(found, rows, TODAY)
    assert found.problems == [] and found.sound
    by_id = {o.id: o for o in found.outcomes}
    assert [o.state for o in found.outcomes if o.id == FAILING.id] == ["deviates"] * 2
    assert by_id[FAILING.id].reason == "It fuses x * y + z; see https://example.org/7"
    assert by_id[RAISING.id].state == "deviates" and "RuntimeError: no <kernel>" in by_id[RAISING.id].reason
    assert by_id[PASSING.id].state == "pass"


def test_a_deviation_does_not_outlive_its_cause():
    found = ran([PASSING, FAILING])
    deviations.apply(found, [deviation(id="1/*")], TODAY)
    assert [o.state for o in found.outcomes] == ["pass"] * 3 + ["deviates"] * 2
    (problem,) = found.problems
    assert "numpy.toml, row 1" in problem and "does not hold any more" in problem and PASSING.id in problem
    assert not found.sound


def test_a_deviation_that_matches_nothing_is_a_problem_unless_it_was_left_out():
    for checks, id in (([PASSING], "1/dtp/*"), ([fake("1/usf/x", "usf", Finding(undecidable=1))], "1/usf/*")):
        found = ran(checks)
        deviations.apply(found, [deviation(id=id)], TODAY)
        assert len(found.problems) == 1 and "matches nothing that was run" in found.problems[0]
        assert not found.sound
    found = ran([PASSING])
    deviations.apply(found, [deviation()], TODAY, left_out=[FAILING.id])
    assert found.sound


def test_a_deviation_ends_on_its_last_day():
    found = ran([FAILING])
    deviations.apply(found, [deviation(until=TODAY)], TODAY)
    assert found.sound
    found = ran([FAILING])
    deviations.apply(found, [deviation(until=TODAY - datetime.timedelta(1))], TODAY)
    assert [o.state for o in found.outcomes] == ["fail", "fail"]
    (problem,) = found.problems
    assert "ended on 2025-06-30" in problem


@pytest.mark.parametrize(
    ("changes", "device", "excused"),
    [
        ({}, "cpu", 2),
        ({}, "cpu:0", 2),
        ({}, "array_api_strict.Device('CPU_DEVICE')", 2),
        ({}, "cuda:0", 0),
        ({"device": "cuda*"}, "cuda:1", 2),
        ({"device": "cuda"}, "<CUDA Device 1>", 2),
        ({"device": "cuda:0"}, "<CUDA Device 1>", 0),
        ({"device": "*", "dtype": "float*"}, "cuda:0", 2),
        ({"dtype": "float64"}, "cpu", 0),
        ({"mode": "compiled"}, "cpu", 1),
        ({"mode": "donating"}, "cpu", 0),
    ],
)
def test_a_deviation_is_of_one_device_dtype_and_mode(changes, device, excused):
    found = ran([FAILING], device=device)
    deviations.apply(found, [deviation(**changes)], TODAY)
    assert found.count("deviates") == excused
    assert found.problems == []


ROW = """[[deviation]]
id = "1/dtp/*"
device = "cpu"
dtype = "float32"
reason = "It fuses x * y + z."
link = "https://example.org/7"
since = 2025-01-01
until = "2025-12-31"
"""


def test_rows_are_read(tmp_path):
    assert deviations.load("numpy", tmp_path) == ()
    (tmp_path / "numpy.toml").write_text(f'{ROW}\n{ROW}mode = "compiled"\n')
    assert deviations.load("numpy", tmp_path) == (
        deviation(), deviation(mode="compiled", place="numpy.toml, row 2")
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[deviation]\n", ("is not TOML",)),
        ("[[deviations]]\n", ('"deviations"', "[[deviation]]")),
        ("deviation = 3\n", ('"deviation"', "[[deviation]]")),
        (ROW.replace('reason = "It fuses x * y + z."\n', ""), ("row 1", 'no "reason"', "expected id, device")),
        (ROW + 'because = "x"\n', ("row 1", 'unknown "because"')),
        (ROW + ROW.replace('"cpu"', "7"), ("row 2", "device is 7", "expected text")),
        (ROW.replace('"https://example.org/7"', '" "'), ("row 1", 'link is " "')),
        (ROW.replace("2025-01-01", "2025-01-01T10:00:00"), ("row 1", "since is 2025-01-01 10:00:00", "a date")),
        (ROW.replace("2025-12-31", "2025-13-31"), ("row 1", 'until is "2025-13-31"', "a date")),
        (ROW.replace("2025-12-31", "2024-12-31"), ("row 1", "since is 2025-01-01 and until 2024-12-31")),
        (ROW + 'mode = "lazy"\n', ("row 1", 'mode is "lazy"', "eager, compiled, donating")),
    ],
)
def test_a_malformed_row_gets_one_sentence(tmp_path, text, words):
    (tmp_path / "numpy.toml").write_text(text)
    with pytest.raises(ValueError) as caught:
        deviations.load("numpy", tmp_path)
    assert all(word in str(caught.value) for word in ("numpy.toml", *words)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_rows_that_are_shipped_can_be_read():
    for file in deviations.FOLDER.glob("*.toml"):
        assert file.stem in backends.names()
        deviations.load(file.stem)


# The command


@pytest.fixture
def suite(monkeypatch):
    """Puts fake checks in the place of the suite's, and notes what was asked for."""
    asked = []

    def use(*checks):
        def chosen(levels):
            asked.append(tuple(levels))
            return tuple(check for check in checks if check.level in levels)

        monkeypatch.setattr(levels, "checks", chosen)
        return asked

    return use


run = partial(command, "conformance", "run")


def test_a_sound_run_says_so_and_writes_its_files(suite, tmp_path):
    asked = suite(PASSING)
    files = [tmp_path / "new" / name for name in ("r.json", "r.html")]
    result = run("--backend", "numpy", "--json", files[0], "--html", files[1])
    verdict, *left_out = result.stdout.splitlines()[-5:]
    assert verdict.startswith("PASS: 3 of 3 outcomes pass; the largest score that passes is 0.25")
    assert left_out[0] == "Not judged: convergence over seeds (level 4)."
    assert left_out[1].startswith("Drawn by the reference, not by the subject: the stored states in mid-learning")
    assert left_out[2].startswith("Not judged at any level: random bits behind the first two million")
    assert left_out[3].startswith("Not judged: whether a rule is what its paper says, as each was compared with itself")
    assert asked == [(0, 1, 2, 3)]
    data = json.loads(files[0].read_text())
    assert data["sound"] and objections(data) == []
    assert files[1].read_text().rstrip().endswith("</html>")


def test_an_unsound_run_names_what_failed(suite, tmp_path):
    suite(PASSING, FAILING, RAISING)
    result = run("--backend", "numpy", "--html", tmp_path / "r.html", code=1)
    lines = result.stdout.splitlines()
    assert lines[-5].startswith("FAIL: 3 of 6 outcomes pass, 2 fail, 1 raised an error")
    (line,) = [line for line in lines if line.startswith("1/dtp/FC/learn/6 (compiled) fails: ")]
    assert "state/forward/params/0/W[1, 2] departs first: 0.250000001, expected 0.25" in line
    assert [line for line in lines if line.startswith("0/loss/<hinge> (eager) raised an error: RuntimeError: no <kern")]
    rows = [line.split()[:4] for line in lines if re.match(r" *\d ", line)]
    assert rows == [["0", "1", "0.0"], ["1", "3", "2", "inf"]]
    assert "&lt;hinge&gt;" in (tmp_path / "r.html").read_text()


def test_the_bar_counts_outcomes_and_names_the_last():
    terminal = io.StringIO()
    with Bar(Console(file=terminal, force_terminal=True, width=160), "numpy float32 ieee", 3) as bar:
        for outcome in ran([PASSING]).outcomes[:2]:
            bar.advance(outcome)
        bar.rich.refresh()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert "numpy float32 ieee" in shown and "2/3" in shown and f"{PASSING.id} (compiled)" in shown


def test_a_run_that_could_test_nothing_is_not_sound(suite):
    suite(fake("1/usf/FC/learn/6", "usf", Finding(undecidable=3)))
    result = run("--backend", "numpy", code=1)
    assert "FAIL: 0 of 3 outcomes pass, 3 not run." in result.stdout


def test_the_choice_of_backends_dtypes_modes_levels_and_cases(suite, tmp_path):
    asked = suite(PASSING, FAILING, RAISING)
    run(
        "--backend", "numpy,array-api-strict", "--backend", "tests.conftest:read_only", "--dtype", "float64,float32",
        "--mode", "donating, eager", "--level", "1", "--case", "*/kolen*", "--json", tmp_path / "r.json",
    )  # fmt: skip
    assert asked == [(1,)]
    found = report.from_json(json.loads((tmp_path / "r.json").read_text()))
    assert [(r.backend, r.dtype) for r in found] == [
        (name, dtype) for name in ("numpy", "array-api-strict", "numpy, read-only") for dtype in ("float64", "float32")
    ]
    assert all([(o.id, o.mode) for o in r.outcomes] == [(PASSING.id, "eager"), (PASSING.id, "donating")] for r in found)
    assert [r.environment.get(report.ASKED) for r in found] == [None] * 4 + ["tests.conftest:read_only"] * 2


def test_deviations_are_applied_and_those_of_other_checks_left_alone(suite, tmp_path):
    suite(PASSING, FAILING, RAISING)
    today = datetime.date.today()
    row = ROW.replace("2025-01-01", str(today)).replace("2025-12-31", str(today))
    (tmp_path / "numpy.toml").write_text(row)
    arguments = ("--backend", "numpy", "--deviations", tmp_path)
    result = run(*arguments, "--level", "1")
    assert "2 deviate for a stated reason" in result.stdout and "see https://example.org/7" in result.stdout
    for code, *choice in ((0, "--case", "*/kolen*"), (0, "--mode", "donating", "--level", "1"), (1, "--level", "0")):
        result = run(*arguments, *choice, code=code)
        assert "deviation" not in result.stdout, choice
    (tmp_path / "numpy.toml").write_text(row.replace("1/dtp/*", "1/dpt/*"))
    result = run(*arguments, "--level", "1", "--case", "*/kolen*", code=1)
    assert "matches nothing that was run" in result.stdout
    (verdict,) = [line for line in result.stdout.splitlines() if line.startswith("FAIL: ")]
    assert "1 problem with deviations" in verdict


def broken(*_):
    """A backend that does not start."""
    raise RuntimeError("no\nluck")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("--backend numpy",)),
        (("--backend", "touch"), ('backend "touch" is unknown', '"torch"')),
        (("--backend", "numpy", "--device", "cuda"), ('device "cuda" is not there',)),
        (("--backend", "tests.conformance.test_report:broken"), ("did not start: RuntimeError: no luck",)),
        (("--backend", "numpy", "--dtype", "float16"), ('--dtype is "float16"', "float64, float32, bfloat16")),
        (("--backend", "numpy", "--dtype", "bfloat16"), ('no dtype "bfloat16"',)),
        (("--backend", "numpy", "--precision", "fp8"), ('--precision is "fp8"', "ieee, tf32, bf16")),
        (("--backend", "numpy", "--dtype", "float64", "--precision", "tf32"), ("float64 has no precision tf32",)),
        (("--backend", "numpy", "--precision", "tf32"), ("in ieee, not in tf32",)),
        (("--backend", "numpy", "--mode", "lazy"), ('--mode is "lazy"', "eager, compiled, donating")),
        (("--backend", "numpy", "--mode", ","), ('--mode is ","',)),
        (("--backend", "numpy", "--level", "5"), ('--level is "5"', "0 to 4")),
        (("--backend", "numpy", "--case", "1/kp*"), ('matches --case "1/kp*"',)),
        (("--backend", "numpy", "--case", "0/loss/*", "--mode", "donating"), ("in mode donating",)),
        (("--backend", "numpy", "--deviations", "/nowhere/at/all"), ("/nowhere/at/all", "--deviations")),
    ],
)
def test_a_mistake_gets_one_sentence(suite, monkeypatch, arguments, words):
    suite(PASSING, FAILING, RAISING)
    monkeypatch.setattr(runner, "run", lambda *_: pytest.fail("it ran"))
    result = run(*arguments, code=2)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert all(word in result.stderr for word in words), result.stderr


def test_a_malformed_deviation_is_found_before_the_run(suite, monkeypatch, tmp_path):
    suite(PASSING)
    monkeypatch.setattr(runner, "run", lambda *_: pytest.fail("it ran"))
    (tmp_path / "numpy.toml").write_text("[[deviation]]\n")
    result = run("--backend", "numpy", "--deviations", tmp_path, code=2)
    assert 'row 1 has no "id"' in result.stderr


@pytest.mark.parametrize("option", ["--json", "--html"])
@pytest.mark.parametrize("place", ["file/page", "folder"])
def test_a_file_that_cannot_be_written_is_refused_before_the_run(suite, monkeypatch, tmp_path, option, place):
    suite(PASSING)
    monkeypatch.setattr(runner, "run", lambda *_: pytest.fail("it ran"))
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    result = run("--backend", "numpy", option, tmp_path / place, code=2)
    assert result.stderr.count("\n") == 1 and option in result.stderr and str(tmp_path / place) in result.stderr


def test_two_files_of_one_name_are_refused(suite, tmp_path):
    suite(PASSING)
    result = run("--backend", "numpy", "--json", tmp_path / "a", "--html", tmp_path / "a", code=2)
    assert "--json and --html name one file" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [("0-3", (0, 1, 2, 3)), ("0,2", (0, 2)), ("4", (4,)), ("2, 0-1", (0, 1, 2)), ("3-3", (3,)), ("1,1", (1,))],
)
def test_levels(text, found):
    assert parse_levels(text) == found


@pytest.mark.parametrize("text", ["", "5", "2-1", "0-", "-1", "0..3", "0,", "1.0", "all", "0-1-2"])
def test_levels_that_are_none(text):
    with pytest.raises(ValueError, match="expected levels from 0 to 4"):
        parse_levels(text)


def test_help_imports_no_array_library_but_numpy():
    heavy = ("torch", "jax", "cupy", "array_api_strict", "matplotlib", "jinja2")
    program = f"""
import sys
from ref_bioplaus.__main__ import app
try:
    app(["conformance", "run", "--help"])
except SystemExit as stop:
    found = [name for name in {heavy} if name in sys.modules]
    print("code", stop.code, "found", found, file=sys.stderr)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "--deviations" in result.stdout
    assert "code 0 found []" in result.stderr


def test_the_table_of_names_shows_the_worst_that_came_of_each_check():
    mixed = fake("1/usf/FC", "usf", GOOD, ("eager", "compiled"))
    found = ran([mixed, fake("1/dfa/FC", "dfa", GOOD, ("eager",))], ("eager", "compiled"))
    found.outcomes[1].state = "fail"
    found.coverage = {"kernels.a": "1/usf/FC", "kernels.b": "1/dfa/FC", "kernels.c": "1/never", "backend.d": "no: why"}
    assert [states for _, _, states in lists.coverage([found])] == [["fail"], ["pass"], [""], [""]]
    text = report.to_html([found])
    assert '<th scope="row">kernels.a</th><td class="left wrap">1/usf/FC</td>' in text and "no: why" in text
    assert report.to_html(report.from_json(report.to_json([found]))) == text
    found.coverage = {}
    assert lists.coverage([found]) == [] and 'id="coverage"' not in report.to_html([found])
