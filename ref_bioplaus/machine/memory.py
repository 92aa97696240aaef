"""Bytes that memory and disks have, and bytes for a reader."""

import os
import shutil
from pathlib import Path


def size(count: float) -> str:
    """Bytes for a reader: "3.2 MB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def free_host_memory() -> int | None:
    """Bytes that the system can still give, a container's own limit included; None where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, ValueError, OSError):
            return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        return min(free, int(limit) - used) if limit != "max" else free
    except (OSError, ValueError):
        return free


def free_disk(folder: Path) -> int:
    """Bytes that may still be written to a folder's disk. Raises OSError."""
    return shutil.disk_usage(folder).free
