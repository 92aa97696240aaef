"""The papers as data: their tables, and for every cell the experiment that would fill it.

    table = papers.table("bartunov2018/table1")
    table.cell("dtp-alternating", "mnist-fc").values                     {"train error": 0.0, "test error": 1.83}
    papers.experiment("bartunov2018/table1", column="mnist-fc", row="dtp-alternating")       the fields of an Experiment
    papers.sources("bartunov2018/table1", column="mnist-fc", row="dtp-alternating")          where each value is from

One TOML file per paper:

    [paper]       title, authors, year, url
    [[table]]     id, caption, source, statistic, quantities, columns (id, label, model, dataset) and rows (id, label,
                  algorithm, cells). A row has a cell per column, and a cell a number per quantity, with a spread where
                  `spread` names one; instead of a cell or a number stands "-", where the paper prints none, or "?",
                  where it does and we have not read it. A column that is `like` another has that one's cells of
                  the `rows` it names; no row writes a cell for it, and what applies to the other applies to it.
    [[setting]]   a source, and values from it: `set` holds fields of an experiment, `per_row` lists of them, aligned
                  with `rows`. It applies to the `tables`, `columns` and `rows` it names, to all where it names none.

Settings apply in the order of the file: a later one wins, field by field. One that names an optimizer begins it anew. A
source that begins with "ours" marks a value that the paper leaves open.
"""

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

NAMES = ("bartunov2018", "xiao2018", "moskovitz2018", "akrout2019", "lee2015", "nokland2016")
MISSING = {"-": "the paper has none", "?": "published, not read by us"}
OPTIMIZERS = ("optimizer", "inverse_optimizer")


class Paper(NamedTuple):
    """Where a paper is to be found."""

    name: str
    title: str
    authors: str
    year: int
    url: str


class Column(NamedTuple):
    """A network and its dataset."""

    id: str
    label: str
    model: str  # in models.MODELS
    dataset: str
    like: str = ""  # another column, whose numbers and settings are this one's, but for what differs
    rows: tuple[str, ...] = ()  # of the other column; none: all


class Row(NamedTuple):
    """A method."""

    id: str
    label: str
    algorithm: str  # in registry.ROWS


class Cell(NamedTuple):
    """The published numbers of a row and a column, by quantity; and why others are missing."""

    values: Mapping[str, float]
    spreads: Mapping[str, float]
    missing: Mapping[str, str]


class Table(NamedTuple):
    """One table of a paper; every cell of `cells` is an experiment."""

    name: str  # as in "bartunov2018/table1"
    paper: Paper
    caption: str
    source: str
    statistic: str  # which epoch the numbers are from, as far as the paper says
    quantities: tuple[str, ...]
    spread: str  # what the spreads are, "" without them
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    cells: Mapping[tuple[str, str], Cell]  # (row, column): those that the paper's table has

    def row(self, id: str) -> Row:
        """A row by its id. Raises KeyError with the nearest ids for an unknown one."""
        return named(id, {r.id: r for r in self.rows}, f"row of {self.name}")

    def column(self, id: str) -> Column:
        """A column by its id. Raises KeyError with the nearest ids for an unknown one."""
        return named(id, {c.id: c for c in self.columns}, f"column of {self.name}")

    def cell(self, row: str, column: str) -> Cell:
        """The numbers of a row and a column. Raises KeyError for an unknown one, and where the table has none."""
        self.row(row), self.column(column)
        if (row, column) not in self.cells:
            having = ", ".join(c for r, c in self.cells if r == row)
            raise KeyError(f'{self.name} has no "{row}" in column "{column}": it has it in {having}')
        return self.cells[row, column]


def tables() -> tuple[Table, ...]:
    """Every table of every paper."""
    return tuple(table for paper in NAMES for table in read(paper)[0].values())


def table(name: str) -> Table:
    """A table by name, as in "bartunov2018/table1". Raises KeyError with the nearest names for an unknown one."""
    return named(name, {t.name: t for t in tables()}, "table")


def experiment(name: str, column: str, row: str) -> dict[str, Any]:
    """The fields of the experiment behind one cell, as a new dict. Raises KeyError for names that are unknown."""
    fields: dict[str, Any] = {}
    for settings, _ in applying(name, column, row):
        merge(fields, settings)
    return fields


def sources(name: str, column: str, row: str) -> dict[str, str]:
    """Where each value of `experiment` is from, by its dotted path. Raises KeyError for names that are unknown."""
    found: dict[str, str] = {}
    for settings, source in applying(name, column, row):
        for field in OPTIMIZERS:
            if "name" in settings.get(field, {}):
                found = {path: text for path, text in found.items() if not path.startswith(f"{field}.")}
        for path, _ in flat(settings):
            within = {known for known in found if known.startswith(f"{path}.")}
            found = {known: text for known, text in found.items() if known not in within} | {path: source}
    return found


def flat(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of every value; a schedule, a table with a `kind`, is one value, as is an empty table within
    another: a modification without options."""
    for name, value in fields.items():
        if isinstance(value, dict) and "kind" not in value and (value or not prefix):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def applying(name: str, column: str, row: str) -> list[tuple[dict[str, Any], str]]:
    """(fields, source) of every setting that applies to a cell, in order."""
    chosen = table(name)
    chosen.cell(row, column)
    by_column, by_row = chosen.column(column), chosen.row(row)
    found = [
        ({"model": by_column.model, "dataset": by_column.dataset, "algorithm": by_row.algorithm}, chosen.source),
    ]
    for setting in read(chosen.paper.name)[1]:
        here = {"tables": {name.partition("/")[2]}, "columns": {column, by_column.like}, "rows": {row}}
        if all(ids & set(setting.get(key, ids)) for key, ids in here.items()):
            fields: dict[str, Any] = {}
            merge(fields, setting.get("set", {}))
            if "per_row" in setting:
                merge(fields, of_row(setting["per_row"], setting["rows"].index(row)))
            found.append((fields, setting["source"]))
    return found


def of_row(lists: Mapping[str, Any], i: int) -> dict[str, Any]:
    """Entry i of every list in nested tables; a list that is too short says nothing of row i."""
    found = {}
    for name, value in lists.items():
        if isinstance(value, dict):
            found[name] = of_row(value, i)
        elif i < len(value):
            found[name] = value[i]
    return {name: value for name, value in found.items() if value != {}}


def merge(fields: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Put `more` into `fields`, field by field; a named optimizer and a schedule replace what was there."""
    for name, value in more.items():
        old = fields.get(name)
        anew = (name in OPTIMIZERS and "name" in value) or (isinstance(value, dict) and "kind" in value)
        if not isinstance(value, dict):
            fields[name] = list(value) if isinstance(value, list) else value
        else:
            fields[name] = {} if anew or not isinstance(old, dict) or "kind" in old else old
            merge(fields[name], value)


@cache
def read(paper: str) -> tuple[dict[str, Table], list[dict[str, Any]]]:
    """A paper's tables by name, and its settings as they stand in its file."""
    content = tomllib.loads((resources.files(__name__) / f"{paper}.toml").read_text("utf-8"))
    about = Paper(paper, **content["paper"])
    return {f"{paper}/{t['id']}": parsed(about, t) for t in content["table"]}, content["setting"]


def parsed(paper: Paper, t: Mapping[str, Any]) -> Table:
    """A table of a file. Raises ValueError where a row has not a cell for every column."""
    name = f"{paper.name}/{t['id']}"
    by_id = {c["id"]: c for c in t["columns"]}
    columns = tuple(Column(**(by_id.get(c.get("like"), {}) | c)) for c in t["columns"])
    printed = [column for column in columns if not column.like]
    rows = tuple(Row(r["id"], r["label"], r["algorithm"]) for r in t["rows"])
    quantities, cells = tuple(t["quantities"]), {}
    for r in t["rows"]:
        for key in ("cells", "spreads"):
            if len(r.get(key, printed)) != len(printed):
                raise ValueError(f'{name}, row "{r["id"]}": {len(r[key])} {key}, expected one for each column')
        for column, numbers, spreads in zip(printed, r["cells"], r.get("spreads", [[]] * len(printed))):
            if numbers != "none":
                for one in columns:
                    if column.id in (one.id, one.like) and (not one.rows or r["id"] in one.rows):
                        cells[r["id"], one.id] = cell(quantities, numbers, spreads)
    return Table(
        name, paper, t["caption"], t["source"], t["statistic"], quantities, t.get("spread", ""), columns, rows, cells
    )


def cell(quantities: tuple[str, ...], numbers: list | str, spreads: list) -> Cell:
    """The numbers of a cell, by quantity. Raises ValueError where their count does not fit."""
    numbers = [numbers] * len(quantities) if isinstance(numbers, str) else numbers
    found = dict(zip(quantities, numbers, strict=True))
    return Cell(
        {q: v for q, v in found.items() if v not in MISSING},
        dict(zip(quantities, spreads, strict=True)) if spreads else {},
        {q: MISSING[v] for q, v in found.items() if v in MISSING},
    )


def named(name: str, known: Mapping[str, Any], kind: str) -> Any:
    """known[name]. Raises KeyError with the nearest names for an unknown one."""
    if name in known:
        return known[name]
    raise KeyError(f'{kind} "{name}" is unknown: did you mean {", ".join(nearest(name, known))}?')


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Up to three names that look like `name`; all where none does."""
    return difflib.get_close_matches(name, known, n=3) or list(known)
