"""Wide systems by the Gram matrix of their rows: the cheap way to the weights of least norm, repaired by refinement."""

from __future__ import annotations

from abc import ABC
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.sums import pass_sums
from closedform.fit.claims import Claims
from closedform.fit.factors.base import Cost, Factor, Facts, cost
from closedform.fit.factors.gram import GramMethod
from closedform.fit.problem import Problem
from closedform.fit.refinement import ByResidual
from closedform.numerics.extremes import Extremes
from closedform.numerics.matrix_product import product
from closedform.numerics.rank import Rank
from closedform.numerics.scaling import power_of_two_exponents

__all__ = ["DualGram32", "DualGram64"]


class _DualGram(GramMethod, ABC):
    """``w = X' u`` with ``X X' u = y``, in float32 or float64, then refined with residuals of the true rows.

    Every correction is again a combination of rows, so the weights stay those of least norm. A bias stands outside the
    norm: with the border ``X X' u + 1 b = y, 1' u = 0``. Source: Bjoerck (1996), 1.4 and 6.5, for the seminormal
    equations of the least-norm problem and their correction.
    """

    @override
    def refusals(self, facts: Facts) -> tuple[str, ...]:
        reasons = []
        if not facts.wide:
            reasons.append(f"{facts.n_rows} rows are not fewer than {facts.n_columns} columns")
        if facts.ridge:
            reasons.append("with a ridge the equations are no longer met exactly")
        if facts.weighted:
            reasons.append("rows have weights")
        if facts.rcond_given:
            reasons.append("an explicit rcond asks for singular values")
        return tuple(reasons)

    @override
    def cost(self, facts: Facts) -> Cost:
        return cost(facts.n_columns * facts.n_rows**2 + facts.n_rows**3 / 3, self.rate(facts), facts, passes=8)

    @override
    def factor(self, problem: Problem, facts: Facts) -> tuple[Factor, Tensor]:
        X, p = problem.gathered.X, problem.n_columns
        m = X.shape[0]
        # Equations that are to be met have no scale of their own: powers of two put them on a par, with one for all.
        peaks = torch.linalg.vector_norm(X, dim=1, dtype=torch.float64)
        row_scale = torch.ldexp(torch.ones_like(peaks), -power_of_two_exponents(peaks))
        gram = torch.zeros(m, m, dtype=self.dtype, device=X.device)
        engine = problem.gathered.engine
        engine.row_gram_(gram, X, row_scale)
        bordered = problem.bias and not facts.nearest
        if problem.bias and facts.nearest:
            gram += torch.outer(row_scale, row_scale).to(self.dtype)
        root, found = self.root(gram, torch.ones_like(row_scale), "row", "the Gram matrix of the rows")

        ones, unscale = row_scale.unsqueeze(1), problem.scale.unsqueeze(1)
        border = root.solve(root.adjoint_solve(ones))

        def correct(residual: Tensor) -> Tensor:
            right = residual * ones
            u = root.solve(root.adjoint_solve(right))
            offset = (border.T @ right) / (border.T @ ones) if bordered else u.new_zeros(1, u.shape[1])
            u = (u - border * offset) * ones
            sums = pass_sums(X.shape[1], u.shape[1], u.device)
            engine.residual_sums_(sums, X, u, u.new_zeros(X.shape[1], u.shape[1]))
            weights = sums.features
            if problem.bias:
                weights = torch.cat([offset if bordered else sums.ones.unsqueeze(0), weights])
            return weights / unscale

        def start(right: Tensor, nearest: Tensor | None) -> Tensor:
            if nearest is None:
                return correct(right)
            V, v0 = problem.columns.raw(nearest)
            predicted = product(X.to(torch.float64), V) + (0.0 if v0 is None else v0)
            return nearest + correct(right - predicted)

        unit = problem.frobenius_norm / float(torch.linalg.vector_norm(row_scale * peaks))
        extremes = Extremes(found.largest * unit, found.smallest * unit)
        rank = Rank(m, p, facts.rcond, 1 / (found.condition * facts.rcond), ambiguous=False)
        claims = Claims(rank, extremes=extremes, least_norm_solve=correct)
        return Factor(start, ByResidual(correct), claims), problem.gathered_targets


@final
class DualGram32(_DualGram):
    """In float32: half the time of ``dual gram64``, for well-conditioned rows."""

    name = "dual gram32"
    dtype = torch.float32
    condition_limit = 1e3


@final
class DualGram64(_DualGram):
    """In float64: preferred over ``dual gram32`` from a condition number of a thousand on, up to a million or so."""

    name = "dual gram64"
    dtype = torch.float64
    condition_limit = 3e6
