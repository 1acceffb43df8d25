"""A random sketch of the rows: few random combinations of them that keep lengths, for one read."""

from __future__ import annotations

from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.choice import engine_for
from closedform.numerics.embedding import sparse_signs
from closedform.rows.block import Block
from closedform.rows.columns import Columns
from closedform.rows.fold import SumFold

__all__ = ["SketchedRows"]


@final
class SketchedRows(SumFold):
    """``S X`` and ``S [Y E | 1]`` for a sparse sign embedding S of the weighted rows: Cohen (2016).

    Args:
        columns: The design matrix.
        sketch_rows: Rows of the sketch.
        seed: Seed of the embedding. Each block draws its own part from it and from where it stands.
    """

    label = "factoring"

    def __init__(self, columns: Columns, sketch_rows: int, seed: int) -> None:
        self._columns, self._seed = columns, seed
        scale, first = columns.scale, int(columns.bias)
        self.X = scale.new_zeros(sketch_rows, columns.n_columns - first)
        self.B = scale.new_zeros(sketch_rows, columns.n_targets + first)

    def matrix(self, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sketch of ``[1 | X] diag(scale)`` and that of the targets, as new tensors."""
        first = int(self._columns.bias)
        A, B = self.X * scale[first:], self.B
        if first:
            A, B = torch.cat([B[:, -1:] * scale[0], A], 1), B[:, :-1]
        return A, B

    @override
    def add(self, block: Block) -> None:
        n, device = block.X.shape[0], self.X.device
        generator = torch.Generator().manual_seed(self._seed + block.before + block.start)
        targets, factors = sparse_signs(n, self.X.shape[0], generator, device)
        if block.weight is not None:
            factors *= block.weight.sqrt().unsqueeze(1)
        Y = block.Y.to(torch.float64) * self._columns.target_scale
        if self._columns.bias:
            Y = torch.cat([Y, Y.new_ones(n, 1)], 1)

        block.engine.sketch_(self.X, block.X, targets, factors)
        engine_for(Y).sketch_(self.B, Y, targets, factors)

    @override
    def fresh(self) -> Self:
        return type(self)(self._columns, self.X.shape[0], self._seed)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return self.X, self.B
