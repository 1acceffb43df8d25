"""The solver against the case table: certified, minimal to rounding, and the weights of exact arithmetic."""

from __future__ import annotations

import importlib
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import closedform as cf
from cases import BY_NAME, CASES, Case, Problem, geometric
from closedform.fit.factors import sketched
from closedform.fit.plan import METHOD_NAMES
from closedform.numerics.root import TriangularRoot
from closedform.rows import as_rows
from closedform.rows.norms import rows_per_block
from closedform.words.errors import InputError, NonFiniteError
from exact import minimiser
from oracle import (
    EPS,
    Minimiser,
    as_tables,
    backward_error_each,
    backward_error_joint,
    forward_bound,
    minimise,
    residual,
    scaled_problem,
    to_numpy,
)

ALL = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
DEFICIENT = [case for case in CASES if "deficient" in case.tags and "ambiguous" not in case.tags]
DETERMINED = [
    case
    for case in CASES
    if not {"low", "ambiguous", "deficient", "raw", "overflow"} & case.tags and "per target" not in case.name
]


@cache
def problem_of(case: Case) -> Problem:
    return case.make()


@cache
def solution_of(case: Case) -> cf.Solution:
    problem = problem_of(case)
    return cf.solve(problem.X, problem.Y, **problem.options)


@cache
def exact_of(case: Case) -> Minimiser:
    problem = problem_of(case)
    return minimise(problem.X, problem.Y, **problem.options)


def per_strength(problem: Problem, weight: Any, bias: Any) -> list[tuple[Any, Any, Any]]:
    """Return (scaled problem, weight, bias) for each ridge strength, which is a problem of its own."""
    options = {"bias": problem.bias, "sample_weight": problem.sample_weight}
    if np.ndim(problem.l2) == 0:
        return [(scaled_problem(problem.X, problem.Y, l2=problem.l2, **options), weight, bias)]
    _, Y = as_tables(problem.X, problem.Y)
    return [
        (
            scaled_problem(problem.X, Y[:, [j]], l2=float(l2), **options),
            weight[[j]],
            None if bias is None else bias[[j]],
        )
        for j, l2 in enumerate(problem.l2)
    ]


def unit_roundoff(sol: cf.Solution) -> float:
    """Relative spacing of the dtype that the weights are returned in."""
    return float(torch.finfo(sol.weight.dtype).eps)


@ALL
def test_is_certified(case: Case) -> None:
    sol = solution_of(case)
    assert sol.certificate.accepted
    assert sol.certificate.backward_error <= 1e-14
    assert sol.outcome.certified


@ALL
def test_minimises_by_a_dense_backward_error(case: Case) -> None:
    sol = solution_of(case)
    # Weights rounded to a narrow dtype are as good as that dtype; the float64 answer before is judged below.
    limit = 1e-14 if sol.weight.dtype is torch.float64 else 4 * unit_roundoff(sol)
    for problem, weight, bias in per_strength(problem_of(case), sol.weight, sol.bias):
        assert backward_error_joint(problem, weight, bias) <= limit
        assert backward_error_each(problem, weight, bias).max() <= limit


def assert_weights(case: Case, sol: cf.Solution) -> None:
    """Within 100 eps (k |z| + k^2 |r| / s1) in scaled units; the least norm where they are not unique."""
    exact = exact_of(case)
    if {"raw", "deficient"} <= case.tags:
        return  # the least norm in badly scaled units has a condition of its own; see the test of the norm
    found = per_strength(problem_of(case), sol.weight, sol.bias)
    truth = per_strength(problem_of(case), exact.weight, exact.bias)
    for (problem, weight, bias), (_, true_weight, true_bias) in zip(found, truth, strict=True):
        part = Minimiser(true_weight, true_bias, exact.loss, exact.rank)
        _, z = residual(problem, weight, bias)
        _, true_z = residual(problem, true_weight, true_bias)
        allowed = forward_bound(problem, part) + unit_roundoff(sol) * np.abs(true_z).max(axis=0)
        assert (np.abs(z - true_z).max(axis=0) <= allowed).all()


@ALL
def test_weights_are_those_of_exact_arithmetic(case: Case) -> None:
    assert_weights(case, solution_of(case))


@ALL
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


@ALL
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


@ALL
def test_rank_and_outcome(case: Case) -> None:
    sol, exact = solution_of(case), exact_of(case)
    problem = problem_of(case)
    columns = as_tables(problem.X, problem.Y)[0].shape[1] + problem.bias
    if "ambiguous" in case.tags:
        assert sol.outcome is cf.Outcome.AMBIGUOUS_RANK
        assert 1 <= sol.certificate.rank <= columns
        return
    assert sol.certificate.rank == exact.rank
    unique = exact.rank == columns
    assert unique == ("deficient" not in case.tags)
    assert sol.outcome is (cf.Outcome.CERTIFIED if unique else cf.Outcome.CERTIFIED_NOT_UNIQUE)


@pytest.mark.parametrize("case", DEFICIENT, ids=lambda case: case.name)
def test_norm_is_least(case: Case) -> None:
    sol, exact = solution_of(case), exact_of(case)
    unit = np.abs(exact.weight).max() or 1.0
    bound = 1e-9 if "condition" not in case.name else 1e-2
    least = np.linalg.norm(exact.weight / unit)
    assert np.linalg.norm(sol.weight.numpy() / unit) <= least * (1 + bound) + 1e-13


@pytest.mark.parametrize("case", DETERMINED, ids=lambda case: case.name)
def test_condition_numbers(case: Case) -> None:
    """Estimates within a factor of 3 of a dense SVD, where float64 can compute one."""
    problem, sol = problem_of(case), solution_of(case)
    dense = scaled_problem(problem.X, problem.Y, **problem.options)
    scaled, raw = (np.linalg.cond(A) for A in (dense.A, dense.A * (dense.norms / dense.norms.max())))
    if scaled < 1e10:
        assert scaled / 3 <= sol.certificate.scaled_condition <= 3 * scaled
    if raw < 1e10:
        assert raw / 3 <= sol.certificate.condition <= 3 * raw


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


def test_result_as_a_dictionary_is_json() -> None:
    sol = solution_of(BY_NAME["tall with bias"])
    record = json.loads(json.dumps(sol.to_dict()))
    assert {"outcome", "certificate", "plan", "attempts"} <= set(record)
    fields = {"accepted", "backward_error", "forward_error", "condition", "scaled_condition", "rank", "loss"}
    assert fields | {"gradient_norm"} <= set(record["certificate"])
    assert record["certificate"]["loss"] == sol.certificate.loss


def test_result_can_be_read() -> None:
    sol = solution_of(BY_NAME["tall with bias"])
    assert "certified" in str(sol).splitlines()[0]
    assert "certified" in sol._repr_html_()


def test_predict_is_the_layer() -> None:
    problem, sol = problem_of(BY_NAME["tall with bias"]), solution_of(BY_NAME["tall with bias"])
    assert sol.bias is not None
    predicted = to_numpy(sol.predict(problem.X))
    assert_allclose(predicted, problem.X @ sol.weight.numpy().T + sol.bias.numpy(), rtol=1e-12, atol=1e-13)
    left_over = predicted - problem.Y
    assert_allclose(sol.certificate.loss, (left_over**2).mean(), rtol=1e-12)


def test_one_dimensional_and_one_column_targets_are_the_same_fit() -> None:
    problem = problem_of(BY_NAME["kernel"])
    column = cf.solve(problem.X, problem.Y[:, None])
    assert torch.equal(column.weight, solution_of(BY_NAME["kernel"]).weight)


@pytest.mark.parametrize("name", ["tall with bias", "low rank tall with bias", "wide", "float32", "bfloat16"])
def test_fit_puts_the_layer_at_the_solution(name: str) -> None:
    problem, sol = problem_of(BY_NAME[name]), solution_of(BY_NAME[name])
    targets, features = sol.weight.shape
    layer = torch.nn.Linear(features, targets, bias=problem.bias, dtype=sol.weight.dtype)
    parameters = list(layer.parameters())
    fitted = cf.fit_(layer, problem.X, problem.Y)
    assert all(a is b for a, b in zip(parameters, layer.parameters(), strict=True))
    assert all(p.requires_grad and p.grad is None for p in layer.parameters())
    assert torch.equal(layer.weight, sol.weight)
    assert torch.equal(layer.weight, fitted.weight)
    if problem.bias:
        assert sol.bias is not None
        assert torch.equal(layer.bias, sol.bias)


def test_fit_rounds_a_float64_answer_to_a_float32_layer() -> None:
    problem = problem_of(BY_NAME["tall condition 1e+03 large residual"])
    layer = torch.nn.Linear(16, 2, bias=False)
    cf.fit_(layer, problem.X, problem.Y)
    assert layer.weight.dtype is torch.float32
    exact = exact_of(BY_NAME["tall condition 1e+03 large residual"]).weight
    assert_allclose(layer.weight.detach().numpy(), exact, rtol=2.0**-23, atol=1e-10 * np.abs(exact).max())


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("name", ["low rank tall", "wide, inconsistent duplicate rows", "one row"])
def test_nearest_to_is_where_gradient_descent_ends(name: str, bias: bool) -> None:
    problem = problem_of(BY_NAME[name])
    x, y = as_tables(problem.X, problem.Y)
    torch.manual_seed(7)
    layer = torch.nn.Linear(x.shape[1], y.shape[1], bias=bias, dtype=torch.float64)
    start = (layer.weight, layer.bias if bias else None)
    exact = minimise(x, y, bias=bias, start=start)
    sol = cf.solve(x, y, bias=bias, nearest_to=layer)
    assert sol.certificate.accepted
    assert sol.certificate.backward_error <= 1e-14
    assert_allclose(sol.weight.numpy(), exact.weight, rtol=1e-10, atol=1e-11)
    if bias:
        assert exact.bias is not None
        assert_allclose(to_numpy(sol.bias), exact.bias, rtol=1e-10, atol=1e-11)


def test_nearest_to_changes_nothing_where_the_minimiser_is_unique() -> None:
    problem, exact = problem_of(BY_NAME["3 targets"]), exact_of(BY_NAME["3 targets"])
    sol = cf.solve(problem.X, problem.Y, nearest_to=torch.nn.Linear(8, 3, bias=False, dtype=torch.float64))
    assert_allclose(sol.weight.numpy(), exact.weight, rtol=1e-12, atol=1e-13)


def test_rcond_decides_the_rank() -> None:
    rng = np.random.default_rng(3)
    X = geometric(rng, 40, 8, 1e7)
    Y = X @ rng.standard_normal((8, 2))
    norms = np.linalg.norm(X, axis=0)
    s = np.linalg.svd(X / norms, compute_uv=False)
    sol = cf.solve(X, Y, rcond=math.sqrt(s[4] * s[5]) / s[0])
    assert sol.certificate.rank == 5
    assert not sol.outcome.value.startswith("certified:")  # not the unique minimiser of the data as given
    assert cf.solve(X, Y).certificate.rank == 8


def test_integer_input_is_cast_and_that_is_said() -> None:
    assert "int64" in json.dumps(solution_of(BY_NAME["integers"]).to_dict())


@pytest.mark.parametrize("case", DETERMINED, ids=lambda case: case.name)
def test_the_forward_error_bounds_the_error(case: Case) -> None:
    """The estimate must not promise digits that are not there."""
    sol, exact = solution_of(case), exact_of(case)
    true, found = exact.weight, sol.weight.numpy()
    if exact.bias is not None:
        true, found = np.column_stack([true, exact.bias]), np.column_stack([found, to_numpy(sol.bias)])
    unit = np.abs(true).max() or 1.0
    error = np.linalg.norm((found - true) / unit)
    assert error <= (10 * sol.certificate.forward_error + 4 * EPS) * np.linalg.norm(true / unit)


@pytest.mark.parametrize("method", METHOD_NAMES)
@ALL
def test_no_method_is_accepted_with_a_wrong_answer(case: Case, method: str) -> None:
    """Used alone, a method may refuse, break down or be refused by the certificate; no more than that."""
    problem, exact = problem_of(case), exact_of(case)
    try:
        sol = cf.solve(problem.X, problem.Y, method=method, **problem.options)
    except InputError:
        return
    assert [attempt.method for attempt in sol.attempts][-1] == method
    if not sol.certificate.accepted:
        assert sol.outcome is cf.Outcome.NOT_CERTIFIED
        return
    limit = 1e-14 if sol.weight.dtype is torch.float64 else 4 * unit_roundoff(sol)
    for part, weight, bias in per_strength(problem, sol.weight, sol.bias):
        assert backward_error_each(part, weight, bias).max() <= limit
    if sol.outcome is not cf.Outcome.AMBIGUOUS_RANK and "ambiguous" not in case.tags:
        assert sol.certificate.rank == exact.rank
        assert_weights(case, sol)


# More rows than one block holds.


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    # The package exports a function of the same name, which a dotted name would find instead of the module.
    for name in ("BLOCK_BYTES", "PASS_BYTES"):
        monkeypatch.setattr(importlib.import_module("closedform.rows.norms"), name, 1)
    rows = as_rows(np.zeros((300, 5)), np.zeros(300))
    assert rows_per_block(rows) < 100, "these tests are about several blocks"


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("l2", [0.0, 100.0])
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("rank", [5, 3])
def test_rows_read_by_blocks_give_the_same_minimiser(rank: int, bias: bool, weighted: bool, l2: float) -> None:
    rng = np.random.default_rng(11)
    X = rng.integers(-9, 10, (300, rank)) @ rng.integers(-9, 10, (rank, 5)) + 1000.0 * bias
    Y = rng.standard_normal((300, 2))
    weight = rng.integers(0, 3, 300) if weighted else None
    options = {"bias": bias, "l2": l2, "sample_weight": weight}
    exact = minimise(X, Y, **options)
    for method in ("auto", *METHOD_NAMES):
        try:
            sol = cf.solve(X, Y, method=method, **options)
        except InputError:
            assert method != "auto"
            continue
        assert sol.certificate.accepted or method != "auto"
        if sol.certificate.accepted:
            assert sol.certificate.rank == exact.rank
            slack = max(1e-11, sol.certificate.forward_error) * np.abs(exact.weight).max()
            assert_allclose(sol.weight.numpy(), exact.weight, rtol=1e-9, atol=slack)
            assert_allclose(sol.certificate.loss, exact.loss, rtol=1e-12)


@pytest.mark.usefixtures("small_blocks")
def test_a_bad_number_in_a_late_block_is_found_in_its_row() -> None:
    X, Y = np.ones((300, 5)), np.ones(300)
    X[287, 3] = np.nan
    with pytest.raises(NonFiniteError, match=r"column 3.*row 287"):
        cf.solve(X, Y)
    weight = np.ones(300)
    weight[291] = -1.0
    with pytest.raises(InputError, match=r"row 291"):
        cf.solve(np.ones((300, 5)), Y, sample_weight=weight)


def test_a_read_only_memory_map_is_read_in_place(tmp_path: Path) -> None:
    problem, sol = problem_of(BY_NAME["tall with bias"]), solution_of(BY_NAME["tall with bias"])
    np.save(tmp_path / "X.npy", problem.X)
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert torch.equal(cf.solve(X, problem.Y, bias=True).weight, sol.weight)


@pytest.mark.usefixtures("small_blocks")
def test_progress_is_told() -> None:
    told: list[tuple[str, float]] = []
    rng = np.random.default_rng(0)
    cf.solve(rng.standard_normal((300, 5)), rng.standard_normal(300), progress=lambda *args: told.append(args))
    assert {label for label, _ in told} >= {"certifying"}
    assert all(0 <= part <= 1 for _, part in told)
    assert any(0 < part < 1 for _, part in told)


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


def test_gap_of_the_solution_is_nothing() -> None:
    problem, sol = problem_of(BY_NAME["tall with bias"]), solution_of(BY_NAME["tall with bias"])
    layer = torch.nn.Linear(6, 3, dtype=torch.float64)
    cf.fit_(layer, problem.X, problem.Y)
    gap = cf.gap(layer, problem.X, problem.Y)
    assert_allclose(gap.loss, sol.certificate.loss, rtol=1e-12)
    assert 0 <= gap.excess_loss <= 1e-25
    assert gap.weight_distance <= 1e-13


def test_gap_of_a_moved_layer_is_what_it_was_moved_by() -> None:
    problem, sol = problem_of(BY_NAME["tall with bias"]), solution_of(BY_NAME["tall with bias"])
    layer = torch.nn.Linear(6, 3, dtype=torch.float64)
    cf.fit_(layer, problem.X, problem.Y)
    move = 1e-6 * torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        layer.weight += move
    gap = cf.gap(layer, problem.X, problem.Y)
    assert_allclose(gap.optimal_loss, sol.certificate.loss, rtol=1e-12)
    excess = ((problem.X @ move.numpy().T) ** 2).mean()
    assert_allclose(gap.excess_loss, excess, rtol=1e-6)  # a difference of losses would keep only four digits
    assert gap.weight_distance > 0


# The oracle itself, against mpmath and against brute force.


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


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e6, 1e9, 1e11])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("n", [30, 120])
@pytest.mark.parametrize("whiten", [False, True], ids=["conjugate gradients", "whitened"])
def test_a_sketch_serves_at_any_condition_and_the_certificate_measures_it(
    condition: float, bias: bool, n: int, whiten: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sketched, "_cheapest", lambda facts: (sketched._cost(facts, 12, whiten), 12, whiten))
    rng = np.random.default_rng(5)
    U, _ = np.linalg.qr(rng.standard_normal((3000, n)))
    V, _ = np.linalg.qr(rng.standard_normal((n, n)))
    X = U * np.geomspace(1, 1 / condition, n) @ V.T
    Y = X @ rng.standard_normal((n, 2)) + 0.1 * rng.standard_normal((3000, 2))
    sol = cf.solve(X, Y, bias=bias, method="sketched")
    assert sol.outcome is cf.Outcome.CERTIFIED
    assert (sol.attempts[-1].passes <= 3) == whiten
    # Steps that gain what is left to gain, and no more.
    assert sol.attempts[-1].passes <= 30
    A = np.column_stack([np.ones(3000), X]) if bias else X
    assert_allclose(sol.certificate.condition, np.linalg.cond(A), rtol=0.15)
    # The weights are up to 1e10: what NumPy can say about the loss is about as much.
    assert_allclose(
        sol.certificate.loss, ((A @ np.linalg.lstsq(A, Y, rcond=0)[0] - Y) ** 2).mean(), rtol=1e-12 + 1e-19 * condition
    )


@pytest.mark.parametrize("ratio", [3, 12])
def test_a_sketch_is_certified_without_its_singular_values(ratio: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketched, "_cheapest", lambda facts: (sketched._cost(facts, ratio, False), ratio, False))
    monkeypatch.setattr(TriangularRoot, "spectrum", lambda self: pytest.fail("decomposed"))
    rng = np.random.default_rng(6)
    X = rng.standard_normal((3000, 120)) * np.geomspace(1, 1e-5, 120) @ np.linalg.qr(rng.standard_normal((120, 120)))[0]
    # A residual so short that the gradient alone bounds nothing.
    sol = cf.solve(X, X @ rng.standard_normal(120) + 1e-12 * rng.standard_normal(3000), method="sketched")
    assert sol.certificate.accepted


@pytest.mark.parametrize("condition", [1e1, 1e5])
def test_a_table_that_repeats_itself_does_not_fool_a_sample(condition: float) -> None:
    rng = np.random.default_rng(12)
    V = np.linalg.qr(rng.standard_normal((20, 20)))[0]
    X = rng.standard_normal((1600, 20)) * np.geomspace(1, 1 / condition, 20) @ V
    # Any fixed stride below 3200 rows that divides 1600 sees the same rows again.
    X, Y = np.vstack([X] * 8), rng.standard_normal(8 * 1600)
    sol = cf.solve(X, Y)
    assert sol.attempts[-1].method.startswith("gram")
    assert sol.outcome is cf.Outcome.CERTIFIED


@pytest.mark.parametrize("weighted", [False, True])
def test_whitened_rows_with_ridge_and_weights(weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketched, "_cheapest", lambda facts: (sketched._cost(facts, 3, True), 3, True))
    rng = np.random.default_rng(10)
    X = rng.standard_normal((900, 5)) @ np.diag(np.geomspace(1, 1e-5, 5)) @ rng.standard_normal((5, 5))
    Y = rng.standard_normal((900, 1))
    options: dict[str, Any] = {"l2": 1e-9, "bias": True}
    if weighted:
        options["sample_weight"] = rng.uniform(0, 2, 900)
    sol = cf.solve(X, Y, method="sketched", **options)
    assert sol.outcome is cf.Outcome.CERTIFIED
    assert sol.attempts[-1].passes <= 3
    # Noise on the targets: the square of the condition number stands before eps.
    exact = [float(row[0]) for row in minimiser(X, Y, **options).weights[1:]]
    assert_allclose(sol.weight.numpy()[0], exact, rtol=1e-5)


def test_where_whitening_is_spoilt_conjugate_gradients_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketched, "_cheapest", lambda facts: (sketched._cost(facts, 3, True), 3, True))
    monkeypatch.setattr(sketched, "cholesky", lambda gram: (gram, 1))
    rng = np.random.default_rng(11)
    sol = cf.solve(rng.standard_normal((900, 5)), rng.standard_normal(900), method="sketched")
    assert sol.outcome is cf.Outcome.CERTIFIED
    assert sol.attempts[-1].passes > 3


def test_a_wide_system_is_solved_without_a_copy_of_its_rows() -> None:
    rng = np.random.default_rng(6)
    X, Y = rng.standard_normal((40, 900)), rng.standard_normal((40, 2))
    sol = cf.solve(X, Y, bias=True)
    assert sol.attempts[-1].method == "dual gram32"
    centred = X - X.mean(0)
    assert_allclose(sol.weight.numpy(), (np.linalg.pinv(centred) @ (Y - Y.mean(0))).T, rtol=1e-11, atol=1e-13)
    near = torch.nn.Linear(900, 2, dtype=torch.float64)
    close = cf.solve(X, Y, bias=True, nearest_to=near)
    A = np.column_stack([np.ones(40), X])
    Z = np.vstack([near.bias.detach().numpy(), near.weight.detach().numpy().T])
    Z = Z + np.linalg.pinv(A) @ (Y - A @ Z)
    assert_allclose(close.weight.numpy(), Z[1:].T, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("near", [False, True], ids=["least norm", "nearest"])
def test_a_sketch_finds_the_rank_and_the_least_norm(bias: bool, near: bool) -> None:
    rng = np.random.default_rng(8)
    n, r = 40, 25
    X = rng.standard_normal((2000, r)) @ np.diag(np.geomspace(1, 1e-4, r)) @ rng.standard_normal((r, n))
    X = X * np.ldexp(1.0, rng.integers(-6, 6, n))
    Y = rng.standard_normal((2000, 2))
    layer = torch.nn.Linear(n, 2, bias=bias, dtype=torch.float64)
    sol = cf.solve(X, Y, bias=bias, method="sketched", nearest_to=layer if near else None)
    assert sol.outcome is cf.Outcome.CERTIFIED_NOT_UNIQUE
    assert sol.certificate.rank == r + bias
    assert sol.certificate.columns == n + bias
    oracle = cf.solve(X, Y, bias=bias, method="svd", nearest_to=layer if near else None)
    assert_allclose(sol.weight.numpy(), oracle.weight.numpy(), atol=1e-10 * oracle.weight.abs().max().item())
    assert_allclose(sol.certificate.condition, oracle.certificate.condition, rtol=0.1)
    if not near:
        centred = X - X.mean(0) if bias else X
        pinv = (np.linalg.pinv(centred, rcond=1e-11) @ (Y - Y.mean(0) * bias)).T
        assert_allclose(sol.weight.numpy(), pinv, atol=1e-9 * np.abs(pinv).max())


def test_small_weights_under_a_strong_ridge_have_all_their_digits() -> None:
    # The ridge dwarfs the rows: normwise, a start in single precision passes; the weights would have seven digits.
    rng = np.random.default_rng(9)
    X, Y = rng.standard_normal((300, 4)) * 1e-9, rng.standard_normal(300)
    sol = cf.solve(X, Y, l2=3.0)
    assert_allclose(sol.weight.numpy()[0], np.linalg.solve(X.T @ X + 3.0 * np.eye(4), X.T @ Y), rtol=1e-13)
