"""One optimizer training one layer against the clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor, nn
from torch.optim import LBFGS

from closedform.comparison.contenders import Contender, Outlook, Setting
from closedform.comparison.methods import CurvePoint, MethodResult
from closedform.comparison.problem import TrainingProblem, failure
from closedform.engine.threads import one_thread
from closedform.fit.weights import Weights
from closedform.words.errors import ClosedformError
from closedform.words.numbers import momentum_text

__all__ = ["CONVERGED", "INTERRUPTED", "LEAST_SHARE", "TIME_IS_UP", "Lane", "race", "race_settings"]

CONVERGED = "converged to rounding"
INTERRUPTED = "interrupted"
TIME_IS_UP = "time is up"

#: Part of an equal share of the budget that every optimizer has at least, whatever else takes time. Loading Python,
#: torch, its compiler and scikit-learn takes some eight seconds, which who asks for eight does not mean to wait twice.
LEAST_SHARE = 0.125

#: What decides the path of plain gradient descent.
_SETTINGS = ("lr", "momentum", "nesterov")
#: Share of the method's time that each setting is tried for.
_SEARCH_SHARE = 0.04
#: Ratio of the steps at which the loss is measured to those before.
_SPACING = 1.25
#: Seconds between two calls of the progress callback.
_TICK = 0.1
#: Steps without the change of a single bit, after which nothing more is expected.
_PATIENCE = 100
#: Times the loss at the start, from which on a run has diverged.
_DIVERGED = 1e6


class _Stop(Exception):
    """Raised out of the closure, so that an optimizer is left in the middle of its ``step()``."""


@final
@dataclass(frozen=True)
class Lane:
    """One optimizer's share of the budget, and its part of the progress bar.

    Attributes:
        report: Told the name, and the part of all training that is done.
        name, index, lanes: Whose share it is, out of how many.
        seconds: The share.
        clock: Tells the seconds that are billed.
    """

    report: Callable[[str, float], None]
    name: str
    index: int
    lanes: int
    seconds: float
    clock: Callable[[], float]

    def tick(self, used: float) -> None:
        """Report that so many seconds of the share are used."""
        self.report(self.name, (self.index + min(used / self.seconds, 1.0)) / self.lanes)


@final
@dataclass
class _Stopwatch:
    """Bills what a clock tells, but for the time in which something is measured."""

    clock: Callable[[], float]
    billed: float = 0.0
    started: float = 0.0

    def run(self) -> None:
        self.started = self.clock()

    def halt(self) -> None:
        self.billed += self.clock() - self.started

    def now(self) -> float:
        return self.billed + self.clock() - self.started


@final
class _Run:
    """One optimizer at one setting; ``train`` may be called again to go on."""

    def __init__(
        self,
        contender: Contender,
        setting: Setting,
        layer: nn.Linear,
        problem: TrainingProblem,
        clock: Callable[[], float],
        tick: Callable[[float], None],
    ) -> None:
        self.contender, self.setting, self.layer, self.problem, self.tick = contender, setting, layer, problem, tick
        self.optimizer = contender.make(layer, setting)
        self.clock = _Stopwatch(clock)
        self.steps = 0
        self.stopped_because = ""
        self.curve: list[CurvePoint] = []
        self._deadline = 0.0
        self._next_record, self._next_check = 0, _PATIENCE
        self._next_tick = 0.0
        self._steps_of_last_call = 0
        self._worst_loss = math.inf
        self._seen = Weights.of_layer(layer)

    def train(self, until: float) -> None:
        """Train until ``until`` seconds of training are billed in all, or until there is a reason to stop."""
        if self.stopped_because and not self.stopped_because.startswith(TIME_IS_UP):
            return
        self._deadline = until
        self.clock.run()
        try:
            while True:
                self._call_step()
        except _Stop as stop:
            self.stopped_because = str(stop)
        except KeyboardInterrupt:
            self.stopped_because = INTERRUPTED
        # Of torch: out of memory, or an operation that this dtype does not have. Of rls: why it refuses.
        except (RuntimeError, ClosedformError) as error:
            self.stopped_because = failure(error)
        finally:
            self.clock.halt()
        self._record()

    def result(self, settings: str, spent: float, stopped_because: str) -> MethodResult:
        """Return what was reached.

        Args:
            settings: The settings in words.
            spent: Seconds that were billed to other settings of the same method before.
            stopped_because: Why it stopped.
        """
        measured = self.problem.measure(Weights.of_layer(self.layer))
        group = self.optimizer.param_groups[0]
        return MethodResult(
            name=self.contender.name,
            settings=settings,
            seconds=spent + self.clock.billed,
            steps=self.steps,
            train_mse=measured.train_mse,
            excess_loss=measured.excess_loss,
            weight_distance=measured.weight_distance,
            test_mae=measured.test_mae,
            stopped_because=stopped_because,
            curve=tuple(replace(point, seconds=spent + point.seconds) for point in self.curve),
            hyperparameters={key: group[key] for key in _SETTINGS if key in group},
        )

    def _call_step(self) -> None:
        if self.contender.line_search:
            self._look()
        steps_before = self.steps
        before = Weights.of_layer(self.layer) if self.contender.line_search else None
        try:
            self.optimizer.step(self._closure)  # type: ignore[arg-type]  # torch wants a float, LBFGS a Tensor
        except (_Stop, KeyboardInterrupt):
            if before is not None:
                self._leave_trial_point(before)
            raise
        self._steps_of_last_call = self.steps - steps_before
        if self.steps >= self._next_check:
            self._check_for_change()

    def _closure(self) -> Tensor:
        if not self.contender.line_search:
            self._look()
        if self.steps and self.clock.now() >= self._deadline:
            raise _Stop(self._time_is_up())
        self.optimizer.zero_grad()
        loss = self.problem.loss(self.layer)
        loss.backward()  # type: ignore[no-untyped-call]
        self.steps += 1
        value = loss.item()
        if self.steps == 1:
            self._worst_loss = _DIVERGED * max(value, self.problem.loss_at_zero)
        if not value <= self._worst_loss:
            raise _Stop(f"diverged after {self.steps:,} steps")
        return loss

    def _look(self) -> None:
        """Record the loss when a record is due, and report progress, off the clock.

        Raises:
            _Stop: the excess loss is no more than rounding leaves.
        """
        now = self.clock.now()
        record, tick = self.steps >= self._next_record, now >= self._next_tick
        if not (record or tick):
            return
        self.clock.halt()
        try:
            if tick:
                self._next_tick = now + _TICK
                self.tick(self.clock.billed)
            if record:
                self._next_record = max(self.steps + 1, math.ceil(_SPACING * self.steps))
                self._record()
                if self.steps and self._is_rounding():
                    raise _Stop(CONVERGED)
        finally:
            self.clock.run()

    def _record(self) -> None:
        # Few numbers: a team of threads on a busy machine would be waited for many times as long as they take.
        with one_thread(self.problem.X.shape[1], self.problem.X.device):
            point = CurvePoint(
                self.steps,
                self.clock.billed,
                *self.problem.losses(Weights.of_layer(self.layer)),
            )
        if self.curve and self.curve[-1].steps == self.steps:
            self.curve.pop()
        self.curve.append(point)

    def _is_rounding(self) -> bool:
        return self.curve[-1].excess_loss <= self.problem.rounding_floor(Weights.of_layer(self.layer))

    def _check_for_change(self) -> None:
        weights = Weights.of_layer(self.layer)
        if weights.minus(self._seen).norm() == 0:
            raise _Stop(self._stuck())
        self._seen = weights
        self._next_check = self.steps + _PATIENCE

    def _leave_trial_point(self, before: Weights) -> None:
        """Go back to the last iterate if the line search was left at a point that is worse."""
        if self.problem.train_mse(Weights.of_layer(self.layer)) <= self.problem.train_mse(before):
            return
        with torch.no_grad():
            self.layer.weight.copy_(before.weight)
            if before.bias is not None:
                self.layer.bias.copy_(before.bias)

    def _time_is_up(self) -> str:
        if isinstance(self.optimizer, LBFGS) and 0 < self._steps_of_last_call <= 2:
            tolerance = self.optimizer.param_groups[0]["tolerance_change"]
            if tolerance > 0:
                return (
                    f"{TIME_IS_UP}; each step() ended after one iteration: "
                    f"change below tolerance_change {tolerance:g} (absolute)"
                )
        return TIME_IS_UP

    def _stuck(self) -> str:
        if not isinstance(self.optimizer, LBFGS):
            return "no further change: the updates are lost in rounding"
        group = self.optimizer.param_groups[0]
        tolerance_grad, tolerance_change = group["tolerance_grad"], group["tolerance_change"]
        gradient = torch.cat([p.grad.flatten() for p in group["params"] if p.grad is not None])
        direction = self.optimizer.state[group["params"][0]].get("d")
        if float(gradient.abs().max()) <= tolerance_grad:
            return f"no further change: gradient below tolerance_grad {tolerance_grad:g} (absolute)"
        if tolerance_change > 0 and direction is not None and float(gradient @ direction) > -tolerance_change:
            return f"no further change: descent below tolerance_change {tolerance_change:g} (absolute)"
        return "no further change: no lower loss in floating point"


def race(
    contender: Contender,
    make_layer: Callable[[], nn.Linear],
    problem: TrainingProblem,
    outlook: Outlook,
    lane: Lane,
) -> MethodResult:
    """Train a fresh layer for the lane's share of the budget and measure what it reached.

    Args:
        contender: The optimizer.
        make_layer: Makes a fresh layer, always with the same weights.
        problem: What is trained on.
        outlook: What its settings are chosen from.
        lane: Its share of the budget, a search among several settings included, and where progress is reported. A
            KeyboardInterrupt, there or anywhere, ends the training; the row then says that it was interrupted.
    """
    with one_thread(problem.X.shape[1], problem.X.device):
        settings = contender.choose(outlook)
    return race_settings(contender, settings, outlook.horizon, make_layer, problem, lane)


def race_settings(
    contender: Contender,
    settings: Sequence[Setting],
    horizon: int,
    make_layer: Callable[[], nn.Linear],
    problem: TrainingProblem,
    lane: Lane,
) -> MethodResult:
    """As :func:`race`, at settings that are chosen already; of several the best is found within the share.

    Args:
        contender: The optimizer.
        settings: What to try it at.
        horizon: About how many steps there is time for.
        make_layer: Makes a fresh layer, always with the same weights.
        problem: What is trained on.
        lane: Its share of the budget.
    """
    spent = 0.0  # by settings that were tried before

    def tick(billed: float) -> None:
        lane.tick(spent + billed)

    runs = [_Run(contender, setting, make_layer(), problem, lane.clock, tick) for setting in settings]
    if len(runs) > 1:
        for run in runs:
            run.train(until=_SEARCH_SHARE * lane.seconds)
            spent += run.clock.billed
            if run.stopped_because == INTERRUPTED:
                break
    tried = [run for run in runs if run.curve] or runs
    best = min(tried, key=lambda run: run.curve[-1].excess_loss) if len(tried) > 1 else tried[0]
    spent = sum(run.clock.billed for run in tried if run is not best)
    if tried[-1].stopped_because != INTERRUPTED:
        best.train(until=lane.seconds - spent)

    words = contender.settings.format(lr=best.setting.lr, momentum=momentum_text(best.setting.momentum), steps=horizon)
    if len(runs) > 1:
        words += f", the best of {', '.join(f'{run.setting.lr:g}' for run in tried)}"
    interrupted = any(run.stopped_because == INTERRUPTED for run in tried)
    return best.result(words, spent, INTERRUPTED if interrupted else best.stopped_because)
