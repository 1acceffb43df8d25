"""How the second moments of the error go under mini-batches of constant settings, and where they settle."""

from __future__ import annotations

import math
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from closedform.explain.forecasts.descent import Descent
from closedform.explain.forecasts.noise import BatchNoise
from closedform.explain.forecasts.responses import Responses

__all__ = ["Settling"]

#: Steps beyond which eigenvalues of a step cannot be told from 1.
_RESOLVED = 2.0**30


@final
class Settling:
    """The recursion along the diagonal of the second moment of the error, ``m <- m - shrink m + gain (C m + c)``.

    C and c are the noise of a batch; shrink and gain are those of the pace at which a direction goes in the end, which
    is every step's own without momentum.

    Args:
        noise: The noise of a batch.
        descent: The optimizer with its settings.
    """

    def __init__(self, noise: BatchNoise, descent: Descent) -> None:
        self.noise, self.descent = noise, descent
        self.weights = noise.eigenvalues / 2
        self.responses = Responses(descent, noise.eigenvalues)
        self.shrink = self.responses.shrinking
        self.gain = self.shrink * self.responses.of_directions()

    @cached_property
    def full(self) -> float:
        """The largest stable learning rate of the full batch."""
        known = self.noise.eigenvalues
        return self.descent.step_limit(float(known[0]) + self.descent.weight_decay) if known.numel() else math.inf

    @cached_property
    def limit(self) -> float:
        """The largest learning rate at which second moments stay bounded, rows drawn anew for each batch."""
        return self.noise.limit(self.descent, self.full)

    @property
    def stable(self) -> bool:
        """Whether they do at the present one."""
        return self.descent.lr < self.limit

    @cached_property
    def settled(self) -> Tensor:
        """Where they settle, ``(rank,)``; inf where they do not."""
        if not self.stable:
            return torch.full_like(self.weights, math.inf)
        return self.noise.settled(self.responses)

    @property
    def floor(self) -> float:
        """The excess loss that noise adds in the end."""
        return float(self.weights @ self.settled)

    def step(self, moments: Tensor) -> Tensor:
        """Return second moments after one more step."""
        noisy = self.noise.mixing @ moments + self.noise.constant.diagonal()
        return moments - self.shrink * moments + self.gain * noisy

    def added(self, moments: Tensor, noiseless: Tensor, steps: float) -> float:
        """Return the excess loss that noise has added after more steps; inf where it grows without end.

        Powers come from an eigenvalue decomposition. Beyond some 1e9 steps, where its eigenvalues cannot be told from
        1, the noise that directions pass on to each other is left out.

        Args:
            moments: Second moments now, ``(rank,)``.
            noiseless: What they would be had there been no noise.
            steps: More steps.
        """
        if not self.stable:
            return math.inf
        logs = torch.log1p(-self.shrink.clamp(max=1 - 1e-16))
        decayed = torch.exp(float(steps) * logs)
        if steps > _RESOLVED:
            return max(0.0, float(self.weights @ (self.settled + (moments - noiseless - self.settled) * decayed)))
        values, vectors, scale = self._modes
        offset = vectors.T @ ((moments - self.settled) / scale)
        left = (vectors.T @ (self.weights * scale)) * offset * values.clamp(min=0.0).pow(steps)
        return max(0.0, self.floor + float(left.sum()) - float((self.weights * noiseless * decayed).sum()))

    @cached_property
    def _modes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Eigenvalues and eigenvectors of a step, and the units in which it is symmetric."""
        scale = self.gain.sqrt()
        symmetric = torch.diag(1 - self.shrink) + scale.unsqueeze(1) * self.noise.mixing * scale
        values, vectors = torch.linalg.eigh((symmetric + symmetric.T) / 2)
        return values, vectors, scale
