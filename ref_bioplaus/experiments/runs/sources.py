"""The code of one's own that a run has used: a copy in its folder, to be read. Nothing in the folder is ever run.

code/my_rule-0123456789ab.py        the file, and the first digits of its SHA-256, which experiment.toml has whole
"""

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping
from os.path import exists
from pathlib import Path

from ... import naming
from ...machine import files
from ..spec.experiment import Experiment, as_dict, named_code
from .checkpoints import Checkpoint

FOLDER = "code"
DIGITS = 12
LINES = 8  # of a difference that is shown


def keep(out: Path, experiment: Experiment) -> None:
    """Write a copy of each file of code that an experiment names. Raises OSError."""
    for name in named_code(as_dict(experiment)):
        found = naming.source(name)
        if found is not None:
            file, content = found
            place = out / FOLDER / name_of(file, hashlib.sha256(content).hexdigest())
            if not exists(place):
                place.parent.mkdir(exist_ok=True)
                files.write_whole(place, content)


def name_of(file: str, digest: str) -> str:
    """What the copy of a file is called, whatever stands in its name."""
    stem = re.split(r"[/\\]", file)[-1].removesuffix(".py")
    return f"{re.sub(r'[^0-9A-Za-z_.]', '_', stem)[:100]}-{digest[:DIGITS]}.py"


def change(name: str, now: Mapping[str, str], checkpoint: Checkpoint) -> str:
    """A sentence, without a full stop, where the code of a name is not what a run has had, with the difference as far
    as the copy tells; "" where it is, and where nothing is known of it."""
    recorded = checkpoint.header["experiment"].get("code") or {}
    same = [one for other, one in recorded.items() if naming.short(other) == naming.short(name)]
    before: Mapping[str, str] = same[0] if same else {}
    digest = before.get("sha256", "")
    if not digest or digest == now.get("sha256"):
        return ""
    sentence = f"{name} is not what this run has had so far: sha256 {now.get('sha256')}, before {digest}"
    found = naming.source(name)
    kept = copy_of(checkpoint.path.parent, before)
    if found is None or kept is None:
        return sentence
    lines = list(differences(kept, found[1]))
    shown = " | ".join(lines[:LINES]) + (" | ..." if len(lines) > LINES else "")
    return f"{sentence} ({shown})"


def copy_of(out: Path, record: Mapping[str, str]) -> bytes | None:
    """The copy of a file in a run's folder; None where there is none of that hash."""
    digest = record.get("sha256", "")
    if not naming.DIGEST.fullmatch(digest):
        return None
    try:
        content = files.content(out / FOLDER / name_of(record.get("file", ""), digest))
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == digest else None


def differences(before: bytes, now: bytes) -> Iterator[str]:
    """The lines that are not in both, as in a unified diff without what stands around them."""
    a, b = (text.decode("utf-8", "replace").splitlines() for text in (before, now))
    yield from list(difflib.unified_diff(a, b, n=0, lineterm=""))[2:]
