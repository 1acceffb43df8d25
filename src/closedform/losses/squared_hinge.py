"""The squared hinge of a linear support vector machine."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.losses.criterion import AttainedLoss, refuse_rows
from closedform.losses.margins import MarginLoss
from closedform.losses.reduction import positives_times

__all__ = ["SquaredHinge", "SquaredHingeLoss"]


@final
class SquaredHinge(AttainedLoss):
    """``max(0, 1 - t z)^2`` for t of -1 and 1.

    Args:
        averages: Whether the reduction is the mean.
        pos_weight: What the loss of targets of 1 is multiplied by, one factor for each output, or None.
    """

    name = "SquaredHingeLoss"
    smooth = False
    of_shortfalls = True
    radius = 1e-3

    def __init__(self, *, averages: bool, pos_weight: Tensor | None = None) -> None:
        self.averages, self.pos_weight = averages, pos_weight

    @override
    def check(self, Y: Tensor, numbers: Tensor, n_outputs: int) -> None:
        refuse_rows(Y.abs() != 1, Y, numbers, "targets of SquaredHingeLoss must be -1 or 1.")

    @override
    def value(self, Z: Tensor, T: Tensor) -> Tensor:
        return positives_times((1 - T * Z).clamp_min(0).square(), T, self.pos_weight)

    @override
    def slopes(self, Z: Tensor, T: Tensor) -> Tensor:
        return positives_times(-2 * T * (1 - T * Z).clamp_min(0), T, self.pos_weight)

    @override
    def curvatures(self, Z: Tensor, T: Tensor) -> Tensor:
        return positives_times(2 * (T * Z < 1).to(Z.dtype), T, self.pos_weight)

    @override
    def least_curvature(self, Z: Tensor, T: Tensor) -> Tensor:
        return positives_times(2 * (1 - self.radius > T * Z).to(Z.dtype), T, self.pos_weight)

    @override
    def recession(self, S: Tensor, T: Tensor) -> Tensor:
        return torch.where(T * S < 0, torch.full_like(S, torch.inf), torch.zeros_like(S)).sum(1)


@final
class SquaredHingeLoss(MarginLoss):
    """``max(0, 1 - t z)^2`` for targets t of -1 and 1, as a module that also trains.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        pos_weight: What the loss of targets of 1 is multiplied by, ``(outputs,)``, as in ``BCEWithLogitsLoss``.

    Raises:
        InputError: another reduction.

    Example:
        >>> import torch
        >>> SquaredHingeLoss()(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0]))
        tensor(0.5000)
    """

    @override
    def of_shortfall(self, shortfall: Tensor) -> Tensor:
        return shortfall.square()
