"""Sketch and precondition: QR of a random sketch of the rows, repaired by conjugate gradients on all of them."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from closedform.errors import FactorBreakdown
from closedform.factors.base import Cost, Factor, Facts, Method, cost
from closedform.factors.rank_check import require_full_rank
from closedform.factors.svd import of_least_norm
from closedform.numerics.rank import decide_rank
from closedform.numerics.root import SpectralRoot, TriangularRoot
from closedform.numerics.sketch import NONZEROS, sketch_update, sparse_signs
from closedform.rows import Design

__all__ = ["Sketched"]

#: Sizes of the sketch that are considered, in rows for each column.
_RATIOS = (3, 4, 6, 8, 12, 16)
_DIGITS = 16.0
#: A sketch changes singular values by less than this factor: a gap this wide is one of the rows themselves.
_CLEAR = 1e3
_SEED = 7


def _steps(ratio: float) -> float:
    """Steps of conjugate gradients for all digits: a sketch of r rows a column distorts lengths by ``r ** -0.5``."""
    return _DIGITS / (0.5 * math.log10(ratio))


@final
class Sketched(Method):
    """The triangle of ``S [A | B]`` with a sparse sign embedding S preconditions refinement, whatever the condition.

    The sketch-and-solve weights are the start, and refinement restarts from the residual of the true rows, which is
    what makes it backward stable: Rokhlin and Tygert (2008); Epperly, Meier and Nakatsukasa (2024).
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
        return min((_cost(facts, ratio) for ratio in _ratios(facts)), key=lambda cost: cost.seconds)

    def factor(self, design: Design, facts: Facts, nearest: Tensor | None) -> Factor:
        ratio = min(_ratios(facts), key=lambda ratio: _cost(facts, ratio).seconds)
        A, B = _sketch(design, ratio * design.n_columns)
        reflectors, tau = torch.geqrf(A)
        p = design.n_columns
        R = reflectors[:p].triu()
        C = torch.ormqr(reflectors, tau, B, left=True, transpose=True)[:p]
        root = TriangularRoot(R)
        if bool((R.diagonal() != 0).all()):
            try:
                rank, extremes = require_full_rank(root, facts)
            except FactorBreakdown:
                return _deficient(design, facts, root, C, nearest)
            return Factor(start=root.solve(C), rank=rank, root=root, extremes=extremes, contraction=1.0)
        return _deficient(design, facts, root, C, nearest)


def _deficient(design: Design, facts: Facts, root: TriangularRoot, C: Tensor, nearest: Tensor | None) -> Factor:
    """A sketch has the null space of the rows, so where its singular values have a clear gap it tells the rank."""
    if not bool(torch.isfinite(root.R).all()):
        raise FactorBreakdown("numbers left the range of float64 on the way; scale X by a constant")
    values, vectors = root.spectrum()
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
    )


def _ratios(facts: Facts) -> tuple[int, ...]:
    return tuple(ratio for ratio in _RATIOS if 2 * ratio * facts.n_columns <= facts.n_rows) or _RATIOS[:1]


def _cost(facts: Facts, ratio: int) -> Cost:
    triangle = 2.0 * ratio * facts.n_columns**3
    # Each nonzero of the embedding is a sum in cache, about as long as half a read of the rows.
    return cost(triangle, facts.rates.qr64, facts, passes=NONZEROS / 2 + _steps(ratio))


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
    A = X * design.scale[first:]
    if design.bias:
        A = torch.cat([B[:, -1:] * design.scale[0], A], 1)
        B = B[:, :-1]
    if design.l2 > 0:
        penalty = torch.diag(design.penalty)[first:]
        A, B = torch.cat([A, penalty]), torch.cat([B, penalty.new_zeros(penalty.shape[0], B.shape[1])])
    return A, B
