"""Scaling by exact powers of two, which changes no digit."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["peak", "power_of_two_exponents", "powers_of_two", "safe_norm", "times_power_of_two", "unit_of"]

#: Exponents beyond this are cut: 2**-e itself has to be a normal number, or scaling would not be exact.
_MOST = 1000
#: A matrix with more numbers is multiplied by torch, whose threads then pay; its calls cost more than NumPy's.
_SMALL = 2**14


def power_of_two_exponents(norms: Tensor) -> Tensor:
    """Return integers e with ``norm * 2**-e`` in [0.5, 1), and 0 where the norm is zero."""
    if norms.is_cpu:
        values = norms.numpy()
        exponents = np.where(values > 0, np.frexp(values)[1], 0)
        return torch.from_numpy(np.asarray(np.minimum(np.maximum(exponents, -_MOST), _MOST), dtype=np.int32))
    return torch.where(norms > 0, torch.frexp(norms).exponent, 0).clamp(-_MOST, _MOST)


def powers_of_two(exponents: Tensor) -> Tensor:
    """Return ``2**exponents`` in float64, for exponents of size 1000 at most.

    Example:
        >>> powers_of_two(torch.tensor([-1, 3], dtype=torch.int32))
        tensor([0.5000, 8.0000], dtype=torch.float64)
    """
    if exponents.is_cpu:
        return torch.from_numpy(np.asarray(np.ldexp(1.0, exponents.numpy())))
    return torch.ldexp(torch.ones_like(exponents, dtype=torch.float64), exponents)


def times_power_of_two(values: Tensor, exponents: Tensor) -> Tensor:
    """Return ``values * 2**exponents``, exactly where the result is in range, also for exponents beyond 1023."""
    if values.is_cpu and values.numel() <= _SMALL:
        with np.errstate(over="ignore"):
            return torch.from_numpy(np.asarray(np.ldexp(values.numpy(), exponents.numpy())))
    half = exponents // 2
    return torch.ldexp(torch.ldexp(values, half), exponents - half)


def peak(values: Tensor) -> float:
    """Return the largest size of any entry; nan or infinity where one is not finite.

    Example:
        >>> peak(torch.tensor([[1.0, -3.0]])), peak(torch.tensor([1.0, float("nan")]))
        (3.0, nan)
    """
    return float(torch.linalg.vector_norm(values, math.inf))


def safe_norm(values: Tensor) -> float:
    """Return the Euclidean norm of all entries, also where squares would leave the range of float64.

    Example:
        >>> safe_norm(torch.tensor([1e200, 0.0], dtype=torch.float64))
        1e+200
    """
    largest = peak(values)
    return largest * float(torch.linalg.vector_norm(values / largest)) if 0 < largest < math.inf else largest


def unit_of(values: Tensor) -> float:
    """Return a power of two about as large as the largest size of some numbers, 0.5 where all are zero.

    Args:
        values: Finite numbers of any shape.

    Example:
        >>> import torch
        >>> unit_of(torch.tensor([-5.0, 1.0])), unit_of(torch.zeros(2))
        (4.0, 0.5)
    """
    return math.ldexp(1.0, max(-_MOST, min(math.frexp(float(values.abs().max()))[1], _MOST)) - 1)
