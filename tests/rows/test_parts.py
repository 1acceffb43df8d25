"""The whole solver on rows that are cut into parts: the same answers as in one piece, for the table of cases."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

import closedform as cf
from cases import Case
from closedform.fit.orchestrator import solve_rows
from closedform.fit.plan import METHOD_NAMES
from closedform.fit.request import Request
from closedform.rows import as_rows
from closedform.words.errors import MethodRefusedError
from solved import EVERY_CASE, assert_weights, exact_of, problem_of, solution_of
from walkers import Parts


def solve_in_parts(case: Case, count: int, method: str = "auto", digits: int | None = None) -> cf.Solution:
    problem = problem_of(case)
    rows = replace(as_rows(problem.X, problem.Y, problem.sample_weight), walker=Parts(count))
    request = Request.checked(rows, bias=problem.bias, l2=problem.l2, method=method, digits=digits)
    return solve_rows(rows, request)


@cache
def solution_in_parts(case: Case, count: int) -> cf.Solution:
    return solve_in_parts(case, count)


@EVERY_CASE
@pytest.mark.parametrize("count", [2, 8])
def test_the_cases_are_solved_in_parts(case: Case, count: int) -> None:
    sol = solution_in_parts(case, count)
    assert sol.certificate.accepted == solution_of(case).certificate.accepted
    if not {"ambiguous", "in doubt"} & case.tags:
        assert sol.certificate.rank == exact_of(case).rank
        assert_weights(case, sol)


@EVERY_CASE
def test_the_same_parts_give_the_same_bits(case: Case) -> None:
    first, second = solution_in_parts(case, 8), solve_in_parts(case, 8)
    assert torch.equal(first.weight, second.weight)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_every_method_goes_in_parts(method: str) -> None:
    tried = 0
    generator = torch.Generator().manual_seed(1)
    for shape, deficient in (((300, 8), False), ((300, 8), True), ((40, 40), False), ((12, 60), False)):
        X = torch.randn(*shape, dtype=torch.float64, generator=generator)
        if deficient:
            X[:, 3] = X[:, 1] + X[:, 2]
        Y = torch.randn(shape[0], 2, dtype=torch.float64, generator=generator)
        try:
            whole = cf.solve(X, Y, method=method)
        except (MethodRefusedError, cf.ClosedformError):
            continue
        rows = replace(as_rows(X, Y), walker=Parts(4))
        parts = solve_rows(rows, Request.checked(rows, method=method))
        if cf.Outcome.AMBIGUOUS_RANK in (whole.outcome, parts.outcome):
            continue
        assert parts.certificate.accepted
        torch.testing.assert_close(parts.weight, whole.weight, rtol=1e-10, atol=1e-12)
        tried += 1
    # This processor may not multiply bfloat16 numbers.
    assert tried > 0 or method == "gram16"


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_proven_digits_hold_in_parts(bias: bool, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(700, 5, dtype=torch.float64, generator=generator) * torch.logspace(0, 6, 5, dtype=torch.float64)
    Y = torch.randn(700, 1, dtype=torch.float64, generator=generator)
    weight = torch.rand(700, dtype=torch.float64, generator=generator) if weighted else None
    whole = cf.solve(X, Y, bias=bias, sample_weight=weight, digits=14)
    rows = replace(as_rows(X, Y, weight), walker=Parts(6))
    parts = solve_rows(rows, Request.checked(rows, bias=bias, digits=14))
    assert parts.outcome is cf.Outcome.CERTIFIED
    assert whole.weight_bound is not None
    assert parts.weight_bound is not None
    apart = (parts.weight - whole.weight) + (parts.weight_low - whole.weight_low)
    assert bool((apart.abs() <= parts.weight_bound + whole.weight_bound).all())
