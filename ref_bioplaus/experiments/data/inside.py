"""Which files of a dataset are read: ordinary ones in its folder, or in the caches of the hub's client.

A README may name data files anywhere, a link or an image's path may lead anywhere, a pipe may never end, and some
formats have Pillow start other programs. `datasets` looks at none of this, and before 4.0 ran scripts that lay in a
folder.
"""

import errno
import io
import os
import stat
from collections.abc import Iterable, Iterator
from os.path import isfile
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlparse

from ...machine import files
from .augmentation import DataError

OLDEST = 4  # the first `datasets` that runs no script
BUILDERS = ("arrow", "cache", "csv", "imagefolder", "json", "parquet", "text", "webdataset")  # none unpickles anything
RASTERS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "TGA", "TIFF", "WEBP")
METADATA = (".huggingface.yaml",)  # hidden, but read


def check_version() -> None:
    """Raise DataError for a `datasets` that can run a script of a folder's."""
    import datasets

    if int(datasets.__version__.split(".")[0]) < OLDEST:
        raise DataError(
            f"datasets {datasets.__version__} is installed, which can run a script that lies in a folder of images: "
            f'pip install --upgrade "datasets>={OLDEST}".'
        )


def check_folder(folder: Path) -> None:
    """Raise DataError where something in a folder is no file, or its README names data files that are elsewhere."""
    for path in not_ordinary(folder):
        raise DataError(f"{path} is no ordinary file: take it out of the folder of images.")
    root = (os.path.realpath(folder),)
    for text in named_files(described(folder)):
        remote = urlparse(text).scheme or "::" in text or text.startswith("~")
        if remote or not within(os.path.join(folder, text), root):
            raise DataError(
                f'The README of {folder} names the data files "{text}": only ordinary files inside the folder are read.'
            )


def not_ordinary(folder: Path) -> Iterator[str]:
    """What is neither a file nor a folder, through links too; hidden things, which are not read, are not looked at."""
    waiting = [str(folder)]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue  # whoever reads it says so
        for entry in entries:
            if entry.name.startswith(".") and entry.name not in METADATA:
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            elif os.path.exists(entry.path) and not os.path.isfile(entry.path) and not os.path.isdir(entry.path):
                yield entry.path


def described(folder: Path) -> Any:
    """What a folder's README and its like say of it, as `datasets` reads them; {} where they cannot be read."""
    import yaml
    from huggingface_hub import DatasetCard

    found: list[Any] = []
    try:
        if isfile(folder / "README.md"):
            found.append(DatasetCard.load(folder / "README.md").data.to_dict())
        for name in METADATA:
            if isfile(folder / name):
                found.append(yaml.safe_load((folder / name).read_text("utf-8")))
    except Exception:  # whatever the parsers raise: `datasets` meets the same
        return found
    return found


def named_files(value: Any, asked: bool = False) -> Iterator[str]:
    """Every text under "data_files" and "data_dir", however deep."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from named_files(inner, asked or key in ("data_files", "data_dir"))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from named_files(inner, asked)
    elif asked and isinstance(value, str):
        yield value


def check_builder(builder: Any, roots: tuple[str, ...], origin: str) -> None:
    """Raise DataError for a format that is not read here, and for data files that are elsewhere than in `roots`."""
    kind = type(builder).__module__.rpartition(".")[2]
    if kind not in BUILDERS:
        raise DataError(f'{origin} holds files of the kind "{kind}", expected images, or one of {", ".join(BUILDERS)}.')
    if kind == "webdataset":  # but for one ending, whose tensors torch unpickles
        safe = {ending: read for ending, read in builder.DECODERS.items() if ending != "pth"}
        builder.__class__ = type("WebDataset", (type(builder),), {"DECODERS": safe, "__module__": __name__})
    for split, found in (builder.config.data_files or {}).items():
        for file in elsewhere((str(file) for file in found), roots):
            raise DataError(
                f'The split "{split}" of {origin} has the file {file}: only ordinary files inside the folder are read, '
                "so put it there."
            )


def roots_of(folder: Path | None) -> tuple[str, ...]:
    """Where data files may lie: in the folder, in the part of a hub's cache that it links to, and in the caches."""
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    config = datasets.config
    found = [HF_HUB_CACHE, config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, config.EXTRACTED_DATASETS_PATH]
    if folder is not None:
        found.append(folder)
        if folder.resolve().parent.name == "snapshots":  # of a cache: links to the files beside it
            found.append(folder.resolve().parents[1] / "blobs")
    return tuple(os.path.realpath(place) for place in found)


def within(path: str, roots: tuple[str, ...]) -> bool:
    """Whether a path, its links followed, lies in one of some folders that are no links."""
    real = os.path.realpath(path)
    alike = [root for root in roots if os.path.splitdrive(root)[0] == os.path.splitdrive(real)[0]]
    return any(os.path.commonpath((real, root)) == root for root in alike)


def elsewhere(paths: Iterable[str], roots: tuple[str, ...]) -> Iterator[str]:
    """Those of the data files that are neither the hub's nor ordinary files in one of some folders, links followed."""
    known: dict[str, bool] = {}  # by folder: there may be a million files
    for path in paths:
        if path.startswith("hf://"):
            continue
        folder = os.path.dirname(path)
        if folder not in known:
            known[folder] = within(folder, roots)
        try:
            plain = known[folder] and stat.S_ISREG(os.lstat(path).st_mode)
            if not plain and not (within(path, roots) and stat.S_ISREG(os.stat(path).st_mode)):
                yield path
        except OSError:
            yield path


def stream(cell: dict[str, Any], roots: tuple[str, ...]) -> BinaryIO:
    """What an image is decoded of: its bytes, or its file. Raises NotOrdinary for a path that leads elsewhere, or to no
    file; OSError."""
    if cell["bytes"] is not None:
        return io.BytesIO(cell["bytes"])
    if not within(cell["path"], roots):
        raise files.NotOrdinary(errno.EINVAL, f"{cell['path']} is not in the folder", cell["path"])
    return files.to_read(cell["path"])


def rasters() -> list[str]:
    """The formats that are read, as Pillow calls those it has."""
    from PIL import Image

    Image.init()
    return [name for name in RASTERS if name in Image.OPEN]
