"""Poisson, quantile and Huber's regression under scikit-learn's contract, exact and certified."""

from __future__ import annotations

from typing import Any, Self, final

import torch
from sklearn.base import RegressorMixin
from sklearn.metrics import d2_tweedie_score
from sklearn.utils.validation import column_or_1d
from torch import Tensor, nn
from typing_extensions import override

from closedform.estimators.convex import ConvexEstimator, check_number
from closedform.estimators.tables import Training, given_back, read_training
from closedform.fit.convex import ConvexSolution, solve_with_scale
from closedform.losses import PinballLoss
from closedform.words.errors import InputError

__all__ = ["HuberRegressor", "PoissonRegressor", "QuantileRegressor"]


@final
class PoissonRegressor(RegressorMixin, ConvexEstimator):
    r"""Poisson regression with a log link, exact and certified; takes the place of scikit-learn's.

    Minimises the weighted mean of ``exp(z) - y z`` plus ``alpha / 2 |w|^2``, the bias not penalised.

    Args:
        alpha: Ridge strength, not negative.
        fit_intercept: Whether there is a bias.
        solver: Without effect, as the fit is exact; here so that the class can take the place of the other.
        max_iter: Without effect; here for the same reason.
        tol: Without effect; here for the same reason.
        warm_start: Without effect; here for the same reason.
        verbose: Without effect; here for the same reason.

    Attributes:
        coef_: Weights, ``(features,)``; a torch tensor where X was one.
        intercept_: The bias, a number.
        n_iter_: Newton steps.
        solution_: The :class:`closedform.ConvexSolution`.
        certificate_: Its certificate.
        n_features_in_: Features of the fit.
        feature_names_in_: Their names, where all have one.

    Example:
        >>> from closedform.estimators import PoissonRegressor
        >>> model = PoissonRegressor(alpha=0.0).fit([[0.0], [0.0], [1.0], [1.0]], [1.0, 3.0, 5.0, 7.0])
        >>> model.predict([[0.0], [1.0]]).round(12), model.certificate_.accepted
        (array([2., 6.]), True)
    """

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        fit_intercept: bool = True,
        solver: str = "lbfgs",
        max_iter: int = 100,
        tol: float = 1e-4,
        warm_start: bool = False,
        verbose: int = 0,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.solver = solver
        self.max_iter = max_iter
        self.tol = tol
        self.warm_start = warm_start
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to the rows.

        Args:
            X: Features, ``(rows, features)``: array, frame or torch tensor.
            y: Counts or rates, ``(rows,)``, not negative.
            sample_weight: One weight for each row, not negative.

        Raises:
            InputError: rows or a strength that cannot be used; a ``ValueError`` too.
        """
        rows, y = _regression_rows(self, X, y, sample_weight)
        strength = check_number(self.alpha, "alpha")
        total = float(rows.X.shape[0] if rows.sample_weight is None else rows.sample_weight.sum())
        _keep_one(self, self._solved(rows, y, nn.PoissonNLLLoss(), strength * total), rows)
        return self

    def predict(self, X: Any) -> Any:
        """Return rates, ``exp(X coef + intercept)``, ``(rows,)``.

        Args:
            X: Features, ``(rows, features)``.
        """
        return given_back(X)(torch.exp(self._outputs(X)))

    @override
    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of the Poisson deviance that is explained, D^2, as scikit-learn's does (and not R^2).

        Args:
            X: Features, ``(rows, features)``.
            y: Counts or rates, ``(rows,)``.
            sample_weight: One weight for each row, not negative.
        """
        rates, counts, weight = (
            part.detach().cpu().numpy() if isinstance(part, Tensor) else part
            for part in (self.predict(X), y, sample_weight)
        )
        return float(d2_tweedie_score(counts, rates, sample_weight=weight, power=1))


@final
class QuantileRegressor(RegressorMixin, ConvexEstimator):
    r"""Linear quantile regression (Koenker and Bassett 1978), exact and certified; takes the place of scikit-learn's.

    Minimises the weighted sum of ``q max(y - z, 0) + (1 - q) max(z - y, 0)``: the answer of the linear program.

    Args:
        quantile: From 0 to 1, both excluded.
        alpha: Must be 0, which is the default here (scikit-learn's is 1, an L1 penalty, which is not available).
        fit_intercept: Whether there is a bias.
        solver: Without effect, as the fit is exact; here so that the class can take the place of the other.
        solver_options: Without effect; here for the same reason.

    Attributes:
        coef_: Weights, ``(features,)``; a torch tensor where X was one.
        intercept_: The bias, a number.
        n_iter_: Newton steps.
        solution_: The :class:`closedform.ConvexSolution`.
        certificate_: Its certificate.
        n_features_in_: Features of the fit.
        feature_names_in_: Their names, where all have one.

    Example:
        >>> from closedform.estimators import QuantileRegressor
        >>> model = QuantileRegressor(quantile=0.5).fit([[0.0], [1.0], [2.0], [3.0], [4.0]], [0.0, 1.0, 2.0, 3.0, 99.0])
        >>> model.coef_.round(12), model.certificate_.accepted
        (array([1.]), True)
    """

    def __init__(
        self,
        *,
        quantile: float = 0.5,
        alpha: float = 0.0,
        fit_intercept: bool = True,
        solver: str = "highs",
        solver_options: Any = None,
    ) -> None:
        self.quantile = quantile
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.solver = solver
        self.solver_options = solver_options

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to the rows.

        Args:
            X: Features, ``(rows, features)``: array, frame or torch tensor.
            y: Targets, ``(rows,)``.
            sample_weight: One weight for each row, not negative.

        Raises:
            InputError: rows or options that cannot be used; a ``ValueError`` too.
        """
        if self.alpha != 0:
            raise InputError(
                f"alpha={self.alpha!r}: an L1 penalty on the weights is not available; use alpha=0, or "
                "closedform.solve(..., l2=..., criterion=closedform.losses.PinballLoss(q)) for a ridge."
            )
        rows, y = _regression_rows(self, X, y, sample_weight)
        _keep_one(self, self._solved(rows, y, PinballLoss(self.quantile), 0.0), rows)
        return self

    def predict(self, X: Any) -> Any:
        """Return quantiles, ``(rows,)``.

        Args:
            X: Features, ``(rows, features)``.
        """
        return given_back(X)(self._outputs(X))


@final
class HuberRegressor(RegressorMixin, ConvexEstimator):
    r"""Robust regression with the scale of its residuals, exact and certified; takes the place of scikit-learn's.

    Minimises ``sum_i w_i (s + s H(r_i / s)) + alpha |w|^2`` over weights, bias and the scale s, where ``H(z)`` is
    ``z^2`` up to ``epsilon`` and ``2 epsilon |z| - epsilon^2`` beyond (Huber 1981; Owen 2007).

    Args:
        epsilon: From which on, in multiples of the scale, residuals count linearly; at least 1.
        max_iter: Without effect, as the fit is exact; here so that the class can take the place of the other.
        alpha: Ridge strength, not negative.
        warm_start: Without effect; here for the same reason.
        fit_intercept: Whether there is a bias.
        tol: Without effect; here for the same reason.

    Attributes:
        coef_: Weights, ``(features,)``; a torch tensor where X was one.
        intercept_: The bias, a number.
        scale_: The scale s.
        outliers_: Which rows count linearly, ``(rows,)``.
        n_iter_: Newton steps.
        solution_: The :class:`closedform.ConvexSolution`.
        certificate_: Its certificate.
        n_features_in_: Features of the fit.
        feature_names_in_: Their names, where all have one.

    Example:
        >>> from closedform.estimators import HuberRegressor
        >>> X = [[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [6.0]]
        >>> model = HuberRegressor(alpha=0.0, epsilon=2.0).fit(X, [0.1, 0.9, 2.1, 99.0, 4.1, 4.9, 6.1])
        >>> model.outliers_.nonzero()[0].tolist(), model.coef_.round(12), model.certificate_.accepted
        ([3], array([1.]), True)
    """

    def __init__(
        self,
        *,
        epsilon: float = 1.35,
        max_iter: int = 100,
        alpha: float = 1e-4,
        warm_start: bool = False,
        fit_intercept: bool = True,
        tol: float = 1e-5,
    ) -> None:
        self.epsilon = epsilon
        self.max_iter = max_iter
        self.alpha = alpha
        self.warm_start = warm_start
        self.fit_intercept = fit_intercept
        self.tol = tol

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to the rows.

        Args:
            X: Features, ``(rows, features)``: array, frame or torch tensor.
            y: Targets, ``(rows,)``.
            sample_weight: One weight for each row, not negative.

        Raises:
            InputError: rows or options that cannot be used; a ``ValueError`` too.
        """
        rows, y = _regression_rows(self, X, y, sample_weight)
        found = solve_with_scale(
            rows.X,
            y,
            epsilon=check_number(self.epsilon, "epsilon"),
            bias=bool(self.fit_intercept),
            l2=check_number(self.alpha, "alpha"),
            sample_weight=rows.sample_weight,
        )
        _keep_one(self, self._told(found.solution), rows)
        self.scale_ = found.scale
        residuals = y - found.solution.predict(rows.X)
        self.outliers_ = rows.back(residuals.abs() > found.scale * self.epsilon)
        return self

    def predict(self, X: Any) -> Any:
        """Return predictions, ``(rows,)``.

        Args:
            X: Features, ``(rows, features)``.
        """
        return given_back(X)(self._outputs(X))


def _regression_rows(estimator: Any, X: Any, y: Any, sample_weight: Any) -> tuple[Training, Tensor]:
    if y is not None and not isinstance(y, Tensor):
        y = column_or_1d(y, warn=True)
    rows = read_training(estimator, X, y, sample_weight)
    return rows, rows.y.reshape(-1)


def _keep_one(estimator: Any, solution: ConvexSolution, rows: Training) -> None:
    estimator.coef_ = rows.back(solution.weight[0])
    estimator.intercept_ = 0.0 if solution.bias is None else rows.back(solution.bias[0])[()]
