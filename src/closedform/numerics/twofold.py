"""Products of a matrix and a vector in twice the working precision, as pairs of doubles.

Source: Dekker (1971) for the exact product, Ogita, Rump and Oishi (2005) for sums of such. Every operation is one call
on whole tensors, so that no fused multiply-add can come between a product and its error.
"""

from __future__ import annotations

import torch
from torch import Tensor

from closedform.numerics.expansion import two_sum

__all__ = ["LOST", "residual", "two_product", "twofold_product"]

#: What a product leaves out, relative to the sum of the absolute values of its terms, for up to 2^30 terms.
LOST = 2.0**-96
#: Splits a double into two halves of 26 bits whose products are exact (Veltkamp 1968).
_HALVES = 2.0**27 + 1
#: Entries that are worked on at a time, so that what an operation leaves stays in the caches.
_ENTRIES = 2**17


def two_product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rounded product and its exact error, for numbers below 2^990 and products above 2^-960.

    Example:
        >>> import torch
        >>> a = torch.tensor(1 + 2.0**-30, dtype=torch.float64)
        >>> product, error = two_product(a, a)
        >>> float(product - 1 - 2.0**-29), float(error) == 2.0**-60
        (0.0, True)
    """
    product = a * b
    a_high = a * _HALVES
    a_high = a_high - (a_high - a)
    b_high = b * _HALVES
    b_high = b_high - (b_high - b)
    a_low, b_low = a - a_high, b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def twofold_product(A: Tensor, v: Tensor, low: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return ``A (v + low)`` as a rounded value and what rounding took from it, ``(rows,)`` each.

    Args:
        A: ``(rows, columns)``, float64.
        v: ``(columns,)``.
        low: ``(columns,)``, far smaller than v, or None for zeros.

    Example:
        >>> import torch
        >>> A = torch.tensor([[1e16, 1.0, -1e16]], dtype=torch.float64)
        >>> [float(part) for part in twofold_product(A, torch.ones(3, dtype=torch.float64))]
        [1.0, 0.0]
    """
    parts = []
    for block in torch.split(A, max(1, _ENTRIES // max(A.shape[1], 1))):
        values, errors = two_product(block, v)
        if low is not None:
            errors = errors + block * low
        while values.shape[1] > 1:
            half = values.shape[1] // 2
            total, lost = two_sum(values[:, :half], values[:, half : 2 * half])
            rest = errors[:, :half] + errors[:, half : 2 * half] + lost
            values = torch.cat([total, values[:, 2 * half :]], 1)
            errors = torch.cat([rest, errors[:, 2 * half :]], 1)
        parts.append(torch.stack(two_sum(values[:, 0], errors[:, 0])))
    high, rest = torch.cat(parts, 1) if parts else A.new_zeros(2, 0)
    return high, rest


def residual(t: Tensor, A: Tensor, v: Tensor) -> Tensor:
    """Return ``t - A v``, rounded once: as if it had been computed in twice the precision.

    Args:
        t: ``(rows,)``, float64.
        A: ``(rows, columns)``.
        v: ``(columns,)``.
    """
    high, low = twofold_product(A, v)
    value, error = two_sum(t, -high)
    return value + (error - low)
