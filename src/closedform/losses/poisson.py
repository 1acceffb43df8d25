"""The negative log-likelihood of counts."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.losses.criterion import Separable, refuse_rows
from closedform.losses.formula import Formula, Shape

__all__ = ["Poisson"]


@final
class Poisson(Separable):
    """``PoissonNLLLoss(log_input=True)``: ``exp(z) - t z``, and with ``full`` Stirling's term of counts above 1.

    The second derivative ``exp(z)`` falls by a factor of ``exp(-r)`` while z falls by r.

    Args:
        full: Whether Stirling's approximation of ``log t!`` is added.
        averages: Whether the reduction is the mean.
    """

    name = "PoissonNLLLoss"

    def __init__(self, *, full: bool, averages: bool) -> None:
        self.full, self.averages = full, averages

    @override
    def check(self, Y: Tensor, numbers: Tensor, n_outputs: int) -> None:
        refuse_rows(Y < 0, Y, numbers, "counts must not be negative.")

    @override
    def value(self, Z: Tensor, T: Tensor) -> Tensor:
        loss = torch.exp(Z) - T * Z
        if self.full:
            stirling = T * torch.log(T) - T + 0.5 * torch.log(2 * math.pi * T)
            loss = loss + torch.where(T > 1, stirling, torch.zeros_like(T))
        return loss

    @override
    def slopes(self, Z: Tensor, T: Tensor) -> Tensor:
        return torch.exp(Z) - T

    @override
    def curvatures(self, Z: Tensor, T: Tensor) -> Tensor:
        return torch.exp(Z)

    @override
    def least_curvature(self, Z: Tensor, T: Tensor) -> Tensor:
        return torch.exp(Z - self.radius)

    @override
    def recession(self, S: Tensor, T: Tensor) -> Tensor:
        slope = torch.where(S > 0, torch.full_like(S, math.inf), -T * S)
        return slope.sum(1)

    @override
    def far_slopes(self, T: Tensor, n_outputs: int) -> tuple[Tensor, Tensor]:
        return T, torch.ones_like(T)

    @override
    def start(self, T: Tensor) -> Tensor | None:
        return torch.log(T + 0.5)

    @override
    def formula(self) -> Formula | None:
        return None if self.full else Formula(Shape.EXPONENTIAL)
