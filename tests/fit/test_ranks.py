"""Rank, conditions and digits held against exact arithmetic: what is determined is said to be, what is not is not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import closedform as cf
import exact
from closedform.engine import compiled

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import ranks


@pytest.mark.parametrize("kind", ranks.KINDS)
def test_what_is_claimed_of_random_problems_holds(kind: str) -> None:
    """By ``benchmarks/ranks.py``, which tries 20,000 of each."""
    failures = [claim for each in ranks.problems(kind, 25, seed=1) for claim in ranks.claims_that_fail(each)]
    assert failures == []


@pytest.mark.parametrize("place", [100, 172, 375])
def test_the_error_of_a_ridge_with_a_bias_is_that_of_its_weights(place: int) -> None:
    """Weights that are small beside the offset, so that the error of both together tells little of theirs."""
    (each,) = ranks.problems("ridge", 1, seed=7, first=place)
    assert ranks.claims_that_fail(each) == []


def test_tiny_rows_beside_a_usual_one_are_no_more_exact_than_is_said() -> None:
    """Rounding of many units, of 20,000 wide problems the one that a margin of 8 was too little for."""
    (each,) = ranks.problems("wide", 1, seed=0, first=15121)
    assert ranks.claims_that_fail(each) == []


def test_weights_of_a_constant_target_keep_their_digits() -> None:
    X = np.random.default_rng(0).standard_normal((50, 5)) + 3
    certificate = cf.solve(X, np.full(50, 0.1), bias=True, l2=1.0).certificate
    assert certificate.forward_error <= 1e-13


def test_what_is_determined_is_said_to_be_and_what_is_not_is_not() -> None:
    wrong = [
        f"{name}: {found}"
        for X, determined, name in ranks.matrices(12, seed=2, most_entries=2e4)
        if (found := ranks.rank_that_fails(X, determined))
    ]
    assert wrong == []


@pytest.mark.parametrize("rows", [1000, 100_000])
def test_more_rows_leave_a_slope_as_determined(rows: int) -> None:
    """Ten seconds of epoch time with a bias; differences of such times are exact."""
    rng = np.random.default_rng(0)
    time = 1.6e9 + np.sort(rng.random(rows)) * 10
    y = 3 * (time - 1.6e9) + 5 + 0.5 * rng.standard_normal(rows)
    centred = (time - 1.6e9) - (time - 1.6e9).mean()
    slope = (centred * (y - y.mean())).sum() / (centred**2).sum()
    sol = cf.solve(time[:, None], y, bias=True)
    assert sol.outcome is cf.Outcome.CERTIFIED
    assert sol.certificate.digits >= 6
    assert abs(sol.weight.item() - slope) <= 1e-8 * slope


def test_what_the_residual_can_see_is_not_cut() -> None:
    rng = np.random.default_rng(0)
    a, z = rng.random(100_000) + 1, rng.standard_normal(100_000)
    y = a + 0.1 * rng.standard_normal(100_000)
    sol = cf.solve(np.stack([a, a + 1e-12 * z], 1), y)
    assert sol.outcome is cf.Outcome.CERTIFIED
    # The exact minimiser, by digits=; a relative 2 % is what the condition number of 1e12 leaves of it here, and 20 %
    # with sums that are not compiled. Weights of least norm would be a half each.
    rtol = 0.02 if compiled.available() else 0.4
    np.testing.assert_allclose(sol.weight[0], [-21463839.0, 21463840.0], rtol=rtol)


@pytest.mark.parametrize("rows", [20, 600])
def test_a_proof_decides_where_a_factor_cannot(rows: int) -> None:
    rng = np.random.default_rng(3)
    Q, V = np.linalg.qr(rng.standard_normal((rows, 4)))[0], np.linalg.qr(rng.standard_normal((4, 4)))[0]
    X, y = Q * [1.0, 1.0, 1.0, 1e-15] @ V.T, rng.standard_normal(rows)
    sol, truth = cf.solve(X, y), exact.minimiser(X, y)
    assert sol.outcome is cf.Outcome.CERTIFIED
    assert sol.certificate.forward_bound is not None
    assert sol.certificate.forward_bound <= 1e-6
    np.testing.assert_allclose(sol.weight[0], [float(row[0]) for row in truth.weights], rtol=1e-6)


@pytest.mark.parametrize("small", [1.0, 1e-6, 1e-11])
def test_the_error_of_a_wide_system_with_a_bias_is_that_of_its_weights(small: float) -> None:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((20, 60))
    X[1:] *= small
    y = rng.standard_normal(20) * small + 5
    y[0] += 1
    assert ranks.claims_that_fail({"X": X, "Y": y, "bias": True}) == []


@pytest.mark.parametrize(
    "options", [{}, {"digits": 8}, {"bias": True}, {"sample_weight": 10.0 ** np.linspace(-6, 6, 120)}]
)
def test_conditions_of_large_wide_problems(options: dict[str, object]) -> None:
    """Beyond the size at which the matrix is decomposed."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, 300)) * 10.0 ** np.linspace(0, 4, 120)[:, None]
    certificate = cf.solve(X, rng.standard_normal(120), **options).certificate  # type: ignore[arg-type]
    A = np.column_stack([np.ones(120), X]) if options.get("bias") else X
    if "sample_weight" in options:
        A = A * np.sqrt(np.asarray(options["sample_weight"]))[:, None]
    norms = np.linalg.norm(A, axis=0)
    for claim, matrix in ((certificate.condition, A), (certificate.scaled_condition, A * 2.0 ** -np.frexp(norms)[1])):
        true = np.linalg.cond(matrix)
        assert true / 1.5 <= claim <= 1.5 * true


@pytest.mark.parametrize("unit", [1.0, 1e3, 1e-3])
def test_a_cut_that_is_asked_for_does_not_depend_on_units(unit: float) -> None:
    z = np.random.default_rng(0).standard_normal((200, 2))
    first, second = z[:, 0], 0.9 * z[:, 0] + 0.19**0.5 * z[:, 1]
    sol = cf.solve(np.stack([first, second * unit], 1), first + second, rcond=0.3)
    assert sol.outcome is cf.Outcome.TRUNCATED
    assert sol.r_squared[0] > 0.998


def test_what_leaves_the_range_is_refused_or_said() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20, 3))
    with pytest.raises(cf.ClosedformError, match="multiply the weights"):
        cf.solve(X, X @ [1.0, 2.0, 3.0] * 1e-200, sample_weight=np.full(20, 1e-300))
    sol = cf.solve(X, rng.standard_normal((20, 3)) * 1e200, l2=[1.0, 2.0, 3.0])
    assert sol.outcome is cf.Outcome.CERTIFIED
    assert np.isfinite(sol.certificate.residual_norm)
