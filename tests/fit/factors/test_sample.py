"""The sample of rows that tells whether a Gram matrix will do: when it counts, and when it proves nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import closedform as cf
from closedform.engine.rates import DEFAULT
from data import gaussian


def test_condition_numbers_beyond_it_are_seen_in_the_sample() -> None:
    # More columns than are summed up while they are scanned.
    X = gaussian(20000, 150) * torch.logspace(0, -3, 150, dtype=torch.float64) @ gaussian(150, 150, seed=1)
    *earlier, last = cf.solve(X, gaussian(20000, 1, seed=2)).attempts
    assert [attempt.method for attempt in earlier][-1] == "gram32"
    assert all("in a sample of the rows" in attempt.reason for attempt in earlier)
    assert last.method == "gram64"


@pytest.mark.parametrize(("dependent", "last"), [(True, "projected gram64"), (False, "sketched")])
def test_columns_that_plainly_depend_in_the_sample_leave_the_rank_to_a_pivoted_factor(
    dependent: bool, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Reads that cost nothing, with which the many passes of a sketch would come first.
    rates = replace(DEFAULT, memory=1e15)
    monkeypatch.setattr("closedform.fit.planning.known_rates", lambda device: rates)
    if dependent:
        X = gaussian(8000, 50) @ gaussian(50, 100, seed=1)
    else:
        X = gaussian(8000, 100) * torch.logspace(0, -7, 100, dtype=torch.float64) @ gaussian(100, 100, seed=1)
    solution = cf.solve(X, gaussian(8000, 1, seed=2))
    names = [method.name for method in solution.plan.ladder]
    assert names.index("sketched") < names.index("projected gram64")
    assert solution.attempts[-1].method == last
    assert solution.certificate.accepted
    assert solution.certificate.rank == (50 if dependent else 100)


@pytest.mark.parametrize("kept", [0.3, 0.55])
def test_rows_of_weight_zero_do_not_make_a_sample_singular(kept: float) -> None:
    X, Y = gaussian(40000, 60), gaussian(40000, 1, seed=1)
    weight = (torch.rand(40000, generator=torch.Generator().manual_seed(2)) < kept).double()
    (attempt,) = cf.solve(X, Y, sample_weight=weight).attempts
    assert attempt.certificate is not None


def test_a_column_that_is_empty_in_the_sample_proves_nothing() -> None:
    X, Y = gaussian(8000, 60), gaussian(8000, 1, seed=1)
    X[:, :40] = 0.0
    X[torch.arange(40) * 200, torch.arange(40)] = 1.0
    (attempt,) = cf.solve(X, Y).attempts
    assert attempt.certificate is not None


@pytest.mark.parametrize("rows", [2000, 8000])
def test_the_rows_of_the_sample_count_once(rows: int) -> None:
    # With ridge and weights: whatever the sample added twice, or left out, would stay in the preconditioner.
    X, Y, weight = gaussian(rows, 100) + 3.0, gaussian(rows, 2, seed=1), gaussian(rows, seed=2).abs()
    solution = cf.solve(X, Y, bias=True, l2=50.0, sample_weight=weight, method="gram64")
    assert solution.certificate.accepted
    assert solution.certificate.factor_error < 1e-10


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
