"""SGD under any schedule: its limit is looked at, and its end comes true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from closedform.explain.entry import diagnose
from closedform.explain.finding import Severity
from closedform.words.errors import InputError
from data import F64, gaussian

X = gaussian(100, 4)
Y = X @ gaussian(4, 1, seed=1) + 0.1 * gaussian(100, 1, seed=2)
LIMIT = diagnose(X, Y).learning_rate_limit

Schedule = Callable[[torch.optim.Optimizer], Any]
SCHEDULES: dict[str, Schedule] = {
    "flat": lambda o: torch.optim.lr_scheduler.StepLR(o, 5000),
    "steps": lambda o: torch.optim.lr_scheduler.StepLR(o, 100, 0.5),
    "warm-up": lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.1, 1.0, 100),
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 400),
    "one cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, o.param_groups[0]["lr"], total_steps=401),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("share", "momentum", "nesterov"),
    [(1.3, 0.0, False), (0.8, 0.0, False), (0.75, 0.9, True), (0.2, 0.9, True), (2.2, 0.9, False), (0.5, 0.9, False)],
)
def test_what_a_schedule_leaves_is_what_training_leaves(
    schedule: str, share: float, momentum: float, nesterov: bool
) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 1, bias=False, dtype=F64)
    optimizer = torch.optim.SGD(model.parameters(), lr=share * LIMIT, momentum=momentum, nesterov=nesterov)
    if schedule == "one cycle" and not momentum:
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, share * LIMIT, total_steps=401, cycle_momentum=False)
    else:
        scheduler = SCHEDULES[schedule](optimizer)
    d = diagnose(X, Y, model=model, optimizer=optimizer, scheduler=scheduler, steps=400)
    run = d.case.training.scheduled
    assert run is not None
    for _ in range(400):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(X), Y).backward()
        optimizer.step()
        scheduler.step()
    real = float(nn.functional.mse_loss(model(X), Y).detach()) - d.case.spectrum.optimal_loss
    start, goal = d.case.training.start_excess, d.case.goal_excess
    if real > 10 * start:
        # What grows there is rounding that the warm-up has left: how much of it, no forecast knows.
        assert run.left > 10 * start
        assert d.verdict.name == "lr_above_limit"
        assert d.verdict.severity is Severity.ERROR
        assert d.findings[0].evidence["ratio"] > 1
    elif run.peak > 100 * start:
        assert d.verdict.name == "lr_above_limit"
    else:
        assert run.left == pytest.approx(real, rel=1e-6, abs=1e-13)
        assert (d.verdict.name == "nothing_wrong") == (real <= goal)


def test_what_stays_the_same_is_followed_by_squaring() -> None:
    model = nn.Linear(4, 1, bias=False, dtype=F64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4 * LIMIT, momentum=0.5, weight_decay=1e-3)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0, 1)
    settings: dict[str, Any] = {"model": model, "optimizer": optimizer, "steps": 10**7}
    run = diagnose(X, Y, scheduler=scheduler, **settings).case.training.scheduled
    plain = diagnose(X, Y, **settings).case.training.forecast
    assert run is not None
    assert plain is not None
    assert run.left == pytest.approx(float(plain.excess_at([10**7])), rel=1e-6)


def test_a_schedule_of_the_users_own_that_raises_is_named_with_its_step() -> None:
    model = nn.Linear(4, 1, bias=False, dtype=F64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 / (5 - epoch))
    with pytest.raises(InputError, match="LambdaLR raises ZeroDivisionError at step 6"):
        _ = diagnose(X, Y, model=model, optimizer=optimizer, scheduler=scheduler, steps=9).verdict


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_a_learning_rate_that_is_a_tensor_is_read_at_each_step(make: Any) -> None:
    left = []
    for lr in (0.5 * LIMIT, torch.tensor(0.5 * LIMIT, dtype=F64)):
        model = nn.Linear(4, 1, bias=False, dtype=F64)
        nn.init.zeros_(model.weight)
        optimizer = make(model.parameters(), lr=lr)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.5)
        course = diagnose(X, Y, model=model, optimizer=optimizer, scheduler=scheduler, steps=40).case.training.course
        assert course is not None
        left.append(course.left)
    assert left[0] == pytest.approx(left[1], rel=1e-6)
