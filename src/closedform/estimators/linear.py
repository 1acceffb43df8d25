"""Least squares and ridge regression under scikit-learn's contract."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from copy import copy
from typing import Any, Self, final

import torch
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from typing_extensions import override

from closedform.estimators.tables import Training, given_back, read_features, read_training
from closedform.fit.accumulator import Accumulator
from closedform.fit.orchestrator import solve
from closedform.fit.request import check_ridge
from closedform.fit.solution import Solution
from closedform.words.arguments import truth_value
from closedform.words.errors import InputError

__all__ = ["LinearEstimator", "LinearRegression", "Ridge", "check_strengths"]

#: Multiplications of a decomposition that is not noticed beside a fit: a tenth of a second on one core.
_UNNOTICED = 2**27


class LinearEstimator(BaseEstimator, ABC):
    """What every linear estimator here does: fit by :func:`closedform.solve`, and predict.

    Attributes:
        coef_: Weights, ``(features,)`` or ``(targets, features)``.
        intercept_: The bias, a number or ``(targets,)``; 0.0 without one.
        solution_: The :class:`closedform.Solution`, which has no rows among it.
        certificate_: What a fresh pass over the rows says about the weights.
    """

    fit_intercept: bool
    coef_: Any
    intercept_: Any
    accumulator_: Accumulator

    @property
    def certificate_(self) -> Any:
        """The certificate of the fit: ``solution_.certificate``."""
        return self.solution_.certificate

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        return tags

    @abstractmethod
    def _strengths(self, n_targets: int) -> Any:
        """Return the ridge strengths, one number or one for each target."""

    def predict(self, X: Any) -> Any:
        """Return predictions ``(rows,)`` or ``(rows, targets)``, in the library that X is in.

        Args:
            X: Features, ``(rows, features)``.

        Raises:
            NotFittedError: before ``fit``.
            ValueError: other features than those of the fit, NaN or infinities.
        """
        check_is_fitted(self)
        x = read_features(self, X)
        return given_back(X)(self._scores(x))

    def _scores(self, x: Tensor) -> Tensor:
        coefficients = torch.as_tensor(self.coef_, device="cpu").to(x.device)
        kind = torch.promote_types(x.dtype, coefficients.dtype)
        result = x.to(kind) @ coefficients.T.to(kind) if coefficients.ndim == 2 else x.to(kind) @ coefficients.to(kind)
        return result + torch.as_tensor(self.intercept_, device="cpu").to(result)

    def _solved(self, rows: Training, y: Any) -> Solution:
        """Return the certified fit of targets, ``(rows,)`` or ``(rows, targets)``, a tensor or a source."""
        self._check()
        strengths = self._strengths(1 if len(y.shape) == 1 else y.shape[1])
        solution = solve(rows.X, y, bias=bool(self.fit_intercept), l2=strengths, sample_weight=rows.sample_weight)
        return self._trusted(solution)

    def _check(self) -> None:
        if getattr(self, "positive", False):
            raise InputError(
                f"positive=True: {type(self).__name__} of closedform has no solver for weights of one sign; "
                "scikit-learn's class of the same name has."
            )
        _check_flag("fit_intercept", self.fit_intercept)

    def _trusted(self, solution: Solution) -> Solution:
        """Return the solution, with scikit-learn's warning where it is not certified."""
        if not solution.outcome.certified:
            warnings.warn(str(solution.outcome), ConvergenceWarning, stacklevel=5)
        return solution

    def _keep(self, solution: Solution, rows: Training, *, single: bool) -> None:
        """Keep the weights, without their dimension of targets where there was none."""
        weight, bias = solution.weight.to(rows.X.dtype), solution.bias
        if single:
            weight, bias = weight[0], None if bias is None else bias[0]
        self.coef_ = rows.back(weight)
        self.intercept_ = 0.0 if bias is None else rows.back(bias.to(rows.X.dtype))[()]
        self.solution_ = solution

    def _fold(self, X: Any, y: Any, sample_weight: Any) -> Training:
        """Add a batch to the triangle of all batches, and keep the fit of them all."""
        first = not hasattr(self, "accumulator_")
        self._check()
        rows = read_training(self, X, y, sample_weight, reset=first)
        targets = 1 if rows.y.ndim == 1 else rows.y.shape[1]
        strengths = self._strengths(targets)
        if first:
            device = rows.X.device
            accumulator = Accumulator(rows.X.shape[1], targets, bias=bool(self.fit_intercept), device=device)
        else:
            # A copy, so that a call that fails adds nothing.
            accumulator = copy(self.accumulator_)
            accumulator.bias = bool(self.fit_intercept)
        accumulator.fold(rows.X, rows.y, rows.sample_weight)
        solution = self._trusted(accumulator.solve(l2=strengths))
        self.accumulator_ = accumulator
        self._keep(solution, rows, single=rows.y.ndim == 1)
        return rows

    def _forget(self) -> None:
        """Drop what earlier rows left."""
        for name in ("accumulator_", "singular_"):
            if name in vars(self):
                delattr(self, name)


def _check_flag(name: str, value: Any) -> None:
    if truth_value(value) is None:
        raise InputError(f"{name}={value!r} must be True or False.")


def check_strengths(alpha: Any, n_targets: int) -> list[float]:
    """Return one ridge strength for each target, from scikit-learn's ``alpha``.

    Args:
        alpha: A number, or one for each target.
        n_targets: How many targets there are.

    Raises:
        InputError: another number of them, or a strength that is negative, infinite or no number.
    """
    if isinstance(alpha, str | bool):
        raise InputError(f"alpha={alpha!r} must be a number that is not negative, or one for each target.")
    many = getattr(alpha, "shape", None) or (len(alpha) if hasattr(alpha, "__len__") else ())
    given = 1 if many == () else torch.Size(many if isinstance(many, tuple) else (many,)).numel()
    if given not in (1, n_targets):
        raise InputError(
            f"Number of targets and number of penalties do not correspond: {given} != {n_targets}; give one alpha, or "
            "one for each target."
        )
    try:
        return check_ridge(alpha, n_targets)
    except InputError as error:
        raise InputError(str(error).replace("l2=", "alpha=", 1).replace("l2 ", "alpha ", 1)) from error


@final
class LinearRegression(MultiOutputMixin, RegressorMixin, LinearEstimator):
    """Ordinary least squares, exact and certified; takes the place of scikit-learn's ``LinearRegression``.

    Where many weights minimise the loss these are the ones of least norm. No singular value is cut that the residual
    can see, whatever the units of the features.

    Args:
        fit_intercept: Whether there is a bias.
        copy_X: Without effect, as X is never written to; here so that the class can take the place of the other.
        tol: Without effect, as nothing is cut or iterated by a tolerance; here for the same reason.
        n_jobs: Without effect; here for the same reason.
        positive: Must be False.

    Attributes:
        coef_: Weights, ``(features,)`` or ``(targets, features)``; a torch tensor where X was one.
        intercept_: A number or ``(targets,)``; 0.0 without a bias.
        rank_: Numerical rank of the (centred) features.
        singular_: Singular values of the (centred, weighted) features, ``(min(rows, features),)``, where they cost
            little beside the fit; ``closedform.diagnose(X, y).singular_values`` has them always.
        solution_: The :class:`closedform.Solution`.
        certificate_: Its certificate.
        n_features_in_: Features of the fit.
        feature_names_in_: Their names, where all have one.

    Example:
        >>> from closedform.estimators import LinearRegression
        >>> model = LinearRegression().fit([[1.0, 1.0], [1.0, 2.0], [2.0, 2.0], [2.0, 3.0]], [6.0, 8.0, 9.0, 11.0])
        >>> model.coef_.round(12), round(float(model.intercept_), 12), model.certificate_.accepted
        (array([1., 2.]), 3.0, True)
    """

    rank_: int
    singular_: Any

    def __init__(
        self,
        *,
        fit_intercept: bool = True,
        copy_X: bool = True,
        tol: float = 1e-6,
        n_jobs: int | None = None,
        positive: bool = False,
    ) -> None:
        self.fit_intercept = fit_intercept
        self.copy_X = copy_X
        self.tol = tol
        self.n_jobs = n_jobs
        self.positive = positive

    @override
    def _strengths(self, n_targets: int) -> float:
        return 0.0

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to the rows.

        Args:
            X: Features, ``(rows, features)``: array, frame or torch tensor.
            y: Targets, ``(rows,)`` or ``(rows, targets)``.
            sample_weight: One weight for each row, not negative.

        Raises:
            ValueError: rows that cannot be used; ``closedform.InputError`` is one.
        """
        rows = read_training(self, X, y, sample_weight)
        solution = self._solved(rows, rows.y)
        self._forget()
        self._keep(solution, rows, single=rows.y.ndim == 1)
        self.rank_ = solution.certificate.rank - int(solution.bias is not None)
        if rows.X.numel() * min(rows.X.shape) <= _UNNOTICED:
            self.singular_ = rows.back(_singular_values(rows, centred=solution.bias is not None))
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Add rows to those of earlier calls, and fit to all of them; only their triangle is kept.

        Rows that were given to ``fit`` are not among them: it keeps nothing to go on from.

        Args:
            X: Features, ``(rows, features)``.
            y: Targets, ``(rows,)`` or ``(rows, targets)``.
            sample_weight: One weight for each row, not negative.

        Raises:
            ValueError: rows that cannot be used.
        """
        self._fold(X, y, sample_weight)
        self.rank_ = self.solution_.certificate.rank - int(self.solution_.bias is not None)
        return self


def _singular_values(rows: Training, *, centred: bool) -> Tensor:
    X = rows.X.to(torch.float64)
    weight = rows.sample_weight
    if centred:
        share = torch.full_like(X[:, 0], 1 / X.shape[0]) if weight is None else weight / weight.sum()
        X = X - share @ X
    if weight is not None:
        X = weight.sqrt().unsqueeze(1) * X
    return torch.linalg.svdvals(X).to(rows.X.dtype)


@final
class Ridge(MultiOutputMixin, RegressorMixin, LinearEstimator):
    r"""Ridge regression, exact and certified; takes the place of scikit-learn's ``Ridge``.

    Minimises ``sum w_i |y_i - W x_i - b|^2 + alpha |W|^2``, the bias not penalised (Hoerl and Kennard 1970).

    Args:
        alpha: Ridge strength, not negative: a number, or one for each target.
        fit_intercept: Whether there is a bias.
        copy_X: Without effect, as X is never written to; here so that the class can take the place of the other.
        max_iter: Without effect, as the fit is exact; here for the same reason.
        tol: Without effect; here for the same reason.
        solver: Without effect, as the method is chosen by cost and judged by the certificate; here for the same reason.
        positive: Must be False.
        random_state: Without effect; here for the same reason.

    Attributes:
        coef_: Weights, ``(features,)`` or ``(targets, features)``; a torch tensor where X was one.
        intercept_: A number or ``(targets,)``; 0.0 without a bias.
        n_iter_: Passes over the rows: one that factors them, and those that refine the weights.
        solver_: The method whose weights were accepted.
        solution_: The :class:`closedform.Solution`.
        certificate_: Its certificate.
        n_features_in_: Features of the fit.
        feature_names_in_: Their names, where all have one.

    Example:
        >>> from closedform.estimators import Ridge
        >>> model = Ridge(alpha=1.0).fit([[-1.0], [1.0]], [-3.0, 3.0])
        >>> model.coef_, model.predict([[2.0]]), model.certificate_.accepted
        (array([2.]), array([4.]), True)
    """

    def __init__(
        self,
        alpha: Any = 1.0,
        *,
        fit_intercept: bool = True,
        copy_X: bool = True,
        max_iter: int | None = None,
        tol: float = 1e-4,
        solver: str = "auto",
        positive: bool = False,
        random_state: Any = None,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.copy_X = copy_X
        self.max_iter = max_iter
        self.tol = tol
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
            y: Targets, ``(rows,)`` or ``(rows, targets)``.
            sample_weight: One weight for each row, not negative, or one for all.

        Raises:
            ValueError: rows or a strength that cannot be used; ``closedform.InputError`` is one.
        """
        rows = read_training(self, X, y, sample_weight)
        solution = self._solved(rows, rows.y)
        self._forget()
        self._keep(solution, rows, single=rows.y.ndim == 1)
        self._describe(rows.y)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Add rows to those of earlier calls, and fit to all of them; only their triangle is kept.

        Rows that were given to ``fit`` are not among them: it keeps nothing to go on from.

        Args:
            X: Features, ``(rows, features)``.
            y: Targets, ``(rows,)`` or ``(rows, targets)``.
            sample_weight: One weight for each row, not negative, or one for all.

        Raises:
            ValueError: rows or a strength that cannot be used.
        """
        rows = self._fold(X, y, sample_weight)
        self._describe(rows.y)
        return self

    def _describe(self, y: Tensor) -> None:
        if y.ndim == 2 and y.shape[1] == 1:  # as scikit-learn's does here, and its LinearRegression does not
            self.coef_ = self.coef_[0]
        self.n_iter_ = 1 + self.solution_.attempts[-1].passes
        self.solver_ = self.solution_.attempts[-1].method
