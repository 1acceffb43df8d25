"""The step: learning rates above the limit or starved, schedules that end early, directions that need more steps."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import torch
from torch import Tensor

from closedform.diagnose.facts import SAFETY, Facts
from closedform.diagnose.finding import Finding, Severity
from closedform.diagnose.findings.remedies import closed_form
from closedform.diagnose.words import columns_text, count, plural, short, steps_text
from closedform.errors import InputError
from closedform.forecast import Forecast
from closedform.numerics.rank import columns_involved

__all__ = ["lr_above_limit", "lr_starved", "more_steps_needed", "scheduler_starves"]

# A learning rate below this share of the largest stable one leaves speed on the table.
_STARVED = 0.1
# A direction counts as slow where it holds at least this share of what is left.
_SHARE = 0.01
# A schedule is followed for so many steps of the scheduler, which is plain Python.
_FOLLOW = 20_000


def lr_above_limit(facts: Facts) -> Finding | None:
    """SGD with a learning rate at or above the largest stable one."""
    run = facts.run
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
    s, m = float(run.step_factors[0]), run.momentum
    lead = 1 + m if run.nesterov else 1.0
    P = 1 - m + lead * s
    root = complex(P * P - 4 * s) ** 0.5
    return max(abs(1 - (P + root) / 2), abs(1 - (P - root) / 2))


def _sgd(facts: Facts, lr: float, run: Forecast | None) -> str:
    extra = ""
    if run is not None and run.momentum:
        extra = f", momentum={run.momentum:g}" + (", nesterov=True" if run.nesterov else "")
    return f"optimizer = torch.optim.SGD(model.parameters(), lr={lr / facts.loss_factor:.3g}{extra})"


def lr_starved(facts: Facts) -> Finding | None:
    """SGD with a learning rate far below the largest stable one, where that costs the goal."""
    run = facts.run
    if run is None or not run.stable or not facts.full_batch or run.lr >= _STARVED * run.limit:
        return None
    needed = facts.run_steps
    if needed <= facts.patience or facts.start_excess <= facts.goal_excess:
        return None
    larger = _with_lr(facts, run, SAFETY * run.limit)
    with_larger = larger.steps_to(facts.goal_excess)
    enough = with_larger <= facts.patience
    factor = facts.loss_factor
    outlook = (
        f"at lr={short(larger.lr / factor)} they would take {count(with_larger)}."
        if enough
        else f"at lr={short(larger.lr / factor)} it would be {steps_text(with_larger)}, which is still too many."
    )
    return Finding(
        name="lr_starved",
        severity=Severity.ERROR if enough else Severity.WARNING,
        title=f"lr={run.lr / factor:.6g} is {count(run.limit / run.lr)} times smaller than the largest stable step",
        evidence={
            "lr": run.lr / factor,
            "limit": run.limit / factor,
            "ratio": run.lr / run.limit,
            "steps_needed": needed,
            "steps_needed_at_larger_lr": with_larger,
            "steps_given": float(facts.patience),
        },
        consequence=f"The goal needs {steps_text(needed)} at this lr, of {facts.patience_text}; {outlook}",
        remedy=_sgd(facts, SAFETY * run.limit, run),
    )


def _with_lr(facts: Facts, run: Forecast, lr: float) -> Forecast:
    return facts.forecast(
        lr=lr, momentum=run.momentum, nesterov=run.nesterov, weight_decay=run.weight_decay, steps=[facts.patience]
    )


def scheduler_starves(facts: Facts) -> Finding | None:
    """A schedule whose learning rates add up to too little, where a constant one would do."""
    run = facts.run
    if (
        facts.scheduler is None
        or run is None
        or not facts.full_batch
        or not run.stable
        or run.momentum
        or run.weight_decay
    ):
        return None
    steps = min(facts.patience, _FOLLOW)
    rates = _schedule(facts.scheduler, steps) * facts.loss_factor
    logs = torch.zeros_like(run.step_factors)
    h = run.step_factors / run.lr
    for lr, times in zip(*(values.tolist() for values in torch.unique(rates, return_counts=True)), strict=True):
        logs = logs + times * (1 - lr * h).abs().log()
    left = facts.start_gaps * torch.exp(2 * logs[: facts.start_gaps.numel()])
    reached, constant = float(left.sum()), float(run.excess_at([steps]))
    # Beyond what was followed the last rate goes on.
    if facts.patience > steps and float(rates[-1]) > 0:
        tail = (1 - float(rates[-1]) * h).abs().log()[: left.numel()]
        reached = float((left * torch.exp(2 * (facts.patience - steps) * tail)).sum())
        constant = float(run.excess_at([facts.patience]))
    if reached <= facts.goal_excess or constant > 0.1 * reached:
        return None
    travelled = float(rates.sum()) / (run.lr * steps)
    enough = constant <= facts.goal_excess
    return Finding(
        name="scheduler_starves",
        severity=Severity.ERROR if enough else Severity.WARNING,
        title=f"The schedule takes the learning rate down to {short(float(rates[-1]) / facts.loss_factor)} too early",
        evidence={
            "excess_loss": reached,
            "excess_loss_at_constant_lr": constant,
            "goal_excess_loss": facts.goal_excess,
            "share_of_constant_lr": travelled,
            "last_lr": float(rates[-1]) / facts.loss_factor,
        },
        consequence=(
            f"Its steps add up to {short(100 * travelled)}% of those of a constant lr. It ends at an excess loss of "
            f"{short(reached)}; with lr={run.lr / facts.loss_factor:.3g} kept it would be {short(constant)}."
        ),
        remedy="# the full batch has no noise for a schedule to average out: leave it away\n"
        + _sgd(facts, run.lr, run),
    )


def _schedule(scheduler: Any, steps: int) -> Tensor:
    """Learning rates of the coming steps, by a copy of the scheduler."""
    with warnings.catch_warnings():
        # The copy is stepped without its optimizer, which torch would warn of.
        warnings.simplefilter("ignore")
        twin = copy.deepcopy(scheduler)
        rates = []
        for _ in range(steps):
            rates.append(float(twin.optimizer.param_groups[0]["lr"]))
            try:
                twin.step()
            except (TypeError, AttributeError) as error:
                raise InputError(
                    f"scheduler: {type(scheduler).__name__} cannot be followed without its metric ({error}); leave "
                    "scheduler= out."
                ) from error
    return torch.tensor(rates, dtype=torch.float64)


def more_steps_needed(facts: Facts) -> Finding | None:
    """Directions whose error is still there after the steps that were given."""
    if not facts.squared or facts.spectrum.rank == 0 or facts.start_excess <= facts.goal_excess:
        return None
    kind = facts.optimizer.kind if facts.optimizer is not None else "sgd"
    if kind in ("adam", "lbfgs", "other"):
        return None if kind == "lbfgs" else _rehearsed_shortfall(facts)
    if facts.batches is not None:
        return _batch_shortfall(facts)
    run = facts.run if facts.run is not None and facts.run.stable else facts.best_descent
    best = facts.best_descent if run.momentum == 0 else _with_lr(facts, run, SAFETY * run.limit)
    goal = max(facts.goal_excess, run.decay_excess * (1 + 1e-6) if run.weight_decay else 0.0)
    needed = run.steps_to(goal)
    if needed <= facts.patience or (run.lr < _STARVED * run.limit and best.steps_to(goal) <= facts.patience):
        return None
    name = f"{'momentum' if run.momentum else 'SGD'} at lr={run.lr / facts.loss_factor:.4g}"
    if run is facts.best_descent and run is not facts.run:
        name = f"gradient descent at its best lr, {short(run.lr / facts.loss_factor)},"
    return _shortfall(facts, name, needed, run.excess_along(facts.patience), float(run.excess_at([facts.patience])))


def _batch_shortfall(facts: Facts) -> Finding | None:
    batches = facts.batches
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
    run, optimizer = facts.rehearsal, facts.optimizer
    if run is None or optimizer is None or not facts.rehearsed_in_full:
        return None
    left = float(facts.rehearsed_excess[-1])
    # The loss itself is known to its last digits only.
    if left <= max(facts.goal_excess, 1e-14 * facts.spectrum.optimal_loss):
        return None
    s, r = facts.spectrum, facts.spectrum.rank
    weights = run.weight.T if run.bias is None else torch.cat([run.bias.unsqueeze(0), run.weight.T])
    gap = s.singular_values[:r].unsqueeze(1) * (s.directions[:r] @ weights) - s.target_components[:r]
    along = gap.square().sum(1) / (s.n_rows * s.n_targets)
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
    return Finding(
        name="more_steps_needed",
        severity=Severity.ERROR,
        title=f"Condition {least}{short(s.condition)}: {plural(len(slow), 'direction')} too slow for the steps given",
        evidence=evidence,
        consequence=(
            f"To come within {short(facts.goal)} of the minimum, {name} {need}. It leaves {short(share)} of the "
            "excess loss, "
            f"{spread}. The best momentum would take {steps_text(limits.get('heavy ball', math.inf))}."
        ),
        remedy=closed_form(facts),
    )
