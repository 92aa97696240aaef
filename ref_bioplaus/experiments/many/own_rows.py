"""A rule of one's own as a row of a paper's table: the column's network, images, batch and epochs, and the optimizer of
its first row, which is backpropagation where the table has that."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from os.path import isdir
from pathlib import Path

from ... import naming
from ...registry.rows import BACKPROP
from .. import papers
from ..runs.logs import stored
from ..spec.experiment import Experiment
from ..spec.names import find_row
from ..spec.taken import algorithm_parameters

PREFIX = "own-"  # of a row's id, which is the folder of its runs


def id_of(name: str) -> str:
    """The id of the row of a name; of one of the papers the name itself."""
    return f"{PREFIX}{re.sub(r'[^0-9a-z_.-]', '-', naming.short(name).lower())}" if naming.is_code(name) else name


def with_rules(table: papers.Table, column: str, names: Iterable[str]) -> papers.Table:
    """The table with a row for each of some names that is one of code; without numbers, as no paper has any."""
    own = {id_of(name): name for name in names if naming.is_code(name)}
    rows = [papers.Row(id, naming.short(name), name) for id, name in own.items()]
    none = papers.Cell({}, {}, dict.fromkeys(table.quantities, "none"))
    return table._replace(
        rows=(*table.rows, *rows), cells={**table.cells, **{(row.id, column): none for row in rows}}
    )  # fmt: skip


def with_runs(table: papers.Table, column: str, out: Path) -> papers.Table:
    """The table with a row for each rule of one's own that has runs in a folder. Raises ExperimentError."""
    place = out / table.name / column
    there = sorted(place.glob(f"{PREFIX}*/seed-*/experiment.toml")) if isdir(place) else []
    found = [experiment.algorithm for path in there if (experiment := stored(path.parent)) is not None]
    return with_rules(table, column, dict.fromkeys(found))


def basis(table: papers.Table, column: str, row: str) -> str:
    """The id of the paper's row whose experiment a row has: its own, or that of backpropagation, or the first."""
    if not row.startswith(PREFIX):
        return row
    theirs: Sequence[papers.Row] = [one for one in table.rows if (one.id, column) in table.cells]
    return next((one.id for one in theirs if one.algorithm == BACKPROP.name), theirs[0].id)


def learning(experiment: Experiment, row: papers.Row) -> Experiment:
    """A paper's experiment with the rule of a row of one's own, and those of its options that the rule takes too."""
    if not row.id.startswith(PREFIX):
        return experiment
    taken = algorithm_parameters(find_row(row.algorithm))
    options = {name: value for name, value in experiment.algorithm_options.items() if name in taken}
    return replace(
        experiment, algorithm=row.algorithm, algorithm_options=options, inverse_optimizer={}, modifications={}
    )
