"""SECURITY.md: the current folder is no place for modules, and what is written goes through no link."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ref_bioplaus.experiments.data import streaming
from ref_bioplaus.experiments.runs import logs
from ref_bioplaus.experiments.spec.experiment import Experiment
from ref_bioplaus.experiments.training.starting import train
from ref_bioplaus.machine import files
from tests.helpers.commands import printed

COMMON = (
    "json", "queue", "random", "signal", "struct", "pickle", "typing", "hashlib", "statistics", "tomllib", "fcntl",
    "tomli_w", "safetensors", "jinja2", "matplotlib", "rich", "numpy", "array_api_compat", "torch", "ref_bioplaus",
    "sitecustomize", "usercustomize",
)  # fmt: skip
SMALL = Experiment(
    model="akrout2019/mlp", model_options={"hidden": 3}, dataset="embedded", batch=500, steps=1, metrics=()
)
PROGRAM = [
    sys.executable,
    "-P",
    "-c",
    "from ref_bioplaus.__main__ import app; app()",
]  # as the command's own script has it
REPRODUCE = ("reproduce", "bartunov2018/table1", "--column", "mnist-fc", "--method", "bp", "--set", "dataset=embedded",
             "--set", "batch=500", "--set", "model_options.width=0.05", "--set", "steps=1")  # fmt: skip


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A current folder with modules of common names, each of which leaves a file when it is executed."""
    for name in COMMON:
        marker = tmp_path / f"executed-{name}"
        (tmp_path / f"{name}.py").write_text(f"open({str(marker)!r}, 'w')\nraise ImportError({name!r})\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def executed(folder):
    return sorted(path.name.removeprefix("executed-") for path in folder.glob("executed-*"))


def test_neither_the_program_nor_its_workers_import_from_the_current_folder(planted):
    done = subprocess.run([*PROGRAM, *REPRODUCE, "--out", "out"], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "Done: 1 steps" in done.stdout
    assert executed(planted) == []


def test_processes_that_decode_images_do_not_either(planted):
    before = os.environ.get(streaming.SAFE_PATH)
    decoders = streaming.Decoders({}, (2, 3, 1), workers=1)
    try:
        assert decoders.executor.submit(os.getppid).result(timeout=100) == os.getpid()
    finally:
        decoders.close()
    assert executed(planted) == []
    assert os.environ.get(streaming.SAFE_PATH) == before


def test_nothing_of_the_current_folder_comes_in_by_another_way(planted):
    """matplotlib reads matplotlibrc there, where TeX can be asked for; any `python -c` imports from there."""
    (planted / "matplotlibrc").write_text("text.usetex: True\nlines.linewidth: 77\n")
    program = (
        "from ref_bioplaus.__main__ import app\napp(['list', 'backends'], standalone_mode=False)\n"
        "import os, matplotlib\nprint(matplotlib.rcParams['text.usetex'], matplotlib.rcParams['lines.linewidth'])\n"
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import json'], check=True)\nprint(os.getcwd())"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines()[-2:] == ["False 1.5", str(planted)], done.stderr
    assert executed(planted) == []


def test_python_m_is_the_command_too(tmp_path):
    for flags in ((), ("-P",)):
        program = [sys.executable, *flags, "-m", "ref_bioplaus", "--version"]
        done = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path, timeout=100)
        assert done.stdout.startswith("ref-bioplaus "), done.stderr


# What is written


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "base"
    train(SMALL, out)
    return out


def in_the_place_of(path, kind, victim):
    """Something that is no ordinary file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "a link":
        path.symlink_to(victim)
    elif kind == "a link to nothing":
        path.symlink_to(victim.with_name("not there"))
    else:
        os.mkfifo(path)


CASES = ("--level", "0", "--case", "0/loss/squared_error*")
DEMO = ("demo", "--backend", "numpy", "--algorithm", "backprop", "--steps", 1, "--out", "demo")
WRITTEN = {  # what writes it, and the file
    "log": (("resume", "run", "--steps", 2), "run/log.jsonl"),
    "experiment": (("resume", "run", "--steps", 2), "run/experiment.toml"),
    "page": (("compare", "run", "--html", "page.html"), "page.html"),
    "picture": (("plot", "run", "--figure", "learning", "--out", "picture.svg"), "picture.svg"),
    "html": (("conformance", "run", "--backend", "numpy", *CASES, "--html", "r.html"), "r.html"),
    "json": (("conformance", "run", "--backend", "numpy", *CASES, "--json", "r.json"), "r.json"),
    "manifest": (("conformance", "emit", "cases", "--case", "1/backprop/FC/*"), "cases/manifest.json"),
    "vector": (("conformance", "emit", "cases", "--case", "1/backprop/FC/*"), "cases/inputs/{}"),
    "demo": (DEMO, "demo/index.html"),
    "numbers": (DEMO, "demo/demo.json"),
    "report": ((*REPRODUCE, "--report", "--out", "out"), "out/bartunov2018-table1-mnist-fc.md"),
}


@pytest.mark.parametrize("kind", ["a link", "a pipe"])
@pytest.mark.parametrize("name", WRITTEN)
def test_nothing_is_written_through_a_link_or_into_a_pipe(tmp_path, monkeypatch, base, name, kind):
    arguments, file = WRITTEN[name]
    monkeypatch.chdir(tmp_path)
    if "run" in arguments:
        subprocess.run(["cp", "-r", base, "run"], check=True)
    victim = tmp_path / "victim"
    victim.write_text("precious\n" * 9)
    if "{}" in file:
        printed(*arguments)
        file = sorted(Path("cases/inputs").iterdir())[0]
    in_the_place_of(Path(file), kind, victim)
    said = printed(*arguments, code=2)
    assert f"{Path(file).name} is {kind}, not an ordinary file" in said
    assert victim.read_text() == "precious\n" * 9
    assert Path(file).is_symlink() or Path(file).is_fifo()


def test_a_whole_file_is_not_written_by_way_of_a_link_that_bears_the_temporary_name(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for make in (lambda path: path.symlink_to(victim), lambda path: os.link(victim, path)):
        make(tmp_path / f"page.html{files.TEMPORARY}")
        files.write_whole(tmp_path / "page.html", b"new")
        assert (tmp_path / "page.html").read_bytes() == b"new"
        assert victim.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "victim"]


def test_what_becomes_a_link_at_the_last_moment_is_refused_by_the_system(tmp_path, monkeypatch):
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_text("precious")
    link.symlink_to(victim)
    monkeypatch.setattr(files, "check_place", lambda path: None)
    for append in (False, True):
        with pytest.raises(OSError, match="symbolic link"):
            files.to_write(link, append)
    assert victim.read_text() == "precious"


def test_a_file_of_two_names_keeps_what_the_other_name_has(tmp_path, base):
    run = tmp_path / "run"
    subprocess.run(["cp", "-r", base, run], check=True)
    os.link(run / logs.LOG, tmp_path / "other")
    before = (tmp_path / "other").read_bytes()
    printed("resume", run, "--steps", 2)
    assert (tmp_path / "other").read_bytes() == before
    assert [record["step"] for record in logs.records(run)] == [0, 1, 2]
    with files.to_write(tmp_path / "new") as file:
        file.write(b"a")
    os.link(tmp_path / "new", tmp_path / "newer")
    with files.to_write(tmp_path / "new") as file:
        file.write(b"b")
    assert ((tmp_path / "new").read_bytes(), (tmp_path / "newer").read_bytes()) == (b"b", b"a")


def test_a_new_file_is_made_an_old_one_emptied_or_gone_on_with(tmp_path):
    path = tmp_path / "file"
    for append, expected in ((True, b"ab"), (True, b"abab"), (False, b"ab"), (True, b"abab")):
        with files.to_write(path, append) as file:
            file.write(b"ab")
        assert path.read_bytes() == files.content(path) == expected
    for use in (files.to_write, files.content):
        with pytest.raises(files.NotOrdinary, match="Is a directory"):
            use(tmp_path)


def test_folders_may_be_links_the_runs_own_among_them(tmp_path):
    (tmp_path / "disk" / "kept").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    (tmp_path / "run").symlink_to(tmp_path / "disk" / "kept")
    for out in (tmp_path / "runs" / "new", tmp_path / "run"):
        train(SMALL, out)
        printed("resume", out, "--steps", 2)
        assert [record["step"] for record in logs.records(out)] == [0, 1, 2]
    assert (tmp_path / "run").is_symlink()


@pytest.mark.parametrize("kind", ["a pipe", "a device"])
def test_what_never_ends_is_not_read(tmp_path, monkeypatch, base, kind):
    """A log, an experiment or a checkpoint that is a pipe, or leads to a device: refused at once."""
    monkeypatch.chdir(tmp_path)
    for name in (logs.LOG, logs.EXPERIMENT, "step-000000000001.safetensors"):
        run = tmp_path / name / "run"
        run.parent.mkdir()
        subprocess.run(["cp", "-r", base, run], check=True)
        (run / name).unlink()
        if kind == "a pipe":
            os.mkfifo(run / name)
        else:
            (run / name).symlink_to("/dev/zero")
        said = printed(*(("resume", run, "--steps", 2) if "step" in name else ("compare", run)), code=2)
        assert "not an ordinary file" in said, said
