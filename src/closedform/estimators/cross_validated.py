"""Ridge regression whose strength is chosen by exact leave-one-out, under scikit-learn's contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self, final

import numpy as np
import sklearn
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin, is_classifier
from sklearn.metrics import check_scoring, get_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from torch import Tensor
from typing_extensions import override

from closedform.estimators.classifiers import RidgeClassifier, RidgeLabels
from closedform.estimators.linear import LinearEstimator, Ridge
from closedform.estimators.tables import Training, read_training
from closedform.fit.orchestrator import solve
from closedform.fit.path import left_out_residuals, ridge_path
from closedform.fit.solution import Solution
from closedform.words.arguments import is_boolean
from closedform.words.errors import InputError

__all__ = ["RidgeCV", "RidgeClassifierCV"]


class CrossValidated(LinearEstimator, ABC):
    """What both cross-validated estimators do: choose a strength, and keep the certified fit there.

    Attributes:
        alpha_: The strength chosen.
        best_score_: Its score.
        path_: The :class:`closedform.RidgePath`, where the strength was chosen by leave-one-out.
    """

    alphas: Any
    scoring: Any
    cv: Any
    store_cv_results: bool

    @abstractmethod
    def _default_scorer(self) -> Any:
        """Return the scorer that weights are routed to where none is named."""

    @override
    def _strengths(self, n_targets: int) -> Any:
        return self.alphas

    def get_metadata_routing(self) -> Any:
        """Return where metadata go: to the scorer and to the splitter."""
        to_score = MethodMapping().add(caller="fit", callee="score")
        to_split = MethodMapping().add(caller="fit", callee="split")
        router = MetadataRouter(owner=self).add_self_request(self)
        return router.add(scorer=self._scorer(), method_mapping=to_score).add(splitter=self.cv, method_mapping=to_split)

    def _scorer(self) -> Any:
        if self.scoring is None and _routed():
            return self._default_scorer().set_score_request(sample_weight=True)
        return check_scoring(estimator=self, scoring=self.scoring, allow_none=True)

    def _grid(self) -> Any:
        """Return the strengths to try, ``(strengths,)``; None for a grid from the spectrum.

        Raises:
            InputError: a strength that is negative or no finite number, or none at all.
        """
        if self.alphas is None:
            return None
        if is_boolean(self.alphas):
            raise InputError(f"alphas={self.alphas!r} holds truth values; give strengths, or None.")
        try:
            given = np.atleast_1d(np.asarray(self.alphas))
            grid = given.astype(np.float64, casting="unsafe" if given.dtype.kind == "O" else "same_kind")
        except (TypeError, ValueError) as error:
            raise InputError(f"alphas={self.alphas!r} must be numbers that are not negative, or None.") from error
        if grid.ndim != 1 or not grid.size:
            raise InputError(f"alphas has shape {grid.shape}; give one or more strengths, or None.")
        for place, alpha in enumerate(grid.tolist()):
            if not 0 <= alpha < float("inf"):
                raise InputError(f"alphas[{place}] == {alpha}, must be >= 0 and finite.")
        return torch.from_numpy(grid)

    def _searched(self, rows: Training, targets: Any, labels: Any, params: dict[str, Any]) -> None:
        """Choose the strength, and keep the certified fit there.

        Args:
            rows: The rows.
            targets: What is fitted, ``(rows,)`` or ``(rows, targets)``, a tensor or a source.
            labels: What the targets stand for, in a NumPy array.
            params: What goes to the scorer.

        Raises:
            InputError: a strength that cannot be used, or ways to choose that do not go together.
        """
        self._check()
        grid = self._grid()
        for name in ("cv_results_", "path_"):
            if name in vars(self):
                delattr(self, name)
        if self.cv is None:
            self._left_out(rows, targets, labels, grid, params)
        else:
            self._folded(rows, labels, grid, params)

    def _left_out(self, rows: Training, targets: Any, labels: Any, grid: Any, params: dict[str, Any]) -> None:
        per_target = bool(getattr(self, "alpha_per_target", False))
        bias, weight = bool(self.fit_intercept), rows.sample_weight
        if rows.X.shape[0] < 2:
            raise InputError("leave-one-out has nothing to learn from with n_samples = 1; give two rows or more.")
        path = ridge_path(rows.X, targets, l2=grid, per_target=per_target, bias=bias, sample_weight=weight)
        chosen, scores = path.l2, -path.error * _share_of_rows(rows)
        kept = None
        if self.scoring is not None or self.store_cv_results:
            # What is wanted of every row is an array of rows x targets x strengths, which is made only when asked for.
            residuals = left_out_residuals(rows.X, targets, l2=path.strengths, bias=bias, sample_weight=weight)
            kept = _weighted_squares(residuals, rows)
            if self.scoring is not None:
                kept = _whole(targets).to(torch.float64) - residuals
                chosen, scores = self._by_score(path.strengths, kept, labels, rows, params, per_target)

        solution = path.solution
        assert isinstance(solution, Solution)
        if not torch.equal(chosen, path.l2):
            solution = solve(rows.X, targets, l2=chosen, bias=bias, sample_weight=weight)
        single = len(targets.shape) == 1
        self._keep(self._trusted(solution), rows, single=single)
        if not single and self.coef_.shape[0] == 1:
            self.coef_ = self.coef_[0]
        several = per_target and len(chosen) > 1
        self.alpha_ = chosen.cpu().numpy() if several else float(chosen[0])
        self.best_score_ = scores.cpu().numpy() if several else float(scores.mean())
        self.path_ = path
        if self.store_cv_results and kept is not None:
            kept = kept.permute(1, 2, 0).to(rows.X.dtype)
            self.cv_results_ = rows.back(kept[:, 0] if single else kept)

    def _by_score(
        self, strengths: Tensor, said: Tensor, labels: Any, rows: Training, params: dict[str, Any], per_target: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the strength of each target with the best score of what is said of rows left out, and the scores."""
        scorer, counted = self._scorer(), np.ones(rows.X.shape[0], dtype=bool)
        if rows.sample_weight is not None:
            counted = (rows.sample_weight > 0).cpu().numpy()
        # The scorer of the user knows NumPy.
        truth, left_out = np.asarray(labels)[counted], said.cpu().numpy()[:, counted]
        params = {name: np.asarray(value)[counted] for name, value in params.items()}
        targets = left_out.shape[2]
        if per_target and targets > 1:
            parts = [(left_out[:, :, k], truth[:, k]) for k in range(targets)]
        else:
            parts = [(left_out[:, :, 0] if truth.ndim == 1 and targets == 1 else left_out, truth)]

        judge = _judge(self)
        scores = np.array([[scorer(judge, one, part, **params) for one in each] for each, part in parts])
        best = torch.from_numpy(scores.max(1)).expand(targets)
        return strengths[torch.from_numpy(scores.argmax(1))].expand(targets).contiguous(), best

    def _folded(self, rows: Training, labels: Any, grid: Any, params: dict[str, Any]) -> None:
        """Choose by scikit-learn's search over folds.

        Raises:
            InputError: what leave-one-out alone has is asked for.
        """
        for name in ("store_cv_results", "alpha_per_target"):
            if getattr(self, name, False):
                raise InputError(f"cv!=None and {name}=True are incompatible: leave cv out for exact leave-one-out.")
        if grid is None:
            raise InputError("alphas=None makes a grid for leave-one-out; with cv give the strengths to try.")
        model: Any = RidgeClassifier if is_classifier(self) else Ridge
        estimator = model(fit_intercept=self.fit_intercept)
        if _routed():
            estimator.set_fit_request(sample_weight=True)
        if rows.sample_weight is not None:
            params = {**params, "sample_weight": rows.sample_weight.cpu().numpy()}
        search = GridSearchCV(estimator, {"alpha": grid.tolist()}, cv=self.cv, scoring=self._scorer())
        search.fit(rows.X.cpu().numpy(), labels, **params)
        best = search.best_estimator_
        self.alpha_, self.best_score_ = search.best_params_["alpha"], search.best_score_
        single = not is_classifier(self) and np.ndim(labels) == 1
        self._keep(best.solution_, rows, single=single)
        if not single and self.coef_.shape[0] == 1:
            self.coef_ = self.coef_[0]

    def _score_params(self, sample_weight: Any, params: dict[str, Any]) -> dict[str, Any]:
        """Return what goes to the scorer.

        Raises:
            InputError: metadata without scikit-learn's routing.
        """
        if not _routed():
            if params:
                raise InputError(
                    f"[{', '.join(map(repr, params))}] are passed but cannot be used without "
                    "sklearn.set_config(enable_metadata_routing=True)."
                )
            return {} if sample_weight is None or self.cv is not None else {"sample_weight": sample_weight}
        if sample_weight is not None:
            params = {**params, "sample_weight": sample_weight}
        return dict(params) if self.cv is not None else dict(process_routing(self, "fit", **params).scorer.score)


def _routed() -> bool:
    return bool(sklearn.get_config()["enable_metadata_routing"])


def _whole(targets: Any) -> Tensor:
    whole: Tensor = targets if isinstance(targets, Tensor) else targets.read(0, targets.shape[0])
    return whole.unsqueeze(1) if whole.ndim == 1 else whole


def _share_of_rows(rows: Training) -> float:
    """Return the mean weight: scikit-learn's mean is over rows, and not over weights."""
    return 1.0 if rows.sample_weight is None else float(rows.sample_weight.mean())


def _weighted_squares(residuals: Tensor, rows: Training) -> Tensor:
    squares = residuals.square()
    if rows.sample_weight is None:
        return squares
    # Rows of weight zero are in no fit and have no residual.
    return torch.nan_to_num(squares, nan=0.0) * rows.sample_weight.unsqueeze(1)


@final
class _Predicted(RegressorMixin, BaseEstimator):
    """Says what it is given: predictions of left-out rows go to a scorer that asks an estimator."""

    def predict(self, X: Any) -> Any:
        return X


@final
class _Scored(ClassifierMixin, BaseEstimator):
    """The same for the scores of classes."""

    def __init__(self, classes: Any, *, multilabel: bool) -> None:
        self.classes, self.multilabel = classes, multilabel
        self.classes_ = classes

    def decision_function(self, X: Any) -> Any:
        return X

    def predict(self, X: Any) -> Any:
        if self.multilabel:
            return (X > 0).astype(np.int64)
        return self.classes_[(X > 0).astype(np.int64) if X.ndim == 1 else X.argmax(1)]


def _judge(estimator: Any) -> Any:
    if is_classifier(estimator):
        return _Scored(estimator.classes_, multilabel=estimator._multilabel)
    return _Predicted()


@final
class RidgeCV(MultiOutputMixin, RegressorMixin, CrossValidated):
    """Ridge regression with its strength by exact leave-one-out; takes the place of scikit-learn's ``RidgeCV``.

    All strengths come from one factor of the rows (:func:`closedform.ridge_path`); the fit at the best is certified.

    Args:
        alphas: Strengths to try, not negative; None makes a grid from the spectrum.
        fit_intercept: Whether there is a bias.
        scoring: None for the mean squared error, or a scorer or its name.
        cv: None for leave-one-out; else folds, which are searched by scikit-learn's ``GridSearchCV``.
        gcv_mode: Without effect; here so that the class can take the place of the other.
        store_cv_results: Whether to keep what is said of every row by every strength.
        alpha_per_target: Whether each target has a strength of its own.

    Attributes:
        alpha_: The strength chosen, or one for each target.
        best_score_: Its score, or one for each target.
        cv_results_: With ``store_cv_results``: squared leave-one-out errors, or predictions where a scorer was named,
            ``(rows, strengths)`` or ``(rows, targets, strengths)``.
        coef_: Weights, ``(features,)`` or ``(targets, features)``.
        intercept_: A number or ``(targets,)``; 0.0 without a bias.
        path_: The :class:`closedform.RidgePath`, where the choice was by leave-one-out.
        solution_: The :class:`closedform.Solution` at the strength chosen.
        certificate_: Its certificate.

    Example:
        >>> from closedform.estimators import RidgeCV
        >>> model = RidgeCV(alphas=[0.1, 1.0, 10.0]).fit([[-2.0], [-1.0], [1.0], [2.0]], [-4.0, -2.0, 2.0, 4.0])
        >>> model.alpha_, model.certificate_.accepted
        (0.1, True)
    """

    def __init__(
        self,
        alphas: Any = (0.1, 1.0, 10.0),
        *,
        fit_intercept: bool = True,
        scoring: Any = None,
        cv: Any = None,
        gcv_mode: str | None = None,
        store_cv_results: bool = False,
        alpha_per_target: bool = False,
    ) -> None:
        self.alphas = alphas
        self.fit_intercept = fit_intercept
        self.scoring = scoring
        self.cv = cv
        self.gcv_mode = gcv_mode
        self.store_cv_results = store_cv_results
        self.alpha_per_target = alpha_per_target

    @override
    def _default_scorer(self) -> Any:
        return get_scorer("r2")

    def fit(self, X: Any, y: Any, sample_weight: Any = None, **params: Any) -> Self:
        """Fit to the rows.

        Args:
            X: Features, ``(rows, features)``: array, frame or torch tensor.
            y: Targets, ``(rows,)`` or ``(rows, targets)``.
            sample_weight: One weight for each row, not negative, or one for all.
            **params: What is routed to the scorer, with scikit-learn's metadata routing.

        Raises:
            ValueError: rows or strengths that cannot be used; ``closedform.InputError`` is one.
        """
        rows = read_training(self, X, y, sample_weight)
        weight = None if rows.sample_weight is None else rows.sample_weight.cpu().numpy()
        self._searched(rows, rows.y, rows.y.cpu().numpy(), self._score_params(weight, params))
        return self


@final
class RidgeClassifierCV(RidgeLabels, CrossValidated):
    """Ridge regression on classes coded -1 and 1 with its strength by exact leave-one-out; as scikit-learn's class.

    Args:
        alphas: Strengths to try, not negative; None makes a grid from the spectrum.
        fit_intercept: Whether there is a bias.
        scoring: None for the mean squared error, or a scorer or its name.
        cv: None for leave-one-out; else folds, which are searched by scikit-learn's ``GridSearchCV``.
        class_weight: ``"balanced"``, a mapping from classes to weights, or None.
        store_cv_results: Whether to keep what is said of every row by every strength.

    Attributes:
        classes_: The classes, in ascending order.
        alpha_: The strength chosen.
        best_score_: Its score.
        cv_results_: With ``store_cv_results``: squared leave-one-out errors, or scores of the classes where a scorer
            was named, ``(rows, classes, strengths)``.
        coef_: Weights, ``(features,)`` for two classes, else ``(classes, features)``.
        intercept_: ``(1,)`` or ``(classes,)``; 0.0 without a bias.
        path_: The :class:`closedform.RidgePath`, where the choice was by leave-one-out.
        solution_: The :class:`closedform.Solution` at the strength chosen.
        certificate_: Its certificate.

    Example:
        >>> from closedform.estimators import RidgeClassifierCV
        >>> model = RidgeClassifierCV().fit([[-2.0], [-1.0], [1.0], [2.0]], ["no", "no", "yes", "yes"])
        >>> model.predict([[3.0]]).tolist()
        ['yes']
    """

    def __init__(
        self,
        alphas: Any = (0.1, 1.0, 10.0),
        *,
        fit_intercept: bool = True,
        scoring: Any = None,
        cv: Any = None,
        class_weight: Any = None,
        store_cv_results: bool = False,
    ) -> None:
        self.alphas = alphas
        self.fit_intercept = fit_intercept
        self.scoring = scoring
        self.cv = cv
        self.class_weight = class_weight
        self.store_cv_results = store_cv_results

    @override
    def _default_scorer(self) -> Any:
        return get_scorer("accuracy")

    def fit(self, X: Any, y: Any, sample_weight: Any = None, **params: Any) -> Self:
        """Fit to the rows.

        Args:
            X: Features, ``(rows, features)``: array, frame or torch tensor.
            y: Labels, ``(rows,)``, or several ones and zeros for each row, ``(rows, labels)``.
            sample_weight: One weight for each row, not negative, or one for all.
            **params: What is routed to the scorer, with scikit-learn's metadata routing.

        Raises:
            ValueError: rows, labels or strengths that cannot be used; ``closedform.InputError`` is one.
        """
        rows, targets = self._coded(X, y, sample_weight)
        weight = None if rows.sample_weight is None else rows.sample_weight.cpu().numpy()
        self._searched(rows, targets, rows.y, self._score_params(weight, params))
        return self
