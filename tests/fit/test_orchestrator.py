"""The road from rows to a certified answer, through the front door, over the whole case table."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import closedform as cf
from cases import BY_NAME, Case
from oracle import (
    as_tables,
    to_numpy,
)
from placement import place
from solved import (
    EVERY_CASE,
    assert_weights,
    exact_of,
    problem_of,
    solution_of,
)

pytestmark = pytest.mark.device


@EVERY_CASE
def test_is_certified(case: Case) -> None:
    sol = solution_of(case)
    assert sol.certificate.accepted
    assert sol.certificate.backward_error <= 1e-14
    assert sol.outcome.certified


@EVERY_CASE
def test_weights_are_those_of_exact_arithmetic(case: Case) -> None:
    assert_weights(case, solution_of(case))


@EVERY_CASE
def test_shapes_and_dtypes_are_those_of_the_layer(case: Case) -> None:
    problem, sol = problem_of(case), solution_of(case)
    x, y = as_tables(problem.X, problem.Y)
    assert sol.weight.shape == (y.shape[1], x.shape[1])
    floating = isinstance(problem.X, torch.Tensor) and problem.X.is_floating_point()
    assert sol.weight.dtype is (problem.X.dtype if floating else torch.float64)
    if problem.bias:
        assert sol.bias is not None
        assert sol.bias.shape == (y.shape[1],)
        assert sol.bias.dtype is sol.weight.dtype
    else:
        assert sol.bias is None


@EVERY_CASE
def test_loss_is_what_mse_loss_returns(case: Case) -> None:
    problem, sol, exact = problem_of(case), solution_of(case), exact_of(case)
    if "overflow" in case.tags:
        assert sol.certificate.loss == exact.loss  # infinite or zero: beyond what a float64 holds
        return
    x, y = as_tables(problem.X, problem.Y)
    weight, bias = np.abs(exact.weight), 0.0 if exact.bias is None else np.abs(exact.bias)
    unit = np.abs(y).max() or 1.0
    size = (np.abs(x) @ weight.T + bias + np.abs(y)) / unit
    w = np.ones(len(x)) if problem.sample_weight is None else to_numpy(problem.sample_weight)
    # Every entry of the residual carries a rounding of its own terms; no more may be seen in the root.
    rounding = 1e-14 * math.sqrt((size**2 * w[:, None]).sum() / (w.sum() * y.shape[1])) * unit
    true = math.sqrt(exact.loss)
    assert abs(math.sqrt(sol.certificate.loss) - true) <= 1e-12 * true + 30 * rounding


@pytest.mark.parametrize("name", ["tall with bias", "kernel", "wide", "low rank tall", "float32"])
def test_the_user_s_data_are_not_touched(name: str) -> None:
    problem = BY_NAME[name].make()
    cf.solve(problem.X, problem.Y, **problem.options)
    again = BY_NAME[name].make()
    assert np.array_equal(to_numpy(problem.X), to_numpy(again.X))
    assert np.array_equal(to_numpy(problem.Y), to_numpy(again.Y))


@pytest.mark.parametrize("name", ["40 targets", "kernel", "low rank wide", "strided", "float32"])
def test_the_answer_is_the_same_each_time(name: str) -> None:
    problem = BY_NAME[name].make()
    torch.manual_seed(123)
    state = torch.get_rng_state()
    sol = cf.solve(problem.X, problem.Y, **problem.options)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(sol.weight, solution_of(BY_NAME[name]).weight)


def test_one_dimensional_and_one_column_targets_are_the_same_fit() -> None:
    problem = problem_of(BY_NAME["kernel"])
    column = cf.solve(problem.X, problem.Y[:, None])
    assert torch.equal(column.weight, solution_of(BY_NAME["kernel"]).weight)


def test_integer_input_is_cast_and_that_is_said() -> None:
    assert "int64" in json.dumps(solution_of(BY_NAME["integers"]).to_dict())


def test_a_wide_system_is_solved_without_a_copy_of_its_rows() -> None:
    rng = np.random.default_rng(6)
    X, Y = rng.standard_normal((40, 900)), rng.standard_normal((40, 2))
    sol = cf.solve(place(X), place(Y), bias=True)
    assert sol.attempts[-1].method == "dual gram32"
    centred = X - X.mean(0)
    assert_allclose(to_numpy(sol.weight), (np.linalg.pinv(centred) @ (Y - Y.mean(0))).T, rtol=1e-11, atol=1e-13)
    near = torch.nn.Linear(900, 2, dtype=torch.float64)
    close = cf.solve(place(X), place(Y), bias=True, nearest_to=near)
    A = np.column_stack([np.ones(40), X])
    Z = np.vstack([to_numpy(near.bias), to_numpy(near.weight).T])
    Z = Z + np.linalg.pinv(A) @ (Y - A @ Z)
    assert_allclose(to_numpy(close.weight), Z[1:].T, rtol=1e-11, atol=1e-13)


def test_small_weights_under_a_strong_ridge_have_all_their_digits() -> None:
    # The ridge dwarfs the rows: normwise, a start in single precision passes; the weights would have seven digits.
    rng = np.random.default_rng(9)
    X, Y = rng.standard_normal((300, 4)) * 1e-9, rng.standard_normal(300)
    sol = cf.solve(place(X), place(Y), l2=3.0)
    assert_allclose(to_numpy(sol.weight)[0], np.linalg.solve(X.T @ X + 3.0 * np.eye(4), X.T @ Y), rtol=1e-13)
