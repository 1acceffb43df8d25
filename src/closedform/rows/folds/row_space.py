"""A step of subspace iteration with some of the rows."""

from __future__ import annotations

from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.rows.block import Block
from closedform.rows.columns import Columns
from closedform.rows.fold import SumFold

__all__ = ["RowSpace"]


@final
class RowSpace(SumFold):
    """``A'(A W)`` over the rows that ``order`` names: it spans what they say of the row space.

    Args:
        columns: The design matrix.
        W: ``(columns, rank)``.
        order: Ascending numbers of rows, int64.
    """

    label = "factoring"

    def __init__(self, columns: Columns, W: Tensor, order: Tensor) -> None:
        self._columns, self._W, self._order = columns, W, order
        self.product = torch.zeros_like(W)

    @override
    def add(self, block: Block) -> None:
        A, _ = self._columns.matrix(block, block.among(self._order))
        self.product += A.T @ (A @ self._W)

    @override
    def fresh(self) -> Self:
        return type(self)(self._columns, self._W, self._order)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return (self.product,)
