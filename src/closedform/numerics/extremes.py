"""The largest and smallest singular values of a root, without its singular value decomposition where that is large."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from closedform.numerics.root import Root

__all__ = ["Extremes", "extreme_singular_values"]

#: Up to this many columns all singular values cost less than a few of them.
SMALL = 96
_VECTORS = 4
_MAX_STEPS = 24
_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Extremes:
    """The extreme singular values of a matrix, and where they were found.

    Attributes:
        largest: Largest singular value; where it is estimated, from below.
        smallest: Smallest singular value; where it is estimated, from above.
        dominant: Vectors near the leading right singular vectors, ``(columns, few)``, or None.
        recessive: Vectors near the last ones, or None.
    """

    largest: float
    smallest: float
    dominant: Tensor | None = None
    recessive: Tensor | None = None

    @property
    def condition(self) -> float:
        """Their ratio; 1 for the zero matrix."""
        if self.largest == 0.0:
            return 1.0
        return self.largest / self.smallest if self.smallest > 0 else math.inf


def extreme_singular_values(
    root: Root, scale: Tensor | None = None, start: Extremes | None = None, seed: int = 0
) -> Extremes:
    """Return or estimate the extreme singular values of ``S diag(1/scale)``.

    Small matrices are decomposed. Otherwise subspace iteration on the matrix and on its inverse approaches the largest
    from below and the smallest from above, within a few per cent for a few products with S. Source: Stewart (1975),
    simultaneous iteration, started from Gaussian vectors as in Halko, Martinsson and Tropp (2011).

    Args:
        root: S, ``(columns, columns)``.
        scale: ``(columns,)`` or None for ones.
        start: What was found for another scale, to start from.
        seed: Seed of the start vectors.

    Example:
        >>> import torch
        >>> from closedform.numerics.root import TriangularRoot
        >>> S = TriangularRoot(torch.diag(torch.tensor([4.0, 2.0, 0.5], dtype=torch.float64)))
        >>> extreme_singular_values(S).condition
        8.0
    """
    rank, columns = root.shape
    if rank == 0 or columns == 0:
        return Extremes(0.0, 0.0)
    if columns <= SMALL:
        values = root.spectrum()[0] if scale is None else torch.linalg.svdvals(root.dense() / scale)
        return Extremes(float(values[0]), float(values[-1]))
    unit = 1.0
    D = torch.ones(1, 1, dtype=torch.float64, device=root.device)
    if scale is not None:
        # In the middle of its range, so that squares stay in that of float64.
        unit = float(torch.sqrt(scale.min()) * torch.sqrt(scale.max()))
        D = scale.unsqueeze(1) / unit
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(columns, _VECTORS, dtype=torch.float64, generator=generator).to(root.device)
    first = start.dominant if start is not None and start.dominant is not None else gaussian
    last = start.recessive if start is not None and start.recessive is not None else gaussian

    def squared(V: Tensor) -> Tensor:
        return root.adjoint_product(root.product(V / D)) / D

    def inverse_squared(V: Tensor) -> Tensor:
        return D * root.solve(root.adjoint_solve(D * V))

    largest, dominant = _dominant(squared, first * D)
    inverse, recessive = _dominant(inverse_squared, last / D)
    smallest = 1.0 / math.sqrt(inverse) if inverse > 0 else 0.0
    return Extremes(math.sqrt(largest) / unit, smallest / unit, dominant / D, recessive * D)


def _dominant(operator: Callable[[Tensor], Tensor], start: Tensor) -> tuple[float, Tensor]:
    """Return the largest eigenvalue of a symmetric positive operator, from below, or inf; and vectors."""
    V, previous = torch.linalg.qr(start).Q, 0.0
    for _ in range(_MAX_STEPS):
        W = operator(V)
        size = float(torch.linalg.matrix_norm(W, 2)) if bool(torch.isfinite(W).all()) else math.inf
        if size == math.inf or size <= previous * (1 + _TOLERANCE):
            return max(size, previous), V
        previous = size
        V = torch.linalg.qr(W / size).Q
    return previous, V
