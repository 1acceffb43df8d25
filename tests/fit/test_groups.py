"""Targets with ridge strengths of their own: each is the fit of that target alone, in the order in which they came."""

from __future__ import annotations

import pytest
import torch

import closedform as cf
from closedform.words.errors import InputError
from data import gaussian

pytestmark = pytest.mark.device

STRENGTHS = [40.0, 0.0, 0.5, 0.0, 40.0]


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
def test_each_target_has_the_weights_and_fit_that_it_has_alone(bias: bool, weighted: bool) -> None:
    X, Y = gaussian(30, 4), gaussian(30, 5, seed=1)
    weight = gaussian(30, seed=2).square() if weighted else None
    sol = cf.solve(X, Y, bias=bias, l2=torch.tensor(STRENGTHS), sample_weight=weight)
    assert sol.outcome is cf.Outcome.CERTIFIED
    for j, strength in enumerate(STRENGTHS):
        alone = cf.solve(X, Y[:, j], bias=bias, l2=strength, sample_weight=weight)
        torch.testing.assert_close(sol.weight[j], alone.weight[0], rtol=1e-13, atol=1e-15)
        assert float(sol.r_squared[j]) == pytest.approx(float(alone.r_squared[0]), rel=1e-12)
        assert float(sol.residual_std[j]) == pytest.approx(float(alone.residual_std[0]), rel=1e-12)
        if bias:
            assert sol.bias is not None
            assert alone.bias is not None
            torch.testing.assert_close(sol.bias[j], alone.bias[0], rtol=1e-13, atol=1e-15)
    assert (sol.bias is not None) == bias


def test_standard_errors_are_refused_where_one_target_has_a_ridge() -> None:
    sol = cf.solve(gaussian(30, 4), gaussian(30, 2, seed=1), l2=torch.tensor([0.0, 1.0]))
    with pytest.raises(InputError, match="not defined for ridge weights"):
        sol.standard_errors()


def test_the_loss_is_that_of_all_targets() -> None:
    X, Y = gaussian(30, 4), gaussian(30, 5, seed=1)
    sol = cf.solve(X, Y, l2=torch.tensor(STRENGTHS))
    assert sol.certificate.loss == pytest.approx(float((X @ sol.weight.T - Y).square().mean()), rel=1e-12)


def test_the_worst_group_speaks() -> None:
    X = gaussian(30, 4)
    X = torch.cat([X, X[:, :1]], 1)
    sol = cf.solve(X, gaussian(30, 2, seed=1), l2=torch.tensor([0.5, 0.0]))
    # The second target, without a ridge, has many minimisers.
    assert sol.outcome is cf.Outcome.CERTIFIED_NOT_UNIQUE
    assert sol.certificate.rank == 4


def test_equal_strengths_are_one_fit() -> None:
    X, Y = gaussian(30, 4), gaussian(30, 3, seed=1)
    assert torch.equal(cf.solve(X, Y, l2=torch.full((3,), 0.5)).weight, cf.solve(X, Y, l2=0.5).weight)
