"""Exact matrix products by slices: numbers cut into pieces of so few bits that BLAS adds their products exactly.

Every product of two slices is a sum of integers below 2**53 times a power of two, so it is exact in whatever order
BLAS works, with or without fused multiply-add. Source: Ozaki, Ogita, Oishi and Rump (2012).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from closedform.numerics.expansion import two_sum

__all__ = ["BITS", "LENGTH", "cut", "cut_expansion", "exponents_of", "scaled", "slice_products"]

#: Bits per slice.
BITS = 20
#: The longest sum that is exact: ``2 * BITS + log2(LENGTH)`` is 53.
LENGTH = 2**13


def exponents_of(peaks: Tensor) -> Tensor:
    """Return integers e with ``peak <= 2**e`` for positive peaks, and 0 for zero."""
    return torch.where(peaks > 0, torch.frexp(peaks).exponent, 0)


def scaled(values: Tensor, exponents: Tensor) -> Tensor:
    """Return ``values * 2**exponents``, exactly where the result is in range, also for exponents beyond 1023."""
    half = exponents // 2
    return torch.ldexp(torch.ldexp(values, half), exponents - half)


def cut(*parts: Tensor) -> list[Tensor]:
    """Cut numbers of absolute value at most 1 into slices that add up to them exactly.

    Slice q (from 1) holds multiples of ``2**(-BITS * q)``.

    Args:
        parts: The numbers, or the parts of their expansions, largest first.

    Example:
        >>> import torch
        >>> X = torch.rand(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> bool((sum(reversed(cut(X))) == X).all())
        True
    """
    slices: list[Tensor] = []
    rest = list(parts)
    while True:
        slices.append(_take(rest, len(slices) + 1))
        if all(bool((part.amax() == 0) & (part.amin() == 0)) for part in rest):
            return slices


def cut_expansion(expansion: Tensor, count: int) -> list[Tensor]:
    """Cut expansions of absolute value at most 1 into ``count`` slices; below ``2**(-BITS * count)`` may be left."""
    parts = list(expansion)
    return [_take(parts, q) for q in range(1, count + 1)]


def _take(parts: list[Tensor], q: int) -> Tensor:
    """Return slice q of an expansion and leave what remains in ``parts``."""
    anchor = 1.5 * 2.0 ** (52 - BITS * q)
    piece = parts[0] + anchor
    piece -= anchor
    parts[0] = parts[0] - piece
    for i in range(len(parts) - 1):
        parts[i], parts[i + 1] = two_sum(parts[i], parts[i + 1])
    return piece


def slice_products(left: Sequence[Tensor], right: Sequence[Tensor], last: int) -> list[Tensor]:
    """Return the products ``left[a] @ right[b]`` for all slices with ``a + b <= last`` (counted from 1), each exact.

    Args:
        left: Slices ``(rows, length)`` with length at most :data:`LENGTH`.
        right: Slices ``(length, k)``.
        last: Pairs further down are left out; each of them is below ``length * 2**(-BITS * (last - 1))``.
    """
    products = []
    k = right[0].shape[1]
    for a, piece in enumerate(left, start=1):
        used = right[: max(0, last - a)]
        if used:
            products += list(torch.split(piece @ torch.cat(list(used), 1), k, 1))
    return products
