"""Matrices cut into slices and numbers cut into limbs: products that are exact, or miss no more than the docs say."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from closedform.numerics.slices import LENGTH, LIMB_BITS, adjoint_product, carry_, convolve, cut_, limbs, product


@pytest.mark.parametrize("slices", [1, 3, 6])
def test_products_of_slices_miss_no_more_than_the_docs_say(slices: int) -> None:
    generator = torch.Generator().manual_seed(2)
    count, n = 3 * slices + 5, 300
    A = torch.rand(4, n, dtype=torch.float64, generator=generator) * 2 - 1
    A *= 2.0 ** -torch.randint(0, 90, A.shape, generator=generator)
    left = cut_(A.clone(), torch.empty(4, slices, n, dtype=torch.float64))
    for size, adjoint in ((n, False), (4, True)):
        high = (torch.rand(size, 2, dtype=torch.float64, generator=generator) * 2 - 1) / size
        parts = torch.stack([high, high * 2.0**-54])
        right = limbs(parts, count)
        multiply, matrix = (adjoint_product, A.T) if adjoint else (product, A)
        found = multiply(left, right, right.sum(0) if adjoint else high)
        for i in range(matrix.shape[0]):
            for j in range(2):
                # The limbs of a residual are the residual; coefficients are cut, and what is left of them counts.
                factors = [fraction(right[:, k, j]) if adjoint else fraction(parts[:, k, j]) for k in range(size)]
                exact = sum((Fraction(float(a)) * b for a, b in zip(matrix[i], factors, strict=True)), Fraction(0))
                missing = abs(fraction(found[:, i, j]) - exact)
                absolute = sum(abs(b) for b in factors)
                allowed = (size + 100) * absolute / 16 + 1 if adjoint else Fraction((size + 3) * (slices + 2), 4)
                assert missing <= allowed * Fraction(1, 2 ** (10 * count))


def test_the_longest_sums_of_the_largest_numbers_are_exact() -> None:
    # 2**30 - 1 units in every slice of every entry, 2**10 in every limb: the most there can be.
    count, slices = 23, 6
    exact = torch.stack([torch.full((LENGTH, 1), 2.0 ** (-30 * a)) for a in range(slices)], 1).double()
    left = cut_(torch.zeros(LENGTH, 1, dtype=torch.float64), torch.empty(LENGTH, slices, 1, dtype=torch.float64))
    left.exact.copy_(torch.where(torch.arange(slices).view(1, -1, 1) == 0, exact, exact / 2))
    right = torch.stack([torch.full((LENGTH, 1), 2.0 ** (-LIMB_BITS * b)) for b in range(count)]).double()
    right[1:] /= 2
    total = fraction(adjoint_product(left, right, right.sum(0))[:, 0, 0])
    expected = fraction(left.exact[0, :, 0]) * fraction(right[:, 0, 0]) * LENGTH
    assert total == expected


@given(a=st.floats(-1, 1), b=st.floats(-1, 1))
@settings(derandomize=True, deadline=None)
def test_limbs_carry_and_multiply_exactly(a: float, b: float) -> None:
    count = 12
    x, y = (limbs(torch.tensor([value], dtype=torch.float64), count) for value in (a, b))
    unit = Fraction(1, 2 ** (LIMB_BITS * count))
    assert abs(fraction(x) - Fraction(a)) <= unit / 2
    assert all(abs(float(limb)) <= 2.0 ** (-LIMB_BITS * i - 1) for i, limb in enumerate(x) if i)
    levels = convolve(x, y)
    assert fraction(levels) == fraction(x) * fraction(y)
    assert fraction(carry_(levels.clone())) == fraction(levels)


def fraction(levels: torch.Tensor) -> Fraction:
    return sum((Fraction(float(level)) for level in levels), Fraction(0))
