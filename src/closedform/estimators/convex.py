"""Logistic, Poisson and quantile regression under scikit-learn's contract, exact and certified."""

from __future__ import annotations

import warnings
from abc import ABC
from collections.abc import Mapping
from numbers import Real
from typing import Any, Self, final

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d
from torch import Tensor, nn

from closedform.estimators.tables import Training, given_back, read_features, read_training
from closedform.fit.convex import ConvexSolution
from closedform.fit.orchestrator import solve
from closedform.losses import PinballLoss
from closedform.words.errors import InputError

__all__ = ["LogisticRegression", "PoissonRegressor", "QuantileRegressor"]


class _ConvexEstimator(BaseEstimator, ABC):
    """What these have in common: a fit with a criterion, and outputs ``X coef' + intercept``."""

    fit_intercept: bool
    coef_: Any
    intercept_: Any

    @property
    def certificate_(self) -> Any:
        """The certificate of the fit: ``solution_.certificate``."""
        return self.solution_.certificate

    def _solved(self, rows: Training, y: Tensor, criterion: nn.Module, l2: float) -> ConvexSolution:
        solution = solve(
            rows.X, y, bias=bool(self.fit_intercept), l2=l2, sample_weight=rows.sample_weight, criterion=criterion
        )
        assert isinstance(solution, ConvexSolution)
        if not solution.outcome.certified:
            warnings.warn(str(solution.outcome), ConvergenceWarning, stacklevel=4)
        self.solution_ = solution
        self.n_iter_: Any = max(1, solution.steps)
        return solution

    def _outputs(self, X: Any) -> Tensor:
        check_is_fitted(self)
        x = read_features(self, X)
        coefficients = torch.as_tensor(self.coef_, device=x.device)
        kind = torch.promote_types(x.dtype, coefficients.dtype)
        outputs = x.to(kind) @ coefficients.T.to(kind) if coefficients.ndim == 2 else x.to(kind) @ coefficients.to(kind)
        return outputs + torch.as_tensor(self.intercept_, device=x.device).to(outputs.dtype)


def _strength(value: Any, name: str, *, positive: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) >= 0:
        raise InputError(f"{name}={value!r} must be a number of at least 0.")
    if positive and not float(value) > 0:
        raise InputError(f"{name}={value!r} must be a positive number.")
    return float(value)


@final
class LogisticRegression(ClassifierMixin, _ConvexEstimator):
    r"""Logistic regression of two or more classes, exact and certified; takes the place of scikit-learn's.

    Minimises ``sum_i w_i cross-entropy_i + |W|^2 / (2 C)``, the bias not penalised. Where ``C`` is infinite and classes
    are divided by a plane no minimiser exists: a warning says so, and ``solution_.direction`` proves it.

    Args:
        C: Inverse of the ridge strength, positive; infinite for none.
        tol: Without effect, as the fit is exact; here so that the class can take the place of the other.
        fit_intercept: Whether there is a bias.
        class_weight: None, ``"balanced"``, or a weight for each class.
        random_state: Without effect; here for the same reason.
        solver: Without effect; here for the same reason.
        max_iter: Without effect; here for the same reason.
        n_jobs: Without effect; here for the same reason.

    Attributes:
        classes_: The classes, ascending, ``(classes,)``.
        coef_: Weights, ``(1, features)`` for two classes, else ``(classes, features)``; a torch tensor where X was one.
        intercept_: ``(1,)`` or ``(classes,)``; zeros without a bias.
        n_iter_: Newton steps, ``(1,)``.
        solution_: The :class:`closedform.ConvexSolution`.
        certificate_: Its certificate: a proven bound on how far the loss can still fall.
        n_features_in_: Features of the fit.
        feature_names_in_: Their names, where all have one.

    Example:
        >>> from closedform.estimators import LogisticRegression
        >>> model = LogisticRegression().fit([[-2.0], [-1.0], [1.0], [2.0]], ["no", "no", "yes", "yes"])
        >>> model.predict([[3.0]]), model.certificate_.accepted
        (array(['yes'], dtype='<U3'), True)
    """

    def __init__(
        self,
        *,
        C: float = 1.0,
        tol: float = 1e-4,
        fit_intercept: bool = True,
        class_weight: Any = None,
        random_state: Any = None,
        solver: str = "lbfgs",
        max_iter: int = 100,
        n_jobs: int | None = None,
    ) -> None:
        self.C = C
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.random_state = random_state
        self.solver = solver
        self.max_iter = max_iter
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to the rows.

        Args:
            X: Features, ``(rows, features)``: array, frame or torch tensor.
            y: Labels, ``(rows,)``, numbers or strings.
            sample_weight: One weight for each row, not negative.

        Raises:
            InputError: no labels, one class only, or options that cannot be used; a ``ValueError`` too.
        """
        if y is None:
            raise InputError("the fit requires y to be passed, but the target y is None; pass labels, (rows,).")
        strength = 1 / _strength(self.C, "C", positive=True)
        labels = column_or_1d(y.detach().cpu().numpy() if isinstance(y, Tensor) else y, warn=True)
        if labels.dtype.kind == "f" and not np.isfinite(labels).all():
            raise InputError("Input y contains NaN or infinity; labels must be known.")
        check_classification_targets(labels)
        classes, codes = np.unique(labels, return_inverse=True)
        rows = read_training(self, X, codes.astype(np.float64), sample_weight)
        if rows.sample_weight is not None:
            counted = rows.sample_weight.cpu().numpy() > 0
            if np.unique(codes[counted]).size < 2:
                raise InputError("the rows of positive weight hold only one class; at least two classes are needed.")
        if classes.size < 2:
            raise InputError(f"the rows hold only one class, {classes[0]!r}; at least two classes are needed.")

        self.classes_ = classes
        factors = self._class_weights(labels, codes, rows)
        if classes.size == 2:
            weight = None if factors is None else rows.X.new_tensor(factors, dtype=torch.float64)[_codes(codes, rows)]
            weighted = rows if weight is None else _times(rows, weight)
            solution = self._solved(weighted, _codes(codes, rows).to(torch.float64), nn.BCEWithLogitsLoss(), strength)
        else:
            criterion = nn.CrossEntropyLoss(weight=None if factors is None else torch.tensor(factors, device="cpu"))
            solution = self._solved(rows, _codes(codes, rows), criterion, strength)
        bias = solution.weight.new_zeros(solution.weight.shape[0]) if solution.bias is None else solution.bias
        self.coef_, self.intercept_ = rows.back(solution.weight), rows.back(bias)
        self.n_iter_ = np.array([self.n_iter_], dtype=np.int32)
        return self

    def _class_weights(self, labels: Any, codes: Any, rows: Training) -> Any:
        if self.class_weight is None:
            return None
        if self.class_weight != "balanced" and not isinstance(self.class_weight, Mapping):
            raise InputError(f"class_weight={self.class_weight!r} must be None, 'balanced' or a weight for each class.")
        if self.class_weight == "balanced":
            weight = None if rows.sample_weight is None else rows.sample_weight.cpu().numpy()
            sums = np.bincount(codes, weights=weight)
            return sums.sum() / (sums.size * sums)
        return compute_class_weight(self.class_weight, classes=self.classes_, y=labels)

    def decision_function(self, X: Any) -> Any:
        """Return logits, ``(rows,)`` for two classes, else ``(rows, classes)``.

        Args:
            X: Features, ``(rows, features)``.
        """
        return given_back(X)(self._logits(X))

    def _logits(self, X: Any) -> Tensor:
        outputs = self._outputs(X)
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs

    def predict_proba(self, X: Any) -> Any:
        """Return probabilities, ``(rows, classes)``.

        Args:
            X: Features, ``(rows, features)``.
        """
        return given_back(X)(torch.softmax(self._both(X), 1))

    def predict_log_proba(self, X: Any) -> Any:
        """Return logarithms of probabilities, ``(rows, classes)``.

        Args:
            X: Features, ``(rows, features)``.
        """
        return given_back(X)(torch.log_softmax(self._both(X), 1))

    def _both(self, X: Any) -> Tensor:
        logits = self._logits(X)
        return torch.stack([torch.zeros_like(logits), logits], 1) if logits.ndim == 1 else logits

    def predict(self, X: Any) -> Any:
        """Return the likeliest class of each row, ``(rows,)``.

        Args:
            X: Features, ``(rows, features)``.
        """
        likeliest = self._both(X).argmax(1).cpu().numpy()
        return self.classes_[likeliest]


def _codes(codes: Any, rows: Training) -> Tensor:
    return torch.from_numpy(codes.astype(np.int64)).to(rows.X.device)


def _times(rows: Training, weight: Tensor) -> Training:
    given = weight if rows.sample_weight is None else rows.sample_weight * weight
    return Training(rows.X, rows.y, given, rows.back)


@final
class PoissonRegressor(RegressorMixin, _ConvexEstimator):
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
        strength = _strength(self.alpha, "alpha")
        total = float(rows.X.shape[0] if rows.sample_weight is None else rows.sample_weight.sum())
        _keep_one(self, self._solved(rows, y, nn.PoissonNLLLoss(), strength * total), rows)
        return self

    def predict(self, X: Any) -> Any:
        """Return rates, ``exp(X coef + intercept)``, ``(rows,)``.

        Args:
            X: Features, ``(rows, features)``.
        """
        return given_back(X)(torch.exp(self._outputs(X)))


@final
class QuantileRegressor(RegressorMixin, _ConvexEstimator):
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


def _regression_rows(estimator: Any, X: Any, y: Any, sample_weight: Any) -> tuple[Training, Tensor]:
    if y is not None and not isinstance(y, Tensor):
        y = column_or_1d(y, warn=True)
    rows = read_training(estimator, X, y, sample_weight)
    return rows, rows.y.reshape(-1)


def _keep_one(estimator: Any, solution: ConvexSolution, rows: Training) -> None:
    estimator.coef_ = rows.back(solution.weight[0])
    estimator.intercept_ = 0.0 if solution.bias is None else rows.back(solution.bias[0])[()]
