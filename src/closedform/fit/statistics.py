"""What a statistician asks of a fit: R^2, the residual standard deviation, and the standard errors of the weights."""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from closedform.fit.claims import Claims
from closedform.fit.problem import Problem
from closedform.numerics.host import Vector
from closedform.numerics.root import SpectralRoot, TriangularRoot
from closedform.numerics.triangle import Triangle
from closedform.rows import Design, as_rows, scan
from closedform.words.errors import InputError

__all__ = [
    "NoStandardErrors",
    "StandardErrors",
    "r_squared",
    "r_squared_about_zero",
    "residual_std",
    "standard_errors_of",
]

_EPS = sys.float_info.epsilon
#: Relative accuracy that standard errors from a factor have to have; else they are taken from a triangle of the rows.
_ACCURATE = 1e-8
#: The same where such a triangle costs next to nothing.
_AS_GOOD_AS_EXACT = 1e-12
#: Relative difference of norms of the same columns, whose squares a fit may have summed in another order.
_SAME = 1e-9
#: Multiplications of a triangle that costs nothing beside a fit, rows times columns squared.
_SMALL_TRIANGLE = 2**20


def r_squared(problem: Problem, squares: Vector, centred_squares: Vector) -> tuple[float, ...]:
    """Return the coefficient of determination of each target, as scikit-learn's ``r2_score``.

    A constant target counts as explained fully or not at all.

    Args:
        problem: The problem, in whose scale the sums are.
        squares: Squared residual norms, ``(targets,)``.
        centred_squares: Squares of the targets about their means, ``(targets,)``.
    """
    floor = (_EPS * problem.target_sizes) ** 2 * problem.scanned.positive_rows
    varies = centred_squares > floor
    explained = 1 - squares / np.where(varies, centred_squares, 1.0)
    return tuple(np.where(varies, explained, squares <= floor).tolist())


def r_squared_about_zero(problem: Problem, squares: Vector) -> tuple[float, ...]:
    """Return the part of the squares of each target itself that is explained; that of a target of zeros is 1.

    Args:
        problem: The problem, in whose scale the squares are.
        squares: Squared residual norms, ``(targets,)``.
    """
    norms = problem.target_sizes
    return tuple((1 - squares / np.where(norms > 0, norms, 1.0) ** 2).tolist())


def residual_std(problem: Problem, residual_norms: Vector, rank: int) -> tuple[float, ...]:
    """Return the residual standard deviation of each target; nan where no degrees of freedom are left.

    Args:
        problem: The problem, for its rows of positive weight.
        residual_norms: In the units of the targets, ``(targets,)``.
        rank: Rank of the design matrix.
    """
    freedom = (problem.rows.triangle_of or problem.scanned.positive_rows) - rank
    if freedom <= 0:
        return (math.nan,) * residual_norms.shape[0]
    return tuple((residual_norms / math.sqrt(freedom)).tolist())


class StandardErrors(ABC):
    """Standard errors of the weights, on demand, from what a solution holds; no rows are among it."""

    @abstractmethod
    def compute(self, X: Any = None, sample_weight: Any = None) -> tuple[Tensor, Tensor | None]:
        """Return the standard errors of weight ``(targets, features)`` and bias ``(targets,)``, float64.

        Args:
            X: The features of the fit, where the solution has no factor that is accurate enough.
            sample_weight: Its weights.

        Raises:
            InputError: there are none, or the rows are needed once more and were not given, or are others.
        """


@final
@dataclass(frozen=True)
class NoStandardErrors(StandardErrors):
    """There are none.

    Attributes:
        refusal: Why.
    """

    refusal: str

    @override
    def compute(self, X: Any = None, sample_weight: Any = None) -> tuple[Tensor, Tensor | None]:
        raise InputError(self.refusal)


@final
@dataclass(frozen=True, eq=False)
class FactorErrors(StandardErrors):
    """What the standard errors of the weights are computed from; no rows among it.

    Attributes:
        R: Triangle with ``R'R`` the normal matrix in scaled columns, ``(columns, columns)``; None where none that is
            accurate enough was at hand.
        lengths: Root of the diagonal of its inverse, ``(columns,)``, where that was at hand without R.
        scale: What the columns were multiplied by, ``(columns,)``.
        feature_norms: Norms of the features of the fit, ``(features,)``, by which rows are known again.
        bias: Whether column 0 is the bias.
        residual_std: Residual standard deviation of each target.
    """

    R: Tensor | None
    lengths: Tensor | None
    scale: Tensor
    feature_norms: Tensor
    bias: bool
    residual_std: tuple[float, ...]

    @override
    def compute(self, X: Any = None, sample_weight: Any = None) -> tuple[Tensor, Tensor | None]:
        lengths = self.lengths
        if X is not None:
            lengths = _inverse_lengths(self._triangle(X, sample_weight).R)
        elif self.R is not None:
            lengths = _inverse_lengths(self.R)
        if lengths is None:
            raise InputError(
                "the factor of this fit is too rough for standard errors to 8 digits, and the fit keeps no rows; pass "
                "them once more: standard_errors(X), or standard_errors(X, sample_weight)."
            )
        std = torch.tensor(self.residual_std, dtype=lengths.dtype, device=lengths.device)
        errors = torch.outer(std, lengths * self.scale)
        return (errors[:, 1:], errors[:, 0]) if self.bias else (errors, None)

    def _triangle(self, X: Any, sample_weight: Any) -> Triangle:
        rows = as_rows(X, torch.ones(_leading(X), dtype=torch.float64, device=_device(X)), sample_weight)
        scanned = scan(rows)
        if not torch.allclose(scanned.feature_norms.to(self.feature_norms), self.feature_norms, rtol=_SAME, atol=0.0):
            raise InputError("X or sample_weight are not those of the fit; pass them as they were.")
        return Design(rows, scanned, bias=self.bias).triangle


def _device(X: Any) -> torch.device:
    return X.device if isinstance(X, Tensor) else torch.device("cpu")


def _leading(X: Any) -> tuple[int, ...]:
    shape = getattr(X, "shape", None)
    return tuple(shape[:-1]) if shape is not None else (len(X),)


def _inverse_lengths(R: Tensor) -> Tensor:
    """Return the root of the diagonal of ``(R'R)^-1``: Golub and Van Loan (2013, 5.3)."""
    inverse = torch.linalg.solve_triangular(R, torch.eye(R.shape[0], dtype=R.dtype, device=R.device), upper=True)
    return torch.linalg.vector_norm(inverse, dim=1)


def standard_errors_of(
    problem: Problem, claims: Claims, accuracy: float, deviations: tuple[float, ...]
) -> StandardErrors:
    """Return what standard errors are computed from, out of what the fit has at hand.

    Args:
        problem: The problem.
        claims: What its factor says.
        accuracy: How accurate that factor is.
        deviations: Residual standard deviation of each target.
    """
    refusal = _refusal(problem, claims, deviations)
    if refusal:
        return NoStandardErrors(refusal)
    root = claims.root
    R = lengths = None
    small = problem.rows.triangle_of or problem.rows.n_rows * problem.n_columns**2 <= _SMALL_TRIANGLE
    needed = _AS_GOOD_AS_EXACT if small else _ACCURATE
    if accuracy <= needed and isinstance(root, TriangularRoot):
        R = root.R
    elif accuracy <= needed and isinstance(root, SpectralRoot):
        lengths = torch.linalg.vector_norm(root.vectors.T / root.values, dim=1)
    elif small:
        R = problem.triangle.R

    return FactorErrors(
        R=R,
        lengths=lengths,
        scale=problem.scale,
        feature_norms=problem.scanned.feature_norms,
        bias=problem.bias,
        residual_std=deviations,
    )


def _refusal(problem: Problem, claims: Claims, deviations: tuple[float, ...]) -> str:
    if problem.l2 > 0:
        return "standard errors are not defined for ridge weights (l2 > 0), which are biased on purpose."
    if claims.rank.rank < claims.rank.columns:
        return (
            f"rank {claims.rank.rank} of {claims.rank.columns}: the weights are not unique, "
            "so they have no standard errors."
        )
    if any(math.isnan(value) for value in deviations):
        return "there are as many weights as rows: no degrees of freedom are left to estimate the noise."
    return ""
