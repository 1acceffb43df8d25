"""Gram matrices by blocks of rows."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gram_update", "mirror"]


def gram_update(gram: Tensor, A: Tensor) -> None:
    """Add the upper triangle of ``A'A`` to ``gram`` in place; what stands below the diagonal is left unspecified.

    On a CPU the symmetric rank-k update of BLAS does it in half the operations, which torch does not offer.

    Args:
        gram: ``(columns, columns)``, float32 or float64, contiguous.
        A: ``(rows, columns)`` of the same dtype.
    """
    if gram.device.type != "cpu":
        gram.addmm_(A.T, A)
        return
    from scipy.linalg.blas import dsyrk, ssyrk

    update = ssyrk if gram.dtype == torch.float32 else dsyrk
    # Seen through Fortran order, the transposed arrays are the same memory: nothing is copied, the update is in place
    # and its lower triangle is our upper one.
    updated = update(1.0, A.contiguous().numpy().T, beta=1.0, c=gram.numpy().T, lower=1, overwrite_c=1)
    if updated.ctypes.data != gram.data_ptr():
        gram.copy_(torch.from_numpy(updated).T)


def mirror(gram: Tensor) -> None:
    """Copy the upper triangle onto the lower one, in place."""
    gram.copy_(gram.triu() + gram.triu(1).T)
