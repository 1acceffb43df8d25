"""The passes of :mod:`closedform.engine.choice`, the engine asked for at each call."""

from __future__ import annotations

from torch import Tensor

from closedform.engine.choice import engine_for
from closedform.engine.sums import PassSums, pass_sums

__all__ = ["PassSums", "column_squares", "pass_sums", "residual_pass", "spread_squares"]


def residual_pass(
    sums: PassSums,
    X: Tensor,
    Y: Tensor | None,
    V: Tensor,
    offset: Tensor | None = None,
    weight: Tensor | None = None,
    y_scale: Tensor | None = None,
) -> None:
    """Add a block of rows to ``sums``, see :meth:`closedform.engine.contract.Engine.residual_sums_`."""
    engine_for(X).residual_sums_(sums, X, Y, V, offset, weight, y_scale)


def column_squares(squares: Tensor, X: Tensor, weight: Tensor | None = None) -> None:
    """Add the (weighted) squares of each column of X to ``squares``."""
    engine_for(X).column_squares_(squares, X, weight)


def spread_squares(sums: Tensor, X: Tensor, scale: Tensor, shift: Tensor, weight: Tensor | None = None) -> None:
    """Add the (weighted) squares of ``scale X - shift`` and its (weighted) sums to ``sums``, column by column."""
    engine_for(X).spread_squares_(sums, X, scale, shift, weight)
