"""Cholesky of the Gram matrix, in float32 or float64: the cheapest factor, repaired by refinement."""

from __future__ import annotations

import math
from typing import ClassVar, final

import torch
from torch import Tensor

from closedform.errors import FactorBreakdown
from closedform.factors.base import GEMM32, GEMM64, Cost, Factor, Facts, Method, cost
from closedform.numerics.extremes import extreme_singular_values
from closedform.numerics.gram import BLAS_COLUMNS, gram_update, mirror
from closedform.numerics.rank import Rank
from closedform.numerics.root import TriangularRoot
from closedform.rows import Design

__all__ = ["Gram32", "Gram64"]


class _Gram(Method):
    """``A'A = R'R``; the weights follow from refinement on the true rows alone.

    The Gram matrix squares the condition number, so R is only a preconditioner: the refinement that follows works
    with residuals of the true rows (Garrison and Ipsen 2026; Carson and Higham 2018 for the idea).
    """

    dtype: ClassVar[torch.dtype]
    rate: ClassVar[float]

    def refusals(self, facts: Facts) -> tuple[str, ...]:
        reasons = []
        if facts.wide and not facts.ridge:
            reasons.append(
                f"{facts.n_rows} rows cannot determine {facts.n_columns} columns, so the Gram matrix is singular"
            )
        if facts.n_rows == facts.n_columns and not facts.ridge:
            reasons.append("the matrix is square: elimination costs less than its Gram matrix and does not square it")
        if facts.rcond_given and not facts.ridge:
            reasons.append("an explicit rcond asks for singular values, which a Gram matrix squares")
        return tuple(reasons)

    def cost(self, facts: Facts) -> Cost:
        flops = facts.n_rows * facts.n_columns**2 + facts.n_columns**3 / 3
        return cost(flops, self.rate, facts, passes=6)

    def factor(self, design: Design, facts: Facts, nearest: Tensor | None) -> Factor:
        p = design.n_columns
        gram, cross = _normal_equations(design, self.dtype)
        cholesky, info = torch.linalg.cholesky_ex(gram)
        if int(info) != 0:
            raise FactorBreakdown(
                f"Cholesky met a pivot that is not positive at column {int(info) - 1}: the condition number is "
                f"beyond what a {_name(self.dtype)} Gram matrix can hold",
                condition=self.condition_limit,
            )
        root = TriangularRoot(cholesky.T.to(torch.float64))
        extremes = extreme_singular_values(root)
        condition = extremes.condition
        if not condition <= self.condition_limit:
            raise FactorBreakdown(
                f"condition number about {condition:.1e}; a {_name(self.dtype)} Gram matrix serves up to "
                f"{self.condition_limit:.0e}",
                condition=condition,
            )
        rank = Rank(p, p, facts.rcond, 1 / (condition * facts.rcond) if facts.rcond else math.inf, ambiguous=False)
        # Rounding of the Gram matrix, as the preconditioned matrix sees it.
        contraction = condition**2 * torch.finfo(self.dtype).eps * p**0.5
        start = root.solve(root.adjoint_solve(cross))
        return Factor(start=start, rank=rank, root=root, extremes=extremes, contraction=contraction)


def _normal_equations(design: Design, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return ``A'A + P'P`` in ``dtype`` and ``A'B`` in float64, both of the scaled design.

    Scaling by powers of two changes no digit, so it is applied to the sums, not to the rows, unless the numbers would
    leave the range of ``dtype``.
    """
    n, k, device = design.rows.n_features, design.n_targets, design.scale.device
    feature_scale = design.scale[1:] if design.bias else design.scale
    largest, smallest = float(feature_scale.max()), float(feature_scale.min())
    before = feature_scale if largest > 1e15 or smallest < 1e-15 else None
    gram = torch.zeros(n, n, dtype=dtype, device=device)
    # The last columns of the right-hand side are the ones, which give the bias its row.
    cross = torch.zeros(n, k + int(design.bias), dtype=torch.float64, device=device)
    corner = torch.zeros(k + 1, dtype=torch.float64, device=device)
    size = max(2048, 2**23 // n) if n >= BLAS_COLUMNS else max(1024, 2**18 // n)
    size = min(size, max(2048, design.rows.n_rows // 16))
    for block in design.blocks(size, "factoring"):
        X, Y = block.X, block.Y * design.target_scale
        if before is not None:
            X = X * before
        if design.bias:
            Y = torch.cat([Y, Y.new_ones(Y.shape[0], 1)], 1)
        if block.weight is not None:
            root = block.weight.sqrt().unsqueeze(1)
            X, Y = X * root, Y * root
        if design.bias:
            corner += Y.T @ Y[:, -1]
        cross.addmm_(X.T, Y)
        gram_update(gram, X.to(dtype))
    after = torch.ones_like(feature_scale) if before is not None else feature_scale
    gram = mirror(gram) * after.to(dtype) * after.to(dtype).unsqueeze(1)
    cross *= after.unsqueeze(1)
    if design.bias:
        unit = float(design.scale[0])
        ones = cross[:, -1:].to(dtype) * unit
        gram = torch.cat(
            [torch.cat([corner[-1:].reshape(1, 1).to(dtype) * unit**2, ones.T], 1), torch.cat([ones, gram], 1)]
        )
        cross = torch.cat([corner[:-1].reshape(1, k) * unit, cross[:, :-1]])
    gram.diagonal().add_(design.penalty.square().to(dtype))
    return gram, cross


@final
class Gram32(_Gram):
    name = "gram32"
    dtype = torch.float32
    rate = GEMM32
    #: Beyond, the preconditioned matrix is no longer near the identity.
    condition_limit = 1e3


@final
class Gram64(_Gram):
    name = "gram64"
    dtype = torch.float64
    rate = GEMM64
    condition_limit = 3e6


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
