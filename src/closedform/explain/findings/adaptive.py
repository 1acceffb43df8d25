"""Adam and its kin short of the goal, by what holds them: decay, pace, the size of their steps, batches."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from closedform.explain.case import Case
from closedform.explain.course import Course
from closedform.explain.extrapolation import has_settled
from closedform.explain.finding import Finding, Severity
from closedform.explain.findings.remedies import closed_form, optimizer_code
from closedform.explain.findings.step import severity_of
from closedform.explain.findings.steps_needed import shortfall
from closedform.explain.pace import LENGTH_OF_LR, box_of, farthest, reach
from closedform.explain.wording import count, short

__all__ = ["adaptive_short", "cannot_step"]

#: A run that goes to weights this much farther than it can come is held by its pace.
_OUT_OF_REACH = 0.9
#: Of the way that the largest step allows, what a run with a falling learning rate is to use.
_LARGER = 4.0
#: Steps up to which a remedy is rehearsed before it is recommended.
_MENDED = 5_000
#: What is left has to fall by this factor, rehearsed, for a cause to be named.
_HELPS = 10.0
#: Share of the largest gradient at the start from which on eps is felt on the way.
_FELT = 1e-3
#: A share of eps that is tried.
_SMALLER = 1e-6
#: A condition number up to which no direction is slow by its curvature.
_EVEN = 10.0
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
    if optimizer.lr == 0:
        return _moves_nothing(case)
    # Batches take a run that starts at the minimum up to their noise, which is no divergence.
    scale = training.goal_excess if setting.full_batch else case.landscape.reference_excess
    if not course.left < _DIVERGES * max(training.start_excess, scale):
        return _diverges(case, course)
    if _at_its_ridge(case, course.left):
        return None

    distance, largest = farthest(case)
    box, way = box_of(case), reach(case)
    if box < largest and way > box:
        return _held_in_box(case, course, box, largest)
    if way < _OUT_OF_REACH * distance:
        return _held_by_pace(case, course, way, distance)
    if _circles(training.rehearsed_excess):
        return _too_large(case, course)

    if not setting.full_batch and training.reaches_goal is None:
        return None
    held = _held_by_decay(case, course) or _held_by_eps(case, course)
    if held is not None:
        return held
    along = case.landscape.spectrum.gaps(run.end)
    found = shortfall(case, f"{optimizer.name} at lr={optimizer.lr:.3g}, {course.known},", math.nan, along, course.left)
    if setting.full_batch and case.landscape.spectrum.condition > _EVEN:
        return found
    # No direction is slow by its curvature: it is the optimizer's own pace, or the batches.
    return replace(found, title=f"{optimizer.name} is short of the minimum after {setting.patience_text}")


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


def _moves_nothing(case: Case) -> Finding:
    training = case.training
    return Finding(
        name="lr_starved",
        severity=Severity.ERROR,
        title="lr=0 moves nothing",
        evidence={"lr": 0.0, "excess_loss_left": training.start_excess},
        consequence=f"All of {training.share_of} is left, however many steps there are.",
        remedy=closed_form(case),
        excess_once_mended=0.0,
    )


def _held_by_decay(case: Case, course: Course) -> Finding | None:
    """Weight decay beside the gradient, without which the same run comes much nearer, rehearsed."""
    optimizer, training = case.setting.optimizer, case.training
    if optimizer is None or not optimizer.decoupled or not optimizer.weight_decay:
        return None
    left = _mended(case, weight_decay=0.0)
    if not left < course.left / _HELPS:
        return None
    return Finding(
        name="decay_box",
        severity=severity_of(case, course.left),
        title=f"{optimizer.name}'s weight_decay={optimizer.weight_decay:g} holds weights away from the minimiser",
        evidence={"weight_decay": optimizer.weight_decay, "excess_loss_left": course.left, "once_mended": left},
        consequence=(
            f"It takes lr * {optimizer.weight_decay:g} of each weight at every step, which steps towards the minimum "
            f"have to make up for. {course.known[0].upper()}{course.known[1:]}, the run leaves "
            f"{short(training.share(course.left))} of {training.share_of}; without decay {short(training.share(left))}."
        ),
        remedy=optimizer_code(case, weight_decay=0.0) + "\n# or at once:\n" + closed_form(case),
        excess_once_mended=left,
    )


def _held_by_eps(case: Case, course: Course) -> Finding | None:
    """A loss so small that eps, not the gradient, is what steps are divided by."""
    optimizer, training = case.setting.optimizer, case.training
    eps = 0.0 if optimizer is None else optimizer.settings.get("eps", 0.0)
    triangle, setting = case.landscape.triangle, case.setting
    if optimizer is None or not isinstance(eps, float) or eps <= 0 or optimizer.name not in LENGTH_OF_LR:
        return None
    if triangle is None:
        return None
    gradient = triangle.R.T @ (triangle.R @ setting.start_matrix - triangle.C)
    largest = float(gradient.abs().max()) * 2 * setting.loss_factor / (triangle.weight_sum * triangle.targets)
    if eps < _FELT * largest:
        return None

    left = _mended(case, eps=eps * _SMALLER)
    if not left < course.left / _HELPS:
        return None
    return Finding(
        name="eps_too_large",
        severity=severity_of(case, course.left),
        title=f"The gradients are so small that {optimizer.name}'s eps={eps:g} holds its steps down",
        evidence={"eps": eps, "excess_loss_left": course.left, "once_mended": left},
        consequence=(
            f"Steps are divided by the size of the gradient plus eps. {course.known[0].upper()}{course.known[1:]}, the "
            f"run leaves {short(training.share(course.left))} of {training.share_of}; with eps={eps * _SMALLER:g}, or "
            f"a loss as many times larger, {short(training.share(left))}."
        ),
        remedy=optimizer_code(case, eps=eps * _SMALLER) + "\n# or at once:\n" + closed_form(case),
        excess_once_mended=left,
    )


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


def _circles(excess: Tensor) -> bool:
    """Whether the excess loss has stopped falling, from one quarter of what was rehearsed to the next."""
    if excess.numel() < 40 or not bool(torch.isfinite(excess).all()):
        return False
    return has_settled(excess)


def _too_large(case: Case, course: Course) -> Finding | None:
    optimizer, training, setting = case.setting.optimizer, case.training, case.setting
    if optimizer is None:
        return None

    left = _mended(case, falling=True, lr=optimizer.lr)
    helps, steady = left < course.left / 10, optimizer.name in LENGTH_OF_LR
    remedy = (_falling_rate(case, optimizer.lr) + f"   # rehearsed: {short(training.share(left))} is left\n") * helps

    rate = f"a constant lr={optimizer.lr:.3g}" if setting.schedule is None else f"the lr of its {setting.schedule.name}"
    title = f"{optimizer.name} at {rate} circles the minimum"
    why = "Its steps have about the length lr wherever the gradient points, so the" if steady else "The"
    if not setting.full_batch:
        title = f"{optimizer.name} at {rate} on batches of {setting.batch_size} stops at a noise floor"
        why = "Every batch has a gradient of its own, which does not vanish at the minimum of all rows, so the"
    return Finding(
        name="adaptive_circles",
        severity=severity_of(case, course.left) if training.reaches_goal is False else Severity.WARNING,
        title=title,
        evidence={
            "lr": optimizer.lr,
            "excess_loss_left": course.left,
            "share_left": training.share(course.left),
            "goal_excess_loss": training.goal_excess,
        },
        consequence=(
            f"{why} loss stops falling: {course.known}, it leaves {short(training.share(course.left))} of "
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
    return training.stage.changed(steps, changed, falling=falling)
