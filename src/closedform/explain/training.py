"""The user's own run: in closed form, in expectation, under its schedule, or rehearsed on the triangle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from closedform.explain.forecasts import Forecast, MiniBatch
from closedform.explain.rehearsal import Rehearsal, rehearse
from closedform.explain.schedule import excess_under, follow, replay
from closedform.explain.wording import plural

if TYPE_CHECKING:
    from closedform.explain.facts import Facts

__all__ = ["Training"]

# A schedule is followed for so many steps of the scheduler, which is plain Python.
_FOLLOW = 20_000
# A rehearsal inside a diagnosis may take about this long; measured costs of a step and of a product, on one core.
_SECONDS, _STEP, _FLOP = 0.5, 2.5e-4, 2e-10
# Iterations of LBFGS in one call of step(), and calls that are rehearsed where no steps were given.
_LBFGS_ITERATIONS, _LBFGS_CALLS = 20, 20


@final
@dataclass(frozen=True)
class Training:
    """What is known of the run that the user's optimizer makes. Everything is None where it cannot be told so.

    Attributes:
        facts: The fit and the user's setting.
    """

    facts: Facts

    @property
    def no_closed_form(self) -> str:
        """Why the run, if it is one of SGD, is not forecast; empty where it is."""
        f, o = self.facts, self.facts.optimizer
        if o is None or o.kind != "sgd":
            return ""
        if f.scheduler is not None and (o.momentum or o.weight_decay or not f.full_batch):
            return "a schedule is forecast for full batches without momentum and weight decay only"
        return o.no_closed_form

    @property
    def _plain(self) -> bool:
        """Whether it is a run of SGD that has a closed form."""
        f, o = self.facts, self.facts.optimizer
        forecastable = o is not None and o.kind == "sgd" and not o.frozen and not self.no_closed_form and o.lr >= 0
        return forecastable and f.squared and f.spectrum.in_range

    @cached_property
    def forecast(self) -> Forecast | None:
        """The full-batch SGD run at a constant learning rate."""
        f, o = self.facts, self.facts.optimizer
        if o is None or not self._plain or f.scheduler is not None:
            return None
        return f.forecast(
            lr=o.lr * f.loss_factor,
            momentum=o.momentum,
            nesterov=o.nesterov,
            weight_decay=o.weight_decay / f.loss_factor,
            dampening=o.dampening,
            steps=f.patience,
        )

    @cached_property
    def steps_to_goal(self) -> float:
        """Steps of that run to the goal; nan where it has no closed form."""
        return math.nan if self.forecast is None else self.forecast.steps_to(self.facts.goal_excess)

    @cached_property
    def rates(self) -> Tensor:
        """Learning rates of the coming steps on ``MSELoss()``, as the user's scheduler sets them, ``(followed,)``."""
        coming = follow(self.facts.scheduler, min(self.facts.patience, _FOLLOW))
        rates = [float(groups[0]["lr"]) for groups in coming]
        return torch.tensor(rates, dtype=torch.float64, device=self.facts.rows.device) * self.facts.loss_factor

    @cached_property
    def scheduled(self) -> Tensor | None:
        """Excess loss that plain SGD leaves along each direction under the schedule, ``(rank,)``."""
        f = self.facts
        if f.scheduler is None or not self._plain:
            return None
        return excess_under(self.rates, f.spectrum.eigenvalues[: f.spectrum.rank], f.start_gaps, f.patience)

    @cached_property
    def batches(self) -> MiniBatch | None:
        """The mini-batch run, in expectation."""
        f, o = self.facts, self.facts.optimizer
        if o is None or f.batch_size is None or f.full_batch or not self._plain or o.lr == 0:
            return None
        # A loss that sums grows with the batch, not with the table.
        summed = f.loss_factor >= f.rows.n_rows
        factor = f.loss_factor * (f.batch_size / f.rows.n_rows if summed else 1.0)
        return f.mini_batch(o.lr * factor * (1 - o.dampening) / (1 - min(o.momentum, 0.999999)), f.batch_size)

    @cached_property
    def rehearsal(self) -> Rehearsal | None:
        """The optimizer on the triangle, from the model's weights, for as many steps as are cheap."""
        f, o, c = self.facts, self.facts.optimizer, self.facts.compressed
        if o is None or c is None or o.kind == "other" or o.frozen or not f.spectrum.in_range:
            return None
        if not (f.squared and f.full_batch):
            return None
        weight, bias = f.start
        cost = _STEP + 6 * c.n_columns**2 * c.n_targets * _FLOP
        steps = min(f.patience, max(10, int(_SECONDS / (cost * (_LBFGS_ITERATIONS if o.kind == "lbfgs" else 1)))))
        if o.kind == "lbfgs" and f.steps is None:
            steps = min(steps, _LBFGS_CALLS)
        after_step = None if f.scheduler is None else replay(follow(f.scheduler, steps))
        return rehearse(c, o.make, steps=steps, weight=weight, bias=bias, factor=f.loss_factor, after_step=after_step)

    @property
    def rehearsed_in_full(self) -> bool:
        """Whether the rehearsal covers all steps that the run has, or broke down before."""
        run, steps = self.rehearsal, self.facts.steps
        return run is not None and steps is not None and (bool(run.stopped) or int(run.steps[-1]) >= steps)

    @cached_property
    def rehearsed_excess(self) -> Tensor:
        """Excess losses of the rehearsal, ``(points,)``; rounding of the loss is taken for zero."""
        if self.rehearsal is None:
            return torch.empty(0, dtype=torch.float64)
        excess = torch.nan_to_num(self.rehearsal.loss, nan=math.inf, posinf=math.inf)
        return (excess - self.facts.spectrum.optimal_loss).clamp(min=0.0)

    @property
    def not_judged(self) -> str:
        """Why it is not known whether the run comes to the goal."""
        f, o = self.facts, self.facts.optimizer
        if o is None:
            return "no optimizer was given"
        if self.no_closed_form and f.full_batch:
            why = f"{self.no_closed_form}, so it has no forecast"
        elif not f.full_batch:
            return f"batches are forecast for SGD at a constant lr only, not for {o.name}"
        else:
            why = f"{o.name} has no forecast"
        if self.rehearsal is None:
            return f"{why} and was not rehearsed here; d.rehearse(...) runs it"
        rehearsed = plural(float(self.rehearsal.steps[-1]), "step")
        given = f"of {f.steps:,}" if f.steps is not None else "were rehearsed, and no steps= given"
        return f"{why}, and only {rehearsed} {given}" + (" were rehearsed" if f.steps is not None else "")

    @cached_property
    def reaches_goal(self) -> bool | None:
        """Whether the run comes to the goal in its steps; None where that is not known."""
        f = self.facts
        if f.start_excess <= f.goal_excess:
            return True
        if self.scheduled is not None:
            return float(self.scheduled.sum()) <= f.goal_excess
        if self.batches is not None:
            return self.batches.steps_to(f.goal_excess) <= f.patience
        if self.forecast is not None:
            return self.steps_to_goal <= f.patience
        if self.rehearsal is not None:
            reached = float(self.rehearsed_excess[-1]) <= f.goal_excess
            return reached if reached or self.rehearsed_in_full else None
        return None
