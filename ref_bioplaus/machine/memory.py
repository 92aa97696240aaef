"""Bytes that disks have, and bytes for a reader."""

import shutil
from pathlib import Path


def size(count: float) -> str:
    """Bytes for a reader: "3.2 MB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def free_disk(folder: Path) -> int:
    """Bytes that may still be written to a folder's disk. Raises OSError."""
    return shutil.disk_usage(folder).free
