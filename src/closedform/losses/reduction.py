"""How the losses of rows become one, for the modules that torch does not have."""

from __future__ import annotations

import torch
from torch import Tensor

from closedform.words.errors import InputError

__all__ = ["check_reduction", "positives_times", "reduced"]


def check_reduction(reduction: str) -> None:
    """Refuse what is no reduction of ``torch.nn``.

    Args:
        reduction: Its name.

    Raises:
        InputError: it is another.
    """
    if reduction not in ("mean", "sum", "none"):
        raise InputError(f"reduction={reduction!r} must be 'mean', 'sum' or 'none'.")


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """Return the mean, the sum, or the losses themselves, as the modules of torch do.

    Args:
        loss: Losses, of any shape.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    """
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


def positives_times(values: Tensor, target: Tensor, factors: Tensor | None) -> Tensor:
    """Return values, those of targets of 1 times the factor of their output.

    Args:
        values: ``(rows, outputs)``.
        target: Of the same shape.
        factors: ``(outputs,)``, or None for ones.
    """
    if factors is None:
        return values
    return torch.where(target > 0, values * factors.to(dtype=values.dtype, device=values.device), values)
