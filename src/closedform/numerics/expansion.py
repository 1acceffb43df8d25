"""Numbers held as unevaluated sums of doubles, and the error-free transforms that keep them.

An expansion is a tensor of shape ``(parts, ...)`` whose sum over the first dimension is the number, largest part first.
Sources: Knuth (1969) and Ogita, Rump and Oishi (2005). There is no product in it that fused multiply-add could change.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["accumulate_", "renormalise", "two_sum"]


def two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rounded sum and its exact error.

    Example:
        >>> import torch
        >>> a, b = torch.tensor(1.0, dtype=torch.float64), torch.tensor(1e-20, dtype=torch.float64)
        >>> [float(x) for x in two_sum(a, b)]
        [1.0, 1e-20]
    """
    total = a + b
    virtual = total - a
    return total, (a - (total - virtual)) + (b - virtual)


def accumulate_(expansion: Tensor, term: Tensor) -> None:
    """Add ``term`` to an expansion in place; what falls off the last part is rounded there."""
    for part in range(expansion.shape[0] - 1):
        expansion[part], term = two_sum(expansion[part], term)
    expansion[-1] += term


def renormalise(expansion: Tensor) -> Tensor:
    """Return the same number with its parts ordered and hardly overlapping."""
    parts = list(expansion)
    for _ in range(2):
        for i in range(len(parts) - 2, -1, -1):
            parts[i], parts[i + 1] = two_sum(parts[i], parts[i + 1])
    return torch.stack(parts)
