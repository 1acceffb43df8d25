"""What a factor claims of the matrix: the certificate checks it, and trusts nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from torch import Tensor

from closedform.numerics.extremes import Extremes
from closedform.numerics.rank import Rank
from closedform.numerics.root import Root

__all__ = ["Claims", "RowClaims"]


@final
@dataclass(frozen=True, eq=False)
class RowClaims:
    """What a factor of a wide system says of the rows of ``A = diag(sqrt(weight)) [1 | X]``, its columns as they came.

    Attributes:
        norms: Euclidean norms of the rows of X, ``(rows,)``.
        gram_product: Maps ``(kept rows, k)`` to ``A A'`` times that.
        gram_solve: Maps ``(kept rows, k)`` to the inverse of ``A A'`` times that.
        solve: Maps right-hand sides ``(rows, k)`` to multipliers of the rows, with a last row for a bias outside the
        norm;
            None where least norm is not had from multipliers.
        kept: Mask of the rows of positive weight, ``(rows,)``, or None for all.
        multipliers: Maps coordinates of least norm to the multipliers of the rows that they are a combination of, where
            refinement keeps no account of them.
    """

    norms: Tensor
    gram_product: Callable[[Tensor], Tensor]
    gram_solve: Callable[[Tensor], Tensor]
    solve: Callable[[Tensor], Tensor] | None = None
    kept: Tensor | None = None
    multipliers: Callable[[Tensor], Tensor] | None = None


@final
@dataclass(frozen=True, eq=False)
class Claims:
    """What a factor says of the scaled matrix A, with the ridge rows under it.

    Attributes:
        rank: The numerical rank it found or relies on.
        root: S with ``S'S ~ A'A``, checked against the rows by random probes; None for a dual factor of a wide matrix.
        extremes: Largest and smallest singular value of A, where the factor measured them; of its rows on a par, in the
            units of the features, where it is one of a wide system without a ridge.
        measured: Whether these were held against the matrix itself, so that nothing has to be measured on the rows in
            the directions that the factor gives.
        row_space: Orthonormal rows that span the row space of A, ``(rank, columns)``, where the rank is lower than the
            columns; None at full rank and for wide systems, whose row space is spanned by their rows.
        involved: How much each column takes part in the undetermined directions, ``(directions, columns)``: null
            vectors, or in one row the length that each column has in the null space; None at full rank.
        restricted: Whether an rcond that was asked for cut directions that are more than rounding, so that the problem
            is the one within the row space.
        fixed_space: Orthonormal rows ``(directions, columns)`` in which such a cut leaves nothing to be chosen: the row
            space and what was cut though it is not null; None where that is the row space.
        dual_solve: Solver with ``X X' + l2 I``, for wide systems with a ridge.
        least_norm_solve: Maps right-hand sides ``(rows, k)`` to the coordinates of least norm that meet them,
            ``(columns, k)``, for wide systems without a ridge.
        rows: What it says of the rows of such a system.
    """

    rank: Rank
    root: Root | None = None
    extremes: Extremes | None = None
    measured: bool = False
    row_space: Tensor | None = None
    involved: Tensor | None = None
    restricted: bool = False
    fixed_space: Tensor | None = None
    dual_solve: Callable[[Tensor], Tensor] | None = None
    least_norm_solve: Callable[[Tensor], Tensor] | None = None
    rows: RowClaims | None = None
