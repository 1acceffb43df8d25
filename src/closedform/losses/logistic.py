"""The logistic loss of one output, which several criteria of torch are made of."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from typing_extensions import override

from closedform.losses.criterion import Separable

__all__ = ["Logistic"]


class Logistic(Separable, ABC):
    r"""``up log(1 + exp(-z)) + down log(1 + exp(z))``, with factors that depend on the target.

    The second derivative ``(up + down) s (1 - s)`` with the sigmoid s falls by no more than a factor ``exp(-r)`` while
    z moves by r, since the size of the third derivative is never above the second (Bach 2010).
    """

    @abstractmethod
    def factors(self, Z: Tensor, T: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``up`` and ``down``, ``(rows, outputs)`` or broadcast to it."""

    @override
    def value(self, Z: Tensor, T: Tensor) -> Tensor:
        up, down = self.factors(Z, T)
        softplus = torch.nn.functional.softplus
        return up * softplus(-Z, threshold=_ALWAYS) + down * softplus(Z, threshold=_ALWAYS)

    @override
    def slopes(self, Z: Tensor, T: Tensor) -> Tensor:
        up, down = self.factors(Z, T)
        return down * torch.sigmoid(Z) - up * torch.sigmoid(-Z)

    @override
    def curvatures(self, Z: Tensor, T: Tensor) -> Tensor:
        up, down = self.factors(Z, T)
        return (up + down) * (torch.sigmoid(Z) * torch.sigmoid(-Z))

    @override
    def evaluate(self, Z: Tensor, T: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        up, down = self.factors(Z, T)
        # One exponential serves all three: e = exp(-|z|), so that nothing overflows and nothing cancels.
        small = Z.abs().neg_().exp_()
        likely, unlikely = 1 / (1 + small), small / (1 + small)
        positive = Z > 0
        high, low = torch.where(positive, likely, unlikely), torch.where(positive, unlikely, likely)
        logs = torch.log1p(small)
        values = up * (logs + (-Z).clamp_min(0)) + down * (logs + Z.clamp_min(0))
        return values.sum(1), down * high - up * low, (up + down) * (likely * unlikely)

    @override
    def least_curvature(self, Z: Tensor, T: Tensor) -> Tensor:
        return self.curvatures(Z, T) * math.exp(-self.radius)

    @override
    def recession(self, S: Tensor, T: Tensor) -> Tensor:
        up, down = self.factors(S, T)
        return (up * (-S).clamp_min(0) + down * S.clamp_min(0)).sum(1)

    @override
    def far_slopes(self, T: Tensor, n_outputs: int) -> tuple[Tensor, Tensor]:
        return self.factors(T, T)

    @override
    def falls(self, S: Tensor, T: Tensor) -> Tensor:
        up, down = self.factors(S, T)
        return ((up + down) * S.abs()).amax(1) > 0


#: From this output on torch takes softplus for linear: beyond it exp(-z) is below half an ulp of z.
_ALWAYS = 40.0
