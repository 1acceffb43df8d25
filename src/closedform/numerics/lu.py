"""LU factorization with partial pivoting."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

__all__ = ["LU"]


@final
class LU:
    """``P L U`` of a square matrix, float32 or float64, and solutions with it.

    On a CPU LAPACK factors the transpose, which is the same memory seen through Fortran order: nothing is copied but
    the matrix itself, and not that either where it may be overwritten.

    Attributes:
        zero_pivot: 0, or the place of the first pivot that is exactly zero, counted from 1.

    Example:
        >>> import torch
        >>> lu = LU(torch.tensor([[0.0, 2.0], [4.0, 0.0]]))
        >>> lu.solve(torch.tensor([[2.0], [4.0]])).squeeze(), lu.zero_pivot
        (tensor([1., 1.]), 0)
    """

    def __init__(self, matrix: Tensor, *, overwrite: bool = False) -> None:
        self.dtype = matrix.dtype
        self.on_cpu = matrix.device.type == "cpu"
        if self.on_cpu:
            from scipy.linalg.lapack import dgetrf, sgetrf

            array = matrix.resolve_neg().contiguous().numpy().T
            factor = sgetrf if matrix.dtype == torch.float32 else dgetrf
            self.transposed, self.order, info = factor(array, overwrite_a=overwrite)
        else:
            self.factors, self.pivots, flag = torch.linalg.lu_factor_ex(matrix)
            info = int(flag)
        self.zero_pivot = int(info)

    def solve(self, V: Tensor, *, adjoint: bool = False) -> Tensor:
        """Return ``M^-1 V``, or ``M^-T V``, for V of shape ``(n, k)``, in the dtype of V."""
        right = V.to(self.dtype).resolve_neg()
        if not self.on_cpu:
            return torch.linalg.lu_solve(self.factors, self.pivots, right, adjoint=adjoint).to(V.dtype)
        from scipy.linalg.lapack import dgetrs, sgetrs

        solver = sgetrs if self.dtype == torch.float32 else dgetrs
        solution, _ = solver(self.transposed, self.order, right.numpy(), trans=0 if adjoint else 1)
        return torch.from_numpy(solution).to(V.dtype)
