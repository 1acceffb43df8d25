"""The best that tuning can buy: learning rate and momentum at their optimum, and the limit of first-order methods."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from typing import Any, final

from closedform.explain.forecasts.curve import forecast
from closedform.explain.forecasts.descent import Descent
from closedform.explain.forecasts.family import FAMILY, best_momentum
from closedform.explain.spectra import Spectrum

__all__ = ["Limit", "best_momentum", "first_order_limits"]

# At the bare optimum the largest eigenvalue sits on the edge of stability, where rounding alone decides.
_SAFETY = 0.999


@final
@dataclass(frozen=True)
class Limit:
    """A first-order method at its best settings.

    Attributes:
        name: The title of the optimizer, or ``conjugate gradients``.
        lr: The best learning rate on ``MSELoss()``, or None where the method sets its own.
        momentum: The best momentum, or None.
        rate: Factor by which the error shrinks in a step, in the end.
        steps: Steps until the share asked for of the excess loss is left, from zero weights; inf where never.
        bound: Whether ``steps`` is the bound of theory and not a forecast of these data.
        nesterov: Whether the momentum is Nesterov's.
    """

    name: str
    lr: float | None
    momentum: float | None
    rate: float
    steps: float
    bound: bool
    nesterov: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return vars(self).copy()


def first_order_limits(spectrum: Spectrum, goal: float, start: Any = None) -> tuple[Limit, ...]:
    """Return every optimizer of the family and conjugate gradients at their best, with the steps they need.

    No method that adds up gradients can beat the last one; its steps come from the Chebyshev bound ``2 / (r^t + r^-t)``
    with ``r = (k - 1) / (k + 1)`` and k the condition number of the matrix (Hestenes and Stiefel 1952; Golub and Van
    Loan 2013, 11.3), and where rounding allows it there are no more of them than there are directions. Where another
    method needs fewer on these data, that is the bound.

    Args:
        spectrum: The spectrum of the fit.
        goal: Share of the excess loss of zero weights that may be left.
        start: As for :func:`closedform.explain.forecasts.forecast`.

    Example:
        >>> import torch
        >>> from closedform.explain.spectra import spectrum
        >>> s = spectrum(torch.diag(torch.tensor([100.0, 1.0])), torch.tensor([100.0, 1.0]))
        >>> [(limit.name, limit.steps) for limit in first_order_limits(s, 1e-6)]
        [('gradient descent', 11524.0), ('heavy ball', 508.0), ('nesterov', 630.0), ('conjugate gradients', 2.0)]
    """
    if spectrum.rank == 0:
        return ()

    eigenvalues = spectrum.eigenvalues
    largest, smallest = float(eigenvalues[0]), float(eigenvalues[spectrum.rank - 1])
    smallest = max(smallest, largest * 1e-300)
    excess = goal * spectrum.excess_at_zero
    limits = [_at_its_best(kind, spectrum, largest, smallest, excess, start) for kind in FAMILY]

    at_start = float(forecast(spectrum, lr=0.0, steps=[0], start=start).excess[0])
    best = _conjugate_gradients(spectrum, largest, smallest, min(1.0, excess / at_start) if at_start > 0 else 1.0)

    # Of all that adds up gradients it leaves the least loss after as many steps, on these data as on any.
    return (*limits, replace(best, steps=min(best.steps, *(limit.steps for limit in limits))))


def _at_its_best(
    kind: type[Descent], spectrum: Spectrum, largest: float, smallest: float, excess: float, start: Any
) -> Limit:
    best, rate = kind.best(largest, smallest)
    settings: dict[str, Any] = {"momentum": min(best.momentum, 1 - 1e-16), "nesterov": kind.nesterov}
    lr = min(best.lr, _SAFETY * best.step_limit(largest))
    steps = forecast(spectrum, kind.name, lr=lr, steps=[0], start=start, **settings).steps_to(excess)
    return Limit(kind.title, lr, settings["momentum"], rate, steps, bound=False, nesterov=kind.nesterov)


def _conjugate_gradients(spectrum: Spectrum, largest: float, smallest: float, goal: float) -> Limit:
    condition = math.sqrt(largest / smallest)
    if condition == 1.0:
        return Limit("conjugate gradients", None, None, 0.0, 1.0, bound=True)
    rate = (condition - 1) / (condition + 1)
    if goal == 0:  # nothing to explain: from other weights than zero it is reached in the limit only
        return Limit("conjugate gradients", None, None, rate, math.inf, bound=True)
    # The excess is the square of the error in the energy norm, which the bound 1 / cosh(t log(1 / rate)) is about.
    steps = math.ceil(math.acosh(max(1.0, 1 / math.sqrt(goal))) / (2 * math.atanh(1 / condition)))
    # After as many steps as directions it is done, but only where rounding, eps * condition^2, lets it.
    if condition**2 * sys.float_info.epsilon < goal:
        steps = min(steps, spectrum.rank)
    return Limit("conjugate gradients", None, None, rate, float(steps), bound=True)
