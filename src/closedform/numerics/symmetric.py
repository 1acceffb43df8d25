"""Symmetric matrices of which one triangle is kept."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["cholesky", "mirror"]


def mirror(gram: Tensor) -> Tensor:
    """Return the symmetric matrix whose upper triangle is that of ``gram``.

    Args:
        gram: ``(columns, columns)``; what stands below the diagonal is not read.

    Example:
        >>> import torch
        >>> mirror(torch.tensor([[4.0, 2.0], [7.0, 5.0]]))
        tensor([[4., 2.],
                [2., 5.]])
    """
    upper = gram.triu()
    return upper + upper.triu(1).T


def cholesky(gram: Tensor) -> tuple[Tensor, int]:
    """Return the upper triangular R with ``R'R = gram``, and 0 or the place of the first pivot that is not positive.

    Args:
        gram: ``(columns, columns)``, float32 or float64; only the upper triangle is read.

    Example:
        >>> import torch
        >>> cholesky(torch.tensor([[4.0, 2.0], [0.0, 5.0]]))
        (tensor([[2., 1.],
                [0., 2.]]), 0)
    """
    # In the order of LAPACK our upper triangle is the lower one, so nothing is transposed.
    L, info = torch.linalg.cholesky_ex(gram.T)
    return L.T, int(info)
