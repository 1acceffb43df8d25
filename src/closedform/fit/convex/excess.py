"""How far given weights are from the minimiser of a convex criterion, without cancellation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self, final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from closedform.fit.convex.kinks import kinked_loss
from closedform.fit.convex.passes import TargetCounts
from closedform.fit.convex.request import ConvexRequest
from closedform.fit.convex.solution import ConvexSolution
from closedform.fit.convex.solving import targets_of
from closedform.fit.request import check_ridge
from closedform.fit.weights import Weights
from closedform.losses import Criterion, Kinked, read_criterion
from closedform.rows import Block, Rows, SumFold
from closedform.words.errors import InputError

__all__ = ["Excess", "excess_over"]

#: Points of the quadrature along the step of a row: exact to rounding where outputs move by less than 1/2.
_POINTS = 8
#: Change of outputs up to which the second derivative is integrated, and beyond which losses are subtracted.
_NEARBY = 0.5


@final
@dataclass(frozen=True)
class Excess:
    """Loss now and at the minimum, in the units of the criterion, and how far apart the weights are."""

    loss: float
    optimal_loss: float
    excess_loss: float
    weight_distance: float


def excess_over(rows: Rows, request: ConvexRequest, present: Weights, solution: ConvexSolution) -> Excess:
    """Measure weights against the minimiser.

    At the minimiser the gradient vanishes, so the excess is the integral of the second derivative along the step to the
    present weights: a sum of positive terms, which loses no digits where the excess is far below the loss.

    Args:
        rows: The rows of the fit.
        request: What was asked.
        present: The weights to judge.
        solution: The minimiser, in float64.

    Raises:
        InputError: the loss at these weights is beyond float64.
    """
    criterion = read_criterion(request.criterion, targets_of(rows))
    best = Weights(solution.weight, solution.bias)
    step = present.minus(best)
    if criterion.coupled and solution.direction is None:
        # A shift of all classes changes no loss; with a ridge only that of the biases is free.
        free = max(check_ridge(request.l2, 1)) == 0
        weight = step.weight - step.weight.mean(0, keepdim=True) if free else step.weight
        step = Weights(weight, None if step.bias is None else step.bias - step.bias.mean())
    if isinstance(criterion, Kinked):
        return _with_kinks(rows, criterion, request, present, best, step, solution)

    k = present.weight.shape[0]
    strengths = present.weight.new_tensor(check_ridge(request.l2, k))
    sums = rows.walk(_ExcessSums(criterion, present, best, step))
    counts = rows.walk(TargetCounts(criterion, k, rows.device))
    divisor = float(counts.totals) if criterion.averages else 1.0

    ridge = 0.5 * float((strengths * step.weight.square().sum(1)).sum())
    penalty = 0.5 * float((strengths * present.weight.square().sum(1)).sum())
    loss, excess = float(sums.numbers[0]) + penalty, float(sums.numbers[1]) + ridge
    if not math.isfinite(loss):
        raise InputError("the loss at the layer's weights is beyond the range of float64.")
    distance = math.inf if solution.direction is not None else step.norm() / (best.norm() or 1.0)
    return Excess(loss / divisor, solution.certificate.objective / divisor, excess / divisor, distance)


def _with_kinks(
    rows: Rows,
    criterion: Kinked,
    request: ConvexRequest,
    present: Weights,
    best: Weights,
    step: Weights,
    solution: ConvexSolution,
) -> Excess:
    """Measure weights where the loss is linear between kinks: differences row by row lose nothing."""
    strengths = present.weight.new_tensor(check_ridge(request.l2, present.weight.shape[0]))
    (now, then), divisor = kinked_loss(rows, criterion, present, best)
    penalty = 0.5 * float((strengths * present.weight.square().sum(1)).sum())
    added = 0.5 * float((strengths.unsqueeze(1) * step.weight * (present.weight + best.weight)).sum())
    return Excess(
        (float(now.sum()) + penalty) / divisor,
        solution.certificate.objective / divisor,
        (float((now - then).sum()) + added) / divisor,
        step.norm() / (best.norm() or 1.0),
    )


@final
class _ExcessSums(SumFold):
    """Loss at some weights, and the excess over the loss at others."""

    as_stored = False
    label = "measuring"

    def __init__(self, criterion: Criterion, present: Weights, best: Weights, step: Weights) -> None:
        self._criterion, self._present, self._best, self._step = criterion, present, best, step
        self.numbers = present.weight.new_zeros(2)

    @override
    def add(self, block: Block) -> None:
        criterion, T = self._criterion, block.Y
        linear = torch.nn.functional.linear
        now, best, step = (linear(block.X, w.weight, w.bias) for w in (self._present, self._best, self._step))
        values = criterion.values(now, T)
        far = values - criterion.values(best, T) - (criterion.slopes(best, T) * step).sum(1)
        near = torch.zeros_like(far)
        if criterion.smooth:
            nodes, weights = np.polynomial.legendre.leggauss(_POINTS)
            for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
                C = criterion.curvatures(best + float(node) * step, T)
                near += float((1 - node) * weight) * (step * criterion.product(C, step)).sum(1)
            far = torch.where(step.abs().amax(1) < _NEARBY, near, far)
        weight = torch.ones_like(values) if block.weight is None else block.weight
        self.numbers += torch.stack([(values * weight).sum(), (far * weight).sum()])

    @override
    def fresh(self) -> Self:
        return type(self)(self._criterion, self._present, self._best, self._step)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return (self.numbers,)
