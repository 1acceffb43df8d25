"""Wide systems by the Gram matrix of their rows: the cheap way to the weights of least norm, repaired by refinement."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor

from closedform.errors import FactorBreakdown
from closedform.factors.base import Cost, Factor, Facts, Method, cost
from closedform.numerics.extremes import Extremes, extreme_singular_values
from closedform.numerics.gram import cholesky, row_gram_update
from closedform.numerics.passes import pass_sums, residual_pass
from closedform.numerics.rank import Rank
from closedform.numerics.root import TriangularRoot
from closedform.rows import Design
from closedform.rows.scan import power_of_two_exponents

__all__ = ["DualGram32", "DualGram64"]


class _DualGram(Method):
    """``w = X' u`` with ``X X' u = y``, in float32 or float64, then refined with residuals of the true rows.

    Every correction is again a combination of rows, so the weights stay those of least norm. A bias stands outside the
    norm: with the border ``X X' u + 1 b = y, 1' u = 0``. Source: Bjoerck (1996), 1.4 and 6.5, for the seminormal
    equations of the least-norm problem and their correction.
    """

    dtype: ClassVar[torch.dtype]

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

    def rate(self, facts: Facts) -> float:
        """Operations a second in the precision of the Gram matrix."""
        return facts.rates.gram32 if self.dtype == torch.float32 else facts.rates.gram64

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
        R, info = cholesky(gram)
        if info != 0:
            raise FactorBreakdown(
                f"Cholesky met a pivot that is not positive at row {info - 1}: the condition number is beyond what the "
                f"Gram matrix of the rows can hold",
                condition=self.condition_limit,
            )
        root = TriangularRoot(R.to(torch.float64).contiguous())
        found = extreme_singular_values(root)
        if not found.condition <= self.condition_limit:
            raise FactorBreakdown(
                f"condition number about {found.condition:.1e}; the Gram matrix of the rows serves up to "
                f"{self.condition_limit:.0e}",
                condition=found.condition,
            )
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

        start = (
            nearest if nearest is not None else torch.zeros(p, design.n_targets, dtype=torch.float64, device=X.device)
        )
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
