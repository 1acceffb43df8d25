"""``fit_`` and ``gap`` on a ``torch.nn.Linear``: the layer is at the solution, and a gap is what it was moved by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import closedform as cf
from cases import BY_NAME
from solved import (
    exact_of,
    problem_of,
    solution_of,
)


@pytest.mark.parametrize("name", ["tall with bias", "low rank tall with bias", "wide", "float32", "bfloat16"])
def test_fit_puts_the_layer_at_the_solution(name: str) -> None:
    problem, sol = problem_of(BY_NAME[name]), solution_of(BY_NAME[name])
    targets, features = sol.weight.shape
    layer = torch.nn.Linear(features, targets, bias=problem.bias, dtype=sol.weight.dtype)
    parameters = list(layer.parameters())
    fitted = cf.fit_(layer, problem.X, problem.Y)
    assert all(a is b for a, b in zip(parameters, layer.parameters(), strict=True))
    assert all(p.requires_grad and p.grad is None for p in layer.parameters())
    assert torch.equal(layer.weight, sol.weight)
    assert torch.equal(layer.weight, fitted.weight)
    if problem.bias:
        assert sol.bias is not None
        assert torch.equal(layer.bias, sol.bias)


def test_fit_rounds_a_float64_answer_to_a_float32_layer() -> None:
    problem = problem_of(BY_NAME["tall condition 1e+03 large residual"])
    layer = torch.nn.Linear(16, 2, bias=False)
    cf.fit_(layer, problem.X, problem.Y)
    assert layer.weight.dtype is torch.float32
    exact = exact_of(BY_NAME["tall condition 1e+03 large residual"]).weight
    assert_allclose(layer.weight.detach().numpy(), exact, rtol=2.0**-23, atol=1e-10 * np.abs(exact).max())


def test_gap_of_the_solution_is_nothing() -> None:
    problem, sol = problem_of(BY_NAME["tall with bias"]), solution_of(BY_NAME["tall with bias"])
    layer = torch.nn.Linear(6, 3, dtype=torch.float64)
    cf.fit_(layer, problem.X, problem.Y)
    gap = cf.gap(layer, problem.X, problem.Y)
    assert_allclose(gap.loss, sol.certificate.loss, rtol=1e-12)
    assert 0 <= gap.excess_loss <= 1e-25
    assert gap.weight_distance <= 1e-13


def test_gap_of_a_moved_layer_is_what_it_was_moved_by() -> None:
    problem, sol = problem_of(BY_NAME["tall with bias"]), solution_of(BY_NAME["tall with bias"])
    layer = torch.nn.Linear(6, 3, dtype=torch.float64)
    cf.fit_(layer, problem.X, problem.Y)
    move = 1e-6 * torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        layer.weight += move
    gap = cf.gap(layer, problem.X, problem.Y)
    assert_allclose(gap.optimal_loss, sol.certificate.loss, rtol=1e-12)
    excess = ((problem.X @ move.numpy().T) ** 2).mean()
    assert_allclose(gap.excess_loss, excess, rtol=1e-6)  # a difference of losses would keep only four digits
    assert gap.weight_distance > 0


@pytest.mark.parametrize(
    ("wrap", "path"),
    [
        (lambda layer: torch.nn.Sequential(layer, torch.nn.Identity()), "0"),
        (torch.nn.DataParallel, "module"),
        (lambda layer: torch.compile(layer, backend="eager"), "_orig_mod"),
        (lambda layer: torch.nn.Sequential(layer, torch.nn.Linear(1, 1)), None),
        (lambda layer: torch.nn.Sequential(layer, torch.nn.LayerNorm(1)), None),
    ],
)
def test_a_wrapped_layer_is_named(wrap: Any, path: str | None) -> None:
    model = wrap(torch.nn.Linear(3, 1))
    with pytest.raises(cf.ClosedformError, match=r"a torch\.nn\.Linear is needed") as told:
        cf.fit_(model, torch.eye(3), torch.ones(3, 1))
    assert str(told.value).partition("needed")[2] == ("." if path is None else f": pass layer.get_submodule({path!r}).")
    if path is not None:
        assert cf.fit_(model.get_submodule(path), torch.eye(3), torch.ones(3, 1)).certified
