"""What a walker is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

from closedform.rows.block import Block, Readable
from closedform.rows.fold import Fold

__all__ = ["AnyFold", "Walker"]

AnyFold = TypeVar("AnyFold", bound=Fold)
_Value = TypeVar("_Value")


class Walker(ABC):
    """Runs folds over a table, and gathers it where a method needs all rows at once."""

    @abstractmethod
    def walk(self, table: Readable, fold: AnyFold) -> AnyFold:
        """Add every row of the table to the fold, once, and return it."""

    def each(self, value: _Value) -> list[_Value]:
        """Return what every process that works on this fit has for a value, the first one's first; all call this."""
        return [value]

    @abstractmethod
    def gather(self, table: Readable, *, as_stored: bool, unweighted: bool = False) -> Block:
        """Return all rows as one block, for square and wide systems.

        Raises:
            InputError: the rows are not all to be had in one place; the message says why.
        """
