"""What follows from the setting and the rows: how the user's own run goes, and how gradient descent could go."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor

from closedform.explain.course import (
    Course,
    drawn_course,
    expected_course,
    extrapolated_course,
    forecast_course,
    rehearsed_course,
    scheduled_batch_course,
    scheduled_course,
)
from closedform.explain.extrapolation import Outlook, outlook
from closedform.explain.forecasts import (
    Descent,
    Forecast,
    Limit,
    MiniBatch,
    ScheduledBatches,
    ScheduledRun,
    descent_of,
    first_order_limits,
    forecast,
    mini_batch,
    scheduled_batches,
    scheduled_run,
)
from closedform.explain.landscape import Landscape
from closedform.explain.obstacles import obstacle
from closedform.explain.precision import Precision, excess_floor
from closedform.explain.readers.optimizers import OptimizerReading
from closedform.explain.readers.schedules import FOLLOWED
from closedform.explain.rehearsal import Rehearsal, iterations_of
from closedform.explain.setting import Setting
from closedform.explain.stage import Stage
from closedform.explain.wording import plural
from closedform.numerics.scaling import power_of_two_exponents
from closedform.words.numbers import short

__all__ = ["SAFETY", "Training"]

#: Share of the largest stable learning rate that is taken as the best of plain gradient descent.
SAFETY = 0.9
#: Roundings of the loss within which line searches in float32 may stop; set above the one run seen to do so, at 450.
_UNSEEN = 1000.0
#: A condition number from which on the gradient alone does not bring LBFGS the rest of the way.
_UNEVEN = 100.0
#: Share of the last steps at the goal from which on a run with jumps counts as having come there.
_MOSTLY = 0.6
#: Share of the excess loss at the start that a plot of the loss shows.
_SEEN = 1e-3
#: Numbers that a schedule with momentum may move in all, one step after the other.
_MOVED = 2e9


@final
@dataclass(frozen=True)
class Training:
    """What is known of the run that the user's optimizer makes. Everything is None where it cannot be told so.

    Attributes:
        setting: What the user trains with.
        landscape: What the rows say.
    """

    setting: Setting
    landscape: Landscape

    @cached_property
    def start_gaps(self) -> Tensor:
        """Excess loss at the start along each direction, ``(rank,)``."""
        return self.landscape.spectrum.gaps(self.setting.start_matrix)

    @property
    def start_excess(self) -> float:
        """Excess loss that the run starts with."""
        return float(self.start_gaps.sum())

    @cached_property
    def goal_excess(self) -> float:
        """The excess loss that counts as having come to the minimum."""
        return self.setting.goal * self.landscape.reference_excess

    def share(self, excess: float) -> float:
        """Return an excess loss as a share of the one that the run starts with (of zero weights, at the minimum)."""
        start = self.start_excess
        reference = start if start > self.goal_excess else self.landscape.reference_excess
        return excess / (reference or 1.0)

    @property
    def share_of(self) -> str:
        """What :meth:`share` is a share of, in words."""
        return "the excess loss it starts with" if self.start_excess > self.goal_excess else "that of zero weights"

    def predict(self, *, lr: float, steps: Any, momentum: float = 0.0, **options: Any) -> Forecast:
        """Forecast a run from the user's start; see :func:`closedform.explain.forecasts.forecast`."""
        name = "momentum" if momentum else "sgd"
        spectrum = self.landscape.spectrum
        return forecast(spectrum, name, lr=lr, momentum=momentum, steps=steps, start=self.setting.start, **options)

    def mini_batch(self, lr: float, size: int, **options: Any) -> MiniBatch:
        """Forecast mini-batches from the user's start, in expectation; options as for ``forecast``."""
        return mini_batch(
            self.landscape.spectrum,
            lr=lr,
            batch_size=size,
            start=self.setting.start,
            row_count=self.setting.table.n_rows,
            moments=self.landscape.moments,
            **options,
        )

    def own_mini_batch(self, lr: float) -> MiniBatch:
        """The same for the user's own optimizer and batch size, at a learning rate on the mean loss of a batch."""
        setting, optimizer = self.setting, self.setting.optimizer
        size = setting.table.n_rows if setting.batch_size is None else setting.batch_size
        return self.mini_batch(lr, size, **({} if optimizer is None else self._options(optimizer)))

    @property
    def own_limit(self) -> float:
        """The largest stable learning rate of the user's SGD on the full batch, on ``MSELoss()``."""
        spectrum, optimizer = self.landscape.spectrum, self.setting.optimizer
        largest = float(spectrum.eigenvalues[0]) if spectrum.rank else 0.0
        if optimizer is None or optimizer.kind != "sgd":
            return spectrum.learning_rate_limit
        own = descent_of(optimizer.lr, **self._options(optimizer))
        return own.step_limit(largest + own.weight_decay)

    def _options(self, optimizer: OptimizerReading) -> dict[str, Any]:
        """What a forecast takes of an SGD beside its learning rate."""
        return {
            "momentum": optimizer.momentum,
            "nesterov": optimizer.nesterov,
            "weight_decay": optimizer.weight_decay / self.setting.batch_factor,
            "dampening": optimizer.dampening,
        }

    @cached_property
    def best_descent(self) -> Forecast:
        """Plain gradient descent at a safe share of the largest stable learning rate."""
        limit = self.landscape.spectrum.learning_rate_limit
        return self.predict(lr=SAFETY * limit if math.isfinite(limit) else 1.0, steps=self.setting.patience)

    @cached_property
    def best_steps(self) -> float:
        """Steps of plain gradient descent to the goal at its best."""
        return self.best_descent.steps_to(self.goal_excess)

    @cached_property
    def best_steps_from_zero(self) -> float:
        """The same from zero weights. They do not depend on the unit of X, whose squares may be beyond float64."""
        spectrum = self.landscape.spectrum
        values = spectrum.singular_values
        scaled = replace(spectrum, singular_values=torch.ldexp(values, -power_of_two_exponents(values[:1])))
        limit = scaled.learning_rate_limit
        course = forecast(scaled, lr=SAFETY * (limit if math.isfinite(limit) else 1.0), steps=[0])
        return course.steps_to(self.goal_excess)

    @cached_property
    def obstacle(self) -> str | None:
        """What keeps every optimizer from running in the arithmetic that is trained in; None where nothing does."""
        if not self.setting.squared:
            return None
        return obstacle(self.landscape.spectrum, self.setting.start_matrix, self.setting.precision.dtype)

    @property
    def shown(self) -> Forecast | None:
        """The forecast to show first: that of the user's run, or of gradient descent; None beyond float64's range."""
        if not self.landscape.spectrum.in_range:
            return None
        return self.forecast or self.best_descent

    @cached_property
    def limits(self) -> tuple[Limit, ...]:
        """First-order methods at their best settings."""
        spectrum = self.landscape.spectrum
        if not spectrum.in_range:
            return ()
        zero = spectrum.excess_at_zero
        goal = self.goal_excess / zero if zero > 0 else self.setting.goal
        return first_order_limits(spectrum, goal, self.setting.start)

    @property
    def rounding_excess(self) -> float:
        """Excess losses below this are rounding of residuals in the arithmetic that is trained in."""
        return self.setting.precision.product_eps**2 * self.landscape.spectrum.magnitude(self.setting.start_matrix)

    def excess_floor(self, precision: Precision, lr: float) -> float:
        """Predict the lowest excess loss that gradient steps from the user's start reach in such arithmetic."""
        return excess_floor(self.landscape.spectrum, self.setting.start_matrix, precision, lr)

    @property
    def no_closed_form(self) -> str:
        """Why the run, if it is one of SGD, is not forecast; empty where it is."""
        setting, optimizer = self.setting, self.setting.optimizer
        if optimizer is None or optimizer.kind != "sgd":
            return ""
        if setting.climbs:
            return "maximize=True climbs" if optimizer.maximizes else "a loss of negative sign climbs"
        return optimizer.no_closed_form

    @property
    def _plain(self) -> bool:
        """Whether it is a run of SGD that has a closed form."""
        optimizer = self.setting.optimizer
        if optimizer is None or optimizer.kind != "sgd" or optimizer.frozen or self.no_closed_form:
            return False
        return optimizer.lr >= 0 and self.setting.squared and self.landscape.spectrum.in_range

    @cached_property
    def forecast(self) -> Forecast | None:
        """The full-batch SGD run at a constant learning rate."""
        setting, optimizer = self.setting, self.setting.optimizer
        if optimizer is None or not self._plain or setting.schedule is not None:
            return None
        rate = optimizer.lr * self.setting.batch_factor
        return self.predict(lr=rate, steps=setting.patience, **self._options(optimizer))

    @property
    def warm(self) -> bool:
        """Whether the run goes on with momentum of earlier steps, without forecast, and was rehearsed to its end."""
        optimizer, setting = self.setting.optimizer, self.setting
        if self.forecast is None or optimizer is None or not optimizer.warm_momentum or not setting.full_batch:
            return False
        return self.forecast.stable and self.rehearsed_in_full

    @cached_property
    def steps_to_goal(self) -> float:
        """Steps of that run to the goal; nan where it has no closed form."""
        return math.nan if self.forecast is None else self.forecast.steps_to(self.goal_excess)

    @cached_property
    def coming(self) -> tuple[Descent, ...]:
        """Settings of the coming steps on ``MSELoss()``, as the user's scheduler sets them."""
        setting, optimizer = self.setting, self.setting.optimizer
        if setting.schedule is None or optimizer is None:
            return ()
        factor = self.setting.batch_factor
        return tuple(
            descent_of(
                lr=float(groups[0].get("lr", optimizer.lr)) * factor,
                momentum=float(groups[0].get("momentum", optimizer.momentum)),
                dampening=optimizer.dampening,
                weight_decay=float(groups[0].get("weight_decay", optimizer.weight_decay)) / factor,
                nesterov=optimizer.nesterov,
            )
            for groups in setting.schedule.follow(min(setting.patience, FOLLOWED))
        )

    @cached_property
    def rates(self) -> Tensor:
        """Learning rates of the coming steps on ``MSELoss()``, ``(followed,)``."""
        return torch.tensor([now.lr for now in self.coming], dtype=torch.float64, device="cpu")

    @cached_property
    def scheduled(self) -> ScheduledRun | None:
        """The full-batch SGD run under the user's schedule, in the user's arithmetic."""
        return self._scheduled(self.setting.precision.product_eps) if self.setting.full_batch else None

    @cached_property
    def scheduled_exactly(self) -> ScheduledRun | None:
        """The same without rounding; it differs where steps above the limit grow out of rounding alone."""
        return self.scheduled if self.scheduled is None or not self.scheduled.above else self._scheduled(0.0)

    def _scheduled(self, rounding: float) -> ScheduledRun | None:
        setting, spectrum = self.setting, self.landscape.spectrum
        if setting.schedule is None or not self._plain or spectrum.rank == 0:
            return None
        if len(self.coming) * spectrum.rank * spectrum.n_targets > _MOVED:
            return None
        return scheduled_run(
            spectrum,
            self.coming,
            setting.patience,
            setting.start_matrix,
            self._momentum_held(),
            rounding,
            float(torch.finfo(setting.precision.dtype).max),
        )

    def _momentum_held(self) -> Tensor | None:
        """Momentum of earlier steps on ``MSELoss()``, ``(columns, targets)``."""
        optimizer = self.setting.optimizer
        if optimizer is None or not optimizer.warm_momentum:
            return None
        held = optimizer.momentum_buffers
        weight, bias = self.setting.start
        parts = [held.get("weight", torch.zeros_like(weight)).T]
        if bias is not None:
            parts.insert(0, held.get("bias", torch.zeros_like(bias)).reshape(1, -1))
        return torch.cat(parts) / self.setting.batch_factor

    @cached_property
    def batches(self) -> MiniBatch | None:
        """The mini-batch run of SGD with constant settings, in expectation."""
        setting, optimizer = self.setting, self.setting.optimizer
        if optimizer is None or setting.batch_size is None or setting.full_batch or not self._plain:
            return None
        if optimizer.lr == 0 or setting.schedule is not None:
            return None
        return self.own_mini_batch(optimizer.lr * self.setting.batch_factor)

    @cached_property
    def scheduled_batches(self) -> ScheduledBatches | None:
        """The mini-batch run of SGD under the user's schedule, in expectation."""
        spectrum = self.landscape.spectrum
        mean = None if self.setting.full_batch else self._scheduled(0.0)
        if mean is None or len(self.coming) * spectrum.rank**2 > _MOVED:
            return None
        largest = float(spectrum.eigenvalues[0])
        highest = max(self.coming, key=lambda now: now.lr / now.step_limit(largest + now.weight_decay))
        if not highest.lr > 0:
            return None
        size = self.setting.batch_size or self.setting.table.n_rows
        batches = self.mini_batch(
            highest.lr,
            size,
            momentum=highest.momentum,
            nesterov=highest.nesterov,
            weight_decay=highest.weight_decay,
            dampening=highest.dampening,
        )
        return scheduled_batches(mean, self.coming, batches)

    @cached_property
    def stage(self) -> Stage:
        """Where the user's optimizer is rehearsed."""
        return Stage(self.setting, self.landscape, self.rounding_excess, self.start_excess <= self.goal_excess)

    @property
    def cannot_step(self) -> str:
        """Why the optimizer cannot make a step, found by rehearsing one that is not forecast; empty where it can."""
        optimizer = self.setting.optimizer
        # SGD takes any gradients, and making any optimizer loads torch's compiler.
        return "" if optimizer is None or optimizer.kind == "sgd" else self.stage.failure

    @property
    def rehearsal(self) -> Rehearsal | None:
        """The optimizer on the triangle, from the model's weights, for as many steps as are cheap."""
        return self.stage.own

    @property
    def rehearsed_in_full(self) -> bool:
        """Whether the rehearsal covers all steps that the run has, or broke down before."""
        run, steps = self.rehearsal, self.setting.steps
        if run is None or steps is None:
            return False
        return run.stopped.startswith("the loss") or int(run.steps[-1]) >= steps

    @cached_property
    def rehearsed_excess(self) -> Tensor:
        """Excess losses of the rehearsal, ``(points,)``, of batches their mean; rounding is taken for zero."""
        if self.rehearsal is None:
            return torch.empty(0, dtype=torch.float64, device="cpu")
        if self.stage.drawn is not None:
            return self.stage.drawn.excess.mean(1)
        return self.stage.excess_of(self.rehearsal)

    @cached_property
    def outlook(self) -> Outlook | None:
        """What a rehearsal that was cut short comes to by the end of the run."""
        if self.rehearsal is None or self.rehearsed_in_full:
            return None
        return outlook(self.landscape.spectrum, self.rehearsal, self.rehearsed_excess, self.setting.patience)

    @cached_property
    def course(self) -> Course | None:
        """The user's own run, by whatever way it is known; None where it is not."""
        patience = self.setting.patience
        if self.scheduled is not None:
            return scheduled_course(self.scheduled, self.scheduled_exactly, patience, self.start_excess)
        if self.batches is not None:
            return expected_course(self.batches, patience)
        if self.scheduled_batches is not None:
            return scheduled_batch_course(self.scheduled_batches, patience)
        if self.forecast is not None and self.setting.full_batch and not self.warm:
            return forecast_course(self.forecast, patience)
        drawn = self.stage.drawn if self.rehearsal is not None else None
        if drawn is not None:
            return drawn_course(drawn, None if self.rehearsed_in_full else self.outlook, patience)
        if self.rehearsal is None or self.rehearsed_excess.numel() == 0:
            return None
        if not self.rehearsed_in_full and self.outlook is not None:
            return extrapolated_course(self.rehearsal, self.rehearsed_excess, self.outlook, patience)
        twin = self.stage.twin
        other = None if twin is None else self.stage.excess_of(twin)
        return rehearsed_course(self.rehearsal, self.rehearsed_excess, other, self.rounding_excess)

    @property
    def not_judged(self) -> str:
        """Why it is not known whether the run comes to the goal."""
        setting, optimizer = self.setting, self.setting.optimizer
        if optimizer is None:
            return "no optimizer was given"

        if self.no_closed_form and setting.full_batch:
            why = f"{self.no_closed_form}, so it has no forecast"
        elif not setting.full_batch and self.course is not None:
            least, most = short(self.course.least), short(self.course.most)
            return f"batches of {setting.batch_size} end at an excess loss of {least} to {most}, {self.course.known}"
        elif not setting.full_batch:
            return (
                f"batches are forecast for SGD only, not for {optimizer.name}"
                if optimizer.kind != "sgd"
                else (self.no_closed_form or "batches are forecast for a learning rate above 0")
            )
        else:
            why = f"{optimizer.name} has no forecast"

        if self.rehearsal is None:
            return f"{why} and was not rehearsed here; d.rehearse(...) runs it"
        if self.rehearsed_in_full and self.cancels:
            return (
                f"centred {optimizer.name} divides by a difference of averages, of which {setting.precision} may "
                "leave nothing near the minimum"
            )
        if self.rehearsed_in_full and self.course is not None:
            least, most = short(self.course.least), short(self.course.most)
            return f"rounding decides how {optimizer.name} ends here: an excess loss of {least} to {most}"

        rehearsed = plural(float(self.rehearsal.steps[-1]), "step")
        given = f"of {setting.steps:,}" if setting.steps is not None else "were rehearsed, and no steps= given"
        return f"{why}, and only {rehearsed} {given}" + (" were rehearsed" if setting.steps is not None else "")

    @property
    def seen_in_float32(self) -> bool:
        """Whether line searches that compare losses in float32 bring LBFGS to the goal, rehearsed so.

        Where the curvature is uneven they stop at differences that the sum over all rows rounds away, and no triangle
        rounds like the rows.
        """
        narrow, spectrum = self.stage.narrow, self.landscape.spectrum
        if narrow is None or float(self.stage.excess_of(narrow)[-1]) > self.goal_excess:
            return False
        if self.excess_floor(self.setting.precision, SAFETY * spectrum.learning_rate_limit) > self.goal_excess:
            return False
        unseen = _UNSEEN * self.setting.precision.eps * spectrum.optimal_loss
        return spectrum.condition < _UNEVEN or unseen <= self.goal_excess

    @cached_property
    def reaches_goal(self) -> bool | None:
        """Whether the run comes to the goal in its steps; None where that is not known."""
        course, goal = self.course, self.goal_excess
        if self.landscape.spectrum.rank == 0:
            return True  # a flat loss has no other value
        if self.setting.climbs or self.cannot_step:
            return False
        if course is None:
            return True if self.setting.optimizer is None and self.start_excess <= goal else None
        if self.forecast is not None and not self.forecast.stable:
            return False
        if self.stage.narrow is not None and not self.seen_in_float32:
            return None if course.left <= goal or self.rounding_decides else False
        if course.most <= goal:
            return None if self.cancels else True
        return False if course.least > goal else None

    @property
    def cancels(self) -> bool:
        """Whether narrow arithmetic may break off what a rehearsal in float64 comes to.

        Centred RMSprop divides by a variance that it has as a difference of two averages. Once gradients are small,
        float32 leaves nothing of it, and a step is divided by that.
        """
        setting = self.setting
        centred = setting.optimizer is not None and setting.optimizer.settings.get("centered", False)
        return bool(centred) and setting.precision.dtype != torch.float64

    @property
    def rounding_decides(self) -> bool:
        """Whether rehearsals of LBFGS in float64 and in the arithmetic that is trained in end differently."""
        own, narrow = self.rehearsal, self.stage.narrow
        if own is None or narrow is None:
            return False

        def ended(run: Rehearsal) -> tuple[bool, int]:
            return float(self.stage.excess_of(run)[-1]) <= self.goal_excess, iterations_of(run)

        if ended(own) != ended(narrow):
            return True
        beside = self.stage.narrow_beside
        return beside is not None and ended(beside) != ended(own)

    @property
    def settles(self) -> bool:
        """Whether the run comes to the goal, or lies there at most of its last steps with jumps nobody would see."""
        course, goal = self.course, self.goal_excess
        if self.reaches_goal is not None or course is None or course.last is None:
            return self.reaches_goal is True
        return course.share_within(goal) >= _MOSTLY and course.most <= max(goal, _SEEN * self.start_excess)
