"""Numbers held as unevaluated sums of doubles, and the error-free transforms that keep them.

An expansion is a tensor of shape ``(parts, ...)`` whose sum over the first dimension is the number, largest part first.
Sources: Dekker (1971) for products by splitting, Knuth (1969) and Ogita, Rump and Oishi (2005) for sums. Nothing
here relies on fused multiply-add, and none of it is changed by it: no product feeds a sum that has to be exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["accumulate", "multiply", "renormalise", "two_product", "two_sum"]

_SPLITTER = 134217729.0  # 2**27 + 1


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


def two_product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rounded product and its exact error, for factors below 2**995 and products far from underflow.

    Example:
        >>> import torch
        >>> a = torch.tensor(1 + 2.0**-30, dtype=torch.float64)
        >>> product, error = two_product(a, a)
        >>> float(product) == 1 + 2.0**-29, float(error) == 2.0**-60
        (True, True)
    """
    product = a * b
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    # Each product below is exact; they are formed before they are summed so that contraction changes nothing.
    high, cross, swapped, low = a_high * b_high, a_high * b_low, a_low * b_high, a_low * b_low
    return product, ((high - product) + cross + swapped) + low


def _split(a: Tensor) -> tuple[Tensor, Tensor]:
    scaled = a * _SPLITTER
    high = scaled - (scaled - a)
    return high, a - high


def accumulate(expansion: Tensor, term: Tensor) -> None:
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


def multiply(expansion: Tensor, factor: Tensor) -> Tensor:
    """Return ``expansion * factor`` with as many parts, for a factor in double precision."""
    result = torch.zeros_like(expansion)
    for part in expansion:
        product, error = two_product(part, factor.expand_as(part))
        accumulate(result, product)
        accumulate(result, error)
    return renormalise(result)
