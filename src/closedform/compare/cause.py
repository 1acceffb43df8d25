"""Why the optimizers did or did not get there: one sentence with its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from closedform.report import MethodResult

__all__ = ["EXCESS", "cause"]

EXCESS = 1e-6  # of the excess loss at zero weights: what counts as having come to the optimum

_YEAR = 365.25 * 86400
_PATIENT = 1e5  # steps that any of the optimizers makes in seconds


def cause(
    condition: float,
    rate_limit: float,
    steps_needed: float,
    excess_at_zero: float,
    methods: Sequence[MethodResult],
) -> str:
    """Return the sentence.

    Args:
        condition: Condition number of the matrix the layer sees.
        rate_limit: 2 / lambda_max, the largest stable step of gradient descent on ``MSELoss()``.
        steps_needed: Steps of gradient descent, at 0.9 of that limit, until ``EXCESS`` is left.
        excess_at_zero: Excess loss of zero weights, which ``EXCESS`` is relative to.
        methods: The rows of the optimizers, without the direct methods.

    Example:
        >>> print(cause(6.7e8, 1.2e-7, 3e17, 1.0, []))  # doctest: +NORMALIZE_WHITESPACE
        Condition 6.7e8: SGD is stable only below lr 1.2e-7 (MSELoss, mean) and would need about 3e17 steps to
        come within 1e-6 of the optimum.
    """
    return " ".join(
        part
        for part in (_forecast(condition, rate_limit, steps_needed, methods), _count(excess_at_zero, methods))
        if part
    )


def _forecast(condition: float, rate_limit: float, steps_needed: float, methods: Sequence[MethodResult]) -> str:
    opening = f"Condition {_short(condition)}: "
    if steps_needed == 0:
        return f"{opening}zero weights are as good as the optimum already."
    if steps_needed <= _PATIENT:
        return (
            f"{opening}SGD is stable below lr {_short(rate_limit)} (MSELoss, mean) and needs only about "
            f"{_short(steps_needed)} steps to come within {_short(EXCESS)} of the optimum; any of these methods gets "
            "there."
        )
    limit = f"{opening}SGD is stable only below lr {_short(rate_limit)} (MSELoss, mean) and would "
    if not math.isfinite(steps_needed):
        return f"{limit}never come within {_short(EXCESS)} of the optimum in float64."
    speed = ""
    for method in methods:
        if method.name == "sgd" and method.steps:
            speed = f", {_duration(steps_needed * method.seconds / method.steps)} at the speed measured here,"
    return f"{limit}need about {_short(steps_needed)} steps{speed} to come within {_short(EXCESS)} of the optimum."


def _count(excess_at_zero: float, methods: Sequence[MethodResult]) -> str:
    if not methods or excess_at_zero == 0:
        return ""
    arrived = sum(method.excess_loss <= EXCESS * excess_at_zero for method in methods)
    if arrived == len(methods):
        return (
            f"All {len(methods)} optimizers came that close." if len(methods) > 1 else "The optimizer came that close."
        )
    return f"{arrived or 'None'} of the {len(methods)} optimizers came that close."


def _short(value: float) -> str:
    """Two digits, without the padding of exponents.

    Example:
        >>> [_short(value) for value in (6.7e8, 1.2e-7, 0.93, 41.6, 999.7, 1e5)]
        ['6.7e8', '1.2e-7', '0.93', '42', '1000', '1e5']
    """
    if not math.isfinite(value):
        return str(value)
    if 1e-2 <= abs(value) < 9999.5:
        return f"{value:.2g}" if abs(value) < 99.5 else f"{value:.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def _duration(seconds: float) -> str:
    """Example:
    >>> _duration(30.0), _duration(7200.0), _duration(1e6), _duration(1e12)
    ('30 seconds', '2 hours', '12 days', '3.2e4 years')
    """
    for name, unit in (("years", _YEAR), ("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * unit:
            return f"{_short(seconds / unit)} {name}"
    return f"{_short(seconds)} seconds"
