"""What tells a run's images from all others: a hash of their files or arrays, and of what of them it is.

Nothing can be read from a hash but that two are the same.
"""

import hashlib
import os
from collections.abc import Iterable
from os.path import isfile
from pathlib import Path
from typing import Any

import numpy as np

WHOLE = 10**9  # bytes: of more than this in all, names, sizes and footers stand for the content
PIECE = 1 << 20
SAMPLED = 1000  # rows that stand for an array of more than WHOLE bytes
SPLITS = ("train", "validation", "test")
FOOTER = 8  # bytes at the end of a parquet file: the size of what stands before them, and "PAR1"


def of_folder(folder: Path) -> dict[str, Any]:
    """The hash of every file below a folder that is not hidden, {"sha256": ..., "of": ...}."""
    return of_files({path.relative_to(folder).as_posix(): path for path in below(folder)})


def below(folder: Path) -> Iterable[Path]:
    """The files below a folder, none of them hidden; a folder that links lead to twice counts once."""
    met = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        here = os.stat(place)
        if (here.st_dev, here.st_ino) in met:
            folders.clear()
            continue
        met.add((here.st_dev, here.st_ino))
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (path for name in names if isfile(path := Path(place) / name) and not name.startswith("."))


def of_files(files: dict[str, Path]) -> dict[str, Any]:
    """The hash of files by name: of their bytes, or above WHOLE of names, sizes and the footers of parquet files."""
    digest, footers = hashlib.sha256(), 0
    try:
        sizes = {name: path.stat().st_size for name, path in files.items()}
        whole = sum(sizes.values()) <= WHOLE
        for name in sorted(files):
            digest.update(f"{name}\0{sizes[name]}\0".encode("utf-8", "surrogateescape"))
            with files[name].open("rb") as file:
                if whole:
                    while piece := file.read(PIECE):
                        digest.update(piece)
                elif name.endswith(".parquet") and sizes[name] >= FOOTER:
                    digest.update(footer(file, sizes[name]))
                    footers += 1
    except OSError as error:
        return {"sha256": None, "of": f"nothing: a file of {len(files)} cannot be read ({error.strerror})"}
    count = f"{len(files)} file" + ("" if len(files) == 1 else "s")
    of = f"the bytes of {count}" if whole else f"the names and sizes of {count}, and {footers} parquet footers"
    return {"sha256": digest.hexdigest(), "of": of}


def footer(file: Any, size: int) -> bytes:
    """What a parquet file says of itself at its end; of another file its last bytes."""
    file.seek(size - FOOTER)
    end = file.read(FOOTER)
    length = int.from_bytes(end[:4], "little")
    if end[4:] != b"PAR1" or length > size - FOOTER:
        return end
    file.seek(size - FOOTER - length)
    return file.read(length + FOOTER)


def of_data(data: Any) -> dict[str, Any]:
    """The hash of a dataset in hand: its own `digest`, or that of the bytes of the arrays in its splits."""
    own = getattr(data, "digest", None)
    return own() if callable(own) else of_arrays(data)


def of_arrays(data: Any) -> dict[str, Any]:
    """The hash of the bytes of every array in the splits of some data, above WHOLE of evenly spread rows; None where
    they hold none."""
    digest, count, sampled = hashlib.sha256(), 0, 0
    for split in SPLITS:
        part = getattr(data, split, None)
        as_dict = getattr(part, "_asdict", None)
        held = as_dict() if as_dict else getattr(part, "__dict__", {})
        for name in sorted(held):
            array = held[name]
            if isinstance(array, np.ndarray) and not array.dtype.hasobject:
                digest.update(f"{split}/{name}\0{array.dtype.str}\0{array.shape}\0".encode())
                if array.nbytes > WHOLE:
                    array = array[np.linspace(0, len(array) - 1, SAMPLED).round().astype(np.int64)]
                    sampled += 1
                digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
                count += 1
    if not count:
        return {"sha256": None, "of": "nothing: the data shows no arrays"}
    some = f", of {sampled} of them {SAMPLED} rows" if sampled else ""
    return {"sha256": digest.hexdigest(), "of": f"the bytes of {count} arrays{some}"}
