"""Fourth moments of the rows: what decides how mini-batches shake, and how large their steps may be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.explain.spectra import Spectrum
from closedform.rows import Rows

__all__ = ["GaussianMoments", "Moments", "RowMoments", "row_moments"]

#: Numbers of the rows that are kept for this; of larger tables every so many-th row is.
_KEPT = 2**23
#: Numbers of a block when the table is read.
_BLOCK = 2**22


class Moments(ABC):
    """What mini-batches need to know of the rows, in the coordinates of the singular directions."""

    @abstractmethod
    def curvature(self, second_moment: Tensor) -> Tensor:
        """Return ``E[h S h]`` with ``h = 2 x x' / targets`` the Hessian of one row, ``(rank, rank)``.

        Args:
            second_moment: S, the second moment of the error in the weights, ``(rank, rank)``.
        """

    @abstractmethod
    def diagonal(self) -> Tensor:
        """Return how ``E[h S h]`` mixes diagonal entries, ``(rank, rank)``: ``4 / targets^2 E[x_i^2 x_j^2]``."""

    @property
    @abstractmethod
    def noise(self) -> Tensor:
        """Second moment of the gradient of one row at the minimiser, summed over targets, ``(rank, rank)``."""


@final
@dataclass(frozen=True)
class GaussianMoments(Moments):
    """Those of Gaussian rows (Isserlis 1918) whose residuals do not depend on them, where the rows are not at hand.

    Attributes:
        eigenvalues: Of the Hessian, ``(rank,)``.
        optimal_loss: The smallest loss there is.
    """

    eigenvalues: Tensor
    optimal_loss: float

    @override
    def curvature(self, second_moment: Tensor) -> Tensor:
        h = self.eigenvalues
        return 2 * second_moment * torch.outer(h, h) + torch.diag(h) * (h * second_moment.diagonal()).sum()

    @override
    def diagonal(self) -> Tensor:
        h = self.eigenvalues
        return torch.outer(h, h) + 2 * torch.diag(h.square())

    @property
    @override
    def noise(self) -> Tensor:
        return torch.diag(2 * self.optimal_loss * self.eigenvalues)


@final
@dataclass(frozen=True)
class RowMoments(Moments):
    """Rows along the singular directions, and the residuals that the minimiser leaves.

    Attributes:
        rows: Each row along each direction, times the square root of its weight, ``(kept, rank)``, float64.
        residual_squares: Squared residual of each row at the minimiser, weighted and summed over targets, ``(kept,)``.
        n_targets: Targets.
    """

    rows: Tensor
    residual_squares: Tensor
    n_targets: int

    @override
    def curvature(self, second_moment: Tensor) -> Tensor:
        sizes = ((self.rows @ second_moment) * self.rows).sum(1)
        return self.rows.T @ (self.rows * sizes.unsqueeze(1)) * (4 / (self.n_targets**2 * self.rows.shape[0]))

    @override
    def diagonal(self) -> Tensor:
        squares = self.rows.square()
        return squares.T @ squares * (4 / (self.n_targets**2 * self.rows.shape[0]))

    @property
    @override
    def noise(self) -> Tensor:
        scaled = self.rows * self.residual_squares.unsqueeze(1)
        return self.rows.T @ scaled * (4 / (self.n_targets**2 * self.rows.shape[0]))


def row_moments(rows: Rows, spectrum: Spectrum) -> RowMoments:
    """Read the rows once and turn them to the singular directions.

    Args:
        rows: The table.
        spectrum: Its spectrum; rows of a ridge are no rows here.
    """
    directions, rank = spectrum.directions[: spectrum.rank], spectrum.rank
    stride = max(1, -(-rows.n_rows * (rank + 1) // _KEPT))
    turned, left = [], []
    for block in rows.blocks(max(1, _BLOCK // rows.n_features)):
        first = -block.start % stride
        X, Y = block.X[first::stride], block.Y[first::stride]
        if spectrum.bias:
            X = torch.cat([X.new_ones(X.shape[0], 1), X], dim=1)
        squares = (X @ spectrum.minimiser - Y).square().sum(1)
        along = X @ directions.T
        if block.weight is not None:
            # A weighted loss is the mean over rows of weight times square: a row counts by the root of its weight.
            share = block.weight[first::stride] * (rows.n_rows / spectrum.n_rows)
            along, squares = along * share.sqrt().unsqueeze(1), squares * share
        turned.append(along)
        left.append(squares)
    return RowMoments(torch.cat(turned), torch.cat(left), rows.n_targets)
