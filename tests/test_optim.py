"""The user's own loop, with the optimizer line changed, ends at the minimiser."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

import closedform as cf
from closedform.optim import RecursiveLeastSquares

F64 = torch.float64


def kernel(n: int, width: float, ridge: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    points = torch.rand(n, 3, dtype=F64, generator=generator)
    K = torch.exp(-torch.cdist(points, points).square() / width) + ridge * torch.eye(n, dtype=F64)
    return K, torch.sin(4 * points.sum(1, keepdim=True))


def one_step(optimizer: RecursiveLeastSquares, loss: Callable[[], torch.Tensor]) -> None:
    optimizer.zero_grad()
    loss().backward()
    optimizer.step()


def train(
    X: torch.Tensor, Y: torch.Tensor, batch: int | None, *, bias: bool = False, reduction: str = "mean"
) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(X.shape[1], Y.shape[1], bias=bias, dtype=X.dtype)
    optimizer = RecursiveLeastSquares(layer)
    criterion = nn.MSELoss(reduction=reduction)
    size = batch or len(X)
    for start in range(0, len(X), size) if batch else [0] * 5:
        optimizer.zero_grad()
        criterion(layer(X[start : start + size]), Y[start : start + size]).backward()
        optimizer.step()
    return layer


@pytest.mark.parametrize("batch", [None, 1, 2, 32, 100])
@pytest.mark.parametrize("ridge", [1e-1, 1e-6, 1e-9])
def test_a_kernel_is_fitted_in_one_epoch_or_five_full_batches(ridge: float, batch: int | None) -> None:
    X, Y = kernel(120, 0.5, ridge)
    gap = cf.gap(train(X, Y, batch), X, Y)
    assert gap.excess_loss <= 1e-10 * float(Y.square().mean())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("batch", [None, 1, 7, 64])
def test_noisy_tall_data_with_rare_groups(batch: int | None, reduction: str) -> None:
    generator = torch.Generator().manual_seed(4)
    X = torch.randn(300, 30, dtype=F64, generator=generator) * torch.logspace(-3, 3, 30, dtype=F64)
    X[20:, 5] = 0.0
    Y = X @ torch.randn(30, 2, dtype=F64, generator=generator) + torch.randn(300, 2, dtype=F64, generator=generator)
    layer = train(X, Y, batch, bias=True, reduction=reduction)
    exact = cf.solve(X, Y, bias=True)
    torch.testing.assert_close(layer.weight.detach(), exact.weight, rtol=1e-8, atol=1e-9)
    assert exact.bias is not None
    torch.testing.assert_close(layer.bias.detach(), exact.bias, rtol=1e-8, atol=1e-9)


def test_a_float32_layer_gets_the_float64_answer_rounded() -> None:
    X, Y = kernel(60, 0.5, 1e-3)
    X, Y = X.float(), Y.float()
    layer = train(X, Y, 10)
    exact = cf.solve(X.double(), Y.double()).weight.float()
    torch.testing.assert_close(layer.weight.detach(), exact, rtol=3e-7, atol=3e-7)


@pytest.mark.parametrize("criterion", [nn.L1Loss(), nn.HuberLoss(delta=0.1), lambda a, b: (a - b).norm()])
def test_another_loss_is_refused_and_nothing_changes(criterion) -> None:  # type: ignore[no-untyped-def]
    X, Y = kernel(30, 0.5, 1e-2)
    layer = nn.Linear(30, 1, bias=False, dtype=F64)
    before = layer.weight.detach().clone()
    optimizer = RecursiveLeastSquares(layer)
    with pytest.raises(cf.ClosedformError):
        one_step(optimizer, lambda: criterion(layer(X), Y))
    assert torch.equal(layer.weight, before)


def test_a_batch_with_nan_is_refused_and_nothing_changes() -> None:
    X, Y = kernel(30, 0.5, 1e-2)
    layer = nn.Linear(30, 1, bias=False, dtype=F64)
    optimizer = RecursiveLeastSquares(layer)
    nn.functional.mse_loss(layer(X[:10]), Y[:10]).backward()
    optimizer.step()
    before = layer.weight.detach().clone()
    bad = X[10:20].clone()
    bad[3, 4] = torch.nan
    with pytest.raises(cf.ClosedformError):
        one_step(optimizer, lambda: nn.functional.mse_loss(layer(bad), Y[10:20]))
    assert torch.equal(layer.weight, before)


def test_resuming_gives_the_same_bits() -> None:
    X, Y = kernel(40, 0.5, 1e-2)

    def steps(layer: nn.Linear, optimizer: RecursiveLeastSquares, first: int, last: int) -> None:
        for start in range(first, last, 5):
            optimizer.zero_grad()
            nn.functional.mse_loss(layer(X[start : start + 5]), Y[start : start + 5]).backward()
            optimizer.step()

    layer = nn.Linear(40, 1, bias=False, dtype=F64)
    optimizer = RecursiveLeastSquares(layer)
    steps(layer, optimizer, 0, 20)
    other = nn.Linear(40, 1, bias=False, dtype=F64)
    other.load_state_dict(layer.state_dict())
    resumed = RecursiveLeastSquares(other)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(layer, optimizer, 20, 40)
    steps(other, resumed, 20, 40)
    assert torch.equal(layer.weight, other.weight)


def test_evaluation_in_between_is_not_counted() -> None:
    X, Y = kernel(40, 0.5, 1e-2)
    layer = nn.Linear(40, 1, bias=False, dtype=F64)
    optimizer = RecursiveLeastSquares(layer)
    for start in range(0, 40, 8):
        optimizer.zero_grad()
        nn.functional.mse_loss(layer(X[start : start + 8]), Y[start : start + 8]).backward()
        optimizer.step()
        with torch.no_grad():
            layer(torch.randn(7, 40, dtype=F64))
    assert cf.gap(layer, X, Y).excess_loss < 1e-20
