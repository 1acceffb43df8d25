"""What is left when the steps are over: directions that need more of them."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from closedform.explain.case import Case
from closedform.explain.course import FEEDBACK
from closedform.explain.finding import Finding, Severity
from closedform.explain.findings.remedies import closed_form
from closedform.explain.findings.step import AT_THE_LIMIT, STARVED, goal_of, severity_of, with_lr
from closedform.explain.training import SAFETY
from closedform.explain.wording import columns_text, plural, short, steps_text
from closedform.numerics.rank import columns_involved

__all__ = ["more_steps_needed", "shortfall"]

#: A direction counts as slow where it holds at least this share of what is left.
_SHARE = 0.01


def more_steps_needed(case: Case) -> Finding | None:
    """Directions whose error is still there after the steps that were given, for runs with a forecast."""
    training, setting = case.training, case.setting
    optimizer = setting.optimizer
    if not setting.squared or case.landscape.spectrum.rank == 0 or training.start_excess <= training.goal_excess:
        return None
    if setting.climbs or setting.broadcasts or (optimizer is not None and optimizer.kind in ("lbfgs", "adam")):
        return None

    if training.warm:
        return _rehearsed_shortfall(case)
    own = training.forecast
    if own is not None and own.lr >= own.limit * (1 - AT_THE_LIMIT):
        return None
    if training.batches is not None:
        return _batch_shortfall(case)
    if training.scheduled_batches is not None:
        batched = training.scheduled_batches
        mean = batched.mean.left
        if batched.left <= training.goal_excess or not float(batched.noise[-1]) < mean < training.start_excess:
            return None
        return shortfall(case, "mini-batch SGD under its schedule", math.nan, batched.mean.along, batched.left)
    if training.scheduled is not None:
        left = training.scheduled.left
        if left <= training.goal_excess or not math.isfinite(left) or left > training.start_excess:
            return None
        return shortfall(case, "SGD under its schedule", math.nan, training.scheduled.along, left)
    if optimizer is not None and (training.forecast is None or not setting.full_batch):
        return _rehearsed_shortfall(case)

    run = training.best_descent if training.forecast is None else training.forecast
    best = training.best_descent if run.momentum == 0 else with_lr(case, run, SAFETY * run.limit)
    goal = goal_of(case, run)
    needed = run.steps_to(goal)
    if needed <= setting.patience or (run.lr < STARVED * run.limit and best.steps_to(goal) <= setting.patience):
        return None

    name = f"{'momentum' if run.momentum else 'SGD'} at lr={run.lr / setting.loss_factor:.4g}"
    if run is not training.forecast:
        name = f"gradient descent at lr={short(run.lr / setting.loss_factor)}, {SAFETY:g} of the largest stable one,"
    left = float(run.excess_at([setting.patience]))
    found = shortfall(case, name, needed, run.excess_along(setting.patience), left)

    # With steps enough the weight decay is still there.
    return replace(found, excess_once_mended=run.decay_excess)


def _batch_shortfall(case: Case) -> Finding | None:
    """Mini-batches that are still on their way when the steps are over, to the goal or to their noise floor."""
    batches, training, setting = case.training.batches, case.training, case.setting
    if batches is None or not batches.stable:
        return None
    expected = batches.excess_at(setting.patience)
    goal = max(training.goal_excess, 2 * batches.noise_floor + batches.mean.decay_excess)
    if expected <= goal or expected >= training.start_excess:
        return None
    needed = batches.steps_to(goal)
    along = batches.mean.excess_along(setting.patience)
    name = f"mini-batch SGD at lr={short(batches.lr / case.setting.batch_factor)}"
    floor = batches.noise_floor if batches.noise_floor > training.goal_excess else math.nan
    # With steps enough the noise is still there.
    kept = max(batches.noise_floor, training.goal_excess)
    if expected <= FEEDBACK * float(along.sum()):
        return replace(shortfall(case, name, needed, along, expected, floor), excess_once_mended=kept)
    # What is slow is noise that feeds on itself, which one pass over the rows after another has less of.
    found = shortfall(case, f"{name}, its rows drawn anew for each batch,", needed, along, expected, floor)
    severity = max(found.severity, Severity.WARNING, key=lambda severity: severity.rank)
    return replace(found, severity=severity, excess_once_mended=kept)


def _rehearsed_shortfall(case: Case) -> Finding | None:
    """SGD without a closed form: what a rehearsal leaves."""
    training, setting = case.training, case.setting
    run, optimizer, course = training.rehearsal, setting.optimizer, training.course
    if run is None or optimizer is None or course is None or training.reaches_goal is not False:
        return None
    # The loss itself is known to its last digits only.
    if course.left <= max(training.goal_excess, 1e-14 * case.landscape.spectrum.optimal_loss):
        return None
    # Batches take a run that starts at the minimum up to their noise, which is no divergence.
    scale = 0.0 if setting.full_batch else case.landscape.reference_excess
    if course.left > max(training.start_excess, scale):
        return _rehearsed_divergence(case, course.left)
    along = case.landscape.spectrum.gaps(run.end)
    name = f"{optimizer.name} at lr={optimizer.lr:.3g}, {course.known},"
    found = shortfall(case, name, math.nan, along, course.left)
    if setting.full_batch:
        return found
    return replace(found, title=f"{optimizer.name} is short of the minimum after {setting.patience_text}")


def _rehearsed_divergence(case: Case, left: float) -> Finding | None:
    optimizer, training = case.setting.optimizer, case.training
    if optimizer is None or training.course is None:
        return None
    end = "beyond float64" if math.isinf(left) else short(left)
    return Finding(
        name="diverges",
        severity=Severity.ERROR,
        title=f"{optimizer.name} at lr={optimizer.lr:.3g} diverges",
        evidence={"lr": optimizer.lr, "excess_loss_left": left, "excess_loss_at_start": training.start_excess},
        consequence=(
            f"{training.course.known[0].upper()}{training.course.known[1:]}, the excess loss goes from "
            f"{short(training.start_excess)} to {end}."
        ),
        remedy="# a smaller learning rate, or at once:\n" + closed_form(case),
    )


def shortfall(case: Case, name: str, needed: float, along: Tensor, left: float, floor: float = math.nan) -> Finding:
    """Say which directions are left over, and how much.

    Args:
        case: The case.
        name: The run, for the sentence.
        needed: Steps that it needs; nan where that is not known.
        along: Excess loss that is left along each direction.
        left: All of it.
        floor: Noise floor above the goal, or nan.
    """
    spectrum, setting, training = case.landscape.spectrum, case.setting, case.training
    slow = torch.nonzero(along >= _SHARE * float(along.sum())).reshape(-1)
    weight = along[slow].sqrt().unsqueeze(1) * spectrum.directions[slow]
    columns = [i - int(setting.bias) for i in columns_involved(weight)]
    limits = {limit.name: limit.steps for limit in training.limits}
    share = training.share(left)
    spread = (
        "spread over most columns"
        if len(columns) > 0.5 * spectrum.directions.shape[1] > 8
        else ("along " + columns_text(columns, setting.names))
    )
    evidence = {
        "condition": spectrum.condition,
        "steps_needed": needed,
        "steps_given": float(setting.patience),
        "excess_loss_left": left,
        "share_left": share,
        "slow_directions": float(slow.numel()),
        "conjugate_gradient_steps": limits.get("conjugate gradients", math.nan),
        "best_momentum_steps": limits.get("heavy ball", math.nan),
        "first_slow_column": float(columns[0]) if columns else math.nan,
    }
    if math.isnan(needed):
        del evidence["steps_needed"]
    least = "at least " if not spectrum.complete else ""
    given = "the steps given" if setting.steps is not None else f"{setting.patience:,} steps"
    fastest = limits.get("heavy ball", math.inf)
    momentum = (
        f"The best momentum would take {steps_text(fastest)}."
        if math.isfinite(fastest)
        else "The best momentum never gets there."
    )

    return Finding(
        name="more_steps_needed",
        severity=severity_of(case, left),
        title=f"Condition {least}{short(spectrum.condition)}: {plural(len(slow), 'direction')} too slow for {given}",
        evidence=evidence,
        consequence=(
            f"{_need(case, name, needed, floor)}. It "
            # Momentum may have swung beyond the start.
            + (f"leaves {short(share)} of" if share <= 1 else f"ends at {short(share)} times")
            + f" {training.share_of}, {spread}. {momentum}"
        ),
        remedy=closed_form(case),
        excess_once_mended=0.0,
    )


def _need(case: Case, name: str, needed: float, floor: float) -> str:
    setting = case.setting
    goal = f"come within {short(setting.goal)} of the minimum"
    if not math.isnan(floor):
        goal = f"come down to its noise floor, {short(floor)} above the minimum"
    if math.isnan(needed):
        return f"To {goal}, {name} does not come to the goal in {setting.patience_text}"
    if math.isinf(needed):
        return f"To {goal}, {name} never comes to the goal in float64; it has {setting.patience_text}"
    return f"To {goal}, {name} needs {steps_text(needed)} and has {setting.patience_text}"
