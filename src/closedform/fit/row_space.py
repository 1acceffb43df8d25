"""Combinations of the rows of a wide system."""

from __future__ import annotations

import torch
from torch import Tensor

from closedform.engine.sums import pass_sums
from closedform.numerics.matrix_product import product
from closedform.rows import Block

__all__ = ["adjoint_product"]

#: Combinations up to which a pass beats a product of matrices: with more, the sums of long rows leave the inner caches.
_FEW = 3
#: Numbers that are converted at a time, where the rows are not float64: so many stay in the outer caches.
_CONVERTED = 2**18


def adjoint_product(rows: Block, u: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``X'u``, ``(features, k)``, and ``1'u``, ``(k,)``, in one pass over all rows.

    Args:
        rows: All rows at once, in their own dtype.
        u: ``(rows, k)``, float64.
    """
    X, n = rows.X, rows.X.shape[1]
    if u.shape[1] <= _FEW:
        sums = pass_sums(n, u.shape[1], u.device)
        rows.engine.residual_sums_(sums, X, u, u.new_zeros(n, u.shape[1]))
        return sums.features, sums.ones

    size = X.shape[0] if X.dtype == torch.float64 else max(1, _CONVERTED // n)
    features = u.new_zeros(n, u.shape[1])
    for start in range(0, X.shape[0], size):
        features += product(X[start : start + size].to(torch.float64), u[start : start + size], adjoint=True)
    return features, u.sum(0)
