"""Everything that findings are made from, measured once and on first use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from closedform.explain.conditioning import condition_numbers, standardised
from closedform.explain.forecasts import Forecast, Limit, MiniBatch, first_order_limits, forecast, mini_batch
from closedform.explain.optimizer import OptimizerFacts
from closedform.explain.partial import partial_spectrum
from closedform.explain.precision import Precision, excess_floor, tf32_in_use
from closedform.explain.setting import CriterionFacts, ModelFacts
from closedform.explain.spectra import Compressed, Spectrum, compress, spectrum_of
from closedform.explain.training import Training
from closedform.rows import Rows

__all__ = ["PATIENCE", "SAFETY", "Facts"]

#: Steps that count as given where the user names none: any of the optimizers makes them in a minute or so.
PATIENCE = 100_000
#: Share of the largest stable learning rate that is taken as the best of plain gradient descent.
SAFETY = 0.9
# A share of the excess loss that rounding of the bias may hide.
_ROUNDING = 1e-10


@dataclass(frozen=True)
class Facts:
    """A fit, the user's setting around it, and what follows from the data; :class:`Training` tells of the run.

    Attributes:
        rows: The table.
        bias, l2: The layer's bias, the ridge strength.
        goal: Share of the excess loss of zero weights (with a bias: of the best constant) that may be left.
        steps: Steps that the run has, or None.
        batch_size: Rows in a batch, or None for the full batch.
        model, optimizer, criterion: What was read of the user's objects, or None.
        scheduler: The user's learning-rate scheduler, or None.
        history: Losses the user recorded, or None.
        names: Names of the features, or None.
        exact_up_to: Columns up to which the whole spectrum is computed.
        dropped_target_dimension: Whether Y is ``(rows,)``.
    """

    rows: Rows
    bias: bool
    l2: float
    goal: float
    steps: int | None
    batch_size: int | None
    model: ModelFacts | None
    optimizer: OptimizerFacts | None
    criterion: CriterionFacts | None
    scheduler: Any
    history: Tensor | None
    names: Sequence[str] | None
    exact_up_to: int

    @cached_property
    def compressed(self) -> Compressed | None:
        """The triangle of the rows, or None where there are too many columns for one."""
        small = min(self.rows.n_rows, self.rows.n_features)
        if self.rows.n_features > self.exact_up_to and small > self.exact_up_to // 10:
            return None
        return compress(self.rows, bias=self.bias, l2=self.l2)

    @cached_property
    def spectrum(self) -> Spectrum:
        if self.compressed is None:
            return partial_spectrum(self.rows, bias=self.bias, l2=self.l2)
        return spectrum_of(self.compressed)

    @property
    def patience(self) -> int:
        """Steps that the run has, or what counts as patient."""
        return PATIENCE if self.steps is None else self.steps

    @property
    def patience_text(self) -> str:
        return f"{self.patience:,} steps" + ("" if self.steps is not None else " (assumed, none were given)")

    @cached_property
    def goal_excess(self) -> float:
        """The excess loss that counts as having come to the minimum."""
        return self.goal * self.reference_excess

    @cached_property
    def reference_excess(self) -> float:
        """The excess loss that shares are of: that of zero weights, or with a bias that of the best constant.

        A constant is found in a few steps and says nothing about the features. Where it explains nearly all, rounding
        sets the scale.
        """
        zero, c = self.spectrum.excess_at_zero, self.compressed
        if c is None or not self.bias:
            return zero
        unexplained = self.spectrum.target_components[self.spectrum.rank :].square().sum()
        constant = float(c.C[1:].square().sum() - unexplained) / (c.n_rows * c.n_targets)
        return min(zero, max(constant, _ROUNDING * zero))

    @cached_property
    def start(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias the run starts from, in float64: those of the model, or zeros."""
        options: dict[str, Any] = {"dtype": torch.float64, "device": self.rows.device}
        if self.model is not None and self.model.finite:
            layer = self.model.layer
            bias = None if layer.bias is None else layer.bias.detach().to(**options)
            return layer.weight.detach().to(**options), bias
        weight = torch.zeros(self.rows.n_targets, self.rows.n_features, **options)
        return weight, torch.zeros(self.rows.n_targets, **options) if self.bias else None

    @cached_property
    def start_matrix(self) -> Tensor:
        weight, bias = self.start
        return weight.T if bias is None else torch.cat([bias.unsqueeze(0), weight.T])

    @cached_property
    def start_gaps(self) -> Tensor:
        """Excess loss at the start along each direction, ``(rank,)``."""
        return self.spectrum.gaps(self.start_matrix)

    @property
    def start_excess(self) -> float:
        return float(self.start_gaps.sum())

    def weight_distance(self, weights: Tensor) -> float:
        """Relative distance of weights ``(columns, targets)`` from the nearest minimiser."""
        s, r = self.spectrum, self.spectrum.rank
        best = s.target_components[:r] / s.singular_values[:r].unsqueeze(1)
        size = float(torch.linalg.vector_norm(best))
        return float(torch.linalg.vector_norm(s.directions[:r] @ weights - best)) / (size or 1.0)

    @property
    def loss_factor(self) -> float:
        """What ``MSELoss()`` is multiplied by in the user's loss."""
        if self.criterion is None or self.criterion.kind != "squared":
            return 1.0
        return self.criterion.factor

    @property
    def squared(self) -> bool:
        """Whether the user's loss is a multiple of the mean squared error, as far as is known."""
        return self.criterion is None or self.criterion.kind == "squared"

    @property
    def full_batch(self) -> bool:
        return self.batch_size is None or self.batch_size >= self.rows.n_rows

    @cached_property
    def training(self) -> Training:
        """The user's own run."""
        return Training(self)

    @cached_property
    def best_steps(self) -> float:
        """Steps of plain gradient descent to the goal at its best."""
        return self.best_descent.steps_to(self.goal_excess)

    @cached_property
    def best_descent(self) -> Forecast:
        """Plain gradient descent at a safe share of the largest stable learning rate."""
        limit = self.spectrum.learning_rate_limit
        return self.forecast(lr=SAFETY * limit if math.isfinite(limit) else 1.0, steps=self.patience)

    @property
    def shown(self) -> Forecast | None:
        """The forecast to show first: that of the user's run, or of gradient descent; None beyond float64's range."""
        if not self.spectrum.in_range:
            return None
        return self.training.forecast or self.best_descent

    def forecast(self, *, lr: float, steps: Any, momentum: float = 0.0, **options: Any) -> Forecast:
        """Forecast a run from the user's start; see :func:`closedform.forecast.forecast`."""
        name = "momentum" if momentum else "sgd"
        return forecast(self.spectrum, name, lr=lr, momentum=momentum, steps=steps, start=self.start, **options)

    def mini_batch(self, lr: float, size: int) -> MiniBatch:
        return mini_batch(self.spectrum, lr=lr, batch_size=size, start=self.start, row_count=self.rows.n_rows)

    @cached_property
    def limits(self) -> tuple[Limit, ...]:
        if not self.spectrum.in_range:
            return ()
        zero = self.spectrum.excess_at_zero
        goal = self.goal_excess / zero if zero > 0 else self.goal
        return first_order_limits(self.spectrum, goal, self.start)

    @cached_property
    def conditions(self) -> dict[str, float]:
        """Condition numbers of the matrix as it is, centred, with its columns scaled, and both."""
        if self.compressed is None or self._normal is None:
            return {"as it is": self.spectrum.condition}
        return condition_numbers(self.compressed, self.spectrum, self._normal)

    @property
    def standardised(self) -> Spectrum | None:
        """The spectrum with the features standardised; None with a ridge, which would be another one then."""
        return None if self.l2 > 0 else self._normal

    @cached_property
    def _normal(self) -> Spectrum | None:
        return None if self.compressed is None or not self.spectrum.in_range else standardised(self.compressed)

    @property
    def device(self) -> torch.device:
        """Where the run computes."""
        return self.rows.device if self.model is None else self.model.layer.weight.device

    @property
    def tf32(self) -> bool:
        """Whether torch, as it is set now, rounds float32 products to TF32 there."""
        return tf32_in_use(self.device)

    @cached_property
    def precision(self) -> Precision:
        """The arithmetic that is trained in."""
        dtype = self.rows.dtype
        if self.model is not None and torch.finfo(self.model.layer.weight.dtype).eps > torch.finfo(dtype).eps:
            dtype = self.model.layer.weight.dtype
        return Precision(dtype, tf32=dtype == torch.float32 and self.tf32)

    @property
    def rounding_excess(self) -> float:
        """Excess losses below this are rounding of residuals in that arithmetic."""
        return self.precision.product_eps**2 * self.spectrum.magnitude(self.start_matrix)

    def excess_floor(self, precision: Precision, lr: float) -> float:
        """Predict the lowest excess loss that gradient steps from the user's start reach in such arithmetic."""
        return excess_floor(self.spectrum, self.start_matrix, precision, lr)
