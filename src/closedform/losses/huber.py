"""Huber's loss, and the same in the units of ``SmoothL1Loss``."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar, final

from torch import Tensor
from typing_extensions import override

from closedform.losses.criterion import AttainedLoss
from closedform.losses.formula import Formula, Shape

__all__ = ["Huber", "SmoothL1"]

#: The radius within which a curvature is to hold, in parts of the width of the quadratic.
_RADIUS = 1e-3


class _Rounded(AttainedLoss, ABC):
    """``scale`` times half the squared residual up to ``width``, and linear beyond (Huber 1964)."""

    name: ClassVar[str]
    smooth = False
    of_residuals = True

    def __init__(self, width: float, scale: float, *, averages: bool) -> None:
        self.width, self.scale, self.averages = width, scale, averages
        self.radius = _RADIUS * width

    @override
    def value(self, Z: Tensor, T: Tensor) -> Tensor:
        size = (Z - T).abs()
        inner = size.clamp_max(self.width)
        return self.scale * inner * (size - 0.5 * inner)

    @override
    def slopes(self, Z: Tensor, T: Tensor) -> Tensor:
        return self.scale * (Z - T).clamp(-self.width, self.width)

    @override
    def curvatures(self, Z: Tensor, T: Tensor) -> Tensor:
        return self.scale * ((Z - T).abs() < self.width).to(Z.dtype)

    @override
    def least_curvature(self, Z: Tensor, T: Tensor) -> Tensor:
        return self.scale * ((Z - T).abs() < self.width - self.radius).to(Z.dtype)

    @override
    def recession(self, S: Tensor, T: Tensor) -> Tensor:
        return (self.scale * self.width * S.abs()).sum(1)

    @override
    def formula(self) -> Formula | None:
        return Formula(Shape.ROUNDED, (self.width, self.scale))


@final
class Huber(_Rounded):
    """``HuberLoss``: half the squared residual up to ``delta``, ``delta (|r| - delta / 2)`` beyond.

    Args:
        delta: Width of the quadratic.
        averages: Whether the reduction is the mean.
    """

    name = "HuberLoss"

    def __init__(self, delta: float, *, averages: bool) -> None:
        super().__init__(delta, 1.0, averages=averages)


@final
class SmoothL1(_Rounded):
    """``SmoothL1Loss``: Huber's loss divided by its width ``beta``.

    Args:
        beta: Width of the quadratic.
        averages: Whether the reduction is the mean.
    """

    name = "SmoothL1Loss"

    def __init__(self, beta: float, *, averages: bool) -> None:
        super().__init__(beta, 1.0 / beta, averages=averages)
