"""The one gate through which a name of code passes: "my_package.my_module:object".

It is imported only where a call or a command names it itself. Where a file names it (an experiment, a checkpoint,
ranges), the name is `Stored`, and stays shut until somebody names it again. Other names are those of a table: what is
built in, and the entry points of installed packages, which files may name too.
"""

import hashlib
import importlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import reduce
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

DIGEST = re.compile("[0-9a-f]{64}")


class NamingError(ValueError):
    """A name of code that is malformed, not there, or nobody's own; the message is one sentence."""


class Stored(str):
    """A name that a file gave: equal to its text, and no code is imported for it."""

    option = ""  # the command's option that names it again
    code: Mapping[str, str] = {}  # {"file", "sha256"} of what it stood for, as the file has it


def stored(name: str, option: str, code: Mapping[str, str] | None = None) -> Stored:
    """A name as a file gives it. option, code: for the sentence that refuses it."""
    found = Stored(name)
    found.option, found.code = option, code or {}
    return found


def named(names: Iterable[Any]) -> tuple[str, ...]:
    """Those of some names that a call or a command gave itself, and no file."""
    return tuple(name for name in names if isinstance(name, str) and not isinstance(name, Stored))


def is_code(name: str) -> bool:
    """Whether a name is one of code, and not of a table."""
    return ":" in name


def load(name: str, table: Mapping[str, str], kind: str) -> Any:
    """The object of that name, its module imported now.

    table: {name: "module:object"} of the names that are known. kind: of thing, for the sentences, as "backend". Raises
    NamingError for a name that is none, for code that a file names, and for an object that is not there; ImportError.
    """
    place = table.get(name, name)
    module, parts = taken_apart(place, name, kind)
    if name not in table and isinstance(name, Stored):
        raise NamingError(refused(name, kind))
    with importable(name):
        found = importlib.import_module(module)
    try:
        return reduce(getattr, parts, found)
    except AttributeError as error:
        where = f" ({found.__file__})" if getattr(found, "__file__", None) else ""
        raise NamingError(
            f'{kind} "{name}": module {module}{where} has no "{".".join(parts)}", expected a function'
        ) from error


def taken_apart(place: str, name: str, kind: str) -> tuple[str, list[str]]:
    """Module and path of the object in "module:object". Raises NamingError for any other text."""
    module, colon, path = place.partition(":")
    for part, what in ((module, "a module"), (path, "an object")):
        if not colon or not all(word.isidentifier() for word in part.split(".")):
            raise NamingError(f'{kind} "{name}": "{part}" is no name of {what}, expected "module:object"')
    return module, path.split(".")


def refused(name: Stored, kind: str) -> str:
    """The sentence on code that only a file asks for."""
    file, digest = name.code.get("file", ""), name.code.get("sha256", "")
    was = f" (it was {file}, sha256 {digest})" if DIGEST.fullmatch(digest) and file.isprintable() else ""
    return (
        f'{kind} "{name}" is code that a file names{was}, which is not run unasked: if it is yours, or you trust it, '
        f"name it yourself with {name.option} {name}"
    )


def identity(name: str) -> dict[str, str]:
    """{"file", "sha256"} of the module of a name that has been imported; {} where it has no file, as in a notebook."""
    file = getattr(sys.modules.get(name.partition(":")[0]), "__file__", None)
    if not file:
        return {}
    return {"file": str(Path(file).resolve()), "sha256": hashlib.sha256(Path(file).read_bytes()).hexdigest()}


@contextmanager
def importable(name: str) -> Iterator[None]:
    """Let modules of the current folder be imported, after all others and only within this: where `name` is code that
    no other place has. For what `load` gives, when it is called."""
    folder = current_folder()
    own = bool(folder) and is_code(name) and not isinstance(name, Stored) and is_of(name.partition(":")[0], folder)
    added = own and folder not in sys.path
    if added:
        sys.path.append(folder)
    try:
        yield
    finally:
        if added:
            with suppress(ValueError):
                sys.path.remove(folder)


def current_folder() -> str:
    """The current folder; "" where it is gone."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def is_of(module: str, folder: str) -> bool:
    """Whether a module is found nowhere, or was found in this folder."""
    top = module.partition(".")[0]
    there: ModuleType | None = sys.modules.get(top)
    if there is not None:
        places = [*([there.__file__] if getattr(there, "__file__", None) else []), *getattr(there, "__path__", ())]
        return any(str(Path(place).parent) in (folder, str(Path(folder, top))) for place in places)
    try:
        return top.isidentifier() and find_spec(top) is None
    except ValueError:
        return False
