"""FORMAT.md, which says everything of cases as files, is complete: a program in C that was written from it passes."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from ref_bioplaus.conformance.cases.cases import step_cases
from ref_bioplaus.conformance.commands.exchange import exchange_app
from ref_bioplaus.conformance.files import description, exchange, parts, targets
from ref_bioplaus.conformance.files.vectors import Vector, models, scheduled
from tests.helpers import ROOT, commands

FILES = ROOT / "conformance" / "files"
PAGE = (FILES / "FORMAT.md").read_text()
WORDS = set(re.findall(r"`([^`\n]+)`", " ".join(re.split(r"```.*?```", PAGE, flags=re.S)).replace("\n", " ")))
C = sorted((FILES / "c").glob("*.c"))


def command(*arguments, code=0):
    """The output of a command; it must end with an exit code."""
    return commands.command(*arguments, code=code, app=exchange_app).output


# The page is complete

FREE = {"id", "case", "file", "reason", "judge", "label", "paper", "equations", "inputs_sha256", "formula", "axes",
        "shapes", "architecture", "model", "auxiliary", "output", "dtype", "root", "names"}  # fmt: skip


def described():
    """Rows of manifests: every algorithm and mode, every network, every optimizer, every part."""
    for case in step_cases():
        yield {"case": description.of_case(case), "models": models([case])}
        if case.architecture == "FC" or case.row in ("dfa", "dense-fa", "dtp", "kolen-pollack"):
            for mode in scheduled(case):
                yield Vector(case, mode, 6, 0)
    for part in [*parts.parts("float64"), *targets.parts("float64")]:
        if part.case is None or part.case.architecture == "conv":
            yield part


def words_of(value, key=""):
    """Every key, and every text that is one of a few words, in a row of a manifest."""
    if isinstance(value, dict):
        for name, item in value.items():
            if key not in ("inputs", "outputs", "models"):
                yield name
            yield from words_of(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from words_of(item, key)
    elif isinstance(value, str) and key not in FREE and key != "name":
        yield re.sub(r"\d+", "l", value) if key == "mode" and "_" in value else value


def names_of(value):
    """The names of algorithms, optimizers, losses, nonlinearities and modifications: all `name` but layers' own."""
    if isinstance(value, dict):
        if "name" in value and "layer" not in value:
            yield value["name"]
        for item in value.values():
            yield from names_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from names_of(item)


def test_every_word_that_a_manifest_can_hold_is_explained():
    found, axes, arrays = set(), set(), set()
    for one in described():
        rows = [one] if isinstance(one, dict) else [one.describe(layout) for layout in exchange.LAYOUTS]
        for row in rows:
            found |= {*words_of(row), *names_of(row)}
            for array in [*row.get("inputs", {}).items(), *row.get("outputs", {}).items()]:
                axes.add(array[1]["axes"])
                arrays.add(array[0])
    found -= {"mirror_l"}  # stands there as that of layer 2
    assert len(found) > 120
    assert found - WORDS == set(), "words of manifests that FORMAT.md does not explain"
    known = {one for word in WORDS for one in word.split("; ")}
    assert axes - {""} - known == {"O,H*W*C,H,W,C"} & axes, "axes that FORMAT.md does not explain"
    slots = {re.search(r"memory/(?:inner/)*(\w+)", name)[1] for name in arrays if "memory" in name}
    assert slots == {"count", "v", "m", "n", "a", "V", "norm", "signs", "key"}
    for name in arrays:
        kind = name.split("/")[1] if name.startswith(("random", "inverse", "mirror")) else name.split("/")[0]
        assert re.search(rf"[`/]{kind}[/`]", PAGE), name


def test_the_page_and_the_schema_name_the_same_things():
    schema = json.loads((FILES / "manifest_schema.json").read_text())
    row, array = (schema["$defs"][name]["properties"] for name in ("case", "array"))
    draw = schema["$defs"]["draw"]["properties"]
    assert {*schema["properties"], *row, *array, *draw} <= WORDS
    assert {*row["kind"]["enum"], *schema["properties"]["layout"]["enum"], *row["dtype"]["enum"]} <= WORDS
    assert tuple(schema["properties"]["layout"]["enum"]) == exchange.LAYOUTS


def test_the_page_has_lines_that_can_be_read_and_links_that_lead_somewhere():
    assert max(map(len, re.sub(r"(?m)^\|.*$", "", PAGE).splitlines())) <= 120
    for link in re.findall(r"\]\((?!http)([^)#]+)", PAGE):
        assert (FILES / link).exists(), link


# A program in C


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The program, right and with W in place of B."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc is installed")
    folder = tmp_path_factory.mktemp("c")
    for name, options in (("right", ()), ("wrong", ("-DMISTAKE",))):
        line = [compiler, "-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", *options, "-o", folder / name, *C, "-lm"]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def emitted(tmp_path_factory):
    """What the program computes, and what it does not: all networks of feedback alignment, and of DTP."""
    folder = tmp_path_factory.mktemp("emitted")
    for name, pattern in (("fa", "1/feedback-alignment/*"), ("tp", "1/*dtp*")):
        exchange.emit(folder / name, pattern)
        (folder / name / "outputs").mkdir()
    return folder


def computed(program, folder):
    """What the judge says of the program's outputs, after what it says itself."""
    done = subprocess.run([program, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), {v.id: v for v in exchange.verdicts(folder)}


def test_it_is_short_and_uses_nothing_but_c(compiled):
    code = (FILES / "c" / "by_hand.c").read_text()
    assert len(code.splitlines()) < 400
    includes = {name for file in C for name in re.findall(r"#include [<\"](\S+)[>\"]", file.read_text())}
    assert includes == {"math.h", "stdio.h", "stdlib.h", "string.h", "stdarg.h", "stdint.h", "files.h", "model.h"}
    shapes = {str(n) for n in (9, 11, 7)}  # of the networks: it is driven by the manifest
    assert not shapes & set(re.findall(r"\b\d+\b", re.sub(r"/\*.*?\*/", "", code, flags=re.S)))


@pytest.mark.parametrize(("of", "least"), [("fa", 7), ("tp", 14)])
def test_a_program_in_c_passes(compiled, emitted, of, least):
    said, found = computed(compiled / "right", emitted / of)
    passed = {id for id, v in found.items() if v.state == "pass"}
    assert passed == set(said) == {id for id in found if "ao-sdtp" not in id}
    assert len(passed) >= least
    for id in passed:
        verdict = found[id]
        assert verdict.score < 4.0 and verdict.signed
        assert all(name.startswith("state/") for name in verdict.missing)


def test_a_mistake_in_it_is_found_at_its_place(compiled, emitted):
    _, found = computed(compiled / "wrong", emitted / "fa")
    places = {id: v.text.split("[")[0] for id, v in found.items()}
    assert {v.state for v in found.values()} == {"fail"}
    assert places["1/feedback-alignment/FC/learn/6"] == "info/delta/2"
    assert places["1/feedback-alignment/conv/learn/6"] == "info/delta/4"
    _, found = computed(compiled / "wrong", emitted / "tp")
    places = {id: v.text.split("[")[0] for id, v in found.items() if v.state != "not run"}
    assert {v.state for v in found.values()} == {"fail", "not run"}
    assert {place for id, place in places.items() if "inverse" in id} == {"info/feedback_grads/2/W"}
    assert {place for id, place in places.items() if "inverse" not in id} == {"info/targets/1"}


def test_what_it_cannot_read_gets_one_sentence(compiled, emitted, tmp_path):
    manifest = (emitted / "fa" / "manifest.json").read_text()
    for text, sentence in (
        (None, "manifest.json cannot be read."),
        ("{", "The manifest has no text \"layout\" where it is expected."),
        ('{"layout": nothing', "The manifest is not JSON: a value is expected"),
        (manifest.replace('"layout": "NHWC"', '"layout": "NCHW"'), "Only layout NHWC is written here: emit again."),
        (manifest, "cannot be read."),
    ):  # fmt: skip
        if text is not None:
            (tmp_path / "manifest.json").write_text(text)
        done = subprocess.run([compiled / "right", tmp_path], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and sentence in done.stderr and done.stderr.count("\n") == 1
    (tmp_path / "inputs").mkdir()
    file = json.loads(manifest)["cases"][0]["file"]
    whole = (emitted / "fa" / "inputs" / file).read_bytes()
    np.savez_compressed(tmp_path / "compressed.npz", x=np.zeros(3))
    for content, sentence in (
        (b"", "is no zip."),
        (whole[:2000], "is no zip."),
        ((tmp_path / "compressed.npz").read_bytes(), "is compressed."),
    ):
        (tmp_path / "inputs" / file).write_bytes(content)
        done = subprocess.run([compiled / "right", tmp_path], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and sentence in done.stderr
