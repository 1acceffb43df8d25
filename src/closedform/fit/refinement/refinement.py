"""What a way to refine is."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from torch import Tensor

from closedform.fit.problem import Problem
from closedform.numerics.host import Vector, lengths

__all__ = ["GOAL", "MOST_ROUNDS", "Refined", "Refinement", "magnitude"]

#: Relative size of what is left at which refinement has nothing more to repair.
GOAL = 2 * sys.float_info.epsilon
#: Rounds after which a refinement that still gains is left to the certificate.
MOST_ROUNDS = 8


@final
@dataclass(frozen=True, eq=False)
class Refined:
    """Refined coordinates.

    Attributes:
        Z: ``(columns, targets)``.
        passes: Passes over the rows that they took.
        multipliers: Of the rows of a wide system, of which the features' part of Z (less that of the coordinates it is
            to be near to) is a combination, ``(rows, targets)``, with a last row for a free bias, which is the
            multiplier of the condition that the others sum to zero; None where no account of them was kept.
    """

    Z: Tensor
    passes: int
    multipliers: Tensor | None = None


class Refinement(ABC):
    """A way to refine coordinates on the true rows.

    A step that does not help is undone, for each target by itself; so the result is never worse than the start.
    """

    @abstractmethod
    def refine(self, problem: Problem, start: Tensor, nearest: Tensor | None) -> Refined:
        """Return refined coordinates.

        Args:
            problem: The problem.
            start: Coordinates ``(columns, targets)``.
            nearest: Coordinates to be near to where the minimiser is not unique, or None for least norm.
        """


def magnitude(problem: Problem, Z: Tensor) -> Vector:
    """Return ``|A| |z| + |b|`` of each target, by which a residual is large or small."""
    size = problem.frobenius_norm * lengths(Z) + problem.target_sizes
    size[~(size > 0)] = 1.0
    return size
