"""Adam and its kin, LBFGS: what holds them, and runs that are too long to be rehearsed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from closedform.explain.diagnosis import Diagnosis
from closedform.explain.entry import diagnose
from closedform.explain.finding import Severity
from data import F64, gaussian, train, zero_layer

Make = Callable[[Any], torch.optim.Optimizer]


def far(scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Well conditioned, with weights up to 300 and a bias of 1000, times scale."""
    X = gaussian(200, 4)
    return X, (X @ torch.tensor([[300.0], [-200.0], [150.0], [50.0]], dtype=F64) + 1000) * scale


def judged(X: Tensor, Y: Tensor, make: Make, steps: int) -> tuple[Diagnosis, float]:
    """Return the diagnosis, and the excess loss that the real run leaves."""
    torch.manual_seed(0)
    model = nn.Linear(X.shape[1], 1, dtype=F64)
    optimizer = make(model.parameters())
    d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=steps)
    str(d)
    loss = float(train(X, Y, model, optimizer, steps)[-1])
    return d, loss - d.case.spectrum.optimal_loss


@pytest.mark.parametrize(
    ("make", "scale", "steps", "needed"),
    [
        (lambda p: torch.optim.Adam(p, lr=1e-3), 1.0, 800, 1e6),
        (lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.0), 1.0, 800, 1e6),
        (lambda p: torch.optim.RMSprop(p, lr=1e-2), 1.0, 800, 1e5),
        (lambda p: torch.optim.Adamax(p, lr=1e-3), 1.0, 800, 1e6),
        (lambda p: torch.optim.Adagrad(p, lr=0.01), 1.0, 800, (1000 / 0.02) ** 2),
    ],
)
def test_weights_out_of_reach_are_blamed_on_the_pace(make: Make, scale: float, steps: int, needed: float) -> None:
    d, left = judged(*far(scale), make, steps)
    found = d.findings[0]
    assert found.name == "more_steps_needed"
    assert "moves a weight by about lr a step" in found.title
    assert "ondition" not in found.title
    assert found.evidence["steps_needed"] == pytest.approx(needed, rel=0.05)
    assert found.evidence["excess_loss_left"] == pytest.approx(left, rel=1e-6)


def test_the_remedy_for_the_pace_keeps_the_optimizer_and_comes_true() -> None:
    X, Y = far(0.01)
    torch.manual_seed(0)
    model = nn.Linear(4, 1, dtype=F64)
    start = copy.deepcopy(model)
    optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=600)
    remedy = d.findings[0].remedy.split("# or at once")[0]
    assert "torch.optim.Adam(" in remedy
    names: dict[str, Any] = {"torch": torch, "model": start}
    exec(remedy, names)
    for _ in range(600):
        train(X, Y, start, names["optimizer"], 0)
        names["scheduler"].step()
    left = float(nn.functional.mse_loss(start(X), Y).detach()) - d.case.spectrum.optimal_loss
    assert left < 1e-3 * d.findings[0].evidence["excess_loss_left"]
    # The learning rate is printed to three digits, and the excess loss falls over many decades.
    assert left <= 100 * d.findings[0].excess_once_mended + 1e-12


@pytest.mark.parametrize(("decay", "lr", "steps"), [(1.0, 0.1, 600), (0.5, 0.2, 600)])
def test_adamw_keeps_weights_in_a_box(decay: float, lr: float, steps: int) -> None:
    d, left = judged(*far(0.01), lambda p: torch.optim.AdamW(p, lr=lr, weight_decay=decay), steps)
    assert d.verdict.name == "decay_box"
    assert d.findings[0].evidence["box"] == 1 / decay
    assert d.findings[0].evidence["excess_loss_left"] == pytest.approx(left, rel=1e-4)
    assert "weight_decay=0" in d.findings[0].remedy


def test_adam_with_decay_goes_to_its_ridge() -> None:
    d, left = judged(*far(0.01), lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1), 1500)
    names = [finding.name for finding in d.findings]
    assert "more_steps_needed" not in names
    found = next(finding for finding in d.findings if finding.name == "weight_decay_is_ridge")
    assert found.evidence["excess_loss_at_its_minimiser"] == pytest.approx(left, rel=1e-3)


def test_rmsprop_that_circles_for_ever_is_told_so() -> None:
    X = gaussian(100, 4)
    Y = X.sum(1, keepdim=True) + gaussian(100, 1, seed=1)
    d, left = judged(X, Y, lambda p: torch.optim.RMSprop(p, lr=0.1), 1000)
    assert left > d.case.goal_excess
    assert d.verdict.name == "adaptive_circles"
    assert d.case.training.reaches_goal is False


@pytest.mark.usefixtures("brief_rehearsals")
@pytest.mark.parametrize("steps", [5_000, 20_000, 2_000_000])
def test_a_longer_run_is_judged_by_its_own_optimizer(steps: int) -> None:
    """On an ill-conditioned table another finding is there as well; the verdict is about Adam all the same."""
    X = gaussian(50, 40) * torch.logspace(0, -5, 40, dtype=F64) + 10
    Y = X @ torch.logspace(0, 3, 40, dtype=F64).reshape(-1, 1)
    torch.manual_seed(0)
    model = nn.Linear(40, 1, dtype=F64)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=steps)
    assert "Adam" in f"{d.verdict.title} {d.verdict.sentence}"
    course = d.case.training.course
    assert course is not None
    assert ("extrapolated from step" in d.verdict.sentence.lower()) == (course.made < steps)
    assert "Adam" in d.to_dict()["forecasts"][0]["name"]
    assert d.to_dict()["forecasts"][0]["emphasised"]


def test_a_run_that_starts_at_a_fixed_point_it_leaves_is_not_called_right() -> None:
    """At the minimiser every gradient is zero, and the rates of the two groups are far beyond what holds it there."""
    X, Y = gaussian(100, 3), torch.zeros(100, 1, dtype=F64)
    Y = X @ torch.ones(3, 1, dtype=F64) + 1
    model = nn.Linear(3, 1, dtype=F64)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.fill_(1.0)
    groups = [{"params": [model.weight], "lr": 5.0}, {"params": [model.bias], "lr": 4.0}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=500)
    assert d.verdict.severity is not Severity.OK


def test_numpy_makes_the_steps_of_torch() -> None:
    X, Y = far(0.01)
    for make in (
        lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.01),
        lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.05),
        lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
        lambda p: torch.optim.Adagrad(p, lr=0.5, lr_decay=0.01),
        lambda p: torch.optim.Adamax(p, lr=0.02),
    ):
        d, left = judged(X, Y, make, 400)
        run = d.case.training.rehearsal
        assert run is not None
        assert run.excess is not None  # it was NumPy that went on
        assert float(run.excess[-1]) == pytest.approx(left, rel=1e-6, abs=1e-13)


@pytest.mark.parametrize(
    ("seed", "features", "scale", "offset", "search", "tolerance", "said"),
    [
        # Its tolerance ends it, in float32 as in float64; a processor that rounds otherwise may leave it open.
        (66, 2, 1e-2, 0.0, "strong_wolfe", 1e-9, {None, False}),
        # Where in the rounding of the loss its line search stops nobody can tell.
        (79, 2, 1e-2, 0.0, "strong_wolfe", 1e-9, {None}),
        # Rehearsed it comes nearer than float32 can.
        (3, 2, 1e-3, 3.0, "strong_wolfe", 0.0, {None}),
        # Rehearsed it stops at once, in float64 and float32 after steps of different number; the real one goes on.
        (92, 6, 1e-3, 3.0, None, 1e-9, {None, True}),
        (14, 6, 1.0, 0.0, "strong_wolfe", 1e-9, {True}),
    ],
)
def test_what_is_said_of_lbfgs_in_float32_holds_for_the_real_run(
    seed: int, features: int, scale: float, offset: float, search: str | None, tolerance: float, said: set[bool | None]
) -> None:
    """R11: nothing is promised of a run in float32 that it does not keep, and nothing false is said of one that is."""
    X, Y, model = float32_rows(seed, features, scale, offset)
    optimizer = torch.optim.LBFGS(
        model.parameters(),
        max_iter=100,
        tolerance_grad=100 * tolerance,
        tolerance_change=tolerance,
        line_search_fn=search,
    )
    d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=3)
    verdict, reached = d.verdict, d.case.training.reaches_goal

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(X), Y)
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)  # type: ignore[arg-type]
    weights = torch.cat([model.bias.detach().double().reshape(1, -1), model.weight.detach().double().T])
    left = float(d.case.spectrum.gaps(weights).sum())
    there = left <= d.case.goal_excess
    assert reached in said
    assert reached in (None, there)
    assert (verdict.name == "nothing_wrong") is (reached is True)
    assert verdict.severity is not Severity.ERROR or not there


def float32_rows(seed: int, features: int, scale: float, offset: float) -> tuple[Tensor, Tensor, nn.Linear]:
    """Columns that fall in size to ``scale``, targets with noise, and a layer to begin with."""
    noise = {66: 1.0, 79: 1.0, 92: 1.0}.get(seed, 0.1)
    X = gaussian(200, features, seed=seed) * torch.logspace(0, math.log10(scale), features, dtype=F64) + offset
    Y = X @ gaussian(features, 1, seed=seed + 100) + noise * gaussian(200, 1, seed=seed + 200)
    torch.manual_seed(seed)
    return X.float(), (Y * (100 if seed == 3 else 1)).float(), nn.Linear(features, 1)


def test_lbfgs_in_float32_is_not_promised_what_its_line_search_cannot_see() -> None:
    """R11: a rehearsal, even in float32, rounds otherwise than the rows do, so the goal is not promised."""
    X = gaussian(200, 6, seed=12) * torch.logspace(0, -3, 6, dtype=F64)
    Y = X @ gaussian(6, 1, seed=13) + 0.1 * gaussian(200, 1, seed=14)
    X, Y = X.float(), Y.float()
    torch.manual_seed(12)
    model = nn.Linear(6, 1, bias=False)
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=1000, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
    )
    d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=5)
    assert d.case.training.stage.narrow is not None
    assert d.case.training.reaches_goal is None
    assert d.verdict.name == "lbfgs_stopped"
    assert "may stop at the last digits of the loss" in d.verdict.title
    even = nn.Linear(6, 1, bias=False)
    optimizer = torch.optim.LBFGS(even.parameters(), max_iter=100, line_search_fn="strong_wolfe")
    X = gaussian(200, 6, seed=12).float()
    d = diagnose(X, X.sum(1, keepdim=True), model=even, optimizer=optimizer, steps=5)
    assert d.verdict.name == "nothing_wrong"


OPTIMIZERS = sorted(
    name
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_torch_gets_a_verdict_that_comes_true(name: str) -> None:
    X = gaussian(60, 3) * torch.tensor([1.0, 0.5, 0.3], dtype=F64)
    Y = X @ gaussian(3, 2, seed=1) + 0.1 * gaussian(60, 2, seed=2)
    steps, settings = (3 if name == "LBFGS" else 300), {"lr": 0.1} if name in ("SGD", "ASGD") else {}
    torch.manual_seed(0)
    model = nn.Linear(3, 2, bias=False, dtype=F64)  # Muon takes matrices only
    optimizer = getattr(torch.optim, name)(model.parameters(), **settings)
    d = diagnose(X, Y, model=model, optimizer=optimizer, criterion=nn.MSELoss(), steps=steps)
    course, reaches = d.case.training.course, d.case.training.reaches_goal
    if name == "SparseAdam":
        with pytest.raises(RuntimeError, match="dense"):
            train(X, Y, model, optimizer, 1)
        assert (d.verdict.name, reaches) == ("cannot_step", False)
        assert "dense gradients" in d.verdict.sentence
        return
    for _ in range(steps):
        optimizer.step(lambda: closure(X, Y, model))
    left = float(nn.functional.mse_loss(model(X), Y).detach()) - d.case.spectrum.optimal_loss
    assert course is not None
    assert course.how in ("forecast", "rehearsed")
    # Muon's products are in bfloat16, where rounding decides the path.
    near = 0.5 if name == "Muon" else 1e-6
    assert course.least * (1 - near) - 1e-12 <= left <= course.most * (1 + near) + 1e-12
    assert reaches is None or reaches == (left <= d.case.goal_excess)
    assert d.verdict.name != "not_judged"


def closure(X: Tensor, Y: Tensor, model: nn.Linear) -> float:
    model.zero_grad()
    loss = nn.functional.mse_loss(model(X), Y)
    loss.backward()
    return float(loss.detach())


def test_what_holds_adam_down_is_named() -> None:
    """Not the condition number, which is about 1 here: eps beside tiny gradients, decay, a learning rate of 0."""
    X = gaussian(80, 3)
    Y = X @ gaussian(3, 1, seed=1) + 0.1 * gaussian(80, 1, seed=2)
    layer = zero_layer(3, 1)
    for make, factor, name, words in (
        (lambda p: torch.optim.Adam(p, lr=0.01), 1e-9, "eps_too_large", "eps=1e-08"),
        (lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.5), 1.0, "decay_box", "weight_decay=0.5"),
        (lambda p: torch.optim.Adam(p, lr=0.0), 1.0, "lr_starved", "lr=0 moves nothing"),
    ):
        d = diagnose(
            X,
            Y,
            model=layer,
            optimizer=make(layer.parameters()),
            criterion=lambda output, target, factor=factor: factor * (output - target).square().mean(),
            steps=600,
        )
        assert (d.verdict.name, d.verdict.severity.value) == (name, "error")
        assert words in d.verdict.title


@pytest.mark.parametrize("batch_size", [None, 10])
def test_a_run_that_climbs_or_sees_batches_does_not_blow_up(batch_size: int | None) -> None:
    X = gaussian(80, 3)
    Y = X @ gaussian(3, 1, seed=1) + 0.1 * gaussian(80, 1, seed=2)
    layer = zero_layer(3, 1)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05, maximize=batch_size is None)
    history = [1.0, 0.01, 0.3, 0.02, 0.2, 0.01, 0.4, 0.03, 0.3, 0.01, 0.2, 0.02]
    d = diagnose(
        X,
        Y,
        model=layer,
        optimizer=optimizer,
        criterion=nn.MSELoss(),
        steps=200,
        batch_size=batch_size,
        history=None if batch_size is None else history,
    )
    assert "adaptive_blow_up" not in {finding.name for finding in d.findings}


def test_momentum_of_earlier_steps_is_in_what_is_said() -> None:
    X = gaussian(80, 3)
    Y = X @ gaussian(3, 1, seed=1) + 0.1 * gaussian(80, 1, seed=2)
    torch.manual_seed(0)
    layer = nn.Linear(3, 1, dtype=F64)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05, momentum=0.9)
    train(X, Y, layer, optimizer, 5)
    d = diagnose(X, Y, model=layer, optimizer=optimizer, criterion=nn.MSELoss(), steps=40)
    told = d.record.forecasts[0]
    loss = float(train(X, Y, layer, optimizer, 40)[-1])
    assert d.case.training.course is not None
    assert d.case.training.course.left == pytest.approx(loss - d.case.spectrum.optimal_loss, rel=1e-6)
    assert told.loss[-1] == pytest.approx(loss, rel=1e-9)
    assert d.verdict.name == "more_steps_needed"


def test_what_rises_from_the_start_neither_diverges_nor_blows_up() -> None:
    """Batches take a run from the minimum to their noise floor; a step of 100 is too long, and nothing has shrunk."""
    X = gaussian(80, 3)
    Y = X @ gaussian(3, 1, seed=1) + 0.1 * gaussian(80, 1, seed=2)
    layer = zero_layer(3, 1)
    ones = torch.cat([torch.ones(80, 1, dtype=F64), X], 1)
    best = torch.linalg.lstsq(ones, Y).solution
    far = diagnose(X, Y, model=layer, optimizer=torch.optim.Adam(layer.parameters(), lr=100.0), steps=60)
    assert "adaptive_blow_up" not in {finding.name for finding in far.findings}
    with torch.no_grad():
        layer.weight.copy_(best[1:].T)
        layer.bias.copy_(best[0])
    adam = torch.optim.Adam(layer.parameters(), lr=0.01)
    near = diagnose(X, Y, model=layer, optimizer=adam, criterion=nn.MSELoss(), steps=150, batch_size=10)
    assert near.verdict.name in ("adaptive_circles", "more_steps_needed")
    assert "diverges" not in near.verdict.title
