"""SGD under a schedule: every direction on its own, step by step, with the settings of each step."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from closedform.explain.forecasts.descent import Descent
from closedform.explain.precision import rounding_of, with_rounding
from closedform.explain.spectra import Spectrum

__all__ = ["ScheduledRun", "scheduled_run"]

#: Steps after which the curve is written down: all of the first, then so many spread evenly in the logarithm.
_POINTS = 400
#: Settings that stay as they are from here on are followed by squaring one step.
_SAME_SETTINGS = 64


@final
@dataclass(frozen=True, eq=False)
class ScheduledRun:
    """A run of SGD whose settings change.

    Attributes:
        steps: Steps at which the curve is given, ``(points,)``, int64; the last one is the end of the run.
        excess: Excess loss after so many steps, ``(points,)``; inf where it is beyond float64.
        along: Excess loss at the end along each direction, ``(rank,)``.
        peak: Largest excess loss on the way.
        above: Steps whose learning rate is above the largest stable one for its momentum.
        highest_share: The highest learning rate as a share of the largest stable one.
        highest_lr: That learning rate.
    """

    steps: Tensor
    excess: Tensor
    along: Tensor
    peak: float
    above: int
    highest_share: float
    highest_lr: float

    @property
    def left(self) -> float:
        """Excess loss at the end."""
        return float(self.excess[-1])


def scheduled_run(
    spectrum: Spectrum,
    settings: Sequence[Descent],
    steps: int,
    start: Tensor,
    buffer: Tensor | None = None,
    rounding: float = sys.float_info.epsilon,
    largest: float = sys.float_info.max,
) -> ScheduledRun:
    """Follow SGD on the mean squared error along each singular direction.

    In the residuals r along a direction of eigenvalue h a step is ``g = h r + decay (r + c)``, ``buffer <- momentum
    buffer + (1 - dampening) g`` (the first gradient as it is), ``r <- r - lr buffer``, as in ``torch.optim.SGD``.

    Args:
        spectrum: The spectrum of the fit.
        settings: Those of each step; the last ones go on to the end of the run.
        steps: Steps of the run.
        start: Where it starts, ``(columns, targets)``.
        buffer: Momentum that it holds already, ``(columns, targets)``, or None.
        rounding: Relative rounding of the arithmetic that is trained in, which a step above the limit may grow from;
            0 for exact arithmetic.
        largest: The largest number of that arithmetic: losses beyond it are infinite and stay so.

    Example:
        >>> from closedform.explain.spectra import spectrum
        >>> s = spectrum(torch.tensor([[1.0]]), torch.tensor([4.0]))
        >>> from closedform.explain.forecasts.family import descent_of
        >>> rates = [descent_of(0.25), descent_of(0.125)]
        >>> scheduled_run(s, rates, 2, torch.zeros(1, 1, dtype=torch.float64)).left
        2.25
    """
    rank = spectrum.rank
    largest_eigenvalue = float(spectrum.eigenvalues[0])
    limits = [now.step_limit(largest_eigenvalue + now.weight_decay) for now in settings]
    h = (spectrum.eigenvalues[:rank].unsqueeze(1)).cpu().numpy()
    targets = spectrum.target_components[:rank].cpu().numpy()
    residual = spectrum.residuals(start).cpu().numpy().copy()
    count = spectrum.n_rows * spectrum.n_targets
    floor = rounding_of(targets, rounding)
    held = None
    if buffer is not None:
        held = (spectrum.singular_values[:rank].unsqueeze(1) * (spectrum.directions[:rank] @ buffer)).cpu().numpy()
    marks = _marks(steps)
    found: dict[int, float] = {0: float(np.square(residual).sum()) / count}
    peak = found[0]
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(steps):
            now = settings[min(step, len(settings) - 1)]
            if step >= len(settings) - 1 + _SAME_SETTINGS and steps - step > _SAME_SETTINGS:
                residual, held = _many_steps(h, targets, residual, held, now, steps - step)
                found[steps] = _excess(residual, count)
                break
            if now.lr >= limits[min(step, len(settings) - 1)]:
                # However small exact arithmetic would have made it, rounding of the largest leaves this much of each.
                residual = with_rounding(residual, max(floor, rounding_of(residual, rounding)))
            gradient = h * residual + (now.weight_decay * (residual + targets) if now.weight_decay else 0.0)
            moved = gradient
            if now.momentum:
                held = gradient if held is None else now.momentum * held + (1 - now.dampening) * gradient
                moved = gradient + now.momentum * held if now.nesterov else held
            residual = residual - now.lr * moved
            if step + 1 in marks:
                found[step + 1] = _excess(residual, count)
                peak = max(peak, found[step + 1])
                if not found[step + 1] < largest:
                    found[step + 1] = found[steps] = peak = math.inf
                    break

    shares = [now.lr / limit for now, limit in zip(settings, limits, strict=True)]
    highest = max(range(len(shares)), key=shares.__getitem__)
    above = sum(share >= 1 for share in shares) + (steps - len(shares) if shares[-1] >= 1 else 0)

    with np.errstate(over="ignore", invalid="ignore"):
        along = np.nan_to_num(np.square(residual).sum(1), nan=math.inf) / count

    return ScheduledRun(
        steps=torch.tensor(sorted(found), device="cpu"),
        excess=torch.tensor([found[step] for step in sorted(found)], dtype=torch.float64, device="cpu"),
        along=torch.from_numpy(along),
        peak=max(peak, found[steps]),
        above=above,
        highest_share=shares[highest],
        highest_lr=settings[highest].lr,
    )


def _excess(residual: np.ndarray, count: float) -> float:
    total = float(np.square(residual).sum()) / count
    return total if math.isfinite(total) else math.inf


def _marks(steps: int) -> set[int]:
    spread = (
        torch.logspace(0, math.log10(max(1, steps)), _POINTS, dtype=torch.float64, device="cpu").round().to(torch.int64)
    )
    return set(spread.clamp(max=steps).tolist()) | {steps}


def _many_steps(
    h: np.ndarray,
    targets: np.ndarray,
    residual: np.ndarray,
    held: np.ndarray | None,
    now: Descent,
    steps: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Make many steps of the same settings at once: a step is affine in (residual, lr times buffer, target)."""
    curvature = torch.from_numpy((h + now.weight_decay)[:, 0])
    matrix, noise = now.transition(now.lr * curvature)
    step = np.zeros((curvature.shape[0], 3, 3))
    step[:, :2, :2] = matrix.numpy()
    # Decay pulls towards zero, which from the minimiser looks like a constant gradient.
    step[:, :2, 2] = now.lr * now.weight_decay * noise.numpy()
    step[:, 2, 2] = 1.0
    power = np.linalg.matrix_power(step, steps)
    moving = np.zeros_like(residual) if held is None else now.lr * held
    end = power @ np.stack([residual, moving, targets], axis=1)
    return end[:, 0], end[:, 1] / now.lr if now.lr else end[:, 1]
