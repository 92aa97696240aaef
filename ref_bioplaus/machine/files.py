"""Ordinary files, which are all that the program writes, and all that it reads of what a stranger may have made.

A folder on the way may be a link. What stands in a file's own place and is a link, a pipe or a device is never written
to, as a link leads to files of somebody else's choice.
"""

import errno
import os
import shlex
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

KINDS = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOFOLLOW, NONBLOCK = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_NONBLOCK", 0)
BINARY = getattr(os, "O_BINARY", 0)  # else Windows writes a byte 13 before every 10, and ends a file at a 26


class NotOrdinary(OSError):
    """A folder, a link, a pipe or a device where a file is expected; `strerror` says so, after "cannot be written
    (...)"."""

    def __str__(self) -> str:
        """A sentence."""
        return f"The file {self.filename} cannot be used ({self.strerror}): put an ordinary file there, or nothing."


def remedy(error: OSError) -> str:
    """For a sentence: what to do where something cannot be written."""
    if isinstance(error, NotOrdinary):
        return f"move {error.filename} away"
    return "make room" if error.errno in FULL else "see that it can be"


def check(path: Path, mode: int) -> None:
    """Raise NotOrdinary for the mode of a thing that is no file, of a folder in the system's own words."""
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFDIR:
        raise NotOrdinary(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if kind != stat.S_IFREG:
        found = KINDS.get(kind, "a device")
        raise NotOrdinary(errno.EINVAL, f"{path.name} is {found}, not an ordinary file", str(path))


def check_place(path: Path) -> bool:
    """Whether a file that is to be written bears another name too, as a hard link gives it. Raises NotOrdinary where
    something that is no file, or a link to one, is in its place."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    check(path, found.st_mode)
    return stat.S_ISREG(found.st_mode) and found.st_nlink > 1


def opened(path: Path, flags: int = 0) -> int:
    """A descriptor to write to an ordinary file with, made where it is not there. flags: os.O_APPEND, or os.O_EXCL for
    a new file; without them it is emptied, and what is of two names left to the other. Raises OSError."""
    shared = check_place(path)
    if shared and not flags & os.O_APPEND:
        os.unlink(path)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | BINARY | NOFOLLOW | NONBLOCK | flags, 0o666)
    try:
        check(path, os.fstat(file).st_mode)  # it may have changed since
        if not flags & os.O_APPEND:
            os.ftruncate(file, 0)
    except OSError:
        os.close(file)
        raise
    return file


def to_write(path: Path, append: bool = False) -> BinaryIO:
    """An ordinary file to write to, from its start or from its end. Raises OSError."""
    return os.fdopen(opened(path, os.O_APPEND if append else 0), "ab" if append else "wb")


def to_read(path: str | Path) -> BinaryIO:
    """An ordinary file, or a link to one, to read; it waits for nobody. Raises OSError."""
    if "\0" in str(path):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))  # Python has a ValueError for it
    file = os.open(path, os.O_RDONLY | BINARY | NONBLOCK)
    try:
        check(Path(path), os.fstat(file).st_mode)
        return os.fdopen(file, "rb")
    except OSError:
        os.close(file)
        raise


def content(path: str | Path) -> bytes:
    """What an ordinary file holds. Raises OSError."""
    with to_read(path) as file:
        return file.read()


def visible(text: str) -> str:
    """A text for a page, with what is not UTF-8 in the name of a file as "?"."""
    return text.encode("utf-8", "replace").decode()


def typed(*words: str | Path) -> str:
    """For a sentence: a command as a shell takes it, whatever a folder is called: `ref-bioplaus resume 'my run'`."""
    return f"`{shlex.join(['ref-bioplaus', *map(str, words)])}`"


TEMPORARY = ".tmp"


def write_whole(path: Path, content: bytes) -> None:
    """Write an ordinary file so that it is there with its whole content or not at all. Raises OSError."""
    check_place(path)
    temporary = path.with_name(path.name + TEMPORARY)
    with suppress(FileNotFoundError):
        os.unlink(temporary)  # what a kill left, or a link
    file = opened(temporary, os.O_EXCL)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    finally:
        os.close(file)
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Let a rename in a folder reach the disk, where the system and its file system can be asked to."""
    if os.name == "posix":
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(directory)
