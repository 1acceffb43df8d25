"""Which engine serves a table."""

from __future__ import annotations

from torch import Tensor

from closedform.engine.compiled import Compiled, serves
from closedform.engine.contract import Engine
from closedform.engine.products import Blas, Torch

__all__ = ["engine_for"]

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
