"""Products in twice the precision, beside rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from closedform.numerics.twofold import LOST, residual, twofold_product


@pytest.mark.parametrize("columns", [1, 2, 7, 64])
def test_a_product_in_twice_the_precision(columns: int) -> None:
    generator = torch.Generator().manual_seed(columns)
    A = torch.randn(5, columns, dtype=torch.float64, generator=generator)
    v = torch.randn(columns, dtype=torch.float64, generator=generator) * 10.0 ** torch.arange(columns).fmod(9).double()
    low = 1e-17 * v
    high, rest = twofold_product(A, v, low)
    left = residual(high, A, v)
    for row in range(5):
        terms = [Fraction(float(a)) * Fraction(float(x)) for a, x in zip(A[row], v, strict=True)]
        lows = sum(Fraction(float(a)) * Fraction(float(x)) for a, x in zip(A[row], low, strict=True))
        size = sum(abs(term) for term in terms)
        assert abs(Fraction(float(high[row])) + Fraction(float(rest[row])) - sum(terms) - lows) <= LOST * size
        exact = Fraction(float(high[row])) - sum(terms)
        assert abs(Fraction(float(left[row])) - exact) <= abs(exact) * Fraction(2) ** -51 + LOST * size
