"""State goes through every door that torch has for it: hooks, and ``torch.distributed.checkpoint``."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from test_optim import make_layer, train
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

import closedform as cf
from closedform.optim import RecursiveLeastSquares
from closedform.words.errors import InputError
from data import gaussian

X, Y = gaussian(120, 8), gaussian(120, 2, seed=1)

#: Older ones see by themselves that there are no other processes.
ALONE: dict[str, Any] = {"no_dist": True} if "no_dist" in inspect.signature(dcp.save).parameters else {}


def trained(rows: int) -> tuple[nn.Linear, RecursiveLeastSquares]:
    layer = make_layer(8, 2)
    opt = RecursiveLeastSquares(layer)
    train(layer, opt, X[:rows], Y[:rows], 2)
    return layer, opt


def test_hooks_of_load_state_dict_see_and_change_what_is_loaded() -> None:
    layer, opt = trained(40)
    seen: list[Any] = []

    def halve_the_rate(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        changed = copy.deepcopy(state)
        changed["param_groups"][0]["lr"] = 0.5
        changed["state"][0]["C"] *= 2  # twice the targets
        return changed

    def look(optimizer: torch.optim.Optimizer) -> None:
        seen.append((optimizer.param_groups[0]["lr"], optimizer.state[other.layer.weight]["C"].clone()))

    other = RecursiveLeastSquares(make_layer(8, 2, dtype=torch.float32))
    other.register_load_state_dict_pre_hook(halve_the_rate)
    other.register_load_state_dict_post_hook(look)
    other.load_state_dict(opt.state_dict())
    rate, C = seen[0]
    assert rate == 0.5
    assert torch.equal(C, 2 * opt.state[layer.weight]["C"])  # in full precision, though the layer is float32


def test_hooks_of_load_state_dict_may_put_another_state() -> None:
    _, opt = trained(40)
    other = RecursiveLeastSquares(make_layer(8, 2))

    def forget(optimizer: torch.optim.Optimizer) -> None:
        optimizer.state.clear()

    other.register_load_state_dict_post_hook(forget)
    other.load_state_dict(opt.state_dict())
    train(other.layer, other, X[60:], Y[60:], 7)
    assert cf.gap(other.layer, X[60:], Y[60:]).weight_distance < 1e-12


def test_hooks_of_state_dict() -> None:
    _, opt = trained(40)
    opt.register_state_dict_post_hook(lambda _, state: {**state, "note": type(state["state"][0]["targets"])})
    assert opt.state_dict()["note"] is int


def test_a_refused_state_changes_nothing() -> None:
    layer, opt = trained(40)
    broken = opt.state_dict()
    del broken["state"][0]["R"]
    other = RecursiveLeastSquares(make_layer(8, 2))
    with pytest.raises(InputError, match="the state lacks R"):
        other.load_state_dict(broken)
    assert not other.state
    assert not other._optimizer_load_state_dict_pre_hooks
    other.load_state_dict(opt.state_dict())
    other.layer.load_state_dict(layer.state_dict())
    train(other.layer, other, X[40:], Y[40:], 2)
    assert cf.gap(other.layer, X, Y).weight_distance < 1e-12


@pytest.mark.filterwarnings("ignore:torch.distributed is unavailable")
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("rows", [0, 6, 60])
def test_state_by_torch_distributed_checkpoint(rows: int, flat: bool, tmp_path: Path) -> None:
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    layer, opt = trained(rows)
    weights, state = get_state_dict(layer, opt, options=options)
    dcp.save({"model": weights, "optimizer": state}, checkpoint_id=tmp_path, **ALONE)

    other = make_layer(8, 2)
    resumed = RecursiveLeastSquares(other)
    into_weights, into_state = get_state_dict(other, resumed, options=options)
    into = {"model": into_weights, "optimizer": into_state}
    dcp.load(into, checkpoint_id=tmp_path, **ALONE)
    set_state_dict(other, resumed, model_state_dict=into["model"], optim_state_dict=into["optimizer"], options=options)
    assert resumed.param_groups[0]["lr"] == 1.0
    train(other, resumed, X[rows:], Y[rows:], 2)
    train(layer, opt, X[rows:], Y[rows:], 2)
    assert torch.equal(layer.weight, other.weight)
    assert cf.gap(other, X, Y).weight_distance < 1e-12


def test_priming_leaves_the_layer_and_later_rows_alone() -> None:
    layer = make_layer(8, 2)
    before = layer.weight.detach().clone()
    opt = RecursiveLeastSquares(layer)
    get_state_dict(layer, opt)
    assert torch.equal(before, layer.weight)
    nn.init.ones_(layer.weight)  # loaded by hand after the state was made
    train(layer, opt, X, Y, 3)
    assert cf.gap(layer, X, Y).weight_distance < 1e-12
