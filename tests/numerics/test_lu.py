"""Elimination with pivots: solutions, adjoint solutions, and zero pivots."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from closedform.numerics.lu import LU


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("adjoint", [False, True])
def test_lu(dtype: torch.dtype, adjoint: bool) -> None:
    generator = torch.Generator().manual_seed(6)
    M = torch.randn(40, 40, dtype=torch.float64, generator=generator).to(dtype)
    V = torch.randn(40, 3, dtype=torch.float64, generator=generator)
    lu = LU(M)
    assert lu.zero_pivot == 0
    solution = lu.solve(V, adjoint=adjoint)
    assert solution.dtype == torch.float64
    matrix = (M.T if adjoint else M).double()
    np.testing.assert_allclose((matrix @ solution).numpy(), V.numpy(), atol=1e4 * torch.finfo(dtype).eps)
    assert LU(torch.zeros(2, 2, dtype=dtype)).zero_pivot == 1
