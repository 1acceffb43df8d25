"""A convex criterion, a table of rows and a ridge strength: what is minimised, in scaled coefficients."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import final

import torch
from torch import Tensor

from closedform.engine.threads import one_thread
from closedform.fit.convex.passes import CurvatureGram, HessianProduct, Kept, LossSums, RootGram, formula_of
from closedform.fit.weights import Weights
from closedform.losses import Criterion
from closedform.numerics.symmetric import mirror
from closedform.rows import Rows, TensorSource
from closedform.rows.columns import Columns
from closedform.rows.walkers import InOrder
from closedform.words.errors import InputError

__all__ = ["BEYOND_RANGE", "ConvexProblem", "Evaluation"]

#: Why a problem is refused whose ridge, in columns of norm 1, is no number.
BEYOND_RANGE = "numbers left the range of float64 on the way, beside the ridge; scale X or Y by a constant."

#: Bytes of the copy in float32 that products with the Hessian read; larger tables are read as they are.
_KEPT_BYTES = 2**31
#: Columns up to which the Hessian of one output is factored rather than multiplied with.
_DIRECT_COLUMNS = 256


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
        idle: Outputs that no row's loss depends on. Their coefficients are held at zero, the smallest, by a penalty of
            their own, which changes nothing for the others.
        penalty: The second derivative of half the penalty, ``(columns, outputs)``.

    Raises:
        InputError: the penalty of some column is beyond the range of float64.
    """

    def __init__(
        self,
        rows: Rows,
        criterion: Criterion,
        columns: Columns,
        n_outputs: int,
        strengths: tuple[float, ...],
        idle: tuple[int, ...] = (),
    ) -> None:
        self.rows, self.criterion, self.columns, self.n_outputs = rows, criterion, columns, n_outputs
        self.idle = idle
        scale = columns.scale.clone()
        if columns.bias:
            scale[0] = 0
        # Squared scales may leave the range of float64, where no strength is none all the same.
        strength = scale.new_tensor(strengths).unsqueeze(0)
        self.penalty = (scale.square().unsqueeze(1) * strength).masked_fill(strength == 0, 0.0)
        if not bool(torch.isfinite(self.penalty).all()):
            raise InputError(BEYOND_RANGE)
        for output in idle:
            held = self.penalty[:, output]
            held.masked_fill_(held == 0, 1.0)
        self.strengths = strengths
        self._seen: Tensor | None = None

    @property
    def n_columns(self) -> int:
        """Columns of the design matrix, that of ones included."""
        return self.columns.n_columns

    @property
    def direct(self) -> bool:
        """Whether one output with few columns has its Hessian factored rather than multiplied with."""
        return self.n_outputs == 1 and self.n_columns <= _DIRECT_COLUMNS

    @property
    def compiled(self) -> bool:
        """Whether all passes of a descent are compiled loops."""
        known = self.direct and self._in_one_place and formula_of(self.criterion, self.n_outputs) is not None
        return known and self.rows.engine.sums_losses

    def weights(self, theta: Tensor) -> Weights:
        """Return the weights of some coefficients, in the user's units."""
        return Weights.from_stacked(theta * self.columns.scale.unsqueeze(1), bias=self.columns.bias)

    def evaluate(self, theta: Tensor) -> Evaluation:
        """Walk the rows once for loss and gradient; products with the Hessian are then those at these coefficients."""
        kept, roots = (None, self._roots) if self.direct else (self._kept, None)
        sums = self.rows.walk(LossSums(self.criterion, self.columns, theta, kept, roots))
        self._seen = theta
        if kept is not None:
            kept.settle(self.criterion)
        loss, bent = float(sums.loss), self.penalty * theta
        return Evaluation(theta, loss, loss + 0.5 * float((bent * theta).sum()), sums.gradient + bent)

    def product(self, at: Evaluation, direction: Tensor, *, exactly: bool) -> Tensor:
        """Return the Hessian at the coefficients evaluated last times a direction.

        Args:
            at: That evaluation.
            direction: ``(columns, outputs)``.
            exactly: Work in float64; else in float32 where there is a copy of the rows.
        """
        kept = None if self.direct else self._kept
        if kept is None or exactly:
            fold = HessianProduct(self.criterion, self.columns, direction, at.theta)
            return self.rows.walk(fold).product + self.penalty * direction
        rows = Rows(TensorSource(kept.X, "X"), TensorSource(kept.C, "Y"), None, single_target=False)
        scale = torch.ones_like(self.columns.scale, dtype=torch.float32)
        if self.columns.bias:
            scale[0] = self.columns.scale[0]
        columns = Columns(self.columns.bias, scale, scale[:1])
        fold = HessianProduct(self.criterion, columns, direction.to(torch.float32), None, kept.few)
        return rows.walk(fold).product + self.penalty * direction

    def centred(self, theta: Tensor) -> Tensor:
        """Return coefficients, or a gradient, without their shift of all outputs, along which the loss is constant.

        A ridge makes the centred ones the smallest, so that a minimiser is among them.
        """
        return theta - theta.mean(1, keepdim=True) if self.criterion.coupled else theta

    def gram(self, theta: Tensor) -> Tensor:
        """Return ``A' diag(c) A`` with the mean curvature c of each row at some coefficients."""
        roots = self._roots if self.direct else None
        if roots is None:
            return mirror(self.rows.walk(CurvatureGram(self.criterion, self.columns, theta)).gram)
        if self._seen is not theta:
            self.evaluate(theta)
        return mirror(self.rows.walk(RootGram(self.columns, roots)).gram)

    def sampled(self, count: int) -> ConvexProblem | None:
        """Return the same problem for some of the rows, with as much less ridge; None where rows are not in memory.

        Args:
            count: How many rows, one drawn from each of as many equal parts of the table.
        """
        rows = self.rows
        if not self._in_one_place:
            return None
        stride = rows.n_rows // count
        offsets = torch.randint(stride, (count,), device="cpu", generator=torch.Generator().manual_seed(0))
        drawn = (torch.arange(count, device="cpu") * stride + offsets).to(rows.device)
        whole = rows.block(0, rows.n_rows, as_stored=True)
        X, Y = whole.X[drawn].to(torch.float64), whole.Y[drawn].to(torch.float64)
        weight = None if whole.weight is None else TensorSource(whole.weight[drawn], "sample_weight")
        some = Rows(TensorSource(X, "X"), TensorSource(Y, "Y"), weight, single_target=False)
        strengths = tuple(strength * count / rows.n_rows for strength in self.strengths)
        return ConvexProblem(some, self.criterion, self.columns, self.n_outputs, strengths, self.idle)

    @property
    def keeps(self) -> bool:
        """Whether products read a copy of the rows in float32, unless they are asked to be exact."""
        return not self.direct and self._kept is not None

    def alone(self, *, exactly: bool) -> AbstractContextManager[None]:
        """Keep torch's threads asleep where products are compiled passes: between these they would spin into them.

        Args:
            exactly: Whether the products are in float64.
        """
        if exactly or not self.keeps or self._kept is None or self._kept.few is None:
            return nullcontext()
        return one_thread(self.n_columns, self.rows.device, targets=self.n_outputs)

    @property
    def _in_one_place(self) -> bool:
        return self.rows.in_memory and isinstance(self.rows.walker, InOrder)

    @cached_property
    def _roots(self) -> Tensor | None:
        """Where an evaluation leaves the roots of the curvatures of a single output, for the Gram matrix there."""
        return self.penalty.new_empty(self.rows.n_rows) if self._in_one_place else None

    @cached_property
    def _kept(self) -> Kept | None:
        n_rows, n_features = self.rows.n_rows, self.rows.n_features
        if not self._in_one_place or 4 * n_rows * (n_features + self.n_outputs) > _KEPT_BYTES:
            return None
        empty = partial(torch.empty, dtype=torch.float32, device=self.rows.device)
        return Kept(empty(n_rows, n_features), empty(n_rows, self.n_outputs))
