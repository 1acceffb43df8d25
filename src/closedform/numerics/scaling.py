"""Scaling by exact powers of two, which changes no digit."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["power_of_two_exponents", "safe_norm", "times_power_of_two"]


def power_of_two_exponents(norms: Tensor) -> Tensor:
    """Return integers e with ``norm * 2**-e`` in [0.5, 1), and 0 where the norm is zero."""
    exponents = torch.frexp(norms).exponent
    # 2**-e itself has to be a normal number, or scaling would not be exact.
    return torch.where(norms > 0, exponents, 0).clamp(-1000, 1000)


def times_power_of_two(values: Tensor, exponents: Tensor) -> Tensor:
    """Return ``values * 2**exponents``, exactly where the result is in range, also for exponents beyond 1023."""
    half = exponents // 2
    return torch.ldexp(torch.ldexp(values, half), exponents - half)


def safe_norm(values: Tensor) -> float:
    """Return the Euclidean norm of all entries, also where squares would leave the range of float64.

    Example:
        >>> safe_norm(torch.tensor([1e200, 0.0], dtype=torch.float64))
        1e+200
    """
    peak = float(values.abs().max())
    return peak * float(torch.linalg.vector_norm(values / peak)) if 0 < peak < float("inf") else peak
