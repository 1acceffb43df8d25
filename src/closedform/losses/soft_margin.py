"""The logistic loss of targets -1 and 1."""

from __future__ import annotations

from typing import final

from torch import Tensor
from typing_extensions import override

from closedform.losses.criterion import refuse_rows
from closedform.losses.formula import Formula, Shape
from closedform.losses.logistic import Logistic

__all__ = ["SoftMargin"]


@final
class SoftMargin(Logistic):
    """``SoftMarginLoss``: ``log(1 + exp(-t z))``, t of -1 or 1.

    Args:
        averages: Whether the reduction is the mean.
    """

    name = "SoftMarginLoss"

    def __init__(self, *, averages: bool) -> None:
        self.averages = averages

    @override
    def check(self, Y: Tensor, numbers: Tensor, n_outputs: int) -> None:
        refuse_rows(Y.abs() != 1, Y, numbers, "targets of SoftMarginLoss must be -1 or 1.")

    @override
    def factors(self, Z: Tensor, T: Tensor) -> tuple[Tensor, Tensor]:
        return (T > 0).to(Z.dtype), (T < 0).to(Z.dtype)

    @override
    def formula(self) -> Formula | None:
        return Formula(Shape.LOGISTIC, (0.5, 0.5, 1.0, 1.0))
