"""Cholesky of the Gram matrix, in bfloat16, float32 or float64: the cheapest factor, repaired by refinement."""

from __future__ import annotations

import math
from abc import ABC
from typing import ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.threads import one_thread
from closedform.engine.triangles import COMPILED, cholesky_of
from closedform.fit.claims import Claims
from closedform.fit.factors.base import Cost, Factor, Facts, Method, cost
from closedform.fit.problem import Problem
from closedform.fit.refinement import ByGradient
from closedform.numerics.extremes import Extremes, extreme_singular_values
from closedform.numerics.rank import Rank
from closedform.numerics.root import TriangularRoot
from closedform.rows.folds import NormalEquations
from closedform.words.errors import FactorBreakdown

__all__ = ["Gram16", "Gram32", "Gram64", "GramMethod", "with_ridge"]

#: What a sample of two rows a column may add to the condition number of Gaussian rows, as a factor.
_SAMPLE_INFLATION = 6.0
#: Rows for each column from which a look at a sample pays.
_SAMPLED = 8
#: Rows for each column from which it pays where another Gram matrix has failed.
_SUSPECT = 4
#: How many times more rows than the sample make it few: adding it up once more costs less than leaving it out.
_FEW = 16
#: Pivots, relative to their columns, that differ by less than this factor are of a size.
_ABRUPT = 30.0
#: Part of them that may be smaller where they do not fall gradually to one that is rounding.
_ABRUPT_SHARE = 0.02
#: Operations of a Gram matrix that is had as soon as a sample.
_WORTH = 1e7
#: Condition numbers beyond which a Gram matrix in that precision need not have a Cholesky factor, nor one that is near.
_HELD = {torch.float32: 1e3, torch.float64: 3e6}


def _holder(dtype: torch.dtype) -> str:
    return f"a {str(dtype).removeprefix('torch.')} Gram matrix"


class GramMethod(Method, ABC):
    """What methods on a Gram matrix share, be it that of the columns or of the rows: its precision and its root."""

    dtype: ClassVar[torch.dtype]
    #: Passes over the rows, all told: the scan, the Gram matrix, refinement to double precision, and the certificate.
    passes: ClassVar[int]
    #: By what factor the condition number that a sample shows may be beyond the limit before all rows are given up.
    sample_excess: ClassVar[float] = _SAMPLE_INFLATION

    def rate(self, facts: Facts) -> float:
        """Operations a second in the precision of the Gram matrix."""
        rates = facts.rates
        return {torch.bfloat16: rates.gram16, torch.float32: rates.gram32, torch.float64: rates.gram64}[self.dtype]

    def root(self, gram: Tensor, scale: Tensor, place: str, holder: str) -> tuple[TriangularRoot, Extremes]:
        """Return the Cholesky factor of ``diag(scale) gram diag(scale)`` and its extreme singular values.

        Args:
            gram: Upper triangle, ``(n, n)``.
            scale: ``(n,)``, float64.
            place: What a pivot belongs to, for messages: ``"column"`` or ``"row"``.
            holder: What cannot hold a larger condition number, for messages.

        Raises:
            FactorBreakdown: the condition number is beyond what the Gram matrix serves.
        """
        R = self._cholesky(gram, place, holder)
        root = TriangularRoot(R.to(torch.float64).mul(scale).contiguous(), COMPILED)
        extremes = extreme_singular_values(root)
        if not extremes.condition <= self.condition_limit:
            raise FactorBreakdown(
                f"condition number about {extremes.condition:.1e}; {holder} serves up to {self.condition_limit:.0e}",
                # Rows rounded to bfloat16 may have a larger one than the rows.
                condition=self._more() if self.dtype == torch.bfloat16 else extremes.condition,
            )
        return root, extremes

    def check_sample(self, gram: Tensor, scale: Tensor, holder: str) -> None:
        """Check the Gram matrix of a sample of the rows.

        Raises:
            FactorBreakdown: that of all rows will not do either.
        """
        if bool((gram.diagonal() == 0).any()):
            # A column without a number in the sample may have some in the other rows.
            return
        # For bfloat16 the sample is in float32: where it fails, it would for float32 as well.
        limit = max(self.condition_limit, _HELD[gram.dtype])
        pivots = self._cholesky(gram, "column", _holder(gram.dtype), " in a sample of the rows", limit)
        pivots = pivots.diagonal() * scale
        # From below, but a Gram matrix that holds together has not lost many digits to its condition number.
        condition = float(pivots.abs().max() / pivots.abs().min())
        if not condition <= self.condition_limit * self.sample_excess:
            raise FactorBreakdown(
                f"condition number at least {condition:.1e} in a sample of the rows; {holder} serves up to "
                f"{self.condition_limit:.0e}",
                condition=condition / _SAMPLE_INFLATION,
            )

    def serves_sample(self, gram: Tensor) -> bool:
        """Whether the Gram matrix of a sample of the rows, not scaled, says that one of all rows will do.

        Args:
            gram: Upper triangle, ``(n, n)``.
        """
        sizes = gram.diagonal().to(torch.float64)
        if not bool((torch.isfinite(sizes) & (sizes > 0)).all()):
            return False
        try:
            self.check_sample(gram, sizes.rsqrt(), _holder(self.dtype))
        except FactorBreakdown:
            return False
        return True

    def _more(self, limit: float | None = None) -> float:
        """A condition number beyond the limit, by no more than is known."""
        return math.nextafter(limit or self.condition_limit, math.inf)

    def _cholesky(self, gram: Tensor, place: str, holder: str, where: str = "", limit: float | None = None) -> Tensor:
        R, info = cholesky_of(gram)
        if info != 0:
            raise FactorBreakdown(
                f"Cholesky met a pivot that is not positive at {place} {info - 1}{where}: the condition number is "
                f"beyond what {holder} can hold",
                condition=self._more(limit),
                dependent=_is_abrupt(gram, info - 1),
            )
        return R


def _is_abrupt(gram: Tensor, place: int) -> bool:
    """Whether the pivots before one that is not positive are nearly all of a size, as where the rank is exact.

    They are taken relative to their columns; a few may be rounding already.

    Args:
        gram: The Gram matrix, upper triangle.
        place: Where that pivot stands.
    """
    before = gram[:place, :place].contiguous()
    R, info = cholesky_of(before)
    if place == 0 or info != 0:
        return False
    left = R.diagonal() / before.diagonal().sqrt()
    return int((left * _ABRUPT < left.max()).sum()) <= _ABRUPT_SHARE * place


class _Gram(GramMethod, ABC):
    """``A'A = R'R``; the weights follow from refinement on the true rows alone.

    The Gram matrix squares the condition number, so R is only a preconditioner: the refinement that follows works
    with residuals of the true rows (Garrison and Ipsen 2026; Carson and Higham 2018 for the idea).
    """

    @override
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

    @override
    def cost(self, facts: Facts) -> Cost:
        summed = str(self.dtype).removeprefix("torch.") in facts.summed
        flops = (0 if summed else facts.n_rows * facts.n_columns**2) + facts.n_columns**3 / 3
        spared = facts.many_targets and self.dtype == torch.float64
        return cost(flops, self.rate(facts), facts, passes=self.passes - summed - spared)

    @override
    def factor(self, problem: Problem, facts: Facts) -> tuple[Factor, Tensor]:
        with one_thread(problem.n_columns, problem.rows.device, targets=problem.n_targets):
            return self._factor(problem, facts)

    def samples(self, facts: Facts) -> bool:
        """Whether a sample of the rows is looked at first."""
        needed = (_SAMPLED if facts.condition == 1 else _SUSPECT) * facts.n_columns
        return facts.in_memory and facts.n_rows >= needed and facts.n_rows * facts.n_columns**2 >= _WORTH

    def _factor(self, problem: Problem, facts: Facts) -> tuple[Factor, Tensor]:
        design, p, holder = problem.design, problem.n_columns, _holder(self.dtype)
        bfloat16 = self.dtype == torch.bfloat16
        dtype = torch.float32 if bfloat16 else self.dtype

        sample_counts = False
        if self.samples(facts) and not design.has_sums(dtype):
            # A few rows tell whether all of them are worth the work.
            sampled = design.sampled_normal_equations(dtype)
            gram, scale = with_ridge(problem, sampled)
            self.check_sample(gram, scale, holder)
            # Walking the others by their numbers would cost more than a few rows once more.
            sample_counts = problem.rows.n_rows < _FEW * sampled.rows
        sums, cross = design.normal_equations(dtype, bfloat16=bfloat16, sample_counts=sample_counts)
        gram, scale = with_ridge(problem, sums)

        root, extremes = self.root(gram, scale, "column", holder)
        condition = extremes.condition
        rank = Rank(p, p, facts.rcond, 1 / (condition * facts.rcond) if facts.rcond else math.inf, ambiguous=False)
        # Rounding of the Gram matrix, as the preconditioned matrix sees it.
        contraction = condition**2 * torch.finfo(dtype).eps * p**0.5
        if bfloat16:
            # Rounding of the entries, of which a long column averages most.
            contraction += condition * torch.finfo(self.dtype).eps / 16
        factor = Factor(
            start=lambda right, nearest: root.normal_solve(right),
            refinement=ByGradient(root, contraction),
            claims=Claims(rank, root, extremes),
            accuracy=contraction,
        )
        return factor, cross * scale.unsqueeze(1)


def with_ridge(problem: Problem, sums: NormalEquations) -> tuple[Tensor, Tensor]:
    """Return the upper triangle of the sums, with the ridge's part of the rows so far, and the scale that they lack.

    The scale is ``(columns,)``, float64: ``diag(scale) gram diag(scale)`` is ``A'A + P'P``.
    """
    scale = problem.scale / sums.applied
    if problem.l2 == 0:
        return sums.gram, scale
    part = (problem.penalty / scale).square() * (sums.rows / problem.rows.n_rows)
    return sums.gram + torch.diag(part.to(sums.gram.dtype)), scale


@final
class Gram16(_Gram):
    """In bfloat16, whose products a processor may form several times as fast as those of float32; the sums are float32.

    Rounding may hide that columns depend, so a sample in float32 is always looked at.
    """

    name = "gram16"
    dtype = torch.bfloat16
    #: Rounding changes an entry by up to 2^-8 of itself, and leaves of a direction that the rows do not have at most
    #: about 1/200: a higher limit would let dependent columns pass, and take many passes.
    condition_limit = 100
    sample_excess = 1.0
    passes = 9

    @override
    def refusals(self, facts: Facts) -> tuple[str, ...]:
        reasons = [*super().refusals(facts)]
        if not facts.bfloat16:
            reasons.append("bfloat16 numbers are not multiplied by this processor, or not in this layout of rows")
        if not facts.in_memory:
            reasons.append("rows that are read from a file are not sampled")
        if facts.n_rows < _SUSPECT * facts.n_columns:
            reasons.append(f"{facts.n_rows} rows for {facts.n_columns} columns: no sample would be much smaller")
        return tuple(reasons)

    @override
    def samples(self, facts: Facts) -> bool:
        return True


@final
class Gram32(_Gram):
    """In float32: half the time of ``gram64`` for one more pass, where the condition number is below a thousand."""

    name = "gram32"
    dtype = torch.float32
    condition_limit = _HELD[torch.float32]
    passes = 4


@final
class Gram64(_Gram):
    """In float64: preferred over ``gram32`` for few columns and condition numbers up to a million or so."""

    name = "gram64"
    dtype = torch.float64
    condition_limit = _HELD[torch.float64]
    passes = 3
