"""Wide systems: QR of the transposed rows gives the weights of least norm at a cost linear in the features."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.fit.claims import Claims, RowClaims
from closedform.fit.factors.base import Cost, Factor, Facts, Method, cost
from closedform.fit.factors.rank_check import require_full_rank
from closedform.fit.problem import Problem
from closedform.fit.refinement import ByResidual, Unrefined
from closedform.numerics.extremes import Extremes
from closedform.numerics.least_norm import LeastNorm
from closedform.numerics.rank import Rank
from closedform.numerics.root import TriangularRoot
from closedform.numerics.scaling import power_of_two_exponents, powers_of_two
from closedform.words.errors import FactorBreakdown

__all__ = ["Dual"]

#: Features whose sums may round by one more unit.
_UNROUNDED = 512


@final
class Dual(Method):
    """``[X, sqrt(l2) I] (w, v) = y`` at least norm, by Householder QR of the transpose.

    Without a ridge these are the interpolating weights of least norm; with one, the ridge weights, since
    ``min |w|^2 + |v|^2`` subject to ``X w + sqrt(l2) v = y`` is the ridge problem (Saunders 1995; Higham 2002, 21.2 for
    the stability of the method). Preferred over ``dual gram64`` with a ridge, with weights, and where the rows depend
    on each other more than its Gram matrix can hold.
    """

    name = "dual"

    @override
    def refusals(self, facts: Facts) -> tuple[str, ...]:
        reasons = []
        if not facts.wide:
            reasons.append(f"{facts.n_rows} rows are not fewer than {facts.n_columns} columns")
        if facts.rcond_given and not facts.ridge:
            reasons.append("an explicit rcond asks for singular values")
        return tuple(reasons)

    @override
    def cost(self, facts: Facts) -> Cost:
        return cost(4 * facts.n_columns * facts.n_rows**2, facts.rates.qr64, facts, passes=4)

    @override
    def factor(self, problem: Problem, facts: Facts) -> tuple[Factor, Tensor]:
        equations = _equations(problem, facts)
        least_norm = LeastNorm(equations.M, free_first=problem.bias and (not facts.nearest or facts.ridge))
        if bool((least_norm.R.diagonal() == 0).any()):
            raise FactorBreakdown(
                "a row depends exactly on the others: the equations may contradict each other", math.inf
            )
        size = float(torch.linalg.vector_norm(equations.M, dim=0).max())
        # LAPACK adds up a row from its first feature to its last.
        rounding = sys.float_info.epsilon * (1.0 + facts.n_columns / _UNROUNDED)
        row_rank, found = require_full_rank(TriangularRoot(least_norm.R), facts, size, rounding)
        p, unscale = problem.n_columns, problem.scale.unsqueeze(1)

        def coordinates(right: Tensor) -> Tensor:
            weights = least_norm.solve(equations.row_scale.unsqueeze(1) * right[equations.kept])[:p]
            weights[int(problem.bias) :] *= equations.feature_unit
            return weights / unscale

        def start(right: Tensor, nearest: Tensor | None) -> Tensor:
            if nearest is None or facts.ridge:
                return coordinates(right)
            V, v0 = problem.columns.raw(nearest)
            predicted = problem.gathered.X.to(torch.float64) @ V + (0.0 if v0 is None else v0)
            return nearest + coordinates(right - predicted)

        if facts.ridge:
            rank = Rank(p, p, facts.rcond, float("inf"), ambiguous=False)
            extremes = Extremes(found.largest, min(found.smallest, problem.l2**0.5))
            claims = Claims(rank, extremes=extremes, dual_solve=least_norm.gram_solve)
            return Factor(start, Unrefined(), claims), problem.gathered_targets

        def correct(residual: Tensor) -> Tensor:
            if problem.gathered.weight is None:
                return coordinates(residual)
            weight = problem.gathered.weight.sqrt().unsqueeze(1)
            return coordinates(torch.where(weight > 0, residual / weight, 0.0))

        rank = replace(row_rank, rank=equations.M.shape[1], columns=p)
        claims = Claims(
            rank, extremes=found, least_norm_solve=correct, rows=_row_claims(problem, equations, least_norm)
        )
        return Factor(start, ByResidual(correct), claims), problem.gathered_targets


def _row_claims(problem: Problem, equations: _Equations, least_norm: LeastNorm) -> RowClaims:
    rows, unit, first = problem.gathered, equations.feature_unit, int(problem.bias)
    gram = least_norm.whole_gram(unit)
    # Of [1 | X] with the roots of the weights, from equations on a par and features times a unit.
    scale = 1 / equations.row_scale.unsqueeze(1)
    if rows.weight is not None:
        scale = scale * rows.weight[equations.kept].sqrt().unsqueeze(1)

    def multipliers(Z: Tensor) -> Tensor:
        weights = Z * problem.scale.unsqueeze(1)
        weights[first:] /= unit
        u = Z.new_zeros(equations.kept.shape[0], Z.shape[1])
        u[equations.kept] = equations.row_scale.unsqueeze(1) * least_norm.multipliers(weights) * unit
        return u

    return RowClaims(
        norms=torch.linalg.vector_norm(rows.X, dim=1, dtype=torch.float64),
        gram_product=lambda v: scale * gram.product(scale * v) / unit**2,
        gram_solve=lambda v: gram.solve(v / scale) / scale * unit**2,
        kept=equations.kept,
        multipliers=multipliers,
    )


@final
@dataclass(frozen=True, eq=False)
class _Equations:
    """The equations ``M' (b, w, v) = row_scale y`` that the rows are, scaled so that squares stay in range.

    Attributes:
        M: ``(unknowns, equations)``.
        row_scale: ``(equations,)``.
        kept: Mask of the rows that are equations, ``(rows,)``.
        feature_unit: What the features were multiplied by, a power of two.
    """

    M: Tensor
    row_scale: Tensor
    kept: Tensor
    feature_unit: float


def _equations(problem: Problem, facts: Facts) -> _Equations:
    rows = problem.gathered
    # A copy, which is scaled below.
    M = rows.X.T.to(torch.float64).clone(memory_format=torch.contiguous_format)
    m = M.shape[1]
    feature_unit = 1.0
    if not facts.ridge and not facts.nearest:
        # Only the ratio between features decides which weights are shortest: one power of two for all of them keeps
        # squares in range.
        feature_unit = float(torch.ldexp(M.new_ones(()), -power_of_two_exponents(M.abs().max())))
        M *= feature_unit

    row_scale = M.new_ones(m) if rows.weight is None else rows.weight.sqrt()
    kept = torch.ones(m, dtype=torch.bool, device=M.device)
    if not facts.ridge:
        # Where the equations can be met, their scale is free: powers of two put them on a par.
        peaks = M.abs().amax(0)
        exact = powers_of_two(-power_of_two_exponents(peaks))
        row_scale = torch.where(row_scale > 0, exact, 0.0)
        kept = row_scale > 0
        if not bool(kept.all()):
            M, row_scale = M[:, kept], row_scale[kept]
    M *= row_scale

    if problem.bias:
        M = torch.cat([row_scale.unsqueeze(0), M])
    if facts.ridge:
        M = torch.cat([M, torch.eye(m, dtype=M.dtype, device=M.device) * problem.l2**0.5])
    return _Equations(M, row_scale, kept, feature_unit)
