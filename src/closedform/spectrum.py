"""The spectrum of a fit: singular values of the design matrix, and how much of the target lies along each direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from closedform.numerics.rank import decide_rank, default_rcond
from closedform.rows import Design, Rows, as_rows, scan

__all__ = ["Spectrum", "spectrum", "spectrum_of_rows"]


@dataclass(frozen=True)
class Spectrum:
    """What decides how a first-order optimizer moves on a squared error, in the user's own units.

    Attributes:
        singular_values: Of ``[1 | X]`` (weighted, with ridge rows where l2 > 0), descending, ``(columns,)``.
        directions: Right singular vectors as rows, ``(columns, columns)``; with a bias, column 0 is the bias.
        target_components: Coordinates of the targets along the left singular vectors, ``(columns, targets)``.
        residual_squares: Squared norm of each target that no weights can explain, ``(targets,)``.
        n_rows: Rows over which the mean is taken (the sum of the weights).
        n_targets: Targets.
        bias: Whether column 0 is the bias.
        rank: Numerical rank of the matrix with its columns scaled.
    """

    singular_values: Tensor
    directions: Tensor
    target_components: Tensor
    residual_squares: Tensor
    n_rows: float
    n_targets: int
    bias: bool
    rank: int

    @property
    def condition(self) -> float:
        """Ratio of the largest to the smallest of the ``rank`` leading singular values."""
        if self.rank == 0:
            return 1.0
        return float(self.singular_values[0] / self.singular_values[self.rank - 1])

    @property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues of the Hessian of ``MSELoss()``, ``2 s^2 / (rows * targets)``, descending."""
        return 2 * self.singular_values.square() / (self.n_rows * self.n_targets)

    @property
    def learning_rate_limit(self) -> float:
        """Largest stable step of plain gradient descent on ``MSELoss()``: 2 over the largest eigenvalue.

        For ``MSELoss(reduction="sum")`` it is smaller by ``rows * targets``.
        """
        largest = float(self.eigenvalues[0])
        return 2 / largest if largest > 0 else float("inf")

    @property
    def optimal_loss(self) -> float:
        """The smallest ``MSELoss()`` there is (with the ridge term where l2 > 0)."""
        return float(self.residual_squares.sum() + self.target_components[self.rank :].square().sum()) / (
            self.n_rows * self.n_targets
        )


def spectrum(X: Any, Y: Any, *, bias: bool = False, l2: float = 0.0, sample_weight: Any = None) -> Spectrum:
    """Measure the spectrum of a fit from the triangle of its rows.

    Args:
        X: Features, ``(rows, features)`` or ``(..., features)``.
        Y: Targets, ``(rows,)`` or ``(rows, targets)``.
        bias: Whether the layer has a bias.
        l2: Ridge strength, one number.
        sample_weight: One weight for each row.

    Raises:
        InputError, NonFiniteError, DataTypeError: as :func:`closedform.solve`.

    Example:
        >>> import torch
        >>> s = spectrum(torch.diag(torch.tensor([3.0, 1.0])), torch.tensor([3.0, 1.0]))
        >>> s.condition, s.learning_rate_limit
        (3.0, 0.2222222222222222)
    """
    return spectrum_of_rows(as_rows(X, Y, sample_weight), bias=bias, l2=l2)


def spectrum_of_rows(rows: Rows, *, bias: bool, l2: float) -> Spectrum:
    """As :func:`spectrum`, for rows that passed the door."""
    scanned = scan(rows)
    design = Design(rows, scanned, bias=bias, l2=l2)
    triangle, p = design.triangle, design.n_columns
    scaled = torch.linalg.svdvals(triangle.R)
    rank = decide_rank(scaled, p, default_rcond(rows.n_rows, p)).rank
    U, values, directions = torch.linalg.svd(triangle.R / design.scale, full_matrices=False)
    components = (U.T @ triangle.C) / design.target_scale
    if values.numel() < p:
        # Fewer rows than columns: the directions no row reaches have singular value zero.
        values = torch.cat([values, values.new_zeros(p - values.numel())])
        components = torch.cat([components, components.new_zeros(p - components.shape[0], components.shape[1])])
    return Spectrum(
        singular_values=values,
        directions=directions,
        target_components=components,
        residual_squares=triangle.residual_squares / design.target_scale.square(),
        n_rows=scanned.weight_sum,
        n_targets=design.n_targets,
        bias=bias,
        rank=rank,
    )
