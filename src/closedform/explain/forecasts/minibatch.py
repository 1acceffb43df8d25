"""Mini-batch SGD in expectation: how fast it contracts, and the noise floor at which a constant step stops."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor

from closedform.explain.forecasts.curve import start_coordinates
from closedform.explain.moments import GaussianMoments, Moments
from closedform.explain.spectra import Spectrum
from closedform.words.errors import InputError

__all__ = ["MiniBatch", "mini_batch", "share_by_epochs"]

#: Steps beyond which eigenvalues of a step cannot be told from 1.
_RESOLVED = 2.0**30
#: Passes over the rows for the limit and for the floor, at most.
_PASSES = 100
#: Relative accuracy at which they end: far below the spread of any run.
_ACCURACY = 1e-4
#: Places within one pass over the rows that an average over it is taken of.
_PLACES = 1000


@final
@dataclass(frozen=True, eq=False)
class MiniBatch:
    """Mini-batch SGD with a constant learning rate, in expectation over the draws.

    Attributes:
        lr: Learning rate on the mean loss of a batch.
        batch_size: Rows in a batch.
        noise_floor: Expected excess loss at which it stops where rows are drawn anew for each batch; inf where it
            diverges, 0 where every row can be fitted.
        noise_floor_by_epochs: The same for one shuffled pass over the rows after another, as a ``DataLoader`` makes
            them, averaged over a pass.
        feedback: The learning rate as a share of the largest stable one; it diverges from 1 on.
        lr_limit: The largest learning rate at which the expected loss stays bounded.
        optimal_loss: The smallest loss there is.
    """

    lr: float
    batch_size: int
    noise_floor: float
    noise_floor_by_epochs: float
    feedback: float
    lr_limit: float
    optimal_loss: float
    _shrink: Tensor
    _mixing: Tensor
    _noise: Tensor
    _weights: Tensor
    _start: Tensor
    _settled: Tensor

    @property
    def stable(self) -> bool:
        """Whether the expected loss stays bounded."""
        return self.feedback < 1

    def excess_curve(self, steps: int) -> Tensor:
        """Return the expected excess loss after 0, 1, ... ``steps`` steps, ``(steps + 1,)``, float64."""
        moments, curve = self._start, [float(self._weights @ self._start)]
        for _ in range(steps):
            moments = moments - self._shrink * moments + self._mixing @ moments + self._noise
            curve.append(float(self._weights @ moments))
        return torch.tensor(curve, dtype=torch.float64, device="cpu")

    def excess_at(self, steps: float) -> float:
        """Return the expected excess loss after so many steps; inf where it grows without end."""
        if not self.stable:
            return math.inf
        return self._falling(steps)

    def steps_to(self, excess: float) -> float:
        """Return after how many steps the expected excess loss is at most ``excess``; inf where it never is.

        The recursion is linear, so powers come from an eigenvalue decomposition. Beyond some 1e9 steps, where its
        eigenvalues cannot be told from 1, the noise that directions pass on to each other is left out, which makes the
        number a lower bound.
        """
        if float(self._weights @ self._start) <= excess:
            return 0.0
        if not self.stable or self.noise_floor >= excess:
            return math.inf
        return _first_reached(lambda steps: self._falling(steps) <= excess, 1e300) or math.inf

    def _falling(self, steps: float) -> float:
        if steps > _RESOLVED:
            logs = torch.log1p(-self._shrink.clamp(max=1 - 1e-16))
            return self.noise_floor + float((self._weights * self._start * torch.exp(float(steps) * logs)).sum())
        values, vectors = self._modes
        offset = vectors.T @ (self._start - self._settled)
        left = (vectors.T @ self._weights) * offset * values.clamp(min=0.0).pow(steps)
        return max(0.0, self.noise_floor + float(left.sum()))

    @cached_property
    def _modes(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues and eigenvectors of what one step makes of the second moments."""
        values, vectors = torch.linalg.eigh(torch.diag(1 - self._shrink) + self._mixing)
        return values, vectors


def mini_batch(
    spectrum: Spectrum,
    *,
    lr: float,
    batch_size: int,
    start: Any = None,
    row_count: int,
    moments: Moments | None = None,
) -> MiniBatch:
    """Predict constant-step mini-batch SGD in expectation, by a recursion of second moments.

    With S the second moment of the error in the weights, H the Hessian and h the Hessian of one row, a step on a batch
    of b rows makes of it

        S <- S - lr (H S + S H) + lr^2 (H S H + f (E[h S h] - H S H) + f E[g g']),    f = (rows - b) / (rows - 1) / b,

    g the gradient of one row at the minimiser and f that of batches drawn without replacement (Dieuleveut, Durmus and
    Bach 2020; for independent rows the noisy quadratic model of Schaul, Zhang and LeCun 2013). ``E[h S h]`` are fourth
    moments of the rows: the limit is where ``H S + S H = lr (...)`` has a solution, the floor the fixed point.
    What directions pass on to each other on the way there is followed along the diagonal of S.

    In one pass after another the noise of a batch is made up for by the others of the same pass: any two of its m
    batches have gradients of covariance -1/(m - 1), and passes are independent. Along a direction that shrinks by a
    step to a of itself this makes of the floor what is left of the sums of such noise (Gurbuzbalaban, Ozdaglar and
    Parrilo 2021 for its order).

    Args:
        spectrum: The spectrum of the fit.
        lr: Learning rate on the mean loss of a batch.
        batch_size: Rows in a batch, b.
        start: As for :func:`closedform.forecast.forecast`.
        row_count: Rows in the table.
        moments: Those of the rows; those of Gaussian rows if None.

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

    rank = spectrum.rank
    eigenvalues = spectrum.eigenvalues[:rank]
    share = (row_count - batch_size) / max(1, row_count - 1) / batch_size
    known = GaussianMoments(eigenvalues, spectrum.optimal_loss) if moments is None else moments
    step = _Step(eigenvalues, share, known)
    limit = step.limit()
    feedback = lr / limit if math.isfinite(limit) else 0.0
    noise = known.noise if spectrum.optimal_loss > 0 else torch.zeros_like(torch.diag(eigenvalues))
    settled = step.settled(lr, noise) if feedback < 1 else torch.full_like(noise, math.inf)
    gap = spectrum.directions[:rank] @ start_coordinates(spectrum, start)
    gap = gap - spectrum.target_components[:rank] / spectrum.singular_values[:rank].unsqueeze(1)
    moved = lr * eigenvalues
    floors = eigenvalues * settled.diagonal() / 2
    by_epochs = floors * share_by_epochs(moved, math.ceil(row_count / batch_size))

    return MiniBatch(
        lr=lr,
        batch_size=batch_size,
        noise_floor=float(floors.sum()) if feedback < 1 else math.inf,
        noise_floor_by_epochs=float(by_epochs.sum()) if feedback < 1 else math.inf,
        feedback=feedback,
        lr_limit=limit,
        optimal_loss=spectrum.optimal_loss,
        # What a step takes away from the small numbers themselves: nothing is lost for directions that hardly move.
        _shrink=moved * (2 - moved * (1 - share)),
        _mixing=share * lr**2 * known.diagonal(),
        _noise=share * lr**2 * noise.diagonal(),
        _weights=eigenvalues / 2,
        _start=gap.square().sum(1),
        _settled=settled.diagonal(),
    )


def share_by_epochs(moved: Tensor, batches: int) -> Tensor:
    """Return what shuffled passes leave of the noise floor along each direction, ``(rank,)``; 1 is all of it.

    Args:
        moved: Learning rate times eigenvalue.
        batches: Batches of a pass.
    """
    if batches < 2:
        return torch.ones_like(moved)
    kept = (1 - moved).clamp(-1 + 1e-12, 1 - 1e-12)
    places = (
        torch.unique(torch.linspace(1, batches, _PLACES, dtype=torch.float64, device="cpu").round())
        .unsqueeze(1)
        .to(moved)
    )
    powers = kept.pow(places)
    sums, squares = (1 - powers) / (1 - kept), (1 - powers.square()) / (1 - kept.square())
    # Within the pass so far, and what the passes before it have left.
    within = squares - (sums.square() - squares) / (batches - 1)
    before = within[-1].clamp(min=0.0) / (1 - powers[-1].square())
    return ((within + powers.square() * before).mean(0) * (1 - kept.square())).clamp(min=0.0)


@final
class _Step:
    """The two linear maps of the recursion, symmetric in the trace inner product and positive on second moments."""

    def __init__(self, eigenvalues: Tensor, share: float, moments: Moments) -> None:
        self._eigenvalues = eigenvalues
        self._share = share
        self._moments = moments
        self._sums = eigenvalues.unsqueeze(0) + eigenvalues.unsqueeze(1)
        self._products = torch.outer(eigenvalues, eigenvalues)

    def _noisy(self, second_moment: Tensor) -> Tensor:
        """``H S H + f (E[h S h] - H S H)``."""
        noisy = self._share * self._moments.curvature(second_moment) if self._share else 0.0
        return (1 - self._share) * self._products * second_moment + noisy

    def limit(self) -> float:
        """The learning rate where a step puts back what it takes away: the inverse of the largest eigenvalue.

        Power iteration from a positive matrix converges to it, since both maps keep matrices positive (Krein and
        Rutman 1948); the Rayleigh quotient doubles its digits.
        """
        if self._eigenvalues.numel() == 0 or not float(self._eigenvalues[0]) > 0:
            return math.inf
        second_moment = torch.diag(1 / self._eigenvalues)
        ratio = 0.0
        for _ in range(_PASSES):
            second_moment = second_moment / torch.linalg.vector_norm(second_moment)
            noisy = self._noisy(second_moment)
            previous, ratio = ratio, float((second_moment * noisy).sum() / (second_moment.square() * self._sums).sum())
            if abs(ratio - previous) <= _ACCURACY * ratio:
                break
            second_moment = noisy / self._sums
        return 1 / ratio

    def settled(self, lr: float, noise: Tensor) -> Tensor:
        """The fixed point, by conjugate gradients preconditioned with what a step takes away."""
        wanted = lr * self._share * noise
        found = torch.zeros_like(noise)
        left = wanted
        direction = scaled = left / self._sums
        size = float((left * scaled).sum())
        goal = _ACCURACY**2 * size
        for _ in range(_PASSES):
            if size <= goal:
                break
            image = self._sums * direction - lr * self._noisy(direction)
            length = size / float((direction * image).sum())
            found, left = found + length * direction, left - length * image
            scaled = left / self._sums
            previous, size = size, float((left * scaled).sum())
            direction = scaled + (size / previous) * direction
        return found


def _first_reached(reached: Callable[[float], bool], last: float) -> float | None:
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
