"""What a factor claims of the matrix: the certificate checks it, and trusts nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from torch import Tensor

from closedform.numerics.extremes import Extremes
from closedform.numerics.rank import Rank
from closedform.numerics.root import Root

__all__ = ["Claims"]


@final
@dataclass(frozen=True, eq=False)
class Claims:
    """What a factor says of the scaled matrix A, with the ridge rows under it.

    Attributes:
        rank: The numerical rank it found or relies on.
        root: S with ``S'S ~ A'A``, checked against the rows by random probes; None for a dual factor of a wide matrix.
        extremes: Largest and smallest singular value of A, where the factor measured them.
        row_space: Orthonormal rows that span the row space of A, ``(rank, columns)``, where the rank is lower than the
            columns; None at full rank and for wide systems, whose row space is spanned by their rows.
        involved: How much each column takes part in the undetermined directions, ``(directions, columns)``: null
            vectors, or in one row the length that each column has in the null space; None at full rank.
        restricted: Whether an rcond that was asked for cut directions that are more than rounding, so that the problem
            is the one within the row space.
        dual_solve: Solver with ``X X' + l2 I``, for wide systems with a ridge.
        least_norm_solve: Maps right-hand sides ``(rows, k)`` to the coordinates of least norm that meet them,
            ``(columns, k)``, for wide systems without a ridge.
    """

    rank: Rank
    root: Root | None = None
    extremes: Extremes | None = None
    row_space: Tensor | None = None
    involved: Tensor | None = None
    restricted: bool = False
    dual_solve: Callable[[Tensor], Tensor] | None = None
    least_norm_solve: Callable[[Tensor], Tensor] | None = None
