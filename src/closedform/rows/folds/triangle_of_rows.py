"""The triangle of the rows, folded block by block."""

from __future__ import annotations

from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.numerics.triangle import Triangle
from closedform.rows.block import Block, Extent
from closedform.rows.columns import Columns
from closedform.rows.fold import Fold

__all__ = ["TriangleOfRows"]

#: Entries of a block: enough rows that folding costs little more than the block's own QR.
_BLOCK_ENTRIES = 2**19


@final
class TriangleOfRows(Fold):
    """R of ``[A | B]`` by Householder QR: Golub (1965); Demmel, Grigori, Hoemmen and Langou (2012).

    Args:
        columns: The design matrix.
        empty: The triangle of no rows, with the powers of two of the columns.
    """

    as_stored = False
    label = "factoring"

    def __init__(self, columns: Columns, empty: Triangle) -> None:
        self._columns, self._empty = columns, empty
        self.triangle = empty

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        p = self._columns.n_columns
        return max(2 * p, _BLOCK_ENTRIES // max(p, self._columns.n_targets))

    @override
    def add(self, block: Block) -> None:
        A, B = self._columns.matrix(block)
        rows, total = A.shape[0], float(A.shape[0])
        if block.weight is not None:
            rows, total = int((block.weight > 0).sum()), float(block.weight.sum())
        self.triangle = self.triangle.fold(A, B, rows=rows, weight_sum=total)

    @override
    def merge(self, other: Self) -> None:
        self.triangle = self.triangle.merge(other.triangle)

    @override
    def fresh(self) -> Self:
        return type(self)(self._columns, self._empty)

    @override
    def state(self) -> tuple[Tensor, ...]:
        # Of fixed size, whatever the rows; how many rows of R count is told beside it.
        used = torch.tensor(self.triangle.R.shape[0], device="cpu")
        return *self.triangle.padded().state_dict().values(), used

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        *parts, used = state
        whole = Triangle.from_state_dict(dict(zip(self._empty.state_dict(), parts, strict=True)))
        self.triangle = whole.first_rows(int(used))
