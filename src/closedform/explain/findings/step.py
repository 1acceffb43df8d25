"""The step: learning rates above the limit or starved, schedules that end early, directions that need more steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from closedform.explain.facts import SAFETY, Facts
from closedform.explain.finding import Finding, Severity
from closedform.explain.findings.remedies import closed_form
from closedform.explain.forecasts import Forecast
from closedform.explain.wording import columns_text, count, plural, short, steps_text
from closedform.numerics.rank import columns_involved

__all__ = ["lr_above_limit", "lr_starved", "more_steps_needed", "scheduler_starves"]

# A learning rate below this share of the largest stable one leaves speed on the table.
_STARVED = 0.1
# A direction counts as slow where it holds at least this share of what is left.
_SHARE = 0.01


def lr_above_limit(facts: Facts) -> Finding | None:
    """SGD with a learning rate at or above the largest stable one."""
    run = facts.training.forecast
    if run is None or run.stable:
        return None
    factor = facts.loss_factor
    limit, lr = run.limit / factor, run.lr / factor
    growth = _growth(run)
    largest = float(facts.spectrum.eigenvalues[0]) * factor
    slow = "" if growth > 1.01 else ", slowly at first"
    return Finding(
        name="lr_above_limit",
        severity=Severity.ERROR,
        title=f"lr={lr:.6g} is above the largest stable step, {limit:.6g}",
        evidence={
            "lr": lr,
            "limit": limit,
            "ratio": lr / limit,
            "growth_per_step": growth,
            "largest_eigenvalue": largest,
        },
        consequence=f"The error along the steepest direction grows by {growth:.4g} a step{slow}: the run diverges.",
        remedy=_sgd(facts, SAFETY * run.limit, run) + "\n# or at once:\n" + closed_form(facts),
    )


def _growth(run: Forecast) -> float:
    """Factor by which the fastest growing direction grows in a step, in the end."""
    m = run.momentum
    s = (1 - run.dampening if m else 1.0) * float(run.step_factors[0])
    P = 1 - m + (1 + m if run.nesterov else 1.0) * s
    root = complex(P * P - 4 * s) ** 0.5
    return max(abs(1 - (P + root) / 2), abs(1 - (P - root) / 2))


def _sgd(facts: Facts, lr: float, run: Forecast | None) -> str:
    extra = ""
    if run is not None and run.momentum:
        extra = f", momentum={run.momentum:g}" + (", nesterov=True" if run.nesterov else "")
        extra += f", dampening={run.dampening:g}" if run.dampening else ""
    return f"optimizer = torch.optim.SGD(model.parameters(), lr={lr / facts.loss_factor:.3g}{extra})"


def lr_starved(facts: Facts) -> Finding | None:
    """SGD with a learning rate far below the largest stable one, where that costs the goal."""
    run = facts.training.forecast
    if run is None or not run.stable or not facts.full_batch or run.lr >= _STARVED * run.limit:
        return None
    goal = _goal(facts, run)
    needed = run.steps_to(goal)
    if needed <= facts.patience or facts.start_excess <= facts.goal_excess:
        return None
    larger = _with_lr(facts, run, SAFETY * run.limit)
    with_larger = larger.steps_to(goal)
    enough = with_larger <= facts.patience
    factor = facts.loss_factor
    outlook = (
        f"at lr={short(larger.lr / factor)} they would take {count(with_larger)}."
        if enough
        else f"at lr={short(larger.lr / factor)} it would be {count(with_larger)}, which is still too many."
    )
    return Finding(
        name="lr_starved",
        severity=Severity.ERROR if enough else Severity.WARNING,
        title=f"lr={run.lr / factor:.6g} is {count(run.limit / run.lr)} times smaller than the largest stable step"
        if run.lr > 0
        else "lr=0 moves nothing",
        evidence={
            "lr": run.lr / factor,
            "limit": run.limit / factor,
            "ratio": run.lr / run.limit,
            "steps_needed": needed,
            "steps_needed_at_larger_lr": with_larger,
            "steps_given": float(facts.patience),
        },
        consequence=f"To the goal it takes {count(needed)} steps at this lr, of {facts.patience_text}; {outlook}",
        remedy=_sgd(facts, SAFETY * run.limit, run),
    )


def _goal(facts: Facts, run: Forecast) -> float:
    """The excess loss to come to; weight decay keeps a run above it, and there the end of the run is meant."""
    return max(facts.goal_excess, run.decay_excess * (1 + 1e-6) if run.weight_decay else 0.0)


def _with_lr(facts: Facts, run: Forecast, lr: float) -> Forecast:
    return facts.forecast(
        lr=lr,
        momentum=run.momentum,
        nesterov=run.nesterov,
        weight_decay=run.weight_decay,
        dampening=run.dampening,
        steps=[facts.patience],
    )


def scheduler_starves(facts: Facts) -> Finding | None:
    """A schedule whose learning rates add up to too little, where a constant one would do."""
    left = facts.training.scheduled
    if left is None:
        return None
    rates, factor = facts.training.rates, facts.loss_factor
    largest, last = float(rates.max()), float(rates[-1])
    kept = facts.forecast(lr=largest, steps=[facts.patience])
    reached, constant = float(left.sum()), float(kept.excess[0])
    if reached <= facts.goal_excess or not kept.stable or constant > 0.1 * reached:
        return None
    beyond = last * (facts.patience - rates.numel())
    travelled = (float(rates.sum()) + beyond) / (largest * facts.patience)
    enough = constant <= facts.goal_excess
    return Finding(
        name="scheduler_starves",
        severity=Severity.ERROR if enough else Severity.WARNING,
        title=f"The schedule takes the learning rate down to {short(last / factor)} too early",
        evidence={
            "excess_loss": reached,
            "excess_loss_at_constant_lr": constant,
            "goal_excess_loss": facts.goal_excess,
            "share_of_constant_lr": travelled,
            "last_lr": last / factor,
        },
        consequence=(
            f"Its steps add up to {short(100 * travelled)}% of those of a constant lr. It ends at an excess loss of "
            f"{short(reached)}; with lr={largest / factor:.3g} kept it would be {short(constant)}."
        ),
        remedy="# the full batch has no noise for a schedule to average out: leave it away\n"
        + _sgd(facts, largest, None),
    )


def more_steps_needed(facts: Facts) -> Finding | None:
    """Directions whose error is still there after the steps that were given."""
    training, o = facts.training, facts.optimizer
    if not facts.squared or facts.spectrum.rank == 0 or facts.start_excess <= facts.goal_excess:
        return None
    if o is not None and o.kind == "lbfgs":
        return None
    if training.batches is not None:
        return _batch_shortfall(facts)
    if training.scheduled is not None:
        left = float(training.scheduled.sum())
        if left <= facts.goal_excess:
            return None
        return _shortfall(facts, "SGD under its schedule", math.nan, training.scheduled, left)
    if o is not None and training.forecast is None:
        return _rehearsed_shortfall(facts)
    run = facts.best_descent if training.forecast is None or not training.forecast.stable else training.forecast
    best = facts.best_descent if run.momentum == 0 else _with_lr(facts, run, SAFETY * run.limit)
    goal = _goal(facts, run)
    needed = run.steps_to(goal)
    if needed <= facts.patience or (run.lr < _STARVED * run.limit and best.steps_to(goal) <= facts.patience):
        return None
    name = f"{'momentum' if run.momentum else 'SGD'} at lr={run.lr / facts.loss_factor:.4g}"
    if run is not training.forecast:
        name = f"gradient descent at lr={short(run.lr / facts.loss_factor)}, {SAFETY:g} of the largest stable one,"
    return _shortfall(facts, name, needed, run.excess_along(facts.patience), float(run.excess_at([facts.patience])))


def _batch_shortfall(facts: Facts) -> Finding | None:
    batches = facts.training.batches
    if batches is None or not batches.stable or batches.noise_floor >= facts.goal_excess:
        return None
    needed = batches.steps_to(facts.goal_excess)
    if needed <= facts.patience:
        return None
    left = facts.forecast(lr=batches.lr, steps=[facts.patience])
    along = left.excess_along(facts.patience)
    return _shortfall(facts, f"mini-batch SGD at lr={short(batches.lr)}", needed, along, float(along.sum()))


def _rehearsed_shortfall(facts: Facts) -> Finding | None:
    """For optimizers without a closed form: what a rehearsal of all steps leaves."""
    run, optimizer = facts.training.rehearsal, facts.optimizer
    if run is None or optimizer is None or not facts.training.rehearsed_in_full:
        return None
    left = float(facts.training.rehearsed_excess[-1])
    # The loss itself is known to its last digits only.
    if left <= max(facts.goal_excess, 1e-14 * facts.spectrum.optimal_loss):
        return None
    weights = run.weight.T if run.bias is None else torch.cat([run.bias.unsqueeze(0), run.weight.T])
    along = facts.spectrum.gaps(weights)
    return _shortfall(
        facts, f"{optimizer.name} at lr={optimizer.lr:.3g}, rehearsed on these data,", math.nan, along, left
    )


def _shortfall(facts: Facts, name: str, needed: float, along: Tensor, left: float) -> Finding:
    s = facts.spectrum
    slow = torch.nonzero(along >= _SHARE * float(along.sum())).reshape(-1)
    weight = along[slow].sqrt().unsqueeze(1) * s.directions[slow]
    columns = [i - int(facts.bias) for i in columns_involved(weight)]
    limits = {limit.name: limit.steps for limit in facts.limits}
    share = left / (facts.reference_excess or 1.0)
    need = (
        f"needs {steps_text(needed)} and has {facts.patience_text}"
        if not math.isnan(needed)
        else (f"does not come to the goal in {facts.patience_text}")
    )
    if math.isinf(needed):
        need = f"never comes to the goal in float64; it has {facts.patience_text}"
    spread = (
        "spread over most columns"
        if len(columns) > 0.5 * s.directions.shape[1] > 8
        else ("along " + columns_text(columns, facts.names))
    )
    evidence = {
        "condition": s.condition,
        "steps_needed": needed,
        "steps_given": float(facts.patience),
        "excess_loss_left": left,
        "share_left": share,
        "slow_directions": float(slow.numel()),
        "conjugate_gradient_steps": limits.get("conjugate gradients", math.nan),
        "best_momentum_steps": limits.get("heavy ball", math.nan),
        "first_slow_column": float(columns[0]) if columns else math.nan,
    }
    if math.isnan(needed):
        del evidence["steps_needed"]
    least = "at least " if not s.complete else ""
    given = "the steps given" if facts.steps is not None else f"{facts.patience:,} steps"
    fastest = limits.get("heavy ball", math.inf)
    momentum = (
        f"The best momentum would take {steps_text(fastest)}."
        if math.isfinite(fastest)
        else "The best momentum never gets there."
    )
    return Finding(
        name="more_steps_needed",
        severity=Severity.ERROR,
        title=f"Condition {least}{short(s.condition)}: {plural(len(slow), 'direction')} too slow for {given}",
        evidence=evidence,
        consequence=(
            f"To come within {short(facts.goal)} of the minimum, {name} {need}. It leaves {short(share)} of the "
            "excess loss, "
            f"{spread}. {momentum}"
        ),
        remedy=closed_form(facts),
    )
