"""How much memory there is: on this machine, in this container, for this process, and as the user wants it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path, PurePosixPath
from typing import final

__all__ = ["available_memory", "group_folders", "limited_memory"]

#: Where the kernel mounts its control groups.
_CGROUPS = Path("/sys/fs/cgroup")
#: Where it tells about this process.
_PROCESS = Path("/proc/self")
#: Limit and use of a control group, in version 2 and version 1.
_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))

#: Bytes that the whole process may take, where the user said so.
_limit: ContextVar[int | None] = ContextVar("limit", default=None)


def available_memory() -> int:
    """Return the bytes of memory that a new allocation can take without swapping.

    The limits of the control groups (a container's memory limit, versions 1 and 2, of every group that this process
    is in) and of the process (``ulimit -v``) count where they are lower than the machine's, and so does what
    :func:`limited_memory` says.

    Example:
        >>> available_memory() > 0
        True
    """
    limit = _limit.get()
    available = _on_this_machine()
    return available if limit is None else max(min(available, limit - _resident()), 0)


@contextmanager
def limited_memory(limit: int) -> Iterator[None]:
    """Plan as if the process could not take more than so many bytes, what it holds already included.

    Tables in files that would go beyond are read by blocks of rows.

    Example:
        >>> with limited_memory(1):
        ...     available_memory()
        0
    """
    token = _limit.set(limit)
    try:
        yield
    finally:
        _limit.reset(token)


def _resident() -> int:
    """Return the bytes of memory that this process holds, or the most that it held where that is all there is."""
    if sys.platform == "win32":
        return 0
    import resource

    try:
        return int((_PROCESS / "statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def _on_this_machine() -> int:
    if sys.platform == "win32":
        return _available_on_windows()
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        import os

        # macOS tells only the physical size; half of it is what a busy desktop can be counted on to have.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    return max(min([available, *_left_in_groups(), *_left_in_process()]), 0)


def group_folders(controller: str) -> set[Path]:
    """Return the folders of this process's control groups and of those around them, of versions 1 and 2.

    Args:
        controller: What they control, ``"memory"`` or ``"cpu"``.
    """
    folders = {_CGROUPS, _CGROUPS / controller}
    try:
        lines = (_PROCESS / "cgroup").read_text().splitlines()
    except OSError:
        lines = []

    for line in lines:
        # "0::/a/b" of version 2, "7:memory:/a/b" of version 1.
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue

        base = _CGROUPS / controller if controllers else _CGROUPS
        inner = PurePosixPath(group.lstrip("/"))
        folders.update(base / parent for parent in (inner, *inner.parents))
    return folders


def _left_in_groups() -> list[int]:
    """Return what is left under the limits of this process's control groups and of those around them."""
    left = []
    for folder in group_folders("memory"):
        for limit_name, used_name in _FILES:
            try:
                limit, used = (folder / limit_name).read_text().strip(), (folder / used_name).read_text()
            except OSError:
                continue
            if limit != "max":
                left.append(int(limit) - int(used))

    return left


def _left_in_process() -> list[int]:
    """Return what is left of the address space and of the data that ``ulimit`` grants this process."""
    import resource

    pages = resource.getpagesize()
    try:
        sizes = (_PROCESS / "statm").read_text().split()
    except OSError:
        return []
    used = {resource.RLIMIT_AS: int(sizes[0]) * pages, resource.RLIMIT_DATA: int(sizes[5]) * pages}
    limits = {kind: resource.getrlimit(kind)[0] for kind in used}
    return [limit - used[kind] for kind, limit in limits.items() if limit != resource.RLIM_INFINITY]


def _available_on_windows() -> int:
    import ctypes

    @final
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
