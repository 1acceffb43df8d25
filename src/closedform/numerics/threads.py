"""How many threads torch takes: one for matrices of a few hundred columns, all of them for the rows.

Where a region of OpenMP opens for a few thousand numbers, its threads have to be woken, which costs a small problem
many times its own time, and then spin on the cores that the next pass over the rows needs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["all_threads", "one_thread", "team"]

#: Up to this many columns one thread is enough for all that is not a pass over the rows.
_SMALL = 4096
#: Without OpenMP the number of threads cannot be changed once they run.
_CHANGEABLE: bool = torch.backends.openmp.is_available()  # type: ignore[no-untyped-call]


class _Held(threading.local):
    #: How many threads this thread's torch had before it was held back, or 0.
    team = 0


_held = _Held()


def team() -> int:
    """Return how many threads a pass over the rows takes: those torch was given."""
    return _held.team or torch.get_num_threads()


@contextmanager
def one_thread(columns: int, device: torch.device, most: int = _SMALL) -> Iterator[None]:
    """Hold torch back to one thread on a CPU while it works on matrices of so few columns, ``most`` or less.

    Example:
        >>> import torch
        >>> before = torch.get_num_threads()
        >>> with one_thread(10, torch.device("cpu")):
        ...     torch.get_num_threads(), team() == before
        (1, True)
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or columns > most or threads == 1 or not _CHANGEABLE:
        yield
        return
    try:
        _held.team = threads
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)
        _held.team = 0


@contextmanager
def all_threads() -> Iterator[None]:
    """Give torch its threads back inside :func:`one_thread`."""
    threads = _held.team
    if not threads:
        yield
        return
    try:
        torch.set_num_threads(threads)
        _held.team = 0
        yield
    finally:
        _held.team = threads
        torch.set_num_threads(1)
