"""Numerical rank: where singular values are cut, and whether there is a gap to cut in."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

__all__ = ["CLEAR_GAP", "Rank", "decide_rank", "default_rcond"]

#: Neighbouring singular values that differ by this factor on both sides of the cut leave no doubt.
CLEAR_GAP = 1e3

_EPS = sys.float_info.epsilon


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
    """

    rank: int
    columns: int
    cut: float
    gap: float
    ambiguous: bool

    @property
    def full(self) -> bool:
        """Whether no singular value was cut."""
        return self.rank == self.columns


def default_rcond(n_rows: int, n_columns: int) -> float:
    """Return eps of float64 times the larger dimension, the usual relative cut (Golub and Van Loan 2013, 5.4.1)."""
    return _EPS * max(n_rows, n_columns)


def decide_rank(values: Tensor, columns: int, cut: float) -> Rank:
    """Count the singular values above ``cut`` times the largest and look for a gap there.

    Example:
        >>> import torch
        >>> decide_rank(torch.tensor([1.0, 0.5, 1e-17]), 3, 1e-15)
        Rank(rank=2, columns=3, cut=1e-15, gap=2251799813685248.0, ambiguous=False)
    """
    largest = float(values[0]) if values.numel() else 0.0
    if largest == 0.0:
        return Rank(0, columns, cut, float("inf"), ambiguous=False)
    relative = values.double() / largest
    rank = int((relative > cut).sum())
    kept = float(relative[rank - 1])
    if rank < min(columns, relative.numel()):
        # Below eps a computed singular value is rounding noise; the true one could be anything smaller.
        gap = kept / max(float(relative[rank]), _EPS)
        return Rank(rank, columns, cut, gap, ambiguous=gap < CLEAR_GAP)
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
    return tuple(int(i) for i in order if weight[i] >= share * weight[order[0]])
