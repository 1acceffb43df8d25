"""The optimizers of a comparison. To add one is one line in ``CONTENDERS``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn
from torch.optim import LBFGS, SGD, Adam, Optimizer

from closedform.explain.forecasts import Forecast, forecast, step_limit
from closedform.explain.forecasts.limits import best_momentum
from closedform.explain.spectra import Spectrum

__all__ = ["CONTENDERS", "Contender", "Outlook", "Setting"]

#: Shares of the largest stable step that are forecast: the top singular value itself is known to rounding only.
_SHARES = (0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
#: The same where momentum is forecast as well, which makes many pairs.
_FEW_SHARES = (0.3, 0.7, 0.99)
#: Momenta that are forecast, beside the one that is best after ever so many steps.
_MOMENTA = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999)
#: Numbers of steps that a forecast is made for: a run has somewhat more than the largest that fits into its time.
_HORIZONS = tuple(round(leading * 10**exponent) for exponent in range(1, 10) for leading in (1, 2, 5))


@final
@dataclass(frozen=True)
class Setting:
    """What an optimizer is made with, as ``torch.optim`` calls it."""

    lr: float
    momentum: float = 0.0
    nesterov: bool = False


@final
@dataclass(frozen=True)
class Outlook:
    """What settings are chosen from.

    Attributes:
        spectrum: The spectrum of the rows.
        limit: Largest stable step of plain gradient descent on ``MSELoss()``.
        start: The starting weights, as a forecast takes them.
        steps: About how many steps there is time for.
        eps: Unit in the last place of the arithmetic that is trained in.
    """

    spectrum: Spectrum
    limit: float
    start: Any
    steps: float
    eps: float

    @property
    def horizon(self) -> int:
        """The number of steps that forecasts are made for, one of a few, so that the choice is the same every time."""
        return max((steps for steps in _HORIZONS if steps <= self.steps), default=_HORIZONS[0])


@final
@dataclass(frozen=True)
class Contender:
    """How one optimizer takes part.

    Attributes:
        name: Its name in the table.
        settings: A template for its settings, filled with those of :class:`Setting` and with ``steps``.
        make: Makes the optimizer for a layer.
        choose: The settings to try; where there are several, a short search within the method's own time picks one.
        line_search: Whether it evaluates the loss at trial points that are no iterates.
    """

    name: str
    settings: str
    make: Callable[[nn.Linear, Setting], Optimizer]
    choose: Callable[[Outlook], tuple[Setting, ...]]
    line_search: bool = False


def _plain(outlook: Outlook) -> Iterator[Setting]:
    yield from (Setting(share * outlook.limit) for share in _SHARES)
    largest, smallest = _extremes(outlook.spectrum)
    if smallest > 0:
        yield Setting(min(2 / (largest + smallest), _SHARES[-1] * outlook.limit))


def _with_momentum(outlook: Outlook, nesterov: bool) -> Iterator[Setting]:
    largest, smallest = _extremes(outlook.spectrum)
    momenta = list(_MOMENTA)
    if smallest > 0:
        lr, momentum = best_momentum(largest, smallest, nesterov)
        momentum = min(momentum, 1 - 1e-15)
        # torch refuses Nesterov's way without any momentum.
        yield Setting(
            min(lr, _SHARES[-1] * step_limit(largest, momentum, nesterov)), momentum, nesterov and momentum > 0
        )
        momenta.append(momentum)
    for momentum in momenta:
        # With no curvature anywhere every step is stable, and none matters.
        limit = step_limit(largest, momentum, nesterov) if largest > 0 else outlook.limit
        yield from (Setting(share * limit, momentum, nesterov) for share in _FEW_SHARES)


def _extremes(spectrum: Spectrum) -> tuple[float, float]:
    if spectrum.rank == 0:
        return 0.0, 0.0
    return float(spectrum.eigenvalues[0]), float(spectrum.eigenvalues[spectrum.rank - 1])


def _best_forecast(outlook: Outlook, settings: Iterator[Setting]) -> tuple[Setting, ...]:
    """Return the setting whose forecast is lowest in the end; among equals, the one that is there first."""
    # The loss ripples under momentum, so an end is a few steps long.
    last = [round(outlook.horizon * share) for share in (0.9, 0.95, 1.0)]
    earlier = [steps for steps in _HORIZONS if steps < outlook.horizon][::-1]
    checkpoints = torch.tensor([*last, *earlier, 5, 3, 2, 1], device="cpu")
    size = outlook.spectrum.optimal_loss + outlook.spectrum.excess_at_zero

    def merit(setting: Setting) -> tuple[float, ...]:
        # Momentum adds up the rounding of gradients as it adds up gradients.
        floor = (outlook.eps / (1 - setting.momentum)) ** 2 * size
        excess = _forecast(outlook, setting).excess_at(checkpoints).clamp(min=floor).tolist()
        return (max(excess[:3]), *excess[3:])

    return (min(settings, key=merit),)


def _forecast(outlook: Outlook, setting: Setting) -> Forecast:
    return forecast(
        outlook.spectrum,
        "sgd",
        lr=setting.lr,
        momentum=setting.momentum,
        nesterov=setting.nesterov,
        steps=[0],
        start=outlook.start,
    )


def _sgd(layer: nn.Linear, setting: Setting) -> Optimizer:
    return SGD(layer.parameters(), lr=setting.lr, momentum=setting.momentum, nesterov=setting.nesterov)


def _recursive_least_squares(layer: nn.Linear, setting: Setting) -> Optimizer:
    from closedform.optim import RecursiveLeastSquares  # loaded only when asked for

    return RecursiveLeastSquares(layer, lr=setting.lr)


def _unit(outlook: Outlook) -> tuple[Setting, ...]:
    return (Setting(1.0),)


_BY_FORECAST = "the best forecast for {steps:,} steps"

CONTENDERS: tuple[Contender, ...] = (
    Contender(
        "sgd",
        f"lr {{lr:.3g}}, {_BY_FORECAST}",
        _sgd,
        lambda outlook: _best_forecast(outlook, _plain(outlook)),
    ),
    Contender(
        "momentum",
        f"lr {{lr:.3g}}, momentum {{momentum}}, {_BY_FORECAST}",
        _sgd,
        lambda outlook: _best_forecast(outlook, _with_momentum(outlook, nesterov=False)),
    ),
    Contender(
        "nesterov",
        f"lr {{lr:.3g}}, momentum {{momentum}}, {_BY_FORECAST}",
        _sgd,
        lambda outlook: _best_forecast(outlook, _with_momentum(outlook, nesterov=True)),
    ),
    Contender(
        "adam",
        "lr {lr:.3g}",
        lambda layer, setting: Adam(layer.parameters(), lr=setting.lr),
        lambda outlook: tuple(Setting(lr) for lr in (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)),
    ),
    Contender(
        "lbfgs",
        "lr 1, max_iter 1000, step() repeated",
        lambda layer, setting: LBFGS(layer.parameters(), lr=setting.lr, max_iter=1000),
        _unit,
    ),
    Contender(
        "lbfgs strong wolfe",
        "tolerances 0, step() repeated",
        lambda layer, setting: LBFGS(
            layer.parameters(), lr=setting.lr, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
        ),
        _unit,
        line_search=True,
    ),
    Contender(
        "rls",
        "RecursiveLeastSquares(layer)",
        _recursive_least_squares,
        _unit,
    ),
)
