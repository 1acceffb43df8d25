"""Fold rows into a triangle by Householder QR, and merge triangles: the two verbs of every exact fit.

The triangle of ``[A | B]`` holds all that least squares needs. It is kept as the R of A, the matching rows ``C = Q'B``
and the squared norms of what is left of B. For many targets this is smaller than the R of ``[A | B]`` and
answers the same questions. Source: Golub (1965); folding by row blocks as in Demmel, Grigori, Hoemmen and
Langou (2012).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Triangle", "fold", "merge"]


@dataclass(frozen=True)
class Triangle:
    """A compressed least-squares problem: ``min ||B - A Z||^2`` equals ``min ||C - R Z||^2`` plus ``residual_squares``.

    Attributes:
        R: Upper triangular, or upper trapezoidal while there were fewer rows than columns, ``(r, columns)``.
        C: Coordinates of the targets, ``(r, targets)``.
        residual_squares: Squared norm of what no weights can explain, ``(targets,)``.
    """

    R: Tensor
    C: Tensor
    residual_squares: Tensor


def fold(triangle: Triangle | None, A: Tensor, B: Tensor) -> Triangle:
    """Return the triangle of the rows in ``triangle`` and the new rows ``A`` (rows, columns), ``B`` (rows, targets).

    Example:
        >>> import torch
        >>> A, B = torch.eye(3, 2, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64)
        >>> folded = fold(fold(None, A[:1], B[:1]), A[1:], B[1:])
        >>> folded.R.abs()
        tensor([[1., 0.],
                [0., 1.]], dtype=torch.float64)
        >>> folded.residual_squares
        tensor([1.], dtype=torch.float64)
    """
    squares = torch.zeros(B.shape[1], dtype=B.dtype, device=B.device)
    if triangle is not None:
        A, B = torch.cat([triangle.R, A]), torch.cat([triangle.C, B])
        squares = triangle.residual_squares
    reflectors, tau = torch.geqrf(A)
    size = min(A.shape)
    C = torch.ormqr(reflectors, tau, B, left=True, transpose=True)
    return Triangle(reflectors[:size].triu(), C[:size].clone(), squares + C[size:].square().sum(0))


def merge(first: Triangle, second: Triangle) -> Triangle:
    """Return the triangle of the rows of both triangles, as if they had been folded one after the other."""
    merged = fold(first, second.R, second.C)
    return Triangle(merged.R, merged.C, merged.residual_squares + second.residual_squares)
