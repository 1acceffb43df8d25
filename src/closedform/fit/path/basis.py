"""Orthonormal coordinates of the rows, in which every ridge strength is a division."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from closedform.words.errors import InputError

__all__ = ["Basis", "explicit_basis", "kept_values", "kernel_basis"]

_EPS = sys.float_info.epsilon
#: Eigenvalues of a kernel as far below zero, in units of its own rounding and rows, are rounding.
_NEGATIVE = 10.0


@final
@dataclass(frozen=True, eq=False)
class Basis:
    r"""The rows in coordinates: with ``A = diag(sqrt(weight)) (X - mean) = U diag(s) V'`` all fits are ``U d U'B``.

    X is divided by one power of two and each target by one of its own, so that no square leaves the range of float64;
    strengths are brought to the same scale by :meth:`scaled`.

    Attributes:
        squares: Squares of the singular values kept, descending, ``(rank,)``; the eigenvalues of a kernel.
        coordinates: ``U'B``, ``(rank, targets)``.
        residual_squares: Squares of what no weights explain, ``(targets,)``.
        rows: Rows of positive weight.
        weight_sum: Sum of the weights.
        bias: Whether features and targets are taken about their (weighted) means.
        x_exponent: X was divided by two to this power.
        target_exponents: The targets were divided by two to these powers, ``(targets,)``.
        map: ``V / s``, ``(features, rank)``, so that ``U = A map``; None where U is at hand.
        mean: Means of the features, in their scale, ``(features,)``; zeros without a bias.
        target_mean: Means of the targets, in their scale, ``(targets,)``; zeros without a bias.
        U: ``(rows, rank)`` where it is at hand: wide tables and kernels, without rows of weight zero.
        error: How far, about, U is from orthonormal.
    """

    squares: Tensor
    coordinates: Tensor
    residual_squares: Tensor
    rows: int
    weight_sum: float
    bias: bool
    x_exponent: int
    target_exponents: Tensor
    map: Tensor | None = None
    mean: Tensor | None = None
    target_mean: Tensor | None = None
    U: Tensor | None = None
    error: float = _EPS

    @property
    def rank(self) -> int:
        """Directions kept."""
        return self.squares.shape[0]

    @property
    def targets(self) -> int:
        """Targets."""
        return self.coordinates.shape[1]

    @property
    def interpolates(self) -> bool:
        """Whether every row is met exactly as the strength goes to zero."""
        return self.rank + int(self.bias) >= self.rows

    @property
    def largest(self) -> float:
        """Square of the largest singular value, in the user's units; 0 where there is none."""
        return math.ldexp(float(self.squares[0]), 2 * self.x_exponent) if self.rank else 0.0

    @property
    def smallest(self) -> float:
        """Square of the smallest singular value kept, in the user's units; 0 where there is none."""
        return math.ldexp(float(self.squares[-1]), 2 * self.x_exponent) if self.rank else 0.0

    def scaled(self, strengths: Tensor) -> Tensor:
        """Return strengths in the scale of the squares."""
        half = torch.full((), -self.x_exponent, dtype=torch.int32, device=strengths.device)
        return torch.ldexp(torch.ldexp(strengths, half), half)

    def inverses(self, strengths: Tensor) -> Tensor:
        """Return ``1 / (squares + strength)``, ``(rank, strengths)``, for strengths in the user's units."""
        return 1 / (self.squares.unsqueeze(1) + self.scaled(strengths))

    def shrinkage(self, strengths: Tensor) -> Tensor:
        """Return ``squares / (squares + strength)``, ``(rank, strengths)``."""
        return self.squares.unsqueeze(1) * self.inverses(strengths)

    def degrees_of_freedom(self, strengths: Tensor) -> Tensor:
        """Return the trace of the map from targets to fits, ``(strengths,)``, the bias included."""
        return self.shrinkage(strengths).sum(0) + int(self.bias)

    def unscaled(self, squares: Tensor) -> Tensor:
        """Return squares ``(..., targets)`` of residuals in the units of the targets."""
        return torch.ldexp(torch.ldexp(squares, self.target_exponents), self.target_exponents)


def kept_values(values: Tensor, rows: int, columns: int) -> int:
    """Return how many singular values, descending, are more than rounding."""
    if not values.numel() or not float(values[0]) > 0:
        return 0
    return int((values > _EPS * max(rows, columns) * values[0]).sum())


def explicit_basis(A: Tensor, B: Tensor, basis: Basis) -> Basis:
    """Return the basis of a wide table: its left singular vectors themselves.

    Args:
        A: Centred and weighted rows, those of weight zero left out, ``(rows, features)``.
        B: Their targets, ``(rows, targets)``.
        basis: All that does not depend on them.
    """
    # A' = Q R, so that A = R'Q' has the left singular vectors of R', which is small.
    R = torch.linalg.qr(A.T, mode="r").R if A.shape[1] > A.shape[0] else None
    U, values, _ = torch.linalg.svd(A if R is None else R.T, full_matrices=False)
    kept = kept_values(values, *A.shape)
    error = _EPS * float(values[0] / values[kept - 1]) if kept else _EPS
    return _with_vectors(U[:, :kept], values[:kept].square(), B, basis, error)


def kernel_basis(K: Tensor, B: Tensor, basis: Basis, epsilon: float) -> Basis:
    """Return the basis of a symmetric kernel matrix: its eigenvectors.

    Args:
        K: ``(rows, rows)``, times the roots of the weights on both sides.
        B: Weighted targets, ``(rows, targets)``.
        basis: All that does not depend on them.
        epsilon: Relative rounding of the kernel as it is stored.

    Raises:
        InputError: it has eigenvalues that are less than zero.
    """
    values, U = torch.linalg.eigh(K)
    values, U = values.flip(0), U.flip(1)
    if values.numel() and float(values[-1]) < -_NEGATIVE * epsilon * K.shape[0] * float(values.abs().max()):
        raise InputError(
            f"the kernel has a negative eigenvalue, {float(values[-1]):.3g} beside {float(values[0]):.3g}: it is not "
            "positive semidefinite, so that l2 * a'Ka is no penalty. For such a matrix use kernel=False."
        )
    kept = kept_values(values, *K.shape)
    return _with_vectors(U[:, :kept], values[:kept], B, basis, _EPS)


def _with_vectors(U: Tensor, squares: Tensor, B: Tensor, basis: Basis, error: float) -> Basis:
    coordinates = U.T @ B
    rest = B - U @ coordinates
    return replace(
        basis, squares=squares, coordinates=coordinates, residual_squares=rest.square().sum(0), U=U, error=error
    )
