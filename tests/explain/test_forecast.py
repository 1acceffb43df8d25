"""Forecasts against real runs of torch: what was predicted without a step must come true step by step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from closedform.explain.forecasts import (
    FAMILY,
    Forecast,
    descent_of,
    first_order_limits,
    forecast,
    mini_batch,
    step_limit,
)
from closedform.explain.spectra import Spectrum, spectrum
from closedform.words.errors import InputError
from data import F64, descend, train, zero_layer


def random_problem(seed: int) -> tuple[Tensor, Tensor, bool]:
    """Condition 1 to 1e6, 1 to 8 targets, with and without a bias."""
    g = torch.Generator().manual_seed(seed)
    rows, features, targets = (int(torch.randint(a, b, (1,), generator=g)) for a, b in ((20, 60), (1, 12), (1, 9)))
    decades = 6 * float(torch.rand(1, generator=g))
    left = torch.linalg.qr(torch.randn(rows, features, dtype=F64, generator=g)).Q
    right = torch.linalg.qr(torch.randn(features, features, dtype=F64, generator=g)).Q
    X = (left * torch.logspace(0, -decades, features, dtype=F64)) @ right
    noise = torch.randn(rows, targets, dtype=F64, generator=g) * (seed % 2)
    return X, X @ torch.randn(features, targets, dtype=F64, generator=g) + noise, bool(seed % 3)


def fresh_layer(X: Tensor, Y: Tensor, bias: bool, seed: int) -> torch.nn.Linear:
    torch.manual_seed(seed)
    return torch.nn.Linear(X.shape[1], Y.shape[1], bias=bias, dtype=F64)


def relative_error(predicted: Forecast, measured: Tensor) -> float:
    """Largest relative error of the loss where it stands above rounding."""
    above = measured > 1e12 * predicted.rounding_floor
    assert int(above.sum()) > 3
    return float(((predicted.loss - measured).abs() / measured)[above].max())


@pytest.mark.parametrize("tens", range(20))
def test_two_hundred_random_runs_come_true(tens: int) -> None:
    for seed in range(10 * tens, 10 * tens + 10):
        X, Y, bias = random_problem(seed)
        momentum = (0.0, 0.3, 0.9, 0.99)[seed % 4]
        nesterov = momentum > 0 and seed % 5 < 2
        dampening = 0.3 if momentum and not nesterov and seed % 3 == 1 else 0.0
        weight_decay = 1e-3 if seed % 7 == 0 else 0.0
        s = spectrum(X, Y, bias=bias)
        limit = step_limit(float(s.eigenvalues[0]) + weight_decay, momentum, nesterov, dampening)
        lr = limit * (0.999, 0.5, 0.1)[seed % 3]
        layer = fresh_layer(X, Y, bias, seed)
        settings: dict[str, Any] = {
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "dampening": dampening,
        }
        predicted = forecast(
            s,
            "momentum",
            lr=lr,
            steps=200,
            start=layer,
            **settings,
        )
        # One run in ten by torch itself, the others by its operations without autograd.
        if seed % 10 == tens % 10:
            measured = train(X, Y, layer, torch.optim.SGD(layer.parameters(), lr=lr, **settings), 200)
        else:
            measured = descend(X, Y, layer, lr=lr, steps=200, **settings)
        assert relative_error(predicted, measured) < 1e-6, seed


@pytest.mark.parametrize(
    ("momentum", "nesterov", "dampening"),
    [(0.0, False, 0.5), (0.9, False, 0.0), (0.9, True, 0.0), (0.9, False, 0.6)],
)
def test_just_below_the_limit_converges_and_just_above_diverges(
    momentum: float, nesterov: bool, dampening: float
) -> None:
    X, Y, _ = random_problem(4)
    s = spectrum(X, Y)
    limit = step_limit(float(s.eigenvalues[0]), momentum, nesterov, dampening)
    ends = []
    for share in (0.998, 1.002):
        layer = fresh_layer(X, Y, False, 1)
        settings: dict[str, Any] = {"momentum": momentum, "nesterov": nesterov, "dampening": dampening}
        run = forecast(s, "momentum", lr=share * limit, steps=[40_000], start=layer, **settings)
        assert run.limit == pytest.approx(limit, rel=1e-14)
        losses = descend(X, Y, layer, lr=share * limit, steps=2_500, **settings)
        ends.append((run.stable, float(run.excess[0]), float(losses[-1])))
    assert ends[0][0]
    assert ends[0][2] < 2 * float(losses[0])
    assert not ends[1][0]
    assert ends[1][1] > 1e3
    assert not ends[1][2] < 1e3


def test_case_2_a_million_steps_without_a_step() -> None:
    """discuss.pytorch.org/t/208572: losses of the sum after a million steps, by exact theory."""
    X = torch.tensor([[-249.69, -4.1511], [-4.1511, -0.20755]], dtype=F64)
    s = spectrum(X, torch.tensor([0.0, 10.0]))
    for lr, expected in ((1e-7, 99.208), (1e-6, 92.588), (1e-5, 46.414), (1.603e-5, 29.222)):
        # The thread sums over two rows, so its lr acts twice on the mean.
        run = forecast(s, lr=2 * lr, steps=[10**6])
        assert float(2 * run.loss) == pytest.approx(expected, rel=1e-4)
    assert not forecast(s, lr=2 * 1.604e-5, steps=[1]).stable
    assert s.learning_rate_limit / 2 == pytest.approx(1.60309e-5, rel=1e-5)
    assert s.condition == pytest.approx(1803.3, rel=1e-4)


def test_case_9_steps_for_a_square_random_problem() -> None:
    """Stack Overflow 65971606: 1e4 epochs at lr .01 leave 2e-4; 1e-10 takes about 1e5."""
    generator = torch.Generator().manual_seed(0)
    X, Y = torch.rand(200, 300, dtype=F64, generator=generator), torch.rand(200, dtype=F64, generator=generator)
    run = forecast(spectrum(X, Y), lr=0.01, steps=[10**4])
    assert 1e-5 < float(run.loss) < 1e-3
    assert 3e4 < run.steps_to(1e-10) < 3e5


@pytest.mark.parametrize(
    ("momentum", "nesterov", "dampening"),
    [(0.0, False, 0.0), (0.5, False, 0.0), (0.99, False, 0.0), (0.9, True, 0.0), (0.9, False, 0.5), (0.5, False, 0.99)],
)
def test_the_closed_form_is_the_recurrence(momentum: float, nesterov: bool, dampening: float) -> None:
    """Against stepping in extended precision, over all kinds of roots: complex, double, real, negative."""
    mpmath = pytest.importorskip("mpmath")
    limit = step_limit(1.0, momentum, nesterov)
    scaled = torch.tensor([0.0, 1e-12, 1e-3, (1 - momentum) ** 2, 0.5, 1.0, 0.7 * limit, 0.999 * limit], dtype=F64)
    steps = [0, 1, 2, 3, 50, 301]
    descent = descent_of(1.0, momentum, nesterov, dampening)
    found = descent.factors(scaled, torch.tensor(steps))
    bounds = descent.envelopes(scaled, torch.tensor(steps))
    with mpmath.workdps(60):
        for column, s in enumerate(scaled.tolist()):
            error, buffer, path = mpmath.mpf(1), mpmath.mpf(0), []
            for step in range(max(steps) + 1):
                path.append(error)
                gradient = mpmath.mpf(s) * error
                # torch's first gradient becomes the buffer as it is.
                buffer = momentum * buffer + (gradient * (1 - mpmath.mpf(dampening)) if step else gradient)
                error -= gradient + momentum * buffer if nesterov else buffer
            for row, t in enumerate(steps):
                size = max(abs(float(path[t])), float(bounds[row, column]))
                assert abs(float(found[row, column]) - float(path[t])) <= 1e-11 * size + 1e-300
                assert abs(float(path[t])) <= float(bounds[row, column]) * (1 + 1e-9)


@pytest.mark.parametrize("kind", FAMILY)
def test_a_transition_is_a_step_of_torch(kind: Any) -> None:
    """Error, buffer and gradient noise along one direction, against three steps of ``torch.optim.SGD``."""
    momentum, lr, h, noise = (0.0 if kind.takes(0.0, False) else 0.7), 0.1, 3.0, 0.25
    weight = torch.nn.Parameter(torch.ones(1, dtype=F64))
    optimizer = torch.optim.SGD([weight], lr=lr, momentum=momentum, nesterov=kind.nesterov)
    matrix, enters = kind(lr, momentum).transition(torch.tensor([lr * h], dtype=F64))
    state = torch.tensor([1.0, 0.0], dtype=F64)
    for _ in range(3):
        weight.grad = h * weight.detach() + noise
        optimizer.step()
        state = matrix[0] @ state + lr * noise * enters
        assert float(weight.detach()) == pytest.approx(float(state[0]), rel=1e-14)
    assert kind(lr, momentum).growth(2.0 * kind(1.0, momentum).step_limit(1.0)) > 1
    assert kind(lr, momentum).growth(kind(1.0, momentum).step_limit(1.0)) == pytest.approx(1.0, rel=1e-12)


def test_steps_to_is_the_last_step_above() -> None:
    X, Y, _ = random_problem(10)
    s = spectrum(X, Y)
    for momentum, dampening in ((0.0, 0.0), (0.9, 0.0), (0.9, 0.4)):
        lr = 0.3 * s.learning_rate_limit
        run = forecast(s, "momentum", lr=lr, momentum=momentum, dampening=dampening, steps=3000)
        excess = 1e-3 * float(run.excess[0])
        above = (run.excess > excess).nonzero()
        assert run.steps_to(excess) == float(above[-1]) + 1


def test_steps_up_to_1e18_and_never() -> None:
    s = spectrum(torch.diag(torch.tensor([1.0, 1e-8], dtype=F64)), torch.tensor([1.0, 1.0], dtype=F64))
    run = forecast(s, lr=0.9 * s.learning_rate_limit, steps=[10**18])
    # (1 - s)^(2t) with s = 1.8e-16: half of the excess is along the slow direction.
    expected = 0.5 * math.exp(-2 * 10**18 * 1.8e-16)
    assert float(run.excess) == pytest.approx(expected, rel=1e-6, abs=1e-150)
    needed = run.steps_to(1e-6)
    assert needed == pytest.approx(math.log(0.5 / 1e-6) / (2 * 1.8e-16), rel=1e-6)
    assert forecast(s, lr=1.1 * s.learning_rate_limit, steps=[1]).steps_to(1e-6) == math.inf
    assert forecast(s, lr=0.1, weight_decay=0.5, steps=[1]).steps_to(1e-12) == math.inf


@pytest.mark.parametrize("exponent", [0, 3, 12, 40, 50])
def test_steps_are_counted_to_the_last_one_over_the_whole_range(exponent: int) -> None:
    """Without momentum the count is exact: one step fewer leaves more than the goal."""
    s = spectrum(torch.diag(torch.tensor([1.0, 0.5], dtype=F64)), torch.tensor([1.0, 1.0], dtype=F64))
    lr = 0.1 * 2.0**-exponent
    run = forecast(s, lr=lr, steps=[0])
    needed = run.steps_to(1e-6)
    if needed < 2**52:
        assert float(run.excess_at([int(needed)])) <= 1e-6 < float(run.excess_at([int(needed) - 1]))
    # In the end only the slow direction is left; it holds 1/2 and shrinks by 1 - lr / 4 a step.
    assert needed == pytest.approx(math.log(1e-6 / (0.5 * 1.0)) / (2 * math.log1p(-lr / 4)), rel=1e-9, abs=1)


def test_weight_decay_ends_at_the_ridge() -> None:
    X, Y, _ = random_problem(7)
    s = spectrum(X, Y)
    run = forecast(s, lr=0.5 * s.learning_rate_limit, weight_decay=0.01, steps=[10**7])
    l2 = X.shape[0] * Y.shape[1] * 0.01 / 2
    ridge = torch.linalg.solve(X.T @ X + l2 * torch.eye(X.shape[1], dtype=F64), X.T @ Y)
    assert float(run.loss) == pytest.approx(float((X @ ridge - Y).square().mean()), rel=1e-8)
    assert run.decay_excess == pytest.approx(float(run.excess), rel=1e-8)


def test_tuned_methods_need_the_steps_they_are_said_to() -> None:
    X = torch.diag(torch.logspace(0, -2, 30, dtype=F64))
    Y = X.sum(1)
    s = spectrum(X, Y)
    for limit in first_order_limits(s, 1e-6):
        if limit.bound or limit.lr is None or limit.momentum is None:
            continue
        layer = zero_layer(30, 1, bias=False)
        nesterov = limit.name == "nesterov"
        settings = {"lr": limit.lr, "momentum": limit.momentum, "nesterov": nesterov}
        losses = descend(X, Y[:, None], layer, steps=int(limit.steps), **settings)
        assert float(losses[-1]) <= 1e-6 * float(losses[0]) * (1 + 1e-6)
        assert float(losses[-2]) > 1e-6 * float(losses[0])


def test_conjugate_gradients_keep_the_bound() -> None:
    g = torch.Generator().manual_seed(0)
    values = torch.logspace(0, -2, 200, dtype=F64)
    s = spectrum(torch.diag(values), torch.randn(200, dtype=F64, generator=g))
    bound = next(limit for limit in first_order_limits(s, 1e-4) if limit.name == "conjugate gradients")
    H, b = s.eigenvalues, s.eigenvalues.sqrt() * s.target_components[:, 0]
    x, r = torch.zeros_like(b), b.clone()
    p, start = r.clone(), float((b.square() / H).sum())
    steps = 0
    while float((r.square() / H).sum()) > 1e-4 * start:
        alpha = (r @ r) / (p @ (H * p))
        x, new = x + alpha * p, r - alpha * H * p
        p, r = new + (new @ new) / (r @ r) * p, new
        steps += 1
    assert 0.2 * bound.steps < steps <= bound.steps


@pytest.mark.parametrize("start", [None, 100.0])
def test_no_first_order_method_beats_conjugate_gradients(start: float | None) -> None:
    values = torch.logspace(0, -8, 100, dtype=F64)
    # Nearly all of the target lies along the steep directions, where every method is quicker than its bound.
    s = spectrum(torch.diag(values), values**2)
    at = None if start is None else torch.full((1, 100), start, dtype=F64)
    *methods, best = first_order_limits(s, 1e-6, None if at is None else (at, None))
    assert best.name == "conjugate gradients"
    assert best.steps <= min(limit.steps for limit in methods)


def noisy_problem() -> tuple[Tensor, Tensor, Spectrum]:
    g = torch.Generator().manual_seed(0)
    X = torch.randn(400, 5, dtype=F64, generator=g) * torch.tensor([3, 2, 1, 1, 0.5], dtype=F64)
    noise = 0.5 * torch.randn(400, 2, dtype=F64, generator=g)
    Y = X @ torch.randn(5, 2, dtype=F64, generator=g) + noise
    return X, Y, spectrum(X, Y)


def test_mini_batches_in_expectation() -> None:
    X, Y, s = noisy_problem()
    lr, size, runs, steps = 0.02, 4, 300, 150
    predicted = mini_batch(s, lr=lr, batch_size=size, row_count=400)
    curve = predicted.excess_curve(steps)
    g = torch.Generator().manual_seed(1)
    W = torch.zeros(runs, 5, 2, dtype=F64)
    for t in range(steps + 1):
        if t in (0, 5, 20, 50, 100, 150):
            residual = torch.einsum("nd,rdk->rnk", X, W) - Y
            measured = float(residual.square().mean((1, 2)).mean()) - s.optimal_loss
            assert measured == pytest.approx(float(curve[t]), rel=0.12)
        batch = torch.stack([torch.randperm(400, generator=g)[:size] for _ in range(runs)])
        W = W - lr * 2 / (size * 2) * X[batch].transpose(1, 2) @ (X[batch] @ W - Y[batch])
    assert predicted.steps_to(float(curve[50]) * (1 + 1e-9)) == 50
    assert predicted.steps_to(0.5 * predicted.noise_floor) == math.inf


def test_mini_batch_noise_limits_and_full_batches() -> None:
    _, _, s = noisy_problem()
    b = mini_batch(s, lr=1e-3, batch_size=1, row_count=400)
    assert b.lr_limit < s.learning_rate_limit
    assert mini_batch(s, lr=0.99 * b.lr_limit, batch_size=1, row_count=400).stable
    assert not mini_batch(s, lr=1.01 * b.lr_limit, batch_size=1, row_count=400).stable
    full = mini_batch(s, lr=0.05, batch_size=400, row_count=400)
    assert full.noise_floor == 0.0
    plain = forecast(s, lr=0.05, steps=20)
    torch.testing.assert_close(full.excess_curve(20), plain.excess, rtol=1e-9, atol=1e-14)


def test_long_curves_are_sampled_and_short_ones_whole() -> None:
    _, _, s = noisy_problem()
    assert forecast(s, lr=0.01, steps=100).steps.tolist() == list(range(101))
    long = forecast(s, lr=0.01, steps=10**9)
    assert long.steps[0] == 0
    assert long.steps[-1] == 10**9
    assert 100 < long.steps.numel() < 2000
    assert bool((long.excess[1:] <= long.excess[:-1]).all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": -1.0}, "lr=-1"),
        ({"lr": math.nan}, "lr=nan"),
        ({"momentum": 1.0}, "momentum=1"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"dampening": 1.0, "momentum": 0.9}, "dampening=1"),
        ({"dampening": 0.1, "optimizer": "nesterov"}, "refuses it"),
        ({"steps": -1}, "steps"),
        ({"steps": []}, "steps"),
        ({"steps": "many"}, "steps"),
        ({"start": torch.zeros(3, 3)}, "shape"),
        ({"start": (torch.zeros(2, 5), torch.zeros(2))}, "bias"),
        ({"optimizer": "adam"}, "rehearse"),
    ],
)
def test_bad_settings_are_refused_with_the_reason(change: dict[str, object], message: str) -> None:
    _, _, s = noisy_problem()
    settings: dict[str, object] = {"lr": 0.1, **change}
    with pytest.raises(InputError, match=message):
        forecast(s, **settings)  # type: ignore[arg-type]


def test_a_matrix_of_zeros_does_not_move() -> None:
    s = spectrum(torch.zeros(4, 2, dtype=F64), torch.ones(4, dtype=F64))
    run = forecast(s, lr=0.1, steps=10)
    assert run.loss.tolist() == [1.0] * 11
    assert run.steps_to(0.0) == 0
    assert first_order_limits(s, 1e-6) == ()
