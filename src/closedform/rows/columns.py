"""The columns of a design matrix, and the powers of two they are scaled by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from closedform.numerics.host import as_vector
from closedform.rows.block import Block

__all__ = ["Columns"]


@final
@dataclass(frozen=True, eq=False)
class Columns:
    """``A = diag(sqrt(weight)) [1 | X] D`` and ``B = diag(sqrt(weight)) Y E`` for the X, Y and weights of any rows.

    D and E are diagonal and hold exact powers of two, so that no unit of measurement decides anything. Where it can be,
    A is not formed: the scaling is applied to the small side of a product.

    Attributes:
        bias: Whether a column of ones stands first.
        scale: Diagonal of D, ``(columns,)``.
        target_scale: Diagonal of E, ``(targets,)``.
    """

    bias: bool
    scale: Tensor
    target_scale: Tensor

    @property
    def n_columns(self) -> int:
        """Columns of A, that of ones included."""
        return self.scale.shape[0]

    @property
    def n_targets(self) -> int:
        """Columns of B."""
        return self.target_scale.shape[0]

    @property
    def feature_scale(self) -> Tensor:
        """What the features are multiplied by, ``(features,)``."""
        return self.scale[int(self.bias) :]

    @cached_property
    def column(self) -> Tensor:
        """Diagonal of D as a column, ``(columns, 1)``."""
        return self.scale.unsqueeze(1)

    @cached_property
    def scale_range(self) -> tuple[float, float]:
        """The smallest and the largest entry of D."""
        scale = as_vector(self.scale)
        return float(scale.min()), float(scale.max())

    def select(self, targets: Tensor) -> Columns:
        """Return the same matrix with some of the targets."""
        return replace(self, target_scale=self.target_scale[targets])

    def among(self, chosen: Tensor) -> tuple[Columns, Tensor]:
        """Return the matrix of some columns, ascending, and the numbers of their features."""
        first = int(self.bias)
        bias = self.bias and bool((chosen[:1] == 0).any())
        return replace(self, bias=bias, scale=self.scale[chosen]), chosen[int(bias) :] - first

    def raw(self, Z: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return D Z split into the features' part ``(features, k)`` and the bias part ``(k,)`` or None."""
        V = Z * self.column
        return (V[1:], V[0]) if self.bias else (V, None)

    def adjoint(self, ones: Tensor, features: Tensor) -> Tensor:
        """Return ``D [1 | X]'T``, ``(columns, k)``, from 1'T and X'T.

        Args:
            ones: 1'T, ``(k,)``; of no matter where there is no column of ones.
            features: X'T, ``(features, k)``.
        """
        return (torch.cat([ones.unsqueeze(0), features]) if self.bias else features) * self.column

    def unweighted(self, X: Tensor) -> Tensor:
        """Return rows of A without their weights, ``(rows, columns)``, as a new float64 tensor.

        Args:
            X: Their features, ``(rows, features)``.
        """
        A = X * self.feature_scale
        return torch.cat([A.new_full((A.shape[0], 1), float(self.scale[0])), A], 1) if self.bias else A

    def matrix(self, block: Block, order: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the rows of A and B that belong to a block, as new float64 tensors.

        Args:
            block: Rows of the table.
            order: Ascending numbers of the rows that count, counted in the block; None for all.
        """
        X, Y, weight = block.X, block.Y, block.weight
        if order is not None:
            X, Y = X[order].to(torch.float64), Y[order].to(torch.float64)
            weight = None if weight is None else weight[order]
        A, B = self.unweighted(X), Y * self.target_scale
        if weight is not None:
            root = weight.sqrt().unsqueeze(1)
            A.mul_(root)
            B.mul_(root)
        return A, B
