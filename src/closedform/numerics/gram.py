"""Gram matrices by blocks of rows, and their Cholesky factor."""

from __future__ import annotations

import torch
from torch import Tensor

from closedform.numerics import kernels

__all__ = ["cholesky", "gram_update", "mirror", "product_update", "round_rows"]


def gram_update(gram: Tensor, A: Tensor) -> None:
    """Add the upper triangle of ``A'A`` to that of ``gram`` in place; below the diagonal nothing is promised until
    :func:`mirror`.

    On a CPU the symmetric rank-k update of BLAS takes half the operations; torch does not offer it.

    Args:
        gram: ``(columns, columns)``, float32 or float64, contiguous.
        A: ``(rows, columns)`` of the same dtype; a transposed view is not copied either.
    """
    if gram.device.type != "cpu":
        gram.addmm_(A.T, A)
        return
    from scipy.linalg.blas import dsyrk, ssyrk

    update = ssyrk if gram.dtype == torch.float32 else dsyrk
    # Seen through Fortran order, the transposed arrays are the same memory: nothing is copied, the update is in place
    # and its lower triangle is our upper one.
    transposed = not A.is_contiguous() and A.T.is_contiguous()
    array = A.T.numpy().T if transposed else A.contiguous().numpy()
    options = {"a": array, "trans": 1} if transposed else {"a": array.T, "trans": 0}
    updated = update(1.0, beta=1.0, c=gram.numpy().T, lower=1, overwrite_c=1, **options)
    if updated.ctypes.data != gram.data_ptr():
        gram.copy_(torch.from_numpy(updated).T)


def mirror(gram: Tensor) -> Tensor:
    """Return the symmetric matrix whose upper triangle is that of ``gram``."""
    upper = gram.triu()
    return upper + upper.triu(1).T


def product_update(product: Tensor, A: Tensor, B: Tensor) -> None:
    """Add ``A'B`` to ``product`` in place, by the BLAS that :func:`gram_update` uses: its threads are awake."""
    if product.device.type != "cpu":
        product.addmm_(A.T, B)
        return
    product.numpy()[...] += A.numpy().T @ B.numpy()


def round_rows(A: Tensor, row_scale: Tensor | None, out: Tensor) -> None:
    """Write the rows of A, each times its scale, into ``out`` in its dtype."""
    if out.dtype == torch.float32 and kernels.serves(A):
        kernels.narrow(A, row_scale, out)
        return
    out.copy_(A if row_scale is None else A.to(torch.float64) * row_scale.unsqueeze(1))


def cholesky(gram: Tensor) -> tuple[Tensor, int]:
    """Return the upper triangular R with ``R'R = gram``, and 0 or the place of the first pivot that is not positive.

    Only the upper triangle of ``gram`` is read.

    Example:
        >>> import torch
        >>> cholesky(torch.tensor([[4.0, 2.0], [0.0, 5.0]]))
        (tensor([[2., 1.],
                [0., 2.]]), 0)
    """
    if gram.device.type != "cpu":
        R, info = torch.linalg.cholesky_ex(gram, upper=True)
        return R, int(info)
    from scipy.linalg.lapack import dpotrf, spotrf

    factor = spotrf if gram.dtype == torch.float32 else dpotrf
    lower, info = factor(gram.numpy().T, lower=1, clean=1, overwrite_a=0)
    return torch.from_numpy(lower).T, int(info)
