"""Roots of the normal matrix: each multiplies, solves and decomposes as the dense matrix it stands for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from closedform.numerics.lu import LU
from closedform.numerics.root import DenseRoot, FactoredRoot, ProjectedRoot, Root, SpectralRoot, TriangularRoot
from data import F64, gaussian

SCALE = torch.tensor([1.0, 4.0, 0.25, 2.0, 1.0], dtype=F64)


def orthonormal(rows: int, columns: int) -> Tensor:
    return torch.linalg.qr(gaussian(columns, rows)).Q.T


def upper(n: int) -> Tensor:
    return torch.linalg.qr(gaussian(2 * n, n)).R


def definite(n: int) -> Tensor:
    return gaussian(n, n) @ gaussian(n, n).T + torch.eye(n, dtype=F64)


ROOTS: dict[str, Callable[[], tuple[Root, Tensor]]] = {
    "triangular": lambda: (TriangularRoot(upper(5)), upper(5)),
    "large triangular": lambda: (TriangularRoot(upper(600)), upper(600)),
    "dense by elimination": lambda: (
        DenseRoot(gaussian(5, 5), SCALE, lu=LU(gaussian(5, 5) * SCALE)),
        gaussian(5, 5) * SCALE,
    ),
    "factored": lambda: (FactoredRoot(LU(gaussian(5, 5)), torch.device("cpu")), gaussian(5, 5)),
    "dense by Cholesky": lambda: (
        DenseRoot(definite(5), SCALE, cholesky=torch.linalg.cholesky(definite(5), upper=True)),
        definite(5) * SCALE,
    ),
    "spectral": lambda: (
        SpectralRoot(torch.tensor([4.0, 2.0, 1.0], dtype=F64), orthonormal(3, 5)),
        torch.tensor([[4.0], [2.0], [1.0]], dtype=F64) * orthonormal(3, 5),
    ),
    "projected": lambda: (ProjectedRoot(upper(3), orthonormal(3, 5)), upper(3) @ orthonormal(3, 5)),
}


@pytest.mark.parametrize("name", ROOTS)
def test_a_root_does_what_its_matrix_does(name: str) -> None:
    root, S = ROOTS[name]()
    rank, columns = S.shape
    assert root.shape == (rank, columns)
    assert root.is_finite()
    right, left = gaussian(columns, 2, seed=3), gaussian(rank, 2, seed=4)
    inverse = torch.linalg.pinv(S)
    size = float(torch.linalg.cond(S))
    for found, expected in (
        (root.dense(), S),
        (root.product(right), S @ right),
        (root.adjoint_product(left), S.T @ left),
        (root.solve(left), inverse @ left),
        (root.adjoint_solve(right), inverse.T @ right),
    ):
        atol = 1e-13 * size * float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("name", ROOTS)
def test_a_root_has_the_singular_values_and_vectors_of_its_matrix(name: str) -> None:
    root, S = ROOTS[name]()
    values, vectors = root.spectrum()
    torch.testing.assert_close(values, torch.linalg.svdvals(S), rtol=1e-10, atol=0)
    torch.testing.assert_close(
        vectors.T * values.square() @ vectors, S.T @ S, rtol=0, atol=1e-12 * float(values[0]) ** 2
    )


def test_numbers_out_of_range_are_seen() -> None:
    assert not TriangularRoot(torch.tensor([[1.0, torch.inf], [0.0, 1.0]], dtype=F64)).is_finite()
