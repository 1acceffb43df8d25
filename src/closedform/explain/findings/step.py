"""The step: learning rates above the limit or starved, schedules that end early, directions that need more steps."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from closedform.explain.case import Case
from closedform.explain.course import FEEDBACK
from closedform.explain.finding import Finding, Severity
from closedform.explain.findings.remedies import closed_form, rounded_down, sgd_code, stable_rate
from closedform.explain.forecasts import Forecast
from closedform.explain.training import SAFETY
from closedform.explain.wording import columns_text, count, plural, short, steps_text
from closedform.numerics.rank import columns_involved

__all__ = [
    "VISIBLE",
    "climbs",
    "lr_above_limit",
    "lr_starved",
    "more_steps_needed",
    "scheduler_starves",
    "severity_of",
    "shortfall",
]

#: A learning rate below this share of the largest stable one leaves speed on the table.
_STARVED = 0.1
#: A direction counts as slow where it holds at least this share of what is left.
_SHARE = 0.01
#: Excess losses below this share of the one at the start nobody sees in a plot, and are no ERROR.
VISIBLE = 1e-4
#: A loss that grows this much on the way is worth a warning, though the schedule brings it down again.
_BUMP = 100.0
#: Growth per step that differs from 1 by less than this is none.
_AT_THE_LIMIT = 1e-9


def climbs(case: Case) -> Finding | None:
    """Training that makes the squared error larger."""
    setting, training = case.setting, case.training
    optimizer = setting.optimizer
    if not setting.climbs or optimizer is None:
        return None

    largest = float(case.landscape.spectrum.eigenvalues[0]) * setting.loss_factor
    if largest == 0:  # flat everywhere: there is no uphill
        return None
    what = "maximize=True" if optimizer.maximizes else "the criterion is minus a squared error"
    growth = 1 + optimizer.lr * largest
    pace = f" by {growth:.4g} a step" if optimizer.kind == "sgd" and not optimizer.momentum else ""
    kept = {key: value for key, value in optimizer.settings.items() if key in ("lr", "momentum") and value}
    if optimizer.kind == "sgd" and not setting.full_batch:
        kept["lr"] = min(optimizer.lr, rounded_down(stable_rate(case, training.own_limit) / case.setting.batch_factor))
    keep = ", ".join(f"{key}={value!r}" for key, value in kept.items())

    return Finding(
        name="climbs",
        severity=Severity.ERROR,
        title=f"The run climbs: {what}",
        evidence={"lr": optimizer.lr, "growth_per_step": growth, "excess_loss_at_start": training.start_excess},
        consequence=(
            f"Every step goes uphill, and the error along the steepest direction grows{pace}: the run leaves the "
            "minimum for infinity."
        ),
        remedy=(
            f"optimizer = torch.optim.{optimizer.name}(model.parameters(), {keep})   # without maximize"
            if optimizer.maximizes
            else "criterion = torch.nn.MSELoss()   # without the minus sign"
        ),
        excess_once_mended=_descending(case),
    )


def _descending(case: Case) -> float:
    """Excess loss at the end, were the sign right; nan where the optimizer has no closed form."""
    setting, optimizer = case.setting, case.setting.optimizer
    if optimizer is None or optimizer.kind != "sgd" or optimizer.no_closed_form:
        return math.nan
    run = case.training.predict(
        lr=optimizer.lr * setting.loss_factor,
        momentum=optimizer.momentum,
        nesterov=optimizer.nesterov,
        steps=[setting.patience],
    )
    return float(run.excess[0])


def lr_above_limit(case: Case) -> Finding | None:
    """SGD with a learning rate at or above the largest stable one."""
    run = case.training.forecast
    if run is None:
        return _schedule_above_limit(case)
    if run.lr < run.limit * (1 - _AT_THE_LIMIT):
        return None

    factor = case.setting.batch_factor
    limit, lr = run.limit / factor, run.lr / factor
    growth = run.descent.growth(float(run.step_factors[0]))
    largest = float(case.landscape.spectrum.eigenvalues[0]) * factor
    slow = "" if growth > 1.01 else ", slowly at first"
    at_limit = growth < 1 + _AT_THE_LIMIT
    safe = stable_rate(case, run.limit)
    mended = case.training.predict(
        lr=safe, momentum=run.momentum, nesterov=run.nesterov, dampening=run.dampening, steps=[case.setting.patience]
    )

    return Finding(
        name="lr_above_limit",
        severity=Severity.ERROR,
        title=f"lr={lr:.6g} is {'at' if at_limit else 'above'} the largest stable step, {limit:.6g}",
        evidence={
            "lr": lr,
            "limit": limit,
            "ratio": lr / limit,
            "growth_per_step": growth,
            "largest_eigenvalue": largest,
        },
        consequence=(
            "The error along the steepest direction keeps its size from step to step: the run does not converge."
            if at_limit
            else f"The error along the steepest direction grows by {growth:.4g} a step{slow}: the run diverges."
        ),
        remedy=sgd_code(case, safe / factor, run.momentum, run.nesterov, run.dampening)
        + "\n# or at once:\n"
        + closed_form(case),
        excess_once_mended=float(mended.excess[0]),
    )


def _schedule_above_limit(case: Case) -> Finding | None:
    """A schedule that takes the learning rate above the limit for long enough to be felt."""
    training, setting = case.training, case.setting
    run, optimizer = training.scheduled, setting.optimizer
    if run is None or optimizer is None or not run.above:
        return None

    reached = run.left <= training.goal_excess
    if run.peak <= (_BUMP if reached else 2) * training.start_excess and (reached or run.left < training.start_excess):
        return None

    factor, exact = setting.loss_factor, training.scheduled_exactly
    limit = run.highest_lr / run.highest_share
    share = "beyond float64" if math.isinf(run.peak) else f"{short(training.share(run.peak))} times {training.share_of}"
    # Out of nothing but rounding it grows in some runs and not in others, which come to rest to the last digit.
    by_chance = exact is not None and exact.left <= training.goal_excess

    return Finding(
        name="lr_above_limit",
        severity=Severity.WARNING if reached or by_chance else Severity.ERROR,
        title=(
            f"The schedule takes lr to {run.highest_lr / factor:.6g}, above the largest stable step, "
            f"{limit / factor:.6g}"
        ),
        evidence={
            "lr": run.highest_lr / factor,
            "limit": limit / factor,
            "ratio": run.highest_share,
            "steps_above": float(run.above),
            "peak_excess_loss": run.peak,
            "excess_loss_left": run.left,
        },
        consequence=(
            f"It stays there for {plural(run.above, 'step')} of {setting.patience_text}"
            + (", and has come to the minimum before: out of rounding " if by_chance else ": ")
            + f"the excess loss {'may grow' if by_chance else 'grows'} to {share}"
            + (f" and {'end' if by_chance else 'ends'} at {short(run.left)}." if math.isfinite(run.left) else "")
            + ("" if math.isfinite(run.left) else "." if by_chance else ": the run diverges.")
            + (" Whether it does is decided by the last digits of the weights." if by_chance else "")
        ),
        remedy="# a peak below the limit, with the same schedule around it:\n"
        + sgd_code(case, SAFETY * limit / factor, optimizer.momentum, optimizer.nesterov, optimizer.dampening),
    )


def lr_starved(case: Case) -> Finding | None:
    """SGD with a learning rate far below the largest stable one, where that costs the goal."""
    run, setting, training = case.training.forecast, case.setting, case.training
    if run is None or not run.stable or not setting.full_batch or run.lr >= _STARVED * run.limit:
        return None
    # Of a run that goes on with momentum only its rehearsal is told.
    if training.warm:
        return None

    goal = _goal(case, run)
    needed = run.steps_to(goal)
    if needed <= setting.patience or training.start_excess <= training.goal_excess:
        return None

    larger = _with_lr(case, run, SAFETY * run.limit)
    with_larger = larger.steps_to(goal)
    enough = with_larger <= setting.patience
    factor = setting.loss_factor
    outlook = (
        f"at lr={short(larger.lr / factor)} they would take {count(with_larger)}."
        if enough
        else f"at lr={short(larger.lr / factor)} it would be {count(with_larger)}, which is still too many."
    )

    return Finding(
        name="lr_starved",
        severity=severity_of(case, float(run.excess_at([setting.patience]))) if enough else Severity.WARNING,
        title=f"lr={run.lr / factor:.6g} is {count(run.limit / run.lr)} times smaller than the largest stable step"
        if run.lr > 0
        else "lr=0 moves nothing",
        evidence={
            "lr": run.lr / factor,
            "limit": run.limit / factor,
            "ratio": run.lr / run.limit,
            "steps_needed": needed,
            "steps_needed_at_larger_lr": with_larger,
            "steps_given": float(setting.patience),
        },
        consequence=f"To the goal it takes {count(needed)} steps at this lr, of {setting.patience_text}; {outlook}",
        remedy=sgd_code(case, SAFETY * run.limit / factor, run.momentum, run.nesterov, run.dampening),
        excess_once_mended=float(larger.excess[0]),
    )


def severity_of(case: Case, left: float) -> Severity:
    """ERROR for what can be seen in a plot of the loss; WARNING below."""
    training = case.training
    optimal = case.landscape.spectrum.optimal_loss
    seen = training.share(left) >= VISIBLE and left >= VISIBLE * optimal
    return Severity.ERROR if seen else Severity.WARNING


def _goal(case: Case, run: Forecast) -> float:
    """The excess loss to come to; weight decay keeps a run above it, and there the end of the run is meant."""
    return max(case.training.goal_excess, run.decay_excess * (1 + 1e-6) if run.weight_decay else 0.0)


def _with_lr(case: Case, run: Forecast, lr: float) -> Forecast:
    return case.training.predict(
        lr=lr,
        momentum=run.momentum,
        nesterov=run.nesterov,
        weight_decay=run.weight_decay,
        dampening=run.dampening,
        steps=[case.setting.patience],
    )


def scheduler_starves(case: Case) -> Finding | None:
    """A schedule whose learning rates add up to too little, where a constant one would do."""
    training, setting = case.training, case.setting
    run, optimizer = training.scheduled, setting.optimizer
    if run is None or optimizer is None or run.above:
        return None

    rates, factor = training.rates, setting.loss_factor
    largest, last = float(rates.max()), float(rates[-1])
    kept = training.predict(
        lr=largest, momentum=optimizer.momentum, nesterov=optimizer.nesterov, steps=[setting.patience]
    )
    reached, constant = run.left, float(kept.excess[0])
    if reached <= training.goal_excess or not kept.stable or constant > 0.1 * reached or last >= largest:
        return None

    beyond = last * (setting.patience - rates.numel())
    travelled = (float(rates.sum()) + beyond) / (largest * setting.patience)
    enough = constant <= training.goal_excess

    return Finding(
        name="scheduler_starves",
        severity=severity_of(case, reached) if enough else Severity.WARNING,
        title=f"The schedule takes the learning rate down to {short(last / factor)} too early",
        evidence={
            "excess_loss": reached,
            "excess_loss_at_constant_lr": constant,
            "goal_excess_loss": training.goal_excess,
            "share_of_constant_lr": travelled,
            "last_lr": last / factor,
        },
        consequence=(
            f"Its steps add up to {short(100 * travelled)}% of those of a constant lr. It ends at an excess loss of "
            f"{short(reached)}; with lr={largest / factor:.3g} kept it would be {short(constant)}."
        ),
        remedy="# the full batch has no noise for a schedule to average out: leave it away\n"
        + sgd_code(case, largest / factor, optimizer.momentum, optimizer.nesterov),
        excess_once_mended=constant,
    )


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
    if own is not None and own.lr >= own.limit * (1 - _AT_THE_LIMIT):
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
    best = training.best_descent if run.momentum == 0 else _with_lr(case, run, SAFETY * run.limit)
    goal = _goal(case, run)
    needed = run.steps_to(goal)
    if needed <= setting.patience or (run.lr < _STARVED * run.limit and best.steps_to(goal) <= setting.patience):
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
