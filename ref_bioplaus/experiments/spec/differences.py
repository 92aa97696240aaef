"""Wherein two experiments differ."""

from collections.abc import Collection, Iterator
from typing import Any

from .. import papers
from .experiment import Experiment, ExperimentError, as_dict, from_dict


def understood(fields: Any) -> dict[str, Any]:
    """Stored fields of an experiment in their full form; {} where they are none."""
    try:
        return as_dict(from_dict(fields))
    except (ExperimentError, AttributeError, TypeError):
        return {}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether the fields of two experiments are equal, and their modifications in the same order."""
    return a == b and list(a.get("modifications", ())) == list(b.get("modifications", ()))


def differences(a: dict[str, Any], b: dict[str, Any], free: Collection[str] = ()) -> Iterator[tuple[str, Any, Any]]:
    """(dotted path, value in a, value in b) wherever two tables differ; None where one has none. free: names of fields
    that may differ."""
    mine, theirs = dict(papers.flat(a)), dict(papers.flat(b))
    for name in sorted(mine.keys() | theirs.keys()):
        if name.partition(".")[0] not in free and mine.get(name) != theirs.get(name):
            yield name, mine.get(name), theirs.get(name)


def free_of(experiment: Experiment, names: Collection[str]) -> set[str]:
    """Those of some names of fields on which what an experiment learns does not depend: without "epochs" where signs
    are fixed after a share of them."""
    return set(names) - ({"epochs"} if takes_a_share(experiment) else set())


def takes_a_share(experiment: Experiment) -> bool:
    """Whether something begins after a share of the epochs, so that their number is a part of what is learned."""
    return any("start_share" in options for options in experiment.modifications.values())
