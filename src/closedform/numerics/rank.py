"""Numerical rank: where singular values are cut, and whether there is a gap to cut in."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

__all__ = ["CLEAR_GAP", "RESOLVED", "Rank", "decide_rank", "default_rcond", "factor_rounding"]

#: Neighbouring singular values that differ by this factor on both sides of the cut leave no doubt.
CLEAR_GAP = 1e3

#: What is cut above this part of the largest singular value may be there: rounding of the data themselves, of two units
#: in the last place, stays below.
RESOLVED = 4e-16

_EPS = sys.float_info.epsilon
#: How much more than a triangle usually rounds the cut is.
_SAFETY = 3.0
#: How many times more rows let the rounding of a triangle grow by as much again, in powers of two: sums of rows are
#: added up in a tree.
_DOUBLINGS = 16.0


@final
@dataclass(frozen=True)
class Rank:
    """A decision on rank.

    Attributes:
        rank: Number of singular values kept.
        columns: Number of columns of the matrix.
        cut: Values at or below this, relative to the largest, are taken for zero.
        gap: Ratio of the smallest kept to the largest cut singular value (to the cut itself at full rank).
        ambiguous: Whether no clear gap separates them, so that another reader could count otherwise.
        dropped: Largest singular value that was cut, relative to the largest; 0 where none was.
    """

    rank: int
    columns: int
    cut: float
    gap: float
    ambiguous: bool
    dropped: float = 0.0

    @property
    def in_doubt(self) -> bool:
        """Whether the factor cannot tell: no clear gap, or something was cut that need not be rounding."""
        return self.ambiguous or self.dropped > RESOLVED

    @property
    def full(self) -> bool:
        """Whether no singular value was cut."""
        return self.rank == self.columns


def factor_rounding(n_rows: int, n_columns: int) -> float:
    """Return what a triangle of the rows rounds, about, relative to its largest singular value.

    It grows with the root of the columns, as rounding that is random does (Higham and Mary 2019), and with the
    logarithm of the rows, which are added up in a tree (Demmel, Grigori, Hoemmen and Langou 2012).

    Example:
        >>> factor_rounding(1000, 4) < factor_rounding(10**7, 4) < 2 * factor_rounding(1000, 4)
        True
    """
    return _EPS * max(n_columns, 1) ** 0.5 * (1.0 + math.log2(max(n_rows, 1)) / _DOUBLINGS)


def default_rcond(n_rows: int, n_columns: int) -> float:
    """Return the relative cut: a small multiple of :func:`factor_rounding`, so that nothing that is seen is cut."""
    return _SAFETY * factor_rounding(n_rows, n_columns)


def decide_rank(values: Tensor, columns: int, cut: float) -> Rank:
    """Count the singular values above ``cut`` times the largest and look for a gap there.

    Example:
        >>> import torch
        >>> decide_rank(torch.tensor([1.0, 0.5, 1e-17], dtype=torch.float64), 3, 1e-15)
        Rank(rank=2, columns=3, cut=1e-15, gap=2251799813685248.0, ambiguous=False, dropped=1e-17)
    """
    largest = float(values[0]) if values.numel() else 0.0
    if largest == 0.0:
        return Rank(0, columns, cut, float("inf"), ambiguous=False)
    relative = values.double() / largest
    rank = int((relative > cut).sum())
    kept = float(relative[rank - 1])
    if rank < min(columns, relative.numel()):
        # Below eps a computed singular value is rounding noise; the true one could be anything smaller.
        dropped = float(relative[rank])
        gap = kept / max(dropped, _EPS)
        return Rank(rank, columns, cut, gap, ambiguous=gap < CLEAR_GAP, dropped=dropped)
    # Everything the matrix could hold is kept: only a value right at the cut is in doubt.
    return Rank(rank, columns, cut, kept / cut if cut else math.inf, ambiguous=kept < 10 * cut)


def columns_involved(null_vectors: Tensor, share: float = 0.1) -> tuple[int, ...]:
    """Return the columns that take part in undetermined directions, most involved first.

    Args:
        null_vectors: Directions as rows, ``(directions, columns)``, orthonormal; or one row of the lengths of columns.
        share: A column is named when its weight is at least this share of the largest.
    """
    if null_vectors.numel() == 0:
        return ()
    weight = torch.linalg.vector_norm(null_vectors, dim=0)
    order = torch.argsort(weight, descending=True)
    return tuple(order[weight[order] >= share * weight[order[0]]].tolist())
