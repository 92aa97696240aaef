"""Printing never ends a command: terminals without UTF-8, readers that leave, full disks, closed streams."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ref_bioplaus.showing.printing import Printed

COMMAND = [sys.executable, "-c", "from ref_bioplaus.__main__ import app; app()"]
SMALL = ("train", "--algorithm", "bp", "--model", "akrout2019/mlp", "--set", "model_options.hidden=4", "--dataset",
         "embedded", "--batch", "1000", "--epochs", "2")  # fmt: skip


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_characters_that_a_terminal_lacks_are_replaced(encoding):
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([*COMMAND, "list", "algorithms"], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode(encoding)
    assert "Kolen-Pollack" in shown or "kolen-pollack" in shown
    assert ("δ" in shown) == (encoding == "utf-8")


@pytest.mark.parametrize("place", ["a pipe that nobody reads", "a full disk", "closed"])
def test_a_run_goes_on_where_nothing_can_be_printed(place, tmp_path):
    if place == "a full disk" and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    to = {"a pipe that nobody reads": "2>&1 | true", "a full disk": ">/dev/full", "closed": ">&- 2>&-"}[place]
    line = " ".join(f"'{word}'" for word in [*COMMAND, *SMALL, "--out", str(tmp_path / "run")])
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {line} {to}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records if "segment" not in record] == [0, 1, 2]
    done = subprocess.run(
        ["bash", "-c", f"{' '.join(repr(word) for word in COMMAND)} evaluate '{tmp_path / 'run'}' {to}"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert ("What was printed is not complete" in done.stderr) == (place == "a full disk")


class Full(io.StringIO):
    """A stream without room."""

    encoding = "ascii"

    def write(self, text):
        raise OSError(28, "No space left on device")


def test_a_stream_without_room_says_so_once_and_prints_nothing(capsys):
    printed = Printed(Full())
    assert printed.write("word") == 4
    assert "not complete ([Errno 28] No space left on device)" in capsys.readouterr().err
    assert printed.encoding == "ascii"
