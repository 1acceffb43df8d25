"""The normwise backward error of least-squares weights, estimated as Karlson and Walden, for any number of targets."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from closedform.numerics.extremes import SMALL
from closedform.numerics.host import Vector, as_vector, lengths
from closedform.numerics.root import Root
from closedform.numerics.scaling import peak

__all__ = ["Evidence", "backward_error", "joint_backward_error"]

#: A factor no further from the matrix than this, as probed, bounds the error by itself.
_NEAR = 0.5
#: Up to this distance it bounds the error with what else is known of its smallest eigenvalue.
_FAR = 2.0
#: The smallest normal double, which stands for a zero that is divided by.
_TINY = sys.float_info.min


@final
@dataclass(frozen=True, eq=False)
class Evidence:
    """What the backward error is estimated from, all in the coordinates of the scaled matrix A.

    Attributes:
        Z: Coordinates of the weights, ``(columns, targets)``.
        gradient: ``A'R``, with the ridge, ``(columns, targets)``.
        matrix_norm: Frobenius norm of A.
        target_norms: Norms of the targets, ``(targets,)``, on the host.
        root: S with ``S'S ~ A'A``, or None.
        spectrum: Its singular values and right singular vectors, on demand; None where there is no root.
        factor_error: ``|S^-T A'A S^-1 - I|`` as probed; nan where unknown.
        least: What the eigenvalues of ``S^-T A'A S^-1`` are at least, where theory tells; else 0.
        parts: ``(t, q)`` with ``gradient = A't + q``; bounds the error where there is no root.
        good_enough: An upper bound this small is reported as it is.
        image: ``S^-T`` times the gradient, ``(rank, targets)``, where it is at hand.
    """

    Z: Tensor
    gradient: Tensor
    matrix_norm: float
    target_norms: Vector
    root: Root | None
    spectrum: Callable[[], tuple[Tensor, Tensor]] | None
    factor_error: float
    least: float
    parts: tuple[Tensor, Tensor] | None
    good_enough: float
    image: Tensor | None = None

    @property
    def least_eigenvalue(self) -> float:
        """What the eigenvalues of ``S^-T A'A S^-1`` are at least; 0 where that is not known."""
        if self.factor_error < _NEAR:
            return 1 - self.factor_error
        return self.least if self.factor_error < _FAR else 0.0

    @property
    def trivial(self) -> float | None:
        """The answer where there is nothing to estimate."""
        slope = peak(self.gradient)
        if not (math.isfinite(slope) and math.isfinite(peak(self.Z))):
            return math.inf
        return 0.0 if self.matrix_norm == 0.0 or slope == 0.0 else None


def backward_error(evidence: Evidence, residuals: Vector) -> float:
    r"""Estimate the smallest relative perturbation of A and b that makes a target's weights its exact minimiser.

    With r the residual and g = A'r, the smallest ``|[E, theta f]|_F`` for which z minimises ``|(b + f) - (A + E) z|``
    is, within a factor of sqrt(2), :math:`\|(A'A + \rho^2 I)^{-1/2} g\| / \sqrt{\|z\|^2 + \theta^{-2}}` with
    :math:`\rho^2 = \|r\|^2 / (\|z\|^2 + \theta^{-2})` (Karlson and Walden 1997; Gratton, Jiranek and Titley-Peloquin
    2012). Theta is ``|A|_F / |b|``. Cheap upper bounds come first; the singular value decomposition of the root only
    where they do not settle it.

    Args:
        evidence: Weights and gradient.
        residuals: Norms of the residuals with the ridge rows, ``(targets,)``, on the host.

    Returns:
        The largest over the targets, relative to the Frobenius norm of A; each target has a perturbation of its own.
    """
    if (trivial := evidence.trivial) is not None:
        return trivial
    with np.errstate(all="ignore"):
        weights = np.hypot(lengths(evidence.Z), evidence.target_norms / evidence.matrix_norm)
        # Neither weights nor targets: there is no scale, and any serves.
        size = np.where(weights > 0, weights, 1.0)
        P = torch.from_numpy(1 / size).to(evidence.Z.device)
        perturbations = _perturbations(evidence, lambda columns: columns * P, residuals / size)
    return float(perturbations.max()) / evidence.matrix_norm


def joint_backward_error(evidence: Evidence, residual_gram: Tensor | None) -> float:
    r"""Estimate the smallest relative perturbation that makes all targets' weights minimisers at once.

    One perturbation of A serves all targets, as in the matrix problem ``min |B - A Z|_F``. The linearised constraint is
    solved in the coordinates in which ``R'R`` and ``Z'Z + theta^-2 I`` are both diagonal, where each coordinate is a
    problem with one target (Hallman 2020). Where the weights of different targets are nearly dependent this is
    larger than the error of any target, for every solver that treats targets one by one.

    The residuals only make it smaller: without them it is ``|S^-T A'R L^-T|_F`` with the Cholesky factor L of
    ``Z'Z + theta^-2 I``, which comes first.

    Args:
        evidence: Weights and gradient.
        residual_gram: ``R'R`` with the ridge rows, ``(targets, targets)``; None for the bound without the residuals.

    Returns:
        An estimate, or a bound from above, relative to the Frobenius norm of A; infinity where there is none.
    """
    if (trivial := evidence.trivial) is not None:
        return trivial
    # Weights, residuals and targets together have no scale of their own; a power of two keeps their squares in range.
    unit = float(torch.ldexp(evidence.Z.new_ones(()), torch.frexp(evidence.Z.abs().max()).exponent.clamp(-1000, 1000)))
    evidence = replace(
        evidence,
        Z=evidence.Z / unit,
        gradient=evidence.gradient / unit,
        target_norms=evidence.target_norms / unit,
        parts=None if evidence.parts is None else (evidence.parts[0] / unit, evidence.parts[1] / unit),
        image=None if evidence.image is None else evidence.image / unit,
    )

    inverse_theta = float(np.linalg.norm(evidence.target_norms)) / evidence.matrix_norm
    weights = evidence.Z.T @ evidence.Z
    floor = inverse_theta**2 or 1e-30 * float(weights.diagonal().max()) or 1.0
    weights.diagonal().add_(floor)
    bound = _joint_bound(evidence, weights) / evidence.matrix_norm
    if residual_gram is None or (evidence.Z.shape[0] > SMALL and bound <= evidence.good_enough):
        return bound

    residual_gram = residual_gram / unit / unit
    eigenvalues, eigenvectors = torch.linalg.eigh(weights)
    half = eigenvectors / eigenvalues.clamp(min=floor).sqrt()
    rho_squares, rotation = torch.linalg.eigh(half.T @ residual_gram @ half)
    P = half @ rotation

    with np.errstate(all="ignore"):
        rho = np.sqrt(np.maximum(as_vector(rho_squares), 0.0))
        perturbations = _perturbations(evidence, lambda columns: columns @ P, rho)
    return float(np.linalg.norm(perturbations)) / evidence.matrix_norm


def _joint_bound(evidence: Evidence, weights: Tensor) -> float:
    """Return ``|S^-T G L^-T|_F`` for the gradients G, where ``weights = L L'``; infinity where S is not near to A."""
    root, image, least = evidence.root, evidence.image, evidence.least_eigenvalue
    if root is None or image is None or root.shape[0] < root.shape[1] or not least > 0:
        return math.inf
    L, info = torch.linalg.cholesky_ex(weights)
    if int(info) != 0:
        return math.inf
    solved = torch.linalg.solve_triangular(L, image.T, upper=False)
    return float(torch.linalg.vector_norm(solved)) / math.sqrt(least)


def _perturbations(evidence: Evidence, combine: Callable[[Tensor], Tensor], rho: Vector) -> Vector:
    """Return ``|(A'A + rho^2 I)^(-1/2) g|`` for each column g, estimated or bounded from above, ``(targets,)``.

    Args:
        evidence: What is known of A, and the gradients.
        combine: Makes the columns g, or what goes with them, of those of the targets.
        rho: ``(targets,)``.
    """
    G, root = combine(evidence.gradient), evidence.root
    above_zero = np.maximum(rho, _TINY)
    # The perturbation is never longer than the residual it would remove, nor than the gradient over rho.
    bounds = np.minimum(rho, lengths(G) / above_zero)

    least = evidence.least_eigenvalue
    if root is not None and root.shape[0] > 0 and least > 0:
        image = root.adjoint_solve(G) if evidence.image is None else combine(evidence.image)
        solved = lengths(image) / math.sqrt(least)
        if root.shape[0] < root.shape[1]:
            solved = np.hypot(solved, lengths(G - root.solve(root.product(G))) / above_zero)
        bounds = np.minimum(bounds, solved)
    if evidence.parts is not None:
        inside, outside = (lengths(combine(part)) for part in evidence.parts)
        bounds = np.minimum(bounds, np.hypot(inside, outside / above_zero))

    if root is None or evidence.spectrum is None:
        return bounds
    if root.shape[1] > SMALL and bounds.max() <= evidence.good_enough * evidence.matrix_norm:
        return bounds
    values, vectors = evidence.spectrum()
    coordinates = vectors @ G
    # The root of values^2 + rho^2, beside which nothing is lost.
    inside = lengths(coordinates / torch.hypot(values.unsqueeze(1), torch.from_numpy(above_zero).to(G.device)))
    if root.shape[0] < root.shape[1]:
        inside = np.hypot(inside, lengths(G - vectors.T @ coordinates) / above_zero)
    return np.minimum(inside, bounds)
