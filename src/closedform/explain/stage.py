"""Where the user's optimizer is rehearsed: as it is, in another loop, with other settings, in its own arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor, nn

from closedform.explain.landscape import Landscape
from closedform.explain.readers.schedules import FOLLOWED, replay
from closedform.explain.rehearsal import AS_USUAL, Loop, Rehearsal, rehearse
from closedform.explain.sampling import DrawnRuns, Draws, rehearse_batches
from closedform.explain.setting import Setting
from closedform.explain.stepping import can_continue, continued
from closedform.words.errors import InputError

__all__ = ["Stage"]

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
#: Roundings by which a second rehearsal starts elsewhere, to see whether they matter.
_ROUNDINGS = 4.0
#: Relative change of weights that lie at a fixed point, to see whether it holds a run: rounding does as much.
_NUDGE = 1e-6


@final
@dataclass(frozen=True)
class Stage:
    """Rehearsals of the user's optimizer on the triangle, from the model's weights; None where it cannot be rehearsed.

    Attributes:
        setting: What the user trains with.
        landscape: What the rows say.
        rounding_excess: Excess losses below this are rounding of residuals in the arithmetic that is trained in.
        starts_there: Whether the run starts at the goal.
    """

    setting: Setting
    landscape: Landscape
    rounding_excess: float
    starts_there: bool

    @property
    def open(self) -> bool:
        """Whether it can be rehearsed at all: a known optimizer on all rows, and the squared error."""
        optimizer, setting = self.setting.optimizer, self.setting
        if optimizer is None or optimizer.kind == "other" or optimizer.frozen:
            return False
        return setting.squared and setting.full_batch and self.landscape.spectrum.in_range

    @cached_property
    def _draws(self) -> Draws | None:
        """What the user's batches are drawn from; None where not all rows are at hand, or a forecast knows them."""
        setting, optimizer, moments = self.setting, self.setting.optimizer, self.landscape.moments
        if setting.full_batch or moments is None or setting.batch_size is None or optimizer is None:
            return None
        if not setting.squared or optimizer.kind == "other" or optimizer.frozen:
            return None
        if optimizer.kind == "sgd" and not optimizer.no_closed_form:
            return None
        if moments.rows.shape[0] != setting.table.n_rows or self.landscape.spectrum.rank == 0:
            return None
        sign = -1.0 if setting.criterion is not None and setting.criterion.factor < 0 else 1.0
        return Draws(self.landscape.spectrum, moments, setting.batch_size, sign * setting.batch_factor)

    @property
    def own(self) -> Rehearsal | None:
        """The optimizer on the triangle, from the model's weights, for as many steps as are cheap."""
        return self._tried[0]

    @property
    def failure(self) -> str:
        """Why the optimizer cannot make a step, as the user's own loop will find as well; empty where it can."""
        return self._tried[1]

    @cached_property
    def _tried(self) -> tuple[Rehearsal | None, str]:
        try:
            if self._draws is not None:
                return (None if self.drawn is None else self.drawn.first), ""
            if self.setting.optimizer is None or not self.open or self.landscape.triangle is None:
                return None, ""
            return self._from(0.0), ""
        except InputError as error:
            return None, str(error)

    @cached_property
    def drawn(self) -> DrawnRuns | None:
        """The optimizer on batches, in some draws of them; None where there is none to be rehearsed so."""
        optimizer = self.setting.optimizer
        return None if optimizer is None else self._on_batches(optimizer.make, self._scheduled)

    def _on_batches(
        self,
        make: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
        after_step: Callable[[], Callable[[torch.optim.Optimizer], None] | None],
        steps: int | None = None,
    ) -> DrawnRuns | None:
        draws, setting = self._draws, self.setting
        if draws is None or setting.optimizer is None:
            return None
        weight, bias = setting.start
        return rehearse_batches(
            draws,
            make,
            name=setting.optimizer.name,
            steps=setting.patience if steps is None else steps,
            evaluations=int(setting.optimizer.settings.get("max_iter", 1)),
            weight=weight,
            bias=bias,
            after_step=after_step,
        )

    def _scheduled(self) -> Callable[[torch.optim.Optimizer], None] | None:
        """What a schedule does after each step; None without one."""
        schedule = self.setting.schedule
        return None if schedule is None else replay(schedule.follow(min(self.setting.patience, FOLLOWED)))

    @cached_property
    def twin(self) -> Rehearsal | None:
        """The same from weights a few roundings away, for optimizers whose path may depend on them; else None."""
        optimizer = self.setting.optimizer
        if self.own is None or optimizer is None or optimizer.kind not in ("adam", "lbfgs") or not self.open:
            return None
        return self._from(_ROUNDINGS * self.setting.precision.product_eps)

    def _from(self, nudge: float) -> Rehearsal | None:
        calls, kind = self.setting.patience, "" if self.setting.optimizer is None else self.setting.optimizer.kind
        if kind == "lbfgs" and self.setting.steps is None:
            calls = min(calls, _LBFGS_CALLS)
        if calls > _WARM and kind == "adam":
            return self._in_numpy(calls, nudge) or self.run(calls, nudge=nudge)
        return self.run(calls, nudge=nudge)

    def _in_numpy(self, steps: int, nudge: float) -> Rehearsal | None:
        """The rehearsal, begun by torch and continued in NumPy; None where the two do not make the same steps."""
        spectrum, setting = self.landscape.spectrum, self.setting
        first, more = self.run(_WARM - _CHECKED, nudge=nudge), self.run(_WARM, nudge=nudge)
        if first is None or more is None or more.stopped or not can_continue(more):
            return None

        cost = _NUMPY_STEP + 8 * spectrum.directions.shape[1] ** 2 * spectrum.n_targets * _FLOP
        steps = min(steps, max(_WARM, int(_NUMPY_SECONDS / cost)))

        rates: tuple[float, ...] = ()
        if setting.schedule is not None:
            coming = setting.schedule.follow(min(steps, FOLLOWED))
            if any(set(groups[0]) - {"lr"} and groups[0] | {"lr": 0} != coming[0][0] | {"lr": 0} for groups in coming):
                return None
            rates = tuple(float(groups[0]["lr"]) for groups in coming)

        sign = -1.0 if setting.criterion is not None and setting.criterion.factor < 0 else 1.0
        factor = sign * setting.loss_factor
        rounding = setting.precision.product_eps
        checked = continued(spectrum, first, _WARM, factor, rates, rounding)
        nothing = 1e-9 * float(more.loss[0]) + self.rounding_excess
        if bool(((checked.loss - more.loss).abs() > 1e-6 * more.loss + 1e-6 * nothing).any()):
            return None

        # Two runs that meet at the minimum would round alike from there on: the second one is shaken by as much.
        return continued(spectrum, more, steps, factor, rates, rounding, shaken=bool(nudge))

    def run(
        self,
        steps: int,
        loop: Loop = AS_USUAL,
        factor: float = 1.0,
        nudge: float = 0.0,
        rate: float = 1.0,
        **options: Any,
    ) -> Rehearsal | None:
        """Rehearse the user's optimizer as the user's loop, or another one, would drive it.

        Args:
            steps: Steps to make, if they are cheap enough.
            loop: What becomes of gradients.
            factor: What the user's loss is multiplied by.
            nudge: By what share of the way to the minimiser the start is moved.
            rate: What the user's learning rates are multiplied by.
            options: Passed on to :func:`closedform.explain.rehearsal.rehearse`.
        """
        setting, optimizer, triangle = self.setting, self.setting.optimizer, self.landscape.triangle
        if optimizer is None or triangle is None or not self.open:
            return None

        weight, bias = setting.start
        if optimizer.kind == "sgd" and self.starts_there:
            weight = weight * (1 + _NUDGE)
        if nudge:
            minimiser = self.landscape.spectrum.minimiser
            weight = weight + nudge * ((minimiser if bias is None else minimiser[1:]).T - weight)
        cost = _STEP + 6 * triangle.columns**2 * triangle.targets * _FLOP
        # LBFGS makes its directions of the last hundred gradients, which costs about as much again.
        evaluations = max(10, int(_SECONDS / cost / (2 if optimizer.kind == "lbfgs" else 1)))
        if optimizer.kind != "lbfgs":
            steps = min(steps, evaluations)
        after_step = None
        if setting.schedule is not None:
            coming = setting.schedule.follow(min(steps, evaluations))
            after_step = replay([[group | {"lr": group["lr"] * rate} for group in groups] for groups in coming])
        sign = -1.0 if setting.criterion is not None and setting.criterion.factor < 0 else 1.0

        return rehearse(
            triangle,
            optimizer.make if rate == 1.0 else _at_rate(optimizer.make, rate),
            steps=steps,
            weight=weight,
            bias=bias,
            factor=sign * setting.loss_factor * factor,
            after_step=after_step,
            evaluations=evaluations,
            loop=loop,
            **options,
        )

    def changed(self, steps: int, changed: Mapping[str, float], *, falling: bool = False) -> float:
        """Rehearse the user's optimizer with some of its settings changed; return the excess loss that it leaves.

        Args:
            steps: Steps to make.
            changed: Settings by name.
            falling: Whether the learning rate falls to zero over the steps, evenly.

        Returns:
            The excess loss, of batches the mean over their draws; nan where it cannot be rehearsed.
        """
        setting, optimizer, triangle = self.setting, self.setting.optimizer, self.landscape.triangle
        if optimizer is None:
            return math.nan
        make, lr = optimizer.make, float(changed.get("lr", optimizer.lr))

        def other(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
            twin = make(parameters)
            for group in twin.param_groups:
                group.update(changed)
            return twin

        def fall() -> Callable[[torch.optim.Optimizer], None] | None:
            return _falling(lr, steps) if falling else None

        drawn = self._on_batches(other, fall, steps)
        if drawn is not None:
            return float(drawn.excess[-1].mean()) if drawn.excess.shape[0] > steps else math.nan
        if triangle is None or not self.open:
            return math.nan
        weight, bias = setting.start
        run = rehearse(
            triangle, other, steps=steps, weight=weight, bias=bias, factor=setting.loss_factor, after_step=fall()
        )
        return float(self.excess_of(run)[-1])

    @cached_property
    def narrow(self) -> Rehearsal | None:
        """LBFGS again in float32, where that is trained in: its line searches live by the last digits of the loss."""
        optimizer = self.setting.optimizer
        if optimizer is None or optimizer.kind != "lbfgs" or self.setting.precision.dtype == torch.float64:
            return None
        if self.own is None or not self.open:
            return None
        return self.run(max(1, int(self.own.steps[-1])), dtype=torch.float32)

    @cached_property
    def narrow_beside(self) -> Rehearsal | None:
        """The same once more from a start that float32 hardly tells from it: the sums are the same but for rounding.

        Two runs that end alike are not at the mercy of it.
        """
        if self.narrow is None:
            return None
        nudge = torch.finfo(torch.float32).eps
        return self.run(max(1, int(self.narrow.steps[-1])), dtype=torch.float32, nudge=nudge)

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


def _at_rate(
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], rate: float
) -> Callable[[list[nn.Parameter]], torch.optim.Optimizer]:
    """What makes the optimizer with its learning rates multiplied."""

    def scaled(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        twin = make(parameters)
        for group in twin.param_groups:
            group["lr"] *= rate
        return twin

    return scaled


def _falling(lr: float, steps: int) -> Callable[[torch.optim.Optimizer], None]:
    """What takes a learning rate to zero, evenly, when called after each step."""
    rates = iter(range(steps - 1, -1, -1))

    def fall(twin: torch.optim.Optimizer) -> None:
        left = next(rates, 0)
        for group in twin.param_groups:
            group["lr"] = lr * left / steps

    return fall
