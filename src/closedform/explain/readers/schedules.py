"""Read a learning-rate schedule: a copy of it is followed, for the settings of every coming step."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch

from closedform.words.errors import DataTypeError, InputError

__all__ = ["FOLLOWED", "Schedule", "Settings", "read_schedule", "replay"]

#: A schedule is followed for so many steps, which is plain Python; the last settings go on from there.
FOLLOWED = 20_000
#: The settings that schedules change, for each parameter group.
Settings = list[dict[str, Any]]
_SCHEDULED = ("lr", "momentum", "betas", "weight_decay")


@final
@dataclass(frozen=True)
class Schedule:
    """A scheduler as it was at the call, with a copy of its optimizer.

    Attributes:
        name: Name of its class.
    """

    name: str
    _twin: Any

    def follow(self, steps: int) -> list[Settings]:
        """Return the settings of the optimizer in each of the coming steps, if the scheduler is stepped once a step.

        Args:
            steps: How many steps are followed.

        Raises:
            InputError: a scheduler that needs a metric, or has fewer steps left.
        """
        with warnings.catch_warnings():
            # The copy is stepped without its optimizer, which torch would warn of.
            warnings.simplefilter("ignore")
            twin = copy.deepcopy(self._twin)
            found: list[Settings] = []
            for step in range(steps):
                groups = twin.optimizer.param_groups
                found.append([{key: _now(group[key]) for key in _SCHEDULED if key in group} for group in groups])
                if step == steps - 1:
                    break
                try:
                    twin.step()
                except (TypeError, AttributeError) as error:
                    raise InputError(
                        f"scheduler: {self.name} cannot be followed without its metric ({error}); leave scheduler= out."
                    ) from error
                except ValueError as error:  # OneCycleLR, for one, ends
                    raise InputError(
                        f"scheduler: {self.name} refuses step {len(found) + 1:,} ({error}); pass steps= as "
                        "many as it has left."
                    ) from error
                except (ArithmeticError, LookupError, RuntimeError) as error:  # of a function of the user's own
                    raise InputError(
                        f"scheduler: {self.name} raises {type(error).__name__} at step {len(found) + 1:,} ({error})."
                    ) from error

        return found


def _now(value: Any) -> Any:
    """The value of a setting at this step: a scheduler writes on a learning rate that is a tensor."""
    return float(value) if isinstance(value, torch.Tensor) else value


def read_schedule(scheduler: Any, optimizer: Any) -> Schedule:
    """Copy a scheduler of the optimizer.

    Raises:
        DataTypeError: not a ``torch.optim.lr_scheduler``.
        InputError: the scheduler of another optimizer.
    """
    if not isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler):
        raise DataTypeError(f"scheduler is a {type(scheduler).__name__}; a torch.optim.lr_scheduler is needed.")
    if scheduler.optimizer is not optimizer:
        raise InputError("the scheduler belongs to another optimizer than the one given as optimizer=.")
    return Schedule(type(scheduler).__name__, copy.deepcopy(scheduler))


def replay(settings: list[Settings]) -> Callable[[torch.optim.Optimizer], None]:
    """Return a function to call after every step, which puts the next settings into an optimizer."""
    coming = iter(settings[1:])

    def after_step(optimizer: torch.optim.Optimizer) -> None:
        for group, new in zip(optimizer.param_groups, next(coming, []), strict=False):
            group.update(new)

    return after_step
