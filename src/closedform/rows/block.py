"""Blocks of rows, and what a walker may ask of a table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from closedform.engine.contract import Engine

__all__ = ["Block", "Extent", "Readable"]

#: Bytes of a block that stays in the outer caches, so that two products with it cost one read of memory.
_CACHED_BYTES = 2 * 2**20
#: Bytes of a block read from a file: there the cost is the call.
_FILE_BYTES = 64 * 2**20
#: Bytes that one call of a compiled pass takes, which blocks for itself: few enough to be interrupted soon.
_PASS_BYTES = 128 * 2**20
#: Rows of the smallest block: with fewer, calls cost more than their work.
_FEWEST_ROWS = 64


@final
@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive rows of a table.

    Attributes:
        start: Number of the first row in the table.
        X: ``(rows, features)``.
        Y: ``(rows, targets)``.
        weight: ``(rows,)``, float64, or None for ones.
        engine: What multiplies with X; chosen once for a table.
        before: Rows of other processes that come before this table.
    """

    start: int
    X: Tensor
    Y: Tensor
    weight: Tensor | None
    engine: Engine
    before: int = 0

    def among(self, order: Tensor) -> Tensor:
        """Return those of the ascending row numbers of the table, int64, that are in this block, counted in it."""
        ends = torch.tensor([self.start, self.start + self.X.shape[0]], device=order.device)
        begin, end = torch.searchsorted(order, ends).tolist()
        return order[begin:end] - self.start


@final
@dataclass(frozen=True)
class Extent:
    """How large a table is, and so how many of its rows are taken at a time.

    Attributes:
        n_rows: Rows.
        n_features: Columns of X.
        n_targets: Columns of Y.
        in_memory: Whether reading costs no I/O.
    """

    n_rows: int
    n_features: int
    n_targets: int
    in_memory: bool

    def cached_rows(self, columns: int | None = None) -> int:
        """Return how many rows of X or Y, the wider, or of so many columns, in float64 stay in the outer caches."""
        width = max(self.n_features, self.n_targets, 1) if columns is None else columns
        return max(_FEWEST_ROWS, (_CACHED_BYTES if self.in_memory else _FILE_BYTES) // (8 * width))

    @property
    def pass_rows(self) -> int:
        """How many rows one call of a compiled pass takes."""
        size = _PASS_BYTES if self.in_memory else _FILE_BYTES
        return max(_FEWEST_ROWS, size // (8 * (self.n_features + self.n_targets)))


class Readable(ABC):
    """A table of rows as a walker sees it.

    Attributes:
        chosen: Which targets of the rows it has, in their order, int64, for walkers that read the rows elsewhere than
            by :meth:`block`; None for all.
    """

    chosen: Tensor | None = None

    @property
    @abstractmethod
    def extent(self) -> Extent:
        """How large it is."""

    @abstractmethod
    def block(self, start: int, stop: int, *, as_stored: bool = False, unweighted: bool = False) -> Block:
        """Return rows ``start`` to ``stop`` (exclusive).

        Args:
            start: First row.
            stop: Row after the last.
            as_stored: Leave X and Y in their own dtype, for passes that convert as they read; else float64.
            unweighted: Hand out rows of weight zero as they are, not as zeros.
        """

    def blocks(self, size: int, *, as_stored: bool = False, unweighted: bool = False) -> Generator[Block]:
        """Return all rows in order, as :meth:`block` does, so many at a time; close it where it is not read to its end.

        Args:
            size: Rows of a block; the last may have fewer.
            as_stored: As for :meth:`block`.
            unweighted: Likewise.

        Yields:
            The blocks.
        """
        n_rows = self.extent.n_rows
        for start in range(0, n_rows, size):
            yield self.block(start, min(start + size, n_rows), as_stored=as_stored, unweighted=unweighted)

    @abstractmethod
    def report(self, label: str, part: float) -> None:
        """Tell whoever watches how far a pass has come, from 0 to 1."""
