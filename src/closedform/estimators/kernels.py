"""Kernel ridge regression under scikit-learn's contract."""

from __future__ import annotations

import warnings
from typing import Any, Self, final

import torch
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process.kernels import Matern
from sklearn.metrics.pairwise import PAIRWISE_KERNEL_FUNCTIONS, pairwise_kernels
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from closedform.estimators.linear import check_strengths
from closedform.estimators.tables import given_back, read_features, read_training
from closedform.fit.orchestrator import solve
from closedform.fit.path import RidgePath, ridge_path
from closedform.words.errors import InputError

__all__ = ["KernelRidge"]

#: Entries of a block of the kernel between new rows and those of the fit.
_BLOCK = 2**23


@final
class KernelRidge(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Kernel ridge regression, exact and certified; takes the place of scikit-learn's ``KernelRidge``.

    Solves ``(K + alpha I) a = y`` (Saunders, Gammerman and Vovk 1998); with ``alpha="loo"`` for the strength with the
    least leave-one-out error, all strengths from one eigendecomposition (Rifkin and Lippert 2007).

    Args:
        alpha: Ridge strength, not negative: a number, one for each target, or ``"loo"`` to choose it for each target.
        kernel: A name as in ``sklearn.metrics.pairwise`` (``"rbf"``, ``"laplacian"``, ``"polynomial"``, ``"cosine"``,
            ...), ``"matern"``, ``"precomputed"`` where X is the kernel, a kernel object of
            ``sklearn.gaussian_process.kernels`` such as ``Matern(nu=1.5)``, or a function of two rows.
        gamma: Of the kernels that have one; None for their own default.
        degree: Of the polynomial kernel.
        coef0: Of the polynomial and the sigmoid kernel.
        kernel_params: Arguments of a kernel that is a function, and ``length_scale`` and ``nu`` of ``"matern"``, by
            default 1 and 1.5.

    Attributes:
        dual_coef_: Coefficients of the rows, ``(rows,)`` or ``(rows, targets)``.
        X_fit_: The rows of the fit, which predictions need.
        alpha_: The strength, or one for each target.
        path_: With ``alpha="loo"`` the :class:`closedform.RidgePath`.
        solution_: The :class:`closedform.Solution`.
        certificate_: Its certificate.

    Example:
        >>> from closedform.estimators import KernelRidge
        >>> model = KernelRidge(alpha=1.0).fit([[1.0], [2.0]], [1.0, 2.0])
        >>> model.predict([[3.0]]).round(12), model.certificate_.accepted
        (array([2.5]), True)
    """

    path_: RidgePath

    def __init__(
        self,
        alpha: Any = 1,
        *,
        kernel: Any = "linear",
        gamma: float | None = None,
        degree: float = 3,
        coef0: float = 1,
        kernel_params: Any = None,
    ) -> None:
        self.alpha = alpha
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.kernel_params = kernel_params

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.input_tags.pairwise = isinstance(self.kernel, str) and self.kernel == "precomputed"
        return tags

    @property
    def certificate_(self) -> Any:
        """The certificate of the fit: ``solution_.certificate``."""
        return self.solution_.certificate

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to the rows.

        Args:
            X: Features, ``(rows, features)``, or the kernel between the rows.
            y: Targets, ``(rows,)`` or ``(rows, targets)``.
            sample_weight: One weight for each row, not negative, or one for all.

        Raises:
            ValueError: rows, a kernel or a strength that cannot be used; ``closedform.InputError`` is one.
        """
        rows = read_training(self, X, y, sample_weight)
        K = self._kernel_between(rows.X, None)
        targets = 1 if rows.y.ndim == 1 else rows.y.shape[1]
        if "path_" in vars(self):
            del self.path_
        if isinstance(self.alpha, str) and self.alpha == "loo":
            self.path_ = ridge_path(K, rows.y, kernel=True, sample_weight=rows.sample_weight)
            solution, strengths = self.path_.solution, self.path_.l2.tolist()
        else:
            strengths = check_strengths(self.alpha, targets)
            solution = solve(K, rows.y, kernel=True, l2=strengths, sample_weight=rows.sample_weight)
        if not solution.outcome.certified:
            warnings.warn(str(solution.outcome), ConvergenceWarning, stacklevel=2)

        single = rows.y.ndim == 1
        self.alpha_ = strengths[0] if len(set(strengths)) == 1 else rows.back(rows.X.new_tensor(strengths))
        self.dual_coef_ = rows.back(solution.weight[0] if single else solution.weight.T.contiguous())
        self.X_fit_ = rows.back(rows.X)
        self.solution_ = solution
        return self

    def predict(self, X: Any) -> Any:
        """Return predictions ``(rows,)`` or ``(rows, targets)``, in the library that X is in.

        Args:
            X: Features, ``(rows, features)``, or the kernel between new rows and those of the fit.

        Raises:
            NotFittedError: before ``fit``.
            ValueError: other features than those of the fit, NaN or infinities.
        """
        check_is_fitted(self)
        x = read_features(self, X)
        fitted, coefficients = (torch.as_tensor(a, device=x.device) for a in (self.X_fit_, self.dual_coef_))
        step = max(1, _BLOCK // max(1, fitted.shape[0]))
        parts = []
        for start in range(0, x.shape[0], step):
            K = self._kernel_between(x[start : start + step], fitted)
            kind = torch.promote_types(K.dtype, coefficients.dtype)
            parts.append(K.to(kind) @ coefficients.to(K.device, kind))
        return given_back(X)(torch.cat(parts))

    def _kernel_between(self, X: Tensor, other: Tensor | None) -> Tensor:
        """Return the kernel between rows, by scikit-learn's functions.

        Raises:
            InputError: no such kernel, or parameters out of their range.
        """
        names = sorted([*PAIRWISE_KERNEL_FUNCTIONS, "matern", "precomputed"])
        if not callable(self.kernel) and self.kernel not in names:
            raise InputError(f"kernel={self.kernel!r} is not known; give a function or one of {', '.join(names)}.")
        if isinstance(self.kernel, str) and self.kernel == "precomputed":
            if other is None and X.shape[0] != X.shape[1]:
                raise InputError(f"kernel='precomputed', but X has shape {tuple(X.shape)}; a kernel is square.")
            return X
        metric, params = self.kernel, {"gamma": self.gamma, "degree": self.degree, "coef0": self.coef0}
        if callable(metric):
            params = self.kernel_params or {}
        elif metric == "matern":
            metric, params = Matern(**(self.kernel_params or {})), {}
        kind = X.dtype if X.dtype in (torch.float32, torch.float64) else torch.float32
        first, second = (None if table is None else table.to("cpu", kind).numpy() for table in (X, other))
        K = pairwise_kernels(first, second, metric=metric, filter_params=True, **params)
        return torch.as_tensor(K, device=X.device)
