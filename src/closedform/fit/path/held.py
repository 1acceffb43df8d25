"""Leave-one-out residuals of rows of leverage near 1, where ``r / (1 - h)`` loses its digits.

What is left of such a row is found as squares of its coordinates in the complement of the fit, in which nothing cancels
and half of the digits that were lost come back; of the few rows that need the other half, the fit to all other rows is
made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from closedform.fit.path.basis import Basis, singular_vectors
from closedform.fit.path.leave_one_out import LeftOut

__all__ = ["HeldRows"]

#: Bytes of residuals that are held at a time.
_CHUNK_BYTES = 8 * 2**20
#: Fits that are made of a large table, at most: each costs a factor of the columns.
_FEWEST_FITS = 4
#: Multiplications of these factors, rows times columns times the fewer of both, that take seconds.
_MULTIPLICATIONS = 2**32


@final
@dataclass(frozen=True, eq=False)
class HeldRows:
    """Rows held as they are, first, over rows that say what all others say.

    Attributes:
        numbers: Which rows of the table are held, ``(kept,)`` int64.
        A: Features, weighted, in the scale of the basis, ``(rows, features)``, the rows held first.
        B: Targets, weighted, in the scale of the basis, ``(rows, targets)``.
        ones: With a bias the column of ones, weighted, as a unit vector, ``(rows,)``, else None.
        basis: That of these rows, all of them.
        weight: Weights of the rows held, ``(kept,)``, or None for ones.
    """

    numbers: Tensor
    A: Tensor
    B: Tensor
    ones: Tensor | None
    basis: Basis
    weight: Tensor | None

    def residuals(self, strengths: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield leave-one-out residuals of some of the rows held, weighted, and which of them are interpolated.

        Args:
            strengths: In the user's units, ``(strengths,)``.

        Yields:
            Which rows; ``(targets, strengths, those rows)``; and ``(those rows,)``.
        """
        assert self.basis.U is not None
        left_out, held = LeftOut(self.basis, strengths), slice(0, self.numbers.shape[0])
        U = self.basis.U[held]
        leftovers = left_out.leftovers(U, 0.0, held)
        interpolated = left_out.interpolated(leftovers)

        fitted = self.fitted(left_out.worth_a_fit(U, leftovers)).tolist()
        size = max(1, _CHUNK_BYTES // (8 * strengths.shape[0] * self.basis.targets))
        for start in range(0, U.shape[0], size):
            rows = slice(start, min(start + size, U.shape[0]))
            parts = left_out.residuals(U[rows], self.B[rows], leftovers[rows], rows)
            E = torch.cat([part for _, part in parts])
            for row in fitted:
                if rows.start <= row < rows.stop:
                    E[:, :, row - start] = self.without(row, strengths)
            yield rows, E, interpolated[rows]

    def fitted(self, order: Tensor) -> Tensor:
        """Return those of some rows, the first of them, of which the fit to all others is made.

        Args:
            order: Numbers of rows, those with most to gain first.
        """
        m, n = self.A.shape
        return order[: max(_FEWEST_FITS, _MULTIPLICATIONS // (m * n * min(m, n)))]

    def without(self, row: int, strengths: Tensor) -> Tensor:
        """Return the residual of a row at the fits to all others, ``(targets, strengths)``, weighted.

        Args:
            row: Its number among these.
            strengths: In the user's units, ``(strengths,)``.
        """
        others = torch.arange(self.A.shape[0], device=self.A.device) != row
        A, B, x, y = self.A[others], self.B[others], self.A[row], self.B[row]
        before = None
        if self.ones is not None:
            ones, before = self.ones[others], torch.linalg.vector_norm(A, dim=0)
            total, own = ones.square().sum(), self.ones[row]
            mean, target_mean = ones @ A / total, ones @ B / total
            A, B = A - torch.outer(ones, mean), B - torch.outer(ones, target_mean)
            x, y = x - own * mean, y - own * target_mean
        U, values, map_, _ = singular_vectors(A, A.shape[0], before)
        squares = values.square().unsqueeze(1)
        kept = squares / (squares + self.basis.scaled(strengths))
        terms = (x @ map_) * (B.T @ U[:, : values.shape[0]])
        return y.unsqueeze(1) - terms @ kept
