"""Products with a large matrix between factorizations by LAPACK.

On a CPU they take the BLAS of that LAPACK, or one thread: where the idle threads of two libraries wait on each other's
cores, a small problem costs many times its own time.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["product", "scaled_columns"]


def product(matrix: Tensor, V: Tensor, *, adjoint: bool = False) -> Tensor:
    """Return ``matrix @ V`` or, adjoint, ``matrix.T @ V``, for V of shape ``(n, k)``, float64.

    Example:
        >>> import torch
        >>> product(torch.tensor([[1.0, 2.0]], dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64))
        tensor([[3.]], dtype=torch.float64)
    """
    if matrix.device.type != "cpu":
        return matrix.T @ V if adjoint else matrix @ V
    from scipy.linalg.blas import dgemm, dgemv

    # Memory holds the values, once signs that are still to be taken are. Seen in Fortran order it is the transpose:
    # nothing is copied.
    matrix, V = matrix.resolve_neg(), V.resolve_neg()
    transposed = not matrix.is_contiguous() and matrix.T.is_contiguous()
    array = matrix.numpy() if transposed else matrix.contiguous().numpy().T
    trans = int(adjoint == transposed)
    if V.shape[1] == 1:
        return torch.from_numpy(dgemv(1.0, array, V.squeeze(1).numpy(), trans=trans)).unsqueeze(1)
    return torch.from_numpy(dgemm(1.0, array, V.numpy(), trans_a=trans)).contiguous()


def scaled_columns(matrix: Tensor, scale: Tensor) -> Tensor:
    """Return ``matrix diag(scale)``.

    Example:
        >>> import torch
        >>> scaled_columns(torch.tensor([[1.0, 2.0]]), torch.tensor([2.0, 4.0]))
        tensor([[2., 8.]])
    """
    if matrix.device.type != "cpu":
        return matrix * scale
    return torch.from_numpy(matrix.resolve_neg().numpy() * scale.resolve_neg().numpy())
