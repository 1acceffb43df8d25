"""scikit-learn's tests of its own linear models, on ours. What is not taken, and why:

* sparse tables and weights of one sign are refused (``test_*sparse*``, ``*csr*``, ``*positive*``, ``lbfgs``);
* ``solver`` has no effect, so ``solver_`` and ``n_iter_`` are those of the method that was certified
  (``test_n_iter``, ``test_ridge_regression``), and X is never overwritten (``test_inplace_data_preprocessing``);
* functions that are not the classes' (``ridge_regression``, ``_preprocess_data``, ``_RidgeGCV``).
"""

from __future__ import annotations

from typing import Any

import adopted
import pytest

from closedform import estimators

OURS = {name: getattr(estimators, name) for name in estimators.__all__}


@pytest.fixture
def global_random_seed() -> int:
    return 42


def keep(name: str, value: Any) -> bool:
    if adopted.is_sparse(value):
        return False
    if name == "X_shape" and max(value) > 50:  # larger ones of the same kind
        return False
    # Solvers have no effect, so one that is asked for and one that is not are as good as all.
    return name != "solver" or value in ("auto", "svd")


BASE = (
    "test_linear_regression",
    "test_fit_intercept",
    "test_linear_regression_multiple_outcome",
    "test_linear_regression_vs_lstsq",
    "test_linear_regression_sample_weights",
    "test_linear_regression_sample_weight_consistency",
    "test_raises_value_error_if_sample_weights_greater_than_1d",
)
RIDGE = (
    "ols_ridge_dataset",
    "test_ridge_regression_hstacked_X",
    "test_ridge_regression_vstacked_X",
    "test_ridge_regression_unpenalized",
    "test_ridge_regression_unpenalized_hstacked_X",
    "test_ridge_regression_unpenalized_vstacked_X",
    "test_ridge_regression_sample_weights",
    "test_ridge_shapes_type",
    "test_ridge_intercept",
    "test_ridge_vs_lstsq",
    "test_ridge_individual_penalties",
    "test_dtype_match",
    "test_ridge_sag_with_X_fortran",
    "test_ridge_sample_weight_consistency",
    "test_raises_value_error_if_sample_weights_greater_than_1d",
)
globals().update(adopted.adopt("sklearn.linear_model.tests.test_base", OURS, BASE, keep))
globals().update(adopted.adopt("sklearn.linear_model.tests.test_ridge", OURS, RIDGE, keep))
