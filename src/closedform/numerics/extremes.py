"""The largest and smallest singular values of a root, without its singular value decomposition."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from closedform.numerics.root import Root

__all__ = ["extreme_singular_values"]

_VECTORS = 4
_MAX_STEPS = 24
_TOLERANCE = 1e-3


def extreme_singular_values(root: Root, scale: Tensor | None = None, seed: int = 0) -> tuple[float, float]:
    """Estimate the extreme singular values of ``S diag(1/scale)`` by subspace iteration on it and on its inverse.

    The largest is approached from below and the smallest from above, within a few per cent for a few products
    with S. Source: Stewart (1975), simultaneous iteration, started from Gaussian vectors as in Halko, Martinsson and
    Tropp (2011).

    Args:
        root: S, ``(columns, columns)``.
        scale: ``(columns,)`` or None for ones.
        seed: Seed of the start vectors.

    Example:
        >>> import torch
        >>> from closedform.numerics.root import TriangularRoot
        >>> S = TriangularRoot(torch.diag(torch.tensor([4.0, 2.0, 0.5], dtype=torch.float64)))
        >>> [round(value, 6) for value in extreme_singular_values(S)]
        [4.0, 0.5]
    """
    rank, columns = root.shape
    if rank == 0 or columns == 0:
        return 0.0, 0.0
    unit = 1.0
    D = torch.ones(1, 1, dtype=torch.float64, device=root.device)
    if scale is not None:
        # In the middle of its range, so that squares stay in that of float64.
        unit = float(torch.sqrt(scale.min()) * torch.sqrt(scale.max()))
        D = scale.unsqueeze(1) / unit
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(columns, min(_VECTORS, columns), dtype=torch.float64, generator=generator).to(root.device)

    def squared(V: Tensor) -> Tensor:
        return root.adjoint_product(root.product(V / D)) / D

    def inverse_squared(V: Tensor) -> Tensor:
        return D * root.solve(root.adjoint_solve(D * V))

    largest = math.sqrt(_dominant(squared, start))
    smallest = 1.0 / math.sqrt(_dominant(inverse_squared, start) or math.inf)
    return largest / unit, smallest / unit


def _dominant(operator: Callable[[Tensor], Tensor], start: Tensor) -> float:
    """Largest eigenvalue of a symmetric positive operator, from below; inf where it overflows."""
    V, previous = torch.linalg.qr(start).Q, 0.0
    for _ in range(_MAX_STEPS):
        W = operator(V)
        if not bool(torch.isfinite(W).all()):
            return math.inf
        size = float(torch.linalg.matrix_norm(W, 2))
        if size <= previous * (1 + _TOLERANCE):
            return max(size, previous)
        previous = size
        V = torch.linalg.qr(W / size).Q
    return previous
