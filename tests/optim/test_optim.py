"""The optimizer ends at the direct solution, whatever the batches: each test trains as a user does."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import closedform as cf
from closedform.optim import RecursiveLeastSquares
from closedform.optim.arrived import Arrived, Waiting
from closedform.optim.memory import init, mark, update
from data import gaussian
from placement import place

pytestmark = pytest.mark.device


def make_layer(features: int, targets: int = 1, *, bias: bool = True, dtype: torch.dtype = torch.float64) -> nn.Linear:
    torch.manual_seed(5)
    return nn.Linear(features, targets, bias=bias, dtype=dtype)


def rows_of(A: Tensor, B: Tensor, forgetting: float = 1.0) -> Waiting:
    """Rows as a step hands them to the memory."""
    return Waiting(Arrived(A, B), None, exact=True, faded=forgetting, steps=1, mark=mark(A, B))


def slices(rows: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def train(layer: nn.Linear, opt: torch.optim.Optimizer, X: Tensor, Y: Tensor, size: int, epochs: int = 1) -> None:
    """The user's own loop."""
    criterion = nn.MSELoss()
    for _ in range(epochs):
        for rows in slices(len(X), size):
            opt.zero_grad()
            criterion(layer(X[rows]), Y[rows]).backward()
            opt.step()


def spd(columns: int, condition: float) -> Tensor:
    """A symmetric positive definite matrix of that condition, as a kernel is."""
    Q = torch.linalg.qr(gaussian(columns, columns)).Q
    K = (Q * torch.logspace(0, -float(np.log10(condition)), columns, dtype=torch.float64)) @ Q.T
    return (K + K.T) / 2


@pytest.mark.parametrize("condition", [1e4, 1e8, 1e10, 1e12])
@pytest.mark.parametrize("size", [1, 2, 16, 50, 60])
def test_kernels_of_any_condition_in_one_epoch(condition: float, size: int) -> None:
    K = spd(60, condition)
    Y = K @ gaussian(60, 1)
    layer = make_layer(60, bias=False)
    train(layer, RecursiveLeastSquares(layer), K, Y, size)
    excess = F.mse_loss(layer(K), Y).item()  # the optimum is zero
    assert excess <= 1e-10 * Y.square().mean().item()


def test_the_kernel_of_the_thread() -> None:
    rng = np.random.default_rng(0)
    Z = rng.uniform(-1, 1, (400, 5))
    f = place(torch.from_numpy(np.sin(2 * Z[:, 0]) + Z[:, 1] * Z[:, 2] + 0.5 * np.cos(Z.sum(1))))[:, None]
    K = place(torch.from_numpy(np.exp(-((Z[:, None] - Z[None]) ** 2).sum(-1) / 2)))[:, :200]
    direct = torch.linalg.solve(K[:200], f[:200])
    for size in (1, 32, 200):
        layer = make_layer(200, bias=False)
        train(layer, RecursiveLeastSquares(layer), K[:200], f[:200], size, epochs=5 if size == 200 else 1)
        assert F.mse_loss(layer(K[:200]), f[:200]).item() <= 1e-10 * f[:200].square().mean().item()
        test, best = ((K[200:] @ w - f[200:]).abs().mean().item() for w in (layer.weight.detach().T, direct))
        assert test == pytest.approx(best, rel=1e-6)


def rare_groups() -> tuple[Tensor, Tensor]:
    """Noisy, ten rows a parameter, columns that few rows know, over ten orders of scale."""
    X, Y = 0.1 * gaussian(300, 30), gaussian(300, 2, seed=1)
    for column in range(10):
        X[:, column] = 0
        X[torch.randperm(300, generator=torch.Generator().manual_seed(column), device="cpu")[: 3 + column], column] = (
            10.0 ** (column - 4)
        )
    return X, Y


@pytest.mark.parametrize("size", [1, 2, 7, 32, 100, 300])
def test_noisy_rows_with_rare_groups_equal_the_direct_solution(size: int) -> None:
    X, Y = rare_groups()
    layer = make_layer(30, 2)
    opt = RecursiveLeastSquares(layer)
    train(layer, opt, X, Y, size)
    gap = cf.gap(layer, X, Y)
    assert gap.excess_loss <= 1e-20 * gap.loss
    assert gap.weight_distance < 1e-12
    assert opt.state[layer.weight]["targets"] == "exact"


@pytest.mark.parametrize("size", [1, 7, 300])
def test_ridge_leaves_the_bias_free(size: int) -> None:
    X, Y = rare_groups()
    layer = make_layer(30, 2)
    train(layer, RecursiveLeastSquares(layer, l2=0.7), X, Y, size)
    assert cf.gap(layer, X, Y, l2=0.7).weight_distance < 1e-12


@pytest.mark.parametrize("size", [1, 7, 256])
def test_float32_weights_are_the_float64_solution_rounded(size: int) -> None:
    Q = torch.linalg.qr(gaussian(256, 12)).Q * torch.logspace(0, -5, 12, dtype=torch.float64)
    X = (Q @ torch.linalg.qr(gaussian(12, 12, seed=1)).Q).float()
    Y = (X.double() @ gaussian(12, 1, seed=2) + 1e-3 * gaussian(256, 1, seed=3)).float()
    layer = make_layer(12, bias=False, dtype=torch.float32)
    train(layer, RecursiveLeastSquares(layer), X, Y, size, epochs=3 if size == 256 else 1)
    exact = torch.linalg.lstsq(X.double().cpu(), Y.double().cpu(), driver="gelsd").solution
    assert torch.equal(layer.weight.detach().cpu(), exact.float().T)


def test_few_rows_move_the_weights_as_little_as_they_can() -> None:
    X, Y = gaussian(9, 20), gaussian(9, 2, seed=1)
    layer = make_layer(20, 2)
    before = torch.cat([layer.bias.detach()[:, None], layer.weight.detach()], 1).T
    train(layer, RecursiveLeastSquares(layer), X, Y, 2)
    A = torch.cat([torch.ones(9, 1, dtype=torch.float64), X], 1)
    expected = before + torch.linalg.pinv(A) @ (Y - A @ before)
    found = torch.cat([layer.bias.detach()[:, None], layer.weight.detach()], 1).T
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("size", [1, 5, 60])
def test_dependent_columns_end_nearest_to_the_start(size: int) -> None:
    X, Y = gaussian(60, 6), gaussian(60, 1, seed=1)
    X[:, 5] = 2 * X[:, 0] - 1
    layer = make_layer(6)
    start = copy.deepcopy(layer)
    train(layer, RecursiveLeastSquares(layer), X, Y, size)
    nearest = cf.solve(X, Y, bias=True, nearest_to=start, progress=False)
    torch.testing.assert_close(layer.weight.detach(), nearest.weight, rtol=1e-10, atol=1e-11)


def test_a_float32_state_is_as_good_as_float32() -> None:
    X, Y = gaussian(90, 5).float(), gaussian(90, 1, seed=1).float()
    X[:, 4] = X[:, 0]
    layer = make_layer(5, dtype=torch.float32)
    train(layer, RecursiveLeastSquares(layer, dtype=torch.float32), X, Y, 4)
    gap = cf.gap(layer, X, Y)
    assert gap.excess_loss <= 1e-9 * gap.loss
    assert gap.weight_distance < 1e-4


def test_the_same_row_with_another_target_is_averaged() -> None:
    layer = make_layer(3, bias=False)
    row = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    train(layer, RecursiveLeastSquares(layer), row.expand(3, 3), torch.tensor([[1.0], [2.0], [6.0]]).double(), 1)
    assert layer(row).item() == pytest.approx(3.0, rel=1e-14)


def test_units_of_columns_do_not_matter() -> None:
    X, Y = gaussian(60, 4), gaussian(60, 1, seed=1)
    units = torch.tensor([1e10, 1.0, 1e-10, 1e-10], dtype=torch.float64)
    layer = make_layer(4, bias=False)
    train(layer, RecursiveLeastSquares(layer), X * units, Y, 3)
    plain = torch.linalg.lstsq(X, Y).solution.T
    torch.testing.assert_close(layer.weight.detach() * units, plain, rtol=1e-12, atol=1e-12)


def test_epochs_and_shuffling_change_nothing() -> None:
    X, Y = gaussian(100, 8), gaussian(100, 1, seed=1)
    layer = make_layer(8)
    opt = RecursiveLeastSquares(layer)
    for epoch in range(3):
        order = torch.randperm(100, generator=torch.Generator().manual_seed(epoch), device="cpu")
        train(layer, opt, X[order], Y[order], 7)
    assert cf.gap(layer, X, Y).weight_distance < 1e-13


def test_a_repeated_full_batch_weighs_more_and_refines() -> None:
    X, Y = gaussian(100, 8), gaussian(100, 1, seed=1)
    layer = make_layer(8)
    opt = RecursiveLeastSquares(layer)
    train(layer, opt, X, Y, 100, epochs=4)
    assert opt.state[layer.weight]["rows"] == 400
    assert cf.gap(layer, X, Y).weight_distance < 1e-14
    train(layer, opt, X[:10] + 1, Y[:10], 10)  # weighs as ten rows beside four hundred
    all_X, all_Y = torch.cat([X.repeat(4, 1), X[:10] + 1]), torch.cat([Y.repeat(4, 1), Y[:10]])
    assert cf.gap(layer, all_X, all_Y).weight_distance < 1e-13


def test_refinement_repairs_a_spoilt_solution() -> None:
    A, B = gaussian(50, 6), gaussian(50, 2, seed=1)
    memory = update(init(torch.zeros(6, 2).double(), 0.0, bias=False), rows_of(A, B), l2=0.0, bias=False)
    object.__setattr__(memory, "weights", memory.weights + 1e-3)
    again = update(memory, rows_of(A, B), l2=0.0, bias=False)
    torch.testing.assert_close(again.weights, torch.linalg.lstsq(A, B).solution, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("l2", [0.0, 0.5])
def test_forgetting_weighs_rows_by_their_age(l2: float) -> None:
    X, Y = gaussian(120, 8), gaussian(120, 2, seed=1)
    layer = make_layer(8, 2)
    train(layer, RecursiveLeastSquares(layer, forgetting=0.9, l2=l2), X, Y, 3)
    age = 39 - torch.arange(120) // 3
    assert cf.gap(layer, X, Y, sample_weight=0.9 ** age.double(), l2=l2).weight_distance < 1e-12


def test_forgetting_follows_a_drift() -> None:
    X = gaussian(400, 3)
    Y = torch.cat([X[:200] @ torch.ones(3, 1).double(), X[200:] @ -torch.ones(3, 1).double()])
    layer = make_layer(3, bias=False)
    train(layer, RecursiveLeastSquares(layer, forgetting=0.8), X, Y, 1)
    torch.testing.assert_close(layer.weight.detach(), -torch.ones(1, 3).double(), rtol=1e-10, atol=0)


@pytest.mark.parametrize("forgetting", [1.0, 0.99])
def test_many_steps_do_not_drift(forgetting: float) -> None:
    steps = 2000
    A = gaussian(steps, 5) * torch.logspace(0, -3, 5, dtype=torch.float64)
    B = A @ torch.ones(5, 1).double() + 0.1 * gaussian(steps, 1, seed=1)
    memory = init(torch.zeros(5, 1).double(), 0.0, bias=False)
    for a, b in zip(A.split(1), B.split(1), strict=True):
        memory = update(memory, rows_of(a, b, forgetting), l2=0.0, bias=False)
    age = torch.arange(steps - 1, -1, -1).double()
    root = (forgetting**age).sqrt()[:, None]
    direct = torch.linalg.lstsq((root * A).cpu(), (root * B).cpu(), driver="gelsd").solution
    torch.testing.assert_close(memory.weights.cpu(), direct, rtol=1e-10, atol=0)
