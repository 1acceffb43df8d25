"""The largest and smallest singular values, decomposed where small and approached by Lanczos where large."""

from __future__ import annotations

import math

import pytest
import torch

import closedform as cf
from closedform.numerics.extremes import Extremes, dominant_pair, extreme_singular_values
from closedform.numerics.root import TriangularRoot
from data import F64, gaussian


def triangle(columns: int, condition: float) -> torch.Tensor:
    left, right = (torch.linalg.qr(gaussian(columns, columns, seed=seed)).Q for seed in (0, 1))
    values = torch.logspace(0, -math.log10(condition), columns, dtype=F64)
    return torch.linalg.qr(left * values @ right).R


@pytest.mark.parametrize("condition", [1e1, 1e5, 1e9])
@pytest.mark.parametrize("columns", [5, 96, 150])
@pytest.mark.parametrize("scaled", [False, True], ids=["as it is", "scaled"])
def test_they_are_those_of_a_decomposition(columns: int, condition: float, scaled: bool) -> None:
    R = triangle(columns, condition)
    scale = torch.ldexp(torch.ones(columns, dtype=F64), torch.arange(columns) % 7 - 3) if scaled else None
    found = extreme_singular_values(TriangularRoot(R), scale)
    values = torch.linalg.svdvals(R if scale is None else R / scale)
    # An estimate lies between: the largest from below, the smallest from above.
    assert 0.9 * float(values[0]) <= found.largest <= float(values[0]) * (1 + 1e-12)
    assert float(values[-1]) * (1 - 1e-12 * condition) <= found.smallest <= 1.1 * float(values[-1])


@pytest.mark.parametrize("columns", [5, 150])
def test_the_vectors_are_where_they_were_found(columns: int) -> None:
    R = triangle(columns, 1e6)
    found = extreme_singular_values(TriangularRoot(R))
    for value, vector in ((found.largest, found.dominant), (found.smallest, found.recessive)):
        assert vector is not None
        stretched = float((R @ vector).norm() / vector.norm())
        assert stretched == pytest.approx(value, rel=0.1)


def test_the_condition_number_of_nothing_is_one_and_of_a_singular_matrix_infinite() -> None:
    assert Extremes(0.0, 0.0).condition == 1.0
    assert Extremes(2.0, 0.0).condition == math.inf
    assert Extremes(2.0, 0.5).condition == 4.0


def test_the_image_of_the_dominant_vector_costs_no_product() -> None:
    matrix, calls = gaussian(120, 100).T @ gaussian(120, 100), 0

    def operator(V: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return matrix @ V

    value, vector, image = dominant_pair(operator, gaussian(100, 1, seed=3))
    assert 1 < calls < 40
    assert float((matrix @ vector - image).norm()) <= 1e-13 * value
    rest = math.nan * torch.ones(4, 1, dtype=F64)
    assert dominant_pair(lambda V: rest, torch.ones(4, 1, dtype=F64))[0] == math.inf


def test_of_numbers_beyond_the_range_nothing_is_known() -> None:
    R = torch.tensor([[1.0, math.inf], [0.0, 1.0]], dtype=F64)
    assert extreme_singular_values(TriangularRoot(R)).condition == math.inf
    # So that a fit goes on to factors that keep the range: the weights, some 1e-400, are zeros of float64.
    X = 1e-300 * torch.eye(4, 3, dtype=F64)
    sol = cf.solve(X, torch.ones(4, dtype=F64), l2=1e100)
    assert sol.certificate.accepted
    assert not sol.weight.any()
