"""Householder QR folded by row blocks: backward stable at any condition number, for full rank."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from closedform.fit.factors.base import Cost, Factor, Facts, Method, cost, rounding_contraction
from closedform.fit.factors.rank_check import require_full_rank
from closedform.numerics.root import TriangularRoot
from closedform.rows import Design
from closedform.words.errors import FactorBreakdown

__all__ = ["Householder"]


@final
class Householder(Method):
    """The triangle of ``[A | B]``; the weights solve it directly (Golub 1965)."""

    name = "householder"

    def refusals(self, facts: Facts) -> tuple[str, ...]:
        if facts.wide and not facts.ridge:
            return (f"{facts.n_rows} rows cannot determine {facts.n_columns} columns",)
        return ()

    def cost(self, facts: Facts) -> Cost:
        return cost(2.5 * facts.n_rows * facts.n_columns**2, facts.rates.qr64, facts, passes=4)

    def factor(self, design: Design, facts: Facts, nearest: Tensor | None) -> Factor:
        triangle = design.triangle
        if triangle.R.shape[0] < design.n_columns or bool((triangle.R.diagonal() == 0).any()):
            raise FactorBreakdown(
                "a column depends exactly on those before it: the triangle has a zero pivot", math.inf
            )
        root = TriangularRoot(triangle.R)
        rank, extremes = require_full_rank(root, facts)
        start = torch.linalg.solve_triangular(triangle.R, triangle.C, upper=True)
        contraction = rounding_contraction(extremes, design.n_columns)
        return Factor(start=start, rank=rank, root=root, extremes=extremes, contraction=contraction)
