"""Checking an implementation in any language by files: `emit` writes what a step needs, `verdicts` judges results.

    DIR/manifest.json          what every case and every array is
    DIR/inputs/<file>.npz      state, batch and random numbers
    DIR/outputs/<file>.npz     what the implementation under test makes of them

It may give any of the outputs that the manifest names; those that it gives are judged. FORMAT.md says what every word
means.
"""

import difflib
import hashlib
import math
import shlex
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from os.path import getmtime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ref_bioplaus import __version__
from ref_bioplaus.conformance.files import description, parts, targets
from ref_bioplaus.conformance.files.axes import LAYOUTS
from ref_bioplaus.conformance.files.npz import Archive
from ref_bioplaus.conformance.files.parts import Part
from ref_bioplaus.conformance.files.reading import Unreadable, check, json_of, shown
from ref_bioplaus.conformance.files.vectors import DIGEST, MANIFEST, Vector, digest, models, pretty, steps
from ref_bioplaus.conformance.judging import judge
from ref_bioplaus.conformance.judging.judge import LIMIT, sentence
from ref_bioplaus.conformance.judging.rounding import Rounded
from ref_bioplaus.layouts import Axes
from ref_bioplaus.machine.files import to_write, write_whole
from ref_bioplaus.random import normal_table

FORMAT = "ref_bioplaus.conformance.exchange 2"
SCHEMA_FILE = Path(__file__).parent / "manifest_schema.json"
DTYPES = ("float32", "float64")
SIGNATURE, TABLE = "case_sha256", "normal_table.npz"
TELLING = ("info/loss", "info/grads", "info/feedback_grads", "state/forward/params", "state/feedback/params")


class ExchangeError(ValueError):
    """A request or a file that cannot be understood; the message is one sentence."""


Asked = Vector | Part  # a case: a step, or a part of one


class Verdict(NamedTuple):
    """What the judge says of one case."""

    id: str
    state: str  # "pass", "fail", "error" (the file cannot be judged) or "not run" (there is none, or none can be)
    text: str
    score: float = 0.0
    given: int = 0
    missing: tuple[str, ...] = ()
    signed: bool = True  # whether the outputs say which case of which manifest they answer
    older: bool = False  # whether they are older than the manifest


def emit(folder: Path, pattern: str = "*", layout: str = "NHWC", dtype: str = "float64") -> list[str]:
    """Write the manifest and the inputs of the cases that match; returns their ids.

    pattern: of an id, with * and ? as wildcards. Raises ExchangeError for a pattern that matches
    nothing, an unknown layout or dtype, and a folder that cannot be written.
    """
    choose("layout", layout, LAYOUTS)
    choose("dtype", dtype, DTYPES)
    known = list(every(dtype))
    chosen = [case for case in known if fnmatchcase(case.id, pattern)]
    if not chosen:
        close = difflib.get_close_matches(pattern, [case.id for case in known], n=3, cutoff=0.3)
        raise ExchangeError(f"No case matches {shown(pattern)}, ids are such as {', '.join(close) or known[-1].id}.")
    rows = []
    try:
        (folder / "inputs").mkdir(parents=True, exist_ok=True)
        write(folder / "inputs" / TABLE, {"normal_table": normal_table()})
        for case in chosen:
            inputs = {name: tensor.axes.to(layout, tensor.array) for name, tensor in case.inputs().items()}
            write(folder / "inputs" / f"{case.file}.npz", inputs)
            row = {"kind": case.kind} | case.describe(layout) | {"file": f"{case.file}.npz"}
            rows.append(row | {"case_sha256": signature(row, layout)})
        content = {
            "format": FORMAT,
            "version": __version__,
            "layout": layout,
            "dtype": dtype,
            "digest": f"{DIGEST}; of the arrays in layout NHWC",
            "names": description.NAMES | description.PARTS,
            "models": models(case.case for case in chosen if case.case),
            "cases": rows,
        }
        write_whole(folder / MANIFEST, (pretty(content) + "\n").encode())
    except OSError as error:
        raise ExchangeError(f"The folder {folder} cannot be written to ({error.strerror}): name another.") from error
    return [case.id for case in chosen]


def write(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """An .npz, not compressed."""
    with to_write(file) as opened:
        np.savez(opened, **arrays)  # type: ignore[arg-type]


def every(dtype: str) -> Iterator[Asked]:
    """All cases: parts of steps, then steps."""
    yield from parts.parts(dtype)
    yield from targets.parts(dtype)
    yield from steps(dtype)


def signature(row: Mapping[str, Any], layout: str) -> str:
    """What outputs repeat to say that they answer this case: a digest of its id, layout, dtype and inputs."""
    words = (row["id"], layout, row["dtype"], row["inputs_sha256"])
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


def choose(what: str, value: str, known: tuple[str, ...]) -> None:
    """Raise ExchangeError for a word that is not known."""
    if value not in known:
        raise ExchangeError(f"The {what} {shown(value)} is unknown: choose {' or '.join(known)}.")


def verdicts(folder: Path, outputs: Path | None = None, dtype: str | None = None) -> Iterator[Verdict]:
    """The verdict on every case of a manifest, as they are judged.

    outputs: where the results lie, DIR/outputs unless said otherwise. dtype: of the computation under test, the
    manifest's unless said otherwise. Raises ExchangeError where the manifest cannot be used or there are no outputs.
    """
    content = read_manifest(folder)
    emitted, layout = content["dtype"], content["layout"]
    dtype = emitted if dtype is None else dtype
    choose("dtype", dtype, DTYPES)
    if (emitted, dtype) == ("float64", "float32"):
        raise ExchangeError(f"{folder} holds float64 inputs, which float32 cannot hold: emit with --dtype float32.")
    outputs = folder / "outputs" if outputs is None else outputs
    try:
        there = {file.name for file in outputs.iterdir()}
    except OSError as error:
        raise ExchangeError(
            f"The folder {outputs} cannot be read ({error.strerror}): write outputs there, or name it with --outputs."
        ) from error
    if not any(row["file"] in there for row in content["cases"]):
        raise ExchangeError(f"{outputs} holds no outputs, such as {content['cases'][0]['file']}: nothing to judge.")
    known = {case.id: case for case in every(emitted)}
    others = {row["case_sha256"]: row["id"] for row in content["cases"]}
    written = age(folder / MANIFEST)
    for row in content["cases"]:
        if row["file"] in there:
            found = verdict(row, known.get(row["id"]), outputs / row["file"], layout, dtype, others)
            yield found._replace(older=age(outputs / row["file"]) < written)
        else:
            yield Verdict(row["id"], "not run", f"there is no {row['file']}")


def age(file: Path) -> float:
    """When a file was last written to, in seconds; inf where nobody can tell."""
    try:
        return getmtime(file)
    except OSError:
        return math.inf


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest that `emit` wrote. Raises ExchangeError where there is none, or none of ours."""
    file = folder / MANIFEST
    try:
        content = json_of(file)
        check(content, json_of(SCHEMA_FILE), f'a manifest of format "{FORMAT}"')
    except Unreadable as error:
        command = f"ref-bioplaus conformance emit {shlex.quote(str(folder))}"
        raise ExchangeError(f"{file} {error}: write it with `{command}`.") from error
    ids = [row["id"] for row in content["cases"]]
    if len(set(ids)) < len(ids):
        raise ExchangeError(f"{file} has a case {next(id for id in ids if ids.count(id) > 1)} twice: emit it again.")
    return content


def verdict(
    row: dict[str, Any], case: Asked | None, file: Path, layout: str, dtype: str, others: Mapping[str, str]
) -> Verdict:
    """The verdict on one case. others: the ids of all cases by what their outputs repeat."""
    id = row["id"]
    if case is None:
        return Verdict(id, "error", "the package has no such case: emit again")
    case = case.seeded(row["seed"])
    inputs = {name: tensor.array for name, tensor in case.inputs().items()}
    if digest(inputs) != row["inputs_sha256"] or signature(row, layout) != row["case_sha256"]:
        return Verdict(id, "error", "its inputs are not those that this version of the package gives: emit again")
    expected = case.expected(dtype)
    if expected.undecidable:
        return Verdict(id, "not run", f"{expected.undecidable} decisions are undecidable in {dtype}: emit again")
    try:
        archive = Archive(file)
        signed = SIGNATURE in archive.entries
        wrong = misdirected(archive, row, others) or misnamed(archive, expected, case.kind == "step")
        found = Verdict(id, "error", wrong) if wrong else judged(id, archive, expected, case, layout, dtype)
        return found._replace(signed=signed)
    except Unreadable as error:
        return Verdict(id, "error", f"{file.name} {error}")


def misdirected(given: Archive, row: Mapping[str, Any], others: Mapping[str, str]) -> str:
    """Why outputs that say what they answer are not this case's; "" where they are, or do not say it."""
    if SIGNATURE not in given.entries or (found := given.text(SIGNATURE)) == row["case_sha256"]:
        return ""
    whose = f"the case {others[found]}" if found in others else "another manifest (other inputs, layout or dtype)"
    return f"these outputs answer {whose}: their {SIGNATURE} is {shown(found)}, expected {shown(row['case_sha256'])}"


def misnamed(given: Archive, expected: judge.Expected, telling: bool) -> str:
    """Why the arrays of a file cannot be judged; "" where they can."""
    named = [name for name in given.entries if name != SIGNATURE]
    for name in named:
        if name not in expected.tensors:
            close = difflib.get_close_matches(name, expected.tensors, n=1, cutoff=0.0)
            return f'{shown(name)} is not one of its outputs: did you mean "{close[0]}"?'
        header = given.header(name)
        if header.dtype is None:
            return f"{name} has dtype {header.words}, expected numbers"
    if telling and not any(name.startswith(TELLING) for name in named):
        return f"nothing that tells: give at least one of {', '.join(TELLING)}"
    return "" if named else "it holds no outputs"


def judged(id: str, given: Archive, expected: judge.Expected, case: Asked, layout: str, dtype: str) -> Verdict:
    """The verdict on outputs that can be judged: pass, or the first departure in order of computation.

    Raises Unreadable where an array of the right shape is damaged.
    """
    missing = tuple(name for name in expected.tensors if name not in given.entries)
    axes = {name: tensor.axes for name, tensor in case.tensors(expected.tensors).items()}
    wanted = {n: in_layout(expected.tensors[n], axes[n], layout) for n in expected.tensors if n in given.entries}
    shapes = {name: given.header(name).shape for name in wanted}
    arrays = {n: given.array(n, shapes[n]) for n, tensor in wanted.items() if shapes[n] == tensor.shape}
    worst = 0.0
    for name, tensor in wanted.items():
        named = axes[name].named(layout)
        if name not in arrays:
            other = judge.reshaped(name, shapes[name], tensor.shape, named or "a number")
            return Verdict(id, "fail", sentence(other), math.inf, len(wanted), missing)
        found = arrays[name]
        score = judge.score(name, tensor, found, expected.tiny)
        worst = max(worst, score.score)
        if not score.score <= LIMIT:
            text = sentence(score, named, " (one standard deviation of a correct result)")
            if found.dtype.kind == "f" and found.dtype.itemsize < np.dtype(dtype).itemsize:
                text += f"; it is {found.dtype}, judged as {dtype}: emit with --dtype float32 for results in float32"
            return Verdict(id, "fail", text, score.score, len(wanted), missing)
    return Verdict(id, "pass", "", worst, len(wanted), missing)


def in_layout(tensor: Rounded, axes: Axes, layout: str) -> Rounded:
    """An expected tensor in the layout in which results come."""
    if tensor.s is None:
        return Rounded(tensor.space, axes.to(layout, tensor.v))
    return Rounded(tensor.space, *(axes.to(layout, np.asarray(part)) for part in (tensor.v, tensor.s, tensor.b)))


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


def unsigned(found: list[Verdict]) -> str:
    """A line on outputs of which nobody can tell what they answer; "" where all say it."""
    silent = [v for v in found if v.given and not v.signed]
    if not silent:
        return ""
    older = sum(v.older for v in silent)
    age = f"; {older} of them older than the manifest" if older else ""
    return f"{len(silent)} of these hold no {SIGNATURE}, so that they may answer other inputs{age}."
