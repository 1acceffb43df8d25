"""What a dependence between columns leaves of them, in some of the rows."""

from __future__ import annotations

from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.rows.block import Block
from closedform.rows.columns import Columns
from closedform.rows.fold import SumFold

__all__ = ["Dependence"]


@final
class Dependence(SumFold):
    """``C'(D - C T)`` over the rows that ``order`` names, with some columns C of A and others D.

    Args:
        columns: The design matrix.
        chosen: Numbers of the columns C, int64.
        others: Those of the columns D.
        T: ``(chosen, others)``.
        order: Ascending numbers of rows, int64.
    """

    label = "factoring"

    def __init__(self, columns: Columns, chosen: Tensor, others: Tensor, T: Tensor, order: Tensor) -> None:
        self._columns, self._chosen, self._others, self._T, self._order = columns, chosen, others, T, order
        self.product = torch.zeros_like(T)

    @override
    def add(self, block: Block) -> None:
        A, _ = self._columns.matrix(block, block.among(self._order))
        C = A[:, self._chosen]
        self.product.addmm_(C.T, A[:, self._others].addmm_(C, self._T, alpha=-1.0))

    @override
    def fresh(self) -> Self:
        return type(self)(self._columns, self._chosen, self._others, self._T, self._order)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return (self.product,)
