"""Optimizers without a closed form, by rehearsal on the triangle: LBFGS and the Adam family."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from closedform.explain.case import Case
from closedform.explain.course import Course
from closedform.explain.finding import Finding, Severity
from closedform.explain.findings.remedies import closed_form, optimizer_code
from closedform.explain.findings.step import severity_of, shortfall
from closedform.explain.pace import LENGTH_OF_LR, box_of, farthest, reach
from closedform.explain.rehearsal import Rehearsal, iterations_of
from closedform.explain.wording import count, plural, short

__all__ = ["adaptive_blow_up", "adaptive_short", "adaptive_unsettled", "cannot_step", "lbfgs_stopped"]

#: A loss that rises this much above the lowest it was has blown up.
_BLOW_UP = 10.0
#: Weights this much further from the minimiser than rounding explains have not settled.
_UNSETTLED = 100.0
#: Relative errors of the weights that a user would see.
_VISIBLE = 1e-5
#: A run that goes to weights this much farther than it can come is held by its pace.
_OUT_OF_REACH = 0.9
#: Excess losses that fall by less than this factor from one quarter of the run to the next have settled.
_SETTLED = 0.8
#: Of the way that the largest step allows, what a run with a falling learning rate is to use.
_LARGER = 4.0
#: Steps up to which a remedy is rehearsed before it is recommended.
_MENDED = 5_000
#: A run whose excess loss is this many times the one at the start diverges.
_DIVERGES = 100.0


def cannot_step(case: Case) -> Finding | None:
    """An optimizer that refuses the gradients of a dense layer at its first step."""
    optimizer, failure = case.setting.optimizer, case.training.cannot_step
    if optimizer is None or not failure:
        return None
    return Finding(
        name="cannot_step",
        severity=Severity.ERROR,
        title=f"{optimizer.name} cannot make a step on this layer",
        evidence={"lr": optimizer.lr},
        consequence=f"{failure[0].upper()}{failure[1:].rstrip('.')}. The training loop ends there as well.",
        remedy=f"optimizer = torch.optim.Adam(model.parameters(), lr={optimizer.lr:g})\n# or at once:\n"
        + closed_form(case),
    )


def lbfgs_stopped(case: Case) -> Finding | None:
    """LBFGS that ends by its absolute tolerances or its 20 iterations, short of the goal."""
    setting, training = case.setting, case.training
    optimizer, course = setting.optimizer, training.course
    run = training.rehearsal if optimizer is not None and optimizer.kind == "lbfgs" else None
    if optimizer is None or run is None or course is None or training.reaches_goal is True:
        return None

    narrow = training.stage.narrow
    left = float(training.rehearsed_excess[-1])
    if left <= max(training.goal_excess, 1e-14 * case.landscape.spectrum.optimal_loss):
        return None if narrow is None else _lbfgs_in_float32(case, narrow)

    group = optimizer.settings
    calls = int(run.steps[-1])
    iterations = iterations_of(run) - optimizer.iterations
    gradient = _largest_gradient(case, run.weight, run.bias) * setting.loss_factor
    share = training.share(left)
    flat = gradient <= group["tolerance_grad"]
    # Calls that were not rehearsed may still bring it there, unless a tolerance ends each of them at once.
    unfinished = not flat and not training.rehearsed_in_full and setting.steps is not None and not _same_as_before(run)
    cause = _ending(case, flat=flat, unfinished=unfinished, gradient=gradient, iterations=iterations, calls=calls)
    certain = not unfinished or training.reaches_goal is False
    return Finding(
        name="lbfgs_stopped",
        severity=Severity.WARNING if unfinished or training.rounding_decides else Severity.ERROR,
        title=f"LBFGS is short of the minimum after {calls:,} of its {setting.steps:,} calls of step()"
        if unfinished
        else f"LBFGS {'may stop' if training.rounding_decides else 'stops'} short of the minimum",
        evidence={
            "excess_loss_left": left,
            "share_left": share,
            "largest_gradient": gradient,
            "tolerance_grad": float(group["tolerance_grad"]),
            "tolerance_change": float(group["tolerance_change"]),
            "iterations": float(iterations),
            "calls": float(calls),
            "excess_loss_expected": course.left,
        },
        consequence=(
            f"Rehearsed on these data for {plural(calls, 'call')} of step(), it leaves {short(share)} of "
            f"{training.share_of}: {cause}."
            + (f" {_expected(case, course, certain)}" if unfinished else "")
            + (" In float32 it goes another way: rounding decides where it stops." if training.rounding_decides else "")
        ),
        remedy=(
            "optimizer = torch.optim.LBFGS(\n"
            "    model.parameters(), max_iter=1000, tolerance_grad=0, tolerance_change=0,\n"
            '    line_search_fn="strong_wolfe",\n)\n'
            "# or at once:\n" + closed_form(case)
        ),
        excess_once_mended=0.0,
    )


def _ending(case: Case, *, flat: bool, unfinished: bool, gradient: float, iterations: int, calls: int) -> str:
    """Say what ended LBFGS, or each of its calls."""
    training, optimizer = case.training, case.setting.optimizer
    group: Mapping[str, Any] = {} if optimizer is None else optimizer.settings
    if flat:
        return (
            f"its gradient of {short(gradient)} is below tolerance_grad={group['tolerance_grad']:g}, which is absolute"
        )
    if unfinished or iterations >= calls * group["max_iter"]:
        return f"it made {plural(iterations, 'iteration')}, max_iter={group['max_iter']} in each call of step()"
    if group["line_search_fn"] is None and float(training.rehearsed_excess[-1]) > training.start_excess:
        return "without a line search its step of length lr went uphill"
    return (
        f"its last step changed weights or loss by less than tolerance_change={group['tolerance_change']:g}, "
        "which is absolute"
    )


def _expected(case: Case, course: Course, certain: bool) -> str:
    training = case.training
    sure = "" if certain else ", which is not certain to be short of the goal"
    return f"{course.known[0].upper()}{course.known[1:]}, it leaves about {short(training.share(course.left))}{sure}."


def _same_as_before(run: Rehearsal) -> bool:
    """Whether the last calls of ``step()`` changed nothing."""
    return len(run.path) > 2 and bool(torch.equal(run.path[-1], run.path[-2]))


def _lbfgs_in_float32(case: Case, narrow: Rehearsal) -> Finding | None:
    """LBFGS that comes to the goal in float64 and, rehearsed again in float32, does not."""
    training, precision = case.training, case.setting.precision
    left = float(training.stage.excess_of(narrow)[-1])
    if training.seen_in_float32:
        return None

    stops = left > training.goal_excess
    return Finding(
        name="lbfgs_stopped",
        severity=Severity.WARNING,
        title=f"LBFGS in {precision} {'stops' if stops else 'may stop'} at the last digits of the loss",
        evidence={"excess_loss_left": left, "share_left": training.share(left), "eps": precision.eps},
        consequence=(
            f"Rehearsed in float64 it comes within {short(case.setting.goal)} of the minimum; rehearsed in float32 it "
            f"leaves {short(training.share(left))} of {training.share_of}"
            + (", because its line search compares " if stops else ", but near there its line search compares ")
            + "losses that differ by less than their rounding."
        ),
        remedy="model, X, Y = model.double(), X.double(), Y.double()\n"
        "optimizer = torch.optim.LBFGS(model.parameters(), max_iter=1000, tolerance_grad=0, tolerance_change=0)\n"
        "# or at once, in float64 inside:\n" + closed_form(case),
        excess_once_mended=0.0,
    )


def _largest_gradient(case: Case, weight: Tensor, bias: Tensor | None) -> float:
    """Largest component of the gradient of ``MSELoss()``."""
    triangle = case.landscape.triangle
    if triangle is None:
        return float("nan")
    whole = weight.T if bias is None else torch.cat([bias.unsqueeze(0), weight.T])
    return (
        float((triangle.R.T @ (triangle.R @ whole - triangle.C)).abs().max())
        * 2
        / (triangle.weight_sum * triangle.targets)
    )


def adaptive_short(case: Case) -> Finding | None:
    """Adam and its kin short of the goal, by what holds them: decay, pace, size of the step, or the condition."""
    setting, training = case.setting, case.training
    optimizer = setting.optimizer
    if optimizer is None or optimizer.kind != "adam" or setting.climbs:
        return None

    run, course = training.rehearsal, training.course
    if run is None or course is None:
        return None
    if training.settles or setting.broadcasts:
        return None
    # The loss itself is known to its last digits only.
    if course.left <= max(training.goal_excess, 1e-14 * case.landscape.spectrum.optimal_loss):
        return None
    if not course.left < _DIVERGES * max(training.start_excess, training.goal_excess):
        return _diverges(case, course)
    if _at_its_ridge(case, course.left):
        return None

    distance, largest = farthest(case)
    box, way = box_of(case), reach(case)
    if box < largest and way > box:
        return _held_in_box(case, course, box, largest)
    if way < _OUT_OF_REACH * distance:
        return _held_by_pace(case, course, way, distance)
    if _circles(training.rehearsed_excess, course):
        return _too_large(case, course)

    along = case.landscape.spectrum.gaps(run.end)
    return shortfall(case, f"{optimizer.name} at lr={optimizer.lr:.3g}, {course.known},", math.nan, along, course.left)


def _diverges(case: Case, course: Course) -> Finding | None:
    optimizer, training = case.setting.optimizer, case.training
    if optimizer is None:
        return None
    end = "beyond float64" if math.isinf(course.left) else short(course.left)
    return Finding(
        name="diverges",
        severity=Severity.ERROR,
        title=f"{optimizer.name} at lr={optimizer.lr:.3g} diverges",
        evidence={"lr": optimizer.lr, "excess_loss_left": course.left, "excess_loss_at_start": training.start_excess},
        consequence=(
            f"{course.known[0].upper()}{course.known[1:]}, the excess loss goes from {short(training.start_excess)} to "
            f"{end}."
        ),
        remedy=f"{optimizer_code(case, lr=optimizer.lr / 10)}\n# or at once:\n" + closed_form(case),
    )


def _at_its_ridge(case: Case, left: float) -> bool:
    """Whether what is left is what the weight decay keeps, which is told as a ridge."""
    optimizer = case.setting.optimizer
    if optimizer is None or optimizer.decoupled or not optimizer.weight_decay:
        return False
    decay = optimizer.weight_decay / case.setting.loss_factor
    kept = case.training.predict(lr=1.0, weight_decay=decay, steps=[0]).decay_excess
    return left <= 2 * kept


def _held_in_box(case: Case, course: Course, box: float, largest: float) -> Finding | None:
    optimizer, training = case.setting.optimizer, case.training
    if optimizer is None:
        return None

    decay = optimizer.weight_decay
    return Finding(
        name="decay_box",
        severity=Severity.ERROR,
        title=(
            f"{optimizer.name} keeps weights within 1/weight_decay = {short(box)}; the minimiser has {short(largest)}"
        ),
        evidence={
            "weight_decay": decay,
            "box": box,
            "largest_weight": largest,
            "excess_loss_left": course.left,
            "share_left": training.share(course.left),
        },
        consequence=(
            f"A step moves a weight by about lr and decay takes lr * {decay:g} of it back, so none grows beyond "
            f"{short(box)}, whatever lr and steps. {course.known[0].upper()}{course.known[1:]}, it leaves "
            f"{short(training.share(course.left))} of {training.share_of}."
        ),
        remedy=optimizer_code(case, weight_decay=0.0) + "\n# or at once:\n" + closed_form(case),
        excess_once_mended=_mended(case, weight_decay=0.0),
    )


def _held_by_pace(case: Case, course: Course, way: float, distance: float) -> Finding | None:
    optimizer, training, setting = case.setting.optimizer, case.training, case.setting
    if optimizer is None:
        return None

    needed = _steps_for(case, distance, way)
    faster = optimizer.lr * _LARGER * distance / way
    left = _mended(case, falling=True, lr=faster)
    helps = left < course.left / 10
    remedy = _falling_rate(case, faster) + f"   # rehearsed: {short(training.share(left))} is left\n" if helps else ""
    remedy += ("# or at once:\n" if helps else "") + closed_form(case)

    return Finding(
        name="more_steps_needed",
        severity=Severity.ERROR,
        title=(
            f"{optimizer.name} moves a weight by about lr a step: the farthest has {short(distance)} to go, "
            f"about {count(needed)} steps"
        ),
        evidence={
            "lr": optimizer.lr,
            "farthest_weight": distance,
            "way_in_the_steps_given": way,
            "steps_needed": needed,
            "steps_given": float(setting.patience),
            "excess_loss_left": course.left,
            "share_left": training.share(course.left),
        },
        consequence=(
            f"In {setting.patience_text} it can move a weight by about {short(way)}, however large the gradient is. "
            f"{course.known[0].upper()}{course.known[1:]}, it leaves {short(training.share(course.left))} of "
            f"{training.share_of}. A larger lr, or targets scaled to about 1, is what it needs."
        ),
        remedy=remedy,
        excess_once_mended=min(left, course.left) if helps else 0.0,
    )


def _steps_for(case: Case, distance: float, way: float) -> float:
    """Steps for a way, from the way that the steps given allow."""
    optimizer = case.setting.optimizer
    # Adagrad's steps shrink like 1 / sqrt(t), so its way grows like sqrt(t).
    power = 2.0 if optimizer is not None and optimizer.name == "Adagrad" else 1.0
    return float(math.ceil(case.setting.patience * (distance / way) ** power)) if way > 0 else math.inf


def _circles(excess: Tensor, course: Course) -> bool:
    """Whether the excess loss has stopped falling, from one quarter of what was rehearsed to the next."""
    if excess.numel() < 40 or not bool(torch.isfinite(excess).all()):
        return False
    logs = excess.clamp(min=1e-300).log()
    quarter = excess.numel() // 4
    third, last = (float(part.mean()) for part in (logs[-2 * quarter : -quarter], logs[-quarter:]))
    return last >= third + math.log(_SETTLED)


def _too_large(case: Case, course: Course) -> Finding | None:
    optimizer, training, setting = case.setting.optimizer, case.training, case.setting
    if optimizer is None:
        return None

    left = _mended(case, falling=True, lr=optimizer.lr)
    helps, steady = left < course.left / 10, optimizer.name in LENGTH_OF_LR
    remedy = (_falling_rate(case, optimizer.lr) + f"   # rehearsed: {short(training.share(left))} is left\n") * helps

    return Finding(
        name="adaptive_circles",
        severity=severity_of(case, course.left) if training.reaches_goal is False else Severity.WARNING,
        title=f"{optimizer.name} at a constant lr={optimizer.lr:.3g} circles the minimum",
        evidence={
            "lr": optimizer.lr,
            "excess_loss_left": course.left,
            "share_left": training.share(course.left),
            "goal_excess_loss": training.goal_excess,
        },
        consequence=(
            ("Its steps have about the length lr wherever the gradient points, so the" if steady else "The")
            + f" loss stops falling: {course.known}, it leaves {short(training.share(course.left))} of "
            f"{training.share_of} after {setting.patience_text}. The learning rate has to fall."
        ),
        remedy=remedy + ("# or at once:\n" if helps else "") + closed_form(case),
        excess_once_mended=min(left, course.left) if helps else 0.0,
    )


def _falling_rate(case: Case, lr: float) -> str:
    lines = optimizer_code(case, lr=float(f"{lr:.3g}"))
    return (
        f"{lines}\nscheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, {case.setting.patience})"
        "   # step it after each step"
    )


def _mended(case: Case, *, falling: bool = False, **changed: float) -> float:
    """Excess loss that the user's optimizer leaves with some settings changed, rehearsed; nan where it is too long."""
    training, optimizer, steps = case.training, case.setting.optimizer, case.setting.patience
    whole = training.rehearsal is not None and int(training.rehearsal.steps[-1]) >= steps
    if optimizer is None or not whole or steps > _MENDED or case.setting.schedule is not None:
        return math.nan
    run = training.stage.changed(steps, changed, falling=falling)
    return math.nan if run is None else float(training.stage.excess_of(run)[-1])


def adaptive_blow_up(case: Case) -> Finding | None:
    """Adam's late blow-up: the loss falls, and then rises again by itself."""
    optimizer = case.setting.optimizer
    if optimizer is None or optimizer.kind != "adam":
        return None

    if case.setting.history is not None and case.setting.squared:
        recorded = case.setting.history / case.setting.loss_factor
        seen, source = (recorded - case.landscape.spectrum.optimal_loss).clamp(min=0.0), "As recorded"
        certain = True
    else:
        seen, source = case.training.rehearsed_excess, "Rehearsed on these data"
        # From where the user's arithmetic rounds, its path is no longer that of a rehearsal in float64.
        certain = not bool((seen <= case.training.rounding_excess).any())

    # On the way to the goal a jump that is over by the end of the run costs nothing.
    underway = case.setting.history is None and case.training.start_excess > case.training.goal_excess
    passes = underway and case.training.settles
    rise = _rise(case, seen)
    if rise is None:
        return None

    low, at = rise
    bottom, top = float(seen[low]), float(seen[at])
    but = (
        "" if certain else f" In {case.setting.precision} rounding decides whether and when: some runs do, some do not."
    )

    return Finding(
        name="adaptive_blow_up",
        severity=Severity.WARNING if certain and not passes else Severity.INFO,
        title=f"{optimizer.name} {'blows' if certain else 'may blow'} up after step {low:,}",
        evidence={
            "lowest_step": float(low),
            "lowest_excess_loss": bottom,
            "peak_step": float(at),
            "peak_excess_loss": top,
            "lr": optimizer.lr,
        },
        consequence=(
            f"{source}, the excess loss rises from {short(bottom)} to {short(top)} at step {at:,}: the running mean of "
            f"squared gradients shrinks with the gradient, so steps grow again.{but}"
        ),
        remedy=(
            "# a smaller step blows up later, not never:\n"
            f"{optimizer_code(case, lr=optimizer.lr / 10)}\n"
            "# or at once:\n" + closed_form(case)
        ),
    )


def _rise(case: Case, seen: Tensor) -> tuple[int, int] | None:
    """Where excess losses are lowest before they rise the most, and where they then are; None where they do not."""
    if seen.numel() < 10:
        return None
    # Below the last digits of the loss there is nothing to see.
    floor = max(1e-12 * case.landscape.spectrum.optimal_loss, 1e-20 * case.landscape.reference_excess)
    seen = torch.nan_to_num(seen, nan=float("inf")).clamp(min=floor)
    rise = seen / torch.cummin(seen, 0).values
    at = int(torch.argmax(torch.where(seen > case.training.goal_excess, rise, torch.zeros_like(rise))))
    if float(rise[at]) < _BLOW_UP or not float(seen[at]) > case.training.goal_excess:
        return None
    return int(torch.argmin(seen[: at + 1])), at


def adaptive_unsettled(case: Case) -> Finding | None:
    """A constant step per coordinate that circles the minimiser: the loss looks converged, the weights are not."""
    optimizer, spectrum = case.setting.optimizer, case.landscape.spectrum
    if (
        optimizer is None
        or optimizer.kind != "adam"
        or not case.setting.squared
        or spectrum.rank < spectrum.decision.columns
    ):
        return None

    if case.training.start_excess <= case.training.goal_excess and case.setting.model is not None:
        weights, excess = case.setting.start_matrix, case.training.start_excess
        where, seen = "The model's weights", _VISIBLE
    elif case.training.rehearsed_in_full and case.training.rehearsal is not None:
        run = case.training.rehearsal
        weights = run.weight.T if run.bias is None else torch.cat([run.bias.unsqueeze(0), run.weight.T])
        excess, where = float(case.training.rehearsed_excess[-1]), "In the rehearsal the weights"
        # So far from the minimiser are the weights of any run that is just at the goal, were the curvature even.
        seen = max(_VISIBLE, math.sqrt(case.setting.goal))
    else:
        return None

    distance = case.landscape.weight_distance(weights)
    rounding = case.setting.precision.eps * spectrum.condition
    if excess > case.training.goal_excess or distance < _UNSETTLED * rounding:
        return None

    return Finding(
        name="adaptive_unsettled",
        severity=Severity.WARNING if distance > seen else Severity.INFO,
        title=f"{optimizer.name} has come near the minimiser but not to it",
        evidence={
            "weight_distance": distance,
            "rounding": rounding,
            "excess_loss": excess,
            "lr": optimizer.lr,
            "condition": spectrum.condition,
        },
        consequence=(
            f"{where} are {short(distance)} (relative) from the minimiser, where rounding would allow "
            f"{short(rounding)}, while the excess loss is only {short(excess)}. The loss curve hides it: two runs "
            "agree in "
            "their loss and end at different weights."
        ),
        remedy=closed_form(case),
    )
