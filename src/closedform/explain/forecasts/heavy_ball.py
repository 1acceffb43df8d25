"""The heavy ball: ``torch.optim.SGD`` with momentum, dampened or not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.explain.forecasts.descent import Descent, matrices
from closedform.explain.forecasts.recurrence import TwoTerms

__all__ = ["HeavyBall"]


@final
@dataclass(frozen=True)
class HeavyBall(Descent):
    """The error f follows ``f(t+1) = (1 + m - s) f(t) - m f(t-1)`` with ``s = (1 - dampening) * scaled`` (Polyak 1964).

    torch's buffer starts at the first gradient, which is not dampened: ``f(1) = 1 - scaled``. Both roots lie inside the
    unit circle below ``s = 2 (1 + m)``, where -1 is one.

    Example:
        >>> HeavyBall(lr=0.1, momentum=0.5).step_limit(4.0)
        0.75
    """

    name: ClassVar[str] = "momentum"
    title: ClassVar[str] = "heavy ball"

    @classmethod
    @override
    def takes(cls, momentum: float, nesterov: bool) -> bool:
        return momentum > 0 and not nesterov

    @classmethod
    @override
    def best(cls, largest: float, smallest: float) -> tuple[Descent, float]:
        large, small = math.sqrt(largest), math.sqrt(smallest)
        # (large - small)^2 / (large + small)^2 with the difference of squares, which does not cancel.
        momentum = ((largest - smallest) / (large + small) ** 2) ** 2
        return cls(4 / (large + small) ** 2, momentum), math.sqrt(momentum)

    @override
    def step_limit(self, largest: float) -> float:
        return 2 * (1 + self.momentum) / ((1 - self.dampening) * largest) if largest > 0 else float("inf")

    @override
    def factors(self, scaled: Tensor, steps: Tensor) -> Tensor:
        return self._recurrence(scaled).values(steps)

    @override
    def envelopes(self, scaled: Tensor, steps: Tensor) -> Tensor:
        return self._recurrence(scaled).envelopes(steps)

    def _recurrence(self, scaled: Tensor) -> TwoTerms:
        m, s, lead = self.momentum, (1 - self.dampening) * scaled, 1 / (1 - self.dampening)
        return TwoTerms(
            s,
            distance=1 - m + s,
            total=1 + m - s,
            product=torch.full_like(s, m),
            lead=lead,
            half_slope=(1 - m - (2 * lead - 1) * s) / 2,
        )

    @override
    def transition(self, scaled: Tensor) -> tuple[Tensor, Tensor]:
        kept, share = torch.full_like(scaled, self.momentum), 1 - self.dampening
        matrix = matrices([[1 - share * scaled, -kept], [share * scaled, kept]])
        return matrix, torch.tensor([-share, share], dtype=scaled.dtype, device=scaled.device)
