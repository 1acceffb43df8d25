"""The learning rates of a recorded run, found one after the other from its losses."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from closedform.explain.case import Case
from closedform.explain.readers.schedules import replay
from closedform.explain.rehearsal import TriangleLoss

__all__ = ["recorded_rates"]

#: Optimizers whose next step is their learning rate times what does not depend on it.
_PROPORTIONAL = ("SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Muon", "NAdam", "RAdam", "RMSprop")
#: Rates are found as long as rounding of the recorded loss moves them by less than this share.
_SHARP = 0.01
#: Roundings that a recorded loss may be off by.
_ROUNDINGS = 8.0


def recorded_rates(case: Case, losses: Tensor) -> list[float]:
    """Return the learning rate of each recorded step as a multiple of the one given; as many as the losses tell.

    Under a schedule the one given is that which it sets for the step. The user's optimizer makes each step on the
    triangle. Along it the loss is a parabola, and where that has the value that was recorded next is where the recorded
    run went.

    Args:
        case: The case.
        losses: What was recorded after one step, after two, ..., as ``MSELoss()``.
    """
    setting, triangle, optimizer = case.setting, case.landscape.triangle, case.setting.optimizer
    if optimizer is None or triangle is None or optimizer.name not in _PROPORTIONAL:
        return []

    sign = -1.0 if setting.criterion is not None and setting.criterion.factor < 0 else 1.0
    loss = TriangleLoss(triangle, *setting.start, factor=sign * setting.loss_factor)
    rates: list[float] = []
    coming = [] if setting.schedule is None else setting.schedule.follow(min(len(losses) + 1, setting.patience))
    after_step = replay(coming)
    with torch.random.fork_rng(devices=[]):
        twin = optimizer.make(loss.parameters)
        for value in losses.tolist():
            before = [parameter.detach().clone() for parameter in loss.parameters]
            twin.zero_grad()
            here = float(loss.add_gradients_()) / loss.factor
            twin.step()
            moved = [parameter.detach() - old for parameter, old in zip(loss.parameters, before, strict=True)]
            slope, bend = _along(loss, before, moved)
            rate = _root(bend, slope, here - value, rates[-1] if rates else 1.0)
            wrong = _ROUNDINGS * setting.precision.product_eps * abs(value)
            if rate is None or abs(slope + 2 * bend * rate) * abs(rate) * _SHARP < wrong:
                break

            rates.append(rate)
            with torch.no_grad():
                for parameter, old, step in zip(loss.parameters, before, moved, strict=True):
                    parameter.copy_(old + rate * step)
            after_step(twin)
    return rates


def _along(loss: TriangleLoss, at: list[Tensor], moved: list[Tensor]) -> tuple[float, float]:
    """Slope and bend of the mean squared error from some parameters along a step."""
    residual, change = loss.outputs(at) - loss.targets, loss.outputs(moved)
    return 2 * float((residual * change).sum()) / loss.count, float(change.square().sum()) / loss.count


def _root(bend: float, slope: float, height: float, near: float) -> float | None:
    """The positive root of ``bend x^2 + slope x + height`` next to a number, by ratio; None where there is none."""
    inside = slope * slope - 4 * bend * height
    if not math.isfinite(inside) or inside < 0 or bend == 0:
        return None
    far = -(slope + math.copysign(math.sqrt(inside), slope)) / 2
    roots = [root for root in (far / bend, height / far if far else 0.0) if root > 0]
    return min(roots, key=lambda root: abs(math.log(root / near)), default=None)
