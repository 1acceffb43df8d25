"""Losses of one output in a form that compiled loops know."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import final

__all__ = ["Formula", "Shape"]


@final
class Shape(Enum):
    """What the loss of an output z with a target t is, with numbers p.

    Attributes:
        LOGISTIC: ``p2 q log(1 + exp(-z)) + p3 (1 - q) log(1 + exp(z))`` with ``q = p0 + p1 t``.
        EXPONENTIAL: ``exp(z) - t z``.
        ROUNDED: ``p1`` times half the squared residual up to ``p0``, and linear beyond.
    """

    LOGISTIC = "LOGISTIC"
    EXPONENTIAL = "EXPONENTIAL"
    ROUNDED = "ROUNDED"


@final
@dataclass(frozen=True)
class Formula:
    """The loss of one output.

    Attributes:
        shape: Which function it is.
        numbers: The numbers p that it has.

    Example:
        >>> Formula(Shape.ROUNDED, (1.5, 1.0)).four
        (1.5, 1.0, 0.0, 0.0)
    """

    shape: Shape
    numbers: tuple[float, ...] = ()

    @property
    def four(self) -> tuple[float, float, float, float]:
        """The numbers, and zeros for those that it has not."""
        p, q, r, s = (*self.numbers, 0.0, 0.0, 0.0, 0.0)[:4]
        return p, q, r, s
