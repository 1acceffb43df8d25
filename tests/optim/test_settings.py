"""Settings: any number is a number, everything else is refused in the house's words; what surprises is said once."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from test_optim import make_layer, slices, train
from torch import nn
from torch.nn import functional as F

import closedform as cf
from closedform.optim import RecursiveLeastSquares, fit_head_
from closedform.words.errors import ClosedformError, InputError
from data import gaussian

X, Y = gaussian(60, 4), gaussian(60, 2, seed=1)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"lr": "x"}, "lr='x' is a str; a number is needed"),
        ({"lr": None}, "lr=None is a NoneType"),
        ({"lr": True}, "lr=True is a bool"),
        ({"lr": 1j}, "complex"),
        ({"lr": torch.ones(2)}, r"lr is a tensor of shape \(2,\)"),
        ({"lr": torch.tensor(float("nan"))}, "must be finite and not negative"),
        ({"lr": -1}, "must be finite and not negative"),
        ({"lr": float("inf")}, "must be finite and not negative"),
        ({"l2": "x"}, "l2='x' is a str"),
        ({"l2": [1.0]}, "is a list"),
        ({"l2": torch.ones(3)}, r"l2 is a tensor of shape \(3,\)"),
        ({"l2": np.ones(3)}, "is a ndarray"),
        ({"l2": -1e-9}, "must be finite and not negative"),
        ({"l2": np.float32("nan")}, "must be finite and not negative"),
        ({"forgetting": "no"}, "forgetting='no' is a str"),
        ({"forgetting": 0}, "must be above 0"),
        ({"forgetting": float("nan")}, "must be above 0"),
        ({"dtype": "float64"}, "kept in torch.float64 or torch.float32"),
        ({"dtype": np.float64}, "kept in torch.float64 or torch.float32"),
        ({"accumulator": "rows"}, "accumulator is a str"),
    ],
)
def test_what_is_no_setting(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ClosedformError, match=match):
        RecursiveLeastSquares(make_layer(4, 2), **options)


@pytest.mark.parametrize("flag", ["foreach", "fused", "capturable", "differentiable", "maximize", "weight_decay"])
def test_flags_of_other_optimizers_are_no_arguments(flag: str) -> None:
    with pytest.raises(TypeError, match=flag):
        RecursiveLeastSquares(make_layer(4, 2), **{flag: True})


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64, torch.tensor, lambda v: torch.tensor([v])])
def test_numbers_of_other_kinds_are_numbers(kind: Any) -> None:
    layer = make_layer(4, 2)
    opt = RecursiveLeastSquares(layer, l2=kind(2), lr=kind(1), forgetting=kind(1))
    train(layer, opt, X, Y, 7)
    assert cf.gap(layer, X, Y, l2=2.0).weight_distance < 1e-12
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    again = RecursiveLeastSquares(make_layer(4, 2))
    again.load_state_dict(torch.load(file, weights_only=True))
    assert again.l2 == 2.0


def test_settings_that_went_wrong_later_are_refused_by_step() -> None:
    layer = make_layer(4, 2)
    opt = RecursiveLeastSquares(layer)
    for name, value in (("lr", "x"), ("lr", torch.ones(2)), ("forgetting", -1), ("l2", 3.0)):
        before = layer.weight.detach().clone()
        held = opt.param_groups[0][name]
        opt.param_groups[0][name] = value
        F.mse_loss(layer(X), Y).backward()
        with pytest.raises(ClosedformError):
            opt.step()
        opt.param_groups[0][name] = held
        assert torch.equal(before, layer.weight)
        assert not opt.state


def test_another_rate_is_said_once() -> None:
    layer = make_layer(4, 2)
    opt = RecursiveLeastSquares(layer, lr=1e-3)
    with pytest.warns(UserWarning, match=r"lr=0.001: a step goes 0.001 of the way .* leave it at 1") as said:
        train(layer, opt, X, Y, 7, epochs=2)
    assert len(said) == 1
    assert said[0].filename == train.__code__.co_filename


def test_a_ridge_over_epochs_is_said_once_and_ends_at_its_share() -> None:
    layer = make_layer(4, 2)
    opt = RecursiveLeastSquares(layer, l2=6.0)
    orders = [torch.randperm(60, generator=torch.Generator().manual_seed(epoch)) for epoch in range(3)]
    train(layer, opt, X[orders[0]], Y[orders[0]], 7)
    with pytest.warns(UserWarning, match=r"l2=6 stands .* E epochs end at the ridge of l2/E") as said:
        train(layer, opt, torch.cat([X[o] for o in orders[1:]]), torch.cat([Y[o] for o in orders[1:]]), 7)
    assert len(said) == 1
    assert cf.gap(layer, X, Y, l2=2.0).weight_distance < 1e-12


@pytest.mark.parametrize("options", [{"l2": 1.0}, {"l2": 1.0, "forgetting": 0.9}, {}])
def test_one_epoch_says_nothing(options: dict[str, float]) -> None:
    layer = make_layer(4, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(layer, RecursiveLeastSquares(layer, **options), X, Y, 7)


@pytest.mark.parametrize("to_none", [True, False])
def test_zero_grad(to_none: bool) -> None:
    layer = make_layer(4, 2)
    opt = RecursiveLeastSquares(layer)
    F.mse_loss(layer(X), Y).backward()
    opt.zero_grad(set_to_none=to_none)
    assert layer.weight.grad is None if to_none else not layer.weight.grad.any()
    with pytest.raises(InputError, match="no rows"):
        opt.step()


def test_hooks_before_and_after_a_step() -> None:
    layer = make_layer(4, 2)
    opt = RecursiveLeastSquares(layer)
    order: list[str] = []
    opt.register_step_pre_hook(lambda *_: order.append("before"))
    opt.register_step_post_hook(lambda *_: order.append("after"))
    train(layer, opt, X, Y, 30)
    assert order == ["before", "after"] * 2


@pytest.mark.filterwarnings("ignore:lr=")
@pytest.mark.parametrize(
    "make",
    [
        lambda opt: torch.optim.lr_scheduler.ExponentialLR(opt, 0.5),
        lambda opt: torch.optim.lr_scheduler.OneCycleLR(opt, 1.0, total_steps=9, cycle_momentum=False),
        lambda opt: torch.optim.lr_scheduler.LinearLR(opt, 0.1, total_iters=4),
        lambda opt: torch.optim.lr_scheduler.LambdaLR(opt, lambda step: 1.0),
    ],
)
@pytest.mark.parametrize("rate", [1.0, torch.tensor(1.0)])
def test_schedulers_set_the_part_of_the_way(make: Any, rate: Any) -> None:
    layer = make_layer(4, 2)
    opt = RecursiveLeastSquares(layer, lr=rate.clone() if isinstance(rate, torch.Tensor) else rate)
    scheduler = make(opt)
    for rows in slices(60, 12):
        present = torch.cat([layer.bias.detach()[None], layer.weight.detach().T])
        seen = slice(0, rows.stop)
        opt.zero_grad()
        F.mse_loss(layer(X[rows]), Y[rows]).backward()
        opt.step()
        best = cf.solve(X[seen], Y[seen], bias=True, progress=False)
        aim = torch.cat([best.bias[None], best.weight.T])
        now = torch.cat([layer.bias.detach()[None], layer.weight.detach().T])
        torch.testing.assert_close(now, present + float(opt.param_groups[0]["lr"]) * (aim - present))
        scheduler.step()


def test_a_group_given_as_a_dictionary_has_no_place() -> None:
    layer = make_layer(4, 2)
    opt = RecursiveLeastSquares(layer)
    assert opt.param_groups[0]["params"] == [layer.weight, layer.bias]
    assert set(opt.defaults) == {"lr", "l2", "forgetting"}
    with pytest.raises(InputError, match="one layer"):
        opt.add_param_group({"params": list(nn.Linear(2, 2).parameters())})
    assert len(opt.param_groups) == 1


@pytest.mark.parametrize("device", ["x", 1.5, [], "meta", int])
def test_what_is_no_device_of_a_head(device: Any) -> None:
    net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(3, 1))
    with pytest.raises(ClosedformError, match="device="):
        fit_head_(net, [(torch.ones(2, 3), torch.ones(2, 1))], device=device)
