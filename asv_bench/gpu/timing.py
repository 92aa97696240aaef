"""Times on one card, the most telling first, until the time is up.

A line is {"what": "planned", "items"}, {"what": "record", "item", ...}, as a record of cases.py, {"what": "part",
"item", "part", ...}, where the time of a step goes, or {"what": "failed", "item", "reason"}.
"""

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from ref_bioplaus import backends
from ref_bioplaus.backends import Backend
from ref_bioplaus.gpu.plan import PRICES

from .. import cases, measure, profile
from ..flops import step_flops
from ..native import device_name, forget_compiled
from ..workloads import METHODS, WORKLOADS, Training, Workload, methods_of

SECONDS = 1.0  # of a contest
FIRST, REST = ("W1", "W2", "W6", "W7"), ("W8", "W3", "W4", "W5")
TINY = {
    "W1": WORKLOADS["W1"].smaller((9,), 5, 5 / 256), "W2": WORKLOADS["W2"].smaller((11,), 3, 7 / 1024),
    "W3": WORKLOADS["W3"].smaller((10, 8, 3), 5, 1 / 16),
}  # fmt: skip


class Item(NamedTuple):
    """One thing to measure."""

    kind: str  # "native", "together", "algorithm", "where", "usual", or that of a price
    workload: str
    backend: str
    precision: str = "ieee"
    method: str = "BP"

    def __str__(self) -> str:
        method = f", {self.method}" if self.method != "BP" else ""
        return f"{self.kind}: {self.workload}{method}, {self.backend.rpartition(':')[2]} {self.precision}"


def items(names: Sequence[str], rounding: Sequence[str], small: bool) -> Iterator[Item]:
    """What there is to measure on some backends, the most telling first. rounding: those of them that have TF32 and
    bf16 too; small: on a CPU."""
    fast = [(name, "tf32") for name in rounding]
    one = [(name, "ieee") for name in names if name not in rounding]
    if small:
        fast, one = [], [(name, "ieee") for name in names]
    for workload in TINY if small else FIRST:
        yield from (Item("native", workload, *on) for on in fast + one)
        yield from (Item("algorithm", workload, *on, "FA") for on in (fast or one))
        if workload == ("W1" if small else "W2"):
            yield from prices(rounding, small, "usual")
        if workload in ("W1", "W2"):
            yield from (Item("together", workload, *on) for on in (fast or one))
    if small:
        return
    half = [(name, "bf16") for name, _ in fast]
    yield from (Item("where", "W1", *on) for on in fast + one)
    yield from (Item("native", workload, *on) for workload in ("W7", "W8") for on in half)
    yield from others("W1", fast)
    yield from (Item("native", workload, *on) for workload in REST for on in fast + one)
    exact = [(name, "ieee") for name, _ in fast]
    yield from (Item("native", workload, *on) for workload in FIRST for on in exact)
    yield from (Item("where", "W6", *on) for on in fast + one)
    yield from others("W6", fast)
    yield from (Item("native", workload, *on) for workload in ("W1", "W2", "W6") for on in half)


def others(workload: str, on: Sequence[tuple[str, str]]) -> Iterator[Item]:
    """Every algorithm but FA, which comes first, against BP. on: backends and precisions."""
    methods = [m for m in METHODS if m not in ("BP", "FA") and m in methods_of(WORKLOADS[workload])]
    yield from (Item("algorithm", workload, *one, method) for method in methods for one in on)


def prices(names: Sequence[str], small: bool, kind: str) -> Iterator[Item]:
    """Steps that are timed as the libraries compute usually, and, in a process of its own, deterministically."""
    for workload in ("W1",) if small else ("W1", "W6"):
        yield from (Item(kind, workload, name) for name in names)


def lines(items: Iterable[Item], device: str | None, small: bool, until: float) -> Iterator[dict[str, Any]]:
    """The lines of all that fits. until: by time.time(); what was begun is brought to its end, unless it fails."""
    planned = list(items)
    yield {"what": "planned", "items": [str(item) for item in planned]}
    peaks: dict[tuple[str, str], dict[str, float]] = {}
    for item in planned:
        if time.time() > until:
            return
        try:
            backend = backends.get(item.backend, device=device, precision=item.precision, kernels="native")
            on = device_name(backend), backend.precision
            if on not in peaks and not small:
                peaks[on] = measure.peaks(0.3, *on)
                yield {"what": "record", "item": f"peak: {on[1]}", "kind": "peak", **peaks[on]}
            yield from measured(item, backend, peaks.get(on, {}), small)
        except Exception as error:  # what fails on a card is a result, and the others go on
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            yield {"what": "failed", "item": str(item), "reason": reason}
        finally:
            forget_compiled(item.backend)
            gc.collect()


def measured(item: Item, backend: Backend, peaks: dict[str, float], small: bool) -> Iterator[dict[str, Any]]:
    """The lines of one thing."""
    seconds = 0.05 if small else SECONDS
    workload = (TINY if small else WORKLOADS)[item.workload]
    workload = replace(workload, name=item.workload)
    if item.kind == "where":
        parts, total, steps = profile.SPLIT[item.backend](item.workload, item.method, backend)
        for name, calls, took, share in profile.rows(parts, total, steps, 8):
            yield {"what": "part", "item": str(item), "part": name, "calls": calls, "ms a step": took, "share": share}
        return
    if item.kind in ("usual", *(price.kind for price in PRICES)):
        undo = backend.be_deterministic() if item.kind != "usual" else lambda: None
        try:
            for record in cases.steps(workload, backend, (), seconds):
                yield {"what": "record", "item": str(item), "precision": item.precision, **record}
        finally:
            undo()
        return
    kinds: dict[str, Callable[..., Iterator[cases.Record]]] = {
        "native": partial(cases.native, seconds=seconds, compiled=not small),
        "together": partial(cases.together, seconds=seconds, steps=2 if small else 8),
        "algorithm": partial(cases.steps, methods=(item.method,), seconds=seconds),
    }
    for record in kinds[item.kind](workload, backend):
        if item.kind != "algorithm" or record["method"] == item.method:
            more = share_of_peak(record, workload, backend, peaks) if item.kind == "native" else {}
            yield {"what": "record", "item": str(item), "precision": item.precision, **record, **more}


def share_of_peak(
    record: cases.Record, workload: Workload, backend: Backend, peaks: dict[str, float]
) -> dict[str, float]:
    """What a step's products come to, of what one large product reaches on the same device."""
    most = peaks.get("torch product") or peaks.get("numpy product")
    if not most:
        return {}
    network = Training(workload, "BP", backend).network
    return {"share_of_peak": step_flops(network, "BP", workload) / record["seconds"] / most}
