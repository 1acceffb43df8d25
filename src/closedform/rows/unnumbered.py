"""The columns of a table whose rows only its walker can reach."""

from __future__ import annotations

from itertools import zip_longest
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.rows.source import Source
from closedform.words.errors import InputError

__all__ = ["UnnumberedSource", "agreed_names", "whole_numbers_notes"]


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


def agreed_names(before: tuple[str, ...] | None, names: tuple[str, ...] | None, where: str) -> tuple[str, ...] | None:
    """Return the names of the columns of X, which are the same wherever its rows come from; None where it has none.

    Args:
        before: Those of the rows before.
        names: Those of the next rows.
        where: What the next rows are, for the message.

    Raises:
        InputError: they have other columns, or in another order.

    Example:
        >>> agreed_names(None, ("a", "b"), "this batch")
        ('a', 'b')
    """
    if names is None or before is None:
        return names or before
    if names != before:
        pairs = enumerate(zip_longest(before, names))
        at, (one, other) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
        raise InputError(f"column {at} of X was {one!r} and is {other!r} in {where}; bring the columns into one order.")
    return before


def whole_numbers_notes(what: str, stored: torch.dtype) -> list[str]:
    """Return what is said of targets that may be labels, where only their type is known; nothing of other targets.

    Args:
        what: Where the rows come from.
        stored: The dtype of the targets, as they are stored.

    Example:
        >>> whole_numbers_notes("DataLoader", torch.float32)
        []
    """
    if stored.is_floating_point:
        return []
    return [
        f"the targets of the {what} are whole numbers ({stored}), fitted as they are; for class labels pass one-hot "
        "targets"
    ]
