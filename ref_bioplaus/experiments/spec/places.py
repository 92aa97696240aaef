"""Where an experiment names things, which may be code: some of its fields, and places within others."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

FIELDS = ("algorithm", "model", "dataset", "augmentation", "loss", "backend")  # each names a thing of its own kind
OPTIMIZERS = ("optimizer", "inverse_optimizer")  # tables with a `name`, and tables of some layers with one
NOT_LEARNED = ("backend", "metric")  # kinds that leave what is learned as it is
Change = Callable[[str, Any], Any]  # (kind, name) -> another name


def changed(fields: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """An experiment's fields, or some of them, with other names; what is None, or of another form, stays as it is."""
    found = dict(fields)
    for kind in FIELDS:
        if found.get(kind) is not None:
            found[kind] = change(kind, found[kind])
    for field in OPTIMIZERS:
        if isinstance(found.get(field), Mapping):
            found[field] = of_optimizer(found[field], change)
    if isinstance(found.get("modifications"), Mapping):
        found["modifications"] = {change("modification", name): v for name, v in found["modifications"].items()}
    if isinstance(found.get("metrics"), list | tuple):
        found["metrics"] = type(found["metrics"])(change("metric", name) for name in found["metrics"])
    return found


def of_optimizer(table: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """An optimizer's table, and those of its layers, with other names."""
    found = dict(table)
    if "name" in found:
        found["name"] = change("optimizer", found["name"])
    layers = found.get("by_layer")
    if isinstance(layers, Mapping):
        found["by_layer"] = {
            l: of_optimizer(own, change) if isinstance(own, Mapping) else own for l, own in layers.items()
        }
    return found


def names(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(kind, name) of everything that an experiment's fields name."""
    found: list[tuple[str, Any]] = []

    def keep(kind, name):
        found.append((kind, name))
        return name

    changed(fields, keep)
    yield from found
