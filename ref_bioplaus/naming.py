"""The one gate through which a name of code passes: "my_package.my_module:object", or "path/to/my_file.py:object".

It is imported only where a call or a command names it itself; a call may also hand over the object, whose name then is
`Given`. Where a file names it (an experiment, a checkpoint, ranges), the name is `Stored`, and stays shut until
somebody names it again. Other names are those of a table: what is built in, and the entry points of installed
packages, which files may name too.
"""

import hashlib
import importlib
import inspect
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import reduce
from importlib.abc import SourceLoader
from importlib.metadata import entry_points
from importlib.util import find_spec, module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

DIGEST = re.compile("[0-9a-f]{64}")
GIVEN = "was given to Python without a name that leads to it: give it again there, as in resume(out, code=[it])"
EXPECTED = 'expected "module:object" or "path/file.py:object"'


class NamingError(ValueError):
    """A name of code that is malformed, not there, or nobody's own; the message is one sentence."""


class Stored(str):
    """A name that a file gave: equal to its text, and no code is imported for it."""

    option = ""  # the command's option that names it again
    code: Mapping[str, str] = {}  # {"file", "sha256"} of what it stood for, as the file has it


class Given(str):
    """The name of a thing that is at hand: equal to its text. Another process, or a copy by pickle, has the text."""

    thing: Any = None
    module = ""  # where it is at home, as in sys.modules
    origin: Any = None  # what it was given for, where `thing` was made of it
    lasting = True  # whether the text leads to it in another process

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        return str, (str(self),)


def stored(name: str, option: str, code: Mapping[str, str] | None = None) -> Stored:
    """A name as a file gives it. option, code: for the sentence that refuses it."""
    found = Stored(name)
    found.option, found.code = option, code or {}
    return found


def at_hand(name: str, thing: Any, module: str, lasting: bool = True) -> Given:
    """A name with what it stands for."""
    found = Given(name)
    found.thing, found.module, found.lasting = thing, module, lasting
    return found


def given(thing: Any) -> str:
    """The name of a thing that a call has handed over; of a text the text itself.

    That of a thing of a module or of a script leads there; that of a lambda, and of what a notebook or a function has
    defined, only says so.
    """
    if isinstance(thing, str):
        return thing
    maker = thing if inspect.isroutine(thing) or inspect.isclass(thing) else getattr(thing, "make", None)
    home = getattr(maker, "__module__", None) or "__main__"
    module, path = sys.modules.get(home), getattr(maker, "__qualname__", "")
    if maker is None or followed(module, path) is not thing:
        path = next((name for name, value in vars(module).items() if value is thing), "") if module else ""
    if not path:
        what = getattr(thing, "__qualname__", None) or str(getattr(thing, "name", type(thing).__name__))
        return at_hand(f"{home}:{what if '<' in what else f'<{what}>'}", thing, home, lasting=False)
    file, spec = file_of(module), getattr(module, "__spec__", None)
    if home == "__main__" and spec is not None:  # python -m
        return at_hand(f"{spec.name}:{path}", thing, home)
    if file and is_file(file) and (home == "__main__" or isinstance(getattr(module, "__loader__", None), Source)):
        return at_hand(f"{file}:{path}", thing, home)
    return at_hand(f"{home}:{path}", thing, home, lasting=home != "__main__")


def asked(code: Any) -> list[str]:
    """The names of what a call gives as code: names, files, modules, things, or several of these; none of None."""
    several = code if isinstance(code, list | set | frozenset) or type(code) is tuple else [code]
    found = list[str]()
    for one in several:
        if inspect.ismodule(one):  # by its name, and by its file as a command would have named it
            found += filter(None, (one.__name__, file_of(one)))
        elif one is not None:
            found.append(os.fspath(one) if isinstance(one, os.PathLike) else given(one))
    return found


def file_of(module: Any) -> str:
    """The file of a module; "" where it has none, as one that was typed or piped into Python has."""
    file = getattr(module, "__file__", None)
    return file if file and os.path.isfile(file) else ""


def followed(module: Any, path: str) -> Any:
    """What a path of names leads to from a module; None where it leads nowhere."""
    return reduce(lambda found, name: getattr(found, name, None), path.split("."), module)


# What a name says


def is_file(name: str) -> bool:
    """Whether a text names a file of Python."""
    return name.lower().endswith(".py")


def is_code(name: str) -> bool:
    """Whether a name is one of code, and not of a table."""
    return ":" in name or is_file(name)


def parts(name: str) -> tuple[str, str]:
    """Module or file, and object, of a name of code; a file's name may have a colon itself, as C:\\rule.py:rule has."""
    if is_file(name) or ":" not in name:
        return name, ""
    place, _, path = name.rpartition(":")
    return place, path


def short(name: str) -> str:
    """A name of code without the folders of its file: what it is called wherever it lies."""
    place, path = parts(name)
    return ":".join(filter(None, (re.split(r"[/\\\\]", place)[-1], path))) if is_file(place) else name


def nameless(name: Any) -> bool:
    """Whether a name only says what was given, a lambda for instance, and leads to nothing."""
    return "<" in parts(name)[1]


def told_apart(name: Given, taken: Mapping[str, Given]) -> Given:
    """The name, numbered where another thing has it already: two lambdas of one module are called the same."""
    found, number = str(name), 1
    while found in taken and made_of(taken[found]) is not made_of(name):
        number += 1
        found = f"{name} {number}"
    if found == name:
        return name
    other = at_hand(found, name.thing, name.module, name.lasting)
    other.origin = name.origin
    return other


def made_of(name: Given) -> Any:
    """What was given."""
    return name.thing if name.origin is None else name.origin


def named(names: Iterable[Any]) -> tuple[str, ...]:
    """Those of some names that a call or a command gave itself, and no file."""
    return tuple(name for name in names if isinstance(name, str) and not isinstance(name, Stored))


def named_again(name: str, asked: Iterable[str]) -> str | None:
    """A file's name as a call gives it anew, None where it does not. asked: names, or the files or modules that hold
    them; a file may lie elsewhere by now."""
    place, path = parts(name)
    for again in asked:
        if short(again) == short(name):
            return again
        if again == place:
            return str(name)
        if is_file(again) and short(f"{again}:{path}") == short(name):
            return f"{again}:{path}"
    return None


def enrolled(group: str) -> dict[str, str]:
    """What installed packages bring by their entry points in a group, {name: "module:object"}."""
    return {entry.name: entry.value for entry in entry_points(group=group)}


# Importing


def load(name: str, table: Mapping[str, str], kind: str) -> Any:
    """The object of that name, its module imported now.

    table: {name: "module:object"} of the names that are known. kind: of thing, for the sentences, as "backend". Raises
    NamingError for a name that is none, for code that a file names, for an object that is not there and for code that
    cannot be run; ImportError for a module that is not there.
    """
    return loaded(name, table, kind).thing


def loaded(name: str, table: Mapping[str, str], kind: str) -> Given:
    """The name with its object; see `load`."""
    if isinstance(name, Given):
        return name
    where, path = taken_apart(table.get(name, name), name, kind)
    if name not in table and isinstance(name, Stored):
        raise NamingError(refused(name, kind))
    content = read(where, name, kind) if is_file(where) else b""
    with importable(name):
        try:
            module = from_file(where, content) if is_file(where) else importlib.import_module(where)
        except (Exception, SystemExit) as error:
            if isinstance(error, ImportError) and not is_file(where):
                raise
            raise NamingError(f'{kind} "{name}": {where} cannot be imported ({told(error)}), mend it') from error
    try:
        return at_hand(name, reduce(getattr, path.split("."), module), module.__name__)
    except AttributeError as error:
        file = getattr(module, "__file__", None)
        what = where if is_file(where) else f"module {where} ({file})" if file else f"module {where}"
        raise NamingError(f'{kind} "{name}": {what} has no "{path}", expected a function') from error


def read(where: str, name: str, kind: str) -> bytes:
    """The content of a file of code. Raises NamingError."""
    try:
        return Path(where).read_bytes()
    except (OSError, ValueError) as error:  # the second for a null character
        why = getattr(error, "strerror", None) or error
        raise NamingError(f'{kind} "{name}": {where} cannot be read ({why}), name another file') from error


def told(error: BaseException) -> str:
    """An error of somebody's code, in a few words, with the line that raised it."""
    line, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        line = line if file.startswith("<") else f", line {trace.tb_lineno} of {Path(file).name}"
        trace = trace.tb_next
    line = "" if isinstance(error, SyntaxError) else line  # its own words have another one
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{line}"


class Source(SourceLoader):
    """A module of one file, whose content was read before."""

    def __init__(self, path: str, content: bytes):
        self.path, self.content = path, content

    def get_filename(self, name: str):
        """The file."""
        return self.path

    def get_data(self, path: str):
        """Its content as it was read."""
        if path != self.path:
            raise OSError(path)
        return self.content


def from_file(where: str, content: bytes) -> ModuleType:
    """The module of a file, run where this process has not run it with this content. Raises what the code raises."""
    path = str(Path(where).resolve())
    digest = hashlib.sha256(os.fsencode(path) + b"\0" + content).hexdigest()
    name = f"{re.sub(r'[^0-9A-Za-z]', '_', Path(path).stem)}_{digest[:12]}"
    if name in sys.modules:
        sys.modules[name] = sys.modules.pop(name)  # `source` finds the last one
    else:
        loader = Source(path, content)
        spec = spec_from_loader(name, loader)
        assert spec is not None
        sys.modules[name] = module_from_spec(spec)
        try:
            loader.exec_module(sys.modules[name])
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def taken_apart(place: str, name: str, kind: str) -> tuple[str, str]:
    """Module or file, and path of the object, of a name of code. Raises NamingError for any other text."""
    where, path = parts(place)
    if nameless(name):
        raise NamingError(f'{kind} "{name}" {GIVEN}')
    if is_file(where) and not path:
        raise NamingError(f'{kind} "{name}": "" is no name of an object, {EXPECTED}')
    checked = ((path, "an object"),) if is_file(where) else ((where, "a module"), (path, "an object"))
    for part, what in checked:
        if not all(word.isidentifier() for word in part.split(".")):
            raise NamingError(f'{kind} "{name}": "{part}" is no name of {what}, {EXPECTED}')
    return where, path


def refused(name: Stored, kind: str) -> str:
    """The sentence on code that only a file asks for."""
    file, digest = name.code.get("file", ""), name.code.get("sha256", "")
    was = f" (it was {file}, sha256 {digest})" if DIGEST.fullmatch(digest) and file.isprintable() else ""
    again = parts(name)[0] if name.option == "--code" else name
    python = f", in Python code={again!r}" if name.option == "--code" else ""
    if again == "__main__":
        return f'{kind} "{name}" {GIVEN}'
    return (
        f'{kind} "{name}" is code that a file names{was}, which is not run unasked: if it is yours, or you trust it, '
        f"name it yourself with {name.option} {shlex.quote(again)}{python}"
    )


# What was imported


def source(name: str) -> tuple[str, bytes] | None:
    """The file and its content that hold the code of a name which has been imported, as it was run where the gate has
    read it; None where there is no file, as in a notebook, of which a function's own text is returned if it is known.
    """
    home = name.module if isinstance(name, Given) else parts(name)[0]
    if is_file(home):
        path = str(Path(home).resolve())
        loaders = {name: getattr(module, "__loader__", None) for name, module in [*sys.modules.items()]}
        mine = [name for name, one in loaders.items() if isinstance(one, Source) and one.path == path]
        home = mine[-1] if mine else ""
    module = sys.modules.get(home)
    loader, file = getattr(module, "__loader__", None), file_of(module)
    if isinstance(loader, Source):
        return loader.path, loader.content
    if file:
        return str(Path(file).resolve()), Path(file).read_bytes()
    if isinstance(name, Given):
        with suppress(OSError, TypeError):
            return home, inspect.getsource(made_of(name)).encode()
    return None


def identity(name: str) -> dict[str, str]:
    """{"file", "sha256"} of what `source` finds; {} of nothing."""
    found = source(name)
    return {"file": found[0], "sha256": hashlib.sha256(found[1]).hexdigest()} if found else {}


@contextmanager
def importable(name: str) -> Iterator[None]:
    """Let modules of the current folder be imported, after all others and only within this: where `name` is code that
    no other place has; beside a file, those of its folder. For what `load` gives, when it is called."""
    place, _ = parts(name)
    folder = os.path.dirname(place_of(place)) if is_file(place) else current_folder()
    own = bool(folder) and is_code(name) and not isinstance(name, Stored) and (is_file(place) or is_of(place, folder))
    added = own and folder not in sys.path
    if added:
        sys.path.append(folder)
    try:
        yield
    finally:
        if added:
            with suppress(ValueError):
                sys.path.remove(folder)


def place_of(file: str) -> str:
    """Where a file is, its links followed; "" of a name that no file can have."""
    return "" if "\0" in file else str(Path(file).resolve())


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
