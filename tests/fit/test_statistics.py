"""Standard errors, residual deviation and R squared against the textbook's formulas."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import closedform as cf


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_statistics_are_the_textbook_s(bias: bool, weighted: bool) -> None:
    rng = np.random.default_rng(2)
    X = rng.standard_normal((30, 4)) + 3
    Y = X @ rng.standard_normal((4, 2)) + rng.standard_normal((30, 2)) + 5
    weight = rng.uniform(0.5, 2.0, 30) if weighted else None
    w = np.ones(30) if weight is None else weight
    A = np.column_stack([X, np.ones(30)]) if bias else X
    normal = np.linalg.inv(A.T @ (A * w[:, None]))
    left_over = Y - A @ (normal @ (A.T @ (Y * w[:, None])))
    squares = (w[:, None] * left_over**2).sum(axis=0)
    variance = squares / (30 - A.shape[1])
    expected = np.sqrt(np.outer(variance, np.diag(normal)))
    centre = np.average(Y, axis=0, weights=w)
    sol = cf.solve(X, Y, bias=bias, sample_weight=weight)
    weight_errors, bias_errors = sol.standard_errors()
    assert_allclose(weight_errors.numpy(), expected[:, :4], rtol=1e-10)
    assert (bias_errors is not None) == bias
    if bias_errors is not None:
        assert_allclose(bias_errors.numpy(), expected[:, 4], rtol=1e-10)
    assert_allclose(sol.residual_std, np.sqrt(variance), rtol=1e-10)
    assert_allclose(sol.r_squared, 1 - squares / (w[:, None] * (Y - centre) ** 2).sum(axis=0), rtol=1e-10)
