"""Cut the small Fashion-MNIST set that ships with this package out of the four original files.

Usage: python make_fashion_mnist_small.py FOLDER_WITH_IDX_GZ OUT.npz

The first images of every class are kept in the order of the original files; equal input gives equal bytes.
"""

import gzip
import io
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np

CLASSES = 10
PICTURE = (28, 28)  # pixels: height, width
IMAGES_MAGIC = 2051  # the idx format's first number for unsigned bytes in 3 dimensions
LABELS_MAGIC = 2049  # and in 1 dimension
PARTS = {"train": ("train", 500), "test": ("t10k", 100)}  # name here: (name of the original, images per class)
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same in every run, so that the file's bytes are too


def read_idx(path: Path, magic: int) -> np.ndarray:
    """Return the uint8 array of a gzipped idx file; raise ValueError if it is missing, damaged or of another kind."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: expected a readable gzipped idx file of Fashion-MNIST ({error}).") from error
    header = 4 + 4 * (magic % 256)  # bytes: the magic number, then one number for each dimension
    found = int.from_bytes(content[:4], "big")
    if len(content) < header or found != magic:
        raise ValueError(f"{path}: expected an idx file with magic number {magic}, found {found}.")
    shape = tuple(int(size) for size in np.frombuffer(content[4:header], dtype=">u4"))
    values = np.frombuffer(content[header:], dtype=np.uint8)
    expected = int(np.prod(shape))
    if values.size != expected:
        raise ValueError(f"{path}: expected {expected} bytes for shape {shape}, found {values.size}.")
    return values.reshape(shape)


def first_of_every_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Return, in ascending order, where the first `count` labels of each class stand; ValueError if one has fewer."""
    picks = [np.flatnonzero(labels == label)[:count] for label in range(CLASSES)]
    for label, pick in enumerate(picks):
        if len(pick) < count:
            raise ValueError(f"Expected at least {count} images of class {label}, found {len(pick)}.")
    return np.sort(np.concatenate(picks))


def cut(folder: Path) -> dict[str, np.ndarray]:
    """Return the cut's uint8 arrays by name, images (n, 28, 28) and labels (n,); raise ValueError on bad input."""
    arrays = {}
    for part, (original, count) in PARTS.items():
        images = read_idx(folder / f"{original}-images-idx3-ubyte.gz", IMAGES_MAGIC)
        labels = read_idx(folder / f"{original}-labels-idx1-ubyte.gz", LABELS_MAGIC)
        if images.shape != (len(labels), *PICTURE):
            raise ValueError(
                f"{folder}: expected {original} images of shape {(len(labels), *PICTURE)}, found {images.shape}."
            )
        keep = first_of_every_class(labels, count)
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = images[keep], labels[keep]
    return arrays


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write the arrays as a compressed .npz whose bytes depend on nothing but the arrays and the zlib in use."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", ZIP_TIME)
            entry.create_system = 3  # else it would name the operating system of the run
            entry.external_attr = 0o644 << 16  # an unpacked file can be read
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            archive.writestr(entry, buffer.getvalue(), zipfile.ZIP_DEFLATED, 9)


def main(arguments: list[str]) -> None:
    """Run the script with the two command-line arguments; bad input ends it with one sentence and exit status 1."""
    if len(arguments) != 2:
        sys.exit("Expected two arguments: FOLDER_WITH_IDX_GZ OUT.npz")
    try:
        write_npz(Path(arguments[1]), cut(Path(arguments[0])))
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
