"""Refinement within a row space, and then the choice among the weights that fit as well."""

from __future__ import annotations

from typing import final

from torch import Tensor
from typing_extensions import override

from closedform.engine.threads import LEAST_NORM_BY_ONE, all_threads
from closedform.fit.least_norm import least_norm_coordinates
from closedform.fit.problem import Problem
from closedform.fit.refinement.by_gradient import ByGradient
from closedform.fit.refinement.refinement import Refined, Refinement

__all__ = ["WithinRowSpace"]


@final
class WithinRowSpace(Refinement):
    """Steps that stay in the row space of A; what they find fixes the weights there, and least norm the rest.

    Args:
        inner: Steps with a root of lower rank, which stay in its row space.
        row_space: Orthonormal rows that span it, ``(rank, columns)``.
    """

    def __init__(self, inner: ByGradient, row_space: Tensor) -> None:
        self.inner = inner
        self.row_space = row_space

    @override
    def refine(self, problem: Problem, start: Tensor, nearest: Tensor | None) -> Refined:
        refined = self.inner.refine(problem, start, None)
        with all_threads(problem.n_columns > LEAST_NORM_BY_ONE):
            Z = least_norm_coordinates(problem, self.row_space, self.row_space @ refined.Z, nearest)
        return Refined(Z, refined.passes)
