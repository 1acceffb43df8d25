"""scikit-learn's contract: its own checks of estimators, and its tools that hold estimators."""

from __future__ import annotations

import pickle
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn import linear_model
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import closedform as cf
from closedform import estimators

THEIRS = {"LinearRegression": linear_model.LinearRegression, "Ridge": linear_model.Ridge}
EVERY = [getattr(estimators, name) for name in estimators.__all__]


def rows(targets: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    X = random.standard_normal((40, 5)) + 3
    y = random.standard_normal((40,) if targets is None else (40, targets))
    return X, y


@parametrize_with_checks([estimator() for estimator in EVERY])
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("targets", [None, 1, 3])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_numbers_and_shapes_are_scikit_learns(name: str, targets: int | None, fit_intercept: bool) -> None:
    X, y = rows(targets)
    weight = np.linspace(0.0, 2.0, 40)
    ours = getattr(estimators, name)(fit_intercept=fit_intercept).fit(X, y, sample_weight=weight)
    theirs = THEIRS[name](fit_intercept=fit_intercept).fit(X, y, sample_weight=weight)
    for attribute in ("coef_", "intercept_"):
        one, other = getattr(ours, attribute), getattr(theirs, attribute)
        assert np.shape(one) == np.shape(other)
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)
    assert ours.predict(X).shape == theirs.predict(X).shape
    assert ours.score(X, y, weight) == pytest.approx(theirs.score(X, y, weight), abs=1e-12)
    assert ours.certificate_.accepted
    assert ours.solution_.outcome is cf.Outcome.CERTIFIED


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_rank_and_singular_values_are_those_of_the_centred_rows(weighted: bool, fit_intercept: bool) -> None:
    X, y = rows()
    X = np.column_stack([X, X[:, 0] - X[:, 1]])
    weight = np.linspace(0.0, 2.0, 40) if weighted else None
    ours = estimators.LinearRegression(fit_intercept=fit_intercept).fit(X, y, weight)
    theirs = linear_model.LinearRegression(fit_intercept=fit_intercept).fit(X, y, weight)
    assert ours.rank_ == theirs.rank_ == 5
    np.testing.assert_allclose(ours.singular_, theirs.singular_, atol=1e-12)


def test_singular_values_that_cost_more_than_the_fit_are_left_out() -> None:
    X = torch.randn(4000, 200, dtype=torch.float32)
    assert not hasattr(estimators.LinearRegression().fit(X, X[:, 0]), "singular_")


def test_one_strength_for_each_target() -> None:
    X, y = rows(3)
    ours = estimators.Ridge(alpha=[0.0, 1.0, 1e4]).fit(X, y)
    np.testing.assert_allclose(ours.coef_, linear_model.Ridge(alpha=[0.0, 1.0, 1e4]).fit(X, y).coef_, rtol=1e-9)


@pytest.mark.parametrize("alpha", [[1.0, 2.0], -1.0, float("nan"), float("inf"), "1", None, True])
def test_strengths_that_are_none_are_named(alpha: Any) -> None:
    X, y = rows(3)
    with pytest.raises(cf.ClosedformError, match="alpha"):
        estimators.Ridge(alpha=alpha).fit(X, y)


@pytest.mark.parametrize("estimator", [estimators.LinearRegression, estimators.Ridge])
def test_what_is_not_there_is_refused_by_name(estimator: Any) -> None:
    X, y = rows()
    with pytest.raises(cf.ClosedformError, match="positive=True"):
        estimator(positive=True).fit(X, y)
    with pytest.raises(cf.ClosedformError, match="fit_intercept='no'"):
        estimator(fit_intercept="no").fit(X, y)
    shuffled = pd.Series(y)[::-1]
    with pytest.raises(cf.ClosedformError, match="indexes of X and y do not agree"):
        estimator().fit(pd.DataFrame(X, columns=list("abcde")), shuffled)


@pytest.mark.parametrize("estimator", EVERY)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_tensors_come_in_and_go_out(estimator: Any, dtype: torch.dtype) -> None:
    X, y = (torch.from_numpy(table) for table in rows(2))
    model = estimator().fit(X.to(dtype), y.requires_grad_())
    assert isinstance(model.coef_, torch.Tensor)
    assert model.coef_.dtype == dtype
    predicted = model.predict(X.to(dtype))
    assert isinstance(predicted, torch.Tensor)
    assert predicted.dtype == dtype
    assert not predicted.requires_grad
    assert isinstance(model.predict(X.numpy()), np.ndarray)
    assert isinstance(model.score(X.numpy(), y.detach().numpy()), float)


@pytest.mark.parametrize("estimator", EVERY)
def test_tensors_are_checked_as_arrays_are(estimator: Any) -> None:
    X, y = (torch.from_numpy(table) for table in rows())
    with pytest.raises(NotFittedError):
        estimator().predict(X)
    model = estimator().fit(X, y)
    with pytest.raises(ValueError, match="4 features, but"):
        model.predict(X[:, :4])
    with pytest.raises(ValueError, match="NaN"):
        model.predict(X * float("nan"))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(X, y[:9])
    with pytest.raises(ValueError, match="nan in column 0"):
        model.fit(X, y * float("nan"))
    with pytest.raises(ValueError, match="2D array"):
        model.fit(y, y)


@pytest.mark.parametrize("estimator", EVERY)
def test_names_of_features_are_kept_and_checked(estimator: Any) -> None:
    X, y = rows()
    frame = pd.DataFrame(X, columns=list("abcde"))
    model = estimator().fit(frame, y)
    assert list(model.feature_names_in_) == list("abcde")
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"a": "z"}))


@pytest.mark.parametrize("estimator", EVERY)
def test_fitted_estimators_are_copied_and_pickled(estimator: Any) -> None:
    X, y = rows()
    model = estimator().fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert again.certificate_ == model.certificate_
    assert not hasattr(clone(model), "coef_")


def test_scikit_learns_tools_hold_them() -> None:
    X, y = rows()
    search = GridSearchCV(
        make_pipeline(StandardScaler(), estimators.Ridge()), {"ridge__alpha": [0.1, 1.0, 1e3]}, cv=4
    ).fit(X, y)
    reference = GridSearchCV(
        make_pipeline(StandardScaler(), linear_model.Ridge()), {"ridge__alpha": [0.1, 1.0, 1e3]}, cv=4
    ).fit(X, y)
    assert search.best_params_ == reference.best_params_
    np.testing.assert_allclose(search.predict(X), reference.predict(X))
    assert search.best_estimator_[-1].certificate_.accepted
    with joblib.parallel_backend("threading", n_jobs=2):
        ours = cross_val_score(estimators.LinearRegression(), X, y, cv=4)
    np.testing.assert_allclose(ours, cross_val_score(linear_model.LinearRegression(), X, y, cv=4))


def test_weights_are_routed() -> None:
    X, y = rows()
    weight = np.linspace(0.0, 2.0, 40)
    with sklearn.config_context(enable_metadata_routing=True):
        model = estimators.Ridge().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        routed = make_pipeline(StandardScaler().set_fit_request(sample_weight=True), model)
        routed.fit(X, y, sample_weight=weight)
    direct = estimators.Ridge().fit(StandardScaler().fit(X, sample_weight=weight).transform(X), y, weight)
    np.testing.assert_allclose(routed[-1].coef_, direct.coef_)


@pytest.mark.parametrize("estimator", EVERY)
def test_tensors_pass_under_scikit_learns_own_dispatch(estimator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    X, y = rows()
    with sklearn.config_context(array_api_dispatch=True):
        model = estimator().fit(torch.from_numpy(X), torch.from_numpy(y))
        assert isinstance(model.score(torch.from_numpy(X), torch.from_numpy(y)), float)
        assert isinstance(model.coef_, torch.Tensor)
        assert isinstance(estimator().fit(X, y).coef_, np.ndarray)
