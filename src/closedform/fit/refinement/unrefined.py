"""No refinement."""

from __future__ import annotations

from typing import final

from torch import Tensor
from typing_extensions import override

from closedform.fit.problem import Problem
from closedform.fit.refinement.refinement import Refined, Refinement

__all__ = ["Unrefined"]


@final
class Unrefined(Refinement):
    """The start as it is: for backward stable factors whose steps would leave the row space, and so the least norm."""

    @override
    def refine(self, problem: Problem, start: Tensor, nearest: Tensor | None) -> Refined:
        return Refined(start, 0)
