"""Walks through trees that come again and again, written down as straight Python code: several times as fast."""

from collections.abc import Callable
from typing import Any


def compiled(argument: str, code: list[str], known: dict[str, Any]) -> Callable:
    """A function of one argument from lines of Python code and the values of the names in them."""
    source = "\n    ".join([f"def function({argument}):", *code])
    exec(compile(source, "<tree>", "exec"), known)
    return known["function"]
