"""Wheels of the tree, and programs in environments of their own."""

import os
import subprocess
import sys

from tests.helpers import ROOT


def run(*command, cwd, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=clean | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def copy_of_the_tree(folder):
    """What git knows or would know, in folder/source."""
    source = folder / "source"
    for file in run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines():
        if (ROOT / file).exists() or (ROOT / file).is_symlink():
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / file).is_symlink():
                (source / file).symlink_to((ROOT / file).readlink())
            else:
                (source / file).write_bytes((ROOT / file).read_bytes())
    return source


def wheel_of_the_tree(folder):
    """(wheel, the copy of the tree that it was built from)"""
    source = copy_of_the_tree(folder)
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder / "wheel", cwd=source)
    (wheel,) = (folder / "wheel").glob("*.whl")
    return wheel, source


def editable_of_the_tree(folder):
    """(the wheel that `pip install -e` would install, the copy of the tree that it stands for)"""
    source = copy_of_the_tree(folder)
    hook = f"from setuptools.build_meta import build_editable; build_editable({str(folder / 'editable')!r})"
    run(sys.executable, "-c", hook, cwd=source)
    (wheel,) = (folder / "editable").glob("*.whl")
    return wheel, source
