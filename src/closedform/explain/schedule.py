"""A learning-rate schedule, followed on a copy: the settings of every coming step, and where plain SGD ends."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from closedform.words.errors import InputError

__all__ = ["Settings", "excess_under", "follow", "replay"]

#: The settings that schedules change, for each parameter group.
Settings = list[dict[str, Any]]
_SCHEDULED = ("lr", "momentum", "betas", "weight_decay")


def follow(scheduler: Any, steps: int) -> list[Settings]:
    """Return the settings of the optimizer in each of the coming steps, by a copy of its scheduler.

    Args:
        scheduler: A ``torch.optim.lr_scheduler`` that is stepped once per step.
        steps: How many steps are followed.

    Raises:
        InputError: a scheduler that needs a metric, or has fewer steps left.
    """
    with warnings.catch_warnings():
        # The copy is stepped without its optimizer, which torch would warn of.
        warnings.simplefilter("ignore")
        twin = copy.deepcopy(scheduler)
        found = []
        for step in range(steps):
            groups = twin.optimizer.param_groups
            found.append([{key: group[key] for key in _SCHEDULED if key in group} for group in groups])
            if step == steps - 1:
                break
            try:
                twin.step()
            except (TypeError, AttributeError) as error:
                raise InputError(
                    f"scheduler: {type(scheduler).__name__} cannot be followed without its metric ({error}); leave "
                    "scheduler= out."
                ) from error
            except ValueError as error:  # OneCycleLR, for one, ends
                raise InputError(
                    f"scheduler: {type(scheduler).__name__} refuses step {len(found) + 1:,} ({error}); pass steps= as "
                    "many as it has left."
                ) from error
    return found


def replay(settings: list[Settings]) -> Callable[[torch.optim.Optimizer], None]:
    """Return a function to call after every step, which puts the next settings into an optimizer."""
    coming = iter(settings[1:])

    def after_step(optimizer: torch.optim.Optimizer) -> None:
        for group, new in zip(optimizer.param_groups, next(coming, []), strict=False):
            group.update(new)

    return after_step


def excess_under(rates: Tensor, eigenvalues: Tensor, start: Tensor, steps: int) -> Tensor:
    """Return the excess loss that plain gradient descent leaves along each direction under a schedule.

    Args:
        rates: Learning rate of each step, ``(followed,)``; beyond them the last one goes on.
        eigenvalues: Of the Hessian, ``(directions,)``.
        start: Excess loss at the start, ``(directions,)``.
        steps: Steps of the run, at least ``followed``.

    Example:
        >>> rates, h = torch.tensor([0.5, 0.25]), torch.tensor([1.0])
        >>> excess_under(rates, h, torch.tensor([16.0]), 2)
        tensor([2.2500])
    """
    logs = torch.zeros_like(eigenvalues)
    for lr, times in zip(*(values.tolist() for values in torch.unique(rates, return_counts=True)), strict=True):
        logs = logs + times * _log_distance(lr * eigenvalues)
    if steps > rates.numel():
        logs = logs + (steps - rates.numel()) * _log_distance(float(rates[-1]) * eigenvalues)
    return start * torch.exp(2 * logs)


def _log_distance(moved: Tensor) -> Tensor:
    """``log |1 - moved|``, accurate for small numbers."""
    return torch.where(moved < 0.5, torch.log1p(-moved.clamp(max=0.5)), (1 - moved).abs().log())
