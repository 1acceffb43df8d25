"""What estimators of convex losses have in common, under scikit-learn's contract."""

from __future__ import annotations

import math
import warnings
from abc import ABC
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d
from torch import Tensor, nn

from closedform.estimators.tables import Training, given_back, read_features, read_training
from closedform.fit.convex import ConvexSolution
from closedform.fit.orchestrator import solve
from closedform.numerics.balance import balanced_weights
from closedform.words.errors import InputError

__all__ = ["ConvexClassifier", "ConvexEstimator", "check_number", "codes_of", "times"]


class ConvexEstimator(BaseEstimator, ABC):
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
        return self._told(solution)

    def _told(self, solution: ConvexSolution) -> ConvexSolution:
        """Keep a solution, and warn where it is not certified."""
        if not solution.outcome.certified:
            warnings.warn(solution.sentence, ConvergenceWarning, stacklevel=5)
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


class ConvexClassifier(ClassifierMixin, ConvexEstimator, ABC):
    """What both classifiers have in common: labels, their weights, and scores.

    Attributes:
        classes_: The classes, ascending.
    """

    class_weight: Any
    classes_: Any

    def _read(self, X: Any, y: Any, sample_weight: Any) -> tuple[Training, Any, Any]:
        """Return the rows, the labels and the places of their classes, which are kept.

        Raises:
            InputError: no labels, or of one class only.
        """
        if y is None:
            raise InputError("the fit requires y to be passed, but the target y is None; pass labels, (rows,).")
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
            raise InputError(f"the rows hold only one class, {classes.tolist()[0]!r}; at least two classes are needed.")

        self.classes_ = classes
        return rows, labels, codes

    def _class_weights(self, labels: Any, codes: Any, rows: Training) -> Any:
        if self.class_weight is None:
            return None
        if self.class_weight != "balanced" and not isinstance(self.class_weight, Mapping):
            raise InputError(f"class_weight={self.class_weight!r} must be None, 'balanced' or a weight for each class.")
        if self.class_weight == "balanced":
            weight = None if rows.sample_weight is None else rows.sample_weight.cpu()
            return balanced_weights(torch.bincount(torch.from_numpy(codes), weight)).numpy()
        return compute_class_weight(self.class_weight, classes=self.classes_, y=labels)

    def decision_function(self, X: Any) -> Any:
        """Return scores (logits of a logistic regression), ``(rows,)`` for two classes, else ``(rows, classes)``.

        Args:
            X: Features, ``(rows, features)``.
        """
        return given_back(X)(self._scores(X))

    def _scores(self, X: Any) -> Tensor:
        outputs = self._outputs(X)
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs


def check_number(value: Any, name: str, *, positive: bool = False) -> float:
    """Return a number that is not negative, such as a ridge strength.

    Raises:
        InputError: it is negative, no number, or zero where that is not allowed.
    """
    wanted = "a positive number" if positive else "a number of at least 0"
    number = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    if not number >= 0 or (positive and not number > 0):
        raise InputError(f"{name}={value!r} must be {wanted}.")
    return number


def codes_of(codes: Any, rows: Training) -> Tensor:
    """Return the places of classes as a tensor beside the rows."""
    return torch.from_numpy(codes.astype(np.int64)).to(rows.X.device)


def times(rows: Training, weight: Tensor) -> Training:
    """Return the rows with their weights times others."""
    given = weight if rows.sample_weight is None else rows.sample_weight * weight
    return Training(rows.X, rows.y, given, rows.back)
