"""Gram matrices by blocks of rows, and their Cholesky factor."""

from __future__ import annotations

import torch
from torch import Tensor

from closedform.engine import compiled
from closedform.engine.threads import all_threads

__all__ = ["cholesky", "gram_update", "mirror", "normal_equations_update", "product_update", "row_gram_update"]

#: Where the passes are not compiled: bytes of the block that is rounded and multiplied at once.
_BUFFER_BYTES = 32 * 2**20
#: Up to this many columns a Cholesky factor takes one thread less time than others take to wake up.
_FOR_ONE = 1024


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
    """Add ``A'B`` to ``product`` in place, by the BLAS that :func:`gram_update` uses."""
    if product.device.type != "cpu":
        product.addmm_(A.T, B)
        return
    product.numpy()[...] += A.numpy().T @ B.numpy()


def normal_equations_update(
    gram: Tensor,
    cross: Tensor,
    X: Tensor,
    Y: Tensor,
    y_scale: Tensor,
    *,
    row_scale: Tensor | None = None,
    x_scale: Tensor | None = None,
    order: Tensor | None = None,
    factor: Tensor | None = None,
    ones: bool = False,
    bfloat16: bool = False,
) -> None:
    """Add the upper triangle of ``A'A`` to ``gram`` and ``A'B`` to ``cross``, in their dtype.

    ``A = diag(row_scale) [1 | X diag(x_scale)] factor``, the ones only where asked for, and ``B = diag(row_scale) Y
    diag(y_scale)``.

    Args:
        gram: ``(columns, columns)``, float32 or float64; nothing is promised below the diagonal.
        cross: ``(columns, targets)``, of the same dtype.
        X: ``(rows, features)``, any floating dtype.
        Y: ``(rows, targets)``, any floating dtype.
        y_scale: ``(targets,)``, float64.
        row_scale: ``(rows,)``, float64, or None for ones.
        x_scale: ``(features,)``, float64, or None for ones.
        order: The rows that count, int64, or None for all.
        factor: Upper triangle, ``(columns, columns)``, float64, or None for the identity.
        ones: Whether a column of ones stands first.
        bfloat16: Whether the entries of A and B are rounded to bfloat16 first; the sums are float32 then, and there is
            no factor.

    Example:
        >>> import torch
        >>> X, gram, cross = torch.tensor([[1.0], [2.0]]), torch.zeros(2, 2), torch.zeros(2, 1)
        >>> normal_equations_update(gram, cross, X, 3 * X, torch.ones(1, dtype=torch.float64), ones=True)
        >>> gram.triu(), cross.flatten()
        (tensor([[2., 3.],
                [0., 5.]]), tensor([ 9., 15.]))
    """
    if compiled.serves(X) and (compiled.multiplies_bfloat16() or not bfloat16):
        Y = compiled.readable(Y)
        compiled.gram_add(
            gram,
            X,
            cross=cross,
            Y=Y,
            y_scale=y_scale.contiguous(),
            row_scale=None if row_scale is None else row_scale.contiguous(),
            x_scale=None if x_scale is None else x_scale.contiguous(),
            order=None if order is None else order.contiguous(),
            factor=None if factor is None else factor.contiguous(),
            ones=ones,
            bfloat16=bfloat16,
        )
        return
    if order is not None:
        X, Y, row_scale = X[order], Y[order], None if row_scale is None else row_scale[order]
    rows = max(64, _BUFFER_BYTES // (gram.dtype.itemsize * gram.shape[0]))
    with all_threads():
        for start in range(0, X.shape[0], rows):
            part = slice(start, start + rows)
            A, B = X[part].to(torch.float64), Y[part].to(torch.float64) * y_scale
            if x_scale is not None:
                A = A * x_scale
            if ones:
                A = torch.cat([A.new_ones(A.shape[0], 1), A], 1)
            if factor is not None:
                A = A @ factor
            if row_scale is not None:
                A, B = A * row_scale[part].unsqueeze(1), B * row_scale[part].unsqueeze(1)
            A, B = A.to(gram.dtype), B.to(gram.dtype)
            if bfloat16:
                A, B = A.to(torch.bfloat16).to(gram.dtype), B.to(torch.bfloat16).to(gram.dtype)
            gram_update(gram, A)
            product_update(cross, A, B)


def row_gram_update(gram: Tensor, X: Tensor, row_scale: Tensor) -> None:
    """Add the upper triangle of ``A A'`` to ``gram`` in its dtype, ``A = diag(row_scale) X``."""
    if compiled.serves(X):
        compiled.gram_add(gram, X, x_scale=row_scale.contiguous(), transposed=True)
        return
    width = max(64, _BUFFER_BYTES // (gram.dtype.itemsize * X.shape[0]))
    for start in range(0, X.shape[1], width):
        block = X[:, start : start + width].to(torch.float64) * row_scale.unsqueeze(1)
        gram_update(gram, block.to(gram.dtype).T)


def cholesky(gram: Tensor) -> tuple[Tensor, int]:
    """Return the upper triangular R with ``R'R = gram``, and 0 or the place of the first pivot that is not positive.

    Only the upper triangle of ``gram`` is read.

    Example:
        >>> import torch
        >>> cholesky(torch.tensor([[4.0, 2.0], [0.0, 5.0]]))
        (tensor([[2., 1.],
                [0., 2.]]), 0)
    """
    with all_threads(gram.shape[0] > _FOR_ONE):
        # In the order of LAPACK our upper triangle is the lower one, so nothing is transposed.
        L, info = torch.linalg.cholesky_ex(gram.T)
    return L.T, int(info)
