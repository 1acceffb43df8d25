"""The cases of the table, solved once: problem, solution and exact minimiser, and how these two are compared."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import closedform as cf
from cases import CASES, Case, Problem
from oracle import (
    Minimiser,
    as_tables,
    forward_bound,
    minimise,
    residual,
    scaled_problem,
)

EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
DEFICIENT = [case for case in CASES if "deficient" in case.tags and not {"ambiguous", "in doubt"} & case.tags]
DETERMINED = [
    case
    for case in CASES
    if not {"low", "ambiguous", "in doubt", "deficient", "raw", "overflow"} & case.tags
    and "per target" not in case.name
]


@cache
def problem_of(case: Case) -> Problem:
    return case.make()


def solve_case(case: Case, **more: Any) -> cf.Solution:
    """Solve a case as a user does: the one place where the tests of the table do it."""
    problem = problem_of(case)
    return cf.solve(problem.X, problem.Y, **problem.options, **more)


@cache
def solution_of(case: Case) -> cf.Solution:
    return solve_case(case)


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
