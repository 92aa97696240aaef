"""The spread of seeds: by the same epoch, seed by seed, and nothing from one seed."""

import json
from dataclasses import replace

import pytest

from ref_bioplaus.experiments.many import paired, side_by_side, table
from ref_bioplaus.experiments.runs.seeds import half_width
from ref_bioplaus.experiments.spec.experiment import as_toml

TABLE, COLUMN = "bartunov2018/table1", "mnist-fc"


def written(out, row, seed, errors, **changes):
    """A run whose log has a test error for every epoch from 0 on."""
    folder = table.folder(out, TABLE, COLUMN, row, seed)
    folder.mkdir(parents=True)
    experiment = replace(table.experiment_of(TABLE, COLUMN, row), seed=seed, **changes)
    (folder / "experiment.toml").write_text(as_toml(experiment))
    records = [{"step": 4 * i, "epoch": i, "test_error": error, "seconds": 1.0} for i, error in enumerate(errors)]
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def report(tmp_path):
    written(tmp_path, "backprop", 0, [1.0, 5.0, 4.0, 0.5])  # before learning and after the others' end: neither counts
    written(tmp_path, "backprop", 1, [90.0, 3.0, 3.5])
    written(tmp_path, "backprop", 2, [90.0, 8.0, 2.0])
    written(tmp_path, "feedback-alignment", 1, [90.0, 6.0, 5.0])
    written(tmp_path, "feedback-alignment", 2, [90.0, 4.5])
    written(tmp_path, "dfa", 0, [90.0, 9.0])
    written(tmp_path, "dfa", 1, [90.0, 1.0], batch=7)  # another experiment
    return table.reported(TABLE, COLUMN, tmp_path)


def test_rows_are_taken_at_the_epoch_that_all_their_seeds_reached(report, tmp_path):
    fa, bp = paired.rows(report, paired.by_row(report, tmp_path))
    assert (bp.label, bp.epoch, bp.best, bp.published) == ("BP", 2, {0: 4.0, 1: 3.0, 2: 2.0}, 1.48)
    assert (bp.low, bp.high) == (pytest.approx(3 - 4.303 * (4 / 3) ** 0.5), pytest.approx(3 + 4.303 * (4 / 3) ** 0.5))
    assert (fa.label, fa.epoch, fa.best) == ("FA", 1, {1: 6.0, 2: 4.5})


def test_pairs_are_of_the_seeds_that_both_have(report, tmp_path):
    (pair,) = paired.pairs(report, paired.by_row(report, tmp_path))
    assert (pair.label, pair.epoch, pair.differences) == ("FA less BP", 1, {1: 3.0, 2: -3.5})
    half = 12.706 * 6.5 / 2**0.5 / 2**0.5
    assert (pair.low, pair.high) == (pytest.approx(-0.25 - half), pytest.approx(-0.25 + half))
    assert not pair.counts
    assert pair._replace(low=0.1, high=0.2).counts and pair._replace(low=-2.0, high=-1.0).counts


def test_a_seed_that_measured_nothing_by_then_does_not_count(tmp_path):
    for seed, errors in enumerate(([90.0, 3.0, 2.0], [90.0, 4.0], [90.0, None, 1.0])):
        for row in ("backprop", "feedback-alignment"):
            written(tmp_path, row, seed, errors)
    report = table.reported(TABLE, COLUMN, tmp_path)
    found = paired.by_row(report, tmp_path)
    assert [row.best for row in paired.rows(report, found)] == [{0: 3.0, 1: 4.0}] * 2
    assert [pair.differences for pair in paired.pairs(report, found)] == [{0: 0.0, 1: 0.0}]


def test_what_seeds_have_in_common_falls_out(tmp_path):
    for seed, common in enumerate((1.0, 5.0, 9.0)):
        written(tmp_path, "backprop", seed, [90.0, common])
        written(tmp_path, "feedback-alignment", seed, [90.0, common + 1.0 + 0.01 * seed])
    report = table.reported(TABLE, COLUMN, tmp_path)
    (pair,) = paired.pairs(report, paired.by_row(report, tmp_path))
    assert pair.counts and pair.low > 0.9
    page = side_by_side.as_markdown(report, tmp_path)
    assert "| FA less BP | 1 | +1.00, +1.01, +1.02 | 1.01 ± 0.01 | +0.99 to +1.03 | counts |" in page
    assert "| BP | 1 | 1.00, 5.00, 9.00 | 5.00 ± 4.00 | -14.87 to 24.87 | 1.48 |" in page


def test_a_page_says_where_nothing_is_known_of_the_spread(report, tmp_path):
    page = side_by_side.as_markdown(report, tmp_path)
    assert "One seed, so that nothing is known of the spread: DFA." in page
    (tmp_path / "one").mkdir()
    written(tmp_path / "one", "backprop", 0, [90.0, 3.0])
    alone = side_by_side.as_markdown(table.reported(TABLE, COLUMN, tmp_path / "one"), tmp_path / "one")
    assert "One seed of each row: no difference here has been held against the spread of seeds." in alone
    assert "The spread" not in side_by_side.as_markdown(
        table.reported(TABLE, COLUMN, tmp_path / "none"), tmp_path / "none"
    )


@pytest.mark.parametrize(
    ("seeds", "quantile"), [(2, 12.706), (3, 4.303), (16, 2.131), (17, 2.120), (31, 2.042), (9999, 1.96)]
)
def test_students_quantiles(seeds, quantile):
    assert half_width(1.0, seeds) == pytest.approx(quantile / seeds**0.5, rel=5e-3)
    assert half_width(2.0, seeds, more=1) == pytest.approx(2 * quantile * (1 + 1 / seeds) ** 0.5, rel=5e-3)
