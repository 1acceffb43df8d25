"""What the certificate claims (backward error, rank, condition, error) against dense and exact arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

import closedform as cf
from cases import Case, geometric
from data import gaussian
from oracle import (
    EPS,
    as_tables,
    backward_error_each,
    backward_error_joint,
    scaled_problem,
    to_numpy,
)
from placement import place
from solved import (
    DETERMINED,
    EVERY_CASE,
    exact_of,
    per_strength,
    problem_of,
    solution_of,
    unit_roundoff,
)

pytestmark = pytest.mark.device


@EVERY_CASE
def test_minimises_by_a_dense_backward_error(case: Case) -> None:
    sol = solution_of(case)
    # Weights rounded to a narrow dtype are as good as that dtype; the float64 answer before is judged below.
    limit = 1e-14 if sol.weight.dtype is torch.float64 else 4 * unit_roundoff(sol)
    for problem, weight, bias in per_strength(problem_of(case), sol.weight, sol.bias):
        assert backward_error_joint(problem, weight, bias) <= limit
        assert backward_error_each(problem, weight, bias).max() <= limit


@EVERY_CASE
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


@pytest.mark.parametrize("case", DETERMINED, ids=lambda case: case.name)
def test_the_forward_error_bounds_the_error(case: Case) -> None:
    """The estimate must not promise digits that are not there."""
    sol, exact = solution_of(case), exact_of(case)
    true, found = exact.weight, to_numpy(sol.weight)
    if exact.bias is not None:
        true, found = np.column_stack([true, exact.bias]), np.column_stack([found, to_numpy(sol.bias)])
    unit = np.abs(true).max() or 1.0
    error = np.linalg.norm((found - true) / unit)
    assert error <= (10 * sol.certificate.forward_error + 4 * EPS) * np.linalg.norm(true / unit)


def test_rcond_decides_the_rank() -> None:
    rng = np.random.default_rng(3)
    X = geometric(rng, 40, 8, 1e7)
    Y = X @ rng.standard_normal((8, 2))
    norms = np.linalg.norm(X, axis=0)
    s = np.linalg.svd(X / norms, compute_uv=False)
    sol = cf.solve(place(X), place(Y), rcond=math.sqrt(s[4] * s[5]) / s[0])
    assert sol.certificate.rank == 5
    assert not sol.outcome.value.startswith("certified:")  # not the unique minimiser of the data as given
    assert cf.solve(place(X), place(Y)).certificate.rank == 8


#: What a broken decomposition might return for ``U diag(s) V``.
LIES: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, ...]]] = {
    "values in another order": lambda U, s, V: (U, s.flip(0), V),
    "columns of V in another order": lambda U, s, V: (U, s, V.roll(1, 1)),
    "V not orthogonal": lambda U, s, V: (U, s, torch.linspace(0.1, 3, len(V), dtype=V.dtype).unsqueeze(1) * V),
    "V to three digits": lambda U, s, V: (U, s, V + 1e-3 * gaussian(*V.shape, seed=9)),
    "U in another order": lambda U, s, V: (U.roll(1, 1), s, V),
}


@pytest.mark.parametrize("method", ["svd", "svd at precision"])
@pytest.mark.parametrize("lie", LIES)
def test_a_factor_that_lies_is_repaired_or_refused(lie: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate takes nothing from the factor on trust: wrong weights are said not to be certified."""
    X, Y = gaussian(40, 6) * torch.logspace(0, -2, 6, dtype=torch.float64), gaussian(40, 2, seed=1)
    exact = torch.linalg.lstsq(X, Y).solution.T
    svd = torch.linalg.svd
    with monkeypatch.context() as patched:
        patched.setattr(torch.linalg, "svd", lambda *args, **options: LIES[lie](*svd(*args, **options)))
        sol = cf.solve(X, Y, method=method)
    right = bool(((sol.weight - exact).abs() <= 1e-12 * exact.abs().max()).all())
    assert sol.outcome is (cf.Outcome.CERTIFIED if right else cf.Outcome.NOT_CERTIFIED)
    assert sol.certificate.accepted == right
    # Refinement repairs what is only turned, and cannot repair a normal matrix of other directions.
    assert right == (lie == "U in another order")
    if not right:
        assert sol.certificate.backward_error > 1e-10
        assert "not certified" in str(sol)
