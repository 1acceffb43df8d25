"""Logistic regression and linear support vector machines under scikit-learn's contract, exact and certified."""

from __future__ import annotations

from typing import Any, Self, final

import numpy as np
import torch
from torch import Tensor, nn

from closedform.estimators.convex import ConvexClassifier, check_number, codes_of, times
from closedform.estimators.tables import given_back
from closedform.fit.convex import ConvexSolution
from closedform.fit.orchestrator import solve
from closedform.losses import HingeLoss, SquaredHingeLoss
from closedform.words.errors import InputError

__all__ = ["LinearSVC", "LogisticRegression"]


@final
class LogisticRegression(ConvexClassifier):
    r"""Logistic regression of two or more classes, exact and certified; takes the place of scikit-learn's.

    Minimises ``sum_i w_i cross-entropy_i + |W|^2 / (2 C)``, the bias not penalised. Where ``C`` is infinite and classes
    are divided by a plane no minimiser exists: a warning says so, and ``solution_.direction`` proves it.

    Args:
        penalty: ``"l2"``, or None for no ridge; ``"deprecated"``, scikit-learn's default, is the former.
        C: Inverse of the ridge strength, positive; infinite for none.
        l1_ratio: Must be 0 or None.
        dual: Without effect, as the fit is exact; here so that the class can take the place of the other.
        tol: Without effect; here for the same reason.
        fit_intercept: Whether there is a bias.
        intercept_scaling: Without effect, as the bias is not penalised; here for the same reason.
        class_weight: None, ``"balanced"``, or a weight for each class.
        random_state: Without effect; here for the same reason.
        solver: Without effect; here for the same reason.
        max_iter: Without effect; here for the same reason.
        verbose: Without effect; here for the same reason.
        warm_start: Without effect; here for the same reason.
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
        penalty: Any = "deprecated",
        *,
        C: float = 1.0,
        l1_ratio: float | None = 0.0,
        dual: bool = False,
        tol: float = 1e-4,
        fit_intercept: bool = True,
        intercept_scaling: float = 1,
        class_weight: Any = None,
        random_state: Any = None,
        solver: str = "lbfgs",
        max_iter: int = 100,
        verbose: int = 0,
        warm_start: bool = False,
        n_jobs: int | None = None,
    ) -> None:
        self.penalty = penalty
        self.C = C
        self.l1_ratio = l1_ratio
        self.dual = dual
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.class_weight = class_weight
        self.random_state = random_state
        self.solver = solver
        self.max_iter = max_iter
        self.verbose = verbose
        self.warm_start = warm_start
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
        strength = self._strength()
        rows, labels, codes = self._read(X, y, sample_weight)
        factors = self._class_weights(labels, codes, rows)
        if self.classes_.size == 2:
            weight = None if factors is None else rows.X.new_tensor(factors, dtype=torch.float64)[codes_of(codes, rows)]
            weighted = rows if weight is None else times(rows, weight)
            solution = self._solved(weighted, codes_of(codes, rows).to(torch.float64), nn.BCEWithLogitsLoss(), strength)
        else:
            if factors is None and rows.sample_weight is not None:
                # A class of which no row counts has an output all the same; weights say how many classes there are.
                factors = np.ones(self.classes_.size)
            criterion = nn.CrossEntropyLoss(weight=None if factors is None else torch.tensor(factors, device="cpu"))
            solution = self._solved(rows, codes_of(codes, rows), criterion, strength)
        bias = solution.weight.new_zeros(solution.weight.shape[0]) if solution.bias is None else solution.bias
        self.coef_, self.intercept_ = rows.back(solution.weight), rows.back(bias)
        self.n_iter_ = np.array([self.n_iter_], dtype=np.int32)
        return self

    def _strength(self) -> float:
        """Return the ridge strength.

        Raises:
            InputError: another penalty.
        """
        strength = 1 / check_number(self.C, "C", positive=True)
        if self.penalty not in ("deprecated", "l2", None):
            raise InputError(f"penalty={self.penalty!r} is not available; use 'l2', or None for no ridge.")
        if self.l1_ratio not in (0, None):
            raise InputError(f"l1_ratio={self.l1_ratio!r} is not available; there is no L1 penalty here: use 0.")
        return 0.0 if self.penalty is None else strength

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
        logits = self._scores(X)
        return torch.stack([torch.zeros_like(logits), logits], 1) if logits.ndim == 1 else logits

    def predict(self, X: Any) -> Any:
        """Return the likeliest class of each row, ``(rows,)``.

        Args:
            X: Features, ``(rows, features)``.
        """
        likeliest = self._both(X).argmax(1).cpu().numpy()
        return self.classes_[likeliest]


@final
class LinearSVC(ConvexClassifier):
    r"""Linear support vector machine, exact and certified; takes the place of scikit-learn's.

    Minimises ``|w|^2 / 2 + C sum_i loss_i`` for each class against the others, with the bias as the weight of one more
    feature that is ``intercept_scaling`` everywhere: penalised like the others, as liblinear has it.

    Args:
        penalty: Must be ``"l2"``.
        loss: ``"squared_hinge"`` or ``"hinge"``.
        dual: Without effect, as the fit is exact; here so that the class can take the place of the other.
        tol: Without effect; here for the same reason.
        C: Inverse of the ridge strength, positive.
        multi_class: Must be ``"ovr"``.
        fit_intercept: Whether there is a bias.
        intercept_scaling: The value of the feature whose weight the bias is; the larger, the less it is penalised.
        class_weight: None, ``"balanced"``, or a weight for each class.
        verbose: Without effect; here for the same reason.
        random_state: Without effect; here for the same reason.
        max_iter: Without effect; here for the same reason.

    Attributes:
        classes_: The classes, ascending, ``(classes,)``.
        coef_: Weights, ``(1, features)`` for two classes, else ``(classes, features)``; a torch tensor where X was one.
        intercept_: ``(1,)`` or ``(classes,)``; 0.0 without a bias.
        n_iter_: Newton steps.
        solution_: The :class:`closedform.ConvexSolution`, with the bias as the weight of its last feature.
        certificate_: Its certificate: a proven bound on how far the objective, times 1 / C, can still fall.
        n_features_in_: Features of the fit.
        feature_names_in_: Their names, where all have one.

    Example:
        >>> from closedform.estimators import LinearSVC
        >>> model = LinearSVC(loss="hinge").fit([[-2.0], [-1.0], [1.0], [2.0]], ["no", "no", "yes", "yes"])
        >>> model.predict([[3.0]]), model.coef_.round(12), model.certificate_.accepted
        (array(['yes'], dtype='<U3'), array([[1.]]), True)
    """

    def __init__(
        self,
        penalty: str = "l2",
        loss: str = "squared_hinge",
        *,
        dual: Any = "auto",
        tol: float = 1e-4,
        C: float = 1.0,
        multi_class: str = "ovr",
        fit_intercept: bool = True,
        intercept_scaling: float = 1.0,
        class_weight: Any = None,
        verbose: int = 0,
        random_state: Any = None,
        max_iter: int = 1000,
    ) -> None:
        self.penalty = penalty
        self.loss = loss
        self.dual = dual
        self.tol = tol
        self.C = C
        self.multi_class = multi_class
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.class_weight = class_weight
        self.verbose = verbose
        self.random_state = random_state
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to the rows.

        Args:
            X: Features, ``(rows, features)``: array, frame or torch tensor.
            y: Labels, ``(rows,)``, numbers or strings.
            sample_weight: One weight for each row, not negative.

        Raises:
            InputError: no labels, one class only, or options that cannot be used; a ``ValueError`` too.
        """
        losses = self._losses()
        strength = 1 / check_number(self.C, "C", positive=True)
        scaling = check_number(self.intercept_scaling, "intercept_scaling", positive=True)
        rows, labels, codes = self._read(X, y, sample_weight)
        factors, places = self._class_weights(labels, codes, rows), codes_of(codes, rows)
        if factors is not None:
            factors = torch.as_tensor(factors, dtype=torch.float64, device=rows.X.device)
        positive = places.unsqueeze(1) == torch.arange(len(self.classes_), device=rows.X.device)
        if len(self.classes_) == 2:
            positive, rows = positive[:, 1:], rows if factors is None else times(rows, factors[places])
            factors = None

        features = rows.X
        if self.fit_intercept:
            features = torch.cat([features, torch.full_like(features[:, :1], scaling)], 1)
        # Of more than two classes only the rows of a class itself have its weight, as in liblinear.
        solution = solve(
            features,
            torch.where(positive, 1.0, -1.0).to(torch.float64),
            bias=False,
            l2=strength,
            sample_weight=rows.sample_weight,
            criterion=losses(pos_weight=factors),
        )
        assert isinstance(solution, ConvexSolution)
        self._told(solution)

        count = rows.X.shape[1]
        self.coef_ = rows.back(solution.weight[:, :count].contiguous())
        self.intercept_ = rows.back(solution.weight[:, count] * scaling) if self.fit_intercept else 0.0
        return self

    def _losses(self) -> Any:
        """Return the class of the loss.

        Raises:
            InputError: options that are not available.
        """
        losses = {"squared_hinge": SquaredHingeLoss, "hinge": HingeLoss}
        if self.penalty != "l2":
            raise InputError(f"penalty={self.penalty!r} is not available; use 'l2'.")
        if self.multi_class != "ovr":
            raise InputError(f"multi_class={self.multi_class!r} is not available; use 'ovr'.")
        if self.loss not in losses:
            raise InputError(f"loss={self.loss!r} must be 'squared_hinge' or 'hinge'.")
        return losses[self.loss]

    def predict(self, X: Any) -> Any:
        """Return the class of the largest score of each row, ``(rows,)``.

        Args:
            X: Features, ``(rows, features)``.
        """
        scores = self._scores(X)
        places = (scores > 0).long() if scores.ndim == 1 else scores.argmax(1)
        return self.classes_[places.cpu().numpy()]
