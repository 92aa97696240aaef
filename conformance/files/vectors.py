"""Stored vectors: cases as data, with the outputs of the float64 reference, in the folder vectors/.

manifest.json says of every vector what it is: algorithm, network, loss and optimizer with all their numbers, the mode,
the seed, and name, shape, dtype and axes of every array. Inputs are not stored: the generator gives them bit for bit
(Vector.inputs), and the manifest holds their digest. Outputs are, in one .npz per algorithm's file, under
"<id>/<name>"; what a step leaves as it was is marked "unchanged" and not stored.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from os.path import exists
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ref_bioplaus import types
from ref_bioplaus.conformance.cases.cases import Case, step_cases
from ref_bioplaus.conformance.files import description, reading
from ref_bioplaus.conformance.files.axes import axes_of
from ref_bioplaus.conformance.files.draws import drawn
from ref_bioplaus.conformance.files.npz import Archive
from ref_bioplaus.conformance.judging import judge
from ref_bioplaus.conformance.judging.judge import sentence
from ref_bioplaus.conformance.judging.rounding import Rounded
from ref_bioplaus.layouts import NUMBER, Axes, places
from ref_bioplaus.machine.files import content as content_of
from ref_bioplaus.machine.files import to_write, write_whole
from ref_bioplaus.tree import named_leaves
from ref_bioplaus.types import Batch

FOLDER = Path(__file__).parents[1] / "vectors"
MANIFEST, OTHERS = "manifest.json", ("high_precision.json",)
DIGEST = "sha256 over the arrays in the order of their names: name, 0, dtype, 0, shape as 6x9, 0, little-endian C order"
ENOUGH = 100  # seeds to look through for one without undecidable decisions
COMPARABLE: reading.Schema = {  # what a manifest must be to be compared with the source's
    "type": "object",
    "required": ["vectors", "files"],
    "properties": {
        "vectors": {
            "type": "array",
            "items": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
        },
        "files": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}


class Tensor(NamedTuple):
    """An array, and what its axes are."""

    array: np.ndarray
    axes: Axes


class Vector:
    """One step of a case from its stored state: what goes in, what comes out, and what it is called."""

    kind = "step"

    def __init__(self, case: Case, mode: str, n: int = 6, seed: int | None = None):
        self.case, self.mode, self.n = case, mode, n
        self.id = f"1/{case.id}/{mode}/{n}"  # as in a run of the suite
        self.file = re.sub(r"[^A-Za-z0-9._]+", "-", self.id)
        self.given_seed = seed

    @cached_property
    def seed(self) -> int:
        """The seed given, or else the first whose step has no undecidable decision."""
        if self.given_seed is not None:
            return self.given_seed
        for seed in range(ENOUGH):
            if not Vector(self.case, self.mode, self.n, seed).expected().undecidable:
                return seed
        raise ValueError(f"{self.id}: none of {ENOUGH} seeds is free of undecidable decisions in {self.case.dtype}")

    @cached_property
    def start(self):
        """The stored state and the batch, as float64: state, x, y."""
        return self.case.start(self.seed), *self.case.batch(self.seed, self.n)

    def seeded(self, seed: int) -> "Vector":
        """The same from another seed."""
        return Vector(self.case, self.mode, self.n, seed)

    def expected(self, dtype: str | None = None) -> judge.Expected:
        """What a correct implementation computes in a dtype (the case's own, unless said otherwise)."""
        return judge.expect(self.case._replace(dtype=dtype or self.case.dtype), self.mode, *self.start)

    def reference(self) -> dict[str, np.ndarray]:
        """What NumPy computes in float64: every tensor of the step, in order of computation."""
        state, x, y = self.start
        state, info = self.case._replace(dtype="float64").build().modes[self.mode](state, Batch(x, y))
        return {name: np.asarray(leaf) for name, leaf in types.in_order(info, state).items()}

    @cached_property
    def draws(self):
        """The random numbers of the step, and whether these are all that it draws."""
        return drawn(self.case._replace(dtype="float64"), self.mode, *self.start)

    def inputs(self) -> dict[str, Tensor]:
        """Everything that one step needs, in the case's dtype: state, batch and random numbers."""
        return self.needed

    @cached_property
    def needed(self) -> dict[str, Tensor]:
        """The same, found once."""
        state, x, y = self.start
        arrays = dict(named_leaves(state, "state")) | {"batch/x": x, "batch/y": y}
        tensors = self.tensors(arrays) | {draw.name: Tensor(draw.numbers, draw.axes) for draw in self.draws[0]}
        return {name: Tensor(in_dtype(array, self.case.dtype), axes) for name, (array, axes) in tensors.items()}

    def tensors(self, arrays: Mapping[str, Any]) -> dict[str, Tensor]:
        """Arrays with their axes."""
        network = self.case.network()
        layers = places(network)
        return {name: Tensor(array, axes_of(name, array, network, layers)) for name, array in arrays.items()}

    @property
    def reason(self) -> str:
        """Why the vector exists."""
        chosen = self.case.chosen()
        network = f"network {self.case.architecture} ({', '.join(description.kinds(self.case.network()))})"
        parts = [f"{chosen.label} ({chosen.paper}, {chosen.equations}), mode {self.mode}, on {network}."]
        if self.case.id.count("/") > 1:
            parts.append(f"Another optimizer: {self.case.optimizer}.")
        if self.n == 1:
            parts.append("A batch of one, whose means are over a single sample.")
        return " ".join(parts)

    def identity(self) -> str:
        """A digest of all that says what the step is, but for the code that computes it."""
        return hashlib.sha256(pretty(self.describe()).encode()).hexdigest()

    def describe(self, layout: str = "NHWC") -> dict[str, Any]:
        """The vector's row of a manifest, with its arrays as they are in a layout."""
        inputs, outputs = self.inputs(), self.tensors(self.reference())
        whole = "given" if self.draws[1] else "needs the generator (ref_bioplaus.random): it draws more than is given"
        return {
            "id": self.id,
            "level": 1,
            "case": self.case.id,
            **description.algorithm(self.case),
            "architecture": self.case.architecture,
            "model": description.model_name(self.case),
            "mode": self.mode,
            "seed": self.seed,
            "batch": self.n,
            "dtype": self.case.dtype,
            "judge": f"rounding, {self.case.dtype}, ieee",
            "reason": self.reason,
            "random_numbers": whole,
            "inputs": {name: shown(tensor, layout) for name, tensor in inputs.items()},
            "inputs_sha256": digest({name: tensor.array for name, tensor in inputs.items()}),
            "outputs": {
                name: shown(Tensor(in_dtype(t.array, self.case.dtype), t.axes), layout) for name, t in outputs.items()
            },
        }


def in_dtype(array: np.ndarray, dtype: str) -> np.ndarray:
    """Floats in a dtype, other arrays as they are."""
    array = np.asarray(array)
    return array.astype(dtype) if array.dtype.kind == "f" else array


def shown(tensor: Tensor, layout: str) -> dict[str, Any]:
    """Dtype, shape and axes of an array in a layout."""
    shape = tensor.array.shape if tensor.axes is NUMBER else tensor.axes.shape(layout)
    return {"dtype": tensor.array.dtype.name, "shape": list(shape), "axes": tensor.axes.named(layout)}


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """The digest of some arrays, as DIGEST says."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        found.update(f"{name}\0{array.dtype.name}\0{'x'.join(map(str, array.shape))}\0".encode())
        found.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes())
    return found.hexdigest()


def scheduled(case: Case) -> tuple[str, ...]:
    """The modes that an algorithm's own schedule runs, in order."""
    schedule = case.build().schedule
    return tuple(dict.fromkeys(mode for epoch in (0, 1) for mode in schedule(epoch, 0)))


def steps(dtype: str = "float64") -> Iterator[Vector]:
    """Every case in each of its modes with six samples, and the main algorithms' convolutions with one."""
    for case in step_cases(dtype):
        for n in (6, 1) if case.main and case.architecture == "conv" else (6,):
            for mode in scheduled(case):
                yield Vector(case, mode, n)


def chosen() -> tuple[Vector, ...]:
    """Those that are stored: every row and every optimizer on the dense net, the main algorithms on all."""
    return tuple(v for v in steps() if v.case.architecture == "FC" or v.case.main)


def family(vector: Vector) -> str:
    """The file that holds a vector's outputs."""
    return f"{vector.case.chosen().module}.npz"


def models(of: Iterable[Case]) -> dict[str, Any]:
    """The networks of some cases by name."""
    cases = {description.model_name(case): case for case in of}
    return {name: description.model(case.network()) for name, case in sorted(cases.items())}


def manifest(vectors: tuple[Vector, ...]) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """What the source gives: the manifest but for the files' digests, and the outputs by file and name."""
    rows: list[dict[str, Any]] = []
    files: dict[str, dict[str, np.ndarray]] = {}
    for vector in vectors:
        before, row = dict(named_leaves(vector.start[0], "state")), vector.describe()
        stored = files.setdefault(family(vector), {})
        for name, array in vector.reference().items():
            if name in before and same(before[name], array):
                row["outputs"][name]["unchanged"] = True
            else:
                stored[f"{vector.id}/{name}"] = array
        rows.append(row | {"file": family(vector)})
    head = {
        "format": "ref_bioplaus.conformance.vectors 1",
        "inputs": "ref_bioplaus.conformance.files.vectors.Vector.inputs draws them; inputs_sha256 is their digest",
        "digest": DIGEST,
        "names": description.NAMES,
        "models": models(vector.case for vector in vectors),
    }
    return head | {"vectors": rows}, files


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are equal to the bit."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def regenerate(folder: Path = FOLDER, vectors: tuple[Vector, ...] | None = None, all: bool = False) -> list[str]:
    """Write the manifest and the outputs of the stored vectors; returns the ids of those that were made anew.

    One whose row in the manifest is what the source gives, its inputs' digest included, keeps its outputs bit for bit,
    unless all are asked for. Files of the folder that are not the vectors' stay.
    """
    content, files = manifest(chosen() if vectors is None else vectors)
    folder.mkdir(parents=True, exist_ok=True)
    before = {} if all else intact(folder)
    rows = json.loads(json.dumps(content["vectors"]))
    kept = {row["id"] for row in rows if before.get(row["id"], ({},))[0] == row}
    for name, arrays in files.items():
        old = {entry: array for id in kept if (found := before[id])[0]["file"] == name for entry, array in found[1]}
        if old.keys() == arrays.keys() == set(Archive(folder / name).entries if old else ()):
            continue
        with to_write(folder / name) as file:
            np.savez_compressed(file, **(arrays | old))  # type: ignore[arg-type]
    content["files"] = {name: file_digest(folder / name) for name in sorted(files)}
    write_whole(folder / MANIFEST, (pretty(content) + "\n").encode())
    return [row["id"] for row in rows if row["id"] not in kept]


def intact(folder: Path) -> dict[str, tuple[dict[str, Any], list[tuple[str, np.ndarray]]]]:
    """By id, the rows of a manifest and what their files hold of them; not those of a file that was altered."""
    try:
        stored = reading.json_of(folder / MANIFEST)
        reading.check(stored, COMPARABLE, "a manifest of vectors")
        unaltered = {n for n, sha256 in stored["files"].items() if file_digest(folder / n) == sha256}
    except (reading.Unreadable, OSError):
        return {}
    archives = {name: np.load(folder / name, allow_pickle=False) for name in unaltered}
    found = {}
    for row in stored["vectors"]:
        if row.get("file") in archives:
            archive, names = archives[row["file"]], [f"{row['id']}/{name}" for name in row["outputs"]]
            found[row["id"]] = row, [(name, archive[name]) for name in names if name in archive]
    return found


def file_digest(file: Path) -> str:
    """The sha256 of a file."""
    return hashlib.sha256(content_of(file)).hexdigest()


def pretty(value: Any, indent: str = "") -> str:
    """JSON with whatever fits into a line on one line."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + len(indent) <= 116 or not isinstance(value, dict | list):
        return line
    inner = indent + " "
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(k, ensure_ascii=False)}: {pretty(v, inner)}" for k, v in value.items()]
    else:
        parts = [inner + pretty(v, inner) for v in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n" + ",\n".join(parts) + f"\n{indent}{closing}"


def check(folder: Path = FOLDER, vectors: tuple[Vector, ...] | None = None) -> list[str]:
    """What is wrong with the stored files, one sentence each: [] proves that they are what the source gives.

    The manifest and the inputs' digests must be equal; outputs within the judge's limit of float64, integers equal.
    Raises OSError where there is no such folder.
    """
    vectors = chosen() if vectors is None else vectors
    present = {file.name for file in folder.iterdir()} - {MANIFEST, *OTHERS}
    if not exists(folder / MANIFEST):
        return [f"{folder / MANIFEST} is missing: write it with `ref-bioplaus conformance regenerate`."]
    try:
        stored = reading.json_of(folder / MANIFEST)
        reading.check(stored, COMPARABLE, "a manifest of vectors")
    except reading.Unreadable as error:
        return [f"{folder / MANIFEST} {error}."]
    content, files = manifest(vectors)
    problems = manifest_problems(json.loads(json.dumps(content)), stored)
    problems += [f"The file {name} is not one of the vectors'." for name in sorted(present - files.keys())]
    for name, wanted in files.items():
        if name not in present:
            problems.append(f"The file {name} is missing.")
            continue
        try:
            if hashlib.sha256(reading.content(folder / name)).hexdigest() != stored["files"].get(name):
                problems.append(f"The file {name} was altered: its sha256 is not the manifest's.")
            mine = [vector for vector in vectors if family(vector) == name]
            problems += output_problems(folder / name, wanted, mine)
        except reading.Unreadable as error:
            problems.append(f"The file {name} {error}.")
    return problems


def manifest_problems(wanted: dict[str, Any], stored: dict[str, Any]) -> list[str]:
    """Where a manifest is not what the source gives."""
    rows, found = ({row["id"]: row for row in content.get("vectors", ())} for content in (wanted, stored))
    problems = [
        f"The manifest's {reading.shown(key)} is not what the source gives."
        for key in sorted((wanted.keys() | stored.keys()) - {"vectors", "files"})
        if wanted.get(key) != stored.get(key)
    ]
    problems += [f"The manifest lacks the vector {id}." for id in rows if id not in found]
    others = [reading.line(id) for id in found if id not in rows]
    problems += [f"The manifest has a vector {id}, which the source does not." for id in others]
    for id in (id for id in rows if id in found):
        row, other = rows[id], found[id]
        differing = [key for key in sorted(row.keys() | other.keys()) if row.get(key) != other.get(key)]
        if differing == ["inputs_sha256"]:
            problems.append(f"The inputs of {id} are not those that the generator gives: another digest is stored.")
        elif differing:
            problems.append(
                f"The manifest's row of {id} is not what the source gives: see {reading.line(', '.join(differing))}."
            )
    return problems


def output_problems(file: Path, wanted: Mapping[str, np.ndarray], vectors: list[Vector]) -> list[str]:
    """Which outputs of a file are missing, too many, or not what the source gives. Raises Unreadable."""
    stored = Archive(file)
    problems = [f"{file.name} lacks {name}." for name in wanted if name not in stored.entries]
    others = [name for name in stored.entries if name not in wanted]
    problems += [f"{file.name} holds {reading.line(name)}, which the source does not." for name in others]
    both = wanted.keys() & stored.entries.keys()
    for vector in vectors:
        expected = vector.expected()
        scores = [
            stored_score(stored, f"{vector.id}/{name}", name, tensor, expected.tiny)
            for name, tensor in expected.tensors.items()
            if f"{vector.id}/{name}" in both
        ]
        departure = judge.first_departure(scores)
        if departure:
            problems.append(f"{file.name} does not hold what the source gives: in {vector.id}, {sentence(departure)}.")
    return problems


def stored_score(archive: Archive, entry: str, name: str, tensor: Rounded, tiny: float) -> judge.Score:
    """The score of a tensor in a file; inf for another shape, and for what are no numbers. Raises Unreadable."""
    header = archive.header(entry)
    if header.dtype is None:
        return judge.Score(name, math.inf, words=f"it has dtype {header.words}, expected numbers")
    if header.shape != tensor.shape:
        return judge.reshaped(name, header.shape, tensor.shape)
    return judge.score(name, tensor, archive.array(entry, tensor.shape), tiny)
