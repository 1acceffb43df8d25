"""Sketch and precondition: the triangle of a random sketch of the rows, repaired by all of them.

Either by conjugate gradients, or at once by the Gram matrix of the rows whitened with that triangle.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from closedform.engine.gram import cholesky, gram_update, normal_equations_update
from closedform.engine.sketch import NONZEROS, sketch_update, sparse_signs
from closedform.engine.threads import spectrum_of
from closedform.fit.factors.base import Cost, Factor, Facts, Method, cost, rounding_contraction
from closedform.fit.factors.gram import Gram64
from closedform.fit.factors.rank_check import require_full_rank
from closedform.fit.factors.svd import of_least_norm
from closedform.numerics.extremes import extreme_singular_values
from closedform.numerics.rank import Rank, decide_rank
from closedform.numerics.root import SpectralRoot, TriangularRoot
from closedform.rows import Design
from closedform.words.errors import FactorBreakdown

__all__ = ["Sketched"]

#: Sizes of the sketch that are considered, in rows for each column.
_RATIOS = (3, 4, 6, 8, 12, 16)
_DIGITS = 16.0
#: A sketch changes singular values by less than this factor: a gap this wide is one of the rows themselves.
_CLEAR = 1e3
#: A Gaussian sketch of r rows a column stretches nothing by more than ``1 + r^-1/2``: its inverse square for the fewest
#: rows, and to spare.
_LEAST = 0.25
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
    what makes it backward stable: Rokhlin and Tygert (2008); Epperly, Meier and Nakatsukasa (2024). Where a product
    with the triangle costs less than the steps it spares, ``A R^-1`` is factored by the Cholesky factor of its Gram
    matrix: randomized Cholesky-QR (Balabanov 2022; Higgins, Szyld, Boman and Yamazaki 2023).
    """

    name = "sketched"

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

    def cost(self, facts: Facts) -> Cost:
        return _cheapest(facts)[0]

    def factor(self, design: Design, facts: Facts, nearest: Tensor | None) -> Factor:
        _, ratio, whiten = _cheapest(facts)
        root, C = _triangle(*_sketch(design, ratio * design.n_columns), facts)
        if bool((root.R.diagonal() != 0).all()):
            try:
                rank, extremes = require_full_rank(root, facts)
            except FactorBreakdown:
                return _deficient(design, facts, root, C, nearest)
            better = _whitened(design, root, rank) if whiten else None
            if better is not None:
                return better
            return Factor(start=root.solve(C), rank=rank, root=root, extremes=extremes, contraction=1.0, least=_LEAST)
        return _deficient(design, facts, root, C, nearest)


def _triangle(A: Tensor, B: Tensor, facts: Facts) -> tuple[TriangularRoot, Tensor]:
    """Return R and ``Q'B`` of ``A = Q R``: by the Gram matrix of A where that holds enough digits, else Householder."""
    p = A.shape[1]
    if _by_gram(facts):
        gram, cross = A.new_zeros(p, p), A.new_zeros(p, B.shape[1])
        normal_equations_update(gram, cross, A, B, B.new_ones(B.shape[1]))
        R, info = cholesky(gram)
        root = TriangularRoot(R.contiguous())
        if info == 0 and root.is_finite() and extreme_singular_values(root).condition < Gram64.condition_limit:
            return root, root.adjoint_solve(cross)
    reflectors, tau = torch.geqrf(A)
    C = torch.ormqr(reflectors, tau, B, left=True, transpose=True)[:p]
    return TriangularRoot(reflectors[:p].triu()), C


def _by_gram(facts: Facts) -> bool:
    """Whether it is worth trying: nothing says that the condition number is too large for it."""
    return facts.condition < Gram64.condition_limit


def _whitened(design: Design, sketched: TriangularRoot, rank: Rank) -> Factor | None:
    """Factor ``A R^-1`` by the Cholesky factor of its Gram matrix; None where rounding spoilt that."""
    p, first = design.n_columns, int(design.bias)
    T = sketched.solve(torch.eye(p, dtype=torch.float64, device=design.scale.device))
    gram, cross = T.new_zeros(p, p), T.new_zeros(p, design.n_targets)
    factor = T * design.scale.unsqueeze(1)
    if not bool(torch.isfinite(factor).all()):
        return None
    design.add_normal_equations(gram, cross, factor=factor)
    gram_update(gram, design.penalty[first:].unsqueeze(1) * T[first:])
    S, info = cholesky(gram)
    if info != 0 or not bool(torch.isfinite(S.diagonal()).all()):
        return None
    root = TriangularRoot(S @ sketched.R)
    extremes = extreme_singular_values(root)
    start = root.solve(torch.linalg.solve_triangular(S.T, cross, upper=False))
    contraction = rounding_contraction(extremes, p)
    return Factor(start=start, rank=rank, root=root, extremes=extremes, contraction=contraction)


def _deficient(design: Design, facts: Facts, root: TriangularRoot, C: Tensor, nearest: Tensor | None) -> Factor:
    """A sketch has the null space of the rows, so where its singular values have a clear gap it tells the rank."""
    if not bool(torch.isfinite(root.R).all()):
        raise FactorBreakdown("numbers left the range of float64 on the way; scale X by a constant")
    values, vectors = spectrum_of(root)
    rank = decide_rank(values, facts.n_columns, facts.rcond)
    if rank.ambiguous or rank.rank == 0 or rank.gap < _CLEAR:
        raise FactorBreakdown(
            f"numerical rank about {rank.rank} of {rank.columns} in a sketch, with a gap of only {rank.gap:.1e} at the "
            "cut",
            condition=1 / facts.rcond,
        )
    kept = SpectralRoot(values[: rank.rank], vectors[: rank.rank])
    return Factor(
        start=kept.solve(kept.adjoint_solve(root.adjoint_product(C))),
        rank=rank,
        root=kept,
        undetermined=vectors[rank.rank :],
        finish=lambda Z: of_least_norm(design, kept.vectors, kept.vectors @ Z, nearest),
        contraction=1.0,
        least=_LEAST,
    )


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
    if _by_gram(facts):
        found = cost(flops, facts.rates.gram64, facts, passes=passes)
    else:
        found = cost(2.0 * flops, facts.rates.qr64, facts, passes=passes)
    # Each nonzero of the embedding is a sum in cache, about as long as half a read of the rows from memory.
    sums = (NONZEROS / 2 - 1) * facts.row_bytes * facts.n_rows / facts.rates.memory
    found = replace(found, seconds=found.seconds + sums)
    if not whiten:
        return found
    # The product with a triangle and half of that with itself.
    flops = 2.0 * facts.n_rows * facts.n_columns**2
    return Cost(found.flops + flops, found.bytes, found.seconds + flops / facts.rates.gram64)


def _sketch(design: Design, sketch_rows: int) -> tuple[Tensor, Tensor]:
    """Return the sketch of A, with the ridge rows under it as they are, and that of B."""
    device, first = design.scale.device, int(design.bias)
    generator = torch.Generator().manual_seed(_SEED)
    X = torch.zeros(sketch_rows, design.rows.n_features, dtype=torch.float64, device=device)
    B = torch.zeros(sketch_rows, design.n_targets + first, dtype=torch.float64, device=device)
    for block in design.pass_blocks("factoring"):
        n = block.X.shape[0]
        targets, factors = sparse_signs(n, sketch_rows, generator, device)
        if block.weight is not None:
            factors *= block.weight.sqrt().unsqueeze(1)
        Y = block.Y.to(torch.float64) * design.target_scale
        if design.bias:
            Y = torch.cat([Y, Y.new_ones(n, 1)], 1)
        sketch_update(X, block.X, targets, factors)
        sketch_update(B, Y, targets, factors)
    A = X.mul_(design.scale[first:])
    if design.bias:
        A = torch.cat([B[:, -1:] * design.scale[0], A], 1)
        B = B[:, :-1]
    if design.l2 > 0:
        penalty = torch.diag(design.penalty)[first:]
        A, B = torch.cat([A, penalty]), torch.cat([B, penalty.new_zeros(penalty.shape[0], B.shape[1])])
    return A, B
