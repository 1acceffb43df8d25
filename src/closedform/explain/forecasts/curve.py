"""The loss curve of SGD on a squared error, predicted from the spectrum without a single step."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from closedform.explain.forecasts.descent import Descent
from closedform.explain.forecasts.family import descent_of, kind_named
from closedform.explain.spectra import Spectrum
from closedform.words.errors import InputError

__all__ = ["Forecast", "forecast", "start_coordinates"]

# A residual comes out wrong by a few eps of what is added up in it, and momentum adds up 1/(1 - m) gradients.
_ROUNDING = 4 * sys.float_info.epsilon
#: Up to here every step of a curve is returned; longer curves are sampled evenly in the logarithm of the step.
EVERY_STEP = 10_000
_SAMPLES = 1000
_LAST_STEP = 2**62
#: Momentum where none is given.
_MOMENTUM = 0.9
#: Numbers of one block of factors, so that long curves of many directions fit in the cache.
_BLOCK = 2**20


@final
@dataclass(frozen=True, eq=False)
class Forecast:
    """What ``torch.optim.SGD`` will do on the full batch.

    Attributes:
        descent: The optimizer with its settings, for ``MSELoss()`` (mean).
        steps: Steps at which the curve is given, ``(points,)``, int64.
        loss: ``MSELoss()`` after so many steps, ``(points,)``, float64; inf or 0 where it is beyond float64.
        excess: The loss less the optimal loss, without cancellation, ``(points,)``.
        optimal_loss: The smallest loss there is.
        final_excess: Excess loss that is left after ever so many steps: 0 without weight decay where it converges.
        limit: The largest stable learning rate at this momentum and weight decay.
        rounding_floor: Losses below this are rounding in float64: ``(4 eps / (1 - momentum))^2`` times the
            mean square of ``|x| |w| + |y|``. A
            real float64 run follows the forecast to 1e-6 as long as its loss is above ``1e12 * rounding_floor``.
    """

    descent: Descent
    steps: Tensor
    loss: Tensor
    excess: Tensor
    optimal_loss: float
    final_excess: float
    limit: float
    rounding_floor: float
    _scaled: Tensor
    _parts: Tensor

    @property
    def name(self) -> str:
        """``sgd``, ``momentum`` or ``nesterov``."""
        return self.descent.name

    @property
    def lr(self) -> float:
        """Learning rate on ``MSELoss()``."""
        return self.descent.lr

    @property
    def momentum(self) -> float:
        """As given to ``torch.optim.SGD``."""
        return self.descent.momentum

    @property
    def nesterov(self) -> bool:
        """Whether the momentum is Nesterov's."""
        return self.descent.nesterov

    @property
    def steady_lr(self) -> float:
        """Learning rate along slow directions, where momentum adds up gradients that are alike."""
        return self.lr * (1 - self.descent.dampening) / (1 - self.momentum)

    @property
    def weight_decay(self) -> float:
        """As given to ``torch.optim.SGD``."""
        return self.descent.weight_decay

    @property
    def dampening(self) -> float:
        """As given to ``torch.optim.SGD``."""
        return self.descent.dampening

    @property
    def stable(self) -> bool:
        """Whether the learning rate is below the largest stable one."""
        return self.lr < self.limit

    @property
    def decay_excess(self) -> float:
        """Excess loss of the weights that weight decay leads to, whether or not the steps get there."""
        return float(self._parts[0].sum())

    @property
    def step_factors(self) -> Tensor:
        """Learning rate times eigenvalue of each direction, the weight decay included, ``(directions,)``."""
        return self._scaled

    def excess_along(self, steps: int) -> Tensor:
        """Return how the excess loss after ``steps`` steps is made up of the directions, ``(directions,)``, float64."""
        f = self._factors(_whole_steps([steps]).to(self._scaled.device))[0]
        constant, linear, square = self._parts
        return torch.where(square > 0, constant + linear * f + square * f.square(), constant).clamp(min=0.0)

    def excess_at(self, steps: Any) -> Tensor:
        """Return the excess loss after any numbers of steps, ``(points,)``, float64.

        Raises:
            InputError: a number of steps that is negative or beyond 4e18.
        """
        t = _whole_steps(steps).to(self._scaled.device)
        size = max(1, _BLOCK // max(1, self._scaled.numel()))
        return torch.cat([self._combine(self._factors(block)) for block in torch.split(t, size)])

    def steps_to(self, excess: float) -> float:
        """Return after how many steps the excess loss is at most ``excess`` and stays so; inf where it never does.

        Exact where the curve up to there is short; for long curves with momentum, which ripple, the count is that of
        their envelope and thus at most some ripples too large.

        Raises:
            InputError: ``excess`` is not a number of at least 0.
        """
        if not excess >= 0:
            raise InputError(f"steps_to({excess}): the excess loss must be a number that is not negative.")
        if (
            not self.momentum
            and float(self.excess_at([0])) <= excess
            and (self.stable or not bool(self._parts[2].any()))
        ):
            first = 0
        elif not self.stable or not self.final_excess <= excess:
            return math.inf
        else:
            first = self._envelope_steps(excess)
        if not 0 <= first < _LAST_STEP:
            return math.inf
        if (self.momentum or self.weight_decay) and first * self._scaled.numel() <= 4 * _BLOCK:
            above = (self.excess_at(torch.arange(first + 1, device="cpu")) > excess).nonzero()
            return float(above[-1] + 1) if above.numel() else 0.0
        return float(first)

    def _envelope_steps(self, excess: float) -> int:
        """The first step from which the envelope is at most ``excess``, many places at a time; ``_LAST_STEP`` if none.

        First the powers of two, then sixteenths of what lies between two of them.
        """
        low, high = 0, _LAST_STEP
        places = [2**exponent for exponent in range(_LAST_STEP.bit_length())]
        while places:
            reached = self._reached(places, excess)
            first = next((i for i, there in enumerate(reached) if there), len(places))
            low = places[first - 1] if first else low
            high = places[first] if first < len(places) else high
            places = sorted({low + (high - low) * part // 16 for part in range(1, 16)} - {low, high})
        return high

    def _reached(self, steps: list[int], excess: float) -> list[bool]:
        t = torch.tensor(steps, device=self._scaled.device)
        size = max(1, _BLOCK // max(1, self._scaled.numel()))
        found: list[bool] = []
        for block in torch.split(t, size):
            bounds = self.descent.envelopes(self._scaled, block)
            # The middle part may have either sign, so its size bounds it.
            found += (self._combine(bounds, self._parts.abs()) <= excess).tolist()
        return found

    def _factors(self, steps: Tensor) -> Tensor:
        return self.descent.factors(self._scaled, steps)

    def _combine(self, factors: Tensor, parts: Tensor | None = None) -> Tensor:
        constant, linear, square = self._parts if parts is None else parts
        moving = square > 0
        f = factors[:, moving]
        total = constant.sum() + (linear[moving] * f + square[moving] * f.square()).sum(1)
        return torch.nan_to_num(total, nan=math.inf).clamp(min=0.0)


def forecast(
    spectrum: Spectrum,
    optimizer: str = "sgd",
    *,
    lr: float,
    momentum: float | None = None,
    nesterov: bool | None = None,
    weight_decay: float = 0.0,
    dampening: float = 0.0,
    steps: Any = 1000,
    start: Any = None,
) -> Forecast:
    """Predict the loss of full-batch ``torch.optim.SGD`` on ``MSELoss()``, exactly and without training.

    In the coordinates of the right singular vectors the loss is a sum of parabolas, one per direction, and SGD moves
    along each by a recurrence of its own (see :mod:`closedform.explain.forecasts.family`). Weight decay acts on the
    bias as well, as it does in torch.

    Args:
        spectrum: The spectrum of the fit.
        optimizer: ``"sgd"``, ``"momentum"`` (0.9 unless given) or ``"nesterov"`` (0.9 unless given).
        lr: Learning rate on ``MSELoss()`` (mean); on the sum it acts like one larger by rows x targets.
        momentum: As in ``torch.optim.SGD``.
        nesterov: As in ``torch.optim.SGD``.
        weight_decay: As in ``torch.optim.SGD``.
        dampening: As in ``torch.optim.SGD``, less than 1; without momentum it has no effect there either.
        steps: A number of steps, whose whole curve is returned (sampled beyond 10,000), or the steps to evaluate.
        start: A ``torch.nn.Linear``, a weight ``(targets, features)``, a pair ``(weight, bias)``, or None for zeros.

    Raises:
        InputError: settings that ``torch.optim.SGD`` would refuse, a dampening of 1 or more, or a start that does not
            fit.

    Example:
        >>> import torch
        >>> from closedform.explain.spectra import spectrum
        >>> s = spectrum(torch.diag(torch.tensor([3.0, 1.0])), torch.tensor([3.0, 1.0]))
        >>> f = forecast(s, "sgd", lr=0.1, steps=3)
        >>> f.loss.round(decimals=6)
        tensor([5.0000, 0.4500, 0.3285, 0.2657], dtype=torch.float64)
        >>> f.steps_to(1e-6)
        63.0
    """
    momentum, nesterov = _momentum(optimizer, momentum, nesterov)
    _check(lr, momentum, nesterov, weight_decay, dampening)
    descent = descent_of(lr, momentum, nesterov, dampening, weight_decay)
    at = start_coordinates(spectrum, start)
    n_terms = spectrum.n_rows * spectrum.n_targets
    reached = spectrum.directions.shape[0]
    live = torch.arange(reached, device=at.device) < spectrum.rank
    s = torch.where(live, spectrum.singular_values[:reached], 0.0).unsqueeze(1)
    h = 2 * s.square() / n_terms
    c = torch.where(live.unsqueeze(1), spectrum.target_components[:reached], 0.0)
    curvature = h + weight_decay
    # SGD ends at the minimiser of the loss with the penalty wd/2 |w|^2, which leaves this of each component.
    left = torch.where(s > 0, c * (weight_decay / torch.where(curvature > 0, curvature, 1.0)), 0.0)
    moving = torch.where(s > 0, s * (spectrum.directions @ at) - c + left, 0.0)
    parts = torch.stack([left.square().sum(1), -2 * (left * moving).sum(1), moving.square().sum(1)]) / n_terms
    shape = Forecast(
        descent=descent,
        steps=_curve_steps(steps),
        loss=torch.empty(0, device="cpu"),
        excess=torch.empty(0, device="cpu"),
        optimal_loss=spectrum.optimal_loss,
        final_excess=math.nan,
        limit=descent.step_limit(float(curvature[0]) if float(h[0]) > 0 else 0.0),
        rounding_floor=(_ROUNDING / (1 - momentum)) ** 2 * spectrum.magnitude(at),
        _scaled=lr * curvature.squeeze(1) if lr > 0 else torch.zeros(reached, dtype=h.dtype, device=h.device),
        _parts=parts,
    )
    excess = shape.excess_at(shape.steps)
    final = shape.decay_excess if shape.stable else math.inf
    values = vars(shape) | {"excess": excess, "loss": excess + shape.optimal_loss, "final_excess": final}

    return Forecast(**values)


def start_coordinates(spectrum: Spectrum, start: Any) -> Tensor:
    """Return starting weights as one matrix ``(columns, targets)``, the bias first.

    Raises:
        InputError: weights of another shape, or a bias where the fit has none, or the other way round.
    """
    k, columns = spectrum.n_targets, spectrum.directions.shape[1]
    features = columns - int(spectrum.bias)
    options: dict[str, Any] = {"dtype": torch.float64, "device": spectrum.directions.device}
    if start is None:
        return torch.zeros(columns, k, **options)

    pair = (start.weight, start.bias) if isinstance(start, nn.Linear) else start
    weight, bias = pair if isinstance(pair, Sequence) else (pair, None)
    weight = torch.as_tensor(weight, device="cpu").detach().to(**options)
    if tuple(weight.shape) != (k, features):
        raise InputError(f"start has weights of shape {tuple(weight.shape)}; the fit needs {(k, features)}.")
    if not spectrum.bias:
        if bias is not None:
            raise InputError("start has a bias, but the fit has none; pass bias=True.")
        return weight.T
    if bias is None:
        raise InputError("start has no bias, but the fit has one; pass start=(weight, bias).")

    bias = torch.as_tensor(bias, device="cpu").detach().to(**options).reshape(-1)
    if bias.numel() != k:
        raise InputError(f"start has {bias.numel()} biases for {k} targets.")

    return torch.cat([bias.unsqueeze(0), weight.T])


def _momentum(optimizer: str, momentum: float | None, nesterov: bool | None) -> tuple[float, bool]:
    kind = kind_named(optimizer)
    if momentum is None:
        momentum = 0.0 if kind.takes(0.0, False) else _MOMENTUM
    return momentum, kind.nesterov if nesterov is None else nesterov


def _check(lr: float, momentum: float, nesterov: bool, weight_decay: float, dampening: float) -> None:
    if not (lr >= 0 and math.isfinite(lr)):
        raise InputError(f"lr={lr} must be finite and not negative.")
    if not 0 <= momentum < 1:
        raise InputError(f"momentum={momentum} must be at least 0 and less than 1.")
    if not (weight_decay >= 0 and math.isfinite(weight_decay)):
        raise InputError(f"weight_decay={weight_decay} must be finite and not negative.")
    if not 0 <= dampening < 1:
        raise InputError(
            f"dampening={dampening} must be at least 0 and less than 1 for a forecast; rehearse() runs it."
        )
    if nesterov and dampening:
        raise InputError(f"dampening={dampening} cannot be had with Nesterov's momentum; torch.optim.SGD refuses it.")


def _whole_steps(steps: Any) -> Tensor:
    try:
        t = torch.as_tensor(
            [int(step) for step in torch.as_tensor(steps, device="cpu").reshape(-1).tolist()],
            dtype=torch.int64,
            device="cpu",
        )
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"steps={steps!r} are not numbers of steps: {error}") from error
    if t.numel() == 0 or int(t.min()) < 0 or int(t.max()) > _LAST_STEP:
        raise InputError("steps must be whole numbers from 0 to 4e18, at least one of them.")
    return t


def _curve_steps(steps: Any) -> Tensor:
    whole = _whole_steps(steps)
    if torch.as_tensor(steps, device="cpu").ndim:
        return whole
    last = int(whole[0])
    if last <= EVERY_STEP:
        return torch.arange(last + 1, device="cpu")
    sampled = torch.logspace(0, math.log10(last), _SAMPLES, dtype=torch.float64, device="cpu").round().to(torch.int64)
    return torch.unique(
        torch.cat([torch.tensor([0], device="cpu"), sampled.clamp(max=last), torch.tensor([last], device="cpu")])
    )
