"""Cholesky of the Gram matrix, in float32 or float64: the cheapest factor, repaired by refinement."""

from __future__ import annotations

import math
from typing import ClassVar, final

import torch
from torch import Tensor

from closedform.errors import FactorBreakdown
from closedform.factors.base import Cost, Factor, Facts, Method, cost
from closedform.numerics.extremes import Extremes, extreme_singular_values
from closedform.numerics.gram import cholesky, normal_equations_update
from closedform.numerics.rank import Rank
from closedform.numerics.root import TriangularRoot
from closedform.numerics.threads import one_thread
from closedform.rows import Design
from closedform.rows.scan import pass_rows

__all__ = ["Gram32", "Gram64", "GramMethod"]


class GramMethod(Method):
    """What methods on a Gram matrix share, be it that of the columns or of the rows: its precision and its root."""

    dtype: ClassVar[torch.dtype]
    #: Passes over the rows, all told: the scan, the Gram matrix, refinement to double precision, and the certificate.
    passes: ClassVar[int]

    def rate(self, facts: Facts) -> float:
        """Operations a second in the precision of the Gram matrix."""
        return facts.rates.gram32 if self.dtype == torch.float32 else facts.rates.gram64

    def root(self, gram: Tensor, place: str, holder: str, inflation: float = 1.0) -> tuple[TriangularRoot, Extremes]:
        """Return the Cholesky factor of the Gram matrix and its extreme singular values.

        Args:
            gram: Upper triangle, ``(n, n)``.
            place: What a pivot belongs to, for messages: ``"column"`` or ``"row"``.
            holder: What cannot hold a larger condition number, for messages.
            inflation: By what factor the condition number may be larger here than that of the whole matrix.

        Raises:
            FactorBreakdown: the condition number is beyond what the Gram matrix serves.
        """
        where = " in a sample of the rows" if inflation > 1 else ""
        R, info = cholesky(gram)
        if info != 0:
            raise FactorBreakdown(
                f"Cholesky met a pivot that is not positive at {place} {info - 1}{where}: the condition number is "
                f"beyond what {holder} can hold",
                condition=self.condition_limit,
            )
        root = TriangularRoot(R.to(torch.float64).contiguous())
        extremes = extreme_singular_values(root)
        if not extremes.condition <= self.condition_limit * inflation:
            raise FactorBreakdown(
                f"condition number about {extremes.condition:.1e}{where}; {holder} serves up to "
                f"{self.condition_limit:.0e}",
                condition=extremes.condition / inflation,
            )
        return root, extremes


class _Gram(GramMethod):
    """``A'A = R'R``; the weights follow from refinement on the true rows alone.

    The Gram matrix squares the condition number, so R is only a preconditioner: the refinement that follows works
    with residuals of the true rows (Garrison and Ipsen 2026; Carson and Higham 2018 for the idea).
    """

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
        return cost(flops, self.rate(facts), facts, passes=self.passes)

    def factor(self, design: Design, facts: Facts, nearest: Tensor | None) -> Factor:
        with one_thread(design.n_columns, design.rows.device):
            return self._factor(design, facts)

    def _factor(self, design: Design, facts: Facts) -> Factor:
        p = design.n_columns
        holder = f"a {str(self.dtype).removeprefix('torch.')} Gram matrix"
        worth = _SAMPLED if facts.condition == 1 else _SUSPECT
        if design.rows.in_memory and facts.n_rows >= worth * _SAMPLE * p:
            # A few rows tell whether all of them are worth the work.
            gram, _ = _normal_equations(design, self.dtype, stride=facts.n_rows // (_SAMPLE * p))
            self.root(gram, "column", holder, inflation=_SAMPLE_INFLATION)
        gram, cross = _normal_equations(design, self.dtype)
        root, extremes = self.root(gram, "column", holder)
        condition = extremes.condition
        rank = Rank(p, p, facts.rcond, 1 / (condition * facts.rcond) if facts.rcond else math.inf, ambiguous=False)
        # Rounding of the Gram matrix, as the preconditioned matrix sees it.
        contraction = condition**2 * torch.finfo(self.dtype).eps * p**0.5
        start = root.solve(root.adjoint_solve(cross))
        return Factor(start=start, rank=rank, root=root, extremes=extremes, contraction=contraction)


#: Rows of the sample for each column, what it may add to the condition number of Gaussian rows, and how many times
#: more rows there have to be for it to pay, and where another Gram matrix has failed.
_SAMPLE, _SAMPLE_INFLATION, _SAMPLED, _SUSPECT = 2, 6.0, 8, 4
_SEED = 3


def _normal_equations(design: Design, dtype: torch.dtype, stride: int = 1) -> tuple[Tensor, Tensor]:
    """Return the upper triangle of ``A'A + P'P`` in ``dtype`` and ``A'B`` in float64, both of the scaled design.

    Scaling by powers of two changes no digit, so it is applied to the sums, not to the rows, unless the numbers would
    leave the range of ``dtype``. With a stride of s only one row of every s counts, drawn at random: tables repeat
    themselves.
    """
    generator = torch.Generator().manual_seed(_SEED)
    device, first = design.scale.device, int(design.bias)
    scale = design.scale
    largest, smallest = float(scale.max()), float(scale.min())
    before = scale[first:] if largest > 1e15 or smallest < 1e-15 else None
    gram = torch.zeros(design.n_columns, design.n_columns, dtype=dtype, device=device)
    cross = torch.zeros(design.n_columns, design.n_targets, dtype=dtype, device=device)
    # What a call adds up at the end is columns squared: with that many rows it does not count.
    rows = max(pass_rows(design.rows), 8 * design.n_columns if design.rows.in_memory else 0)
    for block in design.blocks(rows, "factoring", as_stored=True):
        X, Y, weight = block.X, block.Y, block.weight
        if stride > 1:
            count = X.shape[0] // stride
            drawn = torch.arange(count, device="cpu") * stride
            drawn = (drawn + torch.randint(stride, (count,), device="cpu", generator=generator)).to(device)
            X, Y, weight = X[drawn], Y[drawn], None if weight is None else weight[drawn]
        normal_equations_update(
            gram,
            cross,
            X,
            Y,
            design.target_scale,
            row_scale=None if weight is None else weight.sqrt(),
            x_scale=before,
            ones=design.bias,
        )
    after = scale if before is None else torch.cat([scale[:first], torch.ones_like(before)])
    if stride > 1:
        after = after * stride**0.5
    gram *= torch.outer(after, after).to(dtype)
    gram.diagonal().add_(design.penalty.square().to(dtype))
    return gram, cross.to(torch.float64) * after.unsqueeze(1)


@final
class Gram32(_Gram):
    name = "gram32"
    dtype = torch.float32
    #: Beyond, the preconditioned matrix is no longer near the identity.
    condition_limit = 1e3
    passes = 5


@final
class Gram64(_Gram):
    name = "gram64"
    dtype = torch.float64
    condition_limit = 3e6
    passes = 4
