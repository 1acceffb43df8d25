"""A pass over the rows is a fold: a small object that takes blocks of rows and merges with others of its kind.

Whatever is computed from rows is one, so that what is written once runs on tables in memory, on files larger than
memory, and wherever else a walker goes: rows never travel, only the states of folds do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import torch
from torch import Tensor
from typing_extensions import override

from closedform.rows.block import Block, Extent

__all__ = ["Fold", "Mergeable", "PeakedSumFold", "SumFold"]


class Mergeable(ABC):
    """What several processes each have a part of: a state that travels, and is merged in the order of their ranks."""

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Add what another one of the same kind has seen, whose rows come after those seen here."""

    @abstractmethod
    def fresh(self) -> Self:
        """Return one of the same kind that has seen no rows."""

    @abstractmethod
    def state(self) -> tuple[Tensor, ...]:
        """Return what it holds, as tensors whose shapes do not depend on the rows."""

    @abstractmethod
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        """Take over what :meth:`state` returned elsewhere."""


class Fold(Mergeable, ABC):
    """What is computed from the rows in one pass: a state of fixed size, to which blocks are added.

    Merging is associative up to rounding, so the rows may be cut into parts in any way; the order in which parts are
    merged is that of their rows, so the same parts give the same bits.
    """

    #: Whether blocks come in the dtype of the table, for passes that convert as they read; else in float64.
    as_stored: ClassVar[bool] = True
    #: Whether rows of weight zero come as they are; else as zeros, because infinity times zero is not zero.
    unweighted: ClassVar[bool] = False
    #: Whether it goes by the numbers of rows, so that they have to come in the order of the pass before.
    by_number: bool = False
    #: What the progress line calls the pass.
    label: str = "reading"

    def rows_at_a_time(self, extent: Extent) -> int:
        """Return how many rows make a block."""
        return extent.pass_rows

    @abstractmethod
    def add(self, block: Block) -> None:
        """Add a block of rows."""


class SumFold(Fold, ABC):
    """A fold whose state is sums over rows: tensors that are added to in place."""

    @abstractmethod
    def sums(self) -> tuple[Tensor, ...]:
        """Return the tensors that hold the sums."""

    @override
    def merge(self, other: Self) -> None:
        self.add_sums(other)

    def add_sums(self, other: SumFold) -> None:
        """Add the sums of another fold of the same kind."""
        for mine, theirs in zip(self.sums(), other.sums(), strict=True):
            mine += theirs

    @override
    def state(self) -> tuple[Tensor, ...]:
        return self.sums()

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        for mine, theirs in zip(self.sums(), state, strict=True):
            mine.copy_(theirs)


class PeakedSumFold(SumFold, ABC):
    """Sums over rows beside the largest of some number that each row has.

    Attributes:
        peak: That largest number so far, ``(1,)``.
    """

    peak: Tensor

    @override
    def merge(self, other: Self) -> None:
        super().merge(other)
        self.peak = torch.maximum(self.peak, other.peak)

    @override
    def state(self) -> tuple[Tensor, ...]:
        return *self.sums(), self.peak

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        super().load_state(state[:-1])
        self.peak = state[-1]
