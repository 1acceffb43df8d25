"""Elimination with pivots: solutions, adjoint solutions, and zero pivots."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from closedform.numerics.lu import LU


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("vectors", [0, 1, 3, 7])
def test_lu(dtype: torch.dtype, adjoint: bool, vectors: int) -> None:
    generator = torch.Generator().manual_seed(6)
    M = torch.randn(40, 40, dtype=torch.float64, generator=generator).to(dtype)
    V = torch.randn(40, vectors, dtype=torch.float64, generator=generator)
    given = V.clone()
    lu = LU(M)
    assert lu.zero_pivot == 0
    solution = lu.solve(V, adjoint=adjoint)
    assert solution.dtype == torch.float64
    matrix = (M.T if adjoint else M).double()
    np.testing.assert_allclose((matrix @ solution).numpy(), V.numpy(), atol=1e4 * torch.finfo(dtype).eps)
    image = lu.product(V, adjoint=adjoint)
    np.testing.assert_allclose(image.numpy(), (matrix @ V).numpy(), atol=1e3 * torch.finfo(dtype).eps)
    assert torch.equal(V, given)
    assert LU(torch.zeros(2, 2, dtype=dtype)).zero_pivot == 1


@pytest.mark.parametrize("size", [1e-200, 1e-40, 1e200], ids=["1e-200", "1e-40", "1e200"])
@pytest.mark.parametrize("vectors", [1, 7])
def test_single_precision_takes_vectors_beyond_its_range(size: float, vectors: int) -> None:
    generator = torch.Generator().manual_seed(7)
    M = torch.randn(30, 30, generator=generator) + 10 * torch.eye(30)
    V = size * torch.randn(30, vectors, dtype=torch.float64, generator=generator)
    lu = LU(M)
    for adjoint, matrix in ((False, M.double()), (True, M.T.double())):
        left = matrix @ lu.solve(V, adjoint=adjoint) - V
        assert float((left / size).abs().max()) <= 1e-4
        assert float(((lu.product(V, adjoint=adjoint) - matrix @ V) / size).abs().max()) <= 1e-3
    assert not lu.solve(torch.zeros(30, 1, dtype=torch.float64)).any()
