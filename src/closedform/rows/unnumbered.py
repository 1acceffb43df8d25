"""The columns of a table whose rows only its walker can reach."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.rows.source import Source
from closedform.words.errors import InputError

__all__ = ["UnnumberedSource"]


@final
class UnnumberedSource(Source):
    """Columns whose rows come in batches or stay on workers: their shape and dtype are known, ranges of rows are not.

    Args:
        first: Some of the rows, for the name, the device, the names of the columns and the dtype as stored.
        dtype: Of the rows.
        shape: Of the whole table, ``(rows, columns)`` or ``(rows,)``.
        what: What it is, in words that go on from its name, for who reads all the same.
    """

    in_memory = False
    notes = ()

    def __init__(self, first: Source, dtype: torch.dtype, shape: tuple[int, ...], what: str) -> None:
        self.name, self.dtype, self.device, self.columns = first.name, dtype, first.device, first.columns
        self.shape, self._stored, self._what = shape, first.stored_dtype, what

    @property
    @override
    def stored_dtype(self) -> torch.dtype:
        return self._stored

    @override
    def read(self, start: int, stop: int) -> Tensor:
        raise InputError(f"{self.name} {self._what}, so that rows cannot be read by their numbers.")
