"""The certificate and the last step of refinement from one pass over the rows."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from torch import Tensor

from closedform.fit.certification.certificate import TOLERANCE, Certificate
from closedform.fit.certification.certifier import certify, measure
from closedform.fit.claims import Claims
from closedform.fit.layers import check_range
from closedform.fit.problem import Problem
from closedform.numerics.host import lengths

__all__ = ["Stepped", "certify_and_step"]

_EPS = sys.float_info.epsilon
_TINY = sys.float_info.min
#: Backward error that the start may have.
_START = 1e-12
#: How far the factor may be from the matrix, as probed on that pass: by so much a step shrinks what the start lacks.
_CONTRACTION = 1e-4
#: How many times further it may be in a direction than on the probes, beside the root of the columns.
_UNSEEN = 4.0
#: Backward error that a step may leave beside that of rounding: half of it.
_LEFT = _EPS / 4
#: Backward error that rounding each coordinate to a double adds at most: by a part u, and so its image with it.
_ROUNDED = _EPS / 2
#: Part of the targets below which residuals are rounding, which a step changes by as much as they are.
_LEAST_RESIDUAL = 1e-9
#: A larger joint backward error, bounded without the products of the residuals, is estimated with them.
_JOINT = TOLERANCE / 4
#: Part of the squares of the residuals that a step may take off them.
_TAKEN = 1e-6


@final
@dataclass(frozen=True, eq=False)
class Stepped:
    """Coordinates after a step from a start that was measured.

    Attributes:
        Z: ``(columns, targets)``.
        certificate: What the measured start proves of these coordinates; None where that is not enough.
        settled: Whether the step has left nothing but rounding, so that another one would be in vain.
    """

    Z: Tensor
    certificate: Certificate | None
    settled: bool


def certify_and_step(problem: Problem, start: Tensor, claims: Claims) -> Stepped:
    """Certify a start, and take the step ``S^-1 S^-T g`` with the gradient g of the same pass.

    The step leaves ``(I - M) S^-T g`` of the preconditioned gradient ``S^-T g``, where ``M = S^-T (A'A) S^-1`` is what
    that pass has probed: ``factor_error`` is how far it is from the identity. So the coordinates after the step have
    that part of the start's backward error, and what rounding each of them to a double adds, at most u; that, and the
    errors of the weights that follow from it, is what the certificate says of them (the norm of the gradient is that
    of such a rounding). Probes see the distance in all directions together: in a single one it can be larger by the
    root of the columns, which is counted. Squares of residuals fall by those of ``S^-T g``, but for that part. Where
    residuals are rounding themselves, or where the start is not that good, nothing is claimed.

    Args:
        problem: The problem, of full rank and without a ridge.
        start: Coordinates ``(columns, targets)``.
        claims: What their factor says; its root is of full rank.
    """
    root, weights = claims.root, problem.to_weights(start)
    assert root is not None
    check_range(start, weights.weight, weights.bias)
    sums = measure(problem, weights, root)
    certificate = certify(problem, weights, claims, sums=sums, stepped=True)
    image = root.adjoint_solve(sums.gradient)
    Z, squares = start + root.solve(image), sums.squares

    contraction = _UNSEEN * problem.n_columns**0.5 * certificate.factor_error
    error = _ROUNDED + contraction * certificate.backward_error
    settled = certificate.factor_error <= _CONTRACTION and error <= _ROUNDED + _LEFT
    near = certificate.backward_error <= _START
    seen = bool((np.sqrt(squares) > _LEAST_RESIDUAL * problem.target_sizes).all())
    taken = float((lengths(image) ** 2 / np.maximum(squares, _TINY)).max())
    known = taken <= _TAKEN and contraction * taken <= _EPS
    together = problem.n_targets == 1 or not certificate.joint_backward_error > _JOINT
    if not (settled and near and seen and known and together):
        return Stepped(Z, None, settled)

    # One change of the matrix for all targets may have to be larger than u for their rounding.
    joint = error if problem.n_targets == 1 else max(error, certificate.joint_backward_error)
    # First-order bounds of the weights' errors are in proportion to the backward error, at least that of a double.
    shrunk = max(error, _EPS) / max(certificate.backward_error, _EPS)
    forward = certificate.forward_error * shrunk
    found = replace(certificate, accepted=True, backward_error=error, joint_backward_error=joint, forward_error=forward)
    return Stepped(Z, found, settled)
