"""A few rows as they are, and the triangle of all others."""

from __future__ import annotations

from dataclasses import replace
from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.numerics.triangle import Triangle
from closedform.rows.block import Block, Extent
from closedform.rows.columns import Columns
from closedform.rows.fold import Fold
from closedform.rows.folds.triangle_of_rows import TriangleOfRows

__all__ = ["RowsApart"]


@final
class RowsApart(Fold):
    """Some rows of ``[A | B]`` and the triangle of the others: together they say what all rows say.

    Args:
        columns: The design matrix.
        empty: The triangle of no rows, with the powers of two of the columns.
        numbers: Which rows are kept as they are, counted over all processes, ``(kept,)`` int64.
    """

    as_stored = False
    by_number = True
    label = "factoring"

    def __init__(self, columns: Columns, empty: Triangle, numbers: Tensor) -> None:
        self._arguments = (columns, empty, numbers)
        self._others = TriangleOfRows(columns, empty)
        zeros = columns.scale.new_zeros
        #: Rows of A, ``(kept, columns)``.
        self.A = zeros(numbers.shape[0], columns.n_columns)
        #: Rows of B, ``(kept, targets)``.
        self.B = zeros(numbers.shape[0], columns.n_targets)
        #: Weights of these rows, ``(kept,)``.
        self.weight = zeros(numbers.shape[0])

    @property
    def triangle(self) -> Triangle:
        """The triangle of all other rows."""
        return self._others.triangle

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        return self._others.rows_at_a_time(extent)

    @override
    def add(self, block: Block) -> None:
        columns, _, numbers = self._arguments
        places = numbers - (block.before + block.start)
        here = (places >= 0) & (places < block.X.shape[0])
        if not bool(here.any()):
            self._others.add(block)
            return

        chosen = places[here].to(block.X.device)
        self.A[here], self.B[here] = columns.matrix(block, chosen)
        self.weight[here] = 1.0 if block.weight is None else block.weight[chosen]
        left = torch.ones(block.X.shape[0], dtype=torch.bool, device=block.X.device)
        left[chosen] = False
        rest = left.nonzero().squeeze(1)
        weight = None if block.weight is None else block.weight[rest]
        self._others.add(replace(block, X=block.X[rest], Y=block.Y[rest], weight=weight))

    @override
    def merge(self, other: Self) -> None:
        self._others.merge(other._others)
        self.A += other.A
        self.B += other.B
        self.weight += other.weight

    @override
    def fresh(self) -> Self:
        return type(self)(*self._arguments)

    @override
    def state(self) -> tuple[Tensor, ...]:
        return self.A, self.B, self.weight, *self._others.state()

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        for mine, theirs in zip((self.A, self.B, self.weight), state, strict=False):
            mine.copy_(theirs)
        self._others.load_state(state[3:])
