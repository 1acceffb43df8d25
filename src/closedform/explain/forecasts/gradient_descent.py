"""Gradient descent: ``torch.optim.SGD`` without momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.explain.forecasts.descent import Descent, matrices
from closedform.explain.forecasts.recurrence import powers

__all__ = ["GradientDescent"]

#: Below this a momentum of zero is meant.
_TINY = 1e-300


@final
@dataclass(frozen=True)
class GradientDescent(Descent):
    """Each step multiplies the error along a direction by ``1 - scaled``; it is stable for scaled below 2.

    Dampening has no effect without momentum, as in torch.

    Example:
        >>> GradientDescent(lr=0.1).step_limit(4.0)
        0.5
    """

    name: ClassVar[str] = "sgd"
    title: ClassVar[str] = "gradient descent"

    @classmethod
    @override
    def takes(cls, momentum: float, nesterov: bool) -> bool:
        return momentum < _TINY

    @classmethod
    @override
    def best(cls, largest: float, smallest: float) -> tuple[Descent, float]:
        return cls(2 / (largest + smallest)), (largest - smallest) / (largest + smallest)

    @override
    def step_limit(self, largest: float) -> float:
        return 2 / largest if largest > 0 else float("inf")

    @override
    def factors(self, scaled: Tensor, steps: Tensor) -> Tensor:
        return powers(scaled, steps)

    @override
    def envelopes(self, scaled: Tensor, steps: Tensor) -> Tensor:
        return powers(scaled, steps).abs()

    @override
    def transition(self, scaled: Tensor) -> tuple[Tensor, Tensor]:
        zero = torch.zeros_like(scaled)
        matrix = matrices([[1 - scaled, zero], [scaled, zero]])
        return matrix, torch.tensor([-1.0, 1.0], dtype=scaled.dtype, device=scaled.device)
