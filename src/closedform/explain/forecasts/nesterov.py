"""Nesterov's momentum, as ``torch.optim.SGD(nesterov=True)`` has it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.explain.forecasts.descent import Descent, matrices
from closedform.explain.forecasts.recurrence import TwoTerms

__all__ = ["Nesterov"]


@final
@dataclass(frozen=True)
class Nesterov(Descent):
    """The error f follows ``f(t+1) = (1 + m) (1 - s) f(t) - m (1 - s) f(t-1)`` with ``s = scaled``.

    It is stable for s below ``2 (1 + m) / (1 + 2 m)``, where -1 is a root (Flammarion and Bach 2015).

    Example:
        >>> Nesterov(lr=0.1, momentum=0.5).step_limit(4.0)
        0.375
    """

    name: ClassVar[str] = "nesterov"
    title: ClassVar[str] = "nesterov"
    nesterov: ClassVar[bool] = True

    @classmethod
    @override
    def takes(cls, momentum: float, nesterov: bool) -> bool:
        return momentum > 0 and nesterov

    @classmethod
    @override
    def best(cls, largest: float, smallest: float) -> tuple[Descent, float]:
        # Lessard, Recht and Packard (2016), proposition 1.
        root = math.sqrt(3 * largest / smallest + 1)
        momentum = max(0.0, (root - 2) / (root + 2))
        return cls(4 / (3 * largest + smallest), momentum), 1 - 2 / root

    @override
    def step_limit(self, largest: float) -> float:
        m = self.momentum
        return 2 * (1 + m) / ((1 + 2 * m) * largest) if largest > 0 else float("inf")

    @override
    def factors(self, scaled: Tensor, steps: Tensor) -> Tensor:
        return self._recurrence(scaled).values(steps)

    @override
    def envelopes(self, scaled: Tensor, steps: Tensor) -> Tensor:
        return self._recurrence(scaled).envelopes(steps)

    def _recurrence(self, scaled: Tensor) -> TwoTerms:
        m, s = self.momentum, scaled
        return TwoTerms(
            s,
            distance=1 - m + (1 + m) * s,
            total=(1 + m) * (1 - s),
            product=m * (1 - s),
            lead=1 + m,
            half_slope=(1 - m - (1 + m) * s) / 2,
        )

    @override
    def transition(self, scaled: Tensor) -> tuple[Tensor, Tensor]:
        m = self.momentum
        kept = torch.full_like(scaled, m)
        matrix = matrices([[1 - (1 + m) * scaled, -m * kept], [scaled, kept]])
        return matrix, torch.tensor([-(1 + m), 1.0], dtype=scaled.dtype, device=scaled.device)
