"""Wherein two experiments differ."""

from collections.abc import Iterator
from typing import Any

from .. import papers
from .experiment import ExperimentError, as_dict, from_dict


def understood(fields: Any) -> dict[str, Any]:
    """Stored fields of an experiment in their full form; {} where they are none."""
    try:
        return as_dict(from_dict(fields))
    except (ExperimentError, AttributeError, TypeError):
        return {}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether the fields of two experiments are equal, and their modifications in the same order."""
    return a == b and list(a.get("modifications", ())) == list(b.get("modifications", ()))


def differences(a: dict[str, Any], b: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(dotted path, value in a, value in b) wherever the fields of two experiments differ; None where one has none."""
    mine, theirs = dict(papers.flat(a)), dict(papers.flat(b))
    for name in sorted(mine.keys() | theirs.keys()):
        if mine.get(name) != theirs.get(name):
            yield name, mine.get(name), theirs.get(name)
