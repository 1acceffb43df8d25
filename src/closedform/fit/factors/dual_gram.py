"""Wide systems by the Gram matrix of their rows: the cheap way to the weights of least norm, repaired by refinement."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from closedform.engine.gram import row_gram_update
from closedform.engine.passes import pass_sums, residual_pass
from closedform.fit.factors.base import Cost, Factor, Facts, cost
from closedform.fit.factors.gram import GramMethod
from closedform.numerics.extremes import Extremes
from closedform.numerics.rank import Rank
from closedform.numerics.scaling import power_of_two_exponents
from closedform.rows import Design

__all__ = ["DualGram32", "DualGram64"]


class _DualGram(GramMethod):
    """``w = X' u`` with ``X X' u = y``, in float32 or float64, then refined with residuals of the true rows.

    Every correction is again a combination of rows, so the weights stay those of least norm. A bias stands outside the
    norm: with the border ``X X' u + 1 b = y, 1' u = 0``. Source: Bjoerck (1996), 1.4 and 6.5, for the seminormal
    equations of the least-norm problem and their correction.
    """

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

    def cost(self, facts: Facts) -> Cost:
        return cost(facts.n_columns * facts.n_rows**2 + facts.n_rows**3 / 3, self.rate(facts), facts, passes=8)

    def factor(self, design: Design, facts: Facts, nearest: Tensor | None) -> Factor:
        m, p = design.rows.n_rows, design.n_columns
        X = design.rows.x.read(0, m)
        # Equations that are to be met have no scale of their own: powers of two put them on a par, with one for all.
        peaks = torch.linalg.vector_norm(X, dim=1, dtype=torch.float64)
        row_scale = torch.ldexp(torch.ones_like(peaks), -power_of_two_exponents(peaks))
        gram = torch.zeros(m, m, dtype=self.dtype, device=X.device)
        row_gram_update(gram, X, row_scale)
        bordered = design.bias and nearest is None
        if design.bias and nearest is not None:
            gram += torch.outer(row_scale, row_scale).to(self.dtype)
        root, found = self.root(gram, torch.ones_like(row_scale), "row", "the Gram matrix of the rows")
        ones = row_scale.unsqueeze(1)
        border = root.solve(root.adjoint_solve(ones))
        unscale = design.scale.unsqueeze(1)

        def correct(residual: Tensor) -> Tensor:
            right = residual * ones
            u = root.solve(root.adjoint_solve(right))
            offset = (border.T @ right) / (border.T @ ones) if bordered else u.new_zeros(1, u.shape[1])
            u = (u - border * offset) * ones
            sums = pass_sums(design.rows.n_features, u.shape[1], u.device)
            nothing = u.new_zeros(design.rows.n_features, u.shape[1])
            for block in design.pass_blocks("refining"):
                residual_pass(sums, block.X, u[block.start : block.start + block.X.shape[0]], nothing)
            weights = sums.features
            if design.bias:
                weights = torch.cat([offset if bordered else sums.ones.unsqueeze(0), weights])
            return weights / unscale

        start = peaks.new_zeros(p, design.n_targets) if nearest is None else nearest
        unit = design.frobenius_norm / float(torch.linalg.vector_norm(row_scale * peaks))
        rank = Rank(m, p, facts.rcond, 1 / (found.condition * facts.rcond), ambiguous=False)
        return Factor(
            start=start + correct(design.residual(start)),
            rank=rank,
            root=None,
            correct=correct,
            extremes=Extremes(found.largest * unit, found.smallest * unit),
        )


@final
class DualGram32(_DualGram):
    name = "dual gram32"
    dtype = torch.float32
    condition_limit = 1e3


@final
class DualGram64(_DualGram):
    name = "dual gram64"
    dtype = torch.float64
    condition_limit = 3e6
