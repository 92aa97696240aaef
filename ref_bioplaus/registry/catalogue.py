"""What there is, as rows of text: made from the registry, the models, the backends and their docstrings.

The command `list` prints these rows, and the README's tables are checked against them.
"""

import inspect
import re
from typing import Any, NamedTuple

from .. import backends, registry
from ..models import MODELS


class Table(NamedTuple):
    """A heading for each column, and the rows."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def first_sentence(thing: Any) -> str:
    """The first sentence of an object's docstring, on one line; "" without one."""
    paragraph = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.)\s+(?=[A-Z])", paragraph)[0]


def algorithms() -> Table:
    """Every row that can be trained: its name, its file, the paper and the equations."""
    rows = ((r.name, r.label, r.file, r.paper, r.equations) for r in registry.ROWS)
    return Table(("name", "in the papers", "file", "paper", "equations"), tuple(rows))


def models() -> Table:
    """The papers' networks."""
    rows = ((name, first_sentence(constructor)) for name, constructor in MODELS.items())
    return Table(("name", "what it is"), tuple(rows))


def backend_table() -> Table:
    """Every backend known by name, whether its library is here, and how to install it. Imports none of them."""
    here = backends.installed()
    rows = ((n, "installed" if n in here else "not installed", install(n)) for n in backends.names())
    return Table(("name", "here", "how to install it"), tuple(rows))


def install(name: str) -> str:
    """How to get a backend's library."""
    return backends.INSTALL.get(name, "comes with ref-bioplaus" if name in backends.BUILT_IN else "")


def modifications() -> Table:
    """What can be wrapped around an optimizer."""
    rows = ((name, first_sentence(wrapper)) for name, wrapper in registry.MODIFICATIONS.items())
    return Table(("name", "what it does"), tuple(rows))
