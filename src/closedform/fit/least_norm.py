"""Among all weights that agree in the row space, the ones of least norm, or nearest to given ones."""

from __future__ import annotations

from torch import Tensor

from closedform.fit.problem import Problem
from closedform.numerics.least_norm import LeastNorm

__all__ = ["least_norm_coordinates"]


def least_norm_coordinates(problem: Problem, row_space: Tensor, fixed: Tensor, nearest: Tensor | None) -> Tensor:
    """Return the z with ``V_r' z = fixed`` whose weights D z are shortest, or nearest to those given.

    The rank is that of the column-scaled matrix, the norm that of the user's own units: with ``A D = U S V'``, the kept
    part fixes ``V_r' z`` and a least-norm solve finds the shortest ``D z`` (Golub and Van Loan 2013, 5.5).

    Args:
        problem: The problem, for its scales and its bias, which is outside the norm.
        row_space: V_r', orthonormal rows ``(rank, columns)``.
        fixed: ``(rank, targets)``.
        nearest: Coordinates ``(columns, targets)``, or None.
    """
    unscale = 1 / problem.scale.unsqueeze(1)
    if row_space.shape[0] == 0:
        return fixed.new_zeros(problem.n_columns, problem.n_targets) if nearest is None else nearest
    least_norm = LeastNorm(row_space.T * unscale, free_first=problem.bias and nearest is None)
    if nearest is None:
        return unscale * least_norm.solve(fixed)
    return nearest + unscale * least_norm.solve(fixed - row_space @ nearest)
