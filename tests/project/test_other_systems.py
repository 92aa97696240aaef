"""macOS and Windows, as far as Linux can play them: what they lack is taken away."""

import ast
import io
import ntpath
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from asv_bench import memory
from ref_bioplaus.experiments.data import inside, streaming
from ref_bioplaus.experiments.many import jobs
from ref_bioplaus.experiments.runs import folder
from ref_bioplaus.machine import environment, files, locking
from tests.helpers import ROOT, SOURCES

LACKING = {  # on Windows, or on macOS
    "os": "chown fchmod fork getloadavg getpgid getuid geteuid killpg mkfifo nice sched_getaffinity sched_setaffinity "
    "setsid statvfs sysconf uname waitpid O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_CLOEXEC O_SYNC",
    "signal": "SIGALRM SIGHUP SIGKILL SIGQUIT SIGSTOP SIGUSR1 SIGUSR2 alarm pause pthread_kill setitimer",
}
MODULES = {"fcntl", "grp", "msvcrt", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty", "winreg"}
GUARDS = ("hasattr(", "AttributeError")


def without(*modules, code):
    """Run code in a Python that lacks some modules."""
    lines = [f"import sys; sys.modules.update(dict.fromkeys({modules}))", code]
    return subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize("path", [*SOURCES, *sorted((ROOT / "asv_bench").rglob("*.py"))], ids=lambda p: p.stem)
def test_what_a_system_lacks_is_asked_for_first(path):
    """A module is imported in a `try`; an attribute is used where its absence is thought of."""
    tree = ast.parse(path.read_text("utf-8"))
    thought_of = {
        id(inner)
        for node in ast.walk(tree)
        for part in (node.body if isinstance(node, ast.Try) else [node] if isinstance(node, ast.FunctionDef) else [])
        if isinstance(node, ast.Try) or any(word in ast.unparse(node) for word in GUARDS)
        for inner in ast.walk(part)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and MODULES.intersection(alias.name for alias in node.names):
            assert id(node) in thought_of, f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            lacking = node.attr in LACKING.get(node.value.id, "").split()
            assert not lacking or id(node) in thought_of, f"line {node.lineno}: {ast.unparse(node)}"


def test_a_run_and_its_resumption_without_fcntl_and_resource(tmp_path):
    pytest.importorskip("filelock")
    code = f"""
from ref_bioplaus.__main__ import app
common = ["train", "--algorithm", "fa", "--model", "akrout2019/mlp", "--set", "model_options.hidden=4", "--batch",
          "500", "--out", {str(tmp_path / "run")!r}, "--set", "metrics=[]"]
app([*common, "--dataset", "embedded", "--steps", "1"], standalone_mode=False)
app(["resume", {str(tmp_path / "run")!r}, "--steps", "2"], standalone_mode=False)
import asv_bench.memory
"""
    done = without("fcntl", "resource", code=code)
    assert done.returncode == 0, done.stderr
    assert "step 2" in done.stdout
    assert not (tmp_path / "run" / locking.LOCK).exists()


@pytest.fixture
def no_fcntl(monkeypatch):
    pytest.importorskip("filelock")
    monkeypatch.setattr(locking, "fcntl", None)


def test_a_folder_is_for_one_process_without_fcntl(tmp_path, no_fcntl):
    run = tmp_path / "run"
    with folder.alone(run):
        with pytest.raises(folder.Busy, match="Another process is running"), folder.alone(run):
            pass
        folder.check_empty(run, False)  # but for the file that is locked
    assert not run.exists()


def test_a_lock_goes_with_its_process_without_fcntl(tmp_path, no_fcntl):
    code = f"""
import time
from pathlib import Path
from ref_bioplaus.machine import locking
locking.fcntl = None
with locking.locked(Path({str(tmp_path)!r})):
    print("locked", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as holder:
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(folder.Busy), folder.alone(tmp_path):
            pass
        holder.kill()
    with folder.alone(tmp_path):
        pass


def test_no_link_is_locked(tmp_path, no_fcntl):
    (tmp_path / "other").write_text("whole")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / locking.LOCK).symlink_to(tmp_path / "other")
    with pytest.raises(files.NotOrdinary, match="a link"), folder.alone(tmp_path / "run"):
        pass
    assert (tmp_path / "other").read_text() == "whole"


@pytest.mark.parametrize("platform, bytes", [("darwin", 3000), ("freebsd14", 3000 * 1024)])
def test_memory_is_in_bytes_everywhere(platform, bytes, monkeypatch):
    usage = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda who: SimpleNamespace(ru_maxrss=3000))
    monkeypatch.setitem(sys.modules, "resource", usage)
    monkeypatch.setattr(sys, "platform", platform)
    assert environment.resident_memory(peak=True) == memory.resident(peak=False) == bytes


def test_memory_where_no_system_says(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(sys, "platform", "win32")
    assert environment.resident_memory(peak=True) is None
    with pytest.raises(SystemExit, match="does not say how much memory"):
        memory.resident(peak=True)


def test_memory_of_this_process():
    now, most = (environment.resident_memory(peak) for peak in (False, True))
    assert 20e6 < now <= most
    resource = pytest.importorskip("resource")
    if sys.platform == "linux":
        assert most == pytest.approx(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, rel=0.5)


def test_files_are_bytes_everywhere(tmp_path, monkeypatch):
    """Without O_BINARY, Windows would translate the ends of lines in a checkpoint."""
    asked = []
    monkeypatch.setattr(files, "BINARY", 1 << 40)

    def opened(path, flags, *rest):
        if not Path(path).is_dir():
            asked.append(flags)
        return os_open(path, flags & ~(1 << 40), *rest)

    os_open = os.open
    monkeypatch.setattr(os, "open", opened)
    files.write_whole(tmp_path / "a", b"\n\x1a\r\n")
    assert files.content(tmp_path / "a") == b"\n\x1a\r\n"
    files.to_write(tmp_path / "a", append=True).close()
    assert len(asked) == 3 and all(flags & 1 << 40 for flags in asked)


def test_another_drive_is_another_place(monkeypatch):
    monkeypatch.setattr(inside, "os", SimpleNamespace(path=ntpath))
    roots = (r"C:\Users\me\.cache", r"D:\images")
    assert inside.within(r"D:\images\train\0.png", roots)
    assert not inside.within(r"E:\images\train\0.png", roots)
    assert not inside.within(r"D:\images\..\other\0.png", roots)


def test_processes_that_can_be_waited_for(monkeypatch):
    """Windows waits for 63 things at once, and concurrent.futures refuses more than 61 processes."""
    asked = []
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(streaming, "ProcessPoolExecutor", lambda workers, *rest: asked.append(workers))
    monkeypatch.setattr(streaming, "Context", lambda: SimpleNamespace(RawArray=lambda kind, size: bytearray(size)))
    streaming.Decoders({}, (1, 2, 3), 100)
    streaming.Decoders({}, (1, 2, 3), 3)
    assert asked == [61, 3]


def test_a_job_is_asked_to_stop_where_terminate_asks_nobody(monkeypatch):
    monkeypatch.setattr(jobs, "POSIX", False)
    job, ended = object.__new__(jobs.Process), []
    job.process = SimpleNamespace(stdin=io.StringIO(), terminate=lambda: ended.append("at once"))
    job.stop()
    assert job.process.stdin.closed and not ended
    job.stop()
    assert ended == ["at once"]


def test_a_job_stops_when_its_input_ends_where_kill_ends_at_once():
    code = """
import os, threading, time
from ref_bioplaus.experiments.many import jobs
from ref_bioplaus.experiments.training.interrupt import Interrupt
jobs.POSIX, os.kill = False, None
with Interrupt() as interrupt:
    threading.Thread(target=jobs.stop_with_parent, daemon=True).start()
    until = time.monotonic() + 30
    while not interrupt.name and time.monotonic() < until:
        time.sleep(0.01)
print(interrupt.name)
"""
    done = subprocess.run([sys.executable, "-c", code], input="", capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == signal.Signals.SIGTERM.name, done.stderr


def test_a_checkout_whose_links_are_files(tmp_path):
    """As git writes links on Windows."""
    for name in ("ref_bioplaus", "backends", "conformance"):
        ignored = shutil.ignore_patterns("__pycache__", "vectors", "reports", "data", "results")
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=ignored)
    for name in ("backends", "conformance"):
        place = tmp_path / "ref_bioplaus" / name
        place.unlink()
        place.write_text(f"../{name}")
    code = """
import ref_bioplaus as rb
from ref_bioplaus.conformance.judging import judge
print(rb.backends.__file__, judge.__file__, rb.backends.get("numpy").name)
"""
    place = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=place)
    found = [
        str(tmp_path / "backends" / "__init__.py"),
        str(tmp_path / "conformance" / "judging" / "judge.py"),
        "numpy",
    ]
    assert done.stdout.split() == found, done.stderr
