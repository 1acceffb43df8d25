"""Losses of the margin between a target of -1 or 1 and an output, as modules that torch does not have."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn
from typing_extensions import override

from closedform.losses.reduction import check_reduction, positives_times, reduced

__all__ = ["MarginLoss"]


class MarginLoss(nn.Module, ABC):
    """A function of ``1 - t z`` for targets t of -1 and 1, as a module that also trains.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        pos_weight: What the loss of targets of 1 is multiplied by, ``(outputs,)``, as in ``BCEWithLogitsLoss``.

    Raises:
        InputError: another reduction.
    """

    pos_weight: Tensor | None

    def __init__(self, reduction: str = "mean", *, pos_weight: Tensor | None = None) -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction
        self.register_buffer("pos_weight", pos_weight)

    @abstractmethod
    def of_shortfall(self, shortfall: Tensor) -> Tensor:
        """Return the losses of what is missing to a margin of 1, ``max(0, 1 - t z)``.

        Args:
            shortfall: Of any shape, not negative.
        """

    @override
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        losses = self.of_shortfall((1 - target * output).clamp_min(0))
        return reduced(positives_times(losses, target, self.pos_weight), self.reduction)
