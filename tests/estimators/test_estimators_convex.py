"""Estimators of convex losses have scikit-learn's numbers, to its tolerance, and say what they prove."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn import linear_model, svm
from sklearn.exceptions import ConvergenceWarning

from closedform.estimators import (
    HuberRegressor,
    LinearSVC,
    LogisticRegression,
    PoissonRegressor,
    QuantileRegressor,
)
from closedform.words.errors import InputError
from closedform.words.outcome import Outcome


def features(rows: int = 90) -> Any:
    return np.random.default_rng(0).standard_normal((rows, 4))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_logistic_regression(classes: int, class_weight: Any, fit_intercept: bool) -> None:
    X, random = features(), np.random.default_rng(1)
    y = np.array(["a", "b", "c"])[np.minimum(random.integers(4, size=90), classes - 1)]
    weight = random.uniform(size=90)
    options: dict[str, Any] = {"C": 0.7, "class_weight": class_weight, "fit_intercept": fit_intercept}
    ours = LogisticRegression(**options).fit(X, y, weight)
    theirs = linear_model.LogisticRegression(**options, tol=1e-12, max_iter=10000).fit(X, y, weight)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-5, atol=1e-6)
    assert ours.intercept_.shape == theirs.intercept_.shape
    assert ours.decision_function(X).shape == theirs.decision_function(X).shape
    assert (ours.predict(X) == theirs.predict(X)).all()
    assert ours.certificate_.relative_gap < 1e-14


def test_options_of_scikit_learns_logistic_regression_are_taken() -> None:
    X, y = features(), np.random.default_rng(1).integers(3, size=90)
    options = LogisticRegression().get_params()
    assert options == {**linear_model.LogisticRegression().get_params(), **options}
    plain = LogisticRegression().fit(X, y)
    for same in ({"penalty": "l2", "warm_start": True}, {"l1_ratio": None, "dual": True, "verbose": 1}):
        np.testing.assert_array_equal(LogisticRegression(**same).fit(X, y).coef_, plain.coef_)
    bare = LogisticRegression(None, C=0.1).fit(X, y)
    np.testing.assert_array_equal(bare.coef_, LogisticRegression(C=np.inf).fit(X, y).coef_)
    with pytest.raises(InputError, match="penalty='l1' is not available"):
        LogisticRegression(penalty="l1").fit(X, y)
    with pytest.raises(InputError, match=r"l1_ratio=0\.5 is not available"):
        LogisticRegression(l1_ratio=0.5).fit(X, y)
    with pytest.raises(InputError, match="C=-1 must be a positive number"):
        LogisticRegression(C=-1).fit(X, y)
    with pytest.raises(InputError, match="only one class, 0; "):
        LogisticRegression().fit(X, np.zeros(len(X), dtype=int))


def test_classes_that_are_divided_are_told() -> None:
    X = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    with pytest.warns(ConvergenceWarning, match="no minimiser exists"):
        model = LogisticRegression(C=np.inf).fit(X, [0, 0, 1, 1])
    assert model.solution_.outcome is Outcome.NO_MINIMISER


def test_poisson_regression() -> None:
    X = features()
    y = np.random.default_rng(2).poisson(np.exp(0.5 * X[:, 0] + 1)).astype(float)
    weight = np.linspace(0, 2, 90)
    ours = PoissonRegressor(alpha=0.1).fit(X, y, weight)
    theirs = linear_model.PoissonRegressor(alpha=0.1, tol=1e-12, max_iter=10000, solver="newton-cholesky")
    theirs.fit(X, y, weight)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-7)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-7)


def test_quantile_regression() -> None:
    X = features()
    y = X[:, 0] + np.random.default_rng(3).standard_normal(90)
    ours = QuantileRegressor(quantile=0.8).fit(X, y)
    theirs = linear_model.QuantileRegressor(quantile=0.8, alpha=0.0).fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-6)
    assert ours.predict(X).shape == (90,)
    with pytest.raises(InputError, match="L1 penalty"):
        QuantileRegressor(alpha=1.0).fit(X, y)


def test_tensors_come_back_as_tensors() -> None:
    X, y = torch.tensor(features()), torch.arange(90) % 3
    model = LogisticRegression().fit(X, y)
    assert isinstance(model.coef_, torch.Tensor)
    assert isinstance(model.predict_proba(X), torch.Tensor)
    assert model.predict(X).shape == (90,)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.filterwarnings("ignore:Liblinear failed")
def test_linear_support_vector_machines(classes: int, loss: str, class_weight: Any) -> None:
    X, random = features(), np.random.default_rng(5)
    noisy = X[:, :2] + 0.3 * random.standard_normal((90, 2))
    y = np.array(["a", "b", "c"])[(noisy[:, 0] > 0).astype(int) + (noisy[:, 1] > 0.5) * (classes == 3)]
    weight = random.uniform(size=90)
    options: dict[str, Any] = {"C": 0.7, "loss": loss, "class_weight": class_weight, "intercept_scaling": 2.0}
    ours = LinearSVC(**options).fit(X, y, weight)
    theirs = svm.LinearSVC(**options, tol=1e-9, max_iter=20000, random_state=0).fit(X, y, weight)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-5)
    assert ours.coef_.shape == theirs.coef_.shape
    assert ours.decision_function(X).shape == theirs.decision_function(X).shape
    assert (ours.predict(X) == theirs.predict(X)).all()
    assert ours.certificate_.relative_gap < 1e-12
    with pytest.raises(InputError, match="crammer_singer"):
        LinearSVC(multi_class="crammer_singer").fit(X, y)


@pytest.mark.parametrize("alpha", [0.0, 1e-4, 3.0])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("epsilon", [1.1, 1.35])
def test_huber_regression_with_its_scale(alpha: float, fit_intercept: bool, epsilon: float) -> None:
    X, random = features(), np.random.default_rng(6)
    y = X @ np.array([1.0, -2.0, 0.5, 0.0]) + 3 + random.standard_t(2, size=90)
    weight = np.linspace(0, 2, 90)
    options: dict[str, Any] = {"alpha": alpha, "fit_intercept": fit_intercept, "epsilon": epsilon}
    ours = HuberRegressor(**options).fit(X, y, weight)
    theirs = linear_model.HuberRegressor(**options, tol=1e-10, max_iter=10000).fit(X, y, weight)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-4)
    assert ours.scale_ == pytest.approx(theirs.scale_, rel=1e-4)
    assert (ours.outliers_ == theirs.outliers_).all()
    assert ours.solution_.outcome is Outcome.CERTIFIED

    def objective(model: Any) -> Any:
        r = np.abs(y - model.predict(X)) / model.scale_
        losses = np.where(r < epsilon, r**2, 2 * epsilon * r - epsilon**2)
        return weight @ (model.scale_ * (1 + losses)) + alpha * model.coef_ @ model.coef_

    assert objective(ours) == pytest.approx(ours.certificate_.objective, rel=1e-13)
    # Nothing is below the proven bound: not what the other solver found either.
    assert objective(ours) - ours.certificate_.gap <= objective(theirs)
    assert objective(ours) <= objective(theirs) * (1 + 1e-15)


def test_a_scale_that_falls_to_nothing_is_told() -> None:
    X = features()
    model = HuberRegressor(alpha=0.0).fit(X, X[:, 0] + 1)
    assert "the scale fell to rounding" in str(model.solution_)
    assert 0 < model.scale_ < 1e-13
    assert model.coef_ == pytest.approx([1, 0, 0, 0], abs=1e-12)


def test_the_score_of_counts_is_the_deviance_explained() -> None:
    X, random = features(), np.random.default_rng(2)
    y, weight = random.poisson(np.exp(X[:, 0])).astype(float), random.uniform(size=90)
    ours, theirs = PoissonRegressor(alpha=0.1).fit(X, y), linear_model.PoissonRegressor(alpha=0.1, tol=1e-12).fit(X, y)
    assert ours.score(X, y, weight) == pytest.approx(theirs.score(X, y, weight), rel=1e-6)
    tensors = torch.from_numpy(X), torch.from_numpy(y)
    assert PoissonRegressor(alpha=0.1).fit(*tensors).score(*tensors) == pytest.approx(theirs.score(X, y), rel=1e-6)


def test_a_narrow_quadratic_with_a_scale_is_the_absolute_loss() -> None:
    X = features()
    y = X @ np.array([1.0, -2.0, 0.5, 0.0]) + np.random.default_rng(3).standard_cauchy(90)
    narrow = HuberRegressor(epsilon=1.0, alpha=0.0).fit(X, y)
    medians = QuantileRegressor(quantile=np.float32(0.5)).fit(X, y)
    assert narrow.certificate_.accepted
    np.testing.assert_allclose(narrow.coef_, medians.coef_, rtol=1e-9)


def test_a_quadratic_wider_than_all_residuals_is_least_squares() -> None:
    X = features()
    y = X @ np.array([1.0, -2.0, 0.5, 0.0]) + np.random.default_rng(3).standard_normal(90)
    wide = HuberRegressor(epsilon=1e10, alpha=0.0).fit(X, y)
    squares = linear_model.LinearRegression().fit(X, y)
    assert wide.certificate_.accepted
    np.testing.assert_allclose(wide.coef_, squares.coef_, rtol=1e-9)
    assert wide.scale_ == pytest.approx(np.sqrt(np.mean((y - squares.predict(X)) ** 2)), rel=1e-9)
