"""Dependent columns by the projected Gram matrix: the rank and the weights of least norm, and when it steps back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import closedform as cf
from closedform.words.errors import InputError
from data import gaussian

METHOD = "projected gram64"


def deficient(rows: int, columns: int, rank: int, seed: int = 0) -> torch.Tensor:
    return gaussian(rows, rank, seed=seed) @ gaussian(rank, columns, seed=seed + 1)


def by_lapack(A: torch.Tensor, Y: torch.Tensor) -> np.ndarray:
    return np.linalg.lstsq(A.numpy(), Y.numpy(), rcond=1e-10)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(("rows", "columns", "rank"), [(4000, 40, 20), (2000, 7, 6), (3000, 120, 1), (5000, 300, 170)])
def test_weights_of_least_norm(dtype: torch.dtype, rows: int, columns: int, rank: int) -> None:
    # Small integers, so that the rank survives rounding to either dtype.
    X = gaussian(rows, rank).mul(2).round() @ gaussian(rank, columns, seed=1).mul(2).round()
    Y = gaussian(rows, 3, seed=2)
    solution = cf.solve(X.to(dtype), Y, method=METHOD)
    assert solution.certificate.accepted
    assert solution.certificate.rank == rank
    assert not solution.certificate.ambiguous_rank
    eps = torch.finfo(dtype).eps
    np.testing.assert_allclose(solution.weight.T.double().numpy(), by_lapack(X, Y), atol=1e3 * eps, rtol=1e3 * eps)


# With more columns those chosen are worse conditioned than the rows, so that the rows correct the null vectors.
@pytest.mark.parametrize(("rows", "columns", "rank"), [(4000, 40, 20), (2400, 300, 299), (2400, 300, 150)])
def test_it_is_what_a_tall_table_with_dependent_columns_gets(rows: int, columns: int, rank: int) -> None:
    X, Y = deficient(rows, columns, rank), gaussian(rows, 1, seed=2)
    assert cf.solve(X, Y).attempts[-1].method == METHOD


def test_columns_in_units_of_their_own() -> None:
    units = torch.logspace(-6, 6, 30, dtype=torch.float64)
    X, Y = deficient(3000, 30, 12) * units, gaussian(3000, 1, seed=2)
    solution = cf.solve(X, Y, method=METHOD)
    other = cf.solve(X, Y, method="svd")
    assert solution.certificate.accepted
    assert solution.certificate.rank == other.certificate.rank == 12
    np.testing.assert_allclose(solution.weight.numpy(), other.weight.numpy(), rtol=1e-6, atol=0)
    assert solution.certificate.condition == pytest.approx(other.certificate.condition, rel=0.1)
    assert solution.certificate.scaled_condition == pytest.approx(other.certificate.scaled_condition, rel=0.1)


@pytest.mark.parametrize("condition", [30.0, 1e3, 2e4])
def test_the_least_norm_is_as_good_as_the_condition_number_allows(condition: float) -> None:
    # Integers, graded by powers of two, so that the row space is exactly that of C.
    grades = torch.logspace(0, -np.log2(condition), 12, base=2, dtype=torch.float64).log2().round().exp2()
    B, C = gaussian(3000, 12).mul(2).round(), gaussian(12, 30, seed=1).mul(2).round() * grades.unsqueeze(1)
    X, Y = B @ C, gaussian(3000, 1, seed=2)
    solution = cf.solve(X, Y, method=METHOD)
    assert solution.certificate.rank == 12
    outside = solution.weight - solution.weight @ torch.linalg.pinv(C) @ C
    assert float(outside.norm() / solution.weight.norm()) < 1e-14 * condition


def test_units_at_the_end_of_the_range() -> None:
    X = deficient(4000, 300, 170) * 1e-170 * torch.logspace(0, 3, 300, dtype=torch.float64)
    Y = gaussian(4000, 1, seed=2)
    solution, other = cf.solve(X, Y, method=METHOD), cf.solve(X * 1e170, Y, method="svd")
    assert solution.certificate.rank == 170
    assert solution.certificate.condition == pytest.approx(other.certificate.condition, rel=0.1)


def test_a_full_set_of_indicators_beside_a_bias_with_weights() -> None:
    level = torch.randint(0, 12, (2000,), generator=torch.Generator().manual_seed(3))
    X = torch.cat([torch.nn.functional.one_hot(level, 12).double(), gaussian(2000, 3, seed=4)], 1)
    Y, weight = gaussian(2000, 2, seed=5), gaussian(2000, seed=6).abs()
    solution = cf.solve(X, Y, bias=True, sample_weight=weight, method=METHOD)
    other = cf.solve(X, Y, bias=True, sample_weight=weight, method="svd")
    assert solution.certificate.accepted
    assert solution.certificate.rank == 15
    # The bias and the twelve indicators, which stand in one dependence.
    assert set(solution.certificate.undetermined_columns) == set(range(-1, 12))
    assert set(other.certificate.undetermined_columns) == set(range(-1, 12))
    assert solution.bias is not None
    assert other.bias is not None
    np.testing.assert_allclose(solution.weight.numpy(), other.weight.numpy(), atol=1e-12)
    np.testing.assert_allclose(solution.bias.numpy(), other.bias.numpy(), atol=1e-12)


def test_nearest_to_a_layer() -> None:
    X, Y = deficient(2000, 16, 9), gaussian(2000, 1, seed=2)
    layer = torch.nn.Linear(16, 1, bias=False, dtype=torch.float64)
    solution = cf.solve(X, Y, nearest_to=layer, method=METHOD)
    change = by_lapack(X, Y - layer(X).detach())
    np.testing.assert_allclose(solution.weight.T.numpy(), layer.weight.detach().T.numpy() + change, atol=1e-11)


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        ("full rank", "do not plainly depend"),
        ("a geometric spectrum", "no plain gap"),
        ("a small direction", "leave the row space"),
        ("one row apart", "leave the row space"),
        ("zero", "do not plainly depend"),
    ],
)
def test_it_steps_back(why: str, reason: str) -> None:
    X = deficient(4000, 40, 20)
    if why == "full rank":
        X = gaussian(4000, 40)
    elif why == "a geometric spectrum":
        X = gaussian(4000, 40) * torch.logspace(0, -8, 40, dtype=torch.float64) @ gaussian(40, 40, seed=1)
    elif why == "a small direction":
        X = X + 1e-8 * gaussian(4000, 1, seed=7) @ gaussian(1, 40, seed=8)
    elif why == "one row apart":
        X[1777] = gaussian(40, seed=9)
    else:
        X = torch.zeros_like(X)
    with pytest.raises(InputError, match=reason):
        cf.solve(X, gaussian(4000, 1, seed=2), method=METHOD)
    solution = cf.solve(X, gaussian(4000, 1, seed=2))
    assert solution.attempts[-1].method != METHOD
    assert solution.certificate.rank == {"a small direction": 21, "one row apart": 21, "zero": 0}.get(why, 40)
