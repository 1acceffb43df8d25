"""The normwise backward error of least-squares weights, estimated as Karlson and Walden, for any number of targets."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from closedform.numerics.root import Root

__all__ = ["backward_error"]

# Up to this many columns the singular value decomposition of the root costs nothing worth saving.
_SMALL = 96
#: More targets than this are judged in groups, each with a perturbation of its own, and the worst is reported.
_GROUP = 512


def backward_error(
    Z: Tensor,
    gradient: Tensor,
    residual_gram: Tensor,
    penalised: Tensor,
    *,
    matrix_norm: float,
    target_norm: float,
    root: Root | None,
    factor_error: float,
    parts: tuple[Tensor, Tensor] | None,
    good_enough: float,
) -> float:
    r"""Estimate the smallest relative perturbation that makes Z an exact minimiser.

    For one target, with r the residual and g = A'r, the smallest ``|[E, theta f]|_F`` for which z minimises
    ``|(b + f) - (A + E) z|`` is, within a factor of sqrt(2), :math:`\|(A'A + \rho^2 I)^{-1/2} g\| / \sqrt{\|z\|^2 +
    \theta^{-2}}` with :math:`\rho^2 = \|r\|^2 / (\|z\|^2 + \theta^{-2})` (Karlson and Walden 1997; Gratton, Jiranek and
    Titley-Peloquin 2012). For several targets the linearised constraint is solved in the coordinates in which
    ``R'R`` and ``Z'Z + theta^-2 I`` are both diagonal, and each coordinate is a problem with one target (Hallman 2020).

    Cheap upper bounds come first; the singular value decomposition of the root only where they do not settle it.

    Args:
        Z: Coordinates, ``(columns, targets)``.
        gradient: ``A'R`` with the ridge, ``(columns, targets)``.
        residual_gram: ``R'R``, ``(targets, targets)``.
        penalised: Residual of the ridge rows, ``(columns, targets)``.
        matrix_norm: Frobenius norm of A.
        target_norm: Frobenius norm of B; theta is ``matrix_norm / target_norm``.
        root: S with ``S'S ~ A'A``, or None.
        factor_error: ``|S^-T A'A S^-1 - I|`` as probed.
        parts: ``(t, q)`` with ``gradient = A't + q``; bounds the error where there is no root.
        good_enough: An upper bound this small is reported as it is.
    """
    targets = Z.shape[1]
    if targets > _GROUP:
        return max(
            backward_error(
                Z[:, s : s + _GROUP],
                gradient[:, s : s + _GROUP],
                residual_gram[s : s + _GROUP, s : s + _GROUP],
                penalised[:, s : s + _GROUP],
                matrix_norm=matrix_norm,
                target_norm=target_norm * math.sqrt(min(_GROUP, targets - s) / targets),
                root=root,
                factor_error=factor_error,
                parts=None if parts is None else (parts[0][:, s : s + _GROUP], parts[1][:, s : s + _GROUP]),
                good_enough=good_enough,
            )
            for s in range(0, targets, _GROUP)
        )
    if not bool(torch.isfinite(Z).all()):
        return math.inf
    if matrix_norm == 0.0 or float(gradient.abs().max()) == 0.0:
        return 0.0
    P, rho_squares = _decouple(Z, residual_gram + penalised.T @ penalised, target_norm / matrix_norm)
    G = gradient @ P
    lengths = torch.linalg.vector_norm(G, dim=0)
    tiny = torch.finfo(G.dtype).tiny
    bounds = torch.minimum(rho_squares.sqrt(), lengths / rho_squares.clamp(min=tiny).sqrt())
    if root is not None and root.shape[0] == root.shape[1] and factor_error < 0.5:
        solved = torch.linalg.vector_norm(root.adjoint_solve(G), dim=0) / math.sqrt(1 - factor_error)
        bounds = torch.minimum(bounds, solved)
    if parts is not None:
        inside, outside = (
            torch.linalg.vector_norm(parts[0] @ P, dim=0),
            torch.linalg.vector_norm(parts[1] @ P, dim=0),
        )
        bounds = torch.minimum(bounds, torch.hypot(inside, outside / rho_squares.clamp(min=tiny).sqrt()))
    cheap = float(torch.linalg.vector_norm(bounds)) / matrix_norm
    if root is None or (cheap <= good_enough and root.shape[1] > _SMALL):
        return cheap
    values, vectors = root.spectrum()
    inside = (vectors @ G).square()
    denominators = (values.square().unsqueeze(1) + rho_squares).clamp(min=tiny)
    outside = (lengths.square() - inside.sum(0)).clamp(min=0.0) if root.shape[0] < root.shape[1] else 0.0
    squares = (inside / denominators).sum(0) + outside / rho_squares.clamp(min=tiny)
    return float(torch.minimum(squares.sqrt(), bounds).square().sum().sqrt()) / matrix_norm


def _decouple(Z: Tensor, residual_gram: Tensor, inverse_theta: float) -> tuple[Tensor, Tensor]:
    """Return P with ``P'(Z'Z + theta^-2 I) P = I`` and ``P' R'R P = diag(rho^2)``, and rho^2."""
    weights = Z.T @ Z
    # Where neither the weights nor the targets have a size there is no scale; any positive one serves.
    floor = inverse_theta**2 or 1e-30 * float(weights.diagonal().max()) or 1.0
    weights.diagonal().add_(floor)
    if Z.shape[1] == 1:
        return weights.rsqrt(), (residual_gram / weights)[0].clamp(min=0.0)
    eigenvalues, eigenvectors = torch.linalg.eigh(weights)
    half = eigenvectors / eigenvalues.clamp(min=floor).sqrt()
    rho_squares, rotation = torch.linalg.eigh(half.T @ residual_gram @ half)
    return half @ rotation, rho_squares.clamp(min=0.0)
