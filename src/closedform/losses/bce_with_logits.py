"""Binary cross-entropy of logits."""

from __future__ import annotations

from typing import final

from torch import Tensor
from typing_extensions import override

from closedform.losses.criterion import class_factors, refuse_rows
from closedform.losses.formula import Formula, Shape
from closedform.losses.logistic import Logistic

__all__ = ["BCEWithLogits", "MultiLabelSoftMargin"]


@final
class BCEWithLogits(Logistic):
    """``BCEWithLogitsLoss``: ``v (u t log(1 + exp(-z)) + (1 - t) log(1 + exp(z)))`` with ``pos_weight`` u.

    Args:
        weight: One factor for each output, or None.
        pos_weight: One factor for each output, or None.
        averages: Whether the reduction is the mean.
    """

    name = "BCEWithLogitsLoss"

    def __init__(self, *, weight: Tensor | None, pos_weight: Tensor | None, averages: bool) -> None:
        self.weight, self.pos_weight, self.averages = weight, pos_weight, averages

    @override
    def check(self, Y: Tensor, numbers: Tensor, n_outputs: int) -> None:
        refuse_rows((Y < 0) | (Y > 1), Y, numbers, "targets of BCEWithLogitsLoss must be from 0 to 1.")

    @override
    def factors(self, Z: Tensor, T: Tensor) -> tuple[Tensor, Tensor]:
        up, down = T.to(Z.dtype), 1 - T.to(Z.dtype)
        positive, weight = class_factors(self.pos_weight, Z), class_factors(self.weight, Z)
        if positive is not None:
            up = up * positive
        return (up, down) if weight is None else (up * weight, down * weight)

    @override
    def formula(self) -> Formula | None:
        weight, positive = _only(self.weight), _only(self.pos_weight)
        return Formula(Shape.LOGISTIC, (0.0, 1.0, positive * weight, weight))


@final
class MultiLabelSoftMargin(Logistic):
    """``MultiLabelSoftMarginLoss``: the mean over outputs of a row of the binary cross-entropy of 0 and 1.

    Args:
        weight: One factor for each output, or None.
        averages: Whether the reduction is the mean.
    """

    name = "MultiLabelSoftMarginLoss"

    def __init__(self, *, weight: Tensor | None, averages: bool) -> None:
        self.weight, self.averages = weight, averages

    @override
    def check(self, Y: Tensor, numbers: Tensor, n_outputs: int) -> None:
        refuse_rows((Y < 0) | (Y > 1), Y, numbers, "targets of MultiLabelSoftMarginLoss must be 0 or 1.")

    @override
    def counts(self, T: Tensor, n_outputs: int) -> Tensor:
        return T.new_ones(T.shape[0])

    @override
    def factors(self, Z: Tensor, T: Tensor) -> tuple[Tensor, Tensor]:
        share, weight = 1.0 / Z.shape[1], class_factors(self.weight, Z)
        up, down = T.to(Z.dtype) * share, (1 - T.to(Z.dtype)) * share
        return (up, down) if weight is None else (up * weight, down * weight)

    @override
    def formula(self) -> Formula | None:
        weight = _only(self.weight)
        return Formula(Shape.LOGISTIC, (0.0, 1.0, weight, weight))


def _only(factors: Tensor | None) -> float:
    """Return the factor of a single output."""
    return 1.0 if factors is None else float(factors[0])
