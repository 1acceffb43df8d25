"""Transforms that are free of error: a sum and what its rounding left over."""

from __future__ import annotations

from fractions import Fraction

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from closedform.numerics.expansion import two_sum

NUMBERS = st.floats(min_value=-1e100, max_value=1e100, allow_subnormal=False).filter(
    lambda x: x == 0 or abs(x) > 1e-100
)


@given(a=NUMBERS, b=NUMBERS)
@settings(derandomize=True, deadline=None)
def test_transforms_are_free_of_error(a: float, b: float) -> None:
    x, y = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    total, error = (Fraction(float(part)) for part in two_sum(x, y))
    assert total + error == Fraction(a) + Fraction(b)
