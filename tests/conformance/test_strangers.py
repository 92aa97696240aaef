"""What strangers hand to the conformance suite: each wrong file and option gets one sentence, and is never executed."""

import errno
import io
import json
import math
import os
import pickle
import shutil
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from ref_bioplaus.conformance.cases.cases import Case
from ref_bioplaus.conformance.checks import runner
from ref_bioplaus.conformance.files import exchange, npz, reading, vectors
from ref_bioplaus.conformance.files.vectors import Vector
from ref_bioplaus.conformance.reporting import deviations, report
from ref_bioplaus.machine import files as files_module
from tests.helpers import commands

FA = Vector(Case("feedback-alignment/FC", "feedback-alignment", "FC", "sgd"), "learn", 6, 0)
REFERENCE = FA.reference()
FILE = f"{FA.file}.npz"
NAME = "info/grads/2/W"  # 7 x 8: not square
GOOD = "{'descr': '<f8', 'fortran_order': False, 'shape': (6,), }"


class Evil:
    """What leaves a mark where a pickle of it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def command(*arguments, code=2):
    """The output of a command, which must end with an exit code."""
    return commands.command("conformance", *arguments, code=code).output


def sentence(*arguments):
    """The one sentence with which a command refuses."""
    said = command(*arguments)
    assert said.count("\n") == 1 and said.endswith(".\n") and len(said) < 800, said
    assert said.isascii() and said[:-1].isprintable(), said
    return said


@pytest.fixture(scope="module")
def emitted(tmp_path_factory):
    """A folder with one case and its outputs."""
    folder = tmp_path_factory.mktemp("emitted")
    exchange.emit(folder, FA.id)
    (folder / "outputs").mkdir()
    np.savez(folder / "outputs" / FILE, **REFERENCE)
    return folder


@pytest.fixture
def copied(emitted, tmp_path, monkeypatch):
    """The same, to be damaged, with its manifest; a pickle that is loaded would leave a mark here."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(emitted, tmp_path / "case")
    yield tmp_path / "case", json.loads((emitted / "manifest.json").read_text())
    assert not (tmp_path / "executed").exists()


# Manifests

WRONG = {
    "id": (None, True, 1.5, "", "é\ud83d", "a" * 5000, "a\nb", "\x1b[2J", [], {}),
    "seed": (None, True, -1, 1.5, 2**31, 10**400, "0", [], {}, math.inf),
    "batch": (None, 0, "6"),
    "dtype": (None, "float16", 32),
    "file": (None, 1, "", "/dev/null", "../x.npz", "..npz", ".npz", "a/b.npz", "a\0.npz", "x.npy", "é.npz", "x.npz\n",
             []),
    "inputs_sha256": (None, 0, "", "0" * 63, "G" * 64, []),
    "inputs": (None, [], {"x": 3}, {"x": {"dtype": "float64", "shape": [-1], "axes": ""}}),
    "outputs": (None, {"x": {"dtype": "float64", "shape": 3, "axes": ""}}),
    "comment": ("x",),
}  # fmt: skip


@pytest.mark.parametrize("key", WRONG)
def test_a_case_with_a_wrong_field_is_refused_and_the_field_named(copied, key):
    folder, manifest = copied
    for value in WRONG[key]:
        manifest["cases"][0][key] = value
        (folder / "manifest.json").write_text(json.dumps(manifest))
        said = sentence("judge", folder)
        assert key in said or "Infinity" in said, said


def test_every_field_of_a_manifest_is_asked_for_and_of_its_kind(copied):
    folder, manifest = copied
    row = manifest["cases"][0]

    def refused(content):
        (folder / "manifest.json").write_text(json.dumps(content))
        return sentence("judge", folder)

    for key in manifest:
        assert f'it has no "{key}"' in refused({k: v for k, v in manifest.items() if k != key})
        assert f"{key} is 3, expected" in refused(manifest | {key: 3})
    for key in row:
        said = refused(manifest | {"cases": [{k: v for k, v in row.items() if k != key}]})
        assert f'cases[0] has no "{key}"' in said
        assert f"cases[0].{key} is null, expected" in refused(manifest | {"cases": [row | {key: None}]})
    for cases in ([], [3], [row, None], [row, row], None):
        assert "cases" in refused(manifest | {"cases": cases}) or "twice" in refused(manifest | {"cases": cases})
    assert 'an unknown "comment"' in refused(manifest | {"comment": 1})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not JSON (Expecting value"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 50_000, "nested too deeply"),
        (b"null", "it is null, expected an object"),
        (b"\xff\xfe{}", "is not JSON ('utf-8' codec"),
        (b"1" * 10_000, "is not JSON (Exceeds the limit"),
        (b'{"cases": NaN}', "NaN is no number in JSON"),
        (b'{"cases": 1e999}', 'it has no "format"'),
        (b" " * (reading.LARGEST + 1), "it has more than 16,777,216 bytes"),
    ],
)
def test_a_file_that_is_no_manifest(copied, content, words):
    folder, _ = copied
    (folder / "manifest.json").write_bytes(content)
    assert words in sentence("judge", folder)


def test_whatever_stands_in_the_place_of_a_file_is_never_waited_for(copied):
    folder, _ = copied
    file = folder / "manifest.json"
    for make, words in (
        (lambda: file.mkdir(), "Is a directory"),
        (lambda: os.mkfifo(file), "not an ordinary file"),
        (lambda: file.symlink_to("/dev/zero"), "not an ordinary file"),
        (lambda: file.symlink_to(file), "Too many levels"),
        (lambda: file.symlink_to("/nowhere/at/all"), "No such file"),
    ):
        file.unlink()
        make()
        assert words in sentence("judge", folder)
        if file.is_dir():
            file.rmdir()
            file.touch()


def test_a_manifest_with_a_mark_at_its_beginning_is_read(copied):
    folder, manifest = copied
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8-sig")
    assert "1 pass" in command("judge", folder, code=0)


def test_the_schema_describes_every_manifest_that_is_written(tmp_path):
    for dtype, layout, pattern in (("float64", "NCHW", "1/*dtp/FC/*"), ("float32", "NHWC", "1/kolen-pollack/*/1")):
        exchange.emit(tmp_path, pattern, layout, dtype)
        content = exchange.read_manifest(tmp_path)
        assert content["format"] == exchange.FORMAT
        assert all((tmp_path / "inputs" / row["file"]).exists() for row in content["cases"])


# Arrays


def raw(entries, compression=zipfile.ZIP_STORED):
    """A zip of bytes by name."""
    made = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(made, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, compression)  # of no date: names of tests hold these bytes
    return made.getvalue()


def npy(header=GOOD, data=bytes(48), version=(1, 0), magic=b"\x93NUMPY"):
    """An .npy with any header."""
    text = header.encode("latin1")
    return magic + bytes(version) + struct.pack("<H" if version[0] == 1 else "<I", len(text)) + text + data


def saved(**changed):
    """An .npz as NumPy writes it, whatever is in it."""
    made = io.BytesIO()
    np.savez(made, **(REFERENCE | {name.replace("__", "/"): array for name, array in changed.items()}))
    return made.getvalue()


def patched(*places):
    """The reference's .npz with bytes of its first entry set: (offset in the local header, in the central, value)."""
    content = bytearray(saved())
    first = content.find(b"PK\x01\x02")
    for local, central, value in places:
        content[local] = content[first + central] = value
    return bytes(content)


def bomb(name, size=1 << 28):
    """A small entry that says it has, and unpacks to, 256 MiB of zeros."""
    made = io.BytesIO()
    with (
        zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(name, "w", force_zip64=True) as entry,
    ):
        entry.write(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (%d,), }" % (size // 8), b""))  # noqa: UP031
        for _ in range(size >> 24):
            entry.write(bytes(1 << 24))
    return made.getvalue()


def shape(text):
    """An entry of info/loss with a shape."""
    return raw([("info/loss.npy", npy(GOOD.replace("(6,)", text)))])


def flipped():
    """The reference's .npz with a bit of a number changed."""
    content = bytearray(saved())
    content[content.find(npy("", b"")[:6]) + 200] ^= 1
    return bytes(content)


FILES = {
    "empty": (lambda: b"", "File is not a zip file"),
    "text": (lambda: b"hello", "File is not a zip file"),
    "an .npy": (lambda: npy(), "File is not a zip file"),
    "a pickle": (lambda: pickle.dumps(Evil()), "File is not a zip file"),
    "no entries": (lambda: raw([]), "nothing that tells"),
    "a pickle as an entry": (lambda: raw([("info/loss.npy", pickle.dumps(Evil()))]), "is no .npy"),
    "a pickled array": (lambda: saved(info__loss=np.array([Evil()], object)), "info/loss has dtype |O, expected numb"),
    "text as an entry": (lambda: raw([("info/loss.npy", b"6 numbers")]), "is no .npy"),
    "an empty entry": (lambda: raw([("info/loss.npy", b"")]), "is no .npy"),
    "truncated": (lambda: saved()[:9000], "File is not a zip file"),
    "a bit flipped": (flipped, "Bad CRC-32"),
    "names run together": (lambda: patched((26, 28, 0), (27, 29, 30)), '"info/h/0.npyPK'),
    "encrypted": (lambda: patched((6, 8, 1)), '"info/h/0" is encrypted'),
    "odd compression": (lambda: patched((8, 10, 93)), "compressed by method 93, expected stored or deflated"),
    "bzip2": (lambda: raw([("info/loss.npy", npy())], zipfile.ZIP_BZIP2), "compressed by method 12"),
    "lzma": (lambda: raw([("info/loss.npy", npy())], zipfile.ZIP_LZMA), "compressed by method 14"),
    "twice": (lambda: raw([("info/loss.npy", npy()), ("info/loss.npy", npy())]), 'holds "info/loss" twice'),
    "twice, under two names": (lambda: raw([("info/loss.npy", npy()), ("info/loss", npy())]), "twice"),
    "unknown name": (lambda: saved(x=np.zeros(3)), '"x" is not one of its outputs'),
    "name with commands": (lambda: raw([("\x1b[2J\u202e.npy", npy())]), '"\\x1b[2J\\u202e" is not one of its outputs'),
    "name upwards": (lambda: raw([("../../executed", b"x")]), '"../../executed" is not one of its outputs'),
    "long name": (lambda: saved(**{"a" * 5000: np.zeros(3)}), 'aaa..." is not one of its outputs'),
    "text array": (lambda: saved(info__loss=np.array(["a"] * 6)), "info/loss has dtype <U1, expected numbers"),
    "structured": (lambda: saved(info__loss=np.zeros(6, [("a", "f8")])), "info/loss has dtype a list of 1, expected"),
    "times": (lambda: saved(info__loss=np.zeros(6, "m8[s]")), "info/loss has dtype <m8[s], expected numbers"),
    "complex": (lambda: saved(info__loss=np.zeros(6, "c16")), "info/loss has dtype <c16, expected numbers"),
    "no such float": (lambda: raw([("info/loss.npy", npy(GOOD.replace("f8", "f3")))]), "dtype <f3, expected numbers"),
    "shape of floats": (lambda: shape("(1.5,)"), "without a shape that an array can have"),
    "shape of text": (lambda: shape("('a',)"), "without a shape that an array can have"),
    "negative shape": (lambda: shape("(-1,)"), "without a shape that an array can have"),
    "endless shape": (lambda: shape(f"({10**30},)"), "without a shape that an array can have"),
    "many axes": (lambda: shape(f"({'1, ' * 40})"), "without a shape that an array can have"),
    "code as header": (lambda: raw([("info/loss.npy", npy("__import__('os').mkdir('executed')"))]), "none of an .npy"),
    "deep header": (lambda: raw([("info/loss.npy", npy("(" * 9000))]), "a header that is none of an .npy"),
    "long header": (lambda: raw([("info/loss.npy", npy(" " * 20_000, version=(2, 0)))]), "a header of 20000 bytes"),
    "header not text": (lambda: raw([("info/loss.npy", npy("\xff\xfe", version=(3, 0)))]), "none of an .npy"),
    "other version": (lambda: raw([("info/loss.npy", npy(version=(9, 0)))]), "is no .npy"),
    "too few numbers": (lambda: raw([("info/loss.npy", npy(data=bytes(40)))]), "has 40 bytes of numbers, expected 48"),
    "too many numbers": (lambda: raw([("info/loss.npy", npy(data=bytes(56)))]), "has 56 bytes of numbers, expected 48"),
    "more than can be": (lambda: saved(x=np.zeros(3 << 20)), "it has more than 16,777,216 bytes"),
}


@pytest.mark.parametrize("what", FILES)
def test_outputs_that_cannot_be_read_get_one_sentence_and_exit_code_2(copied, what):
    folder, _ = copied
    make, words = FILES[what]
    (folder / "outputs" / FILE).write_bytes(make())
    said = command("judge", folder)
    assert said.startswith(f"error    {FA.id}: ") and words in said and said.count("\n") == 2, said
    assert said.isascii() and len(said) < 400


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (lambda: bomb("info/loss.npy"), 1, "info/loss departs first: it has shape (33554432,), expected (6,)"),
        (lambda: bomb("x.npy"), 2, '"x" is not one of its outputs'),
        (lambda: shape(f"({2**62},)"), 1, "it has shape (4611686018427387904,), expected (6,)"),
        (lambda: saved(info__loss=np.zeros((0, 3))), 1, "it has shape (0, 3), expected (6,)"),
        (lambda: saved(info__loss=np.full(6, 1e300)), 1, "departs first: 1e+300"),
        (lambda: saved(info__loss=np.full(6, 10**4000, object).astype(np.longdouble)), 1, "departs first: inf"),
        (lambda: saved(info__loss=np.full(6, -np.inf)), 1, "departs first: -inf"),
    ],
)
def test_arrays_that_are_wrong_are_judged_without_the_memory_that_they_claim(copied, content, code, words):
    folder, _ = copied
    (folder / "outputs" / FILE).write_bytes(content())
    tracemalloc.start()
    said = command("judge", folder, code=code)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert words in said and said.count("\n") <= 4
    assert most < 50e6


def test_whatever_numpy_and_others_write_of_the_right_numbers_passes(copied):
    folder, _ = copied
    file = folder / "outputs" / FILE
    gradient = REFERENCE[NAME]
    assert gradient.shape[0] != gradient.shape[1]
    header = "{ \"shape\":(%d,%d),'descr':'>f8',\n 'fortran_order':True}" % gradient.shape  # noqa: UP031
    columns = npy(header, gradient.astype(">f8").tobytes(order="F"), (3, 0))
    np.savez_compressed(file, **REFERENCE)
    for content in (
        file.read_bytes(),
        saved(**{NAME: np.asfortranarray(gradient)}),
        saved(**{NAME: gradient.astype(">f8")}),
        saved(**{NAME: gradient.astype(np.longdouble)}),
        raw([("info/", b""), ("info/grads/", b""), (f"{NAME}.npy", columns)]),
        raw([(NAME, columns)], zipfile.ZIP_DEFLATED),
    ):
        file.write_bytes(content)
        assert "1 pass" in command("judge", folder, code=0)
    transposed = npy(header.replace("True", "False"), gradient.astype(">f8").tobytes(order="F"))
    file.write_bytes(raw([(f"{NAME}.npy", transposed)]))
    assert f"{NAME}[" in command("judge", folder, code=1)


def test_an_array_is_read_in_the_shape_that_is_asked_for_and_no_other(tmp_path):
    (tmp_path / "a.npz").write_bytes(raw([("info/loss.npy", npy(data=np.arange(6.0).tobytes()))]))
    archive = npz.Archive(tmp_path / "a.npz")
    assert archive.array("info/loss", (6,)).tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(reading.Unreadable, match=r"has dtype <f8 and shape \(6,\), expected numbers of shape \(2, 3\)"):
        archive.array("info/loss", (2, 3))
    (tmp_path / "a.npz").write_bytes(FILES["names run together"][0]())
    archive = npz.Archive(tmp_path / "a.npz")
    with pytest.raises(reading.Unreadable, match="File name in directory") as caught:
        archive.header(next(iter(archive.entries)))
    assert len(str(caught.value)) < 400


def test_places_of_outputs_that_are_none(copied):
    folder, _ = copied
    file = folder / "outputs" / FILE
    for make, words in (
        (lambda: file.mkdir(), "Is a directory"),
        (lambda: os.mkfifo(file), "not an ordinary file"),
        (lambda: file.symlink_to("/dev/null"), "not an ordinary file"),
        (lambda: file.symlink_to("/nowhere/at/all"), "No such file"),
        (lambda: file.symlink_to(file), "Too many levels"),
    ):
        file.unlink()
        make()
        said = command("judge", folder)
        assert f"error    {FA.id}: {FILE} cannot be read" in said and words in said
        if file.is_dir():
            file.rmdir()
            file.touch()
    file.unlink()
    assert "holds no outputs" in sentence("judge", folder)
    (folder / "outputs").rmdir()
    (folder / "outputs").write_text("")
    assert "Not a directory" in sentence("judge", folder)


def test_one_file_that_cannot_be_read_does_not_keep_the_others_from_being_judged(tmp_path):
    exchange.emit(tmp_path, "1/kolen-pollack/FC/*")
    (tmp_path / "outputs").mkdir()
    first, second, *_ = (v for v in vectors.steps() if v.id.startswith("1/kolen-pollack/FC/"))
    (tmp_path / "outputs" / f"{first.file}.npz").write_bytes(b"")
    np.savez(tmp_path / "outputs" / f"{second.file}.npz", **second.reference())
    said = command("judge", tmp_path)
    assert f"error    {first.id}: " in said and f"pass     {second.id}: " in said and "1 pass, 1 error" in said


# Stored vectors, deviations, reports


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("manifest.json", b"[" * 100_000, "nested too deeply"),
        ("manifest.json", b'{"vectors": [3], "files": {}}', "vectors[0] is 3, expected an object"),
        ("manifest.json", b'{"vectors": [{"id": []}], "files": {}}', "vectors[0].id is a list of 0, expected text"),
        ("manifest.json", b'{"vectors": [], "files": 3}', "files is 3, expected an object"),
        ("feedback_alignment.npz", b"", "cannot be read as .npz (File is not a zip file)"),
        ("feedback_alignment.npz", raw([("\x1b.npy", b"")]), "holds \\x1b, which the source does not"),
        ("feedback_alignment.npz", raw([(f"{FA.id}/info/loss.npy", npy(data=bytes(8)))]), "has 8 bytes of numbers"),
        ("feedback_alignment.npz", raw([(f"{FA.id}/info/loss.npy", b"x")]), "is no .npy"),
    ],
)
def test_stored_vectors_that_are_damaged_are_named(tmp_path, name, content, words):
    vectors.regenerate(tmp_path, (FA,))
    assert vectors.check(tmp_path, (FA,)) == []
    (tmp_path / name).write_bytes(content)
    assert any(words in problem for problem in vectors.check(tmp_path, (FA,)))
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    assert any("Is a directory" in problem for problem in vectors.check(tmp_path, (FA,)))


def test_stored_arrays_of_other_shapes_and_dtypes_depart(tmp_path):
    vectors.regenerate(tmp_path, (FA,))
    file = tmp_path / "feedback_alignment.npz"
    for array, words in (
        (np.zeros((2, 3)), "it has shape (2, 3), expected (6,)."),
        (np.array(["a"] * 6), "it has dtype <U1, expected numbers."),
    ):
        np.savez(file, **{f"{FA.id}/info/loss": array})
        assert any(f"info/loss departs first: {words}" in problem for problem in vectors.check(tmp_path, (FA,)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"x = " + b"[" * 100_000, "nested too deeply"),
        (b"deviation = 1" + b"0" * 5000, "is not TOML (Exceeds the limit"),
        (b"deviation = 0x" + b"f" * 5000, "expected rows"),
        (b"\xff\xfe\x00", "is not TOML ('utf-8' codec"),
        (b'"\\u202e\\n" = 1', '"\\u202e\\n" at its top'),
        (b'[[deviation]]\n"a\\nb" = 1', 'an unknown "a\\nb"'),
        (b"#" * (reading.LARGEST + 1), "more than 16,777,216 bytes"),
    ],
)
def test_a_file_of_deviations_that_is_none(tmp_path, text, words):
    (tmp_path / "numpy.toml").write_bytes(text)
    assert words in sentence("run", "--backend", "numpy", "--level", "0", "--deviations", tmp_path)
    with pytest.raises(ValueError) as caught:
        deviations.load("numpy", tmp_path)
    assert "\n" not in str(caught.value) and str(caught.value).isascii()


ROW = {"id": "1/*", "device": "cpu", "dtype": "float32", "reason": "x", "link": "y"}


@pytest.mark.parametrize("key", ["since", "mode", "device"])
def test_a_row_with_an_odd_value_gets_one_line(tmp_path, key):
    for value in ("\n", "a\nb", "\u202e", 16**5000, [], {}, True, 1.5, "2025-13-45"):
        row = ROW | {"since": "2025-01-01", "until": "2025-12-31", key: value}
        if key == "device" and isinstance(value, str) and value.strip():
            assert deviations.parse(row, tmp_path / "numpy.toml", 1).device == value.strip()
            continue
        with pytest.raises(ValueError) as caught:
            deviations.parse(row, tmp_path / "numpy.toml", 1)
        said = str(caught.value).removeprefix(str(tmp_path))
        assert f"row 1: {key} is " in said and "\n" not in said and said.isascii() and len(said) < 200


def test_the_place_of_deviations(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "run", lambda *_: pytest.fail("it ran"))
    for name, make, words in (
        ("file", lambda place: place.write_text(""), "is no folder to read (Not a directory)"),
        ("loop", lambda place: place.symlink_to(place), "is no folder to read (Too many levels"),
        ("a" * 300, lambda place: None, "is no folder to read (File name too long)"),
    ):
        make(tmp_path / name)
        said = sentence("run", "--backend", "numpy", "--level", "0", "--deviations", tmp_path / name)
        assert words in said and "--deviations" in said
    for make, words in (
        (lambda place: place.mkdir(), "Is a directory"),
        (lambda place: os.mkfifo(place), "not an ordinary file"),
        (lambda place: place.symlink_to("/nowhere/at/all"), "No such file"),
    ):
        (tmp_path / words[:4]).mkdir()
        make(tmp_path / words[:4] / "numpy.toml")
        said = sentence("run", "--backend", "numpy", "--level", "0", "--deviations", tmp_path / words[:4])
        assert words in said and "numpy.toml" in said


@pytest.mark.parametrize("data", [None, 3, "x", [], {}, {"schema": 3}, {"schema": ["a"]}])
def test_what_is_no_report(data):
    with pytest.raises(ValueError, match=r'^the schema is .*, expected "ref_bioplaus.conformance/1"'):
        report.from_json(data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reports": [3]}, "reports[0] is 3, expected an object"),
        ({"reports": None}, "reports is null, expected a list"),
        ({"edges": [10**400]}, "edges[0] is an integer of 1329 bits, expected a number that float64 holds"),
        ({"edges": [math.inf]}, "edges[0] is inf, expected a number that float64 holds"),
        ({"more": 1}, 'it has an unknown "more"'),
    ],
)
def test_a_report_that_was_changed(change, words):
    with pytest.raises(ValueError) as caught:
        report.from_json(report.to_json([]) | change)
    assert words in str(caught.value)


def test_a_report_with_other_levels_in_its_histogram():
    whole = report.to_json([runner.Report("a", "cpu", "float32", "ieee", "", "portable", {}, {}, 10.0, [])])
    assert report.from_json(whole)[0].histograms == {}
    whole["reports"][0]["histogram"] = {"x": {"exact": 0, "counts": []}}
    with pytest.raises(ValueError, match='a name in reports.0..histogram is "x", expected text like'):
        report.from_json(whole)


# Options


@pytest.mark.parametrize("text", ["", "\n", "[", "[!", "*" * 5000 + "x", "é\udcff", "\x1b[2J", "x" * 5000])
def test_odd_patterns_and_words_get_one_sentence(emitted, tmp_path, monkeypatch, text):
    monkeypatch.setattr(runner, "run", lambda *_: pytest.fail("it ran"))
    for option in ("--case", "--layout", "--dtype"):
        assert sentence("emit", tmp_path, option, text)
    assert sentence("judge", emitted, "--dtype", text)
    for option in ("--case", "--mode", "--dtype", "--precision", "--kernels", "--level"):
        assert sentence("run", "--backend", "numpy", "--level", "0", option, text)
    assert command("run", "--level", "0", "--backend", text).count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("emit", ""),
        ("judge", ""),
        ("judge", ".", "--outputs", ""),
        ("regenerate", "--folder", " "),
        *(("run", "--backend", "numpy", f"--{name}", "") for name in ("json", "html", "deviations")),
    ],
)
def test_an_empty_path_is_not_the_current_folder(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "run", lambda *_: pytest.fail("it ran"))
    assert "it is empty, expected a path" in " ".join(command(*arguments).split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_files_to_write_in_odd_places(tmp_path, monkeypatch, option):
    monkeypatch.setattr(runner, "run", lambda *_: pytest.fail("it ran"))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place, words in (("a" * 300, "File name too long"), ("loop", "is a link"), ("loop/a", "Too many levels")):
        said = sentence("run", "--backend", "numpy", "--level", "0", option, tmp_path / place)
        assert words in said and option in said


def test_a_report_that_cannot_be_written_at_the_end_loses_neither_the_others_nor_the_verdict(tmp_path, monkeypatch):
    whole = files_module.write_whole

    def full(path, content):
        if path.suffix == ".json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        whole(path, content)

    monkeypatch.setattr(files_module, "write_whole", full)
    files = ("--json", tmp_path / "r.json", "--html", tmp_path / "r.html")
    said = command("run", "--backend", "numpy", "--case", "0/loss/*", *files)
    assert "PASS: " in said and "r.json could not be written (No space left on device)" in said
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
