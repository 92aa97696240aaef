"""The package as a commit has it, in a folder."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def git(*arguments: str) -> bytes:
    """What git says about this checkout. Raises ValueError with the last of what it says against it."""
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise ValueError(said[-1] if said else f"git {arguments[0]} failed")
    return done.stdout


def found(commit: str) -> str:
    """A commit's whole hash. Raises ValueError for one that is not there."""
    try:
        return git("rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}").decode().strip()
    except ValueError as error:
        raise ValueError(f'BASE "{commit}" is no commit of this checkout ({error}): name one, as HEAD~3') from None


def subject(commit: str) -> str:
    """A hash's short form and what its commit says."""
    return git("log", "-1", "--format=%h %s", commit).decode().strip()


def unpacked(commit: str, folder: Path) -> Path:
    """The files of a commit's hash in the folder."""
    with tarfile.open(fileobj=io.BytesIO(git("archive", "--format=tar", commit))) as archive:
        archive.extractall(folder, filter="data")
    for part in ("backends", "conformance"):  # which older commits put into the package when it was built
        if os.path.isdir(folder / part) and not os.path.exists(folder / "ref_bioplaus" / part):
            os.symlink(folder / part, folder / "ref_bioplaus" / part)
    return folder
