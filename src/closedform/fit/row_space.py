"""Combinations of the rows of a wide system."""

from __future__ import annotations

from torch import Tensor

from closedform.engine.sums import pass_sums
from closedform.rows import Block

__all__ = ["adjoint_product"]


def adjoint_product(rows: Block, u: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``X'u``, ``(features, k)``, and ``1'u``, ``(k,)``, in one pass over all rows.

    Args:
        rows: All rows at once, in their own dtype.
        u: ``(rows, k)``, float64.
    """
    n = rows.X.shape[1]
    sums = pass_sums(n, u.shape[1], u.device)
    rows.engine.residual_sums_(sums, rows.X, u, u.new_zeros(n, u.shape[1]))
    return sums.features, sums.ones
