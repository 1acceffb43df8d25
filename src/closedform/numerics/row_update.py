"""Fold a few rows into a square triangle: the QR update that costs columns^2 a row and needs no inverse."""

from __future__ import annotations

import torch
from torch import Tensor

from closedform.numerics.triangle import Triangle, fold

__all__ = ["fold_rows", "square"]

_BLOCK = 1024
_PANEL = 16


def square(triangle: Triangle, columns: int) -> Triangle:
    """Return the triangle with R filled up with zero rows to ``(columns, columns)``."""
    missing = columns - triangle.R.shape[0]
    if missing <= 0:
        return triangle
    R = torch.cat([triangle.R, triangle.R.new_zeros(missing, columns)])
    C = torch.cat([triangle.C, triangle.C.new_zeros(missing, triangle.C.shape[1])])
    return Triangle(R, C, triangle.residual_squares)


def fold_rows(triangle: Triangle, A: Tensor, B: Tensor) -> Triangle:
    """Return the triangle of its rows and the rows ``A`` (rows, columns), ``B`` (rows, targets).

    On a CPU this is LAPACK's ``tpqrt``, which uses that R is a triangle already; elsewhere an ordinary QR.

    Args:
        triangle: With R of shape ``(columns, columns)``; zero rows are allowed. It is not changed.

    Example:
        >>> import torch
        >>> rows = torch.tensor([[3.0, 0.0], [4.0, 2.0]], dtype=torch.float64)
        >>> zero = torch.zeros(2, 2, dtype=torch.float64)
        >>> start = Triangle(zero, zero[:, :1], zero[0, :1])
        >>> fold_rows(start, rows, torch.ones(2, 1, dtype=torch.float64)).R.abs().round(decimals=12)
        tensor([[5.0000, 1.6000],
                [0.0000, 1.2000]], dtype=torch.float64)
    """
    if A.device.type != "cpu":
        return square(fold(triangle, A, B), A.shape[1])
    for start in range(0, A.shape[0], _BLOCK):
        triangle = _fold_block(triangle, A[start : start + _BLOCK], B[start : start + _BLOCK])
    return triangle


def _fold_block(triangle: Triangle, A: Tensor, B: Tensor) -> Triangle:
    from scipy.linalg import lapack

    double = A.dtype == torch.float64
    tpqrt, tpmqrt = (lapack.dtpqrt, lapack.dtpmqrt) if double else (lapack.stpqrt, lapack.stpmqrt)
    panel = min(_PANEL, A.shape[1])
    R, V, T, _ = tpqrt(0, panel, triangle.R.numpy(), A.numpy())
    C, rest, _ = tpmqrt(0, V, T, triangle.C.numpy(), B.numpy(), side="L", trans="T")
    # Only the upper triangle is written; what LAPACK leaves below it is what was there: zeros.
    squares = triangle.residual_squares + torch.from_numpy(rest).square().sum(0)
    return Triangle(torch.from_numpy(R), torch.from_numpy(C), squares)
