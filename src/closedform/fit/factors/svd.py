"""Singular value decomposition of the triangle: for numerically dependent columns, with the cut named."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.fit.claims import Claims
from closedform.fit.factors.base import Cost, Factor, Facts, Method, cost, rounding_contraction
from closedform.fit.least_norm import least_norm_coordinates
from closedform.fit.problem import Problem
from closedform.fit.refinement import ByGradient, Unrefined
from closedform.numerics.extremes import Extremes
from closedform.numerics.rank import Rank, decide_rank, default_rcond, factor_rounding
from closedform.numerics.root import SpectralRoot
from closedform.words.errors import FactorBreakdown

__all__ = ["Svd", "SvdAtPrecision"]


#: Singular value, relative to the largest, of directions along which least norm may move weights that rcond has cut: a
#: step there is not seen in the fit.
_MOVABLE = 2.0**-26


class _Svd(Method, ABC):
    """Keep the singular directions above a cut; among the weights that agree on them, take those of least norm.

    The rank is that of the column-scaled matrix, the norm that of the user's own units: with ``A D = U S V'``, the kept
    part fixes ``V_r' z`` and a least-norm solve finds the shortest ``D z`` (Golub and Van Loan 2013, 5.5). The last
    resort, and the one that an explicit ``rcond`` asks for: its singular values cost more than the triangle.
    """

    @override
    def refusals(self, facts: Facts) -> tuple[str, ...]:
        return ()

    @override
    def cost(self, facts: Facts) -> Cost:
        small = min(facts.n_rows, facts.n_columns)
        triangle = cost(2.5 * facts.n_rows * facts.n_columns * small, facts.rates.qr64, facts, passes=4)
        flops = 4.0 * facts.n_columns * small**2
        return replace(triangle, flops=triangle.flops + flops, seconds=triangle.seconds + flops / facts.rates.svd64)

    @abstractmethod
    def decide(self, values: Tensor, facts: Facts) -> Rank:
        """Decide how many of the singular values are kept."""

    @override
    def factor(self, problem: Problem, facts: Facts) -> tuple[Factor, Tensor]:
        triangle = problem.triangle
        if not bool(torch.isfinite(triangle.R).all()):
            raise FactorBreakdown("numbers left the range of float64 on the way; scale X by a constant")
        U, values, vectors = torch.linalg.svd(triangle.R, full_matrices=False)
        rank = self.decide(values, facts)
        r = rank.rank
        root = SpectralRoot(values[:r], vectors[:r])
        restricted = _loses(values, rank, facts)
        seen = max(r, decide_rank(values, facts.n_columns, _MOVABLE).rank) if restricted else r

        def start(right: Tensor, nearest: Tensor | None) -> Tensor:
            fixed = (U[:, :r].T @ right) / values[:r].unsqueeze(1)
            # What rcond cuts though the fit sees it stays as it is; least norm is no reason to move there.
            cut = vectors[r:seen]
            still = fixed.new_zeros(cut.shape[0], fixed.shape[1]) if nearest is None else cut @ nearest
            fixed = torch.cat([fixed, still])
            if seen == facts.n_columns:
                return vectors.T @ fixed
            return least_norm_coordinates(problem, vectors[:seen], fixed, nearest)

        extremes = Extremes(0.0, 0.0)
        if r:
            extremes = Extremes(float(values[0]), float(values[r - 1]), vectors[:1].T, vectors[r - 1 : r].T)
        contraction = rounding_contraction(extremes, facts.n_columns)
        factor = Factor(
            start=start,
            # Refining inside the row space would leave the least norm; the certificate decides on the start itself.
            refinement=ByGradient(root, contraction) if rank.full else Unrefined(),
            claims=Claims(
                rank,
                root,
                extremes,
                row_space=None if rank.full else root.vectors,
                involved=None if rank.full else vectors[r:],
                restricted=restricted,
                fixed_space=vectors[:seen] if restricted else None,
            ),
            accuracy=contraction,
        )
        return factor, triangle.C


def _loses(values: Tensor, rank: Rank, facts: Facts) -> bool:
    """Whether a cut that was asked for drops directions that are more than rounding."""
    if not facts.rcond_given or rank.rank == values.numel():
        return False
    return bool(values[rank.rank] > default_rcond(facts.n_rows, facts.smaller) * values[0])


@final
class Svd(_Svd):
    """Cut at rcond."""

    name: ClassVar[str] = "svd"

    @override
    def decide(self, values: Tensor, facts: Facts) -> Rank:
        return decide_rank(values, facts.n_columns, facts.rcond)


@final
class SvdAtPrecision(_Svd):
    """Cut nothing above rounding: where a cut at rcond would be seen in the residual, the data still speak there."""

    name: ClassVar[str] = "svd at precision"

    @override
    def refusals(self, facts: Facts) -> tuple[str, ...]:
        if facts.rcond_given:
            return ("an explicit rcond says where to cut",)
        return ()

    @override
    def decide(self, values: Tensor, facts: Facts) -> Rank:
        rank = decide_rank(values, facts.n_columns, factor_rounding(facts.n_rows, facts.smaller))
        usual = decide_rank(values, facts.n_columns, facts.rcond)
        # Directions between the usual cut and what the factor rounds: the rows see them, the usual rule does not.
        return replace(rank, ambiguous=rank.ambiguous or rank.rank > usual.rank)
