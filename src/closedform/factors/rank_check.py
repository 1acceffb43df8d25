"""The check that factors for full rank make before they may be used."""

from __future__ import annotations

from closedform.errors import FactorBreakdown
from closedform.factors.base import Facts
from closedform.numerics.extremes import extreme_singular_values
from closedform.numerics.rank import Rank, decide_rank
from closedform.numerics.root import Root

__all__ = ["require_full_rank"]

# The estimate of the smallest singular value comes from above; this far from the cut it settles the question.
_MARGIN = 30.0


def require_full_rank(root: Root, facts: Facts) -> tuple[Rank, tuple[float, float]]:
    """Return the rank and the extreme singular values of a root.

    Raises:
        FactorBreakdown: the matrix is numerically rank deficient at the cut.
    """
    columns = root.shape[1]
    if columns == 0:
        return Rank(0, 0, facts.rcond, float("inf"), ambiguous=False), (1.0, 1.0)
    largest, smallest = extreme_singular_values(root)
    if smallest > _MARGIN * facts.rcond * largest:
        return Rank(columns, columns, facts.rcond, smallest / largest / facts.rcond, ambiguous=False), (
            largest,
            smallest,
        )
    values, _ = root.spectrum()
    rank = decide_rank(values, columns, facts.rcond)
    if not rank.full:
        raise FactorBreakdown(
            f"numerical rank {rank.rank} of {columns}: {columns - rank.rank} singular values lie at or below "
            f"{facts.rcond:.1e} of the largest",
            condition=1 / facts.rcond,
        )
    return rank, (float(values[0]), float(values[-1]))
