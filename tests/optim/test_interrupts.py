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
#: Lines, among them those that hand over layer and state.
NEAR_THE_END = 100
X, Y = gaussian(30, 3), gaussian(30, 2, seed=1)


def prepared(rows: int) -> tuple[nn.Linear, RecursiveLeastSquares]:
    layer = make_layer(3, 2)
    opt = RecursiveLeastSquares(layer)
    train(layer, opt, X[:rows], Y[:rows], 10)
    return layer, opt


def lines_of(act: Any, interrupt: int = 0) -> list[tuple[str, int]]:
    """Run ``act`` and return the lines of the package it came to; it is interrupted at that one of them, if given."""
    seen: list[tuple[str, int]] = []

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            seen.append((frame.f_code.co_filename, frame.f_lineno))
            if len(seen) == interrupt:
                raise KeyboardInterrupt
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    except KeyboardInterrupt:
        assert len(seen) == interrupt
    finally:
        sys.settrace(previous)
    return seen


def moments(act: Any) -> list[int]:
    """Return when to interrupt ``act``: when it comes to a line for the first time, and at each line near the end."""
    seen = lines_of(act)
    first = {place: number for number, place in reversed(list(enumerate(seen, start=1)))}
    return sorted({*first.values(), *range(max(1, len(seen) - NEAR_THE_END), len(seen) + 1)})


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

    times = moments(ready()[1].step)
    assert len(times) > 50
    for line in times:
        layer, opt = ready()
        lines_of(opt.step, interrupt=line)
        now = snapshot(layer, opt)
        committed = same(now, after)
        assert committed or same(now, before), f"neither before nor after, interrupted at line {line}"
        if not committed:
            opt.step()  # the rows are still there
            assert same(snapshot(layer, opt), after)


def test_an_interrupted_backward_pass_changes_nothing_and_can_be_done_again() -> None:
    def turn() -> None:
        opt.zero_grad()
        F.mse_loss(layer(X[20:]), Y[20:]).backward()

    layer, opt = prepared(20)
    times = moments(turn)
    assert len(times) > 100
    for line in times[::4]:  # forward hook, the functions of the loss, measuring, delivery
        layer, opt = prepared(20)
        before = snapshot(layer, opt)
        lines_of(turn, interrupt=line)
        assert same(snapshot(layer, opt), before)
        turn()
        opt.step()
        assert cf.gap(layer, X, Y).weight_distance < 1e-12
