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

__all__ = ["loss_at"]


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

    counts = rows.walk(TargetCounts(read, wide.weight.shape[0], rows.device))
    theta = wide.stacked()
    ones = torch.ones_like(theta[:, 0])
    loss = rows.walk(LossSums(read, Columns(wide.bias is not None, ones, torch.ones_like(theta[0])), theta)).loss
    return float(loss) / (float(counts.totals) if read.averages else 1.0)
