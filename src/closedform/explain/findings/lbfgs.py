"""LBFGS that ends short of the goal: by its tolerances, in narrow arithmetic, on batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from closedform.explain.case import Case
from closedform.explain.course import Course
from closedform.explain.finding import Finding, Severity
from closedform.explain.findings.remedies import closed_form
from closedform.explain.findings.step import severity_of
from closedform.explain.rehearsal import Rehearsal, iterations_of
from closedform.explain.wording import plural, short

__all__ = ["lbfgs_stopped"]

#: Times that the losses of the last steps have to be apart for a range to be said and not an end.
_APART = 3.0


def lbfgs_stopped(case: Case) -> Finding | None:
    """LBFGS that ends by its absolute tolerances or its 20 iterations, short of the goal."""
    setting, training = case.setting, case.training
    optimizer, course = setting.optimizer, training.course
    run = training.rehearsal if optimizer is not None and optimizer.kind == "lbfgs" else None
    if optimizer is None or run is None or course is None or training.reaches_goal is True:
        return None
    if not setting.full_batch:
        return None if setting.climbs or setting.broadcasts else _lbfgs_on_batches(case, course)

    narrow = training.stage.narrow
    left = float(training.rehearsed_excess[-1])
    if left <= max(training.goal_excess, 1e-14 * case.landscape.spectrum.optimal_loss):
        return None if narrow is None else _lbfgs_in_float32(case, narrow)

    group = optimizer.settings
    calls = int(run.steps[-1])
    iterations = iterations_of(run) - optimizer.iterations
    gradient = _largest_gradient(case, run.weight, run.bias) * setting.loss_factor
    share = training.share(left)
    flat = gradient <= group["tolerance_grad"]
    # Calls that were not rehearsed may still bring it there, unless a tolerance ends each of them at once.
    unfinished = not flat and not training.rehearsed_in_full and setting.steps is not None and not _same_as_before(run)
    cause = _ending(case, flat=flat, unfinished=unfinished, gradient=gradient, iterations=iterations, calls=calls)
    certain = not unfinished or training.reaches_goal is False
    return Finding(
        name="lbfgs_stopped",
        severity=Severity.WARNING if unfinished or training.rounding_decides else Severity.ERROR,
        title=f"LBFGS is short of the minimum after {calls:,} of its {setting.steps:,} calls of step()"
        if unfinished
        else f"LBFGS {'may stop' if training.rounding_decides else 'stops'} short of the minimum",
        evidence={
            "excess_loss_left": left,
            "share_left": share,
            "largest_gradient": gradient,
            "tolerance_grad": float(group["tolerance_grad"]),
            "tolerance_change": float(group["tolerance_change"]),
            "iterations": float(iterations),
            "calls": float(calls),
            "excess_loss_expected": course.left,
        },
        consequence=(
            f"Rehearsed on these data for {plural(calls, 'call')} of step(), it leaves {short(share)} of "
            f"{training.share_of}: {cause}."
            + (f" {_expected(case, course, certain)}" if unfinished else "")
            + (" In float32 it goes another way: rounding decides where it stops." if training.rounding_decides else "")
        ),
        remedy=(
            "optimizer = torch.optim.LBFGS(\n"
            "    model.parameters(), max_iter=1000, tolerance_grad=0, tolerance_change=0,\n"
            '    line_search_fn="strong_wolfe",\n)\n'
            "# or at once:\n" + closed_form(case)
        ),
        excess_once_mended=0.0,
    )


def _lbfgs_on_batches(case: Case, course: Course) -> Finding | None:
    """LBFGS whose batches change from one call to the next, while it takes all gradients for those of one function."""
    training, setting, optimizer = case.training, case.setting, case.setting.optimizer
    if optimizer is None or course.left <= training.goal_excess:
        return None

    certain = training.reaches_goal is False
    ends = "it grows beyond float64"
    if math.isfinite(course.left):
        share = short(training.share(course.left))
        ends = f"it ends {short(course.left)} above the minimum, {share} of {training.share_of}"
        if course.most > _APART * course.least:
            ends = f"it jumps between {short(course.least)} and {short(course.most)} above the minimum to the end"
    comes = "does not come" if certain else "may not come"
    return Finding(
        name="lbfgs_stopped",
        severity=severity_of(case, course.left) if certain else Severity.WARNING,
        title=f"LBFGS on batches of {setting.batch_size} {comes} to the minimum",
        evidence={
            "excess_loss_left": course.left,
            "share_left": training.share(course.left),
            "batch_size": float(setting.batch_size or setting.table.n_rows),
        },
        consequence=(
            f"Each call of step() goes for the minimum of the batch it sees, and takes differences of gradients from "
            f"two batches for curvature. {course.known[0].upper()}{course.known[1:]}, {ends}."
        ),
        remedy="# feed LBFGS all rows in every step:\n"
        "optimizer = torch.optim.LBFGS(\n"
        "    model.parameters(), max_iter=1000, tolerance_grad=0, tolerance_change=0,\n"
        '    line_search_fn="strong_wolfe",\n)\n'
        "# or at once:\n" + closed_form(case),
        excess_once_mended=0.0,
    )


def _ending(case: Case, *, flat: bool, unfinished: bool, gradient: float, iterations: int, calls: int) -> str:
    """Say what ended LBFGS, or each of its calls."""
    training, optimizer = case.training, case.setting.optimizer
    group: Mapping[str, Any] = {} if optimizer is None else optimizer.settings
    if flat:
        return (
            f"its gradient of {short(gradient)} is below tolerance_grad={group['tolerance_grad']:g}, which is absolute"
        )
    if unfinished or iterations >= calls * group["max_iter"]:
        return f"it made {plural(iterations, 'iteration')}, max_iter={group['max_iter']} in each call of step()"
    if group["line_search_fn"] is None and float(training.rehearsed_excess[-1]) > training.start_excess:
        return "without a line search its step of length lr went uphill"
    return (
        f"its last step changed weights or loss by less than tolerance_change={group['tolerance_change']:g}, "
        "which is absolute"
    )


def _expected(case: Case, course: Course, certain: bool) -> str:
    training = case.training
    sure = "" if certain else ", which is not certain to be short of the goal"
    return f"{course.known[0].upper()}{course.known[1:]}, it leaves about {short(training.share(course.left))}{sure}."


def _same_as_before(run: Rehearsal) -> bool:
    """Whether the last calls of ``step()`` changed nothing."""
    return len(run.path) > 2 and bool(torch.equal(run.path[-1], run.path[-2]))


def _lbfgs_in_float32(case: Case, narrow: Rehearsal) -> Finding | None:
    """LBFGS that comes to the goal in float64 and, rehearsed again in float32, does not."""
    training, precision = case.training, case.setting.precision
    left = float(training.stage.excess_of(narrow)[-1])
    if training.seen_in_float32:
        return None

    stops = left > training.goal_excess
    return Finding(
        name="lbfgs_stopped",
        severity=Severity.WARNING,
        title=f"LBFGS in {precision} {'stops' if stops else 'may stop'} at the last digits of the loss",
        evidence={"excess_loss_left": left, "share_left": training.share(left), "eps": precision.eps},
        consequence=(
            f"Rehearsed in float64 it comes within {short(case.setting.goal)} of the minimum; rehearsed in float32 it "
            f"leaves {short(training.share(left))} of {training.share_of}"
            + (", because its line search compares " if stops else ", but near there its line search compares ")
            + "losses that differ by less than their rounding."
        ),
        remedy="model, X, Y = model.double(), X.double(), Y.double()\n"
        "optimizer = torch.optim.LBFGS(model.parameters(), max_iter=1000, tolerance_grad=0, tolerance_change=0)\n"
        "# or at once, in float64 inside:\n" + closed_form(case),
        excess_once_mended=0.0,
    )


def _largest_gradient(case: Case, weight: Tensor, bias: Tensor | None) -> float:
    """Largest component of the gradient of ``MSELoss()``."""
    triangle = case.landscape.triangle
    if triangle is None:
        return float("nan")
    whole = weight.T if bias is None else torch.cat([bias.unsqueeze(0), weight.T])
    return (
        float((triangle.R.T @ (triangle.R @ whole - triangle.C)).abs().max())
        * 2
        / (triangle.weight_sum * triangle.targets)
    )
