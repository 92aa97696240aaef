"""The table of faults, faults.toml, and the digests by which a result is known to be still of today's files."""

import hashlib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("faults.toml")


class Fault(NamedTuple):
    """A mistake in one line. tests: of its module, files or "file::function", which are tried first; select: those of
    them with such names, as pytest's -k has it.
    """

    name: str
    file: str
    old: str  # stands once in the file
    new: str
    tests: tuple[str, ...]
    select: str = ""

    def text(self, root: Path) -> str:
        """The file with the fault in it. Raises ValueError where `old` does not stand there once."""
        whole = (root / self.file).read_text()
        if (count := whole.count(self.old)) != 1:
            raise ValueError(f"fault {self.name}: {self.old!r} stands {count} times in {self.file}, expected once")
        return whole.replace(self.old, self.new)

    def digest(self, root: Path) -> str:
        """Of the fault, the file that it is put into, and the tests that are tried first."""
        files = {self.file, *(test.partition("::")[0] for test in self.tests)}
        return digest(map(str, self), ((root / file).read_bytes() for file in sorted(files)))


def read(table: Path = TABLE) -> list[Fault]:
    """All faults, in the table's order."""
    rows = tomllib.loads(table.read_text()).get("fault", [])
    return [Fault(**row | {"tests": tuple(row["tests"])}) for row in rows]


def suite_digest(root: Path) -> str:
    """Of every file of the tests."""
    return digest((), (file.read_bytes() for file in sorted((root / "tests").glob("*.py"))))


def digest(words: Iterable[str], contents: Iterable[bytes]) -> str:
    """SHA-256 of some words and contents, its first 16 letters."""
    found = hashlib.sha256()
    for part in (*(word.encode() for word in words), *contents):
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()[:16]
