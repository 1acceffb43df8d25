"""Weights under which classes of different sizes count alike."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["balanced_weights"]


def balanced_weights(sums: Tensor) -> Tensor:
    """Return the weight of a row of each class under which all classes weigh the same, and together as much as before.

    Args:
        sums: How many rows each class has, or what they weigh, ``(classes,)``.

    Returns:
        ``(classes,)``, float64: the sum over classes and the own sum, as scikit-learn's ``"balanced"``; 0 for a class
        of which no row counts.

    Example:
        >>> balanced_weights(torch.tensor([1.0, 3.0, 0.0]))
        tensor([2.0000, 0.6667, 0.0000], dtype=torch.float64)
    """
    sums = sums.to(torch.float64)
    counted = sums > 0
    return torch.where(counted, sums.sum() / (counted.sum() * sums), 0.0)
