"""How many threads torch takes: one for small matrices, all of them for the rows, and no more than find a processor.

Where a region of OpenMP opens for a few thousand numbers, its threads have to be woken, which costs a small problem
many times its own time, and then spin on the cores that the next pass over the rows needs. All sizes from which that
is worth it stand here, in one table.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import final

import torch
from torch import Tensor

from closedform.engine.processors import known_processors
from closedform.numerics.root import Root

__all__ = [
    "CHOLESKY_BY_ONE",
    "COLUMNS_AS_ONE_VECTOR",
    "COORDINATES_BY_ONE",
    "EXPANSION_WORK",
    "EXTREMES_BY_ONE",
    "FOLD_BY_ONE",
    "LEAST_NORM_BY_ONE",
    "MATRICES_BY_ONE",
    "NUMBERS_FOR_ONE",
    "PROJECTION_BY_ONE",
    "SPECTRUM_BY_ONE",
    "TARGETS_BY_ONE",
    "all_threads",
    "dense_of",
    "one_thread",
    "spectrum_of",
    "team",
]

#: Columns up to which one thread is enough for most of what is not a pass over the rows.
MATRICES_BY_ONE = 2048
#: Targets up to which it is.
TARGETS_BY_ONE = 256
#: Coordinates, columns times targets, up to which it is: products with more are worth threads whatever the columns.
COORDINATES_BY_ONE = 2**20
#: Columns up to which one thread has all singular values, or a product of matrices, before others are awake.
SPECTRUM_BY_ONE = 128
#: Columns up to which one thread has a Cholesky factor before others are awake: a small part of the work of an SVD.
CHOLESKY_BY_ONE = 1024
#: Columns up to which one thread has a QR factorization of a basis of row space, on the way to its extreme directions.
EXTREMES_BY_ONE = 96
#: Numbers of a block of rows that one thread folds into a triangle before others are awake.
FOLD_BY_ONE = 2**14
#: Columns up to which the weights of least norm are found by one thread before others are awake.
LEAST_NORM_BY_ONE = 256
#: Columns up to which one thread projects normal equations, where several products of matrices follow one another.
PROJECTION_BY_ONE = 256
#: Numbers of a table, times the vectors they are multiplied by, that a thread of a compiled pass takes to be worth it.
NUMBERS_FOR_ONE = 2**19
#: Columns of a Gram matrix that cost a pass as much as one vector: their products are in registers, not from memory.
COLUMNS_AS_ONE_VECTOR = 16
#: Vectors that one vector in sums of three doubles costs as much as, by the operations.
EXPANSION_WORK = 8


def _function(name: str) -> Callable[[int], int] | None:
    """Return a function of the libraries that torch is linked with, or None where they do not have it."""
    try:
        function = getattr(ctypes.CDLL(torch._C.__file__), name)
    except (AttributeError, OSError):
        return None
    function.argtypes, function.restype = [ctypes.c_int], ctypes.c_int
    return function


# torch.set_num_threads would do for the thread that calls it, but a thread that meets torch for the first time
# meanwhile would be left with one for good. These two speak of the calling thread alone.
_set_openmp = _function("omp_set_num_threads")
_set_mkl = _function("MKL_Set_Num_Threads_Local")


def _set(threads: int, mkl: int) -> int:
    """Set both and return what the second was; 0 there stands for what holds for all threads."""
    assert _set_openmp is not None
    _set_openmp(threads)
    return 0 if _set_mkl is None else _set_mkl(mkl)


#: How many threads torch began with, where nobody has said; 0 where the environment says.
_UNASKED = 0 if {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys() else torch.get_num_threads()


def _given() -> int:
    """Return how many threads torch was given; those it took by itself only as far as they find a processor."""
    threads = torch.get_num_threads()
    return min(threads, known_processors().usable) if threads == _UNASKED else threads


@final
class _Held(threading.local):
    #: How many threads this thread's torch may have, which is held back; or 0 where it is not.
    team = 0


_held = _Held()


def team() -> int:
    """Return how many threads a pass over the rows takes: those torch was given.

    Where nobody has said how many (``torch.set_num_threads``, ``OMP_NUM_THREADS``), torch takes those of the machine;
    in a container with a quota of processor time, all of them would be stopped when a few have used it up. So no more
    count then than the affinity and the quota of this process allow.
    """
    return _held.team or _given()


@final
class _Threads:
    """Holds the threads of the calling thread at a number, and gives back what they were.

    Args:
        before: How many torch has before.
        number: How many it is held at, or 0 for those that it may have.
        changes: Whether anything is done at all.
    """

    __slots__ = ("_before", "_changes", "_mkl", "_number", "_team")

    def __init__(self, before: int, number: int, *, changes: bool) -> None:
        self._before, self._number, self._changes = before, number, changes

    def __enter__(self) -> None:
        if not self._changes:
            return
        self._team = _held.team
        _held.team = (_held.team or _given()) if self._number else 0
        number = self._number or self._team
        self._mkl = _set(number, number)

    def __exit__(self, *raised: object) -> None:
        if not self._changes:
            return
        _set(self._before, self._mkl)
        _held.team = self._team


def one_thread(
    columns: int, device: torch.device, *, targets: int = 1, most: int = MATRICES_BY_ONE
) -> AbstractContextManager[None]:
    """Hold torch back to one thread on a CPU while it works on matrices of so few columns, ``most`` or less.

    Other threads of the process keep theirs. With more columns, or many targets, it is held to those that find a
    processor; without OpenMP nothing happens.

    Example:
        >>> import torch
        >>> before = torch.get_num_threads()
        >>> with one_thread(10, torch.device("cpu")):
        ...     torch.get_num_threads(), team() == before
        (1, True)
    """
    threads = torch.get_num_threads()
    many = targets > TARGETS_BY_ONE and columns * targets > COORDINATES_BY_ONE
    large = columns > most or many
    if threads == 1 or device.type != "cpu" or _set_openmp is None:
        return _Threads(threads, threads, changes=False)
    number = _given() if large else 1
    return _Threads(threads, number, changes=number < threads)


def all_threads(worth: bool = True) -> AbstractContextManager[None]:
    """Give torch its threads back inside :func:`one_thread`, where that is worth their waking up."""
    if not (worth and _held.team):
        return _Threads(0, 0, changes=False)
    return _Threads(torch.get_num_threads(), 0, changes=True)


def spectrum_of(root: Root) -> tuple[Tensor, Tensor]:
    """Return the singular values and right singular vectors of a root, with the threads that are worth waking."""
    with all_threads(root.shape[1] > SPECTRUM_BY_ONE):
        return root.spectrum()


def dense_of(root: Root) -> Tensor:
    """Return a root as a matrix, with the threads that are worth waking."""
    with all_threads(root.shape[1] > SPECTRUM_BY_ONE):
        return root.dense()
