"""Mini-batch SGD in expectation: how fast it contracts, and the noise floor at which a constant step stops."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from closedform.explain.forecasts.curve import start_coordinates
from closedform.explain.spectra import Spectrum
from closedform.words.errors import InputError

__all__ = ["MiniBatch", "mini_batch"]

_RESOLVED = 2.0**30


@dataclass(frozen=True)
class MiniBatch:
    """Mini-batch SGD with a constant learning rate, in expectation over the draws.

    Attributes:
        lr: Learning rate on the mean loss of a batch.
        batch_size: Rows in a batch.
        noise_floor: Expected excess loss at which it stops; inf where it diverges, 0 where every row can be fitted.
        feedback: Share of the loss that the noise of a step puts back; it diverges from 1 on.
        lr_limit: About the largest learning rate with ``feedback`` below 1.
        optimal_loss: The smallest loss there is.
    """

    lr: float
    batch_size: int
    noise_floor: float
    feedback: float
    lr_limit: float
    optimal_loss: float
    _decay: Tensor
    _shrink: Tensor
    _noise: Tensor
    _start: Tensor

    @property
    def stable(self) -> bool:
        """Whether the expected loss stays bounded."""
        return self.feedback < 1

    def excess_curve(self, steps: int) -> Tensor:
        """Return the expected excess loss after 0, 1, ... ``steps`` steps, ``(steps + 1,)``, float64."""
        u, curve = self._start, [float(self._start.sum())]
        for _ in range(steps):
            u = self._decay * u + self._noise * (self.optimal_loss + curve[-1])
            curve.append(float(u.sum()))
        return torch.tensor(curve, dtype=torch.float64)

    def steps_to(self, excess: float) -> float:
        """Return after how many steps the expected excess loss is at most ``excess``; inf where it never is.

        The recursion is linear, so powers come from an eigenvalue decomposition of a rank-one change of a diagonal.
        Beyond some 1e9 steps, where its eigenvalues cannot be told from 1, the noise that directions pass on to each
        other is left out, which makes the number a lower bound.
        """
        if float(self._start.sum()) <= excess:
            return 0.0
        if not self.stable or self.noise_floor >= excess:
            return math.inf
        values, vectors = torch.linalg.eigh(_symmetric(self._decay, self._noise))
        root = self._noise.clamp(min=1e-300).sqrt()
        stationary = self._noise * (self.optimal_loss + self.noise_floor) / self._shrink
        ones, offset = vectors.T @ root, vectors.T @ ((self._start - stationary) / root)

        def coupled(t: float) -> bool:
            return self.noise_floor + float((ones * offset * values.clamp(min=0.0).pow(t)).sum()) <= excess

        def alone(t: float) -> bool:
            logs = torch.log1p(-self._shrink.clamp(max=1 - 1e-16))
            return self.noise_floor + float((self._start * torch.exp(t * logs)).sum()) <= excess

        return first_reached(coupled, _RESOLVED) or first_reached(alone, 1e300) or math.inf


def mini_batch(spectrum: Spectrum, *, lr: float, batch_size: int, start: Any = None, row_count: int) -> MiniBatch:
    """Predict constant-step mini-batch SGD in expectation, by a recursion of second moments.

    With u_i the expected excess loss along direction i and h_i its eigenvalue, a step makes of it

        u_i <- ((1 - lr h_i)^2 - g_i) u_i + g_i L,    g_i = f lr^2 h_i^2 / b,   L = optimal loss + sum of u,

    the noisy quadratic model (Schaul, Zhang and LeCun 2013; Zhang et al. 2019). It takes the size of a row along a
    direction as independent of that row's residual, and f = (rows - b) / (rows - 1) for batches drawn without
    replacement; rows of very uneven size make the noise larger than predicted. Momentum m acts about like lr / (1 - m).

    Args:
        spectrum: The spectrum of the fit.
        lr: Learning rate on the mean loss of a batch.
        batch_size: Rows in a batch, b.
        start: As for :func:`closedform.forecast.forecast`.
        row_count: Rows in the table.

    Raises:
        InputError: a batch that is empty or larger than the table, or a learning rate that is not positive.

    Example:
        >>> import torch
        >>> from closedform.explain.spectra import spectrum
        >>> X = torch.randn(500, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> s = spectrum(X, X.sum(1) + torch.randn(500, generator=torch.Generator().manual_seed(1)))
        >>> m = mini_batch(s, lr=0.01, batch_size=1, row_count=500)
        >>> round(m.noise_floor / s.optimal_loss, 4)
        0.0202
    """
    if not 1 <= batch_size <= row_count:
        raise InputError(f"batch_size={batch_size} must be between 1 and the number of rows, {row_count}.")
    if not (lr > 0 and math.isfinite(lr)):
        raise InputError(f"lr={lr} must be positive and finite.")
    r = spectrum.rank
    h = spectrum.eigenvalues[:r]
    share = (row_count - batch_size) / max(1, row_count - 1) / batch_size
    at = spectrum.directions[:r] @ start_coordinates(spectrum, start)
    gap = spectrum.singular_values[:r].unsqueeze(1) * at - spectrum.target_components[:r]
    noise = share * (lr * h).square()
    # What a step takes away, 1 - decay, from the small numbers themselves: nothing is lost for directions that hardly
    # move.
    shrink = lr * h * (2 - lr * h * (1 - share))
    decay = 1 - shrink
    # A rank-one matrix on top of diag(decay): its largest eigenvalue is below 1 exactly where this sum is.
    feedback = float((noise / shrink).sum()) if bool((shrink > 0).all()) else math.inf
    floor = spectrum.optimal_loss * feedback / (1 - feedback) if feedback < 1 else math.inf
    return MiniBatch(
        lr=lr,
        batch_size=batch_size,
        noise_floor=floor,
        feedback=feedback,
        lr_limit=_limit(h, share),
        optimal_loss=spectrum.optimal_loss,
        _decay=decay,
        _shrink=shrink,
        _noise=noise,
        _start=gap.square().sum(1) / (spectrum.n_rows * spectrum.n_targets),
    )


def first_reached(reached: Callable[[float], bool], last: float) -> float | None:
    """Return the first whole number at which a property holds that stays; None where that is beyond ``last``."""
    high = 1.0
    while not reached(high):
        high *= 2
        if high > last:
            return None
    low = high / 2
    while high - low > max(1.0, 1e-12 * high):
        middle = math.floor((low + high) / 2)
        low, high = (low, float(middle)) if reached(middle) else (float(middle), high)
    return high


def _limit(h: Tensor, share: float) -> float:
    """The learning rate at which the noise of a step puts back as much as the step takes away."""

    def feedback(lr: float) -> float:
        x = lr * h
        return float((share * x / (2 - x * (1 - share))).sum())

    low, high = 0.0, 2 / float(h[0]) if h.numel() and float(h[0]) > 0 else math.inf
    if not math.isfinite(high) or feedback(high * (1 - 1e-9)) < 1:
        return high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if feedback(middle) < 1 else (low, middle)
    return low


def _symmetric(decay: Tensor, noise: Tensor) -> Tensor:
    root = noise.sqrt()
    return torch.diag(decay) + torch.outer(root, root)
