"""Refinement by the residual: for systems whose equations can be met."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np
from torch import Tensor
from typing_extensions import override

from closedform.fit.problem import Problem
from closedform.fit.refinement.refinement import GOAL, MOST_ROUNDS, Refined, Refinement, magnitude
from closedform.numerics.host import columns_where, lengths

__all__ = ["ByResidual"]


@final
class ByResidual(Refinement):
    """Solve with the residual itself: Wilkinson (1963); Skeel (1980) for what fixed precision gains.

    Args:
        correct: Maps a residual ``(rows, targets)`` to a correction ``(columns, targets)``.
    """

    def __init__(self, correct: Callable[[Tensor], Tensor]) -> None:
        self.correct = correct

    @override
    def refine(self, problem: Problem, start: Tensor, nearest: Tensor | None) -> Refined:
        Z, residual = start, problem.residual(start)
        size, passes = lengths(residual), 1

        for _ in range(MOST_ROUNDS):
            if (size <= GOAL * magnitude(problem, Z)).all():
                break
            candidate = Z + self.correct(residual)
            new_residual = problem.residual(candidate)
            new_size = lengths(new_residual)
            passes += 1

            better, halved = new_size < size, new_size < 0.5 * size
            Z, residual = columns_where(better, candidate, Z), columns_where(better, new_residual, residual)
            size = np.where(better, new_size, size)
            if not halved.any():
                break
        return Refined(Z, passes)
