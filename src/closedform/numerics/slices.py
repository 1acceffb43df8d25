"""Exact matrix products by slices: numbers cut into pieces of so few bits that BLAS adds their products exactly.

The large operand is cut into slices of 30 bits and a rest that stays a double, the small one into limbs of 10 bits.
The product of a slice and a limb, summed over at most :data:`LENGTH` terms, is a sum of integers below 2**53 times a
power of two, so it is exact in whatever order BLAS works, with or without fused multiply-add. Results are *levels*:
fixed-point numbers whose level l (from 1) holds a multiple of ``2**(-10 * l)``. Source: Ozaki, Ogita, Oishi and
Rump (2012); the error of everything here is derived in docs/digits-proof.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from closedform.numerics.expansion import two_sum
from closedform.numerics.scaling import times_power_of_two as scaled

__all__ = [
    "LENGTH",
    "LIMB_BITS",
    "Slices",
    "adjoint_product",
    "carry_",
    "convolve",
    "cut_",
    "exponents_of",
    "levels_for",
    "limbs",
    "product",
    "scaled",
]

#: Bits of a limb.
LIMB_BITS = 10
#: Limbs in a slice.
SLICE_LIMBS = 3
#: The longest sum that is exact.
LENGTH = 2**11


def levels_for(count: int) -> int:
    """Return how many levels match ``count`` slices and a rest in double precision, which has 50 bits to offer."""
    return SLICE_LIMBS * count + 5


def exponents_of(peaks: Tensor) -> Tensor:
    """Return integers e with ``peak <= 2**e`` for positive peaks, and 0 for zero."""
    return torch.where(peaks > 0, torch.frexp(peaks).exponent, 0)


@final
@dataclass(frozen=True, eq=False)
class Slices:
    """A matrix with entries of at most 1, cut along its bits: ``exact.sum(1) + rest``.

    Attributes:
        exact: ``(rows, slices, columns)``, contiguous; slice a (from 1) holds multiples of ``2**(-30 * a)``.
        rest: ``(rows, columns)``, at most half a unit of the last slice.
    """

    exact: Tensor
    rest: Tensor


def cut_(values: Tensor, exact: Tensor, low: Tensor | None = None) -> Slices:
    """Cut ``values + low`` into the slices that ``exact`` has room for.

    Args:
        values: ``(rows, columns)``, at most 1 in absolute value; left holding the rest.
        exact: ``(rows, slices, columns)``, overwritten.
        low: What rounding took from the values, or None.

    Example:
        >>> import torch
        >>> X = torch.rand(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> slices = cut_(X.clone(), torch.empty(5, 2, 5, dtype=torch.float64))
        >>> bool((slices.exact[:, 0] + (slices.exact[:, 1] + slices.rest) == X).all())
        True
    """
    for a in range(exact.shape[1]):
        anchor = _anchor(SLICE_LIMBS * (a + 1))
        piece = torch.add(values, anchor, out=exact[:, a])
        piece -= anchor
        values -= piece
        if low is not None:
            total, low = two_sum(values, low)
            values.copy_(total)
    return Slices(exact, values)


def _anchor(level: int) -> float:
    """Return the number that, added and subtracted, rounds to multiples of ``2**(-10 * level)``."""
    return float(1.5 * 2.0 ** (52 - LIMB_BITS * level))


def limbs(parts: Tensor, count: int) -> Tensor:
    """Return the limbs of expansions, ``(count, ...)``; at most about half a unit of the last is left out.

    Args:
        parts: Expansions ``(parts, ...)`` of absolute value at most 4, largest part first.
        count: How many limbs.
    """
    rest = list(parts)
    levels = torch.zeros(count, *parts.shape[1:], dtype=parts.dtype, device=parts.device)
    for level in [*range(SLICE_LIMBS, count, SLICE_LIMBS), count]:
        anchor = _anchor(level)
        piece = (rest[0] + anchor) - anchor
        levels[level - 1] = piece
        rest[0] = rest[0] - piece
        for i in range(len(rest) - 1):
            rest[i], rest[i + 1] = two_sum(rest[i], rest[i + 1])
    return carry_(levels)


def carry_(levels: Tensor) -> Tensor:
    """Make limbs of levels in place, exactly: all but the first end within half a unit of the level above."""
    each = levels.unbind(0)
    for i in range(len(each) - 1, 0, -1):
        high = each[i] + _anchor(i)
        high -= _anchor(i)
        each[i].sub_(high)
        each[i - 1].add_(high)
    return levels


def product(left: Slices, right: Tensor, rounded: Tensor) -> Tensor:
    """Return ``left @ right`` in three more levels than ``right`` has limbs.

    Left out are products that lie below the last limb of ``right``, and the rounding of ``rest @ rounded``.

    Args:
        left: ``(rows, length)``.
        right: Limbs ``(limbs, length, k)``, of columns whose absolute values sum to at most 1.
        rounded: The same in double precision, ``(length, k)``.
    """
    count, length, k = right.shape
    rows, slices, _ = left.exact.shape
    levels = right.new_zeros(count + SLICE_LIMBS, rows, k)
    for start in range(0, length, LENGTH):
        part = right[:, start : start + LENGTH]
        # Under every slice stand the limbs, three levels further down each time.
        stacked = right.new_zeros(slices, part.shape[1], count, k)
        for a in range(slices):
            kept = count - SLICE_LIMBS * a
            stacked[a, :, SLICE_LIMBS * a :] = part[:kept].transpose(0, 1)
        exact = left.exact[:, :, start : start + LENGTH].reshape(rows, -1)
        levels[SLICE_LIMBS:] += (exact @ stacked.flatten(0, 1).flatten(1)).view(rows, count, k).transpose(0, 1)
        if length > LENGTH:
            carry_(levels)
    _add_rounded_(levels, left.rest @ rounded, slices)
    return levels


def adjoint_product(left: Slices, right: Tensor, rounded: Tensor) -> Tensor:
    """Return ``left.T @ right`` in as many levels as that takes: nothing is left out but the rounding of the rest.

    Args:
        left: ``(rows, columns)`` with at most :data:`LENGTH` rows.
        right: Limbs ``(limbs, rows, k)``.
        rounded: The same in double precision, ``(rows, k)``.
    """
    count, rows, k = right.shape
    _, slices, columns = left.exact.shape
    levels = right.new_zeros(count + SLICE_LIMBS * slices, columns, k)
    products = left.exact.view(rows, -1).T @ right.transpose(0, 1).reshape(rows, -1)
    for a, part in enumerate(products.view(slices, columns, count, k), start=1):
        levels[SLICE_LIMBS * a : SLICE_LIMBS * a + count] += part.transpose(0, 1)
    _add_rounded_(levels, left.rest.T @ rounded, slices)
    return levels


def _add_rounded_(levels: Tensor, values: Tensor, slices: int) -> None:
    """Add what the rest of ``slices`` slices gives, on the two levels its bits reach."""
    for level in (SLICE_LIMBS * (slices + 1), SLICE_LIMBS * (slices + 2)):
        anchor = _anchor(level)
        piece = (values + anchor) - anchor
        levels[level - 1] += piece
        values = values - piece


def convolve(first: Tensor, second: Tensor) -> Tensor:
    """Return the exact product of limbs, elementwise, as levels ``(limbs + limbs, ...)``."""
    count = second.shape[0]
    levels = torch.zeros_like(first[0] * second[0]).repeat(first.shape[0] + count, *[1] * (second.dim() - 1))
    for a, limb in enumerate(first, start=1):
        levels[a : a + count] += limb * second
    return levels
