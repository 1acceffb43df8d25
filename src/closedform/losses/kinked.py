"""Losses with a kink: absolute values, quantiles, hinges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor, nn
from typing_extensions import override

from closedform.losses.criterion import class_factors, refuse_rows
from closedform.losses.margins import MarginLoss
from closedform.losses.reduction import check_reduction, reduced
from closedform.words.errors import InputError

__all__ = ["Absolute", "Hinge", "HingeLoss", "Kinked", "Pinball", "PinballLoss"]


class Kinked(ABC):
    """``above max(t - z, 0) + below max(z - t, 0)``: convex, and linear on both sides of one kink for each output.

    Attributes:
        name: The class that it was read from.
        averages: Whether its reduction is the mean; else it is the sum.
    """

    name: str
    averages: bool

    @abstractmethod
    def pieces(self, T: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return kinks, slopes above and slopes below, each ``(rows, outputs)``."""

    def check(self, Y: Tensor, numbers: Tensor) -> None:  # noqa: B027 (most take any number)
        """Refuse targets that the criterion is not defined for.

        Args:
            Y: Targets.
            numbers: Numbers of these rows in the table.

        Raises:
            InputError: with the row and the value seen.
        """


@final
class Absolute(Kinked):
    """``L1Loss``.

    Args:
        name: The class that it was read from.
        averages: Whether the reduction is the mean.
    """

    def __init__(self, name: str, *, averages: bool) -> None:
        self.name, self.averages = name, averages

    @override
    def pieces(self, T: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ones = torch.ones_like(T)
        return T, ones, ones


@final
class Pinball(Kinked):
    """The loss whose minimiser is a quantile (Koenker and Bassett 1978).

    Args:
        quantile: From 0 to 1, both excluded.
        averages: Whether the reduction is the mean.
    """

    name = "PinballLoss"

    def __init__(self, quantile: float, *, averages: bool) -> None:
        self.quantile, self.averages = quantile, averages

    @override
    def pieces(self, T: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return T, torch.full_like(T, self.quantile), torch.full_like(T, 1 - self.quantile)


@final
class Hinge(Kinked):
    """``max(0, 1 - t z)`` for t of -1 and 1: the loss of a linear support vector machine.

    Args:
        averages: Whether the reduction is the mean.
        pos_weight: What the loss of targets of 1 is multiplied by, one factor for each output, or None.
    """

    name = "HingeLoss"

    def __init__(self, *, averages: bool, pos_weight: Tensor | None = None) -> None:
        self.averages, self.pos_weight = averages, pos_weight

    @override
    def pieces(self, T: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        above, factors = (T > 0).to(T.dtype), class_factors(self.pos_weight, T)
        return T, above if factors is None else above * factors, (T < 0).to(T.dtype)

    @override
    def check(self, Y: Tensor, numbers: Tensor) -> None:
        refuse_rows(Y.abs() != 1, Y, numbers, "targets of HingeLoss must be -1 or 1.")


@final
class PinballLoss(nn.Module):
    """Quantile loss ``q max(t - z, 0) + (1 - q) max(z - t, 0)``, as a module that also trains.

    Args:
        quantile: From 0 to 1, both excluded.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        InputError: a quantile outside (0, 1), or another reduction.

    Example:
        >>> import torch
        >>> PinballLoss(0.9)(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0]))
        tensor(0.5000)
    """

    def __init__(self, quantile: float, reduction: str = "mean") -> None:
        super().__init__()
        if isinstance(quantile, bool) or not isinstance(quantile, int | float) or not 0 < quantile < 1:
            raise InputError(f"quantile={quantile!r} must be a number between 0 and 1, both excluded.")
        check_reduction(reduction)
        self.quantile, self.reduction = float(quantile), reduction

    @override
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        error = target - output
        return reduced(torch.maximum(self.quantile * error, (self.quantile - 1) * error), self.reduction)


@final
class HingeLoss(MarginLoss):
    """``max(0, 1 - t z)`` for targets t of -1 and 1, as a module that also trains.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        pos_weight: What the loss of targets of 1 is multiplied by, ``(outputs,)``, as in ``BCEWithLogitsLoss``.

    Raises:
        InputError: another reduction.

    Example:
        >>> import torch
        >>> HingeLoss()(torch.tensor([0.5, 2.0]), torch.tensor([1.0, 1.0]))
        tensor(0.2500)
    """

    @override
    def of_shortfall(self, shortfall: Tensor) -> Tensor:
        return shortfall
