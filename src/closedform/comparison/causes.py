"""Why the optimizers did or did not get there: one sentence with its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from closedform.comparison.methods import MethodResult
from closedform.comparison.races import INTERRUPTED, TIME_IS_UP
from closedform.words.numbers import duration, short

__all__ = ["EXCESS", "cause"]

EXCESS = 1e-6  # of the excess loss at zero weights: what counts as having come to the optimum

_PATIENT = 1e5  # steps that any of the optimizers makes in seconds


def cause(
    condition: float,
    rate_limit: float,
    steps_needed: float,
    excess_at_zero: float,
    methods: Sequence[MethodResult],
    *,
    rounding: tuple[str, float] = ("float64", 0.0),
    obstacle: str | None = None,
) -> str:
    """Return the sentence.

    Args:
        condition: Condition number of the matrix the layer sees.
        rate_limit: 2 / lambda_max, the largest stable step of gradient descent on ``MSELoss()``.
        steps_needed: Steps of gradient descent, at 0.9 of that limit, until ``EXCESS`` is left.
        excess_at_zero: Excess loss of zero weights, which ``EXCESS`` is relative to.
        methods: The rows of the optimizers, without the direct methods.
        rounding: The dtype that was trained in, and the excess loss below which that dtype rounds.
        obstacle: Why no optimizer could be run; None where they were.

    Example:
        >>> print(cause(6.7e8, 1.2e-7, 3e17, 1.0, []))  # doctest: +NORMALIZE_WHITESPACE
        Condition 6.7e8: SGD is stable only below lr 1.2e-7 (MSELoss, mean) and would need about 3e17 steps to
        come within 1e-6 of the optimum.
    """
    opening = f"Condition {short(condition)}: "
    if obstacle is not None:
        return f"{opening}no optimizer was run: {obstacle}."
    goal = EXCESS * excess_at_zero
    arrived = [method.name for method in methods if method.excess_loss <= goal]
    forecast = opening + _forecast(rate_limit, steps_needed, methods, everyone=len(arrived) == len(methods))
    if not methods or excess_at_zero == 0:
        return forecast
    why = "" if steps_needed > _PATIENT else _what_stopped_them(goal, methods, *rounding)
    return f"{forecast} {_count(arrived, len(methods))}{why}."


def _forecast(rate_limit: float, steps_needed: float, methods: Sequence[MethodResult], everyone: bool) -> str:
    if steps_needed == 0:
        return "zero weights are as good as the optimum already."
    if steps_needed <= _PATIENT:
        number = f"about {short(steps_needed)} steps" if steps_needed != 1 else "1 step"
        return (
            f"SGD is stable below lr {short(rate_limit)} (MSELoss, mean) and needs only {number} "
            f"to come within {short(EXCESS)} of the optimum"
            + ("; any of these methods gets there." if everyone else " in exact arithmetic.")
        )
    limit = f"SGD is stable only below lr {short(rate_limit)} (MSELoss, mean) and would "
    if not math.isfinite(steps_needed):
        return f"{limit}never come within {short(EXCESS)} of the optimum in float64."
    speed = ""
    for method in methods:
        if method.name == "sgd" and method.steps:
            speed = f", {duration(steps_needed * method.seconds / method.steps)} at the speed measured here,"
    return f"{limit}need about {short(steps_needed)} steps{speed} to come within {short(EXCESS)} of the optimum."


def _count(arrived: Sequence[str], number: int) -> str:
    """Say how many came that close.

    Example:
        >>> _count([], 7), _count(["rls"], 7)
        ('None of the 7 optimizers came that close', 'Of the 7 optimizers only rls came that close')
    """
    if number == 1:
        return "The optimizer came that close" if arrived else "The optimizer did not come that close"
    if len(arrived) == number:
        return f"All {number} optimizers came that close"
    if len(arrived) == 1:
        return f"Of the {number} optimizers only {arrived[0]} came that close"
    return f"{len(arrived) or 'None'} of the {number} optimizers came that close"


def _what_stopped_them(goal: float, methods: Sequence[MethodResult], dtype: str, rounding_floor: float) -> str:
    """Return why an easy problem was not solved by all: the dtype, the budget, or what each row says."""
    late = [method for method in methods if method.excess_loss > goal]
    if not late:
        return ""
    if rounding_floor > goal:
        return f": {dtype} rounds at an excess of {short(rounding_floor)}, and that close is {short(goal)}"
    if any(method.stopped_because == INTERRUPTED for method in late):
        return ": the training was interrupted"
    if all(method.stopped_because.startswith(TIME_IS_UP) for method in late):
        return ": the budget ended first"
    return ": the rows say why each one stopped"
