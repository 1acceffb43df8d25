"""Orthonormal coordinates of the rows, in which every ridge strength is a division."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from closedform.words.errors import InputError

__all__ = ["Basis", "explicit_basis", "kept_values", "kernel_basis", "more_than_centring", "singular_vectors"]

_EPS = sys.float_info.epsilon
#: Eigenvalues of a kernel as far below zero, in units of its own rounding and rows, are rounding.
_NEGATIVE = 10.0
#: Ratio of the longest column to the shortest from which their units could decide a rank.
_UNEQUAL = 1e4
#: What centring leaves of a column or a direction at or below which it is constant, in units of the rounding of the
#: numbers that were centred.
_CONSTANT = 64.0
#: LAPACK's number for "accurate for both graded rows and graded columns".
_GRADED = 2


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
        leftovers: What no direction explains of each row, ``(rows,)``, where U is at hand: squares of coordinates in
            its complement, so that nothing cancels; None where they are one less what U and the mean explain.
        rest: What no weights explain of the targets, ``(rows, targets)``, likewise.
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
    leftovers: Tensor | None = None
    rest: Tensor | None = None

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

    def in_units(self, values: Tensor) -> Tensor:
        """Return residuals ``(..., targets)`` in the units of the targets."""
        return torch.ldexp(values, self.target_exponents)

    def unscaled(self, squares: Tensor) -> Tensor:
        """Return squares ``(..., targets)`` of residuals in the units of the targets."""
        return torch.ldexp(torch.ldexp(squares, self.target_exponents), self.target_exponents)


def kept_values(values: Tensor, rows: int, columns: int) -> int:
    """Return how many singular values, descending, are more than rounding."""
    if not values.numel() or not float(values[0]) > 0:
        return 0
    return int((values > _EPS * max(rows, columns) * values[0]).sum())


def more_than_centring(values: Tensor, V: Tensor, lengths: Tensor | None) -> Tensor:
    """Return which directions are more than what rounding leaves of constant ones when they are centred, ``(values,)``.

    Args:
        values: Singular values of a centred matrix, ``(values,)``.
        V: Their right vectors, ``(columns, values)``.
        lengths: Lengths of the columns before they were centred, ``(columns,)``; None where they were not.
    """
    if lengths is None:
        return torch.ones_like(values, dtype=torch.bool)
    return values > _CONSTANT * _EPS * torch.linalg.vector_norm(lengths.unsqueeze(1) * V, dim=0)


def singular_vectors(A: Tensor, rows: int, before: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return the singular vectors of a matrix whose values are more than rounding, and how they come from it.

    Where its columns are of very different lengths, their units do not decide which values those are: they are counted
    with columns of about the same length, and what is left is decomposed by one-sided Jacobi rotations, which are
    accurate to the smallest value of such a matrix (Drmac and Veselic 2008).

    Args:
        A: ``(rows of A, columns)``.
        rows: Rows of the table that it stands for.
        before: Lengths of the columns before they were centred, ``(columns,)``: beside them what is left of constant
            columns is rounding, whatever their number. None where they were not.

    Returns:
        All left vectors, square, those kept first; the values kept, descending; what A is multiplied by from the right
        for the vectors kept, ``(columns, rank)``; how far, about, the vectors are from exact.
    """
    lengths = torch.linalg.vector_norm(A, dim=0)
    if before is not None:
        A = A.masked_fill(lengths <= _CONSTANT * _EPS * before, 0.0)
        lengths = torch.linalg.vector_norm(A, dim=0)
    positive = lengths[lengths > 0]
    if not positive.numel() or float(positive.max()) <= _UNEQUAL * float(positive.min()):
        U, values, V = _kept_vectors(A, rows, before)
        error = _EPS * float(values[0] / values[-1]) if values.numel() else _EPS
        return U, values, V / values, error

    units = torch.ldexp(torch.ones_like(lengths), torch.where(lengths > 0, torch.frexp(lengths).exponent, 0))
    U, values, V = _kept_vectors(A / units, rows, None if before is None else before / units)
    kept, error = values.shape[0], _EPS * float(values[0] / values[-1])
    own, turn = _jacobi(units.unsqueeze(1) * V * values)
    U = torch.cat([U[:, :kept] @ turn, U[:, kept:]], 1)
    return U, own, (V / values) @ turn / units.unsqueeze(1), error


def _kept_vectors(A: Tensor, rows: int, before: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return all left vectors, square, those kept first; the singular values kept; and their right vectors."""
    wide = A.shape[1] > A.shape[0]
    # A' = Q R, so that A = R'Q' has the left singular vectors of R', which is small.
    Q, R = torch.linalg.qr(A.T) if wide else (None, A.T)
    U, values, right = torch.linalg.svd(R.T, full_matrices=A.shape[0] > A.shape[1])
    kept = kept_values(values, rows, A.shape[1])
    V = right[:kept].T if Q is None else Q @ right[:kept].T
    more = more_than_centring(values[:kept], V, before)
    if not bool(more.all()):
        order = torch.cat([more.nonzero().squeeze(1), (~more).nonzero().squeeze(1)])
        U = torch.cat([U[:, order], U[:, kept:]], 1)
    return U, values[:kept][more], V[:, more]


def _jacobi(M: Tensor) -> tuple[Tensor, Tensor]:
    """Return singular values and right vectors of a tall ``D1 C D2``, C well conditioned, D1 and D2 diagonal.

    Raises:
        ArithmeticError: they did not converge.
    """
    from scipy.linalg.lapack import dgejsv

    values, _, right, scaling, _, status = dgejsv(M.cpu().numpy(), joba=_GRADED, jobu=0, jobv=0, jobr=0)
    if status:
        raise ArithmeticError(f"the rotations of Jacobi did not converge (LAPACK's dgejsv said {status})")
    values = values * (scaling[0] / scaling[1])
    return torch.from_numpy(values).to(M), torch.from_numpy(right.copy()).to(M)


def explicit_basis(A: Tensor, B: Tensor, basis: Basis, ones: Tensor | None, before: Tensor | None = None) -> Basis:
    """Return the basis of a table with few more rows than columns or fewer: its left singular vectors themselves.

    Args:
        A: Centred and weighted rows, those of weight zero left out, ``(rows, features)``.
        B: Their targets, ``(rows, targets)``.
        basis: All that does not depend on them.
        ones: With a bias the column of ones, weighted, as a unit vector, ``(rows,)``, else None.
        before: With a bias the lengths of the columns of A before they were centred, ``(features,)``.
    """
    U, values, _, error = singular_vectors(A, A.shape[0], before)
    kept = values.shape[0]
    U, complement = U[:, :kept], U[:, kept:]
    if ones is not None:
        # Beside a far longer row the means left rounding in the others, which short directions would show.
        U, complement = U - torch.outer(ones, ones @ U), _without(complement, ones)
    over = complement.T @ B
    return replace(
        basis,
        squares=values.square(),
        coordinates=U.T @ B,
        residual_squares=over.square().sum(0),
        U=U,
        error=error,
        leftovers=complement.square().sum(1),
        rest=complement @ over,
    )


def _without(vectors: Tensor, direction: Tensor) -> Tensor:
    """Return an orthonormal basis of what orthonormal vectors span but for a unit vector among it.

    A reflection of Householder (1958) makes that the first of them.
    """
    if not vectors.shape[1]:
        return vectors
    mirror = vectors.T @ direction
    mirror = mirror / torch.linalg.vector_norm(mirror)
    mirror[0] += torch.where(mirror[0] < 0, -1.0, 1.0)
    mirror = mirror / torch.linalg.vector_norm(mirror)
    return (vectors - 2 * torch.outer(vectors @ mirror, mirror))[:, 1:]


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
