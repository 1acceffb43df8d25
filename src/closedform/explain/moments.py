"""Fourth moments of the rows: what decides how mini-batches shake, and how large their steps may be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.explain.spectra import Spectrum
from closedform.rows import Block, Fold, Rows
from closedform.rows.block import Extent

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
@dataclass(frozen=True, eq=False)
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
@dataclass(frozen=True, eq=False)
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
    turned = rows.walk(_TurnedRows(rows, spectrum))
    return RowMoments(torch.cat(turned.along), torch.cat(turned.squares), rows.n_targets)


@final
class _TurnedRows(Fold):
    """Rows in the singular directions and squares of their residuals; of a long table every so manyth row.

    Args:
        rows: The table.
        spectrum: Its spectrum.
    """

    as_stored = False

    def __init__(self, rows: Rows, spectrum: Spectrum) -> None:
        self._rows, self._spectrum = rows, spectrum
        self._stride = max(1, -(-rows.n_rows * (spectrum.rank + 1) // _KEPT))
        self.along: list[Tensor] = []
        self.squares: list[Tensor] = []

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        return max(1, _BLOCK // extent.n_features)

    @override
    def add(self, block: Block) -> None:
        spectrum, first = self._spectrum, -block.start % self._stride
        X, Y = block.X[first :: self._stride], block.Y[first :: self._stride]
        if spectrum.bias:
            X = torch.cat([X.new_ones(X.shape[0], 1), X], dim=1)
        squares = (X @ spectrum.minimiser - Y).square().sum(1)
        along = X @ spectrum.directions[: spectrum.rank].T
        if block.weight is not None:
            # A weighted loss is the mean over rows of weight times square: a row counts by the root of its weight.
            share = block.weight[first :: self._stride] * (self._rows.n_rows / spectrum.n_rows)
            along, squares = along * share.sqrt().unsqueeze(1), squares * share
        self.along.append(along)
        self.squares.append(squares)

    @override
    def merge(self, other: Self) -> None:
        self.along += other.along
        self.squares += other.squares

    @override
    def fresh(self) -> Self:
        return type(self)(self._rows, self._spectrum)

    @override
    def state(self) -> tuple[Tensor, ...]:
        return torch.cat(self.along), torch.cat(self.squares)

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        self.along, self.squares = [state[0]], [state[1]]
