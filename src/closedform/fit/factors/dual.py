"""Wide systems: QR of the transposed rows gives the weights of least norm at a cost linear in the features."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from closedform.fit.factors.base import Cost, Factor, Facts, Method, cost
from closedform.fit.factors.rank_check import require_full_rank
from closedform.numerics.extremes import Extremes
from closedform.numerics.least_norm import LeastNorm
from closedform.numerics.rank import Rank
from closedform.numerics.root import TriangularRoot
from closedform.numerics.scaling import power_of_two_exponents
from closedform.rows import Design
from closedform.words.errors import FactorBreakdown

__all__ = ["Dual"]


@final
class Dual(Method):
    """``[X, sqrt(l2) I] (w, v) = y`` at least norm, by Householder QR of the transpose.

    Without a ridge these are the interpolating weights of least norm; with one, the ridge weights, since
    ``min |w|^2 + |v|^2`` subject to ``X w + sqrt(l2) v = y`` is the ridge problem (Saunders 1995; Higham 2002, 21.2 for
    the stability of the method).
    """

    name = "dual"

    def refusals(self, facts: Facts) -> tuple[str, ...]:
        reasons = []
        if not facts.wide:
            reasons.append(f"{facts.n_rows} rows are not fewer than {facts.n_columns} columns")
        if facts.rcond_given and not facts.ridge:
            reasons.append("an explicit rcond asks for singular values")
        return tuple(reasons)

    def cost(self, facts: Facts) -> Cost:
        return cost(4 * facts.n_columns * facts.n_rows**2, facts.rates.qr64, facts, passes=4)

    def factor(self, design: Design, facts: Facts, nearest: Tensor | None) -> Factor:
        rows = design.rows
        m = rows.n_rows
        M = torch.cat([block.X.T for block in design.blocks(label="factoring")], 1)
        feature_unit = 1.0
        if not facts.ridge and nearest is None:
            # Only the ratio between features decides which weights are shortest: one power of two for all of them
            # keeps squares in range.
            feature_unit = float(torch.ldexp(M.new_ones(()), -power_of_two_exponents(M.abs().max())))
            M *= feature_unit
        row_scale = torch.ones(m, dtype=torch.float64, device=M.device)
        if rows.weight is not None:
            row_scale = rows.weight.read(0, m).to(torch.float64).sqrt()
        if not facts.ridge:
            # Where the equations can be met, their scale is free: powers of two put them on a par.
            peaks = M.abs().amax(0)
            exact = torch.ldexp(torch.ones_like(peaks), -power_of_two_exponents(peaks))
            row_scale = torch.where(row_scale > 0, exact, 0.0)
            kept = row_scale > 0
            M, row_scale = (M, row_scale) if bool(kept.all()) else (M[:, kept], row_scale[kept])
        else:
            kept = torch.ones(m, dtype=torch.bool, device=M.device)
        M *= row_scale
        free_first = design.bias and (nearest is None or facts.ridge)
        if design.bias:
            M = torch.cat([row_scale.unsqueeze(0), M])
        if facts.ridge:
            M = torch.cat([M, torch.eye(m, dtype=M.dtype, device=M.device) * design.l2**0.5])
        least_norm = LeastNorm(M, free_first=free_first)
        if bool((least_norm.R.diagonal() == 0).any()):
            raise FactorBreakdown(
                "a row depends exactly on the others: the equations may contradict each other", math.inf
            )
        root = TriangularRoot(least_norm.R)
        size = float(torch.linalg.vector_norm(M, dim=0).max())
        row_rank, found = require_full_rank(root, facts, reference=size)
        # In the measure of the design, whose Frobenius norm the certificate refers to.
        unit = design.frobenius_norm / float(torch.linalg.matrix_norm(M))
        smallest = min(found.smallest, design.l2**0.5) if facts.ridge else found.smallest
        extremes = Extremes(found.largest * unit, smallest * unit)
        unscale = design.scale.unsqueeze(1)
        p = design.n_columns

        def coordinates(right: Tensor) -> Tensor:
            weights = least_norm.solve(row_scale.unsqueeze(1) * right[kept])[:p]
            weights[int(design.bias) :] *= feature_unit
            return weights / unscale

        right = rows.y.read(0, m).to(torch.float64) * design.target_scale
        if nearest is None or facts.ridge:
            start = coordinates(right)
        else:
            V, v0 = design.raw(nearest)
            predicted = rows.x.read(0, m).to(torch.float64) @ V + (0.0 if v0 is None else v0)
            start = nearest + coordinates(right - predicted)
        n_equations = M.shape[1]
        if facts.ridge:
            rank = Rank(p, p, facts.rcond, float("inf"), ambiguous=False)
            return Factor(start=start, rank=rank, root=None, dual_solve=least_norm.gram_solve, extremes=extremes)
        rank = replace(row_rank, rank=n_equations, columns=p)

        def correct(residual: Tensor) -> Tensor:
            if rows.weight is None:
                return coordinates(residual)
            weight = rows.weight.read(0, m).to(torch.float64).sqrt().unsqueeze(1)
            return coordinates(torch.where(weight > 0, residual / weight, 0.0))

        return Factor(start=start, rank=rank, root=None, correct=correct, extremes=extremes)
