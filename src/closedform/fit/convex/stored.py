"""What the loss of a criterion becomes where its minimiser is stored in the narrower dtype of a layer."""

from __future__ import annotations

import math
from typing import Self, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.fit.convex.kinks import kinked_sums
from closedform.fit.convex.passes import outputs_of
from closedform.fit.convex.request import ConvexRequest
from closedform.fit.convex.solution import ConvexSolution
from closedform.fit.request import check_ridge
from closedform.fit.storage import Stored
from closedform.fit.weights import Weights
from closedform.losses import Criterion, Kinked
from closedform.rows import Block, Rows, SumFold

__all__ = ["StoredSums", "judged", "stored_of"]

#: Unit roundoffs of the loss that computing it in that dtype leaves open.
_OF_LOSS = 8.0
#: The least part of the loss that is worth a word, in any dtype.
_LEAST_PART = 1e-4
#: Unit roundoffs that the outputs of a layer of that dtype are known to, as far as the loss depends on them.
_OF_OUTPUTS = 4.0


@final
class StoredSums(SumFold):
    """Loss at some weights, what it counts, and how far it hangs on the last digits of the outputs.

    Args:
        criterion: The criterion.
        weights: The weights, float64.
    """

    as_stored = False
    label = "certifying"

    def __init__(self, criterion: Criterion, weights: Weights) -> None:
        self._criterion, self._weights = criterion, weights
        self.numbers = weights.weight.new_zeros(3)

    @override
    def add(self, block: Block) -> None:
        criterion, T = self._criterion, block.Y
        Z = outputs_of(block.X, self._weights.weight, self._weights.bias)
        values, slopes, _ = criterion.evaluate(Z, T)
        found = torch.stack([values, criterion.counts(T, Z.shape[1]), (slopes * Z).abs().sum(1)])
        if block.weight is not None:
            found = found[:, block.weight > 0] * block.weight[block.weight > 0]
        self.numbers += found.sum(1)

    @override
    def fresh(self) -> Self:
        return type(self)(self._criterion, self._weights)

    @override
    def sums(self) -> tuple[Tensor, ...]:
        return (self.numbers,)


def judged(dtype: torch.dtype, loss: float, certified: float, reach: float) -> Stored:
    """Judge a loss beside the one that was certified.

    Lost is what was certified where the loss is larger by more than rounding the outputs of such a layer makes it.

    Args:
        dtype: What the weights are stored in.
        loss: Of the weights as stored.
        certified: Before they were rounded.
        reach: Slopes of the loss times outputs, their sizes summed: how far it hangs on the last digits of these.

    Example:
        >>> judged(torch.float32, 0.00453, 0.00443, 0.01).lost, judged(torch.float32, 1e-7, 0.0, 1.0).lost
        (True, False)
    """
    roundoff = torch.finfo(dtype).eps / 2
    unsaid = max(_LEAST_PART, _OF_LOSS * roundoff) * abs(certified) + _OF_OUTPUTS * roundoff * reach
    lost = not math.isfinite(loss) or loss - certified > unsaid
    return Stored(str(dtype).removeprefix("torch."), loss, certified, lost=lost)


def stored_of(
    rows: Rows, criterion: Criterion | Kinked, request: ConvexRequest, solution: ConvexSolution
) -> Stored | None:
    """Return what rounding the weights does to the loss; None for float64, and where nothing was certified.

    Args:
        rows: The rows of the fit.
        criterion: The criterion.
        request: What was asked.
        solution: The minimiser, rounded.
    """
    dtype = solution.weight.dtype
    if dtype == torch.float64 or not solution.outcome.certified:
        return None
    weights = Weights(solution.weight, solution.bias).to(torch.float64)
    if isinstance(criterion, Kinked):
        total, divisor, reach = kinked_sums(rows, criterion, weights)
    else:
        total, counts, reach = rows.walk(StoredSums(criterion, weights)).numbers.tolist()
        divisor = counts if criterion.averages else 1.0

    strengths = weights.weight.new_tensor(check_ridge(request.l2, weights.weight.shape[0]))
    penalty = 0.5 * float((strengths * weights.weight.square().sum(1)).sum())
    return judged(dtype, (total + penalty) / divisor, solution.certificate.objective / divisor, reach / divisor)
