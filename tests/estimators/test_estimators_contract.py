"""scikit-learn's contract: its own checks of estimators, and its tools that hold estimators."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy
import sklearn
import torch
from sklearn import kernel_ridge, linear_model
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.gaussian_process.kernels import Matern
from sklearn.model_selection import GridSearchCV, LeaveOneOut, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import closedform as cf
from closedform import estimators
from closedform.words.errors import InputError

THEIRS = {
    "LinearRegression": linear_model.LinearRegression,
    "Ridge": linear_model.Ridge,
    "RidgeCV": linear_model.RidgeCV,
}
THEIR_CLASSIFIERS = {
    "RidgeClassifier": linear_model.RidgeClassifier,
    "RidgeClassifierCV": linear_model.RidgeClassifierCV,
}
EVERY = [getattr(estimators, name) for name in estimators.__all__]
LINEAR = [estimators.LinearRegression, estimators.Ridge]
REGRESSORS = [estimators.KernelRidge, estimators.RidgeCV, *LINEAR]


def rows(targets: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    X = random.standard_normal((40, 5)) + 3
    y = random.standard_normal((40,) if targets is None else (40, targets))
    return X, y


def expected_failures(estimator: Any) -> dict[str, str]:
    """That check sets alpha to 0.01, which for quantiles is an L1 penalty, refused."""
    quantile = isinstance(estimator, estimators.QuantileRegressor)
    return {"check_regressors_train": "an L1 penalty is refused"} if quantile else {}


@parametrize_with_checks([estimator() for estimator in EVERY], expected_failed_checks=expected_failures)
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
    assert float(ours.score(X, y, weight)) == pytest.approx(theirs.score(X, y, weight), abs=1e-12)
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


@pytest.mark.parametrize("estimator", [estimators.RidgeCV, *LINEAR])
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


@pytest.mark.parametrize("estimator", LINEAR)
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


@pytest.mark.parametrize("estimator", REGRESSORS)
def test_names_of_features_are_kept_and_checked(estimator: Any) -> None:
    X, y = rows()
    frame = pd.DataFrame(X, columns=list("abcde"))
    model = estimator().fit(frame, y)
    assert list(model.feature_names_in_) == list("abcde")
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"a": "z"}))


@pytest.mark.parametrize("estimator", REGRESSORS)
def test_fitted_estimators_are_copied_and_pickled(estimator: Any) -> None:
    X, y = rows()
    model = estimator().fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert str(again.certificate_) == str(model.certificate_)
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
        chosen = estimators.RidgeCV().fit(X, y, sample_weight=weight)
        mapping = chosen.get_metadata_routing()._serialize()["scorer"]
    assert mapping["router"]["score"]["sample_weight"] is True
    assert chosen.alpha_ == estimators.RidgeCV().fit(X, y, sample_weight=weight).alpha_
    with pytest.raises(ValueError, match="enable_metadata_routing"):
        estimators.RidgeCV().fit(X, y, groups=weight)
    direct = estimators.Ridge().fit(StandardScaler().fit(X, sample_weight=weight).transform(X), y, weight)
    np.testing.assert_allclose(routed[-1].coef_, direct.coef_)


@pytest.mark.skipif(scipy.__version__ < "1.14", reason="scikit-learn dispatches with SciPy 1.14 and later")
@pytest.mark.parametrize("estimator", REGRESSORS)
def test_tensors_pass_under_scikit_learns_own_dispatch(estimator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    X, y = rows()
    with sklearn.config_context(array_api_dispatch=True):
        model = estimator().fit(torch.from_numpy(X), torch.from_numpy(y))
        assert isinstance(model.score(torch.from_numpy(X), torch.from_numpy(y)), float)
        assert isinstance(model.predict(torch.from_numpy(X)), torch.Tensor)
        assert isinstance(estimator().fit(X, y).predict(X), np.ndarray)


@pytest.mark.parametrize("name", THEIR_CLASSIFIERS)
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_classifiers_say_what_scikit_learns_say(name: str, classes: int, class_weight: str | None) -> None:
    X, _ = rows()
    y = np.array(["ant", "bee", "cat"])[np.minimum(np.arange(40) % 4, classes - 1)]
    ours = getattr(estimators, name)(class_weight=class_weight).fit(X, y)
    theirs = THEIR_CLASSIFIERS[name](class_weight=class_weight).fit(X, y)
    for attribute in ("coef_", "intercept_"):
        np.testing.assert_allclose(getattr(ours, attribute), getattr(theirs, attribute), rtol=1e-9, atol=1e-12)
        assert np.shape(getattr(ours, attribute)) == np.shape(getattr(theirs, attribute))
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    assert ours.score(X, y) == theirs.score(X, y)
    if name == "RidgeClassifierCV":
        assert ours.alpha_ == theirs.alpha_
        assert ours.best_score_ == pytest.approx(theirs.best_score_, rel=1e-9)
        assert ours.path_.solution is ours.solution_
    assert ours.certificate_.accepted


def test_tensors_of_labels_come_in_and_go_out() -> None:
    X, _ = rows()
    labels = torch.arange(40) % 3
    model = estimators.RidgeClassifier().fit(torch.from_numpy(X), labels)
    said = model.predict(torch.from_numpy(X))
    assert isinstance(said, torch.Tensor)
    assert said.dtype == labels.dtype
    np.testing.assert_array_equal(said, estimators.RidgeClassifier().fit(X, labels.numpy()).predict(X))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("per_target", [False, True])
def test_leave_one_out_chooses_as_scikit_learn_does(weighted: bool, per_target: bool) -> None:
    X, y = rows(3)
    y[:, 0] += X[:, 0]
    weight = np.linspace(0.1, 2.0, 40) if weighted else None
    settings = {"alphas": [1e-3, 1.0, 1e3], "alpha_per_target": per_target, "store_cv_results": True}
    ours = estimators.RidgeCV(**settings).fit(X, y, weight)
    theirs = linear_model.RidgeCV(**settings).fit(X, y, weight)
    for attribute in ("alpha_", "best_score_", "coef_", "cv_results_"):
        np.testing.assert_allclose(getattr(ours, attribute), getattr(theirs, attribute), rtol=1e-9, atol=1e-12)


def test_a_grid_is_made_from_the_spectrum() -> None:
    X, y = rows()
    model = estimators.RidgeCV(alphas=None).fit(X, y)
    assert len(model.path_.strengths) > 10
    assert model.alpha_ in model.path_.strengths.tolist()
    with pytest.raises(cf.ClosedformError, match=r"alphas\[1\] == -1"):
        estimators.RidgeCV(alphas=[1.0, -1.0]).fit(X, y)
    with pytest.raises(cf.ClosedformError, match="alphas has shape"):
        estimators.RidgeCV(alphas=[]).fit(X, y)
    for truth in (True, [True], [1.0, True], np.array([True])):
        with pytest.raises(cf.ClosedformError, match="holds truth values"):
            estimators.RidgeCV(alphas=truth).fit(X, y)
    with pytest.raises(cf.ClosedformError, match="must be numbers that are not negative"):
        estimators.RidgeCV(alphas=["1"]).fit(X, y)
    with pytest.raises(cf.ClosedformError, match="with cv give the strengths"):
        estimators.RidgeCV(alphas=None, cv=3).fit(X, y)


@pytest.mark.parametrize("estimator", LINEAR)
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_batches_make_the_fit_of_all_rows(estimator: Any, fit_intercept: bool) -> None:
    X, y = rows(2)
    weight = np.linspace(0.0, 2.0, 40)
    model, whole = estimator(fit_intercept=fit_intercept), estimator(fit_intercept=fit_intercept).fit(X, y, weight)
    for start in (0, 3, 17, 39):
        stop = {0: 3, 3: 17, 17: 39, 39: 40}[start]
        model.partial_fit(X[start:stop], y[start:stop], weight[start:stop])
    np.testing.assert_allclose(model.coef_, whole.coef_, rtol=1e-10)
    np.testing.assert_allclose(model.intercept_, whole.intercept_, rtol=1e-10)
    assert model.certificate_.accepted
    with pytest.raises(ValueError, match="4 features, but"):
        model.partial_fit(X[:, :4], y)
    with pytest.raises(ValueError, match="NaN"):
        model.partial_fit(X * np.nan, y)
    np.testing.assert_allclose(
        model.partial_fit(X, y, weight).coef_,
        estimator(fit_intercept=fit_intercept).fit(np.tile(X, (2, 1)), np.tile(y, (2, 1)), np.tile(weight, 2)).coef_,
        rtol=1e-10,
    )
    model.fit(X, y)
    assert not hasattr(model, "accumulator_")


KERNELS = {
    "linear": {}, "rbf": {"gamma": 0.1}, "laplacian": {"gamma": 0.1}, "polynomial": {"degree": 2}, "cosine": {},
}  # fmt: skip


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("weighted", [False, True])
def test_kernel_ridge_is_scikit_learns(kernel: str, weighted: bool) -> None:
    X, y = rows(2)
    weight = np.linspace(0.5, 2.0, 40) if weighted else None
    ours = estimators.KernelRidge(alpha=[0.5, 2.0], kernel=kernel, **KERNELS[kernel]).fit(X, y, weight)
    theirs = kernel_ridge.KernelRidge(alpha=[0.5, 2.0], kernel=kernel, **KERNELS[kernel]).fit(X, y, weight)
    np.testing.assert_allclose(ours.dual_coef_, theirs.dual_coef_, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(ours.predict(X[:7]), theirs.predict(X[:7]), rtol=1e-7, atol=1e-9)
    assert ours.certificate_.accepted


def test_the_strength_of_a_kernel_is_chosen_by_leave_one_out() -> None:
    X, noise = rows()
    y = np.sin(X[:, 0]) + 0.3 * noise
    model = estimators.KernelRidge(alpha="loo", kernel=Matern(nu=1.5, length_scale=2.0)).fit(X, y)
    at = [float(model.alpha_), 10 * float(model.alpha_), float(model.alpha_) / 10]
    errors = []
    for alpha in at:
        fold = kernel_ridge.KernelRidge(alpha=alpha, kernel=Matern(nu=1.5, length_scale=2.0))
        errors.append(-cross_val_score(fold, X, y, cv=LeaveOneOut(), scoring="neg_mean_squared_error").mean())
    assert min(errors) == errors[0]
    assert float(model.path_.error[0]) == pytest.approx(errors[0], rel=1e-8)
    with pytest.raises(cf.ClosedformError, match="kernel='none' is not known"):
        estimators.KernelRidge(kernel="none").fit(X, y)
    with pytest.raises(cf.ClosedformError, match="a kernel is square"):
        estimators.KernelRidge(kernel="precomputed").fit(X, y)


def test_a_kernel_of_matern_has_a_name() -> None:
    X, y = rows()
    settings = {"nu": 2.5, "length_scale": 2.0}
    named = estimators.KernelRidge(kernel="matern", kernel_params=settings).fit(X, y)
    assert np.array_equal(named.dual_coef_, estimators.KernelRidge(kernel=Matern(**settings)).fit(X, y).dual_coef_)
    usual = estimators.KernelRidge(kernel="matern").fit(X, y)
    assert np.array_equal(usual.predict(X[:3]), estimators.KernelRidge(kernel=Matern(nu=1.5)).fit(X, y).predict(X[:3]))


def test_predictions_of_a_kernel_come_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = rows()
    model = estimators.KernelRidge(kernel="rbf").fit(X, y)
    whole = model.predict(X)
    monkeypatch.setattr("closedform.estimators.kernels._BLOCK", 120)
    np.testing.assert_allclose(model.predict(X), whole, rtol=1e-12)


def test_without_scikit_learn_the_pip_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util
    import sys

    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    monkeypatch.delitem(sys.modules, "closedform.estimators")
    with pytest.raises(cf.ClosedformError, match=r"pip install 'closedform\[sklearn\]'"):
        importlib.import_module("closedform.estimators")


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("name", ["LinearRegression", "Ridge", "RidgeCV", "RidgeClassifier", "KernelRidge"])
def test_tensors_of_whole_numbers_are_fitted_as_numbers(name: str, dtype: torch.dtype) -> None:
    X = (torch.arange(24).reshape(8, 3) * 7 % 5 % 4).to(dtype)
    y = (torch.arange(8) % 2).double()
    model, numpy = getattr(estimators, name)().fit(X, y), getattr(estimators, name)().fit(X.double().numpy(), y.numpy())
    weights = "dual_coef_" if name == "KernelRidge" else "coef_"
    np.testing.assert_allclose(np.asarray(getattr(model, weights)), getattr(numpy, weights), rtol=1e-9)
    np.testing.assert_allclose(np.asarray(model.predict(X)), numpy.predict(X.double().numpy()), rtol=1e-9)


@pytest.mark.parametrize("name", ["Ridge", "KernelRidge", "RidgeClassifierCV", "LogisticRegression", "HuberRegressor"])
def test_negative_weights_are_named(name: str) -> None:
    X, y = np.arange(24.0).reshape(8, 3) % 5, np.arange(8) % 2
    with pytest.raises(InputError, match=r"sample_weight holds -1\.0 in row 7"):
        getattr(estimators, name)().fit(X, y, sample_weight=[1.0] * 7 + [-1.0])


def test_a_batch_follows_the_parameters_and_a_failed_one_adds_nothing() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 3)), rng.standard_normal(20) + 5
    model = estimators.Ridge(alpha=0.5).partial_fit(X[:10], y[:10])
    shallow = copy.copy(model).set_params(fit_intercept=False)
    shallow.partial_fit(X[10:], y[10:])
    expected = estimators.Ridge(alpha=0.5, fit_intercept=False).fit(X, y)
    np.testing.assert_allclose(shallow.coef_, expected.coef_, rtol=1e-9)
    assert shallow.intercept_ == 0.0
    assert len(model.accumulator_) == 10
    with pytest.raises(InputError, match="2 targets"):
        model.partial_fit(X, np.stack([y, y], 1))
    np.testing.assert_allclose(
        model.partial_fit(X[10:], y[10:]).coef_, estimators.Ridge(alpha=0.5).fit(X, y).coef_, rtol=1e-9
    )


def test_a_class_without_weight_stays_without_it_where_classes_are_balanced() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((30, 2)), np.arange(30) % 3
    weight = (y != 2) * (1.0 + y)
    model = estimators.LogisticRegression(class_weight="balanced", fit_intercept=False).fit(X, y, sample_weight=weight)
    plain = estimators.LogisticRegression(fit_intercept=False).fit(X, y, sample_weight=(y != 2) * 1.5)
    np.testing.assert_allclose(model.coef_, plain.coef_, atol=1e-8)
    assert model.certificate_.accepted
