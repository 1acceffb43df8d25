"""Where the minimiser is not unique: the one of least norm, or the one nearest to a layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import closedform as cf
from cases import BY_NAME, Case
from oracle import (
    as_tables,
    minimise,
    to_numpy,
)
from placement import place
from solved import (
    DEFICIENT,
    exact_of,
    problem_of,
    solution_of,
)

pytestmark = pytest.mark.device


@pytest.mark.parametrize("case", DEFICIENT, ids=lambda case: case.name)
def test_norm_is_least(case: Case) -> None:
    sol, exact = solution_of(case), exact_of(case)
    unit = np.abs(exact.weight).max() or 1.0
    bound = 1e-9 if "condition" not in case.name else 1e-2
    least = np.linalg.norm(exact.weight / unit)
    assert np.linalg.norm(to_numpy(sol.weight) / unit) <= least * (1 + bound) + 1e-13


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("name", ["low rank tall", "wide, inconsistent duplicate rows", "one row"])
def test_nearest_to_is_where_gradient_descent_ends(name: str, bias: bool) -> None:
    problem = problem_of(BY_NAME[name])
    x, y = as_tables(problem.X, problem.Y)
    torch.manual_seed(7)
    layer = torch.nn.Linear(x.shape[1], y.shape[1], bias=bias, dtype=torch.float64)
    start = (layer.weight, layer.bias if bias else None)
    exact = minimise(x, y, bias=bias, start=start)
    sol = cf.solve(place(x), place(y), bias=bias, nearest_to=layer)
    assert sol.certificate.accepted
    assert sol.certificate.backward_error <= 1e-14
    assert_allclose(to_numpy(sol.weight), exact.weight, rtol=1e-10, atol=1e-11)
    if bias:
        assert exact.bias is not None
        assert_allclose(to_numpy(sol.bias), exact.bias, rtol=1e-10, atol=1e-11)


def test_nearest_to_changes_nothing_where_the_minimiser_is_unique() -> None:
    problem, exact = problem_of(BY_NAME["3 targets"]), exact_of(BY_NAME["3 targets"])
    sol = cf.solve(problem.X, problem.Y, nearest_to=torch.nn.Linear(8, 3, bias=False, dtype=torch.float64))
    assert_allclose(to_numpy(sol.weight), exact.weight, rtol=1e-12, atol=1e-13)
