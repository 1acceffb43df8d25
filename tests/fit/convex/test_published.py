"""Data that others publish results for: ten digits of minimisers found here by other means, and of published ones."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits
from torch import nn

import closedform as cf
from closedform.losses import PinballLoss

DIGITS = 1e-10


def newton(A: Any, targets: Any, kind: str, l2: float, outputs: int = 1) -> Any:
    """The minimiser with a bias: gradients in extended precision, steps by the Hessian in double precision."""
    wide = np.asarray(A, dtype=np.longdouble)
    c = A.shape[1]
    penalty = np.full((c, outputs), l2)
    penalty[0] = 0
    theta = np.zeros((c, outputs), dtype=np.longdouble)
    H = np.zeros((c * outputs, c * outputs))
    for step in range(60):
        Z = wide @ theta
        if kind == "poisson":
            means = np.exp(np.minimum(Z, 20))
        elif kind == "binary":
            means = 1 / (1 + np.exp(-Z))
        else:
            powers = np.exp(Z - Z.max(1, keepdims=True))
            means = powers / powers.sum(1, keepdims=True)
        gradient = wide.T @ (means - targets) + penalty * theta
        if step < 12:
            m = np.asarray(means, dtype=float)
            for a in range(outputs):
                for b in range(outputs):
                    bend = m[:, a] * ((a == b) - m[:, b]) if kind != "poisson" else m[:, 0]
                    H[a::outputs, b::outputs] = A.T @ (bend[:, None] * A) + (a == b) * np.diag(penalty[:, a])
        change = np.linalg.lstsq(H, np.asarray(gradient, dtype=float).reshape(-1), rcond=1e-13)[0]
        theta = theta - change.reshape(c, outputs)
        if kind == "classes":
            theta = theta - theta.mean(1, keepdims=True)
        if np.abs(change).max() <= 1e-15 * float(np.abs(theta).max()):
            break
    return np.asarray(theta, dtype=float)


def with_ones(X: Any) -> Any:
    return np.column_stack([np.ones(len(X)), X])


def agrees(sol: cf.ConvexSolution, theta: Any) -> None:
    assert sol.outcome is cf.Outcome.CERTIFIED, sol
    assert sol.bias is not None
    found = np.column_stack([sol.bias.numpy(), sol.weight.numpy()]).T
    assert np.abs(found - theta).max() <= DIGITS * np.abs(theta).max()


def test_breast_cancer() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    sol = cf.solve(X, y.astype(float), bias=True, l2=1.0, criterion=nn.BCEWithLogitsLoss())
    assert isinstance(sol, cf.ConvexSolution)
    agrees(sol, newton(with_ones(X), y[:, None], "binary", 1.0))


def test_digits() -> None:
    X, y = load_digits(return_X_y=True)
    kept = np.flatnonzero(y < 4)[:400]
    X, y = X[kept] / 16, y[kept]
    sol = cf.solve(X, y, bias=True, l2=0.5, criterion=nn.CrossEntropyLoss())
    assert isinstance(sol, cf.ConvexSolution)
    agrees(sol, newton(with_ones(X), np.eye(4)[y], "classes", 0.5, 4))


def table(name: str) -> Any:
    datasets = pytest.importorskip("statsmodels.datasets", reason="statsmodels is not installed: its data")
    return getattr(datasets, name).load_pandas().data


def test_spector_by_logistic_regression() -> None:
    data = table("spector")
    X, y = data[["GPA", "TUCE", "PSI"]].to_numpy(float), data["GRADE"].to_numpy(float)
    sol = cf.solve(X, y, bias=True, criterion=nn.BCEWithLogitsLoss())
    assert isinstance(sol, cf.ConvexSolution)
    agrees(sol, newton(with_ones(X), y[:, None], "binary", 0.0))
    # As published: Greene, Econometric Analysis, and statsmodels.
    np.testing.assert_allclose(sol.weight[0], [2.82611259, 0.09515766, 2.37868766], atol=6e-9)
    assert float(sol.bias or 0) == pytest.approx(-13.02134686, abs=6e-9)


def test_randhie_by_poisson_regression() -> None:
    data = table("randhie")
    X, y = data.drop(columns="mdvis").to_numpy(float), data["mdvis"].to_numpy(float)
    sol = cf.solve(X, y, bias=True, criterion=nn.PoissonNLLLoss())
    assert isinstance(sol, cf.ConvexSolution)
    agrees(sol, newton(with_ones(X), y[:, None], "poisson", 0.0))


@pytest.mark.parametrize("quantile", [0.5])
def test_engel_by_quantiles(quantile: float) -> None:
    data = table("engel")
    X, y = data[["income"]].to_numpy(float), data["foodexp"].to_numpy(float)
    sol = cf.solve(X, y, bias=True, criterion=PinballLoss(quantile))
    # The line of a quantile goes through two points: all pairs are tried.
    first, second = np.array(list(combinations(range(len(y)), 2))).T
    with np.errstate(all="ignore"):
        slope = (y[first] - y[second]) / (X[first, 0] - X[second, 0])
    slope, first = slope[np.isfinite(slope)], first[np.isfinite(slope)]
    bias = y[first] - slope * X[first, 0]
    residuals = y[:, None] - bias - slope * X
    losses = np.maximum(quantile * residuals, (quantile - 1) * residuals).sum(0)
    best = losses.argmin()
    assert sol.outcome is cf.Outcome.CERTIFIED, sol
    assert float(sol.weight) == pytest.approx(slope[best], rel=DIGITS)
    assert sol.bias is not None
    assert float(sol.bias) == pytest.approx(bias[best], rel=DIGITS)
    if quantile == 0.5:
        # As published: Koenker and Bassett (1982), and statsmodels.
        assert (round(float(sol.bias), 4), round(float(sol.weight), 4)) == (81.4822, 0.5602)
