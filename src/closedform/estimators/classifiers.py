"""Ridge regression on coded classes under scikit-learn's contract."""

from __future__ import annotations

from abc import ABC
from typing import Any, Self, final

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, column_or_1d
from torch import Tensor
from typing_extensions import override

from closedform.estimators.linear import LinearEstimator, check_strengths
from closedform.estimators.tables import Training, given_back, read_features, read_training
from closedform.rows.one_hot import OneHotRows

__all__ = ["RidgeClassifier", "RidgeLabels"]


class RidgeLabels(ClassifierMixin, LinearEstimator, ABC):
    """What both ridge classifiers do: code classes as -1 and 1, weight them, and say the class of the largest score.

    Attributes:
        classes_: The classes, in ascending order.
    """

    class_weight: Any
    classes_: Any

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def decision_function(self, X: Any) -> Any:
        """Return the scores, ``(rows,)`` for two classes and ``(rows, classes)`` for more.

        Args:
            X: Features, ``(rows, features)``.

        Raises:
            NotFittedError: before ``fit``.
            ValueError: other features than those of the fit, NaN or infinities.
        """
        check_is_fitted(self)
        return given_back(X)(self._scores(read_features(self, X)))

    @override
    def predict(self, X: Any) -> Any:
        check_is_fitted(self)
        scores = self._scores(read_features(self, X))
        if self._multilabel:
            said = (scores > 0).to(torch.int64).cpu().numpy()
            return given_back(X)(torch.from_numpy(said))
        places = (scores > 0).long() if scores.ndim == 1 else scores.argmax(1)
        labels = self.classes_[places.cpu().numpy()]
        return (
            given_back(X)(torch.from_numpy(labels)) if isinstance(X, Tensor) and labels.dtype.kind in "biuf" else labels
        )

    def _coded(self, X: Any, y: Any, sample_weight: Any) -> tuple[Training, Any]:
        """Return the rows, and the targets that stand for their classes: -1 and 1, a tensor or made as they are read.

        Raises:
            ValueError: labels that are no classes.
        """
        rows = read_training(self, X, y, sample_weight, labels=True)
        check_classification_targets(rows.y)
        multilabel = type_of_target(rows.y).startswith("multilabel")
        labels = rows.y if multilabel else column_or_1d(rows.y, warn=True)
        if self.class_weight is not None:
            given = np.ones(len(labels)) if rows.sample_weight is None else rows.sample_weight.cpu().numpy()
            weight = torch.from_numpy(given * compute_sample_weight(self.class_weight, labels)).to(rows.X.device)
            rows = Training(rows.X, rows.y, weight, rows.back)
        return Training(rows.X, labels, rows.sample_weight, rows.back), self._targets(rows.X, labels, multilabel)

    def _targets(self, X: Tensor, labels: Any, multilabel: bool) -> Any:
        if multilabel:
            coded = LabelBinarizer(pos_label=1, neg_label=-1).fit_transform(labels)
            self.classes_ = np.arange(coded.shape[1])
            self._multilabel = True
            return torch.from_numpy(coded).to(X)
        classes, places = np.unique(labels, return_inverse=True)
        codes = torch.from_numpy(places.astype(np.int64)).to(X.device)
        self.classes_, self._multilabel = classes, False
        if len(classes) > 2:
            return OneHotRows(codes, len(classes), X.dtype, off=-1.0)
        return torch.where(codes == 1, 1.0, -1.0).to(X).unsqueeze(1)

    def _flatten(self) -> None:
        """Leave the weights of two classes without a dimension of targets, as scikit-learn does."""
        if self.coef_.shape[0] == 1:
            self.coef_ = self.coef_[0]


@final
class RidgeClassifier(RidgeLabels):
    """Ridge regression on classes coded -1 and 1, exact and certified; takes the place of scikit-learn's class.

    Args:
        alpha: Ridge strength, not negative.
        fit_intercept: Whether there is a bias.
        copy_X: Without effect, as X is never written to; here so that the class can take the place of the other.
        max_iter: Without effect, as the fit is exact; here for the same reason.
        tol: Without effect; here for the same reason.
        class_weight: ``"balanced"``, a mapping from classes to weights, or None.
        solver: Without effect, as the method is chosen by cost and judged by the certificate; here for the same reason.
        positive: Must be False.
        random_state: Without effect; here for the same reason.

    Attributes:
        classes_: The classes, in ascending order.
        coef_: Weights, ``(features,)`` for two classes, else ``(classes, features)``.
        intercept_: ``(1,)`` or ``(classes,)``; 0.0 without a bias.
        n_iter_: Passes over the rows: one that factors them, and those that refine the weights.
        solver_: The method whose weights were accepted.
        solution_: The :class:`closedform.Solution`.
        certificate_: Its certificate.

    Example:
        >>> from closedform.estimators import RidgeClassifier
        >>> model = RidgeClassifier().fit([[-2.0], [-1.0], [1.0], [2.0]], ["no", "no", "yes", "yes"])
        >>> model.predict([[3.0]]).tolist(), model.certificate_.accepted
        (['yes'], True)
    """

    def __init__(
        self,
        alpha: Any = 1.0,
        *,
        fit_intercept: bool = True,
        copy_X: bool = True,
        max_iter: int | None = None,
        tol: float = 1e-4,
        class_weight: Any = None,
        solver: str = "auto",
        positive: bool = False,
        random_state: Any = None,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.copy_X = copy_X
        self.max_iter = max_iter
        self.tol = tol
        self.class_weight = class_weight
        self.solver = solver
        self.positive = positive
        self.random_state = random_state

    @override
    def _strengths(self, n_targets: int) -> list[float]:
        return check_strengths(self.alpha, n_targets)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to the rows.

        Args:
            X: Features, ``(rows, features)``: array, frame or torch tensor.
            y: Labels, ``(rows,)``, or several ones and zeros for each row, ``(rows, labels)``.
            sample_weight: One weight for each row, not negative, or one for all.

        Raises:
            ValueError: rows, labels or a strength that cannot be used; ``closedform.InputError`` is one.
        """
        rows, targets = self._coded(X, y, sample_weight)
        solution = self._solved(rows, targets)
        self._keep(solution, rows, single=False)
        self._flatten()
        self.n_iter_ = 1 + solution.attempts[-1].passes
        self.solver_ = solution.attempts[-1].method
        return self
