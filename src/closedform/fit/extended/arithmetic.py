"""What the proofs of this folder count with: the rounding of doubles, slack for their own, and exact scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from closedform.numerics.slices import LENGTH, Slices

__all__ = ["SLACK", "OutOfRange", "SlicedBlock", "U", "exactly", "rows_per_block"]

#: Unit roundoff of doubles.
U = 2.0**-53
#: Norms and bounds are themselves computed in double precision: more than their rounding.
SLACK = 1.0 + 1e-6
#: Entries of a block whose slices stay in the outer cache.
_BLOCK_ENTRIES = 2**19
#: Rows of the smallest block.
_FEWEST_ROWS = 64


class OutOfRange(Exception):
    """A number cannot be scaled without losing bits to the ends of the range of doubles."""


@final
@dataclass(frozen=True, eq=False)
class SlicedBlock:
    """Rows of the operand, each ``2**exponent`` times what the slices hold; good until the next block is asked for.

    Attributes:
        left: The rows, with entries of at most 1, ``(rows, columns)``.
        right: Right-hand sides, on the same scale and at most 1, ``(rows, targets)``.
        exponents: ``(rows, 1)``, or None for zeros.
        weight: ``weight * 4**exponent``, at most about 4, ``(rows, 1)``; None for ones.
    """

    left: Slices
    right: Tensor
    exponents: Tensor | None
    weight: Tensor | None


def rows_per_block(columns: int) -> int:
    """Return how many rows are cut at a time: few enough that the slices stay in the outer cache."""
    return min(LENGTH, max(_FEWEST_ROWS, _BLOCK_ENTRIES // max(columns, 1)))


def exactly(values: Tensor, scale: Tensor) -> Tensor:
    """Return ``values * scale`` for powers of two.

    Raises:
        OutOfRange: that is not exact.
    """
    result = values * scale
    if not torch.equal(result / scale, values):
        raise OutOfRange
    return result
