"""Refinement by the residual: for systems whose equations can be met."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.fit.problem import Problem
from closedform.fit.refinement.refinement import GOAL, MOST_ROUNDS, Refined, Refinement, magnitude

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
        size, passes = torch.linalg.vector_norm(residual, dim=0), 1

        for _ in range(MOST_ROUNDS):
            if bool((size <= GOAL * magnitude(problem, Z)).all()):
                break
            candidate = Z + self.correct(residual)
            new_residual = problem.residual(candidate)
            new_size = torch.linalg.vector_norm(new_residual, dim=0)
            passes += 1

            better, halved = new_size < size, new_size < 0.5 * size
            Z = torch.where(better, candidate, Z)
            residual = torch.where(better, new_residual, residual)
            size = torch.where(better, new_size, size)
            if not bool(halved.any()):
                break
        return Refined(Z, passes)
