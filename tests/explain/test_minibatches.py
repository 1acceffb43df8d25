"""Mini-batches against the exact map of second moments, and against many real runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from closedform.explain.entry import diagnose
from closedform.explain.forecasts import MiniBatch, descent_of, mini_batch
from closedform.explain.forecasts.responses import Responses
from closedform.explain.moments import row_moments
from closedform.explain.spectra import spectrum_of_rows
from closedform.rows import as_rows
from covering import parametrize_covering
from data import F64, gaussian, zero_layer

#: Settings of ``torch.optim.SGD`` beside the learning rate.
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "heavy ball": {"momentum": 0.9},
    "nesterov": {"momentum": 0.6, "nesterov": True},
    "dampened, decay": {"momentum": 0.5, "dampening": 0.3, "weight_decay": 0.3},
}


def maps(X: np.ndarray, picked: np.ndarray, settings: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """What a step on these rows makes of (error, momentum), as ``still - lr * moved``."""
    columns, m = X.shape[1], settings.get("momentum", 0.0)
    one, share = np.eye(columns), 1 - settings.get("dampening", 0.0)
    gradient = 2 * X[picked].T @ X[picked] / len(picked) + settings.get("weight_decay", 0.0) * one
    buffer = np.hstack([share * gradient, m * one])
    direction = np.hstack([gradient, 0 * one]) + m * buffer if settings.get("nesterov") else buffer
    return np.vstack([np.hstack([one, 0 * one]), buffer]), np.vstack([direction, 0 * buffer])


def squares(steps: np.ndarray) -> np.ndarray:
    """The mean of ``step kron step`` over steps stacked along the first axis."""
    size = steps.shape[1]
    return np.einsum("sij,skl->ikjl", steps, steps).reshape(size**2, size**2) / len(steps)


def radius_limit(mean_square: Callable[[float], np.ndarray], high: float) -> float:
    """The learning rate where the spectral radius of a map of second moments is one."""
    low = 0.0
    for _ in range(18):
        lr = (low + high) / 2
        low, high = (lr, high) if max(abs(np.linalg.eigvals(mean_square(lr)))) < 1 else (low, lr)
    return low


def exact_limit(X: np.ndarray, size: int, settings: dict[str, Any]) -> float:
    """The limit for rows drawn anew: of ``E[step kron step]``, a parabola in the noise of a batch."""
    rows = X.shape[0]
    share = (rows - size) / (rows - 1) / size

    still, moved = (
        np.stack(parts) for parts in zip(*(maps(X, np.array([i]), settings) for i in range(rows)), strict=True)
    )

    def mean_square(lr: float) -> np.ndarray:
        each = still - lr * moved
        return (1 - share) * squares(each.mean(0, keepdims=True)) + share * squares(each)

    return radius_limit(mean_square, 4 / float(np.linalg.eigvalsh(2 * X.T @ X / rows)[-1]))


def predicted(X: np.ndarray, y: np.ndarray, size: int, lr: float, settings: dict[str, Any]) -> MiniBatch:
    rows = as_rows(torch.from_numpy(X), torch.from_numpy(y))
    spectrum = spectrum_of_rows(rows, bias=False, l2=0.0)
    moments = row_moments(rows, spectrum)
    return mini_batch(spectrum, lr=lr, batch_size=size, row_count=len(X), moments=moments, **settings)


def table(kind: str, columns: int, rows: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = {
        "gauss": lambda: rng.standard_normal((rows, columns)),
        "uniform": lambda: rng.uniform(0, 1, (rows, columns)),
        "lognormal": lambda: rng.lognormal(size=(rows, columns)),
    }[kind]()
    return X, X.sum(1) + rng.standard_normal(rows)


@parametrize_covering(2, size=[1, 8], columns=[1, 3], kind=["gauss", "uniform", "lognormal"], settings=list(SETTINGS))
def test_the_limit_is_that_of_the_exact_map(settings: str, kind: str, columns: int, size: int) -> None:
    X, y = table(kind, columns, rows=40)
    found = predicted(X, y, size, 1e-9, SETTINGS[settings])
    assert found.lr_limit == pytest.approx(exact_limit(X, size, SETTINGS[settings]), rel=0.01)


@pytest.mark.parametrize(("kind", "size"), [("gauss", 1), ("lognormal", 1), ("uniform", 1), ("gauss", 3)])
@pytest.mark.parametrize("settings", ["plain", "heavy ball"])
def test_the_limit_by_epochs_is_that_of_all_orders_of_the_rows(settings: str, kind: str, size: int) -> None:
    """Few rows, so that every order can be written out: the mean over them of (pass kron pass)."""
    X, y = table(kind, 2, rows=5)
    orders = np.array(list(itertools.permutations(range(5))))[:: 1 if size == 1 else 3]
    batches = [orders[:, first : first + size] for first in range(0, 5, size)]
    chosen = SETTINGS[settings]
    parts = [
        [np.stack(part) for part in zip(*(maps(X, rows, chosen) for rows in batch), strict=True)] for batch in batches
    ]

    def mean_square(lr: float) -> np.ndarray:
        whole = np.eye(4)
        for still, moved in parts:
            whole = (still - lr * moved) @ whole
        return squares(whole)

    found = predicted(X, y, size, 1e-9, SETTINGS[settings])
    exact = radius_limit(mean_square, 3 * found.mean.limit)
    assert found.lr_limit_by_epochs == pytest.approx(exact, rel=0.1)


@parametrize_covering(
    2,
    case=[(name, 0.25) for name in SETTINGS] + [("nesterov", 0.6)],
    draws=["anew", "by epochs"],
    rows=[("gauss", 1), ("uniform", 3), ("lognormal", 2)],
)
def test_the_noise_floor_is_where_real_runs_stop(case: tuple[str, float], draws: str, rows: tuple[str, int]) -> None:
    (settings, share), (kind, columns) = case, rows
    X, y = table(kind, columns)
    size, chosen = 12, SETTINGS[settings]
    lr = share * predicted(X, y, size, 1e-9, chosen).lr_limit
    found = predicted(X, y, size, lr, chosen)
    excess = floor_of_runs(X, y, [lr], size, draws, chosen, runs=200, steps=300, last=150)
    floor = found.noise_floor_by_epochs if draws == "by epochs" else found.noise_floor
    assert floor + found.mean.decay_excess == pytest.approx(excess, rel=0.15)


@pytest.mark.parametrize(("kind", "columns"), [("gauss", 1), ("uniform", 3), ("lognormal", 2)])
def test_the_noise_floor_of_two_rows_that_may_be_the_same(kind: str, columns: int) -> None:
    X, y = table(kind, columns)
    lr = 0.25 * predicted(X, y, 2, 1e-9, {}).lr_limit
    excess = floor_of_runs(X, y, [lr], 2, "with replacement", {}, runs=200, steps=700, last=500)
    assert predicted(X, y, 2, lr, {}).noise_floor == pytest.approx(excess, rel=0.15)


def floor_of_runs(
    X: np.ndarray,
    y: np.ndarray,
    rates: list[float],
    size: int,
    draws: str,
    settings: dict[str, Any],
    *,
    runs: int,
    steps: int,
    last: int,
    start: np.ndarray | None = None,
) -> float:
    """Excess loss over the last steps of many real runs, side by side; 200 rows are no multiple of every size."""
    rng, m = np.random.default_rng(1), settings.get("momentum", 0.0)
    best = np.linalg.lstsq(X, y, rcond=None)[0]
    weights = np.tile(best if start is None else start, (runs, 1))
    gram, total, rows = X.T @ X / len(X), 0.0, len(X)
    held, batches, each = None, -(-rows // size), np.arange(runs)
    order = np.tile(np.arange(rows), (runs, 1))
    for step in range(steps):
        if draws == "with replacement":
            order = rng.integers(rows, size=(runs, size))
        elif draws == "anew":
            # Fisher and Yates's shuffle of every run's rows, as far as it is looked at.
            for number in range(size):
                other = rng.integers(number, rows, runs)
                chosen = order[each, other]
                order[each, other], order[:, number] = order[:, number], chosen
        elif step % batches == 0:
            order = np.argsort(rng.random((runs, rows)), axis=1)
        place = step % batches * size if draws == "by epochs" else 0
        picked = order[:, place : place + size]
        batch = X[picked]
        residual = np.einsum("rbd,rd->rb", batch, weights) - y[picked]
        gradient = 2 / picked.shape[1] * np.einsum("rbd,rb->rd", batch, residual)
        gradient += settings.get("weight_decay", 0.0) * weights
        held = gradient if held is None else m * held + (1 - settings.get("dampening", 0.0)) * gradient
        lr = rates[min(step, len(rates) - 1)]
        weights = weights - lr * (gradient + m * held if settings.get("nesterov") else held if m else gradient)
        if step >= steps - last:
            error = weights - best
            total += float(np.einsum("rd,de,re->r", error, gram, error).mean())
    return total / last


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
    found = Responses(descent_of(1.0), torch.tensor([moved], dtype=F64)).share_by_epochs(batches, 1)
    assert float(found) == pytest.approx(wanted, rel=1e-3)


@parametrize_covering(
    2,
    size=[1, 16],
    settings=[{}, {"momentum": 0.9}, {"momentum": 0.8, "nesterov": True, "weight_decay": 1e-3}],
    wrong=["above the limit", "above that of the batches", "uphill"],
)
def test_every_learning_rate_in_a_remedy_is_stable_for_the_batches(
    wrong: str, settings: dict[str, Any], size: int
) -> None:
    """keras-team/keras#3040: x = 0..199, y = 2x, in batches."""
    x = torch.arange(200, dtype=F64).reshape(-1, 1)
    torch.manual_seed(0)
    model = nn.Linear(1, 1, dtype=F64)
    given: dict[str, Any] = {"model": model, "criterion": nn.MSELoss(), "batch_size": size, "steps": 200}
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9, maximize=wrong == "uphill", **settings)
    limit = predicted(np.column_stack([np.ones(200), x.numpy()]), 2 * x.numpy()[:, 0], size, 1e-9, settings).lr_limit
    optimizer.param_groups[0]["lr"] = {"above the limit": 1e-2}.get(wrong, 1.2 * limit)
    findings = diagnose(x, 2 * x, optimizer=optimizer, **given).findings
    remedy = next(f.remedy for f in findings if f.name in ("climbs", "lr_above_limit", "mini_batch_noise"))
    names = {"torch": torch, "model": model}
    exec(remedy.split("# or at once")[0], names)
    trained = names["optimizer"]
    assert isinstance(trained, torch.optim.SGD)
    before = float(nn.functional.mse_loss(model(x), 2 * x).detach())
    for _ in range(4 if size == 1 else 16):
        for picked in torch.randperm(200).split(size):
            trained.zero_grad()
            nn.functional.mse_loss(model(x[picked]), 2 * x[picked]).backward()
            trained.step()
    assert float(nn.functional.mse_loss(model(x), 2 * x).detach()) < before


SCHEDULES: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 300),
    "steps": lambda o: torch.optim.lr_scheduler.StepLR(o, 100, 0.3),
    "early": lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.1, 50),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("kind", "settings"), [("lognormal", {}), ("uniform", {"momentum": 0.8, "weight_decay": 0.01})]
)
def test_batches_under_a_schedule_end_where_real_runs_do(schedule: str, kind: str, settings: dict[str, Any]) -> None:
    X, y = table(kind, 2)
    model = zero_layer(2, 1, bias=False)
    lr = 0.3 * predicted(X, y, 8, 1e-9, settings).lr_limit
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, **settings)
    scheduler = SCHEDULES[schedule](optimizer)
    given: dict[str, Any] = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    d = diagnose(X, y[:, None], criterion=nn.MSELoss(), batch_size=8, steps=300, **given)
    course = d.case.training.course
    assert course is not None
    assert d.verdict.name != "not_judged"
    rates = [now.lr for now in d.case.training.coming]
    ends = floor_of_runs(X, y, rates, 8, "anew", settings, runs=400, steps=300, last=1, start=np.zeros(2))
    assert course.left == pytest.approx(ends, rel=0.15)


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
