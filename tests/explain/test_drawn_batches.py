"""Optimizers without a forecast on mini-batches, held against real loops over other draws."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from closedform.explain.entry import diagnose
from data import F64, gaussian

Make = Callable[[nn.Module], torch.optim.Optimizer]


def _slow_bias(model: nn.Module) -> torch.optim.Optimizer:
    layer: Any = model
    return torch.optim.SGD([{"params": [layer.weight]}, {"params": [layer.bias], "lr": 0.01}], lr=0.05)


OPTIMIZERS: dict[str, Make] = {
    "Adam": lambda m: torch.optim.Adam(m.parameters(), lr=0.03),
    "NAdam": lambda m: torch.optim.NAdam(m.parameters(), lr=0.03),
    "SGD": _slow_bias,
    "LBFGS": lambda m: torch.optim.LBFGS(m.parameters(), lr=0.1, max_iter=2),
}


def problem(noise: float) -> tuple[Tensor, Tensor]:
    X = gaussian(60, 3)
    return X, X @ gaussian(3, 1, seed=1) + 1 + noise * gaussian(60, 1, seed=2)


def train(
    X: Tensor, Y: Tensor, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, size: int, seed: int
) -> float:
    """Train on batches by epochs (even seeds) or of rows drawn anew; return the excess loss at the end."""
    g = torch.Generator().manual_seed(100 + seed)
    parts: list[Tensor] = []
    for _ in range(steps):
        if not parts:
            order = torch.randperm(len(X), generator=g)
            parts = list(order.split(size)) if seed % 2 == 0 else [order[:size]]
        picked = parts.pop(0)

        def closure(picked: Tensor = picked) -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = (model(X[picked]) - Y[picked]).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)  # type: ignore[arg-type]
    ones = torch.cat([torch.ones(len(X), 1, dtype=F64), X], 1)
    best = torch.linalg.lstsq(ones, Y).solution
    return float((model(X).detach() - ones @ best).square().mean())


@pytest.mark.parametrize(("name", "noise"), [(name, 0.3) for name in OPTIMIZERS] + [("Adam", 0.0)])
def test_runs_on_batches_end_where_real_ones_do(name: str, noise: float) -> None:
    X, Y = problem(noise)
    torch.manual_seed(0)
    model, steps, size = nn.Linear(3, 1, dtype=F64), 150 if noise else 300, 7
    optimizer = OPTIMIZERS[name](model)
    d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=steps, batch_size=size)
    course, training = d.case.training.course, d.case.training
    assert course is not None
    ends = []
    for seed in range(3):
        twin = copy.deepcopy(model)
        ends.append(train(X, Y, twin, OPTIMIZERS[name](twin), steps, size, seed))
    middle = sum(ends) / len(ends)
    assert course.least / 3 <= middle <= 3 * course.most
    assert course.known == "rehearsed on batches drawn from these data"
    assert d.verdict.name != "not_judged" or training.reaches_goal is None
    if training.reaches_goal is not None:
        assert training.reaches_goal == (middle <= training.goal_excess)


def test_a_run_goes_on_from_the_state_of_its_optimizer() -> None:
    """Second moments of large gradients make for short steps; a fresh Adam would be a hundred times as far."""
    X, Y = problem(0.0)
    torch.manual_seed(0)
    model = nn.Linear(3, 1, dtype=F64)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.9999))
    for _ in range(3):
        optimizer.zero_grad()
        (1e4 * model(X).square().mean()).backward()
        optimizer.step()
    d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=20, batch_size=7)
    before, course = d.case.training.start_excess, d.case.training.course
    assert course is not None
    twin = copy.deepcopy(model)
    own = torch.optim.Adam(twin.parameters(), lr=1e-3, betas=(0.9, 0.9999))
    own.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    end = train(X, Y, twin, own, 20, 7, 0)
    assert math.isclose(before - course.left, before - end, rel_tol=0.3)


def test_the_remedy_for_the_noise_floor_of_adam_helps() -> None:
    X, Y = problem(0.3)
    torch.manual_seed(0)
    model = nn.Linear(3, 1, dtype=F64)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=400, batch_size=7)
    finding = next(finding for finding in d.findings if finding.name == "adaptive_circles")
    assert "on batches of 7 stops at a noise floor" in finding.title
    ends = []
    for falling in (False, True):
        twin, scope = copy.deepcopy(model), {"torch": torch}
        exec(finding.remedy.split("# or at once")[0], scope | {"model": twin}, names := {})
        own, scheduler = names["optimizer"], names["scheduler"]
        if falling:
            own.register_step_post_hook(lambda *_, scheduler=scheduler: scheduler.step())
        ends.append(train(X, Y, twin, own, 400, 7, 0))
    assert ends[1] < ends[0] / 5
