"""The best that tuning can buy: learning rate and momentum at their optimum, and the limit of first-order methods."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from typing import Any, final

from closedform.explain.forecasts.curve import forecast
from closedform.explain.forecasts.recurrence import step_limit
from closedform.explain.spectra import Spectrum

__all__ = ["Limit", "best_momentum", "first_order_limits"]

# At the bare optimum the largest eigenvalue sits on the edge of stability, where rounding alone decides.
_SAFETY = 0.999


@final
@dataclass(frozen=True)
class Limit:
    """A first-order method at its best settings.

    Attributes:
        name: ``gradient descent``, ``heavy ball``, ``nesterov`` or ``conjugate gradients``.
        lr: The best learning rate on ``MSELoss()``, or None where the method sets its own.
        momentum: The best momentum, or None.
        rate: Factor by which the error shrinks in a step, in the end.
        steps: Steps until the share asked for of the excess loss is left, from zero weights; inf where never.
        bound: Whether ``steps`` is the bound of theory and not a forecast of these data.
    """

    name: str
    lr: float | None
    momentum: float | None
    rate: float
    steps: float
    bound: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return vars(self).copy()


def best_momentum(largest: float, smallest: float, nesterov: bool = False) -> tuple[float, float]:
    """Return learning rate and momentum that shrink the error fastest when eigenvalues fill ``[smallest, largest]``.

    Heavy ball: Polyak (1964). Nesterov: Lessard, Recht and Packard (2016), proposition 1.

    Example:
        >>> best_momentum(1.0, 1.0)
        (1.0, 0.0)
    """
    if nesterov:
        root = math.sqrt(3 * largest / smallest + 1)
        return 4 / (3 * largest + smallest), max(0.0, (root - 2) / (root + 2))
    large, small = math.sqrt(largest), math.sqrt(smallest)
    # (large - small)^2 / (large + small)^2 with the difference of squares, which does not cancel.
    return 4 / (large + small) ** 2, ((largest - smallest) / (large + small) ** 2) ** 2


def first_order_limits(spectrum: Spectrum, goal: float, start: Any = None) -> tuple[Limit, ...]:
    """Return gradient descent, heavy ball, Nesterov and conjugate gradients at their best, with the steps they need.

    No method that adds up gradients can beat the last one; its steps come from the Chebyshev bound ``2 / (r^t + r^-t)``
    with ``r = (k - 1) / (k + 1)`` and k the condition number of the matrix (Hestenes and Stiefel 1952; Golub and Van
    Loan 2013, 11.3), and where rounding allows it there are no more of them than there are directions. Where another
    method needs fewer on these data, that is the bound.

    Args:
        spectrum: The spectrum of the fit.
        goal: Share of the excess loss of zero weights that may be left.
        start: As for :func:`closedform.forecast.forecast`.

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
    limits = [_gradient_descent(spectrum, largest, smallest, excess, start)]
    for name in ("heavy ball", "nesterov"):
        lr, momentum = best_momentum(largest, smallest, nesterov=name == "nesterov")
        lr = min(lr, _SAFETY * step_limit(largest, momentum, name == "nesterov"))
        momentum = min(momentum, 1 - 1e-16)
        steps = forecast(
            spectrum, "momentum", lr=lr, momentum=momentum, nesterov=name == "nesterov", steps=[0], start=start
        ).steps_to(excess)
        rate = math.sqrt(momentum) if name == "heavy ball" else 1 - 2 / math.sqrt(3 * largest / smallest + 1)
        limits.append(Limit(name, lr, momentum, rate, steps, bound=False))

    at_start = float(forecast(spectrum, lr=0.0, steps=[0], start=start).excess[0])
    best = _conjugate_gradients(spectrum, largest, smallest, min(1.0, excess / at_start) if at_start > 0 else 1.0)

    # Of all that adds up gradients it leaves the least loss after as many steps, on these data as on any.
    return (*limits, replace(best, steps=min(best.steps, *(limit.steps for limit in limits))))


def _gradient_descent(spectrum: Spectrum, largest: float, smallest: float, excess: float, start: Any) -> Limit:
    lr = min(2 / (largest + smallest), _SAFETY * 2 / largest)
    steps = forecast(spectrum, lr=lr, steps=[0], start=start).steps_to(excess)
    return Limit("gradient descent", lr, 0.0, max(abs(1 - lr * largest), 1 - lr * smallest), steps, bound=False)


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
