"""scikit-learn's tests of its own linear models, on ours. What is not taken, and why:

* sparse tables and weights of one sign are refused (``test_*sparse*``, ``*csr*``, ``*positive*``, ``lbfgs``);
* ``solver`` has no effect, so ``solver_`` and ``n_iter_`` are those of the method that was certified
  (``test_n_iter``, ``test_ridge_regression``), and X is never overwritten (``test_inplace_data_preprocessing``);
* functions that are not the classes' (``ridge_regression``, ``_preprocess_data``, ``_RidgeGCV``);
* criteria have no L1 penalty, starts or limits of steps, and say what is wrong with labels and counts in our words
  (``*l1*``, ``*elastic*``, ``*warm_start*``, ``*max_iter*``, ``test_quantile_*``, ``test_asymmetric_error``,
  ``test_glm_wrong_y_range``); tests of each solver of scikit-learn's take minutes (``_glm``; they pass);
* strengths of zero are allowed in ``RidgeCV``, and what is wrong with others is said in our words
  (``test_ridgecv_alphas_zero``, ``test_ridgecv_alphas_validation``);
* refits of every row at many strengths, which take minutes (``test_ridge_cv_results_predictions``; they pass), and a
  search that warns of its own scores (``test_ridgecv_sample_weight``; it passes).
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
CROSS_VALIDATED = (
    "test_ridge_gcv_integer_arrays",
    "test_ridge_loo_cv_asym_scoring",
    "test_ridge_gcv_cv_results_not_stored",
    "test_ridge_best_score",
    "test_ridge_cv_individual_penalties",
    "test_ridge_classifier_with_scoring",
    "test_ridge_regression_custom_scoring",
    "test_class_weights",
    "test_class_weight_vs_sample_weight",
    "test_class_weights_cv",
    "test_ridgecv_store_cv_results",
    "test_ridge_classifier_cv_store_cv_results",
    "test_ridgecv_alphas_conversion",
    "test_ridgecv_int_alphas",
    "test_ridgecv_alphas_scalar",
    "test_ridgeclassifier_multilabel",
    "test_ridge_cv_custom_multioutput_scorer",
)
KERNEL = (
    "test_kernel_ridge",
    "test_kernel_ridge_singular_kernel",
    "test_kernel_ridge_precomputed",
    "test_kernel_ridge_precomputed_kernel_unchanged",
    "test_kernel_ridge_sample_weights",
    "test_kernel_ridge_multi_output",
)
HUBER = (
    "test_huber_equals_lr_for_high_epsilon",
    "test_huber_scaling_invariant",
    "test_huber_and_sgd_same_results",
    "test_huber_better_r2_score",
    "test_huber_bool",
)
globals().update(adopted.adopt("sklearn.linear_model.tests.test_huber", OURS, HUBER, keep))
globals().update(adopted.adopt("sklearn.tests.test_kernel_ridge", OURS, KERNEL, keep))
globals().update(adopted.adopt("sklearn.linear_model.tests.test_ridge", OURS, CROSS_VALIDATED, keep))
globals().update(adopted.adopt("sklearn.linear_model.tests.test_base", OURS, BASE, keep))
globals().update(adopted.adopt("sklearn.linear_model.tests.test_ridge", OURS, RIDGE, keep))
