"""Checking an implementation in any language by files: `emit` writes what a step needs, `verdicts` judges results.

    DIR/manifest.json          what every case and every array is
    DIR/inputs/<file>.npz      state, batch and random numbers
    DIR/outputs/<file>.npz     what the implementation under test makes of them

It may give any of the outputs that the manifest names; those that it gives are judged.
"""

import difflib
import json
import math
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from ref_bioplaus import __version__
from ref_bioplaus.conformance import description, judge
from ref_bioplaus.conformance.axes import LAYOUTS
from ref_bioplaus.conformance.judge import LIMIT, Score
from ref_bioplaus.conformance.rounding import Rounded
from ref_bioplaus.conformance.vectors import DIGEST, MANIFEST, Vector, digest, models, pretty, steps
from ref_bioplaus.experiments.checkpoints import write_whole
from ref_bioplaus.experiments.files import to_read, to_write, typed
from ref_bioplaus.layouts import Axes

FORMAT = "ref_bioplaus.conformance.exchange 1"
DTYPES = ("float32", "float64")
TELLING = ("info/loss", "info/grads", "info/feedback_grads", "state/forward/params", "state/feedback/params")


class ExchangeError(ValueError):
    """A request or a file that cannot be understood; the message is one sentence."""


class Verdict(NamedTuple):
    """What the judge says of one case."""

    id: str
    state: str  # "pass", "fail", "error" (the file cannot be judged) or "not run" (there is none, or none can be)
    text: str
    score: float = 0.0
    given: int = 0
    missing: tuple[str, ...] = ()


def emit(folder: Path, pattern: str = "*", layout: str = "NHWC", dtype: str = "float64") -> list[str]:
    """Write the manifest and the inputs of the cases that match; returns their ids.

    pattern: of an id, with * and ? as wildcards. Raises ExchangeError for a pattern that matches
    nothing, an unknown layout or dtype, and a folder that cannot be written.
    """
    choose("layout", layout, LAYOUTS)
    choose("dtype", dtype, DTYPES)
    known = list(steps(dtype))
    vectors = [vector for vector in known if fnmatchcase(vector.id, pattern)]
    if not vectors:
        close = difflib.get_close_matches(pattern, [vector.id for vector in known], n=3, cutoff=0.3)
        raise ExchangeError(f'No case matches "{pattern}", ids are such as {", ".join(close) or known[0].id}.')
    rows = []
    try:
        (folder / "inputs").mkdir(parents=True, exist_ok=True)
        for vector in vectors:
            arrays = {name: tensor.axes.to(layout, tensor.array) for name, tensor in vector.inputs().items()}
            with to_write(folder / "inputs" / f"{vector.file}.npz") as file:
                np.savez(file, allow_pickle=False, **arrays)
            rows.append(vector.describe(layout) | {"file": f"{vector.file}.npz"})
        content = {
            "format": FORMAT,
            "version": __version__,
            "layout": layout,
            "dtype": dtype,
            "digest": f"{DIGEST}; of the arrays in layout NHWC",
            "names": description.NAMES,
            "models": models(tuple(vectors)),
            "cases": rows,
        }
        write_whole(folder / MANIFEST, (pretty(content) + "\n").encode())
    except OSError as error:
        raise ExchangeError(f"The folder {folder} cannot be written to ({error.strerror}): name another.") from error
    return [vector.id for vector in vectors]


def choose(what: str, value: str, known: tuple[str, ...]) -> None:
    """Raise ExchangeError for a word that is not known."""
    if value not in known:
        raise ExchangeError(f'The {what} "{value}" is unknown: choose {" or ".join(known)}.')


def verdicts(folder: Path, outputs: Path | None = None, dtype: str | None = None) -> Iterator[Verdict]:
    """The verdict on every case of a manifest, as they are judged.

    outputs: where the results lie, DIR/outputs unless said otherwise. dtype: of the computation under test, the
    manifest's unless said otherwise. Raises ExchangeError where the manifest cannot be used or there are no outputs.
    """
    content = read_manifest(folder)
    emitted, layout = content["dtype"], content["layout"]
    dtype = dtype or emitted
    choose("dtype", dtype, DTYPES)
    if (emitted, dtype) == ("float64", "float32"):
        raise ExchangeError(f"{folder} holds float64 inputs, which float32 cannot hold: emit with --dtype float32.")
    outputs = outputs or folder / "outputs"
    if not outputs.is_dir():
        raise ExchangeError(f"The folder {outputs} does not exist: write outputs there, or name it with --outputs.")
    if not any((outputs / row["file"]).exists() for row in content["cases"]):
        raise ExchangeError(f"{outputs} holds no outputs, such as {content['cases'][0]['file']}: nothing to judge.")
    known = {vector.id: vector for vector in steps(emitted)}
    for row in content["cases"]:
        yield verdict(row, known.get(row["id"]), outputs / row["file"], layout, dtype)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest that `emit` wrote. Raises ExchangeError where there is none, or none of ours."""
    file = folder / MANIFEST
    try:
        with to_read(file) as opened:
            content = json.load(opened)
    except OSError as error:
        raise ExchangeError(
            f"{file} cannot be read ({error.strerror}): write it with {typed('conformance', 'emit', folder)}."
        ) from error
    except ValueError as error:
        raise ExchangeError(f"{file} is not JSON ({error}): emit it again.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or not complete(content):
        raise ExchangeError(f'{file} is not a manifest of format "{FORMAT}": emit it again.')
    return content


def complete(content: dict[str, Any]) -> bool:
    """Whether a manifest holds what judging needs."""
    rows = content.get("cases")
    return (
        content.get("layout") in LAYOUTS
        and content.get("dtype") in DTYPES
        and isinstance(rows, list)
        and bool(rows)
        and all(isinstance(row, dict) and {"id", "seed", "file", "inputs_sha256"} <= row.keys() for row in rows)
        and all(isinstance(row["file"], str) and Path(row["file"]).name == row["file"] for row in rows)
    )


def verdict(row: dict[str, Any], vector: Vector | None, file: Path, layout: str, dtype: str) -> Verdict:
    """The verdict on one case."""
    id = row["id"]
    if not file.exists():
        return Verdict(id, "not run", f"there is no {file.name}")
    if vector is None:
        return Verdict(id, "error", "the package has no such case: emit again")
    vector = Vector(vector.case, vector.mode, vector.n, row["seed"])
    inputs = {name: tensor.array for name, tensor in vector.inputs().items()}
    if digest(inputs) != row["inputs_sha256"]:
        return Verdict(id, "error", "its inputs are not those that this version of the package gives: emit again")
    try:
        with to_read(file) as opened, np.load(opened, allow_pickle=False) as archive:
            given = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, BadZipFile) as error:
        return Verdict(id, "error", f"{file.name} cannot be read as .npz ({error})")
    expected = vector.expected(dtype)
    if expected.undecidable:
        return Verdict(id, "not run", f"{expected.undecidable} decisions are undecidable in {dtype}: emit again")
    wrong = misnamed(given, expected)
    if wrong:
        return Verdict(id, "error", wrong)
    return judged(id, given, expected, vector, layout, dtype)


def misnamed(given: dict[str, np.ndarray], expected: judge.Expected) -> str:
    """Why the arrays of a file cannot be judged; "" where they can."""
    for name, array in given.items():
        if name not in expected.tensors:
            close = difflib.get_close_matches(name, expected.tensors, n=1, cutoff=0.0)
            return f'"{name}" is not one of its outputs: did you mean "{close[0]}"?'
        if array.dtype.kind not in "fiub":
            return f"{name} has dtype {array.dtype}, expected numbers"
    if not any(name.startswith(TELLING) for name in given):
        return f"nothing that tells: give at least one of {', '.join(TELLING)}"
    return ""


def judged(
    id: str, given: dict[str, np.ndarray], expected: judge.Expected, vector: Vector, layout: str, dtype: str
) -> Verdict:
    """The verdict on outputs that can be judged: pass, or the first departure in order of computation."""
    missing = tuple(name for name in expected.tensors if name not in given)
    axes = {name: tensor.axes for name, tensor in vector.tensors(expected.tensors).items()}
    worst = 0.0
    for name, tensor in expected.tensors.items():
        if name not in given:
            continue
        found, named = given[name], axes[name].named(layout)
        wanted = in_layout(tensor, axes[name], layout)
        if found.shape != wanted.shape:
            text = f"{name} departs first: it has shape {found.shape}, expected {wanted.shape} ({named or 'a number'})"
            return Verdict(id, "fail", text, math.inf, len(given), missing)
        score = judge.score(name, wanted, found, expected.tiny)
        worst = max(worst, score.score)
        if not score.score <= LIMIT:
            text = departure(score, named, wanted.s is None)
            if found.dtype.kind == "f" and found.dtype.itemsize < np.dtype(dtype).itemsize:
                text += f"; it is {found.dtype}, judged as {dtype}: emit with --dtype float32 for results in float32"
            return Verdict(id, "fail", text, score.score, len(given), missing)
    return Verdict(id, "pass", "", worst, len(given), missing)


def in_layout(tensor: Rounded, axes: Axes, layout: str) -> Rounded:
    """An expected tensor in the layout in which results come."""
    if tensor.s is None:
        return Rounded(tensor.space, axes.to(layout, tensor.v))
    return Rounded(tensor.space, *(axes.to(layout, np.asarray(part)) for part in (tensor.v, tensor.s, tensor.b)))


def departure(score: Score, axes: str, exact: bool) -> str:
    """Where a tensor departs, with both values and what is allowed."""
    place = f"{score.tensor}[{', '.join(map(str, score.index))}]" if score.index else score.tensor
    where = f"{place} ({axes})" if axes else place
    if exact:
        return f"{where} departs first: {score.got:.17g}, expected exactly {score.expected:.17g}"
    return (
        f"{where} departs first: {score.got:.9g}, expected {score.expected:.9g} to within {score.allowed:.2g} "
        f"(one standard deviation of a correct result); score {score.score:.3g}, limit {LIMIT:.3g}"
    )


def counted(n: int) -> str:
    """Such as "1 case" and "2 cases"."""
    return f"{n} case{'s' * (n != 1)}"


def summary(found: list[Verdict]) -> str:
    """One line on all verdicts."""
    counts = {state: sum(v.state == state for v in found) for state in ("pass", "fail", "error", "not run")}
    parts = [f"{n} {state}" for state, n in counts.items() if n]
    scores = [v.score for v in found if v.state == "pass"]
    tail = f"; the largest score of those that pass is {max(scores):.2g}, the limit {LIMIT:.3g}" if scores else ""
    return f"{counted(len(found))}: {', '.join(parts)}{tail}."
