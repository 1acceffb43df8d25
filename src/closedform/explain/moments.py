"""Fourth moments of the rows: what decides how mini-batches shake, and how large their steps may be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self, final

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

    #: Whether ``E[h S h]`` and the noise at the minimiser are diagonal where S is.
    separates: ClassVar[bool] = False

    @abstractmethod
    def curvature(self, second_moment: Tensor) -> Tensor:
        """Return ``E[h S h]`` with ``h = 2 x x' / targets`` the Hessian of one row, ``(rank, rank)``.

        Args:
            second_moment: S, the second moment of the error in the weights, ``(rank, rank)``.
        """

    @abstractmethod
    def diagonal(self) -> Tensor:
        """Return how ``E[h S h]`` mixes diagonal entries, ``(rank, rank)``: ``4 / targets^2 E[x_i^2 x_j^2]``."""

    @abstractmethod
    def noise(self, shift: Tensor | None = None) -> Tensor:
        """Return the second moment of the gradient of one row, summed over targets, ``(rank, rank)``.

        Args:
            shift: How far from the minimiser, along each direction, ``(rank, targets)``; at the minimiser if None.
        """


@final
@dataclass(frozen=True, eq=False)
class GaussianMoments(Moments):
    """Those of Gaussian rows (Isserlis 1918) whose residuals do not depend on them, where the rows are not at hand.

    Attributes:
        eigenvalues: Of the Hessian, ``(rank,)``.
        optimal_loss: The smallest loss there is.
    """

    separates: ClassVar[bool] = True

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

    @override
    def noise(self, shift: Tensor | None = None) -> Tensor:
        own = torch.diag(2 * self.optimal_loss * self.eigenvalues)
        return own if shift is None else own + self.curvature(shift @ shift.T)


@final
@dataclass(frozen=True, eq=False)
class RowMoments(Moments):
    """Rows along the singular directions, and the residuals that the minimiser leaves.

    Attributes:
        rows: Each row along each direction, times the square root of its weight, ``(kept, rank)``, float64.
        residuals: What the minimiser leaves of each row, ``(kept, targets)``, times the square root of its weight.
        n_targets: Targets.
    """

    rows: Tensor
    residuals: Tensor
    n_targets: int

    @override
    def curvature(self, second_moment: Tensor) -> Tensor:
        sizes = ((self.rows @ second_moment) * self.rows).sum(1)
        return self.rows.T @ (self.rows * sizes.unsqueeze(1)) * (4 / (self.n_targets**2 * self.rows.shape[0]))

    @override
    def diagonal(self) -> Tensor:
        squares = self.rows.square()
        return squares.T @ squares * (4 / (self.n_targets**2 * self.rows.shape[0]))

    @override
    def noise(self, shift: Tensor | None = None) -> Tensor:
        residuals = self.residuals if shift is None else self.residuals + self.rows @ shift
        scaled = self.rows * residuals.square().sum(1, keepdim=True)
        return self.rows.T @ scaled * (4 / (self.n_targets**2 * self.rows.shape[0]))


def row_moments(rows: Rows, spectrum: Spectrum) -> RowMoments:
    """Read the rows once and turn them to the singular directions.

    Args:
        rows: The table.
        spectrum: Its spectrum; rows of a ridge are no rows here.
    """
    turned = rows.walk(_TurnedRows(rows, spectrum))
    return RowMoments(torch.cat(turned.along), torch.cat(turned.residuals), rows.n_targets)


@final
class _TurnedRows(Fold):
    """Rows in the singular directions and their residuals; of a long table every so manyth row.

    Args:
        rows: The table.
        spectrum: Its spectrum.
    """

    as_stored = False

    def __init__(self, rows: Rows, spectrum: Spectrum) -> None:
        self._rows, self._spectrum = rows, spectrum
        self._stride = max(1, -(-rows.n_rows * (spectrum.rank + rows.n_targets) // _KEPT))
        self.along: list[Tensor] = []
        self.residuals: list[Tensor] = []

    @override
    def rows_at_a_time(self, extent: Extent) -> int:
        return max(1, _BLOCK // extent.n_features)

    @override
    def add(self, block: Block) -> None:
        spectrum, first = self._spectrum, -block.start % self._stride
        X, Y = block.X[first :: self._stride], block.Y[first :: self._stride]
        if spectrum.bias:
            X = torch.cat([X.new_ones(X.shape[0], 1), X], dim=1)
        residuals = X @ spectrum.minimiser - Y
        along = X @ spectrum.directions[: spectrum.rank].T
        if block.weight is not None:
            # A weighted loss is the mean over rows of weight times square: a row counts by the root of its weight.
            share = (block.weight[first :: self._stride] * (self._rows.n_rows / spectrum.n_rows)).sqrt().unsqueeze(1)
            along, residuals = along * share, residuals * share
        self.along.append(along)
        self.residuals.append(residuals)

    @override
    def merge(self, other: Self) -> None:
        self.along += other.along
        self.residuals += other.residuals

    @override
    def fresh(self) -> Self:
        return type(self)(self._rows, self._spectrum)

    @override
    def state(self) -> tuple[Tensor, ...]:
        return torch.cat(self.along), torch.cat(self.residuals)

    @override
    def load_state(self, state: tuple[Tensor, ...]) -> None:
        self.along, self.residuals = [state[0]], [state[1]]
