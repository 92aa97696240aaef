"""A folder that one process has for itself, until it gives it back or ends, however it does."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from . import files

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows, where a file has to be locked in the folder's place
    fcntl = None
LOCK = ".lock"  # that file


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A folder for this process alone. Raises BlockingIOError where another one has it, OSError where it cannot be
    opened. On a file system without locks nobody is kept out."""
    release = lock_of_folder(folder) if fcntl else lock_of_file(folder / LOCK)
    try:
        yield
    finally:
        release()


def lock_of_folder(folder: Path) -> Any:
    """Lock a folder itself; what gives it back."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(opened)
        raise
    except OSError:
        pass
    return lambda: os.close(opened)


def lock_of_file(path: Path) -> Any:
    """Lock a file that is made for it; what gives it back and takes the file away."""
    from filelock import FileLock, Timeout

    files.check_place(path)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise BlockingIOError(*error.args) from error
    except NotImplementedError:
        pass

    def release() -> None:
        lock.release()
        with suppress(OSError):
            path.unlink()

    return release
