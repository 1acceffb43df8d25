"""Refinement of the multipliers of a wide system: its weights of least norm are a combination of its rows."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from closedform.fit.problem import Problem
from closedform.fit.refinement.refinement import GOAL, MOST_ROUNDS, Refined, Refinement, magnitude
from closedform.numerics.host import columns_where, lengths

__all__ = ["ByMultipliers"]

#: How much worse than the step before a last step may be that is not looked at again before the certificate.
_MARGIN = 10.0


@final
class ByMultipliers(Refinement):
    """As :class:`ByResidual`, with an account of the multipliers u of ``w = X'u``, by which the certificate checks w.

    Args:
        solve: Maps a residual ``(rows, targets)`` to multipliers, as :class:`Refined` holds them.
        lift: Maps multipliers to a correction ``(columns, targets)``.
    """

    def __init__(self, solve: Callable[[Tensor], Tensor], lift: Callable[[Tensor], Tensor]) -> None:
        self.solve = solve
        self.lift = lift

    @override
    def refine(self, problem: Problem, start: Tensor, nearest: Tensor | None) -> Refined:
        Z, U = start, None
        at_zero = not bool(Z.any())
        residual = problem.gathered_targets if at_zero else problem.residual(Z)
        size, passes = lengths(residual), int(not at_zero)

        contraction = math.inf
        for turn in range(MOST_ROUNDS + 1):
            goal = GOAL * magnitude(problem, Z)
            if turn and (size <= goal).all():
                break
            step = self.solve(residual)
            candidate = Z + self.lift(step)
            if (size * contraction * _MARGIN <= goal).all():
                # What this step leaves is far below rounding; the certificate looks at it anyway.
                return Refined(candidate, passes, step if U is None else U + step)
            new_residual = problem.residual(candidate)
            new_size = lengths(new_residual)
            passes += 1

            contraction = float((new_size / np.maximum(size, sys.float_info.min)).max()) if turn else math.inf
            better, halved = new_size < size, new_size < 0.5 * size
            Z, residual = columns_where(better, candidate, Z), columns_where(better, new_residual, residual)
            U = torch.zeros_like(step) if U is None else U
            U = columns_where(better, U + step, U)
            size = np.where(better, new_size, size)
            if not halved.any():
                break
        return Refined(Z, passes, U)
