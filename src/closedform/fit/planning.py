"""The facts of a problem on this machine, agreed between processes, and the plan that follows from them."""

from __future__ import annotations

from dataclasses import replace

import torch

from closedform.engine import compiled
from closedform.engine.processors import busy_elsewhere, known_processors
from closedform.engine.rates import known_rates, measured_rates
from closedform.engine.threads import team
from closedform.fit.factors import Facts
from closedform.fit.plan import Plan, make_plan
from closedform.fit.problem import Problem
from closedform.fit.request import Request
from closedform.numerics.rank import default_rcond
from closedform.rows import Rows

__all__ = ["plan_ahead", "plan_of"]

#: Seconds of predicted work from which the choice of a method is worth measuring the machine, which takes less.
_WORTH_MEASURING = 1.0


def plan_of(problem: Problem, request: Request) -> tuple[Facts, Plan]:
    """Gather the facts and make the plan, with measured rates where they are worth measuring.

    Args:
        problem: What is solved.
        request: What is asked.

    Raises:
        MethodRefusedError: the method asked for cannot take this problem.
    """
    rows = problem.rows
    facts = _facts(rows, request, positive_rows=problem.scanned.positive_rows, ridge=problem.l2 > 0)
    summed = [dtype for dtype in (torch.float64, torch.float32) if problem.design.has_sums(dtype)]
    facts = _agreed(rows, replace(facts, summed=tuple(str(dtype).removeprefix("torch.") for dtype in summed)))
    plan = make_plan(facts, request.method)
    if plan.seconds > _WORTH_MEASURING:
        facts = _agreed(rows, replace(facts, rates=measured_rates(rows.device)))
        plan = replace(make_plan(facts, request.method), busy=busy_elsewhere())
    return facts, plan


def plan_ahead(rows: Rows, request: Request) -> tuple[Facts, Plan] | None:
    """Return the facts and the plan of one process before a scan; None where they hang on what it finds, or on rates.

    Args:
        rows: The rows.
        request: What is asked.

    Raises:
        MethodRefusedError: as :func:`plan_of`.
    """
    if rows.weight is not None or rows.total is not None:
        return None
    facts = _facts(rows, request, positive_rows=rows.n_rows, ridge=max(request.strengths) > 0)
    plan = make_plan(facts, request.method)
    return (facts, plan) if plan.seconds <= _WORTH_MEASURING else None


def _facts(rows: Rows, request: Request, *, positive_rows: int, ridge: bool) -> Facts:
    """Return the facts that this process knows."""
    n_rows, n_columns, rcond = rows.triangle_of or rows.n_rows, rows.n_features + int(request.bias), request.rcond
    return Facts(
        n_rows=positive_rows,
        n_columns=n_columns,
        n_targets=rows.n_targets,
        bias=request.bias,
        ridge=ridge,
        weighted=rows.weight is not None,
        rcond=default_rcond(n_rows, min(n_rows, n_columns)) if rcond is None else rcond,
        rcond_given=rcond is not None,
        nearest=request.nearest_to is not None,
        in_memory=rows.in_memory,
        bfloat16=rows.in_memory and rows.engine.multiplies_bfloat16,
        row_bytes=float(rows.n_features * rows.x.dtype.itemsize + rows.n_targets * rows.y.dtype.itemsize),
        rates=known_rates(rows.device),
        compiled=compiled.available(),
        threads=team(),
        processors=known_processors(),
    )


def _agreed(rows: Rows, facts: Facts) -> Facts:
    """Return the facts by which all processes decide: those of the first, with what all of them can do."""
    every = rows.walker.each(facts)
    if len(every) == 1:
        return facts
    return replace(
        every[0],
        bfloat16=all(each.bfloat16 for each in every),
        in_memory=all(each.in_memory for each in every),
        compiled=all(each.compiled for each in every),
        summed=tuple(name for name in every[0].summed if all(name in each.summed for each in every)),
    )
