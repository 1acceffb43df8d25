"""Models that pass through diagnose: those that only reshape, and those that are refused by name."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from closedform.explain.entry import diagnose
from closedform.words.errors import InputError
from data import F64, gaussian

X, Y = gaussian(60, 4), gaussian(60, 1, seed=1)


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 1, dtype=F64)


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1e-3 * torch.randn_like(x) if self.training else x


class Functional(nn.Module):
    """Does by itself what a module would do."""

    def __init__(self, change: str) -> None:
        super().__init__()
        self.layer, self.change = linear(), change

    def forward(self, x: Tensor) -> Tensor:
        if self.change == "dropout":
            x = nn.functional.dropout(x, 0.2, self.training)
        y = self.layer(x)
        if self.change == "clamp":
            return y.clamp(-5, 5)
        if self.change == "detach":
            return y.detach()
        if self.change == "twice the gradient":
            return 2 * y - y.detach()
        return y


class Clipped(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(min=0)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (nn.Sequential(nn.Dropout(0.5), linear()), r"model\[0\] \(Dropout\)"),
        (nn.Sequential(nn.BatchNorm1d(4, affine=False, dtype=F64), linear()), r"model\[0\] \(BatchNorm1d\)"),
        (nn.Sequential(nn.LayerNorm(4, elementwise_affine=False), linear()), r"model\[0\] \(LayerNorm\)"),
        (nn.Sequential(Noisy(), linear()), r"model\[0\] \(Noisy\)"),
        (nn.Sequential(nn.ReLU(), linear()), r"model\[0\] \(ReLU\)"),
        (nn.Sequential(linear(), nn.ReLU()), r"model\[1\] \(ReLU\)"),
        (nn.Sequential(linear(), nn.Hardtanh(-3, 3)), r"model\[1\] \(Hardtanh\)"),
        (nn.Sequential(linear(), nn.Dropout(0.1)), r"model\[1\] \(Dropout\)"),
        (Functional("dropout"), r"Functional.forward itself"),
        (Functional("clamp"), r"Functional.forward itself"),
        (Functional("detach"), "carries no gradient"),
        (Functional("twice the gradient"), "changes their gradients"),
        (Clipped(4, 1, dtype=F64), "Clipped.forward itself"),
    ],
)
@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_what_is_no_reshape_in_training_is_refused_by_name(model: nn.Module, named: str, mode: bool) -> None:
    model = copy.deepcopy(model).train(mode)
    state, generator = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    with pytest.raises(InputError, match=named):
        diagnose(X, Y, model=model)
    # Nothing of the user's is changed by trying it out.
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert torch.equal(generator, torch.random.get_rng_state())
    assert model.training == mode


def test_statistics_of_the_batch_are_seen_on_rows_that_have_none() -> None:
    """Standardised rows pass through batch norm unchanged, all together; two of them do not."""
    standard = (X - X.mean(0)) / X.std(0, unbiased=False)
    with pytest.raises(InputError, match="BatchNorm1d"):
        diagnose(standard, Y, model=nn.Sequential(nn.BatchNorm1d(4, affine=False, eps=1e-12, dtype=F64), linear()))


def test_reshapes_and_layers_that_do_nothing_pass() -> None:
    for model in (
        nn.Sequential(nn.Identity(), linear(), nn.Dropout(0.0)),
        nn.Sequential(nn.Flatten(), linear()),
        nn.Sequential(nn.Sequential(linear()), nn.Flatten(1)),
        nn.Sequential(nn.ReLU(), linear()),
    ):
        rows = X.abs() if isinstance(model[0], nn.ReLU) else X
        d = diagnose(rows, Y, model=model)
        assert not any(finding.name == "target_broadcast" for finding in d.findings)


@pytest.mark.parametrize("leading", [(60,), (12, 5), (3, 4, 5)])
def test_rows_of_more_dimensions_keep_their_shape_in_the_model(leading: tuple[int, ...]) -> None:
    d = diagnose(X.reshape(*leading, 4), Y.reshape(*leading, 1), model=linear(), criterion=nn.MSELoss())
    assert "target_broadcast" not in [finding.name for finding in d.findings]


def test_weights_computed_from_others_and_hooks_on_gradients_are_refused() -> None:
    hooked = linear()
    hooked.weight.register_hook(lambda gradient: gradient.clamp(-1, 1))
    with pytest.raises(InputError, match="hook"):
        diagnose(X, Y, model=hooked)
    with pytest.raises(InputError, match=r"nn\.Linear"):
        diagnose(X, Y, model=nn.utils.parametrizations.weight_norm(linear()))


def test_weights_and_state_are_those_at_the_call() -> None:
    model = linear()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    rows, targets = X.clone(), Y.clone()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.5)
    d = diagnose(rows, targets, model=model, optimizer=optimizer, scheduler=scheduler, steps=40)
    expected = diagnose(X, Y, model=copy.deepcopy(model), steps=40).forecast(lr=0.1, steps=3)
    before = float(nn.functional.mse_loss(model(X), Y).detach())
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(X), Y).backward()
        optimizer.step()
        scheduler.step()
    rows.zero_()
    targets.zero_()
    assert float(d.forecast(lr=0.1, steps=[0]).loss[0]) == pytest.approx(before, rel=1e-12)
    torch.testing.assert_close(d.forecast(lr=0.1, steps=3).loss, expected.loss)
    assert d.case.training.coming[0].lr == 0.1
    run = d.case.training.rehearsal
    assert run is not None
    assert float(run.loss[0]) == pytest.approx(before, rel=1e-12)
