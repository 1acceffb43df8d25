"""Records of real loops with a slip, held against the forecast."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from closedform.explain.diagnosis import Diagnosis
from closedform.explain.entry import diagnose
from closedform.words.errors import InputError
from data import F64, gaussian

Make = Callable[[Any], torch.optim.Optimizer]
mse: Callable[[Tensor, Tensor], Tensor] = nn.functional.mse_loss

SGD: Make = lambda p: torch.optim.SGD(p, lr=0.03)  # noqa: E731
MOMENTUM: Make = lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)  # noqa: E731
ADAM: Make = lambda p: torch.optim.Adam(p, lr=0.02)  # noqa: E731


SCHEDULES: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "scheduler": lambda o: torch.optim.lr_scheduler.StepLR(o, 20, 0.3),
    "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 60),
    "warm-up": lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.1, 1.0, 20),
}


def same(X: Tensor) -> Tensor:
    return X


def standardise(X: Tensor) -> Tensor:
    return (X - X.mean(0)) / X.std(0)


def problem(dtype: torch.dtype = F64, targets: int = 1) -> tuple[Tensor, Tensor]:
    X = gaussian(100, 2)
    Y = X @ gaussian(2, targets, seed=1) * 3 + 4.2 + 0.01 * gaussian(100, targets, seed=2)
    return X.to(dtype), Y.to(dtype)


def record(X: Tensor, Y: Tensor, model: nn.Module, make: Make, slip: str, steps: int = 60) -> list[float]:
    """Train with a slip, and write down what a user would."""
    optimizer = make(model.parameters())
    scheduler = SCHEDULES[slip](optimizer) if slip in SCHEDULES else None
    if slip == "rate":
        optimizer.param_groups[0]["lr"] *= 0.4
    history = []
    X = {"batch norm": nn.BatchNorm1d(X.shape[1], affine=False, dtype=X.dtype), "standard": standardise}.get(
        slip, same
    )(X)
    torch.manual_seed(3)
    for step in range(steps):
        if slip not in ("never zeroed", "seldom zeroed") or (slip == "seldom zeroed" and step % 4 == 0):
            optimizer.zero_grad()
        fed = nn.functional.dropout(X, 0.3) if slip == "dropout" else X
        loss = mse(model(fed), Y) if slip != "sum" else ((model(X) - Y) ** 2).sum(1).mean()
        (-loss if slip == "uphill" else loss).backward()
        if slip == "clip":
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if slip != "nothing":
            optimizer.step()
        if scheduler is not None:
            scheduler.step()
        history.append(float(mse(model(X), Y).detach() if slip in ("after", "sum") else loss.detach()))
    return history


def judged(make: Make, slip: str, dtype: torch.dtype = F64, every: int = 1, targets: int = 1) -> Diagnosis:
    X, Y = problem(dtype, targets)
    torch.manual_seed(0)
    model = nn.Linear(2, targets, dtype=dtype)
    history = record(X, Y, copy.deepcopy(model), make, slip)[::every]
    optimizer = make(model.parameters())
    return diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=60, history=history)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("make", [SGD, MOMENTUM, ADAM])
@pytest.mark.parametrize(("slip", "every"), [("none", 1), ("after", 1), ("none", 5)])
def test_a_record_of_the_run_itself_is_no_finding(make: Make, slip: str, every: int, dtype: torch.dtype) -> None:
    assert "history_differs" not in [finding.name for finding in judged(make, slip, dtype, every).findings]


@pytest.mark.parametrize(
    ("make", "slip", "title"),
    [
        (SGD, "never zeroed", "Gradients are never zeroed"),
        (MOMENTUM, "never zeroed", "Gradients are never zeroed"),
        (ADAM, "never zeroed", "Gradients are never zeroed"),
        (SGD, "uphill", "goes uphill"),
        (MOMENTUM, "uphill", "goes uphill"),
        (ADAM, "uphill", "goes uphill"),
        (SGD, "nothing", "Nothing moves"),
        (ADAM, "nothing", "Nothing moves"),
        (SGD, "clip", "clips its gradients to a length of 1"),
        (MOMENTUM, "clip", "clips its gradients to a length of 1"),
        (SGD, "scheduler", "learning rate of the recorded run changes: from 0.03"),
        (MOMENTUM, "scheduler", "learning rate of the recorded run changes: from 0.01"),
        (ADAM, "scheduler", "learning rate of the recorded run changes: from 0.02"),
        (MOMENTUM, "cosine", "learning rate of the recorded run changes: from 0.01"),
        (ADAM, "warm-up", "learning rate of the recorded run changes: from 0.002"),
        (SGD, "rate", "a learning rate of 0.012, not 0.03"),
        (MOMENTUM, "rate", "a learning rate of 0.004, not 0.01"),
        (ADAM, "rate", "a learning rate of 0.008, not 0.02"),
        (ADAM, "clip", "clips its gradients to a length of"),
        (SGD, "seldom zeroed", "zeroed every 4 steps only"),
        (ADAM, "seldom zeroed", "zeroed every 4 steps only"),
        (SGD, "batch norm", "normalises its features: a batch norm in train mode"),
        (ADAM, "standard", "normalises its features: a batch norm in train mode"),
        (SGD, "dropout", "losses are random: a layer in train mode"),
        (ADAM, "dropout", "losses are random: a layer in train mode"),
    ],
)
def test_a_known_slip_is_named(make: Make, slip: str, title: str) -> None:
    d = judged(make, slip)
    found = next(finding for finding in d.findings if finding.name == "history_differs")
    assert title in found.title
    assert d.verdict.name == "history_differs"


def test_other_rows_are_not_taken_for_a_schedule() -> None:
    """Some learning rates or other lead through any losses: the start has to be that of the run as given."""
    X, Y = problem()
    for make in (SGD, ADAM):
        torch.manual_seed(0)
        model = nn.Linear(2, 1, dtype=F64)
        history = record(X[:70], Y[:70], copy.deepcopy(model), make, "none")
        d = diagnose(X, Y, model=model, optimizer=make(model.parameters()), steps=60, history=history)
        assert "these weights on these rows" in d.findings[0].title


def test_a_sum_over_targets_is_told_from_the_mean() -> None:
    found = judged(SGD, "sum", targets=3).findings[0]
    assert found.title == (
        "The recorded run is one whose loss is summed over targets where the criterion given takes the mean"
    )


def test_a_record_of_other_rows_is_told_by_its_start() -> None:
    X, Y = problem()
    model = nn.Linear(2, 1, dtype=F64)
    history = record(X * 10, Y, copy.deepcopy(model), lambda p: torch.optim.SGD(p, lr=1e-4), "none")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=60, history=history)
    found = next(finding for finding in d.findings if finding.name == "history_differs")
    assert "these weights on these rows" in found.title


def test_a_record_that_leads_up_to_the_present_weights_is_no_slip() -> None:
    X, Y = problem()
    model = nn.Linear(2, 1, dtype=F64)
    history = record(X, Y, model, SGD, "after")
    optimizer = SGD(model.parameters())
    d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=60, history=history)
    assert "history_differs" not in [finding.name for finding in d.findings]


def test_a_record_with_nan_is_held_against_the_forecast_all_the_same() -> None:
    X, Y = problem()
    model = nn.Linear(2, 1, dtype=F64)
    history = [*record(X, Y, copy.deepcopy(model), SGD, "none")[:6], *[float("nan")] * 6]
    optimizer = SGD(model.parameters())
    d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=60, history=history)
    found = next(finding for finding in d.findings if finding.name == "history_differs")
    assert found.evidence["first_difference"] == 6
    str(d)


@pytest.mark.parametrize("every", [3, 10])
@pytest.mark.parametrize("slip", ["none", "after"])
def test_a_record_of_every_so_manyth_step_may_begin_with_the_last_of_a_stride(every: int, slip: str) -> None:
    X, Y = problem(F64, 1)
    torch.manual_seed(0)
    model = nn.Linear(2, 1, dtype=F64)
    history = record(X, Y, copy.deepcopy(model), SGD, slip)[every - 1 :: every]
    settings: dict[str, Any] = {"model": model, "optimizer": SGD(model.parameters()), "criterion": nn.MSELoss()}
    found = diagnose(X, Y, steps=60 if slip == "none" else None, history=history, **settings).findings
    assert "history_differs" not in [finding.name for finding in found]


def test_a_record_that_ends_in_infinity_is_not_one_of_the_same_rate() -> None:
    X, Y = problem(F64, 1)
    torch.manual_seed(0)
    model = nn.Linear(2, 1, dtype=F64)
    history = [*record(X, Y, copy.deepcopy(model), SGD, "none")[:10], math.inf]
    d = diagnose(X, Y, model=model, optimizer=SGD(model.parameters()), criterion=nn.MSELoss(), history=history)
    assert d.findings[0].title == "The record is not of the run that was given"


def _cumulative(losses: list[float]) -> list[float]:
    return [sum(losses[: i + 1]) / (i + 1) for i in range(len(losses))]


def _exponential(losses: list[float]) -> list[float]:
    mean, kept = losses[0], []
    for loss in losses:
        mean = 0.9 * mean + 0.1 * loss
        kept.append(mean)
    return kept


@pytest.mark.parametrize(
    ("form", "title"),
    [
        (_cumulative, "the mean of all losses so far"),
        (_exponential, "a running mean of the losses that keeps 0.9 of itself"),
        (lambda losses: [math.sqrt(loss) for loss in losses], "the root of the loss"),
        (lambda losses: [math.log10(loss) for loss in losses], "the decimal logarithm"),
        (lambda losses: losses[10:], ""),
    ],
)
@pytest.mark.parametrize("make", [SGD, ADAM])
def test_another_form_of_the_losses_is_no_slip(
    make: Make, form: Callable[[list[float]], list[float]], title: str
) -> None:
    X, Y = problem()
    torch.manual_seed(0)
    model = nn.Linear(2, 1, dtype=F64)
    history = form(record(X, Y, copy.deepcopy(model), make, "none"))
    optimizer = make(model.parameters())
    d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=60, history=history)
    told = [finding for finding in d.findings if finding.name.startswith("history")]
    assert [finding.name for finding in told] == (["history_smoothed"] if title else [])
    assert all(title in finding.title and finding.severity.value == "info" for finding in told)


@pytest.mark.parametrize("targets", [1, 2])
def test_a_sum_is_told_from_every_fifth_loss(targets: int) -> None:
    X, Y = problem(targets=targets)
    torch.manual_seed(0)
    model = nn.Linear(2, targets, dtype=F64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    twin, history = copy.deepcopy(model), []
    own = torch.optim.SGD(twin.parameters(), lr=1e-4)
    for _ in range(60):
        own.zero_grad()
        loss = ((twin(X) - Y) ** 2).sum()
        loss.backward()
        own.step()
        history.append(float(loss.detach()) / Y.numel())
    d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=60, history=history[::5])
    assert "summed over rows" in next(f.title for f in d.findings if f.name == "history_differs")


def test_another_schedule_than_the_one_given_is_told() -> None:
    X, Y = problem()
    torch.manual_seed(0)
    model = nn.Linear(2, 1, dtype=F64)
    history = record(X, Y, copy.deepcopy(model), ADAM, "scheduler")
    optimizer = ADAM(model.parameters())
    given = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60)
    d = diagnose(
        X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=60, history=history, scheduler=given
    )
    assert "otherwise than by the CosineAnnealingLR given" in next(
        f.title for f in d.findings if f.name == "history_differs"
    )


def test_a_scheduler_that_is_stepped_once_an_epoch_is_told() -> None:
    X, Y = problem()
    torch.manual_seed(0)
    model = nn.Linear(2, 1, dtype=F64)
    optimizer = SGD(model.parameters())
    twin, history = copy.deepcopy(model), []
    own = SGD(twin.parameters())
    epochs = torch.optim.lr_scheduler.StepLR(own, 1, 0.5)
    for step in range(60):
        own.zero_grad()
        loss = mse(twin(X), Y)
        loss.backward()
        own.step()
        history.append(float(loss.detach()))
        if step % 10 == 9:
            epochs.step()
    given = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    d = diagnose(
        X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=60, history=history, scheduler=given
    )
    assert any("stepped once in 10 steps" in finding.title for finding in d.findings)


@pytest.mark.parametrize("make", [SGD, ADAM])
def test_gradients_clipped_by_value_are_no_schedule(make: Make) -> None:
    X, Y = problem()
    torch.manual_seed(0)
    model = nn.Linear(2, 1, dtype=F64)
    optimizer, twin, history = make(model.parameters()), copy.deepcopy(model), []
    own = make(twin.parameters())
    for _ in range(60):
        own.zero_grad()
        loss = mse(twin(X), Y)
        loss.backward()
        nn.utils.clip_grad_value_(twin.parameters(), 0.3)
        own.step()
        history.append(float(loss.detach()))
    d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=60, history=history)
    titles = [finding.title for finding in d.findings if finding.name == "history_differs"]
    assert not any("learning rate" in title for title in titles)
    if make is SGD:
        assert "each component of its gradients to 0.3" in titles[0]


def test_a_record_that_was_rounded_for_print_is_of_the_run_itself() -> None:
    X, Y = problem()
    torch.manual_seed(0)
    model = nn.Linear(2, 1, dtype=F64)
    history = [round(loss, 2) for loss in record(X, Y, copy.deepcopy(model), SGD, "none")]
    optimizer = SGD(model.parameters())
    d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=60, history=history)
    assert not any(finding.name.startswith("history") for finding in d.findings)


def test_features_of_another_scale_are_not_called_normalised() -> None:
    X = 2 * gaussian(100, 2)
    Y = 3 * X @ torch.ones(2, 1, dtype=F64) + 4
    torch.manual_seed(0)
    model = nn.Linear(2, 1).double()
    with torch.no_grad():
        normal = float(mse(model(standardise(X)), Y))
        apart = {
            factor: abs(float(mse(model(factor * X), Y)) / normal - 1)
            for factor in torch.linspace(0.3, 0.8, 3001).tolist()
        }
    # The first loss is all but that on normalised features.
    close = [factor for factor, share in apart.items() if 1e-5 < share < 1e-3]
    assert close
    for factor in close[:2]:
        trained = copy.deepcopy(model)
        history = record(factor * X, Y, trained, SGD, "none")
        found = diagnose(X, Y, model=model, optimizer=SGD(model.parameters()), steps=60, history=history)
        assert not any("normalises" in each.title for each in found.findings), factor


def _held(form: Callable[[list[float]], Any]) -> Diagnosis:
    X, Y = problem()
    torch.manual_seed(0)
    model = nn.Linear(2, 1, dtype=F64)
    history = form(record(X, Y, copy.deepcopy(model), SGD, "none"))
    optimizer = SGD(model.parameters())
    return diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=60, history=history)


@pytest.mark.parametrize("at", [0, 20])
def test_a_loss_that_is_nan_is_not_said_to_be_of_other_rows(at: int) -> None:
    found = _held(lambda losses: [*losses[:at], math.nan, *losses[at + 1 :]]).findings[0]
    assert found.title == f"The recorded loss is NaN at step {at}, where that of the run as given is a number"
    assert "that step did not reach the weights" in found.consequence
    assert "did not reach" not in _held(lambda losses: [*losses[:at], *[math.nan] * 9]).findings[0].consequence


@pytest.mark.parametrize(
    ("form", "title"),
    [
        (lambda losses: torch.tensor(losses).reshape(-1, 5).mean(1), "the mean of every 5 losses"),
        (lambda losses: [100 * loss / losses[0] for loss in losses], "times the loss"),
        (lambda losses: [1000 * loss for loss in losses], "1000 times the loss"),
    ],
)
def test_means_of_strides_and_multiples_of_the_losses_are_told(form: Callable[[list[float]], Any], title: str) -> None:
    found = next(finding for finding in _held(form).findings if finding.name.startswith("history"))
    assert found.name == "history_smoothed"
    assert title in found.title


def test_a_record_may_be_a_column_of_a_frame_whatever_its_index() -> None:
    series, frame = partial(pd.Series, index=range(100, 160)), partial(pd.DataFrame, columns=["loss"])
    for form in (series, frame):
        assert not [finding for finding in _held(form).findings if finding.name.startswith("history")]
    with pytest.raises(InputError, match=r"shape \(60, 2\); pass one loss for each point"):
        _held(lambda losses: list(enumerate(losses)))
