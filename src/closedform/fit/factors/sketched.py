"""Sketch and precondition: the triangle of a random sketch of the rows, repaired by all of them.

Either by conjugate gradients, or at once by the Gram matrix of the rows whitened with that triangle.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.choice import engine_for
from closedform.engine.products import gram_, product_
from closedform.engine.threads import spectrum_of
from closedform.engine.triangles import COMPILED, cholesky_of
from closedform.fit.claims import Claims
from closedform.fit.factors.base import Cost, Factor, Facts, Method, cost, rounding_contraction
from closedform.fit.factors.gram import Gram64
from closedform.fit.factors.rank_check import longest_image, require_full_rank, rounding_seen
from closedform.fit.problem import Problem
from closedform.fit.refinement import ByGradient, WithinRowSpace
from closedform.numerics.embedding import NONZEROS
from closedform.numerics.extremes import extreme_singular_values
from closedform.numerics.rank import Rank, decide_rank
from closedform.numerics.root import SpectralRoot, TriangularRoot
from closedform.numerics.scaling import peak
from closedform.rows.folds import NormalEquations
from closedform.words.errors import FactorBreakdown

__all__ = ["Sketched"]

#: Sizes of the sketch that are considered, in rows for each column.
_RATIOS = (3, 4, 6, 8, 12, 16)
#: Decimal digits that conjugate gradients are to gain: the sketch-and-solve start has the first two of float64.
_DIGITS = 14.0
#: A sketch changes singular values by less than this factor: a gap this wide is one of the rows themselves.
_CLEAR = 1e3
#: Null vectors of a sketch that are held against the rows, or random combinations of more of them.
_PROBES = 4
#: Columns from which the Gram matrix of a sketch is worth single precision first, should the rows allow it.
_SINGLE = 500
#: Condition number up to which it serves, far from the thousands that rounding leaves of columns that depend.
_SINGLE_LIMIT = 100.0
#: Rows for each column in which half of the columns show whether it will do, which costs next to nothing.
_FEW = 1.25
#: Ratio of their pivots beyond which it will not: 2.5 for orthogonal columns, 9 at a condition number of 100.
_NEARLY = 9.0
#: Bytes of a sketch that stays in the cache of ordinary processors while rows are added to it.
_CACHE = 2.0**24
#: Reads of the rows, from memory, that adding them once to a sketch in cache takes, and to one that is not; measured.
_SUM_IN_CACHE = 0.5
_SUM = 3.0
#: Seed of the embedding; any serves.
_SEED = 7
#: Passes over the rows once they are whitened, that one included.
_WHITENED_PASSES = 5


def _steps(ratio: float) -> float:
    """Steps of conjugate gradients for all digits: a sketch of r rows a column distorts lengths by ``r ** -0.5``."""
    return _DIGITS / (0.5 * math.log10(ratio))


@final
class Sketched(Method):
    """The triangle of ``S [A | B]`` with a sparse sign embedding S preconditions refinement, whatever the condition.

    The sketch-and-solve weights are the start, and refinement restarts from the residual of the true rows, which is
    what makes it backward stable: Rokhlin and Tygert (2008); Epperly, Meier and Nakatsukasa (2024). The triangle is
    that of the sketch's Gram matrix, in single precision where columns are nearly orthogonal, else in double as far as
    that holds enough digits, else by reflections. Where a product
    with the triangle costs less than the steps it spares, ``A R^-1`` is factored by the Cholesky factor of its Gram
    matrix: randomized Cholesky-QR (Balabanov 2022; Higgins, Szyld, Boman and Yamazaki 2023). Preferred over
    ``householder`` for many times more rows than columns, with a condition number beyond ``gram64``.
    """

    name = "sketched"

    @override
    def refusals(self, facts: Facts) -> tuple[str, ...]:
        reasons = []
        if facts.n_rows < 2 * _RATIOS[0] * facts.n_columns:
            reasons.append(
                f"{facts.n_rows} rows for {facts.n_columns} columns: a sketch of {_RATIOS[0]} rows a column would not "
                "be much smaller"
            )
        if facts.rcond_given:
            reasons.append("an explicit rcond asks for singular values, which a sketch only estimates")
        return tuple(reasons)

    @override
    def cost(self, facts: Facts) -> Cost:
        return _cheapest(facts)[0]

    @override
    def factor(self, problem: Problem, facts: Facts) -> tuple[Factor, Tensor]:
        _, ratio, whiten = _cheapest(facts)
        sketch_rows = ratio * problem.n_columns
        root, C = _triangle(*_sketch(problem, sketch_rows), facts)
        # A row of the sketch is a sum of so many rows with random signs.
        rounding = sys.float_info.epsilon * (1.0 + NONZEROS * facts.n_rows / sketch_rows) ** 0.5

        if not bool((root.R.diagonal() != 0).all()):
            return _deficient(problem, facts, root, rounding), C
        try:
            rank, extremes = require_full_rank(root, facts, rounding=rounding)
        except FactorBreakdown:
            return _deficient(problem, facts, root, rounding), C
        if rank.ambiguous:
            raise FactorBreakdown("a sketch rounds more than the smallest singular value is clear of the cut")

        better = _whitened(problem, root, rank) if whiten else None
        if better is not None:
            return better
        factor = Factor(
            start=lambda right, nearest: root.solve(right),
            refinement=ByGradient(root, contraction=1.0),
            claims=Claims(rank, root, extremes),
        )
        return factor, C


def _triangle(A: Tensor, B: Tensor, facts: Facts) -> tuple[TriangularRoot, Tensor]:
    """Return R and ``Q'B`` of ``A = Q R``: by the Gram matrix of A where that holds enough digits, else Householder."""
    p = A.shape[1]
    for dtype, limit in _precisions(facts):
        root = _gram_root(A, dtype, limit)
        if root is not None:
            cross = A.new_zeros(p, B.shape[1])
            product_(cross, A, B)
            return root, root.adjoint_solve(cross)
    reflectors, tau = torch.geqrf(A)
    C = torch.ormqr(reflectors, tau, B, left=True, transpose=True)[:p]
    return TriangularRoot(reflectors[:p].triu(), COMPILED), C


def _precisions(facts: Facts) -> list[tuple[torch.dtype, float]]:
    """Return the precisions in which a Gram matrix is worth trying, and up to which condition number each serves.

    Those are left out that what is known of the condition number has ruled out already.
    """
    single = [(torch.float32, _SINGLE_LIMIT)] if facts.n_columns >= _SINGLE else []
    both = [*single, (torch.float64, Gram64.condition_limit)]
    return [] if facts.dependent else [(dtype, limit) for dtype, limit in both if facts.condition < limit]


def _gram_root(A: Tensor, dtype: torch.dtype, limit: float) -> TriangularRoot | None:
    """Return the Cholesky factor of the Gram matrix in some precision; None where the condition number is beyond it."""
    p = A.shape[1]
    if dtype == torch.float32 and _pivot_ratio(A[: int(_FEW * p / 2), : p // 2]) > _NEARLY:
        return None
    R, info = _cholesky(A, dtype)
    root = TriangularRoot(R.to(torch.float64), COMPILED)
    if info == 0 and root.is_finite() and extreme_singular_values(root).condition < limit:
        return root
    return None


def _pivot_ratio(A: Tensor) -> float:
    """Return the ratio of the extreme pivots in float32, a bound on the condition number from below."""
    R, info = _cholesky(A, torch.float32)
    pivots = R.diagonal().abs()
    return math.inf if info != 0 else float(pivots.max() / pivots.min())


def _cholesky(A: Tensor, dtype: torch.dtype) -> tuple[Tensor, int]:
    """Return the Cholesky factor of ``A'A``, summed in some precision, and 0; or the pivot that is not positive."""
    gram, cross = A.new_zeros(A.shape[1], A.shape[1], dtype=dtype), A.new_zeros(A.shape[1], 0, dtype=dtype)
    engine_for(A).normal_equations_(gram, cross, A, A[:, :0], A.new_ones(0))
    return cholesky_of(gram)


def _whitened(problem: Problem, sketched: TriangularRoot, rank: Rank) -> tuple[Factor, Tensor] | None:
    """Factor ``A R^-1`` by the Cholesky factor of its Gram matrix; None where rounding spoilt that."""
    p, first = problem.n_columns, int(problem.bias)
    T = sketched.solve(torch.eye(p, dtype=torch.float64, device=problem.scale.device))
    factor = T * problem.scale.unsqueeze(1)
    if not bool(torch.isfinite(factor).all()):
        return None
    sums = problem.rows.walk(NormalEquations(problem.columns, torch.float64, factor=factor))
    gram_(sums.gram, problem.penalty[first:].unsqueeze(1) * T[first:])
    S, info = cholesky_of(sums.gram)
    if info != 0 or not math.isfinite(peak(S.diagonal())):
        return None

    root = TriangularRoot(S @ sketched.R, COMPILED)
    extremes = extreme_singular_values(root)
    contraction = rounding_contraction(extremes, p)
    whitened = Factor(
        start=lambda right, nearest: root.solve(torch.linalg.solve_triangular(S.T, right, upper=False)),
        refinement=ByGradient(root, contraction),
        claims=Claims(rank, root, extremes),
        accuracy=contraction,
    )
    return whitened, sums.cross


def _deficient(problem: Problem, facts: Facts, root: TriangularRoot, rounding: float) -> Factor:
    """A sketch has the null space of the rows, so where its singular values have a clear gap it tells the rank.

    Raises:
        FactorBreakdown: they have none, or the rows do not agree.
    """
    if not bool(torch.isfinite(root.R).all()):
        raise FactorBreakdown("numbers left the range of float64 on the way; scale X by a constant")
    values, vectors = spectrum_of(root)
    rank = decide_rank(values, facts.n_columns, max(facts.rcond, rounding))
    if rank.ambiguous or rank.rank == 0 or rank.gap < _CLEAR:
        raise FactorBreakdown(
            f"numerical rank about {rank.rank} of {rank.columns} in a sketch, with a gap of only {rank.gap:.1e} at the "
            "cut",
            condition=1 / facts.rcond,
        )
    kept = SpectralRoot(values[: rank.rank], vectors[: rank.rank])
    if not _agree(problem, kept, vectors[rank.rank :].T):
        raise FactorBreakdown(f"the rows leave the row space of a sketch, which has {rank.rank} dimensions")
    rank = replace(rank, dropped=0.0)
    return Factor(
        start=lambda right, nearest: kept.solve(kept.adjoint_solve(root.adjoint_product(right))),
        refinement=WithinRowSpace(ByGradient(kept, contraction=1.0), kept.vectors),
        claims=Claims(rank, kept, row_space=kept.vectors, involved=vectors[rank.rank :]),
    )


def _agree(problem: Problem, kept: SpectralRoot, null: Tensor) -> bool:
    """Whether the images of null vectors of the sketch are rounding, at once or when the rows have corrected them."""
    if null.shape[1] > _PROBES:
        generator = torch.Generator().manual_seed(_SEED)
        mix = torch.randn(null.shape[1], _PROBES, dtype=torch.float64, device="cpu", generator=generator)
        null = null @ mix.to(null.device)
    limit = rounding_seen(problem, float(kept.values[0]))
    null = null / torch.linalg.vector_norm(null, dim=0)
    return longest_image(problem, null, problem.images(null), kept, limit) <= limit


def _ratios(facts: Facts) -> tuple[int, ...]:
    return tuple(ratio for ratio in _RATIOS if 2 * ratio * facts.n_columns <= facts.n_rows) or _RATIOS[:1]


def _cheapest(facts: Facts) -> tuple[Cost, int, bool]:
    """Return the least cost, and for which ratio, and whether the rows are whitened."""
    ratios = _ratios(facts)
    # A large sketch is cheap beside a product with all rows, and should the rank be deficient the sketch has to serve.
    choices = [(_cost(facts, ratio, False), ratio, False) for ratio in ratios]
    choices.append((_cost(facts, ratios[-1], True), ratios[-1], True))
    return min(choices, key=lambda choice: choice[0].seconds)


def _cost(facts: Facts, ratio: int, whiten: bool) -> Cost:
    passes = 1 + (_WHITENED_PASSES if whiten else _steps(ratio))
    flops = float(ratio * facts.n_columns**3)
    precisions = _precisions(facts)
    if precisions:
        rate = facts.rates.gram32 if precisions[0][0] == torch.float32 else facts.rates.gram64
        found = cost(flops, rate, facts, passes=passes)
    else:
        found = cost(2.0 * flops, facts.rates.qr64, facts, passes=passes)

    # Each nonzero of the embedding adds a row to one of the sketch; each step solves with the triangle twice.
    sketch = 8.0 * ratio * facts.n_columns**2
    sums = NONZEROS * (_SUM_IN_CACHE if sketch <= _CACHE else _SUM) * facts.row_bytes * facts.n_rows
    solves = 8.0 * passes * facts.n_columns**2
    found = replace(found, seconds=found.seconds + (sums + solves) / facts.rates.memory)
    if facts.dependent:
        # Then its singular values tell the rank.
        svd = 4.0 * facts.n_columns**3
        found = replace(found, flops=found.flops + svd, seconds=found.seconds + svd / facts.rates.svd64)

    if not whiten:
        return found
    # The product with a triangle and half of that with itself.
    flops = 2.0 * facts.n_rows * facts.n_columns**2
    return replace(found, flops=found.flops + flops, seconds=found.seconds + flops / facts.rates.gram64)


def _sketch(problem: Problem, sketch_rows: int) -> tuple[Tensor, Tensor]:
    """Return the sketch of A, with the ridge rows under it as they are, and that of B."""
    A, B = problem.design.sketch(sketch_rows, _SEED, problem.scale)
    if problem.l2 > 0:
        penalty = torch.diag(problem.penalty)[int(problem.bias) :]
        A, B = torch.cat([A, penalty]), torch.cat([B, penalty.new_zeros(penalty.shape[0], B.shape[1])])
    return A, B
