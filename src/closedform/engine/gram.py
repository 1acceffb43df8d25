"""The Gram matrices of :mod:`closedform.engine.choice`, the engine asked for at each call."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from closedform.engine.choice import engine_for
from closedform.engine.products import gram_ as gram_update
from closedform.engine.products import product_ as product_update
from closedform.engine.threads import cholesky_of as cholesky
from closedform.numerics.symmetric import mirror

__all__ = ["cholesky", "gram_update", "mirror", "normal_equations_update", "product_update", "row_gram_update"]


def normal_equations_update(gram: Tensor, cross: Tensor, X: Tensor, Y: Tensor, y_scale: Tensor, **how: Any) -> None:
    """Add to normal equations, see :meth:`closedform.engine.contract.Engine.normal_equations_`."""
    engine_for(X).normal_equations_(gram, cross, X, Y, y_scale, **how)


def row_gram_update(gram: Tensor, X: Tensor, row_scale: Tensor) -> None:
    """Add the upper triangle of ``A A'`` to ``gram`` in its dtype, ``A = diag(row_scale) X``."""
    engine_for(X).row_gram_(gram, X, row_scale)
