"""The step: learning rates above the limit or starved, schedules that end early."""

from __future__ import annotations

import math

from closedform.explain.case import Case
from closedform.explain.finding import Finding, Severity
from closedform.explain.findings.remedies import closed_form, rounded_down, sgd_code, stable_rate
from closedform.explain.forecasts import Forecast
from closedform.explain.training import SAFETY
from closedform.explain.wording import count, plural, short

__all__ = [
    "AT_THE_LIMIT",
    "STARVED",
    "VISIBLE",
    "climbs",
    "goal_of",
    "lr_above_limit",
    "lr_starved",
    "scheduler_starves",
    "severity_of",
    "with_lr",
]

#: A learning rate below this share of the largest stable one leaves speed on the table.
STARVED = 0.1
#: Excess losses below this share of the one at the start nobody sees in a plot, and are no ERROR.
VISIBLE = 1e-4
#: A loss that grows this much on the way is worth a warning, though the schedule brings it down again.
_BUMP = 100.0
#: Growth per step that differs from 1 by less than this is none.
AT_THE_LIMIT = 1e-9


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
    if run.lr < run.limit * (1 - AT_THE_LIMIT):
        return None

    factor = case.setting.batch_factor
    limit, lr = run.limit / factor, run.lr / factor
    growth = run.descent.growth(float(run.step_factors[0]))
    largest = float(case.landscape.spectrum.eigenvalues[0]) * factor
    slow = "" if growth > 1.01 else ", slowly at first"
    at_limit = growth < 1 + AT_THE_LIMIT
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
    if run is None or not run.stable or not setting.full_batch or run.lr >= STARVED * run.limit:
        return None
    # Of a run that goes on with momentum only its rehearsal is told.
    if training.warm:
        return None

    goal = goal_of(case, run)
    needed = run.steps_to(goal)
    if needed <= setting.patience or training.start_excess <= training.goal_excess:
        return None

    larger = with_lr(case, run, SAFETY * run.limit)
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


def goal_of(case: Case, run: Forecast) -> float:
    """The excess loss to come to; weight decay keeps a run above it, and there the end of the run is meant."""
    return max(case.training.goal_excess, run.decay_excess * (1 + 1e-6) if run.weight_decay else 0.0)


def with_lr(case: Case, run: Forecast, lr: float) -> Forecast:
    """Return the same run at another learning rate, forecast to the steps given."""
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
