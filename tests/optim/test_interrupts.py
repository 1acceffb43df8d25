"""An interrupt at any line of a step leaves layer and state agreeing: both as before, or both as after."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from test_optim import make_layer, train
from torch import nn
from torch.nn import functional as F

import closedform
import closedform as cf
from closedform.optim import RecursiveLeastSquares
from data import gaussian

PACKAGE = str(Path(closedform.__file__).parent)
X, Y = gaussian(30, 3), gaussian(30, 2, seed=1)


def prepared(rows: int) -> tuple[nn.Linear, RecursiveLeastSquares]:
    layer = make_layer(3, 2)
    opt = RecursiveLeastSquares(layer)
    train(layer, opt, X[:rows], Y[:rows], 1)
    return layer, opt


def interrupted_at(line: int, act: Any) -> bool:
    """Run ``act`` and interrupt it when it comes to that line of the package; return whether it came so far."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            count += 1
            if count == line:
                raise KeyboardInterrupt
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(previous)
    return False


def snapshot(layer: nn.Linear, opt: RecursiveLeastSquares) -> list[Any]:
    state = opt.state_dict()["state"].get(0, {})
    return [*(p.detach().clone() for p in layer.parameters()), *(state[name] for name in sorted(state))]


def same(one: list[Any], other: list[Any]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


@pytest.mark.parametrize("rows", [1, 20])
def test_an_interrupted_step_is_done_or_not_done(rows: int) -> None:
    new = slice(rows, rows + 1)

    def ready() -> tuple[nn.Linear, RecursiveLeastSquares]:
        layer, opt = prepared(rows)
        opt.zero_grad()
        F.mse_loss(layer(X[new]), Y[new]).backward()
        return layer, opt

    layer, opt = ready()
    before = snapshot(layer, opt)
    opt.step()
    after = snapshot(layer, opt)

    line, done = 0, False
    while not done:
        line += 1
        layer, opt = ready()
        done = not interrupted_at(line, opt.step)
        now = snapshot(layer, opt)
        committed = same(now, after)
        assert committed or same(now, before), f"neither before nor after, interrupted at line {line}"
        if not committed:
            opt.step()  # the rows are still there
            assert same(snapshot(layer, opt), after)
    assert line > 50


def test_an_interrupted_backward_pass_changes_nothing_and_can_be_done_again() -> None:
    line, done = 0, False
    while not done:
        line += 7  # every seventh line: forward hook, the functions of the loss, measuring, delivery
        layer, opt = prepared(20)
        before = snapshot(layer, opt)

        def turn() -> None:
            opt.zero_grad()  # noqa: B023
            F.mse_loss(layer(X[20:]), Y[20:]).backward()  # noqa: B023

        done = not interrupted_at(line, turn)
        assert same(snapshot(layer, opt), before)
        turn()
        opt.step()
        assert cf.gap(layer, X, Y).weight_distance < 1e-12
    assert line > 100
