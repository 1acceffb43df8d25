"""Rows that are fewer than the unknowns and independent of each other, kept as they came.

They can be met exactly in many ways. A new row moves the weights only in the one direction that is new (least change),
which an orthonormal basis of the rows gives at the price of a few products. Source: block Gram-Schmidt done twice, as
in Barlow and Smoktunowicz (2013).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from closedform.numerics.triangle import Triangle

__all__ = ["FewRows", "are_met"]

#: Steps that bring new rows to rounding level. One is enough unless the columns have very different units.
_CORRECTIONS = 3


@final
@dataclass(frozen=True, eq=False)
class FewRows:
    """Independent rows, ``held`` of them, in buffers with room for as many as there are columns.

    The buffers are shared by what grew from each other: a row is written behind those that are held, so that whoever
    holds fewer sees no change.

    Attributes:
        A: Design rows, ``(columns, columns)``; only the first ``held`` are there.
        B: Their targets, ``(columns, targets)``.
        basis: Orthonormal rows that span those of A, ``(columns, columns)``.
        held: How many there are.
        rows: How many rows of the table they stand for: more, where the same batch came again.
    """

    A: Tensor
    B: Tensor
    basis: Tensor
    held: int
    rows: int

    @staticmethod
    def empty(columns: int, targets: int, *, dtype: torch.dtype, device: torch.device) -> FewRows:
        """Return no rows, with room for ``columns`` of them."""
        zeros = torch.zeros(0, dtype=dtype, device=device).new_zeros
        return FewRows(zeros(columns, columns), zeros(columns, targets), zeros(columns, columns), 0, 0)

    def extended(self, A: Tensor, B: Tensor, weights: Tensor) -> tuple[FewRows, Tensor] | None:
        """Take new rows in, and move the weights as little as meets them.

        Args:
            A: New rows, ``(new rows, columns)``.
            B: Their targets, ``(new rows, targets)``.
            weights: Weights that meet the rows held, ``(columns, targets)``.

        Returns:
            The rows with the new ones, and weights that meet them all up to rounding; None where that is not to be
            had: the rows depend on each other, are too many, or their columns have units too different for a basis.

        Example:
            >>> import torch
            >>> rows = FewRows.empty(2, 1, dtype=torch.float64, device=torch.device("cpu"))
            >>> one, start = torch.ones(1, 1, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
            >>> rows, weights = rows.extended(torch.tensor([[3.0, 4.0]], dtype=torch.float64), 25 * one, start)
            >>> weights.T.round(decimals=12)
            tensor([[3., 4.]], dtype=torch.float64)
        """
        held, room = self.held + A.shape[0], self.A.shape[0]
        if held > room:
            return None

        basis = self.basis[: self.held]
        first, S = torch.linalg.qr((A - (A @ basis.T) @ basis).T)
        # Orthogonal to the basis up to rounding of the remainder, however small it is: once is not enough, twice is.
        new, T = torch.linalg.qr(first - basis.T @ (basis @ first))
        S = T @ S
        # Only how the rows are kept hangs on this comparison of lengths: those below it go into the triangle.
        threshold = room * torch.finfo(A.dtype).eps * torch.linalg.vector_norm(A, dim=1)
        if not bool((S.diagonal().abs() > threshold).all()):
            return None

        for _ in range(_CORRECTIONS):
            weights = weights + new @ torch.linalg.solve_triangular(S.T, B - A @ weights, upper=False)
            if are_met(A, B, weights):
                break
        if not are_met(A, B, weights) or not are_met(self.A[: self.held], self.B[: self.held], weights):
            return None

        grown = slice(self.held, held)
        self.A[grown], self.B[grown], self.basis[grown] = A, B, new.T
        return replace(self, held=held, rows=self.rows + A.shape[0]), weights

    def discounted(self, factor: float) -> FewRows:
        """Return the rows with their weights multiplied by ``factor``."""
        root = factor**0.5
        return replace(self, A=root * self.A, B=root * self.B)

    def triangle(self) -> Triangle:
        """Return the triangle of the rows, filled up with zeros."""
        columns, targets = self.B.shape
        empty = Triangle.empty(columns, targets, dtype=self.A.dtype, device=self.A.device)
        return empty.fold(self.A[: self.held], self.B[: self.held], rows=self.rows).padded()


def are_met(A: Tensor, B: Tensor, weights: Tensor) -> bool:
    """Whether every row is met up to the rounding of its own products, whatever the units of the columns.

    Example:
        >>> import torch
        >>> A = torch.tensor([[1.0, 1e18]], dtype=torch.float64)
        >>> are_met(A, torch.tensor([[2.0]], dtype=torch.float64), torch.tensor([[1.0], [1e-18]], dtype=torch.float64))
        True
        >>> are_met(A, torch.tensor([[2.0]], dtype=torch.float64), torch.tensor([[1.1], [1e-18]], dtype=torch.float64))
        False
    """
    size = A.abs() @ weights.abs() + B.abs()
    rounding = max(4.0, A.shape[1] ** 0.5) * torch.finfo(A.dtype).eps
    return bool(((B - A @ weights).abs() <= rounding * size).all())
