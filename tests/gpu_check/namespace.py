"""What our code, and array_api_compat's for CuPy, reaches in CuPy: read from the text, looked up in what is installed.

A call is compared with the signature of what it calls: so many arguments, and keywords of these names.
"""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import array_api_compat
import array_api_compat.cupy
import cupy
import numpy as np

from tests.helpers import ROOT

COMPAT = Path(array_api_compat.__file__).parent
LIBRARY = sorted((ROOT / "ref_bioplaus").glob("*.py")) + sorted((ROOT / "ref_bioplaus" / "algorithms").glob("*.py"))
OURS = sorted((ROOT / "backends" / "cupy_").glob("*.py"))
PLACES = (  # files, what stands for a namespace in them, and which that is
    (LIBRARY, ("xp", "array_namespace"), array_api_compat.cupy),
    (OURS, ("xp", "self.xp", "cupy"), cupy),
    (sorted((COMPAT / "cupy").glob("*.py")), ("cp", "cupy"), cupy),
)
LACKING = {name for name in dir(np.ndarray) if not hasattr(cupy.ndarray, name)}
UFUNC = {"out", "dtype", "casting", "where"}  # the keywords that CuPy's ufuncs take


class Use(NamedTuple):
    """An attribute of a namespace in a file, and how it is called."""

    where: str
    name: str
    positional: int | None = None  # None where it is not called, or with a number of arguments that is not written
    keywords: tuple[str, ...] = ()


def uses(path: Path, stand: tuple[str, ...]) -> Iterator[Use]:
    """Every use of a namespace in a file, but for what it asks for by hasattr before."""
    tree = ast.parse(path.read_text("utf-8"))
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    asked = {ast.unparse(call.args[1]).strip("'") for call in calls.values() if ast.unparse(call.func) == "hasattr"}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or (id(node) in inner and not isinstance(node.value, ast.Call)):
            continue
        base, names = node.value, [node.attr]
        while isinstance(base, ast.Attribute) and ast.unparse(base) not in stand:
            names.insert(0, base.attr)
            base = base.value
        of = base.func if isinstance(base, ast.Call) else base
        if ast.unparse(of) not in stand or (isinstance(base, ast.Call) and ast.unparse(of) != "array_namespace"):
            continue
        if names[-1] in asked:
            continue
        where, name, call = f"{path.name}:{node.lineno}", ".".join(names), calls.get(id(node))
        if call is None or any(isinstance(argument, ast.Starred) for argument in call.args):
            yield Use(where, name)
        else:
            keywords = tuple(keyword.arg for keyword in call.keywords if keyword.arg)
            yield Use(where, name, len(call.args), keywords)


def wrong(use: Use, namespace: Any) -> str:
    """What is wrong with one use; "" for nothing."""
    found = namespace
    for name in use.name.split("."):
        if not hasattr(found, name):
            return f"{use.where}: {namespace.__name__} has no {use.name}"
        found = getattr(found, name)
    if use.positional is None:
        return ""
    if isinstance(found, cupy.ufunc):
        fits = found.nin <= use.positional <= found.nargs and {*use.keywords} <= UFUNC
        return "" if fits else f"{use.where}: {use.name} is a ufunc of {found.nin} arguments"
    try:
        inspect.signature(found).bind(*[None] * use.positional, **dict.fromkeys(use.keywords))
    except ValueError:  # of what is written in C nobody tells the signature
        return ""
    except TypeError as error:
        return f"{use.where}: {use.name}{inspect.signature(found)}: {error}"
    return ""


def methods() -> Iterator[str]:
    """What is reached in arrays that NumPy's have, and CuPy's do not."""
    for path in (*LIBRARY, *OURS):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in LACKING:
                yield f"{path.name}:{node.lineno}: CuPy's arrays have no {node.attr}"


def every() -> list[tuple[Use, Any]]:
    """Every use, and the namespace that it is of."""
    return [(use, namespace) for files, stand, namespace in PLACES for path in files for use in uses(path, stand)]


def findings() -> list[str]:
    """What is reached and is not there, or takes other arguments."""
    return [said for use, namespace in every() if (said := wrong(use, namespace))] + list(methods())
