"""Standard errors of the weights, from the triangle of the rows."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor

from closedform.fit.certificate import Certificate
from closedform.rows import Design, scan
from closedform.words.errors import InputError

__all__ = ["StandardErrors"]


@final
class StandardErrors:
    """Standard errors on demand: of weight ``(targets, features)`` and bias ``(targets,)``.

    They are computed on the first call and kept. The rows are read again for it, and it is checked that they are still
    those of the fit. Pickling computes them first, so that no data travel with a result.
    """

    def __init__(self, design: Design, certificate: Certificate) -> None:
        self._design: Design | None = design
        self._certificate = certificate
        self._errors: tuple[Tensor, Tensor | None] | None = None
        self._refusal = _refusal(design, certificate)

    def __call__(self) -> tuple[Tensor, Tensor | None]:
        """Return the standard errors.

        Raises:
            InputError: with a ridge, without unique weights or degrees of freedom, or where the rows changed.
        """
        if self._refusal:
            raise InputError(self._refusal)
        if self._errors is None:
            assert self._design is not None
            self._errors = _standard_errors(self._design, self._certificate)
        return self._errors

    def __getstate__(self) -> dict[str, Any]:
        if not self._refusal:
            self()
        return {**self.__dict__, "_design": None}


def _refusal(design: Design, certificate: Certificate) -> str:
    if design.l2 > 0:
        return "standard errors are not defined for ridge weights (l2 > 0), which are biased on purpose."
    if certificate.rank < certificate.columns:
        return (
            f"rank {certificate.rank} of {certificate.columns}: the weights are not unique, "
            "so they have no standard errors."
        )
    if any(math.isnan(value) for value in certificate.residual_std):
        return "there are as many weights as rows: no degrees of freedom are left to estimate the noise."
    return ""


def _standard_errors(design: Design, certificate: Certificate) -> tuple[Tensor, Tensor | None]:
    now = scan(design.rows)
    if not torch.equal(now.feature_norms, design.scanned.feature_norms):
        raise InputError("X was changed after the fit; fit again, and ask for standard errors before changing it.")
    R = design.triangle.R
    inverse = torch.linalg.solve_triangular(R, torch.eye(R.shape[0], dtype=R.dtype, device=R.device), upper=True)
    lengths = torch.linalg.vector_norm(inverse, dim=1) * design.scale
    std = torch.tensor(certificate.residual_std, dtype=R.dtype, device=R.device)
    errors = torch.outer(std, lengths)
    return (errors[:, 1:], errors[:, 0]) if design.bias else (errors, None)
