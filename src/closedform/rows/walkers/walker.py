"""What a walker is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

from closedform.rows.block import Block, Readable
from closedform.rows.fold import Fold

__all__ = ["AnyFold", "Walker"]

AnyFold = TypeVar("AnyFold", bound=Fold)


class Walker(ABC):
    """Runs folds over a table, and gathers it where a method needs all rows at once. Subclasses hold no state."""

    @abstractmethod
    def walk(self, table: Readable, fold: AnyFold) -> AnyFold:
        """Add every row of the table to the fold, once, and return it."""

    @abstractmethod
    def gather(self, table: Readable, *, as_stored: bool, unweighted: bool = False) -> Block:
        """Return all rows as one block, for square and wide systems.

        Raises:
            InputError: the rows are not all to be had in one place; the message says why.
        """
