"""The arithmetic that a run is trained in, and the lowest excess loss that it can reach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from closedform.explain.spectra import Spectrum

__all__ = ["Precision", "excess_floor", "rounding_of", "tf32_in_use", "with_rounding"]

# TF32 keeps ten bits after the leading one of the numbers that it multiplies; sums and weights stay float32.
_TF32_EPS = 2.0**-10
# Compute capability from which on tensor cores know TF32.
_AMPERE = (8, 0)


@final
@dataclass(frozen=True)
class Precision:
    """What weights are held in, and how far products are rounded.

    Attributes:
        dtype: What the weights are held in.
        tf32: Whether float32 products are rounded to TF32, as CUDA may do.
    """

    dtype: torch.dtype
    tf32: bool

    @property
    def eps(self) -> float:
        """Of the weights."""
        return float(torch.finfo(self.dtype).eps)

    @property
    def product_eps(self) -> float:
        """Of what is multiplied."""
        return _TF32_EPS if self.tf32 else self.eps

    def __str__(self) -> str:
        return str(self.dtype).removeprefix("torch.") + (" (products in TF32)" if self.tf32 else "")


def tf32_in_use(device: torch.device) -> bool:
    """Whether float32 matrix products on this device are rounded to TF32, as torch is set now."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < _AMPERE:
        return False
    matmul: Any = torch.backends.cuda.matmul
    # From torch 2.9 on there are two ways to set it; the newer one can always be read, the older not after both were
    # used.
    if hasattr(matmul, "fp32_precision"):
        return bool(matmul.fp32_precision == "tf32")
    return bool(matmul.allow_tf32)


def rounding_of(targets: np.ndarray, eps: float) -> float:
    """Return about what rounding leaves of a residual along a direction.

    Args:
        targets: Coordinates of the targets along the directions, ``(rank, targets)``.
        eps: Relative rounding of the arithmetic that is trained in.
    """
    return eps * float(np.abs(targets).max(initial=0.0)) / 4


def with_rounding(residual: np.ndarray, noise: float) -> np.ndarray:
    """Return residuals along the directions with none smaller than what rounding leaves of it.

    Example:
        >>> with_rounding(np.array([1.0, -1e-20, 0.0]), 1e-16)
        array([ 1.e+00, -1.e-16,  1.e-16])
    """
    return np.where(np.abs(residual) < noise, np.where(residual < 0, -noise, noise), residual)


def excess_floor(spectrum: Spectrum, start: Tensor, precision: Precision, lr: float) -> float:
    """Predict the lowest excess loss that gradient steps reach in such arithmetic.

    Two things end it: residuals are known to eps of what is added up in them, and a weight no longer changes where
    ``lr * gradient`` is below half its last digit; the latter is amplified in directions of small eigenvalue.

    Args:
        spectrum: The spectrum of the fit.
        start: Where the run starts, ``(columns, targets)``.
        precision: The arithmetic.
        lr: Learning rate on ``MSELoss()``; with 0 nothing moves.
    """
    s, r = spectrum, spectrum.rank
    if r == 0 or not s.in_range:
        return 0.0
    residual = precision.product_eps**2 * s.magnitude(start)
    lost = (precision.eps / (2 * lr) if lr > 0 else math.inf) * (s.directions[:r].square() @ s.minimiser.square()).sum(
        1
    ).sqrt()
    stalled = torch.minimum(lost.square() / (2 * s.eigenvalues[:r]), s.gaps(start))
    return residual + float(stalled.sum())
