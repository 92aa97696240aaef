"""Two commits in turns: what is timed, how pairs are judged, and what the command says."""

import ast
import importlib
import inspect
import io
import math
import random
import sys
import tarfile
import types
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import typer

from asv_bench.benchmarks import forms, ratios, start, subjects, turns
from asv_bench.benchmarks.turns import Process
from asv_bench.versus import __main__ as command_of
from asv_bench.versus import decision, pairs, trees
from ref_bioplaus import backends
from tests.helpers.commands import command

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "asv_bench" / "benchmarks").glob("*.py"))
in_a_checkout = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="there are no commits to compare with")


# What is timed


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_benchmarks_use_public_names_alone(path):
    """So that today's run on the package of any commit: nothing but `import ref_bioplaus`, and nothing of asv_bench."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [] if node.level == 1 else [str(node.module)]
            assert node.level <= 1
        else:
            continue
        for name in names:
            assert name == "ref_bioplaus" or name.partition(".")[0] in sys.stdlib_module_names | {
                "numpy",
                "torch",
                "jax",
            }
        assert names != ["ref_bioplaus"] or isinstance(node, ast.Import)


def test_every_subject_is_a_benchmark_that_can_be_had():
    """For no library that is not here, so that nothing is n/a."""
    found = {name: f for name, f in vars(ratios).items() if name.startswith("track_")}
    assert list(found) == [f"track_ratio_{name.replace(' ', '_')}" for name in subjects.names()]
    assert all(f.__name__ == name and not inspect.signature(f).parameters for name, f in found.items())
    assert {name.split()[0] for name in subjects.names()} == {*backends.installed()} & {"numpy", "torch", "jax"}
    assert {*pairs.subjects()} <= {*subjects.names()} and len(pairs.subjects()) == len(subjects.LIBRARIES) + 2
    assert set(start.Start.params[0]) == set(start.COMMANDS)


def test_subjects_run_and_steps_learn(monkeypatch):
    monkeypatch.setattr(subjects, "N", 5)
    monkeypatch.setattr(subjects, "LAYERS", {
        "dense": ((9,), lambda: subjects.rb.dense(4), 3), "conv": ((5, 7, 2), lambda: subjects.rb.conv(3, 3), 2),
        "local": ((7, 5, 2), lambda: subjects.rb.locally_connected(3, 3, stride=2), 2),
    })  # fmt: skip
    for name in subjects.names():
        if name.startswith("numpy"):
            call, wait = subjects.subject(name)
            call()
            wait()
    with pytest.raises(KeyError):
        subjects.subject("numpy W1 XX")


def test_a_step_in_two_forms(monkeypatch):
    """Both are learned from; the ratio of a stack is that of one of its steps, and each form is asked by its name."""
    monkeypatch.setattr(subjects, "N", 2)
    for name in ("numpy W1 BP together", "torch W1 BP mixed", "torch W1 BP bfloat16"):
        if name.split()[0] in subjects.LIBRARIES:
            call, wait = subjects.subject(name)
            call()
            wait()
    asked = []
    monkeypatch.setattr(forms, "one_process", lambda name, against: asked.append((name, against)) or 4.0)
    (networks, libraries), (wide,) = (
        f.params for f in (forms.track_ratio_to_single_steps, forms.track_ratio_to_bfloat16_alone)
    )
    assert networks == ["W1", "W2"] and libraries == list(subjects.LIBRARIES) and "numpy" not in wide
    assert forms.track_ratio_to_single_steps("W2", "torch") == 4.0 / subjects.TOGETHER
    assert forms.track_ratio_to_bfloat16_alone("jax") == 4.0
    assert forms.track_ratio_to_single_steps.setup("W2", "torch") is None
    with pytest.raises(NotImplementedError):  # asv's word for "n/a"
        forms.needs(False)("jax")
    assert {*asked} == {
        ("torch W2 BP together", "torch W2 BP"),
        ("jax W1 BP mixed", "jax W1 BP bfloat16"),
    }


def test_a_face_is_that_of_the_layer():
    backend = backends.get("numpy", kernels="native")
    kept = []
    backend.wrap = lambda face: lambda *arrays: kept.append((face, arrays)) or face(*arrays)
    for face in subjects.FACES:
        subjects.kernel(backend, f"dense_{face}")()
    products = [lambda W, x: x @ W.T, lambda W, u: u @ W, lambda x, u: u.T @ x]
    for (found, arrays), product in zip(kept, products, strict=True):
        np.testing.assert_allclose(found(*arrays), product(*map(np.asarray, arrays)), rtol=1e-3, atol=1e-3)


# Processes


def test_a_process_takes_turns_and_says_what_failed():
    process = Process(ROOT)
    try:
        process.tell(subject="numpy dense_apply")
        assert 0.0 < process.answer() < 10.0
        assert 0.0 < process.turn("numpy dense_apply", 0.0) < 10.0
        process.tell(subject="numpy W1 XX")
        with pytest.raises(RuntimeError, match="XX"):
            process.answer()
    finally:
        process.close()


def test_a_process_measures_the_package_that_it_was_given(tmp_path):
    """An empty folder has none, and another one's is not measured in its place."""
    process = Process(tmp_path)
    try:
        process.tell(subject="numpy dense_apply")
        with pytest.raises(RuntimeError, match="expected the one in|No module named"):
            process.answer()
    finally:
        process.close()


def test_no_part_of_the_package_is_from_elsewhere(tmp_path, monkeypatch):
    turns.check_origin(str(ROOT))
    turns.check_origin("")
    part = types.ModuleType("ref_bioplaus.part")
    part.__file__ = str(tmp_path / "part.py")
    monkeypatch.setitem(sys.modules, "ref_bioplaus.part", part)
    with pytest.raises(RuntimeError, match="ref_bioplaus.part that is measured is .*expected the one in"):
        turns.check_origin(str(ROOT))


@in_a_checkout
def test_an_older_tree_has_its_backends(tmp_path, monkeypatch):
    """Of commits that put them into the package when it was built."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in ("backends/base.py", "ref_bioplaus/tree.py"):
            archive.addfile(tarfile.TarInfo(name))
    monkeypatch.setattr(trees, "git", lambda *arguments: packed.getvalue())
    assert (trees.unpacked("c0ffee", tmp_path) / "ref_bioplaus" / "backends" / "base.py").is_file()


class Pretended:
    """A process whose turns take as long as `taken` says."""

    taken: dict = {}
    told: list = []

    def __init__(self, root, which):
        self.root, self.which = root, which

    def tell(self, **order):
        self.told.append((self.root, self.which, order["subject"]))

    def answer(self):
        return 0.0

    def turn(self, name, seconds):
        self.told.append((self.root, name))
        return self.taken[self.root]

    def close(self):
        self.told.append((self.root, "closed"))


def test_a_pair_takes_turns_in_turned_order(monkeypatch):
    monkeypatch.setattr(pairs, "Process", Pretended)
    monkeypatch.setattr(Pretended, "taken", {"a": 2.0, "b": 2.5})
    monkeypatch.setattr(Pretended, "told", [])
    assert pairs.pair("a", "b", ["one", "two"], 3) == {"one": 1.25, "two": 1.25}
    order = "".join(root for root, *what in Pretended.told if what == ["one"])
    assert order == "abba" * (pairs.ROUNDS // 2)
    assert Pretended.told[-2:] == [("a", "closed"), ("b", "closed")] and ("b", 3, "two") in Pretended.told


@pytest.mark.parametrize(
    "seconds, took, count", [(0.0, 5.0, decision.LEAST), (60.0, 10.0, 6), (1e6, 1.0, decision.MOST)]
)
def test_as_many_pairs_as_there_is_time_for(monkeypatch, seconds, took, count):
    monkeypatch.setattr(pairs.time, "monotonic", lambda: now[0])
    now = [0.0]

    def pair(base, new, names, which):
        now[0] += took
        return {"one": 1.0 + which}

    monkeypatch.setattr(pairs, "pair", pair)
    assert pairs.measured("a", "b", ["one"], seconds) == {"one": [1.0 + i for i in range(count)]}


# Judging


@pytest.mark.parametrize(
    "found, word",
    [
        ([1.0, 1.0, 1.0], decision.NOT_SLOWER),
        ([0.5, 0.5, 0.5], decision.NOT_SLOWER),
        ([1.2, 1.2, 1.2], decision.SLOWER),
        ([1.2, 1.17, 1.25, 1.19], decision.SLOWER),
        ([1.08] * 3, decision.CANNOT_TELL),
        ([1.03] * 6, decision.NOT_SLOWER),
        ([1.0, 1.3, 0.8], decision.CANNOT_TELL),
    ],
)
def test_a_word_is_one_that_the_interval_permits(found, word):
    judgement = decision.judged(found)
    assert judgement.word == word and str(judgement).startswith(word)
    assert judgement.low < judgement.growth < judgement.high
    assert math.log1p(judgement.growth) == pytest.approx(np.mean(np.log(found)))


def test_equal_trees_stay_green_and_a_fifth_more_is_seen():
    """Calls made up of pairs whose scatter is the usual one, and one in twenty of which is far off."""
    draw = random.Random(0)

    def ratio(factor=1.0):
        return factor * math.exp(draw.gauss(0.0, decision.USUAL * (3.0 if draw.random() < 0.05 else 1.0)))

    calls, count = 500, 6
    words = Counter(
        decision.together([decision.judged([ratio() for _ in range(count)]).word for _ in range(5)])
        for _ in range(calls)
    )
    assert words[decision.NOT_SLOWER] >= 0.95 * calls and words[decision.SLOWER] <= 0.002 * calls
    seen = sum(decision.judged([ratio(1.2) for _ in range(count)]).word == decision.SLOWER for _ in range(calls))
    assert seen >= 0.99 * calls


def test_every_number_of_pairs_has_its_quantile():
    for count in range(decision.LEAST, decision.MOST + 1):
        assert decision.judged([1.0] * count).pairs == count
    quantiles = [decision.QUANTILES[n] for n in sorted(decision.QUANTILES)]
    assert quantiles == sorted(quantiles, reverse=True)


# The command


def asked(*arguments, code=0):
    app = typer.Typer()
    app.command()(command_of.main)
    return command(*arguments, code=code, app=app).output


@in_a_checkout
@pytest.mark.parametrize("ratio, code, word", [(1.0, 0, "not slower"), (1.2, 1, "slower"), (1.08, 3, "cannot tell")])
def test_the_command_ends_with_its_word_and_code(monkeypatch, ratio, code, word):
    monkeypatch.setattr(command_of, "unpacked", lambda commit, folder: folder)
    monkeypatch.setattr(
        command_of,
        "measured",
        lambda base, new, names, seconds: {name: [1.0 if i else ratio] * 3 for i, name in enumerate(names)},
    )
    said = asked("--subject", "numpy W1 BP", "--subject", "numpy conv_apply", code=code).splitlines()
    assert said[-1] == word and said[1].startswith(f"numpy W1 BP: {word}: ")
    assert said[2].startswith("numpy conv_apply: not slower: +0.0%")


@in_a_checkout
def test_a_failed_benchmark_fails_the_command(monkeypatch):
    monkeypatch.setattr(command_of, "unpacked", lambda commit, folder: ROOT)
    assert "numpy W1 XX failed in base" in asked("--subject", "numpy W1 XX", code=2)


@in_a_checkout
def test_a_base_that_is_no_commit_gets_a_sentence(tmp_path):
    assert 'BASE "no-such" is no commit of this checkout' in asked("--base", "no-such", code=2)
    assert "--output=x" in asked("--base", "--output=x", code=2)
    tree = trees.unpacked("HEAD", tmp_path)
    assert (tree / "ref_bioplaus" / "backends" / "__init__.py").is_file()


def test_asv_finds_the_libraries_of_the_checkout(tmp_path, monkeypatch):
    libraries = importlib.import_module("asv_bench.versus.libraries")
    own, other = tmp_path / "own" / "lib" / "site", tmp_path / "other" / "lib" / "site"
    own.mkdir(parents=True)
    monkeypatch.setattr(libraries.sys, "prefix", str(tmp_path / "own"))
    monkeypatch.setattr(libraries.sysconfig, "get_path", lambda name: str(own))
    monkeypatch.setenv("ASV_LIBRARIES", str(tmp_path / "other"))
    with pytest.raises(SystemExit, match="is not there"):
        libraries.main()
    other.mkdir(parents=True)
    libraries.main()
    assert (own / "libraries.pth").read_text() == f"{other}\n"
