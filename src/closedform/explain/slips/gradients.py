"""Gradients that are not those of the loss: never zeroed, of the wrong sign, cut off."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from closedform.explain.case import Case
from closedform.explain.comparing import Comparison, fits
from closedform.explain.rehearsal import Loop
from closedform.explain.slips.slip import Slip, rates_of
from closedform.explain.wording import short

__all__ = ["clipped", "never_zeroed", "uphill"]

#: Steps between two zeroings of gradients that people set, beside one.
_SELDOM = (2, 4, 8, 10, 16)
#: Lengths that gradients are clipped to, as people set them; the longest that fits is said.
_CLIPPED = (10.0, 5.0, 2.0, 1.0, 0.5, 0.25, 0.1, 0.05, 0.01)
#: Halvings that find a value to as many binary digits.
_BISECTIONS = 20
#: A value cuts gradients off where it is below this share of the largest of them.
_CUTS = 0.99


def never_zeroed(case: Case, found: Comparison) -> Slip | None:
    """Gradients that add up, over the whole run or over so many steps."""
    if not fits(case, found, Loop(zeroed_every=0)):
        return _seldom_zeroed(case, found)
    return Slip(
        "Gradients are never zeroed: the record is that of a run whose gradients add up",
        "Added up, they act like momentum 1, which swings around the minimum and never settles.",
        "optimizer.zero_grad()   # before each loss.backward()",
    )


def _seldom_zeroed(case: Case, found: Comparison) -> Slip | None:
    for steps in _SELDOM:
        if found.recorded.numel() * found.every > steps and fits(case, found, Loop(zeroed_every=steps)):
            return Slip(
                f"Gradients are zeroed every {steps} steps only: in between they add up",
                "The loop steps after each backward(), and zeroes as if it stepped once in so many of them.",
                "optimizer.zero_grad()   # before each loss.backward(), or step() only where it zeroes as well",
            )
    return None


def uphill(case: Case, found: Comparison) -> Slip | None:
    """Steps along the gradient and not against it."""
    if not fits(case, found, Loop(), -1.0):
        return None
    return Slip(
        "The recorded run goes uphill: its gradient has the wrong sign",
        "Every step makes the error larger: the loss that was differentiated is minus this one, or maximize was set.",
        "optimizer.param_groups[0]['maximize'] = False   # and loss.backward() of the loss, not of minus the loss",
    )


def clipped(case: Case, found: Comparison) -> Slip | None:
    """Gradients that are shortened, or whose components are cut off."""
    triangle, optimizer = case.landscape.triangle, case.setting.optimizer
    if triangle is None or optimizer is None or optimizer.kind not in ("sgd", "adam"):
        return None

    start = case.setting.start_matrix
    gradient = triangle.R.T @ (triangle.R @ start - triangle.C) * (2 / (triangle.weight_sum * triangle.targets))
    length = float(torch.linalg.vector_norm(gradient)) * case.setting.loss_factor
    rates = rates_of(case, found)
    # A step of Adam has its length whatever that of the gradient: which clipping it was, only later steps tell.
    told = optimizer.kind == "sgd" and bool(rates)
    tried = [rates[0] * length] if told else list(_CLIPPED)
    for longest in tried:
        if 0 < longest < length and fits(case, found, Loop(max_norm=longest)):
            return Slip(
                f"The recorded run clips its gradients to a length of {longest:.4g}" + ("" if told else " or less"),
                f"At the start they are {short(length / longest)} times longer, and the optimizer sees them shortened.",
                f"torch.nn.utils.clip_grad_norm_(model.parameters(), {2 * length:.3g})   # or no clipping",
            )
    return _clipped_by_value(case, found, float(gradient.abs().max()) * case.setting.loss_factor)


def _clipped_by_value(case: Case, found: Comparison, largest: float) -> Slip | None:
    """Components of the gradient that are cut off at the values that people set, and at what the first step tells."""
    for value in (*(value for value in _CLIPPED if value < largest), *_value_by_first_step(case, found, largest)):
        if fits(case, found, Loop(max_value=value)):
            return Slip(
                f"The recorded run clips each component of its gradients to {value:.4g}",
                f"At the start the largest is {short(largest)}, and the optimizer sees it cut off.",
                f"torch.nn.utils.clip_grad_value_(model.parameters(), {2 * largest:.3g})   # or no clipping",
            )
    return None


def _value_by_first_step(case: Case, found: Comparison, largest: float) -> Iterator[float]:
    """Yield the value at which a step of SGD leads to the second loss, which falls with the value: by bisection."""
    optimizer = case.setting.optimizer
    if optimizer is None or optimizer.kind != "sgd" or found.every != 1 or not found.starts:
        return
    low, high, second = 0.0, largest, float(found.recorded[1])
    for _ in range(_BISECTIONS):
        value = (low + high) / 2
        run = case.training.stage.run(1, Loop(max_value=value))
        if run is None:
            return
        low, high = (value, high) if float(run.loss[1]) > second else (low, value)
    if high < _CUTS * largest:
        yield high
