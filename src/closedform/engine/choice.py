"""Which engine serves a table."""

from __future__ import annotations

import torch
from torch import Tensor

from closedform.engine.compiled import Compiled, serves
from closedform.engine.contract import Engine
from closedform.engine.products import Blas, Torch

__all__ = ["engine_for", "weighted_gram_"]

#: The engines; none holds a state.
_COMPILED = Compiled()
_BLAS = Blas()
_TORCH = Torch()


def engine_for(table: Tensor) -> Engine:
    """Return the engine that serves a table, and every block of its rows.

    Args:
        table: ``(rows, columns)``, or some rows of it, in the dtype and the layout that blocks of it have.

    Example:
        >>> import torch
        >>> engine = engine_for(torch.ones(4, 2, dtype=torch.float16))
        >>> squares = torch.zeros(2, dtype=torch.float64)
        >>> engine.column_squares_(squares, torch.ones(4, 2, dtype=torch.float16))
        >>> type(engine).__name__, squares
        ('Blas', tensor([4., 4.], dtype=torch.float64))
    """
    if serves(table):
        return _COMPILED
    return _BLAS if table.is_cpu else _TORCH


def weighted_gram_(gram: Tensor, A: Tensor, weight: Tensor | None) -> None:
    """Add the upper triangle of ``A' diag(weight) A`` to that of ``gram``; nothing is promised below the diagonal.

    Args:
        gram: ``(columns, columns)``, float32 or float64, contiguous.
        A: ``(rows, columns)``.
        weight: ``(rows,)``, float64, not negative, or None for ones.

    Example:
        >>> import torch
        >>> gram = torch.zeros(2, 2, dtype=torch.float64)
        >>> weighted_gram_(gram, torch.tensor([[1.0, 2.0], [0.0, 3.0]]), torch.tensor([1.0, 4.0], dtype=torch.float64))
        >>> gram.triu()
        tensor([[ 1.,  2.],
                [ 0., 40.]], dtype=torch.float64)
    """
    no_targets, no_scale = A.new_zeros(A.shape[0], 0), A.new_zeros(0, dtype=torch.float64)
    root = None if weight is None else weight.sqrt()
    engine_for(A).normal_equations_(gram, gram.new_zeros(A.shape[1], 0), A, no_targets, no_scale, row_scale=root)
