"""Householder QR folded by row blocks: backward stable at any condition number, for full rank."""

from __future__ import annotations

import math
from typing import final

from torch import Tensor
from typing_extensions import override

from closedform.engine.triangles import COMPILED
from closedform.fit.claims import Claims
from closedform.fit.factors.base import Cost, Factor, Facts, Method, cost, rounding_contraction
from closedform.fit.factors.rank_check import require_full_rank
from closedform.fit.problem import Problem
from closedform.fit.refinement import ByGradient
from closedform.numerics.root import TriangularRoot
from closedform.words.errors import FactorBreakdown

__all__ = ["Householder"]


@final
class Householder(Method):
    """The triangle of ``[A | B]``; the weights solve it directly (Golub 1965).

    Backward stable whatever the condition number, so it comes where a Gram matrix has squared it too far; it costs
    five times as much or more. It is preferred over ``svd``, which needs it too, while the columns are independent.
    """

    name = "householder"

    @override
    def refusals(self, facts: Facts) -> tuple[str, ...]:
        if facts.wide and not facts.ridge:
            return (f"{facts.n_rows} rows cannot determine {facts.n_columns} columns",)
        return ()

    @override
    def cost(self, facts: Facts) -> Cost:
        return cost(2.5 * facts.n_rows * facts.n_columns**2, facts.rates.qr64, facts, passes=4)

    @override
    def factor(self, problem: Problem, facts: Facts) -> tuple[Factor, Tensor]:
        triangle = problem.triangle
        if triangle.R.shape[0] < problem.n_columns or bool((triangle.R.diagonal() == 0).any()):
            raise FactorBreakdown(
                "a column depends exactly on those before it: the triangle has a zero pivot", math.inf
            )
        root = TriangularRoot(triangle.R, COMPILED)
        rank, extremes = require_full_rank(root, facts)
        contraction = rounding_contraction(extremes, problem.n_columns)
        factor = Factor(
            start=lambda right, nearest: root.solve(right),
            refinement=ByGradient(root, contraction),
            claims=Claims(rank, root, extremes),
            accuracy=contraction,
        )
        return factor, triangle.C
