"""A convex criterion, a table of rows and a ridge strength: what is minimised, in scaled coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import Tensor

from closedform.fit.convex.passes import CurvatureGram, HessianProduct, Kept, LossSums
from closedform.fit.weights import Weights
from closedform.losses import Criterion
from closedform.numerics.symmetric import mirror
from closedform.rows import Rows, TensorSource
from closedform.rows.columns import Columns
from closedform.rows.walkers import InOrder

__all__ = ["ConvexProblem", "Evaluation"]

#: Bytes of the copy in float32 that products with the Hessian read; larger tables are read as they are.
_KEPT_BYTES = 2**31


@final
@dataclass(frozen=True, eq=False)
class Evaluation:
    """The objective at some coefficients.

    Attributes:
        theta: The coefficients of the scaled columns, ``(columns, outputs)``.
        loss: Sum of the row losses.
        objective: That sum and half the penalty.
        gradient: Of the objective, ``(columns, outputs)``.
    """

    theta: Tensor
    loss: float
    objective: float
    gradient: Tensor


@final
class ConvexProblem:
    """Minimise ``sum_i w_i loss(W x_i + b) + sum_j l2_j / 2 |W_j|^2`` over scaled coefficients.

    Attributes:
        rows: The table; its targets as the criterion takes them.
        criterion: The loss of a row.
        columns: The design matrix with its powers of two; without sample weights.
        n_outputs: How many outputs a row has.
        penalty: The second derivative of half the penalty, ``(columns, outputs)``.
    """

    def __init__(
        self, rows: Rows, criterion: Criterion, columns: Columns, n_outputs: int, strengths: tuple[float, ...]
    ) -> None:
        self.rows, self.criterion, self.columns, self.n_outputs = rows, criterion, columns, n_outputs
        scale = columns.scale.clone()
        if columns.bias:
            scale[0] = 0
        self.penalty = scale.square().unsqueeze(1) * scale.new_tensor(strengths).unsqueeze(0)
        self.strengths = strengths
        self._kept = self._place_to_keep()

    @property
    def n_columns(self) -> int:
        """Columns of the design matrix, that of ones included."""
        return self.columns.n_columns

    def weights(self, theta: Tensor) -> Weights:
        """Return the weights of some coefficients, in the user's units."""
        return Weights.from_stacked(theta * self.columns.scale.unsqueeze(1), bias=self.columns.bias)

    def evaluate(self, theta: Tensor) -> Evaluation:
        """Walk the rows once for loss and gradient; products with the Hessian are then those at these coefficients."""
        sums = self.rows.walk(LossSums(self.criterion, self.columns, theta, self._kept))
        if self._kept is not None:
            self._kept.filled = True
        loss, bent = float(sums.loss), self.penalty * theta
        return Evaluation(theta, loss, loss + 0.5 * float((bent * theta).sum()), sums.gradient + bent)

    def product(self, at: Evaluation, direction: Tensor, *, exactly: bool) -> Tensor:
        """Return the Hessian at the coefficients evaluated last times a direction.

        Args:
            at: That evaluation.
            direction: ``(columns, outputs)``.
            exactly: Work in float64; else in float32 where there is a copy of the rows.
        """
        kept = self._kept
        if kept is None or exactly:
            fold = HessianProduct(self.criterion, self.columns, direction, at.theta)
            return self.rows.walk(fold).product + self.penalty * direction
        rows = Rows(TensorSource(kept.X, "X"), TensorSource(kept.C, "Y"), None, single_target=False)
        scale = torch.ones_like(self.columns.scale, dtype=torch.float32)
        if self.columns.bias:
            scale[0] = self.columns.scale[0]
        columns = Columns(self.columns.bias, scale, scale[:1])
        fold = HessianProduct(self.criterion, columns, direction.to(torch.float32), None)
        return rows.walk(fold).product + self.penalty * direction

    def centred(self, theta: Tensor) -> Tensor:
        """Return coefficients, or a gradient, without their shift of all outputs, along which the loss is constant.

        A ridge makes the centred ones the smallest, so that a minimiser is among them.
        """
        return theta - theta.mean(1, keepdim=True) if self.criterion.coupled else theta

    def gram(self, theta: Tensor) -> Tensor:
        """Return ``A' diag(c) A`` with the mean curvature c of each row at some coefficients."""
        return mirror(self.rows.walk(CurvatureGram(self.criterion, self.columns, theta)).gram)

    def _place_to_keep(self) -> Kept | None:
        rows = self.rows
        n_rows, n_features = rows.n_rows, rows.n_features
        if not (rows.in_memory and isinstance(rows.walker, InOrder)):
            return None
        if 4 * n_rows * (n_features + self.n_outputs) > _KEPT_BYTES:
            return None
        empty = partial(torch.empty, dtype=torch.float32, device=rows.device)
        return Kept(empty(n_rows, n_features), empty(n_rows, self.n_outputs))
