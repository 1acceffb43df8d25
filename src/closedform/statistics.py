"""Standard errors of the weights, from the triangle of the rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from closedform.certify import Certificate
from closedform.errors import InputError
from closedform.rows import Design

__all__ = ["standard_errors"]


def standard_errors(design: Design, certificate: Certificate) -> tuple[Tensor, Tensor | None]:
    """Return the standard errors of weight ``(targets, features)`` and bias ``(targets,)``.

    Raises:
        InputError: with a ridge, without unique weights, or without degrees of freedom.
    """
    if design.l2 > 0:
        raise InputError("standard errors are not defined for ridge weights (l2 > 0), which are biased on purpose.")
    if certificate.rank < certificate.columns:
        raise InputError(
            f"rank {certificate.rank} of {certificate.columns}: the weights are not unique, "
            "so they have no standard errors."
        )
    if any(math.isnan(value) for value in certificate.residual_std):
        raise InputError("there are as many weights as rows: no degrees of freedom are left to estimate the noise.")
    R = design.triangle.R
    inverse = torch.linalg.solve_triangular(R, torch.eye(R.shape[0], dtype=R.dtype, device=R.device), upper=True)
    lengths = torch.linalg.vector_norm(inverse, dim=1) * design.scale
    std = torch.tensor(certificate.residual_std, dtype=R.dtype, device=R.device)
    errors = torch.outer(std, lengths)
    return (errors[:, 1:], errors[:, 0]) if design.bias else (errors, None)
