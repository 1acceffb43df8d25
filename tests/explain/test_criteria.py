"""Criteria in the shapes of the user's own call, and criteria that climb."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from closedform.explain.entry import diagnose
from closedform.explain.readers.criteria import Pairing, read_criterion
from data import F64, gaussian

X = torch.rand(200, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True)

mse: Callable[[Tensor, Tensor], Tensor] = nn.functional.mse_loss


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 1, dtype=F64)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).squeeze(-1)


def column() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 1, dtype=F64)


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize(
    ("model", "target", "criterion", "crosses"),
    [
        (Flat(), Y, nn.MSELoss(), True),
        (Flat(), Y, None, True),
        (Flat(), Y, nn.L1Loss(), True),
        (Flat(), Y, nn.SmoothL1Loss(), True),
        (Flat(), Y[:, 0], nn.MSELoss(), False),
        (column(), Y[:, 0], nn.MSELoss(), True),
        (column(), Y, nn.MSELoss(), False),
        (column(), Y[:, 0], lambda out, t: mse(out.squeeze(), t), False),
        (column(), Y[:, 0], lambda out, t: mse(out, t.unsqueeze(1)), False),
        (column(), Y[:, 0], lambda out, t: ((out.flatten() - t.flatten()) ** 2).sum(), False),
        (column(), Y, lambda out, t: mse(out.squeeze(), t), True),
        (Flat(), Y, lambda out, t: mse(out, t.squeeze(1)), False),
    ],
)
def test_broadcasting_is_what_the_users_own_call_does(
    model: nn.Module, target: Tensor, criterion: Callable[[Tensor, Tensor], Tensor] | None, crosses: bool
) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    d = diagnose(X, target, model=model, optimizer=optimizer, criterion=criterion, steps=3000)
    found = [finding for finding in d.findings if finding.name == "target_broadcast"]
    assert bool(found) == crosses
    if crosses and criterion is None:
        loss = None
        for _ in range(3000):
            optimizer.zero_grad()
            loss = mse(model(X), target)
            loss.backward()
            optimizer.step()
        assert loss is not None
        assert found[0].evidence["lowest_loss_broadcast"] == pytest.approx(float(loss.detach()), rel=1e-3)


@pytest.mark.parametrize("tail", [(1,), (3,), (5, 2)])
def test_factors_hold_for_rows_of_more_dimensions(tail: tuple[int, ...]) -> None:
    read = read_criterion(nn.MSELoss(reduction="sum"), 40, tail[-1], Pairing(tail, tail))
    assert (read.kind, read.factor, read.summed) == ("squared", 40.0 * tail[-1], True)


def test_criteria_that_return_no_number_say_so() -> None:
    for criterion, text in (
        (nn.MSELoss(reduction="none"), "returns a tensor of shape"),
        (nn.NLLLoss(), "cannot be called on real outputs"),
        (lambda output, target: float((output - target).square().mean()), "returns a float and no tensor"),
        (lambda output, target: output.sum() / 0 if target.missing else 0, "cannot be called on real outputs"),
        (lambda output, target: 1 / 0, "division by zero"),
    ):
        d = diagnose(X, Y, model=column(), criterion=criterion)
        assert d.verdict.name == "other_loss"
        assert text in d.verdict.sentence


@pytest.mark.parametrize(
    ("sign", "maximize", "climbs"), [(1, False, False), (1, True, True), (-1, False, True), (-1, True, False)]
)
def test_a_run_climbs_where_signs_say_so(sign: int, maximize: bool, climbs: bool) -> None:
    rows, targets = gaussian(100, 3), gaussian(100, 1, seed=1)
    model = column()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, maximize=maximize)
    criterion: Callable[[Tensor, Tensor], Tensor] = lambda out, t: sign * ((out - t) ** 2).mean()  # noqa: E731
    d = diagnose(rows, targets, model=model, optimizer=optimizer, criterion=criterion, steps=300)
    assert (d.verdict.name == "climbs") == climbs
    before = float(mse(model(rows), targets).detach())
    for _ in range(300):
        optimizer.zero_grad()
        criterion(model(rows), targets).backward()
        optimizer.step()
    after = float(mse(model(rows), targets).detach())
    assert (after > before) == climbs
    if not climbs:
        assert d.verdict.name == "nothing_wrong"


def test_a_squared_error_without_its_gradient_is_not_one() -> None:
    detached = read_criterion(lambda output, target: ((output.detach() - target) ** 2).mean(), 40, 1)
    assert "carries no gradient" in detached.problem
    rounded = read_criterion(lambda output, target: torch.tensor(float(((output - target) ** 2).mean())), 40, 1)
    assert "carries no gradient" in rounded.problem
    # Newton's trick on the wrong part: the value is the squared error, the gradient half of it.
    halved = read_criterion(lambda output, target: ((output - target) * (output.detach() - target)).mean(), 40, 1)
    assert (halved.kind, halved.other_gradient) == ("other", True)


def test_a_criterion_may_write_on_the_output() -> None:
    assert read_criterion(lambda output, target: output.sub_(target).square().mean(), 40, 1).kind == "squared"
