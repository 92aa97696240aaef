"""Arrays of a stranger's .npz: plain numbers, taken one by one in shapes that are known beforehand.

What an entry says of itself (compression, size, dtype, shape) is compared before its content takes memory, so that
nothing is unpacked that nobody asked for; no entry is ever taken for a pickle.
"""

import ast
import io
import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np

from ref_bioplaus.conformance.files.reading import Unreadable, content, line, shown

MAGIC, LONGEST_HEADER = b"\x93NUMPY", 10_000  # bytes; NumPy's own limit
LENGTHS = {1: "<H", 2: "<I", 3: "<I"}  # of the header's length, by the format's version
NUMBERS = r"[<>|=]?[fiub]\d{1,2}"
TEXT, LONGEST_TEXT = r"[<|](S|U|u|i)\d{1,3}", 256  # a dtype of text or of bytes, and the most characters
ENCRYPTED = 1  # a bit of an entry's flags
DAMAGE = (BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError, OverflowError)


class Header(NamedTuple):
    """What an entry says of its array."""

    shape: tuple[int, ...]
    dtype: np.dtype | None  # None: no plain numbers
    words: str  # the dtype as it is written
    fortran: bool
    start: int  # where the numbers begin


class Archive:
    """An .npz whose entries are looked at before they are read; all methods raise Unreadable."""

    def __init__(self, file: Path):
        data = content(file)
        with whole():
            self.zip = ZipFile(io.BytesIO(data))
        self.entries: dict[str, ZipInfo] = {}
        for info in self.zip.infolist():
            name = info.filename.removesuffix(".npy")
            if info.is_dir() and not info.file_size:  # zip writes folders as entries, too
                continue
            if name in self.entries:
                raise Unreadable(f"cannot be read as .npz (it holds {shown(name)} twice)")
            self.entries[name] = info

    def header(self, name: str) -> Header:
        """What an entry says of its array, of which no number is read."""
        info = self.entries[name]
        with whole(name):
            if info.flag_bits & ENCRYPTED:
                raise ValueError("is encrypted")
            if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
                raise ValueError(f"is compressed by method {info.compress_type}, expected stored or deflated")
            with self.zip.open(info) as stream:
                return header(stream)

    def array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """An array of numbers whose header has this shape."""
        found = self.header(name)
        with whole(name):
            if found.dtype is None or found.shape != shape:
                raise ValueError(f"has dtype {found.words} and shape {found.shape}, expected numbers of shape {shape}")
            size, there = math.prod(shape) * found.dtype.itemsize, self.entries[name].file_size - found.start
            if size != there:
                raise ValueError(f"has {there} bytes of numbers, expected {size} for its shape {shape}")
            with self.zip.open(self.entries[name]) as stream:
                data = stream.read(found.start + size)[found.start :]
            return np.frombuffer(data, found.dtype).reshape(shape, order="F" if found.fortran else "C")

    def text(self, name: str) -> str:
        """An entry of one short text: |S or <U of shape () or (1,), or its characters as bytes of shape (n,).

        "" for anything else: what it says is compared with what is expected, and never used.
        """
        found = self.header(name)
        size = self.entries[name].file_size - found.start
        kind = re.fullmatch(TEXT, found.words)
        one = found.shape in ((), (1,)) if kind and kind[1] in "SU" else len(found.shape) == 1
        if not kind or not one or not 0 < size <= 4 * LONGEST_TEXT:
            return ""
        with whole(name), self.zip.open(self.entries[name]) as stream:
            data = stream.read(found.start + size)[found.start :]
        return data.decode("utf-32-le" if kind[1] == "U" else "latin1", "replace").rstrip("\0")


@contextmanager
def whole(name: str = "") -> Iterator[None]:
    """Turns whatever damage makes of reading a zip into Unreadable."""
    try:
        yield
    except DAMAGE as error:
        why = line(str(error)) or type(error).__name__
        raise Unreadable(f"cannot be read as .npz ({shown(name) + ' ' if name else ''}{why})") from error


def header(stream: Any) -> Header:
    """The header at the beginning of an .npy. Raises ValueError, EOFError or struct.error where it is none."""
    magic = stream.read(len(MAGIC) + 2)
    if len(magic) < len(MAGIC) + 2 or not magic.startswith(MAGIC) or magic[len(MAGIC)] not in LENGTHS:
        raise ValueError("is no .npy")
    form = LENGTHS[magic[len(MAGIC)]]
    (length,) = struct.unpack(form, stream.read(struct.calcsize(form)))
    if length > LONGEST_HEADER:
        raise ValueError(f"has a header of {length} bytes, expected {LONGEST_HEADER} at most")
    text = stream.read(length)
    try:
        with warnings.catch_warnings(action="ignore"):
            found = ast.literal_eval(text.decode("utf-8" if magic[len(MAGIC)] == 3 else "latin1").strip())
        descr, fortran, shape = found["descr"], found["fortran_order"], found["shape"]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise ValueError("has a header that is none of an .npy") from error
    sizes = isinstance(shape, tuple) and len(shape) < 33 and all(type(n) is int and 0 <= n < 2**63 for n in shape)
    if len(found) != 3 or type(fortran) is not bool or not sizes:
        raise ValueError("has a header without a shape that an array can have, or without an order")
    plain = isinstance(descr, str) and re.fullmatch(NUMBERS, descr)
    words = descr if isinstance(descr, str) and re.fullmatch(r"[\x21-\x7e]{1,20}", descr) else shown(descr)
    start = len(magic) + struct.calcsize(form) + length
    return Header(shape, numbers(descr) if plain else None, words, fortran, start)


def numbers(descr: str) -> np.dtype | None:
    """A dtype of this name; None where this machine has none."""
    try:
        return np.dtype(descr)
    except TypeError:
        return None
