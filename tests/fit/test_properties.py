"""What must hold for every problem, whatever its shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import closedform as cf
from cases import Problem
from oracle import (
    EPS,
    Array,
    as_tables,
    backward_error_each,
    backward_error_joint,
    forward_bound,
    minimise,
    residual,
    scaled_problem,
    to_numpy,
)

FEW = settings(
    max_examples=25, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)


@st.composite
def problems(draw: Any, *, bias: bool | None = None, full_rank: bool = False) -> Problem:
    """Draw a problem of any shape; small integers make rank-deficient ones as common as the others."""
    with_bias = draw(st.booleans()) if bias is None else bias
    n = draw(st.integers(1, 9))
    m = draw(st.integers(n + 2, 24) if full_rank else st.integers(1, 24))
    k = draw(st.sampled_from([1, 2, 3, 40]))
    l2 = draw(st.sampled_from([0.0, 0.0, 1e-3, 2.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if full_rank or draw(st.booleans()):
        X, Y = rng.standard_normal((m, n)), rng.standard_normal((m, k))
    else:
        X, Y = (rng.integers(-2, 3, shape).astype(np.float64) for shape in ((m, n), (m, k)))
    weight = rng.uniform(0.1, 2.0, m) if draw(st.booleans()) else None
    return Problem(X, Y, with_bias, l2, weight)


def apart(problem: Problem, first: Any, second: Any) -> bool:
    """Whether two answers (weight, bias) of a problem differ by more than twice what rounding can do."""
    dense = scaled_problem(problem.X, problem.Y, **problem.options)
    exact = minimise(problem.X, problem.Y, **problem.options)
    z = [residual(dense, *answer)[1] for answer in (first, second)]
    allowed = 2 * forward_bound(dense, exact) + 4 * EPS * np.abs(z[0]).max(axis=0)
    return bool((np.abs(z[0] - z[1]).max(axis=0) > allowed).any())


@FEW
@given(problems())
def test_the_gradient_vanishes_to_rounding(problem: Problem) -> None:
    sol = cf.solve(problem.X, problem.Y, **problem.options)
    assert sol.certificate.accepted
    assert sol.certificate.backward_error <= 1e-14
    dense = scaled_problem(problem.X, problem.Y, **problem.options)
    assert backward_error_joint(dense, sol.weight, sol.bias) <= 1e-14
    assert backward_error_each(dense, sol.weight, sol.bias).max() <= 1e-14
    R, Z = residual(dense, sol.weight, sol.bias)
    gradient = np.abs(dense.A.T @ R)
    size = np.linalg.norm(dense.A) * (np.linalg.norm(dense.A) * np.linalg.norm(Z) + np.linalg.norm(dense.B))
    assert (gradient <= 1e-14 * size).all()


@FEW
@given(problems())
def test_weights_and_rank_are_those_of_exact_arithmetic(problem: Problem) -> None:
    sol = cf.solve(problem.X, problem.Y, **problem.options)
    exact = minimise(problem.X, problem.Y, **problem.options)
    assert sol.certificate.rank == exact.rank
    assert not apart(problem, (sol.weight, sol.bias), (exact.weight, exact.bias))


@FEW
@given(problems(), st.integers(0, 2**32 - 1))
def test_nearest_to_moves_only_as_far_as_it_must(problem: Problem, seed: int) -> None:
    assume(problem.l2 == 0)
    n, k = problem.X.shape[1], problem.Y.shape[1]
    torch.manual_seed(seed)
    layer = torch.nn.Linear(n, k, bias=problem.bias, dtype=torch.float64)
    sol = cf.solve(problem.X, problem.Y, nearest_to=layer, **problem.options)
    start = (layer.weight, layer.bias if problem.bias else None)
    exact = minimise(problem.X, problem.Y, bias=problem.bias, sample_weight=problem.sample_weight, start=start)
    dense = scaled_problem(problem.X, problem.Y, **problem.options)
    z = [residual(dense, *answer)[1] for answer in ((sol.weight, sol.bias), (exact.weight, exact.bias), start)]
    allowed = forward_bound(dense, exact) + 100 * EPS * np.abs(z[2]).max(axis=0)
    assert (np.abs(z[0] - z[1]).max(axis=0) <= 10 * allowed).all()


@FEW
@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(problem: Problem, random: Any) -> None:
    order = list(range(len(problem.X)))
    random.shuffle(order)
    weight = None if problem.sample_weight is None else problem.sample_weight[order]
    first = cf.solve(problem.X, problem.Y, **problem.options)
    second = cf.solve(problem.X[order], problem.Y[order], bias=problem.bias, l2=problem.l2, sample_weight=weight)
    assert first.certificate.rank == second.certificate.rank
    assert not apart(problem, (first.weight, first.bias), (second.weight, second.bias))


@FEW
@given(problems(full_rank=True), st.data())
def test_units_that_are_powers_of_two_change_nothing_but_the_units(problem: Problem, data: Any) -> None:
    assume(problem.l2 == 0)  # a ridge penalises the weights in their own units
    exponents = data.draw(st.lists(st.integers(-60, 60), min_size=problem.X.shape[1], max_size=problem.X.shape[1]))
    units = 2.0 ** np.array(exponents)
    first = cf.solve(problem.X, problem.Y, **problem.options)
    second = cf.solve(problem.X * units, problem.Y * 2.0**40, **problem.options)
    # Not a bit may differ: the columns are scaled to the same numbers before anything else is done.
    assert np.array_equal(second.weight.numpy() * units, first.weight.numpy() * 2.0**40)
    assert second.certificate.rank == first.certificate.rank
    assert second.certificate.scaled_condition == first.certificate.scaled_condition


@FEW
@given(problems(bias=True), st.sampled_from([-3.0, 1.0, 1024.0]))
def test_a_constant_added_to_the_targets_goes_into_the_bias(problem: Problem, constant: float) -> None:
    Y = np.round(problem.Y * 2**20) / 2**20  # so that adding the constant is exact
    shifted = Problem(problem.X, Y + constant, True, problem.l2, problem.sample_weight)
    first = cf.solve(problem.X, Y, **problem.options)
    second = cf.solve(shifted.X, shifted.Y, **shifted.options)
    assert first.bias is not None
    assert second.bias is not None
    assert not apart(shifted, (second.weight, second.bias), (first.weight, first.bias + constant))


@FEW
@given(problems())
def test_a_row_of_weight_two_is_two_rows(problem: Problem) -> None:
    doubled = np.where(np.arange(len(problem.X)) % 3 == 0, 2, 1)
    first = cf.solve(problem.X, problem.Y, bias=problem.bias, l2=problem.l2, sample_weight=doubled)
    X, Y = (np.repeat(table, doubled, axis=0) for table in (problem.X, problem.Y))
    repeated = Problem(X, Y, problem.bias, problem.l2)
    second = cf.solve(X, Y, **repeated.options)
    assert not apart(repeated, (first.weight, first.bias), (second.weight, second.bias))
    np.testing.assert_allclose(first.certificate.loss, second.certificate.loss, rtol=1e-9, atol=1e-26)


@FEW
@given(problems(full_rank=True))
def test_moving_the_weights_never_lowers_the_objective(problem: Problem) -> None:
    sol = cf.solve(problem.X, problem.Y, **problem.options)
    x, y = as_tables(problem.X, problem.Y)
    w = np.ones(len(x)) if problem.sample_weight is None else problem.sample_weight

    def objective(weight: Array, bias: Array) -> float:
        errors = (y - x @ weight.T - bias) ** 2
        return float((errors * w[:, None]).sum() + problem.l2 * (weight**2).sum())

    weight = sol.weight.numpy()
    bias = to_numpy(sol.bias) if problem.bias else np.zeros(y.shape[1])
    lowest = objective(weight, bias)
    rng = np.random.default_rng(0)
    for size in (1e-3, 1.0):
        move = size * rng.standard_normal(weight.shape)
        shift = size * rng.standard_normal(bias.shape) * problem.bias
        assert objective(weight + move, bias + shift) > lowest
