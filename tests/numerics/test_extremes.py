"""The largest and smallest singular values, decomposed where small and approached by Lanczos where large."""

from __future__ import annotations

import math

import pytest
import torch

import closedform as cf
from closedform.engine.triangles import COMPILED
from closedform.numerics.arithmetic import BY_TORCH, Arithmetic
from closedform.numerics.chain import Applied, NormalProduct, NormalSolve, Scaling, Step
from closedform.numerics.extremes import Extremes, extreme_singular_values
from closedform.numerics.lanczos import dominant_pair
from closedform.numerics.lu import LU
from closedform.numerics.root import DenseRoot, Root, TriangularRoot
from data import F64, gaussian

ARITHMETIC = pytest.mark.parametrize("arithmetic", [BY_TORCH, COMPILED], ids=["torch", "compiled"])


def triangle(columns: int, condition: float) -> torch.Tensor:
    left, right = (torch.linalg.qr(gaussian(columns, columns, seed=seed)).Q for seed in (0, 1))
    values = torch.logspace(0, -math.log10(condition), columns, dtype=F64)
    return torch.linalg.qr(left * values @ right).R


@pytest.mark.parametrize("condition", [1e1, 1e5, 1e9])
@pytest.mark.parametrize("columns", [5, 96, 150])
@pytest.mark.parametrize("scaled", [False, True], ids=["as it is", "scaled"])
@ARITHMETIC
def test_they_are_those_of_a_decomposition(
    columns: int, condition: float, scaled: bool, arithmetic: Arithmetic
) -> None:
    R = triangle(columns, condition)
    scale = torch.ldexp(torch.ones(columns, dtype=F64), torch.arange(columns) % 7 - 3) if scaled else None
    found = extreme_singular_values(TriangularRoot(R, arithmetic), scale)
    values = torch.linalg.svdvals(R if scale is None else R / scale)
    # An estimate lies between: the largest from below, the smallest from above.
    assert 0.9 * float(values[0]) <= found.largest <= float(values[0]) * (1 + 1e-12)
    assert float(values[-1]) * (1 - 1e-12 * condition) <= found.smallest <= 1.1 * float(values[-1])


def square_root(kind: str, arithmetic: Arithmetic) -> Root:
    n, scale = 150, torch.linspace(0.5, 2.0, 150, dtype=F64)
    if kind == "LU":
        matrix = triangle(n, 1e5) @ torch.linalg.qr(gaussian(n, n, seed=2)).Q
        return DenseRoot(matrix, scale, lu=LU(matrix * scale), arithmetic=arithmetic)
    Q = torch.linalg.qr(gaussian(n, n, seed=2)).Q
    matrix = (Q * torch.logspace(0, -5, n, dtype=F64)) @ Q.T
    return DenseRoot(matrix, scale, cholesky=torch.linalg.cholesky(matrix, upper=True), arithmetic=arithmetic)


@pytest.mark.parametrize("kind", ["LU", "Cholesky"])
@pytest.mark.parametrize("raw", [False, True], ids=["scaled", "as it came"])
@ARITHMETIC
def test_they_are_those_of_a_square_matrix(kind: str, raw: bool, arithmetic: Arithmetic) -> None:
    root = square_root(kind, arithmetic)
    assert isinstance(root, DenseRoot)
    found = extreme_singular_values(root)
    values = torch.linalg.svdvals(root.matrix if raw else root.matrix * root.scale.T)
    if raw:
        found = extreme_singular_values(root, root.scale[:, 0], start=found)
    assert 0.9 * float(values[0]) <= found.largest <= float(values[0]) * (1 + 1e-12)
    assert float(values[-1]) * (1 - 1e-7) <= found.smallest <= 1.1 * float(values[-1])


@ARITHMETIC
@pytest.mark.parametrize("columns", [5, 150])
def test_the_vectors_are_where_they_were_found(columns: int, arithmetic: Arithmetic) -> None:
    R = triangle(columns, 1e6)
    found = extreme_singular_values(TriangularRoot(R, arithmetic))
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


def chain_of(name: str, n: int) -> tuple[tuple[Step, ...], torch.Tensor]:
    """A chain of steps, and the matrix that they are together."""
    D, M = torch.linspace(1.0, 2.0, n, dtype=F64).unsqueeze(1), gaussian(n, n, seed=5)
    if name == "product":
        return (Scaling(D), NormalProduct(M), Scaling(D)), D * (M.T @ M) * D.T
    R = triangle(n, 1e3)
    if name == "solution":
        return (Scaling(D, inverse=True), NormalSolve(R), Scaling(D, inverse=True)), torch.inverse(D * (R.T @ R) * D.T)
    return (Applied(lambda V: D * V),), torch.diag(D[:, 0])


@ARITHMETIC
@pytest.mark.parametrize("n", [40, 101])
@pytest.mark.parametrize("name", ["product", "solution", "function"])
@pytest.mark.parametrize("tolerance", [8e-2, 1e-2, 1e-6])
def test_a_chain_of_steps_is_the_operator_they_are(arithmetic: Arithmetic, n: int, name: str, tolerance: float) -> None:
    chain, matrix = chain_of(name, n)
    start = gaussian(n, 1, seed=3)
    kept = start.clone()
    value, vector, image = arithmetic.dominant_pair(chain, start, tolerance)
    assert torch.equal(start, kept)
    # The Rayleigh quotient of the vector, by the eigenvalues of the matrix.
    eigenvalues = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
    assert 0.9 * float(eigenvalues[-1]) <= value <= float(eigenvalues[-1]) * (1 + 1e-9)
    assert float(vector.norm()) == pytest.approx(1.0, abs=1e-12)
    assert float(vector.T @ matrix @ vector) == pytest.approx(value, rel=1e-9)
    assert float((matrix @ vector - image).norm()) <= 1e-9 * value
    # It stops where any way does.
    assert value == pytest.approx(dominant_pair(lambda V: matrix @ V, start, tolerance)[0], rel=1e-9)


@ARITHMETIC
def test_a_start_that_is_none_and_numbers_beyond_the_range_end_the_process(arithmetic: Arithmetic) -> None:
    n, one = 64, torch.ones(64, 1, dtype=F64)
    chain = (NormalProduct(torch.eye(n, dtype=F64), upper=True),)
    for bad in (0.0, math.nan, math.inf):
        start = torch.full((n, 1), bad, dtype=F64)
        value, vector, image = arithmetic.dominant_pair(chain, start)
        assert value == math.inf
        torch.testing.assert_close(vector, start, equal_nan=True)
        torch.testing.assert_close(image, start, equal_nan=True)
    # An eigenvector, the zero matrix, and one whose square leaves the range.
    for factor, expected in ((1.0, 1.0), (0.0, 0.0), (1e200, math.inf), (math.nan, math.inf)):
        value, vector, image = arithmetic.dominant_pair((NormalProduct(factor * torch.eye(n, dtype=F64)),), one)
        assert value == pytest.approx(expected)
        torch.testing.assert_close(vector, one / 8)
        torch.testing.assert_close(image, vector * (factor if math.isfinite(expected) else 1.0))


@ARITHMETIC
def test_sizes_near_the_ends_of_the_range_change_nothing_but_the_value(arithmetic: Arithmetic) -> None:
    M, start = gaussian(64, 64, seed=5), gaussian(64, 1, seed=3)
    value, vector, _ = arithmetic.dominant_pair((NormalProduct(M),), start)
    for exponent in (-240, 240):
        sized = torch.ldexp(M, torch.tensor(exponent))
        other, beside, _ = arithmetic.dominant_pair((NormalProduct(sized),), start)
        assert other == pytest.approx(math.ldexp(value, 2 * exponent), rel=1e-12)
        assert abs(float((vector * beside).sum())) == pytest.approx(1.0)


def test_of_numbers_beyond_the_range_nothing_is_known() -> None:
    R = torch.tensor([[1.0, math.inf], [0.0, 1.0]], dtype=F64)
    assert extreme_singular_values(TriangularRoot(R)).condition == math.inf
    # So that a fit goes on to factors that keep the range: the weights, some 1e-400, are zeros of float64.
    X = 1e-300 * torch.eye(4, 3, dtype=F64)
    sol = cf.solve(X, torch.ones(4, dtype=F64), l2=1e100)
    assert sol.certificate.accepted
    assert not sol.weight.any()
