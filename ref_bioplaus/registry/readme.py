"""The README's tables and its page of choices, made from the code: python -m ref_bioplaus.registry.readme README.md.

Each stands between <!-- begin NAME --> and <!-- end NAME -->; a test checks that what stands there is what this makes.
"""

import inspect
import re
import sys
from importlib import import_module
from pathlib import Path

from ..machine.files import write_whole
from . import ROWS, catalogue
from .rows import DECLARATIONS


def algorithm_table() -> str:
    """A row per file of algorithms/: what it holds, its papers and their equations, and the names of its variants."""
    lines = ["| algorithm | file | equations | on the command line |", "|---|---|---|---|"]
    for module in dict.fromkeys(row.module for row in ROWS):
        rows = [row for row in ROWS if row.module == module]
        title = docstring(module).split(". ")[0].replace("\n", " ")
        numbers = {
            paper: dict.fromkeys(e for r in rows if r.paper == paper for e in r.equations.split(", "))
            for paper in dict.fromkeys(row.paper for row in rows)
        }
        papers = "; ".join(f"{paper} {', '.join(equations)}" for paper, equations in numbers.items())
        names = ", ".join(f"`{row.name}`" for row in rows)
        path = f"ref_bioplaus/algorithms/{module}.py"
        lines.append(f"| {title} | [`{module}.py`]({path}) | {papers} | {names} |".replace("|M|", "\\|M\\|"))
    return "\n".join(lines)


def markdown(table: catalogue.Table) -> str:
    """A catalogue's table."""
    rows = [table.headings, ("---",) * len(table.headings), *table.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def declarations() -> str:
    """What rows declare, how it is tested, and which rows do: the file's name where all of its rows do."""
    lines = ["| declaration | what is tested | of |", "|---|---|---|"]
    for word, tested in DECLARATIONS.items():
        those: list[str] = []
        for module in dict.fromkeys(row.module for row in ROWS):
            rows = [row for row in ROWS if row.module == module]
            mine = [row.name for row in rows if word in row.declares]
            those += [module] if len(mine) == len(rows) else mine
        lines.append(f"| {word} | {tested} | {', '.join(f'`{name}`' for name in those)} |")
    return "\n".join(lines)


def choices() -> str:
    """Every paragraph `Choices:` of algorithms, models and modifications, in the words of the code."""
    lines = []
    for module in dict.fromkeys(row.module for row in ROWS):
        lines.append(f"- **`algorithms/{module}.py`** {paragraph(docstring(module))}")
    for module in ("linear", "local"):
        lines.append(f"- **`{module}.py`** {paragraph(import_module(f'ref_bioplaus.{module}').__doc__ or '')}")
    for row in sorted({m.__module__ for m in import_module("ref_bioplaus.models").ROWS}):
        lines.append(f"- **`models/{row.rpartition('.')[2]}.py`** {paragraph(import_module(row).__doc__ or '')}")
    modifications = import_module("ref_bioplaus.modifications")
    for name, function in vars(modifications).items():
        text = function.__doc__ or "" if inspect.isfunction(function) else ""
        if "Choices:" in text:
            lines.append(f"- **`modifications.{name}`** {paragraph(text)}")
    return "\n".join(lines)


def docstring(module: str) -> str:
    """The docstring of a file of algorithms/."""
    return import_module(f"ref_bioplaus.algorithms.{module}").__doc__ or ""


def paragraph(text: str) -> str:
    """What stands after `Choices:`, on one line, up to a line that is no longer indented or the end of a paragraph."""
    found = re.search(r"^ *Choices: (.*?)(?=\n\n|\n\S|\Z)", text, re.S | re.M)
    if found is None:
        raise ValueError(f'no paragraph "Choices:" in: {text[:60]!r}')
    return " ".join(found.group(1).split())


SECTIONS = {
    "algorithms": algorithm_table,
    "modifications": lambda: markdown(catalogue.modifications()),
    "declarations": declarations,
    "models": lambda: markdown(catalogue.models()),
    "choices": choices,
}


def rewritten(text: str) -> str:
    """A README with every generated section as the code has it now. Raises ValueError where a section is missing."""
    for name, make in SECTIONS.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if begin not in text or end not in text:
            raise ValueError(f"the text has no section {begin} ... {end}")
        before, rest = text.split(begin, 1)
        text = f"{before}{begin}\n{make()}\n{end}{rest.split(end, 1)[1]}"
    return text


if __name__ == "__main__":
    path = Path(sys.argv[1])
    write_whole(path, rewritten(path.read_text("utf-8")).encode())
