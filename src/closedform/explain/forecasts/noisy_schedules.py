"""Mini-batch SGD under a schedule, in expectation: the run of the full batch, and the noise that its steps add."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from closedform.explain.forecasts.descent import Descent
from closedform.explain.forecasts.minibatch import MiniBatch
from closedform.explain.forecasts.scheduled import ScheduledRun
from closedform.explain.forecasts.settling import Settling

__all__ = ["ScheduledBatches", "scheduled_batches"]

#: Learning rates whose logarithms differ by less than this are answered alike.
_ALIKE = 0.02


@final
@dataclass(frozen=True, eq=False)
class ScheduledBatches:
    """A run of mini-batch SGD whose settings change, in expectation over the draws.

    Attributes:
        mean: The run of the full batch, which the mean over draws follows.
        noise: What noise adds to the expected excess loss at the same steps, ``(points,)``; inf where it has no end.
        batches: Batches at the settings next to their limit.
        above: Steps whose learning rate is above the limit for the batches.
    """

    mean: ScheduledRun
    noise: Tensor
    batches: MiniBatch
    above: int

    @property
    def excess(self) -> Tensor:
        """Expected excess loss at the steps of :attr:`mean`, ``(points,)``."""
        return self.mean.excess + self.noise

    @property
    def left(self) -> float:
        """Expected excess loss at the end."""
        return float(self.excess[-1])


def scheduled_batches(mean: ScheduledRun, settings: Sequence[Descent], highest: MiniBatch) -> ScheduledBatches:
    """Follow what noise adds to a run, step by step.

    Second moments along the directions go by the recursion of
    :func:`closedform.explain.forecasts.minibatch.mini_batch`, with the settings of each step.

    Args:
        mean: The run of the full batch.
        settings: Those of each step; the last ones go on to the end of the run.
        highest: Mini-batches at the settings whose learning rate is the largest share of the stable one.
    """
    eigenvalues, steps = highest.settling.noise.eigenvalues, int(mean.steps[-1])
    path = _Path(highest)
    at_step = {0: 0.0}
    marks = set(mean.steps.tolist())
    for step, now in enumerate(settings[:steps]):
        path.step(now)
        if step + 1 in marks:
            at_step[step + 1] = path.noise
        if not math.isfinite(path.noise):
            break
    done = min(len(settings), steps)
    for mark in sorted(marks):
        if mark > done:
            at_step[mark] = path.noise_after(settings[-1], mark - done)
    noise = torch.tensor(
        [at_step.get(mark, math.inf) for mark in mean.steps.tolist()], dtype=torch.float64, device="cpu"
    )

    stable = highest.lr_limit / highest.mean.limit
    largest = float(eigenvalues[0])
    shares = [now.lr / now.step_limit(largest + now.weight_decay) for now in settings]
    above = sum(at >= stable for at in shares) + (max(0, steps - len(shares)) if shares[-1] >= stable else 0)
    return ScheduledBatches(mean, noise, highest, above)


@final
class _Path:
    """Second moments of error and momentum along each direction, with and without noise, ``(rank, 2, 2)``."""

    def __init__(self, batches: MiniBatch) -> None:
        self._map = batches.settling.noise
        self._weights = batches.settling.weights.cpu().numpy()
        self._mixing, self._constant = self._map.mixing.cpu().numpy(), self._map.constant.diagonal().cpu().numpy()
        self._moments = np.zeros((self._weights.size, 2, 2))
        self._moments[:, 0, 0] = batches.start.cpu().numpy()
        self._noiseless = self._moments.copy()
        self._lr = 0.0
        self._known: dict[Descent, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def noise(self) -> float:
        """What noise adds to the expected excess loss; inf where it is beyond float64."""
        with np.errstate(over="ignore", invalid="ignore"):
            total = float(self._weights @ (self._moments - self._noiseless)[:, 0, 0])
        return max(0.0, total) if math.isfinite(total) else math.inf

    def step(self, now: Descent) -> None:
        """Make a step with these settings."""
        if now.lr <= 0:
            return
        lr = math.exp(round(math.log(now.lr) / _ALIKE) * _ALIKE)
        matrix, enters = self._transition(replace(now, lr=lr))
        # Momentum is counted in steps, which have another length now.
        scale = np.diag([1.0, lr / self._lr if self._lr else 1.0])
        matrix, self._lr = matrix @ scale, lr
        with np.errstate(over="ignore", invalid="ignore"):
            noisy = self._mixing @ self._moments[:, 0, 0] + self._constant
            turned = matrix.transpose(0, 2, 1)
            self._moments = matrix @ self._moments @ turned + (lr * lr * noisy)[:, None, None] * enters
            self._noiseless = matrix @ self._noiseless @ turned

    def _transition(self, now: Descent) -> tuple[np.ndarray, np.ndarray]:
        """What a step makes of error and momentum, and of noise in the gradient."""
        if now not in self._known:
            matrix, enters = now.transition(now.lr * (self._map.eigenvalues + now.weight_decay))
            self._known[now] = (matrix.cpu().numpy(), torch.outer(enters, enters).cpu().numpy())
        return self._known[now]

    def noise_after(self, now: Descent, steps: int) -> float:
        """What noise adds after more steps, all of these settings."""
        if now.lr <= 0 or not math.isfinite(self.noise):
            return self.noise
        parts = (torch.from_numpy(part[:, 0, 0].copy()) for part in (self._moments, self._noiseless))
        here, noiseless = (part.to(self._map.eigenvalues) for part in parts)
        return Settling(self._map, now).added(here, noiseless, steps)
