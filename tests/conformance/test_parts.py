"""Cases of level 0 in files: random numbers, first states, schedules, targets, gradients of feedback paths; and what
outputs say of the manifest that they answer."""

import math
import os
import re
import zlib

import numpy as np
import pytest

from ref_bioplaus.conformance.cases.cases import Case, step_cases
from ref_bioplaus.conformance.commands.exchange import exchange_app
from ref_bioplaus.conformance.files import description, exchange, parts, targets
from ref_bioplaus.conformance.files.vectors import Vector
from ref_bioplaus.random import normal_table
from ref_bioplaus.registry import ROWS
from tests.helpers import commands, some_slow

DTYPES = ("float64", "float32")


def command(*arguments, code=0):
    """The output of a command; it must end with an exit code."""
    return commands.command(*arguments, code=code, app=exchange_app).output


def of_kind(kind, dtype="float64"):
    """The parts of a kind."""
    return [p for source in (parts, targets) for p in source.parts(dtype) if p.kind == kind]


def emitted(folder, pattern, layout="NHWC", dtype="float64"):
    """The manifest's rows, with what stands in their inputs."""
    exchange.emit(folder, pattern, layout, dtype)
    (folder / "outputs").mkdir(exist_ok=True)
    for row in exchange.read_manifest(folder)["cases"]:
        with np.load(folder / "inputs" / row["file"]) as archive:
            yield row, {name: archive[name] for name in archive.files}


def answer(folder, row, outputs, **more):
    """Write outputs."""
    np.savez(folder / "outputs" / row["file"], **outputs, **more)


@pytest.mark.parametrize(
    ("layout", "dtype"),
    some_slow(
        [(layout, dtype) for layout in exchange.LAYOUTS for dtype in DTYPES],
        lambda layout, dtype: (layout, dtype) != ("NCHW", "float32"),
        "the other layout and dtype have the same names",
    ),
)
def test_every_array_of_a_part_has_axes_and_a_name_that_is_explained(layout, dtype):
    names = description.NAMES | description.PARTS
    patterns = [re.sub(r"\b[lik]\b", r"\\d+", key).replace("...", ".*") for key in names]
    seen = set()
    for part in [*parts.parts(dtype), *targets.parts(dtype)]:
        if (part.kind, part.said.get("algorithm", {}).get("name")) in seen and "conv" not in part.id:
            continue
        seen.add((part.kind, part.said.get("algorithm", {}).get("name")))
        row = part.describe(layout)
        for side, arrays in (("inputs", part.inputs()), ("outputs", part.tensors(part.reference()))):
            for name, (array, axes) in arrays.items():
                assert any(re.fullmatch(pattern, name) for pattern in patterns), name
                assert tuple(row[side][name]["shape"]) == axes.to(layout, array).shape, name
    assert {kind for kind, _ in seen} == {"random", "schedule", "init", "targets", "feedback_grads"}


def test_every_row_has_a_first_state_and_every_feedback_path_that_learns_its_gradients():
    assert {p.case.row for p in of_kind("init")} == {row.name for row in ROWS}
    assert {(p.case.row, p.case.architecture) for p in of_kind("init")} == {
        (case.row, case.architecture) for case in step_cases()
    }
    for kind, mine in (("feedback_grads", of_kind("feedback_grads")), ("targets", of_kind("targets"))):
        learned = set()
        for case in step_cases():
            if case.id.count("/") == 1 and (kind != "targets" or case.chosen().inverses):
                modes = [m for m in targets.scheduled(case) if m not in ("forward", "inverse")]
                info = [n for m in modes for n in Vector(case, m, 6, 0).reference()]
                if any(n.startswith(f"info/{kind}/") for n in info):
                    learned.add(case.id)
        assert {p.case.id for p in mine} == learned


@pytest.mark.parametrize("kind", ["targets", "feedback_grads"])
def test_a_part_of_a_step_is_what_the_step_computes(kind):
    """The tensors that both name are equal, from the same seed; and no decision of a part is undecidable."""
    for part in of_kind(kind):
        assert part.expected().undecidable == 0
        step = Vector(part.case, part.said["mode"], 6, part.seed).reference()
        common = [name for name in part.reference() if name in step]
        assert common and all(np.allclose(part.reference()[n], step[n], rtol=1e-12, atol=1e-15) for n in common)


def test_our_own_answers_pass_and_a_changed_one_fails_at_its_place(tmp_path):
    exchange.emit(tmp_path, "0/*/conv*")
    (tmp_path / "outputs").mkdir()
    rows = {row["id"]: row for row in exchange.read_manifest(tmp_path)["cases"]}
    chosen = [p for source in (parts, targets) for p in source.parts("float64") if p.id in rows]
    for part in chosen:
        answer(tmp_path, rows[part.id], part.reference(), case_sha256=rows[part.id]["case_sha256"])
    for verdict in exchange.verdicts(tmp_path):
        assert verdict.state == "pass" and verdict.score < 4.0 and verdict.missing == (), verdict
    for part in chosen:
        outputs = part.reference()
        name = [n for n in outputs if outputs[n].dtype.kind == "f" and outputs[n].any()][-1]
        place = np.unravel_index(int(np.argmax(np.abs(outputs[name]))), outputs[name].shape)
        changed = np.array(outputs[name])
        changed[place] *= 1.0 + 1e-9
        answer(tmp_path, rows[part.id], outputs | {name: changed})
    for verdict in exchange.verdicts(tmp_path):
        assert verdict.state == "fail" and "departs first" in verdict.text, verdict


# By hand, from what the manifest says


def threefry(key, counter):
    """Threefry-2x32-20 on Python's integers."""
    mask = 0xFFFFFFFF
    k0, k1 = (int(word) & mask for word in key)
    keys = (k0, k1, k0 ^ k1 ^ 0x1BD11BDA)
    x0, x1 = (counter[0] + k0) & mask, (counter[1] + k1) & mask
    for i in range(5):
        for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[i % 2]:
            x0 = (x0 + x1) & mask
            x1 = ((x1 << turn | x1 >> 32 - turn) & mask) ^ x0
        x0, x1 = (x0 + keys[(i + 1) % 3]) & mask, (x1 + keys[(i + 2) % 3] + i + 1) & mask
    return x0, x1


def signed(words):
    """32 bits as int32."""
    return np.array(words, np.uint32).view(np.int32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_numbers_by_hand(tmp_path, dtype):
    """Another implementation, on integers of any size, from the words of FORMAT.md."""
    for row, given in emitted(tmp_path, "0/random/*", dtype=dtype):
        outputs, kind = {}, row["id"].rpartition("/")[2]
        for i, draw in enumerate(row["draws"]):
            assert list(given[f"root/{i}"]) == draw["root"]
            name = zlib.crc32("/".join(map(str, draw["names"])).encode())
            key = threefry(given[f"root/{i}"], (draw["time"] or 0, name))
            words = [threefry(key, divmod(draw["start"] + j, 2**32)) for j in range(draw["count"])]
            high, low = zip(*words, strict=True)
            if kind == "key":
                outputs[f"key/{i}"] = signed(key)
            elif kind == "words":
                outputs |= {f"high/{i}": signed(high), f"low/{i}": signed(low)}
            elif kind == "bernoulli":
                limit = round(row["probability"] * 2**24)
                outputs[f"mask/{i}"] = np.array([word >> 8 < limit for word in high])
            elif kind == "uniform" and dtype == "float64":
                numbers = [((h >> 5) * 2**26 + (w >> 6)) * 2.0**-53 for h, w in words]
                outputs[f"uniform/{i}"] = np.array(numbers)
            elif kind == "uniform":
                outputs[f"uniform/{i}"] = np.array([(h >> 8) * 2.0**-24 for h in high], np.float32)
            else:
                table = np.load(tmp_path / "inputs" / "normal_table.npz")["normal_table"]
                assert np.array_equal(table, normal_table())
                steps = [2 * (int(table[h >> 18]) + int(table[w >> 18])) + (1 - 2 * (w & 1)) for h, w in words]
                outputs[f"normal/{i}"] = np.array(steps, dtype) * np.asarray(2.0**-21, dtype)
        answer(tmp_path, row, outputs)
    assert "5 cases: 5 pass; the largest score of those that pass is 0," in command("judge", tmp_path)


def test_first_weights_by_hand(tmp_path):
    """W and B of feedback alignment on the dense net: addresses and standard deviations."""
    ((row, given),) = emitted(tmp_path, "0/init/feedback-alignment/FC")
    table, outputs = normal_table(), {}
    assert row["initializers"] == {"initializer": "fan_in", "feedback_initializer": "fan_out"}

    def drawn(name, n_out, n_in):
        key = threefry(given["state/key"], (0, zlib.crc32(name.encode())))
        words = [threefry(key, (0, j)) for j in range(n_out * n_in)]
        numbers = [(2 * (int(table[h >> 18]) + int(table[w >> 18])) + (1 - 2 * (w & 1))) * 2.0**-21 for h, w in words]
        return np.array(numbers).reshape(n_out, n_in)

    for l, (n_out, n_in) in {1: (11, 9), 2: (7, 11), 3: (4, 7)}.items():
        outputs[f"state/forward/params/{l}/W"] = drawn(f"forward/{l}", n_out, n_in) / math.sqrt(n_in)
        if l > 1:
            outputs[f"state/feedback/params/{l}/W"] = drawn(f"feedback/{l}", n_out, n_in) / math.sqrt(n_out)
    answer(tmp_path, row, outputs)
    assert "1 pass" in command("judge", tmp_path)
    answer(tmp_path, row, outputs | {"state/feedback/params/3/W": outputs["state/feedback/params/3/W"] * 2.0})
    assert "state/feedback/params/3/W[" in command("judge", tmp_path, code=1)


def test_schedules_by_hand(tmp_path):
    """The corners: a boundary belongs to what follows it, a rise does not begin at 0."""
    rates = {
        "piecewise": lambda n: 0.3 if n < 3 else 0.03 if n < 7 else 0.0,
        "staircase": lambda n: 0.2 * 0.7 ** (n // 4),
        "warm_up": lambda n: 0.25 * min((n + 1) / 6, 1.0),
        "warm_up of piecewise": lambda n: min((n + 1) / 5, 1.0) * rates["piecewise"](n),
    }
    for row, given in emitted(tmp_path, "0/schedule/*"):
        assert {2, 3, 6, 7} <= {*given["count"].tolist()}
        outputs = {"eta": np.array([rates[row["id"].rpartition("/")[2]](int(n)) for n in given["count"]])}
        answer(tmp_path, row, outputs, case_sha256=row["case_sha256"])
    assert command("judge", tmp_path).endswith("the limit 10.\n")
    answer(tmp_path, row, {"eta": np.roll(outputs["eta"], 1)})
    said = command("judge", tmp_path, code=1)
    assert re.search(r"eta\[\d+\] \(i\) departs first: 0[.]\d+, expected exactly 0;", said)


# Which manifest outputs answer

FA = Vector(Case("feedback-alignment/FC", "feedback-alignment", "FC", "sgd"), "learn", 6, 0)


@pytest.mark.parametrize(
    "as_entry",
    [
        lambda text: np.array(text),
        lambda text: np.array([text]),
        lambda text: np.array(text.encode()),
        lambda text: np.frombuffer(text.encode(), np.uint8),
        lambda text: np.frombuffer(text.encode(), np.int8),
        lambda text: np.array(text.encode() + b"\0\0"),
    ],
)
def test_outputs_may_say_which_case_they_answer(tmp_path, as_entry):
    ((row, _),) = emitted(tmp_path, FA.id)
    answer(tmp_path, row, FA.reference(), case_sha256=as_entry(row["case_sha256"]))
    said = command("judge", tmp_path)
    assert "1 pass" in said and "case_sha256" not in said
    answer(tmp_path, row, FA.reference(), case_sha256=as_entry("0" * 64))
    said = command("judge", tmp_path, code=2)
    assert f"error    {FA.id}: these outputs answer another manifest (other inputs, layout or dtype)" in said
    assert f'is "{"0" * 64}", expected "{row["case_sha256"]}"' in said


@pytest.mark.parametrize("odd", [np.zeros(3), np.array(7), np.array(["a", "b"]), np.zeros(0, np.uint8), "x" * 5000])
def test_what_says_nothing_of_the_kind_is_refused(tmp_path, odd):
    ((row, _),) = emitted(tmp_path, FA.id)
    answer(tmp_path, row, FA.reference(), case_sha256=odd)
    said = command("judge", tmp_path, code=2)
    assert "these outputs answer another manifest" in said and 'their case_sha256 is "' in said


def test_another_cases_layouts_and_dtypes_outputs_are_told_apart(tmp_path):
    (first, _), (second, _) = emitted(tmp_path, "1/dfa/conv/learn/*", "NCHW")
    case = {v.id: v for v in exchange.every("float64")}[second["id"]]
    tensors = case.tensors(case.reference()).items()
    outputs = {name: axes.to("NCHW", array) for name, (array, axes) in tensors}
    answer(tmp_path, second, outputs, case_sha256=second["case_sha256"])
    assert "1 pass, 1 not run" in command("judge", tmp_path)
    (tmp_path / "outputs" / second["file"]).rename(tmp_path / "outputs" / first["file"])
    said = command("judge", tmp_path, code=2)
    assert f"error    {first['id']}: these outputs answer the case {second['id']}: " in said
    (tmp_path / "outputs" / first["file"]).rename(tmp_path / "outputs" / second["file"])
    for layout, dtype in (("NHWC", "float64"), ("NCHW", "float32")):  # emitted again, in the same folder
        exchange.emit(tmp_path, "1/dfa/conv/learn/*", layout, dtype)
        assert "these outputs answer another manifest" in command("judge", tmp_path, code=2)
    exchange.emit(tmp_path, "1/dfa/conv/learn/*", "NCHW")
    assert "1 pass, 1 not run" in command("judge", tmp_path)


def test_outputs_that_say_nothing_are_judged_and_counted_and_their_age_told(tmp_path):
    ((row, _),) = emitted(tmp_path, FA.id)
    answer(tmp_path, row, FA.reference())
    assert command("judge", tmp_path).endswith(
        "1 of these hold no case_sha256, so that they may answer other inputs.\n"
    )
    written = os.path.getmtime(tmp_path / "manifest.json")
    os.utime(tmp_path / "outputs" / row["file"], (written - 9.0, written - 9.0))
    assert command("judge", tmp_path).endswith("other inputs; 1 of them older than the manifest.\n")


def test_a_half_written_file_is_an_error_and_a_shorter_one_says_what_is_missing(tmp_path):
    ((row, _),) = emitted(tmp_path, FA.id)
    file = tmp_path / "outputs" / row["file"]
    answer(tmp_path, row, FA.reference())
    whole = file.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1, len(whole) - 30):
        file.write_bytes(whole[:length])
        assert f"error    {FA.id}: {file.name} cannot be read as .npz" in command("judge", tmp_path, code=2)
    answer(tmp_path, row, {"info/loss": FA.reference()["info/loss"]})
    assert "not given: info/h/0" in command("judge", tmp_path)


def test_a_manifests_signature_is_checked_too(tmp_path):
    ((row, _),) = emitted(tmp_path, FA.id)
    answer(tmp_path, row, FA.reference())
    file = tmp_path / "manifest.json"
    file.write_text(file.read_text().replace('"layout": "NHWC"', '"layout": "NCHW"'))
    assert "its inputs are not those that this version" in command("judge", tmp_path, code=2)
