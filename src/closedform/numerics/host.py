"""Short vectors on the host: one number for each target or column.

What is decided by a few numbers is decided where Python is. Torch's calls on such vectors cost several times NumPy's,
and on another device each look at a number waits for the device, while one copy waits once.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Vector", "as_vector", "columns_where", "lengths", "norm_of"]

#: Numbers on the host, one for each target or each column.
Vector = np.ndarray[tuple[Any, ...], np.dtype[np.float64]]


def as_vector(values: Tensor) -> Vector:
    """Return a tensor's numbers on the host; on a CPU they share its memory.

    Args:
        values: ``(n,)``, float64.

    Example:
        >>> as_vector(torch.tensor([1.0, 2.0], dtype=torch.float64))
        array([1., 2.])
    """
    vector: Vector = values.cpu().numpy()
    return vector


def lengths(values: Tensor) -> Vector:
    """Return the Euclidean norm of each column, on the host.

    Args:
        values: ``(rows, n)``, float64.

    Example:
        >>> lengths(torch.tensor([[3.0, 1.0], [4.0, 0.0]], dtype=torch.float64))
        array([5., 1.])
    """
    return as_vector(torch.linalg.vector_norm(values, dim=0))


def norm_of(vector: Vector) -> float:
    """Return the Euclidean norm, also where squares would leave the range of float64; nan where one is.

    Example:
        >>> norm_of(np.array([1e200, 0.0]))
        1e+200
    """
    largest = float(np.abs(vector).max())
    return largest * math.sqrt(float(((vector / largest) ** 2).sum())) if 0 < largest < math.inf else largest


def columns_where(better: np.ndarray[Any, np.dtype[np.bool_]], new: Tensor, old: Tensor) -> Tensor:
    """Return some columns of one matrix and the others of another.

    Args:
        better: Which columns come from the first, ``(n,)``.
        new: ``(rows, n)``.
        old: ``(rows, n)``.

    Example:
        >>> columns_where(np.array([True, False]), torch.tensor([[1, 2]]), torch.tensor([[3, 4]]))
        tensor([[1, 4]])
    """
    if better.all():
        return new
    return torch.where(torch.from_numpy(better).to(new.device), new, old)
