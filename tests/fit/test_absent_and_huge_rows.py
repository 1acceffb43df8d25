"""Rows of weight zero, targets with offsets or near the end of the range of float64, numbers of NumPy as options."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import closedform as cf

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 2))
SIGNAL = X @ [1.0, -2.0] + RNG.standard_normal(60)
WEIGHT = np.ones(60)
WEIGHT[::2] = 0


def exact_r_squared(X: np.ndarray, y: np.ndarray, sol: cf.Solution) -> float:
    """R^2 of given weights in rational arithmetic."""
    assert sol.bias is not None
    weights = [Fraction(float(value)) for value in sol.weight[0]]
    bias, targets = Fraction(sol.bias[0].item()), [Fraction(float(value)) for value in y]
    predicted = [sum((w * Fraction(float(x)) for w, x in zip(weights, row, strict=True)), bias) for row in X]
    mean = sum(targets) / len(targets)
    left = sum((p - t) ** 2 for p, t in zip(predicted, targets, strict=True))
    return float(1 - left / sum((t - mean) ** 2 for t in targets))


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e8, 1e9, 1e10])
@pytest.mark.parametrize("first", [0, 1])
def test_rows_of_weight_zero_do_not_say_where_the_mean_is(offset: float, first: int) -> None:
    weight = np.roll(WEIGHT, first)
    kept = weight > 0
    y = SIGNAL + offset
    sol = cf.solve(X, y, bias=True, sample_weight=weight)
    assert sol.r_squared[0] == pytest.approx(exact_r_squared(X[kept], y[kept], sol), rel=1e-6)


@pytest.mark.parametrize("exponent", [500, 512, 700, 1000])
def test_a_residual_of_large_targets_is_finite(exponent: int) -> None:
    scale = 2.0**exponent
    sol, plain = cf.solve(X, SIGNAL * scale), cf.solve(X, SIGNAL)
    assert sol.certificate.residual_norm == pytest.approx(plain.certificate.residual_norm * scale, rel=1e-12)
    assert sol.certified


def test_numbers_of_numpy_are_numbers() -> None:
    sol = cf.solve(X, SIGNAL, digits=np.int64(8), bias=np.True_)  # type: ignore[call-overload]
    assert sol.certified
    cut = cf.solve(X, SIGNAL, rcond=np.float32(1e-6), l2=np.float16(0.5))
    assert cut.certified
