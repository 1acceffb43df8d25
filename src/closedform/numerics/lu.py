"""LU factorization with partial pivoting."""

from __future__ import annotations

from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["LU"]

#: Vectors up to which one after the other is faster than a call for all of them.
_FEW = 3


@final
class LU:
    """``P L U`` of a square matrix, float32 or float64, solutions with it and products.

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
        self.dtype, self.size = matrix.dtype, matrix.shape[0]
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
        right, unit = self._narrowed(V)
        if not self.on_cpu:
            return torch.linalg.lu_solve(self.factors, self.pivots, right, adjoint=adjoint).to(V.dtype) * unit
        from scipy.linalg import blas, lapack

        if V.shape[1] > _FEW:
            solver = lapack.sgetrs if self.dtype == torch.float32 else lapack.dgetrs
            solution, _ = solver(self.transposed, self.order, right.numpy(), trans=0 if adjoint else 1)
            return torch.from_numpy(solution).to(V.dtype) * unit
        step = blas.strsv if self.dtype == torch.float32 else blas.dtrsv
        return self._by_vectors(right, step, unit_first=adjoint, transposed=not adjoint).to(V.dtype) * unit

    def product(self, V: Tensor, *, adjoint: bool = False) -> Tensor:
        """Return ``P L U V``, or ``(P L U)' V``, for V of shape ``(n, k)``, in the dtype of V.

        Example:
            >>> import torch
            >>> LU(torch.tensor([[0.0, 2.0], [4.0, 0.0]])).product(torch.tensor([[1.0], [3.0]])).squeeze()
            tensor([6., 4.])
        """
        right, unit = self._narrowed(V)
        if not self.on_cpu:
            P, L, U = self._unpacked
            image = U.T @ (L.T @ (P.T @ right)) if adjoint else P @ (L @ (U @ right))
            return image.to(V.dtype) * unit
        from scipy.linalg import blas

        step = blas.strmv if self.dtype == torch.float32 else blas.dtrmv
        return self._by_vectors(right, step, unit_first=not adjoint, transposed=not adjoint).to(V.dtype) * unit

    def _narrowed(self, V: Tensor) -> tuple[Tensor, Tensor | float]:
        """Return vectors in the dtype of the factor, and what they have been divided by to stay in its range."""
        if V.dtype == self.dtype:
            return V.resolve_neg(), 1.0
        unit = V.abs().amax(0)
        unit = torch.where((unit > 0) & torch.isfinite(unit), unit, 1.0)
        return (V / unit).to(self.dtype), unit

    def _by_vectors(self, V: Tensor, step: Any, *, unit_first: bool, transposed: bool) -> Tensor:
        """Solve or multiply with both triangles of the transpose, which is ``Q L U`` with L of ones on its diagonal.

        Args:
            V: ``(n, k)``, in the dtype of the factor.
            step: A function of BLAS for one vector.
            unit_first: Whether L comes before U.
            transposed: Whether both are transposed.
        """
        array, out = V.numpy(), np.empty(tuple(V.shape), V.numpy().dtype)
        for column in range(array.shape[1]):
            vector = array[:, column]
            vector = vector[self._permutation] if unit_first else vector.copy()
            for unit in (unit_first, not unit_first):
                vector = step(self.transposed, vector, lower=unit, diag=unit, trans=transposed, overwrite_x=True)
            if unit_first:
                out[:, column] = vector
            else:
                out[self._permutation, column] = vector
        return torch.from_numpy(out)

    @cached_property
    def _permutation(self) -> NDArray[np.intp]:
        """Where each row of the transpose came from; LAPACK says which were swapped, one after the other."""
        from scipy.linalg.lapack import dlaswp

        numbers = np.arange(float(len(self.order)))[:, np.newaxis]
        return dlaswp(numbers, self.order)[:, 0].astype(np.intp)

    @cached_property
    def _unpacked(self) -> tuple[Tensor, Tensor, Tensor]:
        P, L, U = torch.lu_unpack(self.factors, self.pivots)
        return P, L, U
