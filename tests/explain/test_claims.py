"""Sentences and numbers of a diagnosis held against real runs, one for each kind of claim that was once false."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from closedform.explain.entry import diagnose
from closedform.explain.finding import Severity
from data import F64, gaussian, train


@pytest.mark.parametrize("seed", range(4))
def test_shares_are_of_the_loss_that_the_run_starts_with(seed: int) -> None:
    """E13: "it leaves 1.3 of the excess loss" where a hundredth of the start was left."""
    X = gaussian(60, 3, seed=seed) * torch.tensor([1.0, 0.3, 0.03], dtype=F64) + 2
    Y = X.sum(1, keepdim=True) + 3
    torch.manual_seed(seed)
    model = nn.Linear(3, 1, dtype=F64)
    start = float(nn.functional.mse_loss(model(X), Y).detach())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=300)
    found = next(finding for finding in d.findings if finding.name == "more_steps_needed")
    left = float(train(X, Y, model, optimizer, 300)[-1])
    assert found.evidence["share_left"] == pytest.approx(left / start, rel=1e-6)
    assert found.evidence["share_left"] < 1
    assert "of the excess loss it starts with" in found.consequence


def test_a_step_exactly_at_the_limit_is_said_to_be_there() -> None:
    """E14: "grows by 1 a step: the run diverges" at the limit itself, where the loss stays as it is."""
    one, model = torch.ones(1, 1, dtype=F64), nn.Linear(1, 1, bias=False, dtype=F64)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0)

    def half(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return 0.5 * ((output - target) ** 2).mean()

    d = diagnose(one, one, model=model, optimizer=optimizer, criterion=half, steps=100)
    assert d.verdict.title == "lr=2 is at the largest stable step, 2"
    assert "keeps its size from step to step: the run does not converge" in d.verdict.sentence
    assert "diverges" not in str(d)
    for _ in range(100):
        optimizer.zero_grad()
        half(model(one), one).backward()
        optimizer.step()
    assert float((model(one) - one).abs().detach()) == 1.0


@pytest.mark.parametrize("scale", [1.0, 3.0, 1e3])
def test_one_column_differs_in_scale_from_nothing_but_the_bias(scale: float) -> None:
    """E14: "the columns differ in scale by 1", "cannot suit column 0 and column 0"."""
    x = torch.arange(200, dtype=F64).reshape(-1, 1) * scale
    text = str(diagnose(x, 2 * x, bias=True)).replace("\n", " ")
    assert "differ in scale by 1:" not in text
    assert "column 0 and column 0" not in text


def test_what_nobody_sees_in_a_plot_is_no_error_and_what_diverges_is_not_slow() -> None:
    """E14: an ERROR for 6.8e-6 of the excess loss; a run that diverges was "too slow" as well."""
    X = gaussian(100, 4) * torch.tensor([1.0, 1.0, 1.0, 0.1], dtype=F64)
    Y = X.sum(1, keepdim=True)
    settings: dict[str, Any] = {"criterion": nn.MSELoss()}
    model = nn.Linear(4, 1, bias=False, dtype=F64)
    nn.init.zeros_(model.weight)
    limit = diagnose(X, Y).learning_rate_limit
    slow = torch.optim.SGD(model.parameters(), lr=0.9 * limit)
    needed = int(diagnose(X, Y, model=model, optimizer=slow, **settings).case.training.steps_to_goal)
    d = diagnose(X, Y, model=model, optimizer=slow, steps=needed - 1, **settings)
    assert d.case.training.reaches_goal is False
    assert all(finding.severity is not Severity.ERROR for finding in d.findings)

    wild = torch.optim.SGD(model.parameters(), lr=1.5 * limit)
    found = [finding.name for finding in diagnose(X, Y, model=model, optimizer=wild, steps=50, **settings).findings]
    assert found[0] == "lr_above_limit"
    assert "more_steps_needed" not in found
    assert "lr_starved" not in found


class Spoken:
    """A progress that writes down what it is told, and ends the work where a user would."""

    told: list[tuple[str, float]]
    stops_after: int

    def __init__(self, wanted: object) -> None:
        assert wanted is None

    def __enter__(self) -> Spoken:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __call__(self, label: str, part: float) -> None:
        type(self).told.append((label, part))
        if len(type(self).told) == type(self).stops_after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["LBFGS", "Adam"])
def test_long_rehearsals_say_how_far_they_are_and_can_be_interrupted(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E19: a single step() of LBFGS took minutes without a word; and so may steps in NumPy."""
    Spoken.told, Spoken.stops_after = [], -1
    monkeypatch.setattr("closedform.explain.rehearsal.Progress", Spoken)
    monkeypatch.setattr("closedform.explain.stepping.Progress", Spoken)
    X = gaussian(80, 12) * torch.logspace(0, -5, 12, dtype=F64)
    Y = X @ torch.logspace(0, 5, 12, dtype=F64).unsqueeze(1)
    torch.manual_seed(0)
    model = nn.Linear(12, 1, bias=False, dtype=F64)
    kind: Any = getattr(torch.optim, name)
    options = {"max_iter": 200, "tolerance_grad": 0, "tolerance_change": 0} if name == "LBFGS" else {"lr": 1e-3}
    optimizer, steps = kind(model.parameters(), **options), 1 if name == "LBFGS" else 2500
    d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=steps)
    assert d.verdict
    assert all(label.startswith(f"rehearsing {name}") and 0 <= part < 1 for label, part in Spoken.told)
    heard = len(Spoken.told)
    assert heard >= 2

    weights = model.weight.detach().clone()
    Spoken.told, Spoken.stops_after = [], 2
    again = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=steps)
    with pytest.raises(KeyboardInterrupt):
        str(again)
    assert len(Spoken.told) == 2
    assert torch.equal(model.weight, weights)
    # And once more, to the end: an interrupt leaves nothing half done behind.
    Spoken.stops_after = -1
    assert again.verdict == d.verdict
