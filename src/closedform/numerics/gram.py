"""Gram matrices by blocks of rows."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["BLAS_COLUMNS", "gram_update", "mirror"]

#: From this many columns on, the symmetric update of BLAS on a CPU beats a full product by torch.
BLAS_COLUMNS = 384


def gram_update(gram: Tensor, A: Tensor) -> None:
    """Add ``A'A`` to ``gram`` in place; below the diagonal nothing is promised until :func:`mirror`.

    On a CPU the symmetric rank-k update of BLAS takes half the operations; torch does not offer it.

    Args:
        gram: ``(columns, columns)``, float32 or float64, contiguous.
        A: ``(rows, columns)`` of the same dtype.
    """
    # In double precision nothing of torch's runs between two updates; in single precision the conversion does, and its
    # threads and those of BLAS wait for each other, which only a large update makes up for.
    small = gram.shape[0] < BLAS_COLUMNS and gram.dtype == torch.float32
    if gram.device.type != "cpu" or small:
        gram.addmm_(A.T, A)
        return
    from scipy.linalg.blas import dsyrk, ssyrk

    update = ssyrk if gram.dtype == torch.float32 else dsyrk
    # Seen through Fortran order, the transposed arrays are the same memory: nothing is copied, the update is in place
    # and its lower triangle is our upper one.
    updated = update(1.0, A.contiguous().numpy().T, beta=1.0, c=gram.numpy().T, lower=1, overwrite_c=1)
    if updated.ctypes.data != gram.data_ptr():
        gram.copy_(torch.from_numpy(updated).T)


def mirror(gram: Tensor) -> Tensor:
    """Return the symmetric matrix whose upper triangle is that of ``gram``."""
    upper = gram.triu()
    return upper + upper.triu(1).T
