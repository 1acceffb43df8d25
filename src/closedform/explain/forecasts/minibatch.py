"""Mini-batch SGD in expectation: how fast it contracts, and the noise floor at which a constant step stops."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor

from closedform.explain.forecasts.curve import Forecast, forecast, start_coordinates
from closedform.explain.forecasts.descent import Descent
from closedform.explain.forecasts.epochs import floor_by_epochs, limit_by_epochs
from closedform.explain.forecasts.noise import BatchNoise
from closedform.explain.forecasts.settling import Settling
from closedform.explain.moments import GaussianMoments, Moments, RowMoments
from closedform.explain.spectra import Spectrum
from closedform.words.errors import InputError

__all__ = ["MiniBatch", "mini_batch"]

#: Share of the limit up to which what noise feeds back is as small by epochs as with rows drawn anew.
_MILD = 0.2
#: Relative accuracy of a large number of steps.
_STEPS_ACCURACY = 1e-6


@final
@dataclass(frozen=True, eq=False)
class MiniBatch:
    """Mini-batch SGD with constant settings, in expectation over the draws.

    Attributes:
        mean: The forecast of the full batch, which the mean over draws follows.
        batch_size: Rows in a batch.
        row_count: Rows in the table.
        optimal_loss: The smallest loss there is.
        settling: How second moments of the error go.
        start: Squared error along each direction at the start, from where the descent leads, ``(rank,)``.
    """

    mean: Forecast
    batch_size: int
    row_count: int
    optimal_loss: float
    settling: Settling
    start: Tensor
    _rows: RowMoments | None
    _shift: Tensor | None

    @property
    def descent(self) -> Descent:
        """The optimizer with its settings."""
        return self.mean.descent

    @property
    def lr(self) -> float:
        """Learning rate on the mean loss of a batch."""
        return self.mean.lr

    @property
    def lr_limit(self) -> float:
        """The largest learning rate at which the expected loss stays bounded, rows drawn anew for each batch."""
        return self.settling.limit

    @property
    def feedback(self) -> float:
        """The learning rate as a share of the largest stable one; it diverges from 1 on."""
        return self.lr / self.lr_limit if math.isfinite(self.lr_limit) else 0.0

    @property
    def stable(self) -> bool:
        """Whether the expected loss stays bounded."""
        return self.feedback < 1

    @property
    def noise_floor(self) -> float:
        """Expected excess loss that noise adds in the end, rows drawn anew for each batch; inf where unstable."""
        return self.settling.floor

    @cached_property
    def lr_limit_by_epochs(self) -> float:
        """The same as :attr:`lr_limit` for one shuffled pass over the rows after another; as large where not known."""
        if self._rows is None or self.batch_size >= self.row_count:
            return self.lr_limit
        rows, full = self._rows, self.mean.limit
        return limit_by_epochs(self.descent, rows.rows, rows.n_targets, self.batch_size, self.lr_limit, full)

    @cached_property
    def noise_floor_by_epochs(self) -> float:
        """The same as :attr:`noise_floor` for one shuffled pass after another, averaged over a pass."""
        settling, rows, exact = self.settling, self._rows, self.row_count % self.batch_size == 0
        constant = settling.noise.constant.diagonal()
        if not bool(constant.any()):
            return 0.0 if self.stable else math.inf
        share = settling.responses.share_by_epochs(self.row_count, self.batch_size)
        variances = share * (settling.settled if self.stable else settling.responses.of_directions() * constant)
        if rows is not None and rows.rows.shape[0] == self.row_count and (not exact or self.feedback > _MILD):
            left = rows.residuals if self._shift is None else rows.residuals + rows.rows @ self._shift
            eigenvalues = settling.noise.eigenvalues
            followed = floor_by_epochs(self.descent, rows.rows, left, self.batch_size, eigenvalues, variances)
            if followed is not None:
                return followed
        return float(settling.weights @ variances) if self.stable else math.inf

    def excess_curve(self, steps: int) -> Tensor:
        """Return the expected excess loss after 0, 1, ... ``steps`` steps, ``(steps + 1,)``, float64."""
        mean = self.mean.excess_at(torch.arange(steps + 1, device="cpu"))
        moments, noiseless, added = self.start, self.start, [0.0]
        for _ in range(steps):
            moments, noiseless = self.settling.step(moments), noiseless - self.settling.shrink * noiseless
            added.append(float(self.settling.weights @ (moments - noiseless)))
        return mean + torch.tensor(added, dtype=torch.float64, device="cpu").to(mean)

    def excess_at(self, steps: float) -> float:
        """Return the expected excess loss after so many steps; inf where it grows without end."""
        if not self.stable:
            return math.inf
        mean = float(self.mean.excess_at([int(steps)])) if steps < 2**62 else self.mean.final_excess
        return mean + self.settling.added(self.start, self.start, steps)

    def steps_to(self, excess: float) -> float:
        """Return after how many steps the expected excess loss is at most ``excess``; inf where it never is."""
        if float(self.mean.excess_at([0])) <= excess:
            return 0.0
        if not self.stable or self.mean.final_excess + self.noise_floor >= excess:
            return math.inf
        # Noise adds to the mean, which is there no later; an envelope of it may be some ripples late.
        earliest = max(1.0, min(self.mean.steps_to(excess), 2.0**62) / 2)
        return _first_reached(lambda steps: self.excess_at(steps) <= excess, earliest, 1e300) or math.inf


def mini_batch(
    spectrum: Spectrum,
    *,
    lr: float,
    batch_size: int,
    start: Any = None,
    row_count: int,
    moments: Moments | None = None,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    dampening: float = 0.0,
) -> MiniBatch:
    """Predict mini-batch SGD with constant settings in expectation, by a recursion of second moments.

    With S the second moment of the error in the weights, H the Hessian and h that of one row, the gradient of a batch
    of b rows carries noise of covariance

        N(S) = f (E[h S h] - H S H + E[g g']),    f = (rows - b) / (rows - 1) / b,

    g the gradient of one row where the descent leads, less its mean, and f that of batches drawn without replacement
    (Dieuleveut, Durmus and Bach 2020; for independent rows the noisy quadratic model of Schaul, Zhang and LeCun 2013).
    ``E[h S h]`` are fourth moments of the rows. The optimizer answers to it along each pair of directions by a number
    of its own (:class:`closedform.explain.forecasts.responses.Responses`): S settles where ``S = K * N(S)``, and the
    limit is where that map no longer shrinks. What directions pass on to each other on the way there is followed along
    the diagonal of S, at the pace at which each of them goes in the end.

    In one pass after another the noise of a batch is made up for by the others of the same pass
    (:class:`MiniBatch`; Gurbuzbalaban, Ozdaglar and Parrilo 2021 for the order of what that leaves).

    Args:
        spectrum: The spectrum of the fit.
        lr: Learning rate on the mean loss of a batch.
        batch_size: Rows in a batch, b.
        start: As for :func:`closedform.explain.forecasts.forecast`.
        row_count: Rows in the table.
        moments: Those of the rows; those of Gaussian rows if None.
        momentum: As in ``torch.optim.SGD``.
        nesterov: As in ``torch.optim.SGD``.
        weight_decay: As in ``torch.optim.SGD``, on the mean loss of a batch.
        dampening: As in ``torch.optim.SGD``.

    Raises:
        InputError: a batch that is empty or larger than the table, or a learning rate that is not positive.

    Example:
        >>> import torch
        >>> from closedform.explain.spectra import spectrum
        >>> X = torch.randn(500, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> s = spectrum(X, X.sum(1) + torch.randn(500, generator=torch.Generator().manual_seed(1)))
        >>> m = mini_batch(s, lr=0.01, batch_size=1, row_count=500)
        >>> round(m.noise_floor / s.optimal_loss, 3)
        0.021
    """
    if not 1 <= batch_size <= row_count:
        raise InputError(f"batch_size={batch_size} must be between 1 and the number of rows, {row_count}.")
    if not (lr > 0 and math.isfinite(lr)):
        raise InputError(f"lr={lr} must be positive and finite.")

    mean = forecast(
        spectrum,
        "momentum",
        lr=lr,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        dampening=dampening,
        steps=[0],
        start=start,
    )
    rank = spectrum.rank
    eigenvalues = spectrum.eigenvalues[:rank]
    share = (row_count - batch_size) / max(1, row_count - 1) / batch_size
    known = GaussianMoments(eigenvalues, spectrum.optimal_loss) if moments is None else moments
    gap = spectrum.directions[:rank] @ start_coordinates(spectrum, start)
    minimiser = spectrum.target_components[:rank] / spectrum.singular_values[:rank].unsqueeze(1)
    curvature = (eigenvalues + weight_decay).unsqueeze(1)
    shift = -minimiser * weight_decay / curvature if weight_decay else None
    noise = BatchNoise(eigenvalues, share, known, shift)

    return MiniBatch(
        mean=mean,
        batch_size=batch_size,
        row_count=row_count,
        optimal_loss=spectrum.optimal_loss,
        settling=Settling(noise, mean.descent),
        start=(gap - minimiser - (0.0 if shift is None else shift)).square().sum(1),
        _rows=known if isinstance(known, RowMoments) else None,
        _shift=shift,
    )


def _first_reached(reached: Callable[[float], bool], earliest: float, last: float) -> float | None:
    """Return the first whole number at which a property holds that stays; None where that is beyond ``last``."""
    high = float(math.floor(earliest))
    while not reached(high):
        high *= 2
        if high > last:
            return None
    low = 0.0 if high <= earliest else high / 2
    while high - low > max(1.0, _STEPS_ACCURACY * high):
        middle = math.floor((low + high) / 2)
        low, high = (low, float(middle)) if reached(middle) else (float(middle), high)
    return high
