"""The contract of one table of numbers that can be read by ranges of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from closedform.rows.labels import RowLabels

__all__ = ["Source"]


class Source(ABC):
    """A table of numbers with a known shape, read by ranges of rows.

    Where the numbers live (memory, a GPU, a file) is known to the subclass alone. Subclasses are final and
    check their input when they are made; ``read`` then only reads.

    Attributes:
        name: What the user calls this table, for messages (``"X"``, ``"data.h5::kernels/train_kernel"``).
        shape: ``(rows, columns)``, or ``(rows,)`` for a single column.
        dtype: The dtype of the tensors that ``read`` returns: floating, integer or bool; never complex.
        device: The device of the tensors that ``read`` returns.
        in_memory: Whether ``read`` costs no I/O.
        notes: What was done on the way in that the user should know (a cast, a discovered key).
        columns: Names of the columns, fit to be shown, where the table has them; one for each column.
        row_labels: What its rows are called, where the file says so.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    in_memory: bool
    notes: tuple[str, ...]
    columns: tuple[str, ...] | None = None
    row_labels: RowLabels | None = None

    @property
    def stored_dtype(self) -> torch.dtype:
        """The dtype of the numbers where they live, which ``read`` may convert."""
        return self.dtype

    @abstractmethod
    def read(self, start: int, stop: int) -> Tensor:
        """Return rows ``start`` to ``stop`` (exclusive) in this source's own dtype, shape ``(stop - start, ...)``."""
