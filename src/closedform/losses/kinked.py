"""Losses with a kink: absolute values, quantiles, hinges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from closedform.losses.criterion import class_factors, refuse_rows
from closedform.losses.margins import MarginLoss
from closedform.losses.reduction import check_reduction, reduced
from closedform.words.arguments import share_of_one
from closedform.words.errors import InputError

__all__ = ["Absolute", "Hinge", "HingeLoss", "Kinked", "OneKink", "Pinball", "PinballLoss"]


class Kinked(ABC):
    """A convex function of the outputs of a row that is linear between its kinks.

    Attributes:
        name: The class that it was read from.
        averages: Whether its reduction is the mean; else it is the sum.
        coupled: Whether a kink is one of differences of outputs; a shift of all of them changes nothing then.
    """

    name: str
    averages: bool
    coupled: ClassVar[bool] = False

    def n_outputs(self, T: Tensor) -> int:
        """Return how many outputs a row has at least, for some of the targets."""
        return T.shape[1]

    def check(self, Y: Tensor, numbers: Tensor, n_outputs: int) -> None:  # noqa: B027 (most take any number)
        """Refuse targets that the criterion is not defined for.

        Args:
            Y: Targets.
            numbers: Numbers of these rows in the table.
            n_outputs: How many outputs a row has.

        Raises:
            InputError: with the row and the value seen.
        """

    @abstractmethod
    def losses(self, Z: Tensor, T: Tensor) -> Tensor:
        """Return the loss of each row, ``(rows,)``."""

    @abstractmethod
    def steepness(self, T: Tensor, n_outputs: int) -> Tensor:
        """Return what the slopes by the outputs are no larger than, ``(rows, outputs)``."""


class OneKink(Kinked, ABC):
    """``above max(t - z, 0) + below max(z - t, 0)``: one kink for each output."""

    @abstractmethod
    def pieces(self, T: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return kinks, slopes above and slopes below, each ``(rows, outputs)``."""

    @override
    def losses(self, Z: Tensor, T: Tensor) -> Tensor:
        kinks, above, below = self.pieces(T)
        r = kinks - Z
        return (above * r.clamp_min(0) + below * (-r).clamp_min(0)).sum(1)

    @override
    def steepness(self, T: Tensor, n_outputs: int) -> Tensor:
        _, above, below = self.pieces(T)
        return above + below


@final
class Absolute(OneKink):
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
class Pinball(OneKink):
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
class Hinge(OneKink):
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
    def check(self, Y: Tensor, numbers: Tensor, n_outputs: int) -> None:
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
        share = share_of_one(quantile)
        if share is None:
            raise InputError(f"quantile={quantile!r} must be a number between 0 and 1, both excluded.")
        check_reduction(reduction)
        self.quantile, self.reduction = share, reduction

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
