"""Huber's losses where few rows bend them: minimised for wide quadratics first, then for narrower ones."""

from __future__ import annotations

import torch
from torch import Tensor

from closedform.engine.threads import one_thread
from closedform.fit.convex.coordinates import Coordinates
from closedform.fit.convex.finish import KinkedRows
from closedform.fit.convex.kinked import minimise_rounded
from closedform.fit.convex.problem import ConvexProblem
from closedform.losses.huber import Huber, SmoothL1
from closedform.rows import Design

__all__ = ["rounded_minimum"]


def rounded_minimum(design: Design, problem: ConvexProblem) -> Tensor:
    """Return coefficients at the minimum, ``(columns, outputs)``, by exact line searches along a path of widths.

    Where the quadratic is narrow beside the residuals, hardly a row bends the loss, and a Newton step says little. For
    wide quadratics it is least squares, and each minimum is a start for the next (Madsen and Nielsen 1993).

    Args:
        design: The rows, scanned, in memory.
        problem: The problem on them, by ``HuberLoss`` or ``SmoothL1Loss``.
    """
    criterion = problem.criterion
    assert isinstance(criterion, Huber | SmoothL1)
    block, columns = design.rows.gather(), problem.columns
    A, T, weight = block.X * columns.feature_scale, block.Y, block.weight
    if columns.bias:
        A = torch.cat([A.new_full((A.shape[0], 1), float(columns.scale[0])), A], 1)
    # Half a squared residual of weight w, linear from the width on, is that of a row times the root of w.
    root = A.new_ones(A.shape[0]) if weight is None else weight.sqrt()
    A, bound = A * root.unsqueeze(1), criterion.scale * criterion.width * root

    theta = torch.zeros_like(problem.penalty)
    with one_thread(min(A.shape), A.device):
        for output in range(problem.n_outputs):
            strength = problem.strengths[output]
            coordinates = Coordinates.of(A, columns.scale, bias=columns.bias, ridge=strength > 0)
            rows = KinkedRows(coordinates.U, T[:, output] * root, bound, bound, strength * coordinates.penalised)
            theta[:, output] = coordinates.raised(minimise_rounded(rows, 1 / criterion.scale))
    return theta
