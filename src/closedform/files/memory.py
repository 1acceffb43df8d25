"""How much memory a table may take before it is read by blocks of rows instead."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["available_memory"]


def available_memory() -> int:
    """Return the bytes of memory that a new allocation can take without swapping.

    The limit of the control group (a container's memory limit) counts where it is lower than the machine's.

    Example:
        >>> available_memory() > 0
        True
    """
    if sys.platform == "win32":
        return _available_on_windows()
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        import os

        # macOS tells only the physical size; half of it is what a busy desktop can be counted on to have.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    limit, current = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        available = min(available, max(int(text) - int(current.read_text()), 0))
    return available


def _available_on_windows() -> int:
    import ctypes

    class MemoryStatus(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            ("total", ctypes.c_ulonglong),
            ("available", ctypes.c_ulonglong),
            *((f"unused{i}", ctypes.c_ulonglong) for i in range(5)),
        )

    status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    if sys.platform != "win32" or not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        raise OSError("Windows did not tell how much memory is available")
    return int(status.available)
