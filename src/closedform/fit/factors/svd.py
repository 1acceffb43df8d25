"""Singular value decomposition of the triangle: for numerically dependent columns, with the cut named."""

from __future__ import annotations

import sys
from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar, final

import torch
from torch import Tensor

from closedform.fit.factors.base import Cost, Factor, Facts, Method, cost, rounding_contraction
from closedform.numerics.extremes import Extremes
from closedform.numerics.least_norm import LeastNorm
from closedform.numerics.rank import Rank, decide_rank, default_rcond
from closedform.numerics.root import SpectralRoot
from closedform.rows import Design
from closedform.words.errors import FactorBreakdown

__all__ = ["Svd", "SvdAtPrecision", "of_least_norm"]


class _Svd(Method):
    """Keep the singular directions above a cut; among the weights that agree on them, take those of least norm.

    The rank is that of the column-scaled matrix, the norm that of the user's own units: with ``A D = U S V'``, the kept
    part fixes ``V_r' z`` and a least-norm solve finds the shortest ``D z`` (Golub and Van Loan 2013, 5.5).
    """

    def refusals(self, facts: Facts) -> tuple[str, ...]:
        return ()

    def cost(self, facts: Facts) -> Cost:
        small = min(facts.n_rows, facts.n_columns)
        triangle = cost(2.5 * facts.n_rows * facts.n_columns * small, facts.rates.qr64, facts, passes=4)
        flops = 4.0 * facts.n_columns * small**2
        return Cost(triangle.flops + flops, triangle.bytes, triangle.seconds + flops / facts.rates.svd64)

    @abstractmethod
    def decide(self, values: Tensor, facts: Facts) -> Rank:
        """Decide how many of the singular values are kept."""

    def factor(self, design: Design, facts: Facts, nearest: Tensor | None) -> Factor:
        triangle = design.triangle
        if not bool(torch.isfinite(triangle.R).all()):
            raise FactorBreakdown("numbers left the range of float64 on the way; scale X by a constant")
        U, values, vectors = torch.linalg.svd(triangle.R, full_matrices=False)
        rank = self.decide(values, facts)
        r = rank.rank
        root = SpectralRoot(values[:r], vectors[:r])
        fixed = (U[:, :r].T @ triangle.C) / values[:r].unsqueeze(1)
        start = root.vectors.T @ fixed if rank.full else of_least_norm(design, root.vectors, fixed, nearest)
        extremes = Extremes(0.0, 0.0)
        if r:
            extremes = Extremes(float(values[0]), float(values[r - 1]), vectors[:1].T, vectors[r - 1 : r].T)
        return Factor(
            start=start,
            rank=rank,
            root=root,
            undetermined=None if rank.full else vectors[r:],
            kept=root.vectors if _loses(values, rank, facts) else None,
            extremes=extremes,
            contraction=rounding_contraction(extremes, facts.n_columns),
        )


def _loses(values: Tensor, rank: Rank, facts: Facts) -> bool:
    """Whether a cut that was asked for drops directions that are more than rounding."""
    if not facts.rcond_given or rank.rank == values.numel():
        return False
    return bool(values[rank.rank] > default_rcond(facts.n_rows, facts.n_columns) * values[0])


def of_least_norm(design: Design, vectors: Tensor, fixed: Tensor, nearest: Tensor | None) -> Tensor:
    """Return the z with ``V_r' z = fixed`` whose weights D z are shortest, or nearest to those given."""
    unscale = 1 / design.scale.unsqueeze(1)
    if vectors.shape[0] == 0:
        return (
            torch.zeros(design.n_columns, design.n_targets, dtype=torch.float64, device=vectors.device)
            if nearest is None
            else nearest
        )
    least_norm = LeastNorm(vectors.T * unscale, free_first=design.bias and nearest is None)
    if nearest is None:
        return unscale * least_norm.solve(fixed)
    return nearest + unscale * least_norm.solve(fixed - vectors @ nearest)


@final
class Svd(_Svd):
    """Cut at rcond."""

    name: ClassVar[str] = "svd"

    def decide(self, values: Tensor, facts: Facts) -> Rank:
        return decide_rank(values, facts.n_columns, facts.rcond)


@final
class SvdAtPrecision(_Svd):
    """Cut nothing above rounding: where a cut at rcond would be seen in the residual, the data still speak there."""

    name: ClassVar[str] = "svd at precision"

    def refusals(self, facts: Facts) -> tuple[str, ...]:
        if facts.rcond_given:
            return ("an explicit rcond says where to cut",)
        return ()

    def decide(self, values: Tensor, facts: Facts) -> Rank:
        rank = decide_rank(values, facts.n_columns, sys.float_info.epsilon)
        usual = decide_rank(values, facts.n_columns, facts.rcond)
        # Directions between the usual cut and rounding: the rows see them, the usual rule does not.
        return replace(rank, ambiguous=rank.ambiguous or rank.rank > usual.rank)
