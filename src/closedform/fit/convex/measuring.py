"""The loss of given weights, as torch computes it, by one pass over the rows."""

from __future__ import annotations

from typing import Any

import torch

from closedform.fit.convex.kinks import kinked_loss
from closedform.fit.convex.passes import LossSums, TargetCounts
from closedform.fit.convex.solving import targets_of
from closedform.fit.weights import Weights
from closedform.losses import Kinked, read_criterion
from closedform.rows import Rows
from closedform.rows.columns import Columns

__all__ = ["divisor_of", "loss_at"]


def loss_at(rows: Rows, criterion: Any, weights: Weights) -> float:
    """Return what a criterion is at some weights, in float64 and in its own reduction.

    Args:
        rows: The rows; other ones than those of the fit, such as test rows, as well.
        criterion: The module.
        weights: The weights, ``(outputs, features)``.

    Raises:
        InputError: targets that the criterion is not defined for, such as a label that has no output.
    """
    read = read_criterion(criterion, targets_of(rows))
    wide = weights.to(torch.float64)
    if isinstance(read, Kinked):
        (losses,), divisor = kinked_loss(rows, read, wide)
        return float(losses.sum()) / divisor

    theta = wide.stacked()
    ones = torch.ones_like(theta[:, 0])
    columns = Columns(wide.bias is not None, ones, torch.ones_like(theta[0]))
    divisor = divisor_of(rows, criterion, wide.weight.shape[0])
    return float(rows.walk(LossSums(read, columns, theta)).loss) / divisor


def divisor_of(rows: Rows, criterion: Any, outputs: int) -> float:
    """Return what the reduction of a criterion divides the sum of the row losses by; 1 where it is the sum.

    Args:
        rows: The rows.
        criterion: The module.
        outputs: How many outputs a row has.

    Raises:
        InputError: targets that the criterion is not defined for, such as a label that has no output.
    """
    read = read_criterion(criterion, targets_of(rows))
    if isinstance(read, Kinked):
        return kinked_loss(rows, read)[1]
    counts = rows.walk(TargetCounts(read, outputs, rows.device))
    return float(counts.totals) if read.averages else 1.0
