"""Refinement: what it makes of a start that is only nearly right, and that it costs few passes over the rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import closedform as cf
from data import gaussian, of_condition
from exact import minimiser
from oracle import to_numpy

pytestmark = pytest.mark.device


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("decades", [0.0, 1.0, 2.0], ids=["condition 1", "condition 10", "condition 100"])
def test_a_start_in_single_precision_ends_at_double(decades: float, bias: bool) -> None:
    X, Y = of_condition(decades, 200, 6) + 2.0 * bias, gaussian(200, 2, seed=3)
    sol = cf.solve(X, Y, bias=bias, method="gram32")
    # The factor has about seven digits, the weights all of theirs.
    assert sol.certificate.factor_error > 1e-9
    exact = np.array([[float(v) for v in row] for row in minimiser(X.cpu(), Y.cpu(), bias=bias).weights])
    weight = to_numpy(sol.weight).T
    found = weight if sol.bias is None else np.vstack([to_numpy(sol.bias), weight])
    np.testing.assert_allclose(found, exact, rtol=1e-12, atol=1e-14 * np.abs(exact).max())
    assert 1 <= sol.attempts[-1].passes <= 8


def test_an_exact_triangle_needs_one_correction_at_most() -> None:
    X, Y = of_condition(8.0, 200, 6), gaussian(200, 1, seed=3)
    sol = cf.solve(X, Y, method="householder")
    assert sol.certificate.accepted
    assert sol.attempts[-1].passes <= 3


@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_units_do_not_change_the_digits(size: float) -> None:
    X, Y = gaussian(100, 5), gaussian(100, 1, seed=1)
    plain, scaled = cf.solve(X, Y, method="gram32"), cf.solve(X * size, Y, method="gram32")
    torch.testing.assert_close(scaled.weight * size, plain.weight, rtol=1e-13, atol=0.0)


def test_elimination_is_refined_by_the_residual() -> None:
    X = of_condition(6.0, 60, 60)
    sol = cf.solve(X, X.sum(1), method="square")
    assert sol.certificate.accepted
    # Condition 1e6 with a single precision factor: without refinement no digit, with it nine.
    torch.testing.assert_close(sol.weight, torch.ones(1, 60, dtype=torch.float64), rtol=1e-8, atol=1e-8)
