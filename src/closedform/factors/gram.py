"""Cholesky of the Gram matrix, in float32 or float64: the cheapest factor, repaired by refinement."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor

from closedform.errors import FactorBreakdown
from closedform.factors.base import GEMM32, GEMM64, Cost, Factor, Facts, Method, cost
from closedform.numerics.extremes import extreme_singular_values
from closedform.numerics.gram import gram_update, mirror
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
        gram = torch.zeros(p, p, dtype=self.dtype, device=design.scale.device)
        size = max(1024, 2**20 // p)
        for A, _ in design.matrix_blocks(size, "factoring"):
            gram_update(gram, A.to(self.dtype))
        mirror(gram)
        gram.diagonal().add_(design.penalty.square().to(self.dtype))
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
        start = torch.zeros(p, design.n_targets, dtype=torch.float64, device=root.device)
        rank = Rank(p, p, facts.rcond, 1 / (condition * facts.rcond), ambiguous=False)
        return Factor(start=start, rank=rank, root=root, extremes=extremes)


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
