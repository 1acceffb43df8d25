"""The sentence over a comparison: what the diagnosis forecasts, and who came to the optimum."""

from __future__ import annotations

import math
from collections.abc import Sequence

from closedform.comparison.methods import MethodResult
from closedform.comparison.races import INTERRUPTED, TIME_IS_UP
from closedform.explain.case import Case
from closedform.words.numbers import duration, short

__all__ = ["headline"]

#: Steps that any of the optimizers makes in seconds.
_PATIENT = 1e5


def headline(case: Case, methods: Sequence[MethodResult], *, rounding_floor: float = 0.0) -> str:
    """Return the sentence.

    Args:
        case: What is diagnosed of the same rows: condition, step limit, steps, goal and what keeps runs from starting.
        methods: The rows of the optimizers, without the direct methods.
        rounding_floor: The excess loss below which the dtype that was trained in rounds.

    Example:
        >>> from closedform.explain.entry import diagnose
        >>> print(headline(diagnose([[1e3, 0.0], [0.0, 1.0]], [1e3, 1e3]).case, []))  # doctest: +NORMALIZE_WHITESPACE
        Condition 1000: SGD is stable only below lr 2e-6 (MSELoss, mean) and would need about 3.6e6 steps to come
        within 1e-6 of the optimum.
    """
    training, goal = case.training, case.goal_excess
    opening = f"Condition {short(case.spectrum.condition)}: "
    if training.obstacle is not None:
        return f"{opening}no optimizer was run: {training.obstacle}."
    arrived = [method.name for method in methods if method.excess_loss <= goal]
    forecast = opening + _forecast(case, methods, everyone=len(arrived) == len(methods))
    if not methods or case.spectrum.excess_at_zero == 0:
        return forecast
    dtype = str(case.setting.precision.dtype).removeprefix("torch.")
    why = "" if training.best_steps_from_zero > _PATIENT else _what_stopped_them(goal, methods, dtype, rounding_floor)
    return f"{forecast} {_count(arrived, len(methods))}{why}."


def _forecast(case: Case, methods: Sequence[MethodResult], everyone: bool) -> str:
    rate_limit, steps_needed = case.spectrum.learning_rate_limit, case.training.best_steps_from_zero
    goal = short(case.setting.goal)
    if steps_needed == 0:
        return "zero weights are as good as the optimum already."
    if steps_needed <= _PATIENT:
        number = f"about {short(steps_needed)} steps" if steps_needed != 1 else "1 step"
        return (
            f"SGD is stable below lr {short(rate_limit)} (MSELoss, mean) and needs only {number} "
            f"to come within {goal} of the optimum"
            + ("; any of these methods gets there." if everyone else " in exact arithmetic.")
        )
    limit = f"SGD is stable only below lr {short(rate_limit)} (MSELoss, mean) and would "
    if not math.isfinite(steps_needed):
        return f"{limit}never come within {goal} of the optimum in float64."
    speed = ""
    for method in methods:
        if method.name == "sgd" and method.steps:
            speed = f", {duration(steps_needed * method.seconds / method.steps)} at the speed measured here,"
    return f"{limit}need about {short(steps_needed)} steps{speed} to come within {goal} of the optimum."


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
