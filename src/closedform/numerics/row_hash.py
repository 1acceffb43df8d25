"""A number for rows, by which they are known when they come again, bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["hash_rows"]

#: Odd constants of a 64-bit mix (Steele, Lea and Flood 2014, SplitMix), as signed numbers.
_STEP = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_ONE = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_TWO = 0x94D049BB133111EB - (1 << 64)


def hash_rows(A: Tensor, B: Tensor) -> Tensor:
    """Return a 64-bit number for each row of ``[A | B]``, of its bits alone, ``(rows,)`` int64.

    Other rows have other numbers, but for one chance in 2^64; a product with random weights would not do, because
    a column of large numbers would drown the others in its rounding.

    Args:
        A: ``(rows, columns)``, float64 or float32.
        B: ``(rows, targets)``, of the same dtype.

    Example:
        >>> import torch
        >>> A = torch.tensor([[1.0, 1e18], [0.0, 1e18], [1.0, 1e18]], dtype=torch.float64)
        >>> first, second, third = hash_rows(A, A[:, :1] * 0).tolist()
        >>> first == third, first == second
        (True, False)
    """
    together = torch.cat([A, B], 1).contiguous()
    bits = together.view(torch.int64 if together.dtype == torch.float64 else torch.int32).to(torch.int64)
    columns = torch.arange(1, bits.shape[1] + 1, device=bits.device)
    return _mixed(_mixed(bits + _STEP * columns).sum(1))


def _mixed(values: Tensor) -> Tensor:
    """Return numbers in which every bit depends on every bit of ``values``; multiplication wraps around."""
    values = (values ^ _shifted(values, 30)) * _MIX_ONE
    values = (values ^ _shifted(values, 27)) * _MIX_TWO
    return values ^ _shifted(values, 31)


def _shifted(values: Tensor, by: int) -> Tensor:
    """Shift to the right and fill with zeros; torch fills with the sign."""
    return (values >> by) & ((1 << (64 - by)) - 1)
