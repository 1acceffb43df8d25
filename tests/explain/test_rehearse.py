"""Rehearsals on the triangle against the same optimizers on all rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from closedform.explain.entry import diagnose
from closedform.explain.rehearsal import TriangleLoss, rehearse
from closedform.explain.spectra import compress
from closedform.numerics.triangle import Triangle
from closedform.rows import as_rows
from closedform.words.errors import InputError

F64 = torch.float64
Make = Callable[[Any], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2),
    "dampened": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.5, weight_decay=1e-3),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
}


def problem(rows: int = 3000, features: int = 12, targets: int = 3) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    X = torch.randn(rows, features, dtype=F64, generator=g) * torch.logspace(0, -1, features, dtype=F64) + 0.3
    noise = 0.1 * torch.randn(rows, targets, dtype=F64, generator=g)
    return X, X @ torch.randn(features, targets, dtype=F64, generator=g) + noise


def layer_for(X: Tensor, Y: Tensor, bias: bool) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(X.shape[1], Y.shape[1], bias=bias, dtype=F64)


def full_run(X: Tensor, Y: Tensor, layer: nn.Linear, make: Make, steps: int) -> Tensor:
    optimizer = make(layer.parameters())

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(layer(X), Y)
        loss.backward()
        return loss

    losses = [float(optimizer.step(closure).detach()) for _ in range(steps)]
    return torch.tensor([*losses, float(nn.functional.mse_loss(layer(X), Y).detach())], dtype=F64)


def compressed(X: Tensor, Y: Tensor, bias: bool) -> Triangle:
    whole = compress(as_rows(X, Y), l2=0.0)
    return whole if bias else whole.without_ones()


def start_of(layer: nn.Linear) -> dict[str, Any]:
    bias = None if layer.bias is None else layer.bias.detach().clone()
    return {"weight": layer.weight.detach().clone(), "bias": bias}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_hundred_steps_follow_the_full_run(name: str, bias: bool) -> None:
    X, Y = problem()
    layer = layer_for(X, Y, bias)
    run = rehearse(compressed(X, Y, bias), OPTIMIZERS[name], steps=100, **start_of(layer))
    losses = full_run(X, Y, layer, OPTIMIZERS[name], 100)
    torch.testing.assert_close(run.loss, losses, rtol=1e-8, atol=0)
    torch.testing.assert_close(run.weight, layer.weight.detach(), rtol=1e-8, atol=1e-10)
    if bias:
        assert run.bias is not None
        torch.testing.assert_close(run.bias, layer.bias.detach(), rtol=1e-8, atol=1e-10)


def conditioned(condition: float, seed: int) -> tuple[Tensor, Tensor]:
    """600 rows, 10 features of this condition number, 2 noisy targets."""
    g = torch.Generator().manual_seed(seed)
    left = torch.linalg.qr(torch.randn(600, 10, dtype=F64, generator=g)).Q
    right = torch.linalg.qr(torch.randn(10, 10, dtype=F64, generator=g)).Q
    X = (left * torch.logspace(0, -math.log10(condition), 10, dtype=F64) * 600**0.5) @ right
    noise = 0.1 * torch.randn(600, 2, dtype=F64, generator=g)
    return X, X @ torch.randn(10, 2, dtype=F64, generator=g) + noise


def lbfgs(line_search: str | None = None, max_iter: int = 1) -> Make:
    return lambda parameters: torch.optim.LBFGS(parameters, max_iter=max_iter, line_search_fn=line_search)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("max_iter", [1, 20])
@pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
def test_lbfgs_on_a_well_conditioned_fit_follows_for_a_hundred_steps(
    line_search: str | None, max_iter: int, bias: bool
) -> None:
    X, Y = conditioned(3.0, seed=0)
    layer, make = layer_for(X, Y, bias), lbfgs(line_search, max_iter)
    run = rehearse(compressed(X, Y, bias), make, steps=100, **start_of(layer))
    torch.testing.assert_close(run.loss, full_run(X, Y, layer, make, 100), rtol=1e-8, atol=0)


@pytest.mark.parametrize("condition", [10.0, 100.0, 1000.0])
def test_lbfgs_follows_as_long_as_the_same_rows_in_another_order(condition: float) -> None:
    """It amplifies rounding some ten times an iteration: two full runs whose rows stand in another order part, too."""
    rehearsed, reordered = [], []
    for seed in range(6):
        X, Y = conditioned(condition, seed)
        layer = layer_for(X, Y, True)
        run = rehearse(compressed(X, Y, True), lbfgs(), steps=40, **start_of(layer))
        losses = full_run(X, Y, layer, lbfgs(), 40)
        rehearsed.append(together(run.loss, losses))
        g = torch.Generator().manual_seed(seed)
        orders = [torch.randperm(600, generator=g) for _ in range(3)]
        others = [full_run(X[order], Y[order], layer_for(X, Y, True), lbfgs(), 40) for order in orders]
        reordered.append([together(other, losses) for other in others])
        # As long as one of three at least, but for the iteration that the last bit decides.
        assert rehearsed[-1] >= min(reordered[-1]) - 1
        assert 12 < rehearsed[-1] < 40
    assert sum(rehearsed) / 6 >= sum(map(sum, reordered)) / 18 - 1


def together(losses: Tensor, others: Tensor) -> int:
    """Steps for which two runs agree to 1e-8."""
    apart = ((losses - others).abs() > 1e-8 * others).nonzero()
    return int(apart[0]) if apart.numel() else losses.numel()


@pytest.mark.parametrize("bias", [True, False])
def test_loss_and_gradients_are_those_of_all_rows(bias: bool) -> None:
    X, Y = problem(500)
    layer = layer_for(X, Y, bias)
    loss = TriangleLoss(compressed(X, Y, bias), **start_of(layer))
    full = nn.functional.mse_loss(layer(X), Y)
    torch.testing.assert_close(loss().detach(), full.detach(), rtol=1e-13, atol=0)
    expected = torch.autograd.grad(full, list(layer.parameters()))
    for found, wanted in zip(torch.autograd.grad(loss(), loss.parameters), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)


def test_weighted_rows_and_the_sum_as_loss() -> None:
    X, Y = problem(200)
    weight = torch.rand(200, dtype=F64, generator=torch.Generator().manual_seed(3))
    rows = compress(as_rows(X, Y, weight), l2=0.0).without_ones()
    layer = layer_for(X, Y, False)
    loss = TriangleLoss(rows, **start_of(layer), factor=float(weight.sum()) * 3)
    squares = (layer(X) - Y).square() * weight.unsqueeze(1)
    torch.testing.assert_close(loss().detach(), squares.sum().detach(), rtol=1e-12, atol=0)


def test_wide_tables() -> None:
    X, Y = problem(rows=10, features=40)
    layer = layer_for(X, Y, True)
    run = rehearse(compressed(X, Y, True), OPTIMIZERS["adam"], steps=50, **start_of(layer))
    torch.testing.assert_close(run.loss, full_run(X, Y, layer, OPTIMIZERS["adam"], 50), rtol=1e-8, atol=0)


def test_a_rehearsal_costs_less_than_a_tenth() -> None:
    X, Y = problem(rows=10_000, features=40)
    layer, rows = layer_for(X, Y, True), compressed(X, Y, True)
    make = OPTIMIZERS["sgd"]

    def operations(run: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counted:
            run()
        return counted.get_total_flops()

    small = operations(lambda: rehearse(rows, make, steps=20, **start_of(layer)))
    full = operations(lambda: full_run(X, Y, layer, make, 20))
    assert 0 < small < 0.1 * full


def test_forecast_and_rehearsal_agree() -> None:
    X, Y = problem()
    d = diagnose(X, Y, bias=True)
    lr = 0.5 * d.learning_rate_limit
    run = d.rehearse(lambda p: torch.optim.SGD(p, lr=lr, momentum=0.8), steps=60)
    torch.testing.assert_close(run.loss, d.forecast("momentum", lr=lr, momentum=0.8, steps=60).loss, rtol=1e-9, atol=0)


def test_a_diverging_run_says_where_it_stopped() -> None:
    X, Y = problem(100)
    run = diagnose(X, Y).rehearse(lambda p: torch.optim.SGD(p, lr=1e9), steps=1000)
    assert "no longer finite" in run.stopped
    assert run.loss.numel() < 1000


def test_the_random_generator_and_the_start_stay_as_they_were() -> None:
    X, Y = problem(100)
    layer = layer_for(X, Y, True)
    before, state = layer.weight.detach().clone(), torch.random.get_rng_state()

    class Noisy(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            torch.rand(1)
            return super().step(closure)

    diagnose(X, Y, model=layer).rehearse(lambda p: Noisy(p, lr=0.1), steps=3)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(layer.weight.detach(), before)


def test_what_cannot_be_rehearsed_is_refused_with_the_reason() -> None:
    X, Y = problem(100)
    layer = layer_for(X, Y, False)
    d = diagnose(X, Y)
    with pytest.raises(InputError, match="other parameters"):
        d.rehearse(lambda _: torch.optim.SGD(layer.parameters(), lr=0.1), steps=1)
    with pytest.raises(InputError, match=r"returned a function|returned a str"):
        d.rehearse(lambda _: "sgd", steps=1)  # type: ignore[arg-type,return-value]
    with pytest.raises(InputError, match="could not be made"):
        d.rehearse(lambda p: torch.optim.SGD(p, lr=-1.0), steps=1)
    with pytest.raises(InputError, match="steps"):
        d.rehearse(OPTIMIZERS["sgd"], steps=-1)
    with pytest.raises(InputError, match="squared error"):
        diagnose(X, Y, criterion=nn.L1Loss()).rehearse(OPTIMIZERS["sgd"], steps=1)
    with pytest.raises(InputError, match="triangle knows only all"):
        diagnose(X, Y, batch_size=10).rehearse(OPTIMIZERS["sgd"], steps=1)
