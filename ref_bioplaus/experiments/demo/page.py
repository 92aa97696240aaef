"""What the demo leaves behind: index.html, a page that needs no other file, and demo.json with the same numbers.

demo.json, "schema": "ref_bioplaus.demo/1":

    settings, environment, left_out      what was asked for, where it ran, {backend: why it did not take part}
    trainings    [{algorithm, label, file, paper, equations, network, backend, recipe, note, steps, failure,
                   test_error_percent, test_error_of_seeds: [lowest, highest] or null, seconds, warm_up_seconds,
                   images_per_second, angle_degrees,
                   curve: [[step, test error in %]], angles: {layer: [[step, degrees from W to B]]}}]
    agreement    {reference, limit, comparisons: [{algorithm, network, backend, difference, tensor, agrees, failure}]}
    agree, interrupted, verdict          the last line of the command

A number that does not exist is null; `failure` is "" where nothing was raised.
"""

import errno
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from os.path import exists, isdir
from pathlib import Path
from typing import Any, NamedTuple

from ...machine import files
from ...machine.files import write_whole
from ...showing import pages
from . import agreement, pictures, seeds
from .networks import ARCHITECTURES, Architecture
from .results import REFERENCE, Comparison, Results, Training

PAGE, DATA = "index.html", "demo.json"
SCHEMA = "ref_bioplaus.demo/1"
MEASURES = ("test error, %", "time, s", "images per second", "angle to W")


def check_writable(folder: Path) -> None:
    """Raise OSError where the folder cannot be made or the two files cannot be written into it. Makes nothing."""
    nearest = next(place for place in (folder, *folder.absolute().parents) if exists(place))
    if not isdir(nearest):
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(nearest))
    for file in (folder / PAGE, folder / DATA):
        files.check_place(file)
    for place in (nearest, *(file for file in (folder / PAGE, folder / DATA) if exists(file))):
        if not os.access(place, os.W_OK) or (place is not nearest and isdir(place)):
            raise PermissionError(errno.EACCES, "Permission denied", str(place))


def write(results: Results, folder: Path) -> Path:
    """Write both files into the folder, and return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / DATA, json.dumps(as_data(results), indent=1, allow_nan=False).encode())
    write_whole(folder / PAGE, as_page(results).encode())
    return folder / PAGE


def as_data(results: Results) -> dict[str, Any]:
    """The results as what JSON can hold; see the module."""
    return {
        "schema": SCHEMA,
        "settings": asdict(results.settings),
        "environment": results.environment,
        "left_out": results.left_out,
        "trainings": [training_data(t) for t in results.trainings],
        "agreement": {
            "reference": REFERENCE,
            "limit": agreement.LIMIT,
            "comparisons": [comparison_data(c) for c in results.comparisons],
        },
        "agree": results.agree,
        "interrupted": results.interrupted,
        "verdict": results.verdict(),
    }


def training_data(t: Training) -> dict[str, Any]:
    """One row on one backend."""
    return {
        "algorithm": t.row.name,
        "label": t.row.label,
        "file": t.row.file,
        "paper": t.row.paper,
        "equations": t.row.equations,
        "network": t.architecture.name,
        "backend": t.backend,
        "recipe": str(t.row.recipe(t.architecture.name)),
        "note": t.note,
        "steps": t.steps,
        "failure": t.failure,
        "test_error_percent": number(t.error),
        "test_error_of_seeds": seeds.spread(t),
        "seconds": number(t.seconds),
        "warm_up_seconds": number(t.warm_up_seconds),
        "images_per_second": number(t.images_per_second),
        "angle_degrees": number(t.angle),
        "curve": [[step, number(error)] for step, error in t.curve],
        "angles": {str(l): [[step, number(angle)] for step, angle in points] for l, points in t.angles.items()},
    }


def comparison_data(c: Comparison) -> dict[str, Any]:
    """One row on one backend, against the reference."""
    return {
        "algorithm": c.row.name,
        "network": c.architecture.name,
        "backend": c.backend,
        "difference": number(c.difference),
        "tensor": c.tensor,
        "agrees": c.agrees,
        "failure": c.failure,
    }


def number(value: float) -> float | None:
    """A finite number, or None."""
    return value if math.isfinite(value) else None


def shown(t: Training) -> tuple[str, str, str, str]:
    """A training's four MEASURES as text, "–" for what there is not, and (V) where the angle is that of inverses."""
    if t.failure:
        return ("failed", "", "", "")
    angle = "–" if math.isnan(t.angle) else f"{t.angle:.0f}°{' (V)' if t.row.inverses else ''}"
    return (f"{t.error:.1f}", f"{t.seconds:.2f}", f"{t.images_per_second:,.0f}", angle)


# The page


def as_page(results: Results) -> str:
    """The page as HTML."""
    by_network = [(a, results.learned(a)) for a in ARCHITECTURES]
    trainings = [t for _, members in by_network for t in members]
    return pages.template(Path(__file__).parent / "templates" / "demo.html").render(
        results=results,
        verdict=results.verdict(),
        backends=list(dict.fromkeys(t.backend for t in results.trainings)),
        algorithms=len({t.row.name for t in results.trainings}),
        curves=pictures.learning_curves(trainings),
        angles=pictures.angle_curves(trainings),
        tables=[training_table(a, members) for a, members in by_network if members],
        agreement=agreement_table(results.comparisons),
        apart=seeds.apart(trainings),
        seeds=seeds.SEEDS,
        seeded=seeds.BACKEND if any(map(seeds.spread, trainings)) else "",
        limit=f"{agreement.LIMIT:g}",
        reference=REFERENCE,
    )


class Table(NamedTuple):
    """What a table of trainings shows."""

    architecture: Architecture
    groups: list[tuple[str, list[str]]]  # (what is measured, the columns below: one for each backend)
    rows: list[tuple[Training, list[list[str]], list[str]]]  # one of the row's trainings, its cells, its failures


def training_table(architecture: Architecture, trainings: Sequence[Training]) -> Table:
    """A column for every measure and backend; where each row ran on one backend only, a column for every measure."""
    names = list(dict.fromkeys(t.backend for t in trainings))
    by_row: dict[str, dict[str, Training]] = {}
    for t in trainings:
        by_row.setdefault(t.row.name, {})[t.backend] = t
    single = len(names) > 1 and all(len(mine) == 1 for mine in by_row.values())
    spreads = {name: seeds.spread(next(iter(mine.values()))) for name, mine in by_row.items()}
    known = any(spreads.values())
    rows = []
    for row, mine in by_row.items():
        if single:
            (t,) = mine.values()
            cells = [[t.backend], *([text] for text in shown(t))]
        else:
            cells = [[shown(mine[name])[i] if name in mine else "" for name in names] for i in range(len(MEASURES))]
        if known:
            cells[1 if single else 0].append(str(spreads[row] or ""))
        failures = [f"{t.backend}: {t.failure}" for t in mine.values() if t.failure]
        rows.append((next(iter(mine.values())), cells, failures))
    columns = [""] if single else names
    groups = [(measure, list(columns)) for measure in (("backend",) if single else ()) + MEASURES]
    if known:
        groups[1 if single else 0][1].append(f"{seeds.SEEDS} seeds")
    return Table(architecture, groups, rows)


def agreement_table(comparisons: Sequence[Comparison]) -> tuple[list[str], list[dict[str, Any]]]:
    """Backends, and for every row and network {label, network, cells: the comparison on each backend or None}."""
    names = list(dict.fromkeys(c.backend for c in comparisons))
    found = {(c.row.name, c.architecture.name, c.backend): c for c in comparisons}
    keys = dict.fromkeys((c.row.name, c.architecture.name, c.row.label) for c in comparisons)
    return names, [
        {"label": label, "network": network, "cells": [found.get((row, network, name)) for name in names]}
        for row, network, label in keys
    ]
