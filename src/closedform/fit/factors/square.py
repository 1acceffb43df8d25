"""Square systems: Cholesky where the matrix is symmetric positive definite, else LU."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.threads import one_thread
from closedform.engine.triangles import COMPILED, cholesky_of, is_symmetric
from closedform.fit.claims import Claims
from closedform.fit.factors.base import Cost, Factor, Facts, Method, cost
from closedform.fit.factors.rank_check import require_full_rank
from closedform.fit.problem import Problem
from closedform.fit.refinement import ByResidual
from closedform.numerics.lu import LU
from closedform.numerics.matrix_product import scaled_columns
from closedform.numerics.root import DenseRoot
from closedform.numerics.scaling import peak
from closedform.words.errors import FactorBreakdown

__all__ = ["Square", "not_square"]


@final
class Square(Method):
    """``X w = y`` solved directly, with fixed-precision refinement (Wilkinson 1963; Skeel 1980).

    Preferred over ``householder`` for square systems: a third of its operations, and no Gram matrix squares the
    condition number.
    """

    name = "square"

    @override
    def refusals(self, facts: Facts) -> tuple[str, ...]:
        return tuple(not_square(facts))

    @override
    def cost(self, facts: Facts) -> Cost:
        return cost(2 / 3 * facts.n_columns**3, facts.rates.lu64, facts, passes=4)

    @override
    def factor(self, problem: Problem, facts: Facts) -> tuple[Factor, Tensor]:
        with one_thread(problem.n_columns, problem.rows.device):
            root = _factor(problem.gathered.X.to(torch.float64), problem.scale)
            rank, extremes = require_full_rank(root, facts)
            factor = Factor(
                start=lambda right, nearest: root.solve(right),
                refinement=ByResidual(root.solve),
                claims=Claims(rank, root, extremes),
            )
            return factor, problem.gathered_targets


def not_square(facts: Facts) -> list[str]:
    """Return why a problem is no system of as many plain equations as unknowns; empty where it is one."""
    reasons = []
    if facts.n_rows != facts.n_columns:
        reasons.append(f"the matrix is not square: {facts.n_rows} rows, {facts.n_columns} columns")
    if facts.bias:
        reasons.append("with a bias there is one column more than the table has")
    if facts.ridge:
        reasons.append("with a ridge the equations are no longer met exactly")
    if facts.weighted:
        reasons.append("rows have weights")
    return reasons


def _factor(matrix: Tensor, scale: Tensor) -> DenseRoot:
    if is_symmetric(matrix):
        R, info = cholesky_of(matrix)
        if info == 0 and math.isfinite(peak(R.diagonal())):
            return DenseRoot(matrix, scale, cholesky=R, arithmetic=COMPILED)
    # Scaled columns keep the pivots in range; the choice of pivots is the same without.
    lu = LU(scaled_columns(matrix, scale), overwrite=True)
    if lu.zero_pivot:
        raise FactorBreakdown(
            f"LU met a zero pivot at column {lu.zero_pivot - 1}: the matrix is singular", condition=math.inf
        )
    return DenseRoot(matrix, scale, lu=lu, arithmetic=COMPILED)
