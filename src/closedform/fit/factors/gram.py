"""Cholesky of the Gram matrix, in bfloat16, float32 or float64: the cheapest factor, repaired by refinement."""

from __future__ import annotations

import math
from typing import ClassVar, final

import torch
from torch import Tensor

from closedform.engine.gram import cholesky
from closedform.engine.threads import one_thread
from closedform.fit.factors.base import Cost, Factor, Facts, Method, cost
from closedform.numerics.extremes import Extremes, extreme_singular_values
from closedform.numerics.rank import Rank
from closedform.numerics.root import TriangularRoot
from closedform.rows import Design
from closedform.words.errors import FactorBreakdown

__all__ = ["Gram16", "Gram32", "Gram64", "GramMethod", "NormalEquations", "draw_rows"]

#: Rows of the sample for each column, what it may add to the condition number of Gaussian rows, how many rows a column
#: there have to be for it to pay, and where another Gram matrix has failed; how many times more for it to be few; and
#: the operations of a Gram matrix that is not had sooner than a sample.
_SAMPLE, _SAMPLE_INFLATION, _SAMPLED, _SUSPECT, _FEW, _WORTH = 2, 6.0, 8, 4, 16, 1e7
_SEED = 3
#: Condition numbers beyond which a Gram matrix in that precision need not have a Cholesky factor, nor one that is near.
_HELD = {torch.float32: 1e3, torch.float64: 3e6}


def _holder(dtype: torch.dtype) -> str:
    return f"a {str(dtype).removeprefix('torch.')} Gram matrix"


class GramMethod(Method):
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
        root = TriangularRoot(R.to(torch.float64).mul(scale).contiguous())
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

    def _more(self, limit: float | None = None) -> float:
        """A condition number beyond the limit, by no more than is known."""
        return math.nextafter(limit or self.condition_limit, math.inf)

    def _cholesky(self, gram: Tensor, place: str, holder: str, where: str = "", limit: float | None = None) -> Tensor:
        R, info = cholesky(gram)
        if info != 0:
            raise FactorBreakdown(
                f"Cholesky met a pivot that is not positive at {place} {info - 1}{where}: the condition number is "
                f"beyond what {holder} can hold",
                condition=self._more(limit),
            )
        return R


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
        with one_thread(design.n_columns, design.rows.device, targets=design.n_targets):
            return self._factor(design, facts)

    def _samples(self, facts: Facts) -> bool:
        """Whether a sample of the rows is looked at first."""
        needed = (_SAMPLED if facts.condition == 1 else _SUSPECT) * facts.n_columns
        return facts.in_memory and facts.n_rows >= needed and facts.n_rows * facts.n_columns**2 >= _WORTH

    def _factor(self, design: Design, facts: Facts) -> Factor:
        p = design.n_columns
        holder = _holder(self.dtype)
        sums = NormalEquations(design, self.dtype)
        rest: Tensor | None = None
        if self._samples(facts):
            # A few rows tell whether all of them are worth the work.
            drawn = draw_rows(design, _SAMPLE * p)
            sums.add(drawn, sample=True)
            self.check_sample(sums.gram(), sums.scale, holder)
            if design.rows.n_rows >= _FEW * drawn.shape[0]:
                # Walking the others by their numbers would cost more than these few rows once more.
                sums = NormalEquations(design, self.dtype)
            else:
                rest = torch.ones(design.rows.n_rows, dtype=torch.bool, device=drawn.device)
                rest[drawn] = False
                rest = rest.nonzero().squeeze(1)
        sums.add(rest)
        root, extremes = self.root(sums.gram(), sums.scale, "column", holder)
        condition = extremes.condition
        rank = Rank(p, p, facts.rcond, 1 / (condition * facts.rcond) if facts.rcond else math.inf, ambiguous=False)
        # Rounding of the Gram matrix, as the preconditioned matrix sees it.
        contraction = condition**2 * torch.finfo(sums.dtype).eps * p**0.5
        if self.dtype == torch.bfloat16:
            # Rounding of the entries, of which a long column averages most.
            contraction += condition * torch.finfo(self.dtype).eps / 16
        start = root.solve(root.adjoint_solve(sums.cross()))
        return Factor(start=start, rank=rank, root=root, extremes=extremes, contraction=contraction)


def draw_rows(design: Design, count: int) -> Tensor:
    """Return ascending numbers of rows, among them about ``count`` with a positive weight.

    One of every few is drawn at random, since tables repeat themselves.
    """
    generator = torch.Generator().manual_seed(_SEED)
    stride = max(1, design.scanned.positive_rows // count)
    drawn = torch.arange(design.rows.n_rows // stride, device="cpu") * stride
    drawn += torch.randint(stride, drawn.shape, device="cpu", generator=generator)
    return drawn.to(design.scale.device)


class NormalEquations:
    """Sums for ``A'A + P'P`` and ``A'B``.

    Scaling columns by powers of two changes no digit, so it is left to the factor, unless numbers would leave the range
    of the dtype.

    Attributes:
        scale: What is left to scale, ``(columns,)``.
        dtype: That of the sums: float32 for entries in bfloat16.
    """

    def __init__(self, design: Design, dtype: torch.dtype) -> None:
        self._design = design
        self._bfloat16 = dtype == torch.bfloat16
        self.dtype = dtype = torch.float32 if self._bfloat16 else dtype
        scale, first = design.scale, int(design.bias)
        far = float(scale.max()) > 1e15 or float(scale.min()) < 1e-15
        self._before = scale[first:] if far else None
        self.scale = torch.cat([scale[:first], torch.ones_like(scale[first:])]) if far else scale
        self._gram = torch.zeros(design.n_columns, design.n_columns, dtype=dtype, device=scale.device)
        self._cross = torch.zeros(design.n_columns, design.n_targets, dtype=dtype, device=scale.device)
        self._rows = 0

    def add(self, order: Tensor | None, sample: bool = False) -> None:
        """Add the rows that ``order`` names, ascending, or all; those of a sample in the dtype of the sums."""
        self._design.add_normal_equations(
            self._gram, self._cross, x_scale=self._before, order=order, bfloat16=self._bfloat16 and not sample
        )
        self._rows += self._design.rows.n_rows if order is None else order.shape[0]

    def gram(self) -> Tensor:
        """Return the upper triangle of the sums, with the part of the ridge that belongs to the rows so far."""
        part = (self._design.penalty / self.scale).square() * (self._rows / self._design.rows.n_rows)
        return self._gram + torch.diag(part.to(self._gram.dtype)) if bool(part.any()) else self._gram

    def cross(self) -> Tensor:
        """Return ``A'B`` in float64, ``(columns, targets)``."""
        return self._cross.to(torch.float64) * self.scale.unsqueeze(1)


@final
class Gram16(_Gram):
    """In bfloat16, whose products processors form twice as fast as those of float32; the sums are float32.

    Rounding may hide that columns depend, so a sample in float32 is always looked at.
    """

    name = "gram16"
    dtype = torch.bfloat16
    #: Rounding changes an entry by up to 2^-8 of itself, and leaves of a direction that the rows do not have at most
    #: about 1/200: a higher limit would let dependent columns pass, and take many passes.
    condition_limit = 100
    sample_excess = 1.0
    passes = 9

    def refusals(self, facts: Facts) -> tuple[str, ...]:
        reasons = [*super().refusals(facts)]
        if not facts.bfloat16:
            reasons.append("bfloat16 numbers are not multiplied by this processor, or not in this layout of rows")
        if not facts.in_memory:
            reasons.append("rows that are read from a file are not sampled")
        if facts.n_rows < _SUSPECT * facts.n_columns:
            reasons.append(f"{facts.n_rows} rows for {facts.n_columns} columns: no sample would be much smaller")
        return tuple(reasons)

    def _samples(self, facts: Facts) -> bool:
        return True


@final
class Gram32(_Gram):
    name = "gram32"
    dtype = torch.float32
    condition_limit = _HELD[torch.float32]
    passes = 5


@final
class Gram64(_Gram):
    name = "gram64"
    dtype = torch.float64
    condition_limit = _HELD[torch.float64]
    passes = 4
