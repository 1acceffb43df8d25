"""Batches of problems: each as if it were solved alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import closedform as cf
from closedform.words.errors import DataTypeError, InputError, NonFiniteError


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("l2", [0.0, 3.0])
@pytest.mark.parametrize("targets", [None, 3])
def test_every_problem_as_solved_alone(dtype: torch.dtype, bias: bool, l2: float, targets: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(7, 30, 4, dtype=torch.float64, generator=generator)
    X[1, :, 2] *= 1e9  # a unit of measurement
    X[2, :, 3] = X[2, :, 0] - X[2, :, 1]  # dependent columns
    X[3] *= 1e-9
    X[4, :, 1] = X[4, :, 0] + 1e-8 * X[4, :, 1]  # ill-conditioned
    X[5, :, 0] = 0.0
    X = X.to(dtype)
    Y = torch.randn(7, 30, *([] if targets is None else [targets]), dtype=torch.float64, generator=generator).to(dtype)
    sol = cf.solve_batched(X, Y, bias=bias, l2=l2)
    assert sol.certified
    assert sol.weight.dtype == dtype
    assert sol.weight.shape == (7, targets or 1, 4)
    for i in range(7):
        alone = cf.solve(X[i], Y[i], bias=bias, l2=l2)
        assert sol.outcomes[i] is alone.outcome
        assert int(sol.rank[i]) == alone.certificate.rank
        rtol = 1e-6 if dtype == torch.float32 else 1e-6 if i == 4 else 1e-10
        size = alone.weight.abs().max().item()
        assert_allclose(sol.weight[i].numpy(), alone.weight.numpy(), rtol=rtol, atol=rtol * size)
        if bias:
            assert sol.bias is not None
            assert alone.bias is not None
            assert_allclose(sol.bias[i].numpy(), alone.bias.numpy(), rtol=rtol, atol=rtol)
    if l2 == 0.0:
        assert {2, 5} <= set(sol.one_by_one) <= {2, 4, 5}
        assert f"{len(sol.one_by_one)} solved one by one" in str(sol)


def test_more_problems_than_one_chunk_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("closedform.batched._CHUNK_BYTES", 1)
    rng = np.random.default_rng(1)
    X, Y = rng.standard_normal((5, 9, 2)), rng.standard_normal((5, 9))
    X[3, :, 1] = X[3, :, 0]
    sol = cf.solve_batched(X, Y)
    assert sol.one_by_one == (3,)
    assert_allclose(sol.weight.numpy()[:, 0], np.stack([np.linalg.pinv(x) @ y for x, y in zip(X, Y, strict=True)]))


def test_range_of_float64() -> None:
    rng = np.random.default_rng(2)
    X, Y = rng.standard_normal((3, 9, 2)), rng.standard_normal((3, 9))
    X[1] *= 1e200
    X[2] *= 1e-200
    sol = cf.solve_batched(X, Y)
    assert sol.certified
    scales = np.array([1.0, 1e200, 1e-200])
    expected = np.stack([np.linalg.lstsq(x / s, y, rcond=None)[0] / s for x, y, s in zip(X, Y, scales, strict=True)])
    assert_allclose(sol.weight.numpy()[:, 0], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("X", "Y", "error", "says"),
    [
        (torch.ones(3, 2), torch.ones(3), InputError, "batch of tables"),
        (torch.ones(2, 3, 2), torch.ones(2, 4), InputError, "Y must be"),
        (torch.ones(2, 3, 2), torch.ones(3, 3, 1), InputError, "Y must be"),
        (torch.ones(2, 0, 2), torch.ones(2, 0), InputError, "empty"),
        (torch.ones(2, 3, 2) * 1j, torch.ones(2, 3), DataTypeError, "complex"),
        (torch.full((2, 3, 2), torch.nan), torch.ones(2, 3), NonFiniteError, "problem 0"),
        (torch.ones(2, 3, 2), torch.tensor([[1.0] * 3, [1.0, torch.inf, 1.0]]), NonFiniteError, "Y .* problem 1"),
    ],
)
def test_bad_input(X: torch.Tensor, Y: torch.Tensor, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        cf.solve_batched(X, Y)
    with pytest.raises(InputError, match="l2"):
        cf.solve_batched(torch.ones(1, 2, 1), torch.ones(1, 2), l2=-1.0)
