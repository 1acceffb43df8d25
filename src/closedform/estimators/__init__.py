"""Estimators under scikit-learn's contract whose fits are exact and certified; they need the extra ``sklearn``.

The classes have the names, parameters and attributes of scikit-learn's, and besides ``certificate_`` and ``solution_``.
"""

from __future__ import annotations

from importlib.util import find_spec

from closedform.words.errors import MissingExtraError

if find_spec("sklearn") is None:
    raise MissingExtraError("scikit-learn", "sklearn", "closedform.estimators")

from closedform.estimators.classifiers import RidgeClassifier
from closedform.estimators.convex_regressors import HuberRegressor, PoissonRegressor, QuantileRegressor
from closedform.estimators.cross_validated import RidgeClassifierCV, RidgeCV
from closedform.estimators.kernels import KernelRidge
from closedform.estimators.linear import LinearRegression, Ridge
from closedform.estimators.linear_classifiers import LinearSVC, LogisticRegression

__all__ = [
    "HuberRegressor",
    "KernelRidge",
    "LinearRegression",
    "LinearSVC",
    "LogisticRegression",
    "PoissonRegressor",
    "QuantileRegressor",
    "Ridge",
    "RidgeCV",
    "RidgeClassifier",
    "RidgeClassifierCV",
]
