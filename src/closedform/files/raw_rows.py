"""Rows of numbers that stand in a file as they stand in memory, read at the speed of the disk."""

from __future__ import annotations

import math
import os
import sys
import threading
from pathlib import Path
from typing import IO, Any, final

import numpy as np

__all__ = ["RawRows"]

#: Bytes of the largest read whose memory is kept for the next one: blocks of a pass, not tables that are read whole.
_KEPT_BYTES = 128 * 2**20
#: Bytes of the smallest: below them an allocation costs nothing beside the call.
_LEAST_KEPT_BYTES = 2**18
#: Buffers kept: one is worked on, one waits, one is being filled.
_KEPT = 3


def _holders(buffers: list[np.ndarray[Any, Any]], number: int) -> int:
    """Return how many hold a buffer of a list, as this interpreter counts: not all count the argument of the call."""
    return sys.getrefcount(buffers[number])


#: What that is of one that the list alone holds.
_LIST_ALONE = _holders([np.empty(0, np.uint8)], 0)


@final
class RawRows:
    """The numbers of an array, of which ranges of rows are read; nothing that is handed out hangs on the file.

    Not by a map of the file, which needs room among the addresses of the process and a fault for each page. Fresh
    memory costs such faults as well: what a read fills is used again once nobody holds an array on it any more.

    Args:
        path: The file.
        offset: Bytes before the first number.
        dtype: Of the numbers.
        shape: ``(rows, ...)``, the rows one after the other.
    """

    def __init__(self, path: Path, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self.path, self.offset, self.dtype, self.shape = path, offset, dtype, shape
        self._buffers: list[np.ndarray[Any, Any]] = []
        self._lock = threading.Lock()

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Read rows ``start`` to ``stop``.

        Raises:
            OSError: the file is gone.
            EOFError: it has become shorter.
        """
        rows, row = max(min(stop, self.shape[0]) - start, 0), math.prod(self.shape[1:]) * self.dtype.itemsize
        buffer = self._buffer(rows * row)
        with self.path.open("rb", buffering=0) as file:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), self.offset + start * row, rows * row, os.POSIX_FADV_SEQUENTIAL)
            file.seek(self.offset + start * row)
            _fill(file, buffer.data)
        return buffer.view(self.dtype).reshape(rows, *self.shape[1:])

    def _buffer(self, size: int) -> np.ndarray[Any, Any]:
        """Return bytes to read into: those of an earlier read that nobody holds any more, or new ones."""
        if not _LEAST_KEPT_BYTES <= size <= _KEPT_BYTES:
            return np.empty(size, np.uint8)

        with self._lock:
            for number in range(len(self._buffers)):
                if self._buffers[number].size >= size and _holders(self._buffers, number) == _LIST_ALONE:
                    return self._buffers[number][:size]
            buffer = np.empty(size, np.uint8)
            self._buffers = [*self._buffers, buffer][-_KEPT:]
            return buffer[:size]


def _fill(file: IO[bytes], room: memoryview) -> None:
    """Read until the room is full.

    Raises:
        EOFError: the file ends before.
    """
    while len(room):
        count = file.readinto(room)  # type: ignore[attr-defined]
        if not count:
            raise EOFError("it ends before its last row")
        room = room[count:]
