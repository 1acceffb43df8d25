"""LU in single precision: how far it serves, how it knows, and what it says of the matrix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import closedform as cf
from closedform.words.errors import InputError
from data import F64, gaussian


def with_condition(n: int, condition: float, kind: str, seed: int = 0) -> Tensor:
    """A dense matrix whose singular values fall from 1 to 1 / condition."""
    left, right = (torch.linalg.qr(gaussian(n, n, seed=seed + part)).Q for part in (0, 1))
    values = torch.ones(n, dtype=F64)
    if kind == "all the way":
        values = torch.logspace(0, -torch.tensor(condition).log10().item(), n, dtype=F64)
    elif kind == "at the end":
        values[-1] = 1 / condition
    else:
        values[1:] = 1 / condition
    return left * values @ right


def scaled(X: Tensor) -> Tensor:
    """The matrix with columns of lengths in [0.5, 1), by powers of two."""
    return X * torch.exp2(-torch.frexp(torch.linalg.vector_norm(X, dim=0)).exponent.to(F64))


def condition_of(X: Tensor) -> float:
    values = torch.linalg.svdvals(X)
    return float(values[0] / values[-1])


def growing(n: int) -> Tensor:
    """Wilkinson's matrix, in which pivots double with each column, n times; its condition number is about n / 2."""
    matrix = torch.eye(n, dtype=F64) - torch.ones(n, n, dtype=F64).tril(-1)
    matrix[:, -1] = 1
    # The factor is that of the transpose.
    return matrix.T.contiguous()


@pytest.mark.parametrize("condition", [1e0, 1e2, 1e4])
@pytest.mark.parametrize("kind", ["all the way", "at the end", "at once"])
@pytest.mark.parametrize("n", [40, 150])
def test_what_it_says_of_the_matrix_is_right(n: int, kind: str, condition: float) -> None:
    X = with_condition(n, condition, kind)
    W = gaussian(n, 3, seed=5)
    sol = cf.solve(X, X @ W, method="square32")
    found = sol.certificate
    assert found.accepted
    assert found.rank == n
    assert found.backward_error <= 1e-15
    # An estimate from below, of one digit.
    for said, true in ((found.condition, condition_of(X)), (found.scaled_condition, condition_of(scaled(X)))):
        assert 0.75 * true <= said <= 1.01 * true
    assert float((sol.weight.T - W).norm() / W.norm()) <= 1e-14 * condition * n**0.5


@pytest.mark.parametrize("digits", [3, 100, 140])
def test_units_of_columns_do_not_matter(digits: int) -> None:
    n = 120
    X, W = with_condition(n, 1e3, "all the way"), gaussian(n, 1, seed=5)
    units = torch.exp2(3.3 * digits * (2 * torch.rand(n, 1, dtype=F64, generator=torch.Generator().manual_seed(1)) - 1))
    units = torch.exp2(units.log2().round())
    plain, sol = (cf.solve(A, X @ W, method="square32") for A in (X, X * units.T))
    assert sol.certificate.accepted
    assert torch.equal(sol.weight * units.T, plain.weight)
    assert sol.certificate.scaled_condition == plain.certificate.scaled_condition


SINGULAR = {
    "two columns alike": lambda X: torch.cat([X[:, :-1], X[:, :1]], 1),
    "a column the sum of the others": lambda X: torch.cat([X[:, :-1], X[:, :-1].sum(1, keepdim=True)], 1),
    "a row the sum of the others": lambda X: torch.cat([X[:-1], X[:-1].sum(0, keepdim=True)]),
    "half the rank": lambda X: X[:, : len(X) // 2] @ X[: len(X) // 2],
    "a column of zeros": lambda X: torch.cat([X[:, :-1], torch.zeros_like(X[:, :1])], 1),
    "integers": lambda X: torch.cat([(X * 2).round()[:, :-1], (X * 2).round()[:, :3].sum(1, keepdim=True)], 1),
    "condition 1e8": lambda X: with_condition(len(X), 1e8, "at the end"),
    "condition 1e12": lambda X: with_condition(len(X), 1e12, "at the end"),
    "rows far apart": lambda X: X * torch.logspace(-60, 60, len(X), dtype=F64).unsqueeze(1),
    "pivots that grow": lambda X: growing(len(X)),
}


@pytest.mark.parametrize("name", SINGULAR)
@pytest.mark.parametrize("n", [50, 150])
def test_what_rounding_hides_is_left_to_others(n: int, name: str) -> None:
    X = SINGULAR[name](gaussian(n, n))
    with pytest.raises(InputError, match=r"square32: (rounding of LU|condition number|LU in single precision met)"):
        cf.solve(X, X @ gaussian(n, 1, seed=2), method="square32")


@pytest.mark.parametrize("condition", [1e3, 1e9])
def test_a_large_matrix_is_tried_in_single_precision_first(condition: float) -> None:
    n = 1000
    X, W = with_condition(n, condition, "at the end"), gaussian(n, 1, seed=4)
    sol = cf.solve(X, X @ W)
    names = [attempt.method for attempt in sol.attempts]
    assert names == (["square32"] if condition < 1e5 else ["square32", "square"])
    assert sol.certificate.accepted
    assert sol.certificate.scaled_condition == pytest.approx(condition_of(scaled(X)), rel=0.1)
    assert float((sol.weight.T - W).norm() / W.norm()) <= 1e-14 * condition


def test_a_kernel_matrix_is_left_to_cholesky_at_once() -> None:
    X = gaussian(700, 700)
    sol = cf.solve(X @ X.T, X[:, 0])
    first, second = sol.attempts
    assert (first.method, second.method) == ("square32", "square")
    assert first.reason == "the matrix is symmetric: Cholesky in double precision costs as little"


def test_small_matrices_are_factored_in_double_precision() -> None:
    sol = cf.solve(gaussian(300, 300), gaussian(300, 1, seed=1))
    assert [attempt.method for attempt in sol.attempts] == ["square"]


def test_numbers_of_single_precision_are_solved_as_they_are() -> None:
    X, W = gaussian(120, 120).float(), gaussian(120, 2, seed=3)
    sol = cf.solve(X, X.double() @ W, method="square32")
    assert sol.certificate.accepted
    assert float((sol.weight.T.double() - W).abs().max() / W.abs().max()) <= torch.finfo(torch.float32).eps
