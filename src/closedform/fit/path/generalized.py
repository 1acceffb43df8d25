"""Generalized cross-validation: every row has the mean leverage. It needs the basis alone, no rows."""

from __future__ import annotations

import torch
from torch import Tensor

from closedform.fit.path.basis import Basis

__all__ = ["generalized_errors"]


def generalized_errors(basis: Basis, strengths: Tensor) -> Tensor:
    """Return ``mean squared residual / (1 - df / rows)^2``, ``(strengths, targets)``: Golub, Heath and Wahba (1979).

    Where the fit interpolates, both vanish with the strength, and the limit is returned.
    """
    n = basis.rows
    if basis.interpolates:
        inverses = basis.inverses(strengths)
        squares = (inverses.T.square()) @ basis.coordinates.square()
        remaining = inverses.sum(0)
    else:
        scaled = basis.scaled(strengths)
        given = scaled * basis.inverses(strengths)
        squares = given.T.square() @ basis.coordinates.square() + basis.residual_squares
        remaining = n - basis.rank - int(basis.bias) + given.sum(0)
    means = squares / basis.weight_sum * (n / remaining).square().unsqueeze(1)
    return torch.where(torch.isfinite(means), basis.unscaled(means), torch.inf)
