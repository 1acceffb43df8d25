"""Training on a convex criterion, and measuring against its minimiser."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from closedform.comparison.problem import Measurement, TrainingProblem
from closedform.fit.convex import ConvexRequest, ConvexSolution, divisor_of, excess_over, loss_at
from closedform.fit.convex.solving import targets_of
from closedform.fit.weights import Weights
from closedform.losses import Kinked, read_criterion
from closedform.rows import Rows
from closedform.words.errors import InputError

__all__ = ["CriterionProblem", "Tables"]

#: Times the excess loss that rounding of outputs alone makes: momentum keeps on jittering there.
_JITTER = 16


@final
@dataclass(frozen=True, eq=False)
class Tables:
    """What is trained on and measured with: rows in memory, test rows or None."""

    rows: Rows
    test: Rows | None


@final
class CriterionProblem(TrainingProblem):
    """Rows in memory and a criterion with a known minimiser: trained in the dtype of X, measured in float64.

    Args:
        tables: The rows, and test rows or None.
        request: The criterion, the ridge strength, whether there is a bias.
        exact: The minimiser, in float64.

    Attributes:
        n_outputs: Outputs of the layer.
        row_weight: Sample weights in the dtype that is trained in, ``(rows,)``, or None.
        excess_floor: What is proven of the minimiser itself: its loss is at most so far above the minimum.
    """

    def __init__(self, tables: Tables, request: ConvexRequest, exact: ConvexSolution) -> None:
        rows = tables.rows
        self._tables, self._request, self._exact = tables, request, exact
        self._read = read_criterion(request.criterion, targets_of(rows))
        self.n_outputs = exact.weight.shape[0]
        self._divisor = divisor_of(rows, request.criterion, self.n_outputs)
        self._module: Any = copy.deepcopy(request.criterion).to(device=rows.device, dtype=rows.dtype)
        self.excess_floor = exact.certificate.excess_loss

        whole = rows.gather(as_stored=True)
        self.X, self.row_weight = whole.X, None if whole.weight is None else whole.weight.to(rows.dtype)
        self._wide_X, self._wide_Y, self._wide_weight = whole.X.double(), whole.Y.double(), whole.weight
        self.Y = self._targets(whole.Y)
        zero = self._zero()
        self.loss_at_zero, self.excess_at_zero = self.losses(zero)

    def _targets(self, Y: Tensor) -> Tensor:
        """Return the targets as torch's module takes them."""
        integers = targets_of(self._tables.rows).integers
        labels = self._read.coupled and integers
        kept = Y.to(torch.int64) if labels else Y.to(self._tables.rows.dtype)
        return kept[:, 0] if self._tables.rows.single_target or labels else kept

    def _zero(self) -> Weights:
        weight, bias = self._exact.weight, self._exact.bias
        return Weights(torch.zeros_like(weight), None if bias is None else torch.zeros_like(bias))

    @override
    def loss(self, layer: nn.Linear) -> Tensor:
        """The loss that is trained: the criterion, or its weighted mean, and the penalty in the same units."""
        outputs = layer(self.X)
        if outputs.dim() > self.Y.dim() and self.Y.dtype != torch.int64:
            outputs = outputs[:, 0]
        if self.row_weight is None:
            loss = self._module(outputs, self.Y)
        else:
            each = copy.copy(self._module)
            each.reduction = "none"
            losses = each(outputs, self.Y).reshape(len(self.X), -1).sum(1)
            loss = (self.row_weight * losses).sum() / self._divisor
        if self._request.l2:
            loss = loss + 0.5 * self._request.l2 / self._divisor * layer.weight.square().sum()
        return loss

    @override
    def train_mse(self, weights: Weights) -> float:
        return self.losses(weights)[0]

    @override
    def losses(self, weights: Weights) -> tuple[float, float]:
        """Return the loss, and a proven bound on how far it is above the minimum."""
        loss, excess, _ = self._measured(weights)
        return loss, excess

    def _measured(self, weights: Weights) -> tuple[float, float, float]:
        if not math.isfinite(weights.norm()):
            return math.inf, math.inf, math.inf
        try:
            found = excess_over(self._tables.rows, self._request, weights, self._exact)
        except InputError:  # beyond the range of float64
            return math.inf, math.inf, math.inf
        return found.loss, max(found.excess_loss, 0.0) + self.excess_floor, found.weight_distance

    @override
    def measure(self, weights: Weights) -> Measurement:
        loss, excess, distance = self._measured(weights)
        return Measurement(loss, excess, distance, self._test_loss(weights))

    def _test_loss(self, weights: Weights) -> float | None:
        if self._tables.test is None:
            return None
        if not math.isfinite(weights.norm()):
            return math.inf
        loss = loss_at(self._tables.test, self._request.criterion, weights)
        return loss if math.isfinite(loss) else math.inf

    @override
    def rounding_floor(self, weights: Weights) -> float:
        """Return the excess that outputs make which are off by a rounding of what they are sums of."""
        sizes = torch.finfo(self._tables.rows.dtype).eps * weights.map(torch.abs).predict(self._wide_X.abs())
        row_weight = 1.0 if self._wide_weight is None else self._wide_weight.unsqueeze(1)
        if isinstance(self._read, Kinked):
            steepness = self._read.steepness(self._wide_Y, self.n_outputs)
            return float((row_weight * steepness * sizes).sum()) / self._divisor + self.excess_floor
        bent = self._read.diagonal(self._read.curvatures(weights.predict(self._wide_X), self._wide_Y))
        return _JITTER * float((row_weight * bent * sizes.square()).sum()) / self._divisor + self.excess_floor
