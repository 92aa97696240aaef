"""One search for several rows: the same values in all of them, whole points, and what each value does."""

import json

import numpy as np
import pytest

from ref_bioplaus.experiments import papers
from ref_bioplaus.experiments.many import across, search
from ref_bioplaus.experiments.runs import logs
from ref_bioplaus.experiments.spec.building import Shape, build
from ref_bioplaus.experiments.spec.experiment import ExperimentError, overridden
from ref_bioplaus.types import Batch
from tests.conftest import get
from tests.helpers.commands import command

TABLE, COLUMN, UNKNOWNS = "bartunov2018/table1", "mnist-fc", "bartunov2018-unknowns"
ROWS = [row.id for row in papers.table(TABLE).rows if not row.id.startswith("backprop")]
TARGETS = [row for row in ROWS if "dtp" in row]

RANGES = """
trials = 2

[[range]]
[range.of]
"optimizer.epsilon_form" = { kind = "choice", values = ["hat", "paper"], as = "form" }
"batch" = { kind = "choice", values = [250, 500] }

[[range]]
algorithms = ["sdtp"]
[range.of]
"inverse_optimizer.epsilon_form" = { kind = "choice", values = ["hat", "paper"], as = "form" }
"algorithm_options.noise" = { kind = "choice", values = [0.2, 0.4], as = "sigma", words = ["deviation", "variance"] }
"""


@pytest.fixture(scope="module")
def unknowns(tmp_path_factory):
    return across.across(TABLE, COLUMN, ROWS, search.read_ranges(UNKNOWNS), tmp_path_factory.mktemp("unknowns"))


def test_a_trial_has_one_setting_for_all_rows(unknowns):
    """What ranges of one name have drawn is the same, whichever others a row has."""
    ranges = {row: search.chosen for row, search in unknowns.searches.items()}
    for trial in range(60):
        drawn = {row: search.drawn(found, 0, trial) for row, found in ranges.items()}
        indices = [
            {(r.get("as", path), r["values"].index(drawn[row][path])) for path, r in found.items()}
            for row, found in ranges.items()
        ]
        together = set().union(*indices)
        assert len(together) == len({name for name, _ in together}) == 11
        for row in ROWS[:6]:
            assert drawn[row]["optimizer.epsilon_form"] == drawn[row]["inverse_optimizer.epsilon_form"]
    counts = np.array([[search.drawn(ranges["sdtp"], 0, t)[path] == r["values"][0] for path, r in ranges["sdtp"].items()
                        if path not in ("inverse_optimizer.epsilon_form", "algorithm_options.inverse_initializer")]
                       for t in range(500)])  # fmt: skip
    assert np.abs(np.corrcoef(counts.T) - np.eye(counts.shape[1])).max() < 0.15


def test_the_unknowns_leave_everything_else_as_published(unknowns):
    assert unknowns.published == {row: papers.table(TABLE).cell(row, COLUMN).values["test error"] for row in ROWS}
    for row, found in unknowns.searches.items():
        theirs, unknown = papers.experiment(TABLE, COLUMN, row), set(found.chosen)
        mine = dict(papers.flat(search.as_dict(found.job(7).experiment)))
        changed = {path for path, value in papers.flat(theirs) if mine[path] != value}
        assert changed <= unknown | {"held_out"}
        noise = found.chosen.get("algorithm_options.noise")
        if noise:
            deviation, variance = noise["values"]
            assert deviation == theirs["algorithm_options"]["noise"]
            assert variance == pytest.approx(deviation**0.5, abs=1e-6)
        assert ("algorithm_options.schedule" in unknown) == (row in ("dtp", "sdtp", "ao-sdtp"))


def test_every_setting_of_the_unknowns_learns(unknowns):
    backend = get("numpy", "float32")
    x = np.random.default_rng(0).random((3, 784), dtype=np.float32)
    batch = Batch(x, np.eye(10, dtype=np.float32)[[1, 0, 9]])
    for trial in range(12):
        for row in ROWS:
            small = overridden(unknowns.searches[row].job(trial).experiment, ["model_options.width=0.03"])
            algorithm = build(small, backend, Shape((28, 28, 1), 10, 5)).algorithm
            first = state = algorithm.init(backend.key(1))
            for epoch in (0, 1):
                for mode in algorithm.schedule(epoch, 0):
                    state, _ = algorithm.modes[mode](state, batch)
            change = np.abs(state.forward.params[1].W - first.forward.params[1].W).max()
            assert 0 < change < np.inf, (trial, row)


def test_several_rows_from_end_to_end(tmp_path, monkeypatch):
    """A point after the other; a second call goes on, and a report runs nothing."""
    (tmp_path / "ranges.toml").write_text(RANGES)
    out = tmp_path / "out"
    given = ("search", tmp_path / "ranges.toml", "--table", TABLE, "--column", COLUMN, "--method", "sdtp", "--method",
             "fa", "--out", out, "--epochs", 1, "--held-out", 100, "--set", "dataset=embedded", "--set",
             "model_options.width=0.03", "--set", "metrics=[]")  # fmt: skip
    assert "0 of 2 points are finished" in command(*given, "--report").output
    assert not out.exists()
    first = command(*given, "--trials", 1)
    assert "1 of 1 points are finished" in first.output
    assert first.output.index("sdtp, trial 0") < first.output.index("feedback-alignment, trial 0")
    log = out / "sdtp" / "trial-0000" / logs.LOG
    before = log.read_text()
    done = command(*given)
    assert log.read_text() == before
    assert "sdtp, trial 1" in done.output and "sdtp, trial 0" not in done.output
    points = [json.loads(line) for line in (out / across.POINTS).read_text().splitlines()]
    assert [point["trial"] for point in points] == [0, 1]
    for point in points:
        assert set(point["values"]) == {"form", "batch", "sigma"}
        learned = [logs.stored(out / row / f"trial-{point['trial']:04d}") for row in ("sdtp", "feedback-alignment")]
        assert {str(mine.batch) for mine in learned} == {point["values"]["batch"]}
        assert learned[0].inverse_optimizer["epsilon_form"] == point["values"]["form"]
        assert {"deviation": 0.2, "variance": 0.4}[point["values"]["sigma"]] == learned[0].algorithm_options["noise"]
        for row, score in point["scores"].items():
            errors = [
                r["validation_error"] for r in logs.records(out / row / f"trial-{point['trial']:04d}") if r["step"]
            ]
            assert score == min(errors)
        wanted = [
            abs(np.log(point["scores"][row] / error)) for row, error in (("sdtp", 3.52), ("feedback-alignment", 1.85))
        ]
        assert point["misfit"] == pytest.approx(np.mean(wanted))
    assert "2 of 2 points are finished" in (out / across.EFFECTS).read_text()
    settings = ["dataset=embedded", "model_options.width=0.03", "metrics=[]"]
    ranges = search.read_ranges(str(tmp_path / "ranges.toml"))
    joint = across.across(TABLE, COLUMN, ["sdtp", "feedback-alignment"], ranges, out, None, 0, 100, settings, epochs=1)
    assert joint.points() == points
    monkeypatch.setattr(search.Search, "line", None)  # what has ended is not read again
    assert joint.points() == points
    monkeypatch.undo()
    (out / "sdtp" / "trial-0001" / logs.FAILURE).write_text("The loss is not finite.")
    assert f"{across.NOTHING:.2f}" in command(*given, "--report").output
    log.with_name("experiment.toml").unlink()
    log.unlink()
    assert "1 of 2 points are finished" in command(*given, "--report").output


def test_rows_without_a_published_error_are_refused(tmp_path):
    ranges = search.read_ranges(UNKNOWNS)
    with pytest.raises(ExperimentError, match='has no test error of "dtp", which points are judged by'):
        across.across("bartunov2018/autoencoder", None, ["dtp", "sdtp"], ranges, tmp_path)


def point(misfit, **values):
    return {"values": values, "scores": {"dtp": 2.0 * misfit, "fa": 0.0}, "misfit": misfit}


def of(points, ranges=None):
    """The effects by range and value; rows have all ranges where nothing else is said."""
    names = {"dtp": set(points[0]["values"]), "fa": set()} if points else {}
    return {(e.name, e.value): e for e in across.effects(points, ranges or names)}


def test_an_effect_is_found_where_there_is_one():
    """Also beside a range that moves more, and only in rows that have the range."""
    generator, points = np.random.default_rng(3), []
    for _ in range(60):
        near, far = generator.integers(0, 2), generator.integers(0, 3)
        misfit = (1.0 + near) * 10.0**far
        points.append(point(misfit * (1 + 0.1 * generator.random()), near=f"{near}", far=f"{far}", same="x"))
        points[-1]["misfit"] = np.log(points[-1]["misfit"])
    found = of(points)
    assert list(found) == [("far", "0"), ("far", "1"), ("far", "2"), ("near", "0"), ("near", "1")]
    for (name, value), e in found.items():
        exact = {"near0": -np.log(2), "near1": np.log(2), "far0": -1.5 * np.log(10), "far1": 0.0,
                 "far2": 1.5 * np.log(10)}[name + value]  # fmt: skip
        assert 0 < e.misfit.half < 0.05 and abs(e.misfit.mean - exact) < e.misfit.half
        assert e.scores == {"dtp": pytest.approx(e.misfit)}
        assert e.points == sum(p["values"][name] == value for p in points)
    only_far = of(points, {"dtp": {"far"}})
    assert "dtp" not in only_far["near", "1"].scores
    assert only_far["far", "2"].scores["dtp"].half > 3 * found["far", "2"].misfit.half
    assert of([]) == of(points[:1]) == {}


def test_few_points_have_wide_intervals_or_none():
    """By hand: 2 and 4 against 1, 1 and 7, whose deviations from their means are divided by 1 - 1/2 and 1 - 1/3."""
    points = [point(m, a=a) for m, a in ((2.0, "x"), (4.0, "x"), (1.0, "y"), (1.0, "y"), (7.0, "y"))]
    half = 3.182 * ((2**2 + 2**2) / 2**2 + (3**2 + 3**2 + 6**2) / 3**2) ** 0.5
    for effect in of(points).values():
        assert effect.misfit == pytest.approx((0.0, half))
    assert [tuple(e.misfit) for e in of(points[1:3]).values()] == [
        (pytest.approx(3.0), None),
        (pytest.approx(-3.0), None),
    ]
    assert [e.misfit.half for e in of(points[:3]).values()] == [None, None]
    alike = [point(m, a=a) for m, a in ((2.0, "x"), (2.0, "x"), (1.0, "y"), (1.0, "y"))]
    assert [e.misfit for e in of(alike).values()] == [pytest.approx((1.0, 0.0)), pytest.approx((-1.0, 0.0))]


def test_what_goes_together_is_not_told_apart():
    points = [point(m, a=a, b=a, c=c) for m, a, c in ((1, "x", "u"), (2, "y", "u"), (3, "x", "v"), (5, "y", "v"))]
    found = of(points)
    assert found["a", "x"].misfit is found["b", "y"].misfit is None
    assert found["c", "v"].misfit.mean == pytest.approx(2.5)


def test_an_interval_holds_what_it_should():
    """In 95 of 100 sets of some points, though one value scatters ten times as much as the other, and
    another range moves both."""
    generator, held = np.random.default_rng(0), 0
    for _ in range(1000):
        wide, other = np.arange(30) < 12, generator.permutation(30) % 2 == 0
        measured = np.where(wide, generator.normal(3.0, 1.0, 30), generator.normal(1.0, 0.1, 30)) + 5.0 * other
        values = [{"a": str(w), "b": str(o)} for w, o in zip(wide, other, strict=True)]
        found = across.fitted(values, ["a", "b"], measured)["a", "True"]
        held += abs(found.mean - 2.0) <= found.half
    assert 0.93 < held / 1000 < 0.995


def test_a_report_says_what_few_points_do_not_tell(unknowns):
    points = [
        {"trial": i, "values": {"batch": b, "h_L": "logits"}, "scores": dict.fromkeys(ROWS, 3.0 * m), "misfit": m}
        for i, (b, m) in enumerate((("32", 1.0), ("64", 2.0)))
    ]
    page = across.as_markdown(unknowns, points[:1])
    assert page.endswith("What each value does is told from two points on that differ in it.\n")
    page = across.as_markdown(unknowns, points)
    assert "| batch | 32 | 1 | -1.00 (–) |" + " 0.50 (–) |" * len(ROWS) in page and "Of 0 intervals" in page
    page = across.as_markdown(unknowns, [*points, *points])
    assert "| batch | 32 | 2 | -1.00 (-1.00 to -1.00) | 0.50 (0.50 to 0.50) |" in page
    points[1]["values"]["h_L"] = "softmax"
    page = across.as_markdown(unknowns, points)
    assert "| batch | 32 | 1 | – |" in page and page.count(" 0.50 (–) |") == len(ROWS) - len(TARGETS)


def test_what_a_range_may_say():
    for chosen, said in (
        ({"kind": "choice", "values": [1, 2], "words": ["one"]}, r"words \['one'\], expected one for each"),
        ({"kind": "choice", "values": [1, 2], "as": "a", "also": 1}, "needs values, nothing else"),
    ):
        with pytest.raises(ExperimentError, match=said):
            search.check_range("batch", chosen)
    search.check_range("batch", {"kind": "choice", "values": [1, 2], "as": "a", "words": ["one", "two"]})
