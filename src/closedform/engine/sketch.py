"""The sketches of :mod:`closedform.engine.choice`, the engine asked for at each call."""

from __future__ import annotations

from torch import Tensor

from closedform.engine.choice import engine_for
from closedform.numerics.embedding import NONZEROS, sparse_signs

__all__ = ["NONZEROS", "sketch_update", "sparse_signs"]


def sketch_update(sketch: Tensor, X: Tensor, targets: Tensor, factors: Tensor) -> None:
    """Add the rows of X, times their factors, to their rows of the sketch, ``(sketch rows, columns)`` float64."""
    engine_for(X).sketch_(sketch, X, targets, factors)
