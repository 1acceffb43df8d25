"""Mini-batches against the exact map of second moments, and against many real runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from closedform.explain.entry import diagnose
from closedform.explain.forecasts import mini_batch
from closedform.explain.forecasts.minibatch import share_by_epochs
from closedform.explain.moments import row_moments
from closedform.explain.spectra import spectrum_of_rows
from closedform.rows import as_rows
from covering import parametrize_covering
from data import F64, gaussian


def exact_limit(X: np.ndarray, size: int) -> float:
    """The learning rate where the spectral radius of ``E[(1 - lr h) kron (1 - lr h)]`` is one."""
    rows, columns = X.shape
    H = 2 * X.T @ X / rows
    each = sum(np.kron(2 * np.outer(x, x), 2 * np.outer(x, x)) for x in X) / rows
    share = (rows - size) / (rows - 1) / size
    one = np.eye(columns)
    low, high = 0.0, 2 / float(np.linalg.eigvalsh(H)[-1])
    for _ in range(40):
        lr = (low + high) / 2
        step = np.eye(columns**2) - lr * (np.kron(H, one) + np.kron(one, H))
        step = step + lr**2 * (share * each + (1 - share) * np.kron(H, H))
        low, high = (lr, high) if max(abs(np.linalg.eigvals(step))) < 1 else (low, lr)
    return low


def table(kind: str, columns: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = {
        "gauss": lambda: rng.standard_normal((200, columns)),
        "uniform": lambda: rng.uniform(0, 1, (200, columns)),
        "lognormal": lambda: rng.lognormal(size=(200, columns)),
    }[kind]()
    return X, X.sum(1) + rng.standard_normal(200)


@pytest.mark.parametrize("size", [1, 8])
@pytest.mark.parametrize("columns", [1, 2, 4])
@pytest.mark.parametrize("kind", ["gauss", "uniform", "lognormal"])
def test_the_limit_is_that_of_the_exact_map(kind: str, columns: int, size: int) -> None:
    X, y = table(kind, columns)
    rows = as_rows(torch.from_numpy(X), torch.from_numpy(y))
    spectrum = spectrum_of_rows(rows, bias=False, l2=0.0)
    found = mini_batch(spectrum, lr=1e-9, batch_size=size, row_count=200, moments=row_moments(rows, spectrum))
    assert found.lr_limit == pytest.approx(exact_limit(X, size), rel=0.01)


@parametrize_covering(
    2, kind=["gauss", "uniform", "lognormal"], columns=[1, 3], draws=["anew", "with replacement", "by epochs"]
)
def test_the_noise_floor_is_where_real_runs_stop(kind: str, columns: int, draws: str) -> None:
    X, y = table(kind, columns)
    rows = as_rows(torch.from_numpy(X), torch.from_numpy(y))
    spectrum = spectrum_of_rows(rows, bias=False, l2=0.0)
    moments, size, runs = row_moments(rows, spectrum), 2, 400
    limit = mini_batch(spectrum, lr=1e-9, batch_size=size, row_count=200, moments=moments).lr_limit
    predicted = mini_batch(spectrum, lr=limit / 4, batch_size=size, row_count=200, moments=moments)
    rng = np.random.default_rng(1)
    best = np.linalg.lstsq(X, y, rcond=None)[0]
    weights, gram, total, steps = np.tile(best, (runs, 1)), X.T @ X / 200, 0.0, 600
    order = np.argsort(rng.random((runs, 200)), axis=1)
    for step in range(steps):
        if draws == "with replacement":
            picked = rng.integers(0, 200, (runs, size))
        elif draws == "anew":
            picked = np.argpartition(rng.random((runs, 200)), size, axis=1)[:, :size]
        else:
            place = step * size % 200
            order = np.argsort(rng.random((runs, 200)), axis=1) if place == 0 else order
            picked = order[:, place : place + size]
        batch = X[picked]
        residual = np.einsum("rbd,rd->rb", batch, weights) - y[picked]
        weights = weights - limit / 4 * 2 / size * np.einsum("rbd,rb->rd", batch, residual)
        if step >= steps // 2:
            error = weights - best
            total += float(np.einsum("rd,de,re->r", error, gram, error).mean())
    floor = predicted.noise_floor_by_epochs if draws == "by epochs" else predicted.noise_floor
    assert floor == pytest.approx(total / (steps - steps // 2), rel=0.15)


@pytest.mark.parametrize("moved", [0.05, 0.5, 1.2])
@pytest.mark.parametrize("batches", [2, 7, 40])
def test_what_shuffled_passes_leave_is_that_of_their_covariance(moved: float, batches: int) -> None:
    """The noise of one direction, its covariance written out over several passes."""
    passes = 60
    covariance = np.kron(np.eye(passes), np.eye(batches) - (1 - np.eye(batches)) / (batches - 1))
    kept, steps = 1 - moved, passes * batches
    shares = []
    for end in range(steps - batches + 1, steps + 1):
        weights = kept ** (end - 1 - np.arange(end, dtype=float))
        shares.append(float(weights @ covariance[:end, :end] @ weights))
    wanted = float(np.mean(shares)) * (1 - kept**2)
    found = share_by_epochs(torch.tensor([moved], dtype=F64), batches)
    assert float(found) == pytest.approx(wanted, rel=1e-3)


def test_every_learning_rate_in_a_remedy_is_stable_for_the_batches() -> None:
    """keras-team/keras#3040: x = 0..199, y = 2x, batches of one."""
    x = torch.arange(200, dtype=F64).reshape(-1, 1)
    for size in (1, 2, 16):
        torch.manual_seed(0)
        model = nn.Linear(1, 1, dtype=F64)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        d = diagnose(x, 2 * x, model=model, optimizer=optimizer, criterion=nn.MSELoss(), batch_size=size, steps=200)
        names = {"torch": torch, "model": model}
        exec(d.findings[0].remedy.split("# or at once")[0], names)
        trained = names["optimizer"]
        assert isinstance(trained, torch.optim.SGD)
        before = float(nn.functional.mse_loss(model(x), 2 * x).detach())
        for _ in range(10):
            for picked in torch.randperm(200).split(size):
                trained.zero_grad()
                nn.functional.mse_loss(model(x[picked]), 2 * x[picked]).backward()
                trained.step()
        assert float(nn.functional.mse_loss(model(x), 2 * x).detach()) < before


def test_a_noise_floor_does_not_hide_that_steps_are_missing() -> None:
    X = gaussian(40, 3) * torch.tensor([1.0, 1e-2, 1e-2], dtype=F64)
    Y = X.sum(1, keepdim=True) + 0.3 * gaussian(40, 1, seed=1)
    model = nn.Linear(3, 1, dtype=F64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), batch_size=2, steps=300)
    names = [finding.name for finding in d.findings]
    assert d.verdict.name == "more_steps_needed"
    assert "mini_batch_noise" in names
    assert d.findings[0].evidence["steps_needed"] > 300
