"""How many processors there are for this process: on this machine, by its affinity, by the quota of its container."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

from closedform.engine.capacity import group_folders

__all__ = ["Processors", "busy_elsewhere", "known_processors", "processor_name"]

#: Where Linux names the model of each processor (of many, not on Arm).
_MODELS = Path("/proc/cpuinfo")

#: Where the kernel tells how many tasks run now.
_RUNNING = Path("/proc/loadavg")
#: Where it tells of those of this process.
_TASKS = Path("/proc/self/task")
#: Seconds after which affinity and quota are looked at again: that takes some ten small files.
_FRESH = 10.0


@final
@dataclass(frozen=True)
class Processors:
    """Processors that this process can have.

    Attributes:
        machine: How many the machine has.
        allowed: On how many of them this process may run.
        quota: How many of them it may keep busy by the quota of its control groups; None without one.
    """

    machine: int
    allowed: int
    quota: float | None

    @property
    def usable(self) -> int:
        """How many threads find a processor: with more, the kernel stops all of them when the quota is used up."""
        return max(1, self.allowed if self.quota is None else min(self.allowed, math.ceil(self.quota)))


@final
@dataclass
class _Kept:
    found: Processors | None = None
    until: float = 0.0


_kept = _Kept()


def known_processors() -> Processors:
    """Return what there is, at most a few seconds old.

    ``os.process_cpu_count`` (which ``PYTHON_CPU_COUNT`` sets) counts from Python 3.13 on, before it the affinity; and
    the quotas of all control groups around this process, versions 1 and 2.

    Example:
        >>> found = known_processors()
        >>> 1 <= found.usable <= found.allowed <= found.machine
        True
    """
    now = time.monotonic()
    if _kept.found is None or now > _kept.until:
        machine = os.cpu_count() or 1
        _kept.found, _kept.until = Processors(machine, min(machine, _allowed()), _quota()), now + _FRESH
    return _kept.found


def processor_name() -> str:
    """Return what the system calls the model of the processor, or at least its kind.

    Example:
        >>> processor_name() != ""
        True
    """
    if _MODELS.exists():
        for line in _MODELS.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"


def busy_elsewhere() -> int:
    """Return how many tasks outside this process run at this moment; 0 where the kernel does not tell.

    Example:
        >>> busy_elsewhere() >= 0
        True
    """
    try:
        running = int(_RUNNING.read_text().split()[3].split("/")[0])
        own = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in _TASKS.iterdir()]
    except (OSError, IndexError, ValueError):
        return 0
    return max(0, running - own.count("R"))


def _allowed() -> int:
    count: Callable[[], int | None] | None = getattr(os, "process_cpu_count", None)
    if count is not None:
        return count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota() -> float | None:
    """Return the least of the quotas that hold for this process, in processors; None where there is none."""
    quotas = []
    for folder in group_folders("cpu"):
        try:
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except (OSError, ValueError):
            continue
        if quota not in ("max", "-1"):
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)
