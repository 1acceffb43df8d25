"""Compiled functions of the layer's output work: metrics return their numbers, losses are followed."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from test_optim import make_layer, slices
from torch import Tensor
from torch.nn import functional as F

import closedform as cf
from closedform.optim import RecursiveLeastSquares
from data import gaussian

X, Y = gaussian(103, 6), gaussian(103, 2, seed=1)
BACKENDS = ["eager", "aot_eager", "inductor"]

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(params=BACKENDS)
def compiled(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    if request.param == "inductor" and shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler")
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield lambda function: torch.compile(function, backend=request.param)
    torch.compiler.reset()


def r_squared(prediction: Tensor, target: Tensor) -> Tensor:
    rows = prediction.shape[0]
    return 1 - ((target - prediction) ** 2).sum() / ((target - target.sum(0) / rows) ** 2).sum()


def test_a_compiled_metric_and_a_compiled_loss(compiled: Callable[..., Any]) -> None:
    metric, criterion = compiled(r_squared), compiled(lambda o, y: ((o - y) ** 2).mean())
    layer = make_layer(6, 2)
    opt = RecursiveLeastSquares(layer)
    for rows in slices(103, 40):
        opt.zero_grad()
        output = layer(X[rows])
        plain = F.linear(X[rows], layer.weight, layer.bias)
        assert metric(output, Y[rows]).item() == pytest.approx(r_squared(plain, Y[rows]).item(), rel=1e-12)
        assert metric(output.detach(), Y[rows]).item() == pytest.approx(r_squared(plain, Y[rows]).item(), rel=1e-12)
        criterion(output, Y[rows]).backward()
        opt.step()
    assert cf.gap(layer, X, Y).weight_distance < 1e-12


def test_a_whole_turn_that_is_compiled() -> None:
    torch.compiler.reset()
    layer = make_layer(6, 2)
    opt = RecursiveLeastSquares(layer)
    turn = torch.compile(lambda x, y: F.mse_loss(layer(x), y), backend="eager")
    for rows in slices(103, 40):
        opt.zero_grad()
        turn(X[rows], Y[rows]).backward()
        opt.step()
    assert cf.gap(layer, X, Y).weight_distance < 1e-12


@pytest.mark.skipif(
    not hasattr(torch._dynamo.config, "nontraceable_tensor_subclasses"),
    reason="torch before 2.7 has its own words for it",
)
def test_fullgraph_is_refused_with_what_to_do() -> None:
    torch.compiler.reset()
    layer = make_layer(6, 2)
    opt = RecursiveLeastSquares(layer)
    output = opt.layer(X)
    with pytest.raises(Exception, match="compile it without fullgraph=True"):
        torch.compile(F.mse_loss, backend="eager", fullgraph=True)(output, Y)
