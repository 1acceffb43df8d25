"""Kernel ridge: the system, its path, and what is said where a ridge meets a kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge

import closedform as cf
from closedform.fit.path import left_out_residuals

RNG = np.random.default_rng(2)
POINTS = RNG.standard_normal((40, 3))
K = np.exp(-((POINTS[:, None] - POINTS[None]) ** 2).sum(-1) / 2)
Y = RNG.standard_normal((40, 2))
WEIGHT = RNG.uniform(0.5, 2.0, 40)


@pytest.mark.parametrize("l2", [1e-3, 0.1, 10.0, [0.1, 2.0]])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_equal_to_scikit_learn(l2: Any, weight: np.ndarray | None) -> None:
    solution = cf.solve(K, Y, l2=l2, kernel=True, sample_weight=weight)
    peer = KernelRidge(alpha=l2, kernel="precomputed").fit(K, Y, sample_weight=weight)
    assert solution.certificate.accepted
    assert np.abs(solution.weight.numpy().T - peer.dual_coef_).max() < 1e-9 * np.abs(peer.dual_coef_).max()
    assert solution.predict(K[:5]).numpy() == pytest.approx(peer.predict(K[:5]), rel=1e-9)

    # The loss is that of the fit, not of the system that is solved.
    w = np.ones(40) if weight is None else weight
    expected = (w @ (Y - K @ peer.dual_coef_) ** 2).sum() / w.sum() / 2
    assert solution.certificate.loss == pytest.approx(expected, rel=1e-9)
    assert any("kernel ridge" in note for note in solution.notes)


def test_one_dimensional_targets_and_float32() -> None:
    solution = cf.solve(K.astype(np.float32), Y[:, 0].astype(np.float32), l2=0.5, kernel=True)
    peer = KernelRidge(alpha=0.5, kernel="precomputed").fit(K, Y[:, 0])
    assert solution.weight.dtype == torch.float32
    assert solution.predict(K[:5].astype(np.float32)).numpy() == pytest.approx(peer.predict(K[:5]), rel=1e-4)


@pytest.mark.parametrize("weight", [None, WEIGHT * (np.arange(40) != 7)], ids=["unweighted", "weighted"])
def test_left_out_residuals_equal_refits(weight: np.ndarray | None) -> None:
    strengths = [0.0, 1e-4, 0.01, 1.0]
    residuals = left_out_residuals(K, Y, l2=strengths, kernel=True, sample_weight=weight).numpy()
    for place, l2 in enumerate(strengths):
        for row in range(40):
            if weight is not None and weight[row] == 0:
                continue
            kept = np.arange(40) != row
            if weight is not None:
                kept &= weight > 0
            root = np.ones(kept.sum()) if weight is None else np.sqrt(weight[kept])
            system = root[:, None] * K[np.ix_(kept, kept)] * root + l2 * np.eye(kept.sum())
            a = root[:, None] * np.linalg.solve(system, root[:, None] * Y[kept])
            expected = Y[row] - K[row, kept] @ a
            assert residuals[place, row] == pytest.approx(expected, rel=1e-10, abs=1e-10 * np.abs(expected).max())


def test_the_path_of_a_kernel_finds_the_strength_that_is_best_left_out() -> None:
    points = np.random.default_rng(3).uniform(-1, 1, (120, 2))
    kernel = np.exp(-((points[:, None] - points[None]) ** 2).sum(-1) / 0.5)
    y = np.sin(3 * points[:, 0]) + 0.3 * np.random.default_rng(4).standard_normal(120)
    path = cf.ridge_path(kernel[:80, :80], y[:80], kernel=True)
    unregularised = cf.solve(kernel[:80, :80], y[:80])
    truth = np.sin(3 * points[80:, 0])

    def test_error(solution: cf.Solution) -> float:
        return float(np.abs(solution.predict(kernel[80:, :80]).numpy() - truth).mean())

    assert test_error(path.solution) < 0.2 * test_error(unregularised)
    assert path.solution.certificate.accepted
    peer = KernelRidge(alpha=float(path.l2), kernel="precomputed").fit(kernel[:80, :80], y[:80])
    assert path.solution.predict(kernel[80:, :80]).numpy() == pytest.approx(peer.predict(kernel[80:, :80]), rel=1e-9)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_the_density_is_that_of_gaussian_predictions(weight: np.ndarray | None) -> None:
    strengths = np.logspace(-4, 1, 25)
    path = cf.ridge_path(K, Y, l2=strengths, kernel=True, sample_weight=weight)
    w = np.ones(40) if weight is None else weight
    likely = np.empty((25, 2))
    for place, l2 in enumerate(strengths):
        # The variance of a row given the others, of a Gaussian process with noise l2 / w.
        inverse = np.linalg.inv(K + l2 * np.diag(1 / w))
        residual, variance = inverse @ Y / inverse.diagonal()[:, None], 1 / inverse.diagonal()
        scale = (residual**2 / variance[:, None]).mean(0)
        likely[place] = -0.5 * (np.log(scale) + np.log(variance).mean())
        np.testing.assert_allclose(path.errors[place].numpy(), w @ residual**2 / w.sum(), rtol=1e-9)
    assert path.l2.tolist() == strengths[likely.argmax(0)].tolist()
    assert path.scoring == "density"
    squared = cf.ridge_path(K, Y, l2=strengths, kernel=True, sample_weight=weight, scoring="mse")
    assert squared.l2.tolist() == strengths[squared.errors.argmin(0)].tolist()
    assert torch.equal(squared.errors, path.errors)


def test_a_ridge_on_a_kernel_is_noted() -> None:
    assert any("kernel=True" in note for note in cf.solve(K, Y, l2=0.1).notes)
    for X, options in ((K, {}), (np.eye(40), {"l2": 0.1}), (RNG.standard_normal((40, 40)), {"l2": 0.1})):
        assert not any("kernel=True" in note for note in cf.solve(X, Y, **options).notes)


@pytest.mark.parametrize(
    ("X", "options", "message"),
    [
        (K[:, :30], {}, "square"),
        (K + np.triu(np.ones((40, 40)), 1), {}, "not symmetric"),
        (np.where(np.arange(1600).reshape(40, 40) == 42, np.nan, K), {}, "nan in column 2, first in row 1"),
        (np.where(np.eye(40) > 0, np.inf, K), {}, "inf in column 0, first in row 0"),
        (K, {"bias": True}, "no bias"),
        (K, {"digits": 5}, "digits with kernel=True"),
        (K, {"kernel": "rbf"}, "True or False"),
    ],
)
def test_what_is_refused(X: np.ndarray, options: dict[str, Any], message: str) -> None:
    with pytest.raises(cf.ClosedformError, match=message):
        cf.solve(X, Y, **({"l2": 0.1, "kernel": True} | options))


def test_a_comparison_on_a_kernel_has_a_row_of_kernel_ridge() -> None:
    points = np.random.default_rng(3).uniform(-1, 1, (90, 2))
    kernel = np.exp(-((points[:, None] - points[None]) ** 2).sum(-1) / 0.5)
    y = np.sin(3 * points[:, 0]) + 0.3 * np.random.default_rng(4).standard_normal(90)
    found = cf.compare(kernel[:60, :60], y[:60], kernel[60:, :60], y[60:], optimizers=["sgd"], budget=0.05)
    row = found["kernel ridge, l2 by leave-one-out"]
    path = cf.ridge_path(kernel[:60, :60], y[:60], kernel=True)
    expected = np.abs(path.solution.predict(kernel[60:, :60]).numpy() - y[60:]).mean()
    assert row.test_mae == pytest.approx(expected, rel=1e-9)
    assert row.test_mae < found["closed form"].test_mae
    assert "l2 = " in row.settings
    plain = cf.compare(POINTS, Y[:, 0], optimizers=["sgd"], budget=0.05)
    assert not any("kernel" in method.name for method in plain.methods)


def test_an_indefinite_matrix_is_no_kernel() -> None:
    with pytest.raises(cf.ClosedformError, match="negative eigenvalue"):
        cf.ridge_path(K - 0.5 * np.eye(40), Y, kernel=True)
