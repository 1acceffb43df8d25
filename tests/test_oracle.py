"""The oracle itself, against mpmath and against brute force."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose

from cases import BY_NAME, geometric
from oracle import (
    EPS,
    as_tables,
    backward_error_each,
    backward_error_joint,
    residual,
    scaled_problem,
)
from solved import (
    exact_of,
    problem_of,
)


def test_oracle_minimiser_agrees_with_mpmath() -> None:
    case = BY_NAME["tall condition 1e+12 large residual"]
    problem, exact = problem_of(case), exact_of(case)
    with mpmath.workdps(80):
        A, B = mpmath.matrix(problem.X.tolist()), mpmath.matrix(problem.Y.tolist())
        solution = mpmath.lu_solve(A.T * A, A.T * B[:, 0])
        left_over = B[:, 0] - A * solution
        assert_allclose(exact.weight[0], [float(v) for v in solution], rtol=4 * EPS)
        assert float(mpmath.norm(A.T * left_over)) < 1e-40


def test_oracle_least_norm_agrees_with_the_pseudo_inverse() -> None:
    names = ("low rank tall with bias", "wide, inconsistent duplicate rows", "fewer positive weights than columns")
    for name in names:
        problem, exact = problem_of(BY_NAME[name]), exact_of(BY_NAME[name])
        x, y = as_tables(problem.X, problem.Y)
        w = np.ones(len(x)) if problem.sample_weight is None else problem.sample_weight
        if problem.bias:
            x, y = x - np.average(x, axis=0, weights=w), y - np.average(y, axis=0, weights=w)
        root = np.sqrt(w)[:, None]
        assert_allclose(exact.weight.T, np.linalg.pinv(root * x, rcond=1e-10) @ (root * y), atol=1e-11)


@pytest.mark.parametrize("size", [1e-12, 1e-6])
def test_oracle_backward_error_is_within_its_known_factor_of_the_smallest(size: float) -> None:
    """Walden, Karlson and Sun's exact formula, in 60 digits, for one target."""
    rng = np.random.default_rng(5)
    A, b = geometric(rng, 9, 3, 1e3), rng.standard_normal((9, 1))
    weight = (np.linalg.lstsq(A, b, rcond=None)[0] + size * rng.standard_normal((3, 1))).T
    problem = scaled_problem(A, b, bias=False)
    R, Z = residual(problem, weight, None)
    with mpmath.workdps(60):
        r, z, M = mpmath.matrix(R.tolist()), mpmath.matrix(Z.tolist()), mpmath.matrix(problem.A.tolist())
        eta = mpmath.norm(r) / mpmath.norm(z)
        projector = mpmath.eye(9) - r * r.T / mpmath.norm(r) ** 2
        stacked = mpmath.matrix(9, 12)
        stacked[:, :3], stacked[:, 3:] = M, eta * projector
        smallest = min(mpmath.sqrt(abs(v)) for v in mpmath.eigsy(stacked * stacked.T, eigvals_only=True))
        exact = float(min(eta, smallest)) / np.linalg.norm(problem.A)
    assert 0.6 * exact <= backward_error_each(problem, weight, None)[0] <= 1.7 * exact


def test_oracle_joint_backward_error_is_the_least_perturbation_to_first_order() -> None:
    """The linear equations that dA and dB must meet, solved whole."""
    rng = np.random.default_rng(6)
    A, B = geometric(rng, 8, 3, 50.0), rng.standard_normal((8, 2))
    weight = (np.linalg.lstsq(A, B, rcond=None)[0] + 1e-7 * rng.standard_normal((3, 2))).T
    problem = scaled_problem(A, B, bias=False)
    R, Z = residual(problem, weight, None)
    theta = np.linalg.norm(problem.A) / np.linalg.norm(problem.B)
    columns = []
    for i in range(8):
        for j in range(3):
            dA = np.zeros((8, 3))
            dA[i, j] = 1.0
            columns.append((dA.T @ R - problem.A.T @ dA @ Z).ravel())
    for i in range(8):
        for j in range(2):
            dB = np.zeros((8, 2))
            dB[i, j] = 1.0 / theta
            columns.append((problem.A.T @ dB).ravel())
    least = np.linalg.lstsq(np.array(columns).T, -(problem.A.T @ R).ravel(), rcond=None)[0]
    expected = np.linalg.norm(least) / np.linalg.norm(problem.A)
    assert_allclose(backward_error_joint(problem, weight, None), expected, rtol=1e-4)
