"""The certificate and the last step of refinement from one pass over the rows."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from closedform.fit.certification.certificate import TOLERANCE, Certificate
from closedform.fit.certification.certifier import certify, measure
from closedform.fit.claims import Claims
from closedform.fit.layers import check_range
from closedform.fit.problem import Problem

__all__ = ["Stepped", "certify_and_step"]

_EPS = sys.float_info.epsilon
#: Part of the tolerance that the start may need: what a step then leaves is far below rounding.
_ROUNDING = TOLERANCE / 8
#: How far the factor may be from the matrix, as probed on that pass: by so much a step shrinks what the start lacks.
_CONTRACTION = 1e-9
#: Backward error that rounding each coordinate to a double adds at most: by a part u, and so its image with it.
_ROUNDED = _EPS / 2
#: Part of the targets below which residuals are rounding, which a step changes by as much as they are.
_LEAST_RESIDUAL = 1e-9


@final
@dataclass(frozen=True, eq=False)
class Stepped:
    """Coordinates after a step from a start that was measured.

    Attributes:
        Z: ``(columns, targets)``.
        certificate: What the measured start proves of these coordinates; None where that is not enough.
    """

    Z: Tensor
    certificate: Certificate | None


def certify_and_step(problem: Problem, start: Tensor, claims: Claims) -> Stepped:
    """Certify a start, and take the step ``S^-1 S^-T g`` with the gradient g of the same pass.

    The step leaves ``(I - M) S^-T g`` of the preconditioned gradient ``S^-T g``, where ``M = S^-T (A'A) S^-1`` is what
    that pass has probed: ``factor_error`` is how far it is from the identity. So the coordinates after the step have
    that part of the start's backward error, and what rounding each of them to a double adds, at most u; that, and the
    errors of the weights that follow from it, is what the certificate says of them. Lengths of residuals change by the
    square of a backward error of rounding level. Where residuals are rounding themselves, or the start is not that
    good, nothing is claimed.

    Args:
        problem: The problem, of full rank and without a ridge.
        start: Coordinates ``(columns, targets)``.
        claims: What their factor says; its root is of full rank.
    """
    root, weights = claims.root, problem.to_weights(start)
    assert root is not None
    check_range(start, weights.weight, weights.bias)
    sums = measure(problem, weights, root)
    certificate = certify(problem, weights, claims, sums=sums)
    Z = start + root.normal_solve(sums.products[0])
    good = certificate.backward_error <= _ROUNDING and certificate.factor_error <= _CONTRACTION
    seen = bool((np.sqrt(sums.totals[1]) > _LEAST_RESIDUAL * problem.target_sizes).all())
    if not (good and seen and certificate.accepted):
        return Stepped(Z, None)
    if torch.equal(Z, start):
        return Stepped(Z, certificate)

    error = _ROUNDED + certificate.factor_error * certificate.backward_error
    # One change of the matrix for all targets may have to be larger than u for their rounding.
    joint = max(error, certificate.joint_backward_error)
    # First-order bounds of the weights' errors are in proportion to the backward error, at least that of a double.
    shrunk = max(error, _EPS) / max(certificate.backward_error, _EPS)
    forward = certificate.forward_error * shrunk
    return Stepped(Z, replace(certificate, backward_error=error, joint_backward_error=joint, forward_error=forward))
