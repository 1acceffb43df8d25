"""What follows from the setting and the rows: how the user's own run goes, and how gradient descent could go."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor, nn

from closedform.explain.extrapolation import Outlook, outlook
from closedform.explain.forecasts import (
    Forecast,
    Limit,
    MiniBatch,
    ScheduledRun,
    StepSettings,
    first_order_limits,
    forecast,
    mini_batch,
    scheduled_run,
    step_limit,
)
from closedform.explain.landscape import Landscape
from closedform.explain.precision import Precision, excess_floor
from closedform.explain.readers.schedules import replay
from closedform.explain.rehearsal import AS_USUAL, Loop, Rehearsal, rehearse
from closedform.explain.setting import Setting
from closedform.explain.stepping import can_continue, continued
from closedform.explain.wording import plural

__all__ = ["SAFETY", "Course", "Training"]

#: Share of the largest stable learning rate that is taken as the best of plain gradient descent.
SAFETY = 0.9
#: A schedule is followed for so many steps, which is plain Python.
_FOLLOW = 20_000
#: Seconds that a rehearsal inside a diagnosis may take, about.
_SECONDS = 0.8
#: Seconds of a step of an optimizer of torch, as measured on one core.
_STEP = 2.0e-4
#: Seconds of an operation in a product with the triangle, as measured on one core.
_FLOP = 2e-10
#: Steps that torch makes before NumPy goes on.
_WARM = 60
#: How many of them NumPy makes as well, to be checked.
_CHECKED = 20
#: Seconds for a rehearsal in NumPy.
_NUMPY_SECONDS = 2.0
#: Seconds of a step in NumPy, as measured.
_NUMPY_STEP = 1.8e-5
#: Calls of LBFGS that are rehearsed where no steps were given.
_LBFGS_CALLS = 20
#: Share of the last steps that all have to be at the goal for a rehearsed run to count as there.
_WINDOW = 0.02
#: Share of those steps that have to.
_MOSTLY = 0.9
#: Relative change of weights that lie at a fixed point, to see whether it holds a run: rounding does as much.
_NUDGE = 1e-6
#: Growth of the excess loss from which on rounding decides what is left of it in the end.
_FAR = 1e4
#: Numbers that a schedule with momentum may move in all, one step after the other.
_MOVED = 2e9


@final
@dataclass(frozen=True, eq=False)
class Course:
    """The user's own run, whatever the optimizer.

    Attributes:
        steps: Steps at which the curve is given, ``(points,)``, int64.
        excess: Excess loss there, ``(points,)``.
        left: Excess loss at the end of the run.
        least, most: What it may be at the least and at the most; equal to ``left`` unless it is extrapolated.
        how: ``forecast``, ``expected`` (over the draws of mini-batches), ``rehearsed`` or ``extrapolated``.
        made: Steps that were forecast or made.
    """

    steps: Tensor
    excess: Tensor
    left: float
    least: float
    most: float
    how: str
    made: int

    @property
    def known(self) -> str:
        """How it is known, in words."""
        if self.how == "extrapolated":
            return f"extrapolated from step {self.made:,} of a rehearsal on these data"
        return {"expected": "forecast in expectation", "rehearsed": "rehearsed on these data"}.get(self.how, self.how)


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

    def mini_batch(self, lr: float, size: int) -> MiniBatch:
        """Forecast mini-batches from the user's start, in expectation."""
        return mini_batch(
            self.landscape.spectrum,
            lr=lr,
            batch_size=size,
            start=self.setting.start,
            row_count=self.setting.table.n_rows,
            moments=self.landscape.moments,
        )

    @cached_property
    def best_descent(self) -> Forecast:
        """Plain gradient descent at a safe share of the largest stable learning rate."""
        limit = self.landscape.spectrum.learning_rate_limit
        return self.predict(lr=SAFETY * limit if math.isfinite(limit) else 1.0, steps=self.setting.patience)

    @cached_property
    def best_steps(self) -> float:
        """Steps of plain gradient descent to the goal at its best."""
        return self.best_descent.steps_to(self.goal_excess)

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
        if not setting.full_batch and setting.schedule is not None:
            return "mini-batches are forecast for a constant learning rate only"
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
        return self.predict(
            lr=optimizer.lr * self.batch_factor,
            momentum=optimizer.momentum,
            nesterov=optimizer.nesterov,
            weight_decay=optimizer.weight_decay / self.batch_factor,
            dampening=optimizer.dampening,
            steps=setting.patience,
        )

    @cached_property
    def steps_to_goal(self) -> float:
        """Steps of that run to the goal; nan where it has no closed form."""
        return math.nan if self.forecast is None else self.forecast.steps_to(self.goal_excess)

    @cached_property
    def coming(self) -> tuple[StepSettings, ...]:
        """Settings of the coming steps on ``MSELoss()``, as the user's scheduler sets them."""
        setting, optimizer = self.setting, self.setting.optimizer
        if setting.schedule is None or optimizer is None:
            return ()
        factor = setting.loss_factor
        return tuple(
            StepSettings(
                lr=float(groups[0].get("lr", optimizer.lr)) * factor,
                momentum=float(groups[0].get("momentum", optimizer.momentum)),
                dampening=optimizer.dampening,
                weight_decay=float(groups[0].get("weight_decay", optimizer.weight_decay)) / factor,
                nesterov=optimizer.nesterov,
            )
            for groups in setting.schedule.follow(min(setting.patience, _FOLLOW))
        )

    @cached_property
    def rates(self) -> Tensor:
        """Learning rates of the coming steps on ``MSELoss()``, ``(followed,)``."""
        return torch.tensor([now.lr for now in self.coming], dtype=torch.float64, device="cpu")

    @cached_property
    def scheduled(self) -> ScheduledRun | None:
        """The full-batch SGD run under the user's schedule."""
        setting, spectrum = self.setting, self.landscape.spectrum
        if setting.schedule is None or not self._plain or not setting.full_batch or spectrum.rank == 0:
            return None
        if len(self.coming) * spectrum.rank * spectrum.n_targets > _MOVED:
            return None
        largest = float(spectrum.eigenvalues[0])
        limits = [
            step_limit(largest + now.weight_decay, now.momentum, now.nesterov, now.dampening) for now in self.coming
        ]
        return scheduled_run(
            spectrum,
            self.coming,
            setting.patience,
            setting.start_matrix,
            self._momentum_held(),
            limits,
            setting.precision.product_eps,
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
        return torch.cat(parts) / self.setting.loss_factor

    @cached_property
    def batches(self) -> MiniBatch | None:
        """The mini-batch run, in expectation; of plain SGD, whose moments are known."""
        setting, optimizer = self.setting, self.setting.optimizer
        if optimizer is None or setting.batch_size is None or setting.full_batch or not self._plain:
            return None
        if optimizer.lr == 0 or optimizer.momentum or optimizer.weight_decay or setting.schedule is not None:
            return None
        return self.mini_batch(optimizer.lr * self.batch_factor, setting.batch_size)

    @property
    def batch_factor(self) -> float:
        """What the mean squared error of a batch is multiplied by in the user's loss."""
        setting, criterion = self.setting, self.setting.criterion
        # A loss that sums grows with the batch, not with the table.
        if criterion is None or not criterion.summed or setting.batch_size is None:
            return setting.loss_factor
        return setting.loss_factor * setting.batch_size / setting.table.n_rows

    @cached_property
    def rehearsal(self) -> Rehearsal | None:
        """The optimizer on the triangle, from the model's weights, for as many steps as are cheap."""
        optimizer = self.setting.optimizer
        if optimizer is None or not self._can_rehearse or self.landscape.triangle is None:
            return None
        calls = self.setting.patience
        if optimizer.kind == "lbfgs" and self.setting.steps is None:
            calls = min(calls, _LBFGS_CALLS)
        if calls > _WARM and optimizer.kind == "adam":
            return self._in_numpy(calls) or self.rehearse_as(calls)
        return self.rehearse_as(calls)

    def _in_numpy(self, steps: int) -> Rehearsal | None:
        """The rehearsal, begun by torch and continued in NumPy; None where the two do not make the same steps."""
        spectrum, setting = self.landscape.spectrum, self.setting
        first, more = self.rehearse_as(_WARM - _CHECKED), self.rehearse_as(_WARM)
        if first is None or more is None or more.stopped or not can_continue(more):
            return None
        cost = _NUMPY_STEP + 8 * spectrum.directions.shape[1] ** 2 * spectrum.n_targets * _FLOP
        steps = min(steps, max(_WARM, int(_NUMPY_SECONDS / cost)))
        rates: tuple[float, ...] = ()
        if setting.schedule is not None:
            coming = setting.schedule.follow(min(steps, _FOLLOW))
            if any(set(groups[0]) - {"lr"} and groups[0] | {"lr": 0} != coming[0][0] | {"lr": 0} for groups in coming):
                return None
            rates = tuple(float(groups[0]["lr"]) for groups in coming)
        sign = -1.0 if setting.criterion is not None and setting.criterion.factor < 0 else 1.0
        factor = sign * setting.loss_factor
        checked = continued(spectrum, first, _WARM, factor, rates)
        rounding = 1e-9 * float(more.loss[0]) + self.rounding_excess
        if bool(((checked.loss - more.loss).abs() > 1e-6 * more.loss + 1e-6 * rounding).any()):
            return None
        return continued(spectrum, more, steps, factor, rates)

    def rehearse_as(self, steps: int, loop: Loop = AS_USUAL, factor: float = 1.0, **options: Any) -> Rehearsal | None:
        """Rehearse the user's optimizer as the user's loop, or another one, would drive it.

        Args:
            steps: Steps to make, if they are cheap enough.
            loop: What becomes of gradients.
            factor: What the user's loss is multiplied by.
            options: Passed on to :func:`closedform.explain.rehearsal.rehearse`.
        """
        setting, optimizer, triangle = self.setting, self.setting.optimizer, self.landscape.triangle
        if optimizer is None or triangle is None or not self._can_rehearse:
            return None

        weight, bias = setting.start
        if optimizer.kind == "sgd" and self.start_excess <= self.goal_excess:
            weight = weight * (1 + _NUDGE)
        cost = _STEP + 6 * triangle.columns**2 * triangle.targets * _FLOP
        # LBFGS makes its directions of the last hundred gradients, which costs about as much again.
        evaluations = max(10, int(_SECONDS / cost / (2 if optimizer.kind == "lbfgs" else 1)))
        if optimizer.kind != "lbfgs":
            steps = min(steps, evaluations)
        after_step = None if setting.schedule is None else replay(setting.schedule.follow(min(steps, evaluations)))
        sign = -1.0 if setting.criterion is not None and setting.criterion.factor < 0 else 1.0

        return rehearse(
            triangle,
            optimizer.make,
            steps=steps,
            weight=weight,
            bias=bias,
            factor=sign * setting.loss_factor * factor,
            after_step=after_step,
            evaluations=evaluations,
            loop=loop,
            **options,
        )

    def rehearse_changed(self, steps: int, changed: Mapping[str, float], *, falling: bool = False) -> Rehearsal | None:
        """Rehearse the user's optimizer with some of its settings changed.

        Args:
            steps: Steps to make.
            changed: Settings by name.
            falling: Whether the learning rate falls to zero over the steps, evenly.
        """
        setting, optimizer, triangle = self.setting, self.setting.optimizer, self.landscape.triangle
        if optimizer is None or triangle is None or not self._can_rehearse:
            return None
        make, rates = optimizer.make, iter(range(steps - 1, -1, -1))
        lr = float(changed.get("lr", optimizer.lr))

        def other(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
            twin = make(parameters)
            for group in twin.param_groups:
                group.update(changed)
            return twin

        def fall(twin: torch.optim.Optimizer) -> None:
            left = next(rates, 0)
            for group in twin.param_groups:
                group["lr"] = lr * left / steps

        weight, bias = setting.start
        return rehearse(
            triangle,
            other,
            steps=steps,
            weight=weight,
            bias=bias,
            factor=setting.loss_factor,
            after_step=fall if falling else None,
        )

    @property
    def _can_rehearse(self) -> bool:
        optimizer, setting = self.setting.optimizer, self.setting
        if optimizer is None or optimizer.kind == "other" or optimizer.frozen:
            return False
        return setting.squared and setting.full_batch and self.landscape.spectrum.in_range

    @cached_property
    def narrow_rehearsal(self) -> Rehearsal | None:
        """LBFGS again in float32, where that is trained in: its line searches live by the last digits of the loss."""
        optimizer = self.setting.optimizer
        if optimizer is None or optimizer.kind != "lbfgs" or self.setting.precision.dtype == torch.float64:
            return None
        if self.rehearsal is None:
            return None
        return self.rehearse_as(max(1, int(self.rehearsal.steps[-1])), dtype=torch.float32)

    @property
    def rehearsed_in_full(self) -> bool:
        """Whether the rehearsal covers all steps that the run has, or broke down before."""
        run, steps = self.rehearsal, self.setting.steps
        if run is None or steps is None:
            return False
        return run.stopped.startswith("the loss") or int(run.steps[-1]) >= steps

    @cached_property
    def rehearsed_excess(self) -> Tensor:
        """Excess losses of the rehearsal, ``(points,)``; rounding of the loss is taken for zero."""
        if self.rehearsal is None:
            return torch.empty(0, dtype=torch.float64, device="cpu")
        return self.excess_of(self.rehearsal)

    def excess_of(self, run: Rehearsal) -> Tensor:
        """Return the excess losses of a rehearsal, ``(points,)``; rounding of the loss is taken for zero."""
        if run.excess is not None:
            return torch.nan_to_num(run.excess, nan=math.inf, posinf=math.inf)
        excess = torch.nan_to_num(run.loss, nan=math.inf, posinf=math.inf) - self.landscape.spectrum.optimal_loss
        excess = excess.clamp(min=0.0)
        if excess.numel() and math.isfinite(float(excess[-1])):
            # The end is known from the weights, without cancellation.
            excess[-1] = float(self.landscape.spectrum.gaps(run.end).sum())
        return excess

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
            run, left = self.scheduled, self.scheduled.left
            # A run that grows that far comes back with rounding of what it was; how much, no forecast knows.
            sure = run.peak <= _FAR * self.start_excess or left >= self.start_excess
            least, most = (left, left) if sure else (0.0, math.inf)
            return Course(run.steps, run.excess, left, least, most, "forecast", patience)
        if self.batches is not None:
            left = self.batches.excess_at(patience)
            points = torch.unique(torch.logspace(0, math.log10(patience), 60, device="cpu").round().to(torch.int64))
            points = torch.cat([torch.tensor([0], device="cpu"), points.clamp(max=patience)])
            curve = torch.tensor(
                [self.batches.excess_at(int(step)) for step in points], dtype=torch.float64, device="cpu"
            )
            return Course(points, curve, left, left, left, "expected", patience)
        if self.forecast is not None and self.setting.full_batch:
            left = float(self.forecast.excess_at([patience]))
            return Course(self.forecast.steps, self.forecast.excess, left, left, left, "forecast", patience)
        return self._rehearsed_course

    @property
    def _rehearsed_course(self) -> Course | None:
        run, excess = self.rehearsal, self.rehearsed_excess
        if run is None or excess.numel() == 0:
            return None
        made = int(run.steps[-1])
        if self.rehearsed_in_full or self.outlook is None:
            window = excess[-max(1, int(_WINDOW * excess.numel())) :]
            left = float(excess[-1])
            # Adam's late jumps pass; what most of the last steps keep to is what a user will find.
            most = max(left, float(torch.quantile(window, _MOSTLY))) if math.isfinite(left) else left
            return Course(run.steps, excess, left, left, most, "rehearsed", made)
        found = self.outlook
        steps = torch.cat([run.steps, torch.tensor([self.setting.patience], device="cpu")])
        curve = torch.cat([excess, torch.tensor([found.left], dtype=torch.float64, device="cpu")])
        return Course(steps, curve, found.left, found.least, found.most, "extrapolated", made)

    @property
    def not_judged(self) -> str:
        """Why it is not known whether the run comes to the goal."""
        setting, optimizer = self.setting, self.setting.optimizer
        if optimizer is None:
            return "no optimizer was given"
        if self.no_closed_form and setting.full_batch:
            why = f"{self.no_closed_form}, so it has no forecast"
        elif not setting.full_batch:
            return f"batches are forecast for SGD at a constant lr only, not for {optimizer.name}" + (
                " with momentum or weight decay" if optimizer.kind == "sgd" else ""
            )
        else:
            why = f"{optimizer.name} has no forecast"
        if self.rehearsal is None:
            return f"{why} and was not rehearsed here; d.rehearse(...) runs it"
        rehearsed = plural(float(self.rehearsal.steps[-1]), "step")
        given = f"of {setting.steps:,}" if setting.steps is not None else "were rehearsed, and no steps= given"
        return f"{why}, and only {rehearsed} {given}" + (" were rehearsed" if setting.steps is not None else "")

    @cached_property
    def reaches_goal(self) -> bool | None:
        """Whether the run comes to the goal in its steps; None where that is not known."""
        course, goal = self.course, self.goal_excess
        if self.setting.climbs:
            return False
        if course is None:
            return True if self.setting.optimizer is None and self.start_excess <= goal else None
        if self.forecast is not None and not self.forecast.stable:
            return False
        if self.narrow_rehearsal is not None and float(self.excess_of(self.narrow_rehearsal)[-1]) > goal:
            return None if course.left <= goal else False
        if course.most <= goal:
            return True
        return False if course.least > goal else None
