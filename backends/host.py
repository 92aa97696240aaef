"""The host's memory, as far as the system tells of it."""

import os
import re
import sys
from pathlib import Path


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


def resident_memory(peak: bool) -> int | None:
    """The bytes of memory that this process has now, or the most that it has had; outside Linux always the most, and
    None where the system does not say."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        for kilobytes in re.findall(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", status):
            return 1024 * int(kilobytes)
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most  # which others count in kilobytes
