"""What was done to find the minimiser of a convex criterion, stage by stage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, final

import torch

from closedform.words.numbers import plural

__all__ = ["NOTHING_DONE", "ConvexPlan", "Stage", "rounding_to"]


@final
@dataclass(frozen=True)
class Stage:
    """One thing that was done.

    Attributes:
        name: What it is called.
        how: In which arithmetic and by which means, and what was changed for it.
        steps: Newton steps.
        passes: Reads of the rows.

    Example:
        >>> print(Stage("Newton's method", "a factor of the Hessian", 4, 9))
        Newton's method: a factor of the Hessian (4 steps, 9 reads)
    """

    name: str
    how: str
    steps: int = 0
    passes: int = 0

    def __str__(self) -> str:
        counts = [plural(self.steps, "step")] if self.steps else []
        counts += [plural(self.passes, "read")] if self.passes else []
        return f"{self.name}: {self.how}" + (f" ({', '.join(counts)})" if counts else "")


@final
@dataclass(frozen=True, repr=False)
class ConvexPlan:
    """All stages of a fit, in order: no shift, cast or change of method is left out.

    Attributes:
        stages: The stages.
    """

    stages: tuple[Stage, ...] = ()

    @staticmethod
    def of(stages: Iterable[Stage]) -> ConvexPlan:
        """Return the plan of some stages; those that are the same but for their counts become one.

        Args:
            stages: In order.

        Example:
            >>> ConvexPlan.of([Stage("a", "b", 1), Stage("a", "b", 2)]).stages
            (Stage(name='a', how='b', steps=3, passes=0),)
        """
        found: dict[tuple[str, str], Stage] = {}
        for stage in stages:
            before = found.get((stage.name, stage.how), Stage(stage.name, stage.how))
            found[stage.name, stage.how] = Stage(
                stage.name, stage.how, before.steps + stage.steps, before.passes + stage.passes
            )
        return ConvexPlan(tuple(found.values()))

    def to_dict(self) -> dict[str, Any]:
        """Return the stages as plain values for JSON."""
        return {"stages": [asdict(stage) for stage in self.stages]}

    def __str__(self) -> str:
        return "\n".join(f"done: {stage}" for stage in self.stages)

    __repr__ = __str__


#: The plan without a stage.
NOTHING_DONE = ConvexPlan()


def rounding_to(dtype: torch.dtype) -> tuple[Stage, ...]:
    """Return the stage of rounding weights to the dtype of a layer; none for float64, in which they were computed.

    Args:
        dtype: That dtype.
    """
    if dtype == torch.float64:
        return ()
    return (Stage("rounding", f"the weights from float64 to {str(dtype).removeprefix('torch.')}"),)
