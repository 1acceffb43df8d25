"""Everything that findings are made from, measured once and on first use."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from closedform.diagnose.partial import partial_spectrum
from closedform.diagnose.setting import CriterionFacts, ModelFacts, OptimizerFacts
from closedform.forecast import Forecast, Limit, MiniBatch, first_order_limits, forecast, mini_batch
from closedform.rehearse import Rehearsal, rehearse
from closedform.rows import Rows
from closedform.spectrum import Compressed, Spectrum, compress, singular_values_scaled, spectrum_of

__all__ = ["PATIENCE", "SAFETY", "Facts"]

#: Steps that count as given where the user names none: any of the optimizers makes them in a minute or so.
PATIENCE = 100_000
#: Share of the largest stable learning rate that is taken as the best of plain gradient descent.
SAFETY = 0.9
# A rehearsal inside a diagnosis may take about this long; measured costs of a step and of a product, on one core.
# A share of the excess loss that rounding of the bias may hide.
_ROUNDING = 1e-10
_SECONDS, _STEP, _FLOP = 0.5, 2.5e-4, 2e-10


@dataclass(frozen=True)
class Facts:
    """A fit, the user's setting around it, and what follows from both.

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
        return f"{self.patience:,} steps" + ("" if self.steps is not None else " (none were given)")

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
    def reaches_goal(self) -> bool | None:
        """Whether the user's run comes to the goal in its steps; None where that is not known."""
        if self.start_excess <= self.goal_excess:
            return True
        if self.batches is not None:
            return self.batches.steps_to(self.goal_excess) <= self.patience
        if self.run is not None:
            return self.run_steps <= self.patience
        if self.rehearsal is not None:
            reached = float(self.rehearsed_excess[-1]) <= self.goal_excess
            return reached if reached or self.rehearsed_in_full else None
        return None

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
        s, r = self.spectrum, self.spectrum.rank
        gap = s.singular_values[:r].unsqueeze(1) * (s.directions[:r] @ self.start_matrix) - s.target_components[:r]
        return gap.square().sum(1) / (s.n_rows * s.n_targets)

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
    def run(self) -> Forecast | None:
        """The user's own full-batch SGD run, where it has a closed form."""
        o = self.optimizer
        if o is None or o.kind != "sgd" or not o.uniform or o.frozen or not self.squared or not o.lr > 0:
            return None
        if self.bias and o.weight_decay != o.bias_decay:
            return None
        return self.forecast(
            lr=o.lr * self.loss_factor,
            momentum=o.momentum,
            nesterov=o.nesterov,
            weight_decay=o.weight_decay / self.loss_factor,
            steps=self.patience,
        )

    @cached_property
    def run_steps(self) -> float:
        """Steps of the user's SGD run to the goal; nan where it has no closed form."""
        return math.nan if self.run is None else self.run.steps_to(self.goal_excess)

    @cached_property
    def best_steps(self) -> float:
        """Steps of plain gradient descent to the goal at its best."""
        return self.best_descent.steps_to(self.goal_excess)

    @cached_property
    def best_descent(self) -> Forecast:
        """Plain gradient descent at a safe share of the largest stable learning rate."""
        limit = self.spectrum.learning_rate_limit
        return self.forecast(lr=SAFETY * limit if math.isfinite(limit) else 1.0, steps=self.patience)

    def forecast(self, *, lr: float, steps: Any, momentum: float = 0.0, **options: Any) -> Forecast:
        """Forecast a run from the user's start; see :func:`closedform.forecast.forecast`."""
        name = "momentum" if momentum else "sgd"
        return forecast(self.spectrum, name, lr=lr, momentum=momentum, steps=steps, start=self.start, **options)

    @cached_property
    def batches(self) -> MiniBatch | None:
        """The user's mini-batch run, in expectation."""
        o = self.optimizer
        if (
            self.full_batch
            or self.batch_size is None
            or o is None
            or o.kind != "sgd"
            or not self.squared
            or not o.lr > 0
        ):
            return None
        # A loss that sums grows with the batch, not with the table.
        summed = self.loss_factor >= self.rows.n_rows
        factor = self.loss_factor * (self.batch_size / self.rows.n_rows if summed else 1.0)
        return self.mini_batch(o.lr * factor / (1 - min(o.momentum, 0.999999)), self.batch_size)

    def mini_batch(self, lr: float, size: int) -> MiniBatch:
        return mini_batch(self.spectrum, lr=lr, batch_size=size, start=self.start, row_count=self.rows.n_rows)

    @cached_property
    def limits(self) -> tuple[Limit, ...]:
        zero = self.spectrum.excess_at_zero
        goal = self.goal_excess / zero if zero > 0 else self.goal
        return first_order_limits(self.spectrum, goal, self.start)

    @cached_property
    def conditions(self) -> dict[str, float]:
        """Condition numbers of the matrix as it is, centred, with its columns scaled, and both."""
        c, s = self.compressed, self.spectrum
        if c is None:
            return {"as it is": s.condition}
        scaled = singular_values_scaled(c.R)
        centred = torch.linalg.svdvals(c.centred)
        both = _unit_values(c.centred)
        if c.bias:
            # The ones stand apart from centred features, as a singular value of their own.
            centred = torch.cat([centred[: s.rank - 1], centred.new_tensor([math.sqrt(c.n_rows)])])
            both = torch.cat([both[: s.rank - 1], both.new_tensor([1.0])])
        else:
            # Centring takes one direction away; that it may be the smallest is no merit of centring.
            centred = torch.cat([centred[: s.rank - 1], s.singular_values[s.rank - 1 : s.rank]])
            both = torch.cat([both[: s.rank - 1], _unit_values(c.R)[s.rank - 1 : s.rank]])
        return {
            "as it is": s.condition,
            "centred": _ratio(centred),
            "columns scaled": _ratio(scaled[: s.rank]),
            "centred and scaled": _ratio(both),
        }

    @cached_property
    def standardised(self) -> Spectrum | None:
        """The spectrum after dividing the columns by their size; with a bias, after subtracting their means first."""
        c = self.compressed
        if c is None or self.l2 > 0:
            return None
        R = c.R.clone()
        if c.bias:
            R[0, 1:] = 0.0
        sizes = torch.linalg.vector_norm(R, dim=0) / math.sqrt(c.n_rows)
        return spectrum_of(replace(c, R=R / torch.where(sizes > 0, sizes, 1.0)))

    @cached_property
    def rehearsal(self) -> Rehearsal | None:
        """The user's own optimizer on the triangle, from the model's weights, for as many steps as are cheap."""
        o, c = self.optimizer, self.compressed
        if o is None or c is None or o.kind == "other" or o.frozen or not (self.squared and self.full_batch):
            return None
        weight, bias = self.start
        p, k = c.n_columns, c.n_targets
        cost = (_STEP + 6 * p * p * k * _FLOP) * (20 if o.kind == "lbfgs" else 1)
        steps = min(self.patience, max(10, int(_SECONDS / cost)))
        if o.kind == "lbfgs" and self.steps is None:
            steps = min(steps, 20)
        return rehearse(c, _same_optimizer(o), steps=steps, weight=weight, bias=bias, factor=self.loss_factor)

    @property
    def rehearsed_in_full(self) -> bool:
        """Whether the rehearsal covers all steps that the run has."""
        return self.rehearsal is not None and self.steps is not None and int(self.rehearsal.steps[-1]) >= self.steps

    @cached_property
    def rehearsed_excess(self) -> Tensor:
        """Excess losses of the rehearsal, ``(points,)``; rounding of the loss is taken for zero."""
        if self.rehearsal is None:
            return torch.empty(0, dtype=torch.float64)
        excess = torch.nan_to_num(self.rehearsal.loss, nan=math.inf, posinf=math.inf) - self.spectrum.optimal_loss
        return excess.clamp(min=0.0)

    @cached_property
    def precision(self) -> tuple[torch.dtype, float]:
        """The dtype that is trained in, and its eps; TF32's where a GPU would use it."""
        dtype = self.rows.dtype
        if self.model is not None and torch.finfo(self.model.layer.weight.dtype).eps > torch.finfo(dtype).eps:
            dtype = self.model.layer.weight.dtype
        eps = float(torch.finfo(dtype).eps)
        if dtype == torch.float32 and self.rows.device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32:
            eps = 2.0**-10
        return dtype, eps

    def precision_floor(self, eps: float, lr: float) -> float:
        """Predict the lowest excess loss that gradient steps reach in arithmetic with this eps.

        Two things end it: residuals are known to eps of what is added up in them, and a weight no longer changes where
        ``lr * gradient`` is below half its last digit; the latter is amplified in directions of small eigenvalue.
        """
        s, r = self.spectrum, self.spectrum.rank
        if r == 0:
            return 0.0
        residual = eps**2 * s.magnitude(self.start_matrix)
        lost = eps / (2 * lr) * (s.directions[:r].square() @ s.minimiser.square()).sum(1).sqrt()
        stalled = torch.minimum(lost.square() / (2 * s.eigenvalues[:r]), self.start_gaps)
        return residual + float(stalled.sum())


def _same_optimizer(facts: OptimizerFacts) -> Callable[[list[nn.Parameter]], torch.optim.Optimizer]:
    """Make the user's optimizer again over other parameters, with its settings and a copy of its state."""

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        groups = facts.optimizer.param_groups
        held = [p for group in groups for p in group["params"]]
        # The layer's weight is the two-dimensional one; groups keep their own settings.
        match = {id(p): parameters[0] if p.ndim == 2 else parameters[-1] for p in held}
        twin = type(facts.optimizer)(
            [{"params": [match[id(p)] for p in group["params"]]} for group in groups], **facts.optimizer.defaults
        )
        # A deep copy: loading hands out the user's own tensors otherwise.
        state = copy.deepcopy(facts.optimizer.state_dict())
        for group in state["param_groups"]:
            group.update({"foreach": False, "fused": None} if "foreach" in group else {})
        twin.load_state_dict(state)
        return twin

    return make


def _unit_values(R: Tensor) -> Tensor:
    norms = torch.linalg.vector_norm(R, dim=0)
    return torch.linalg.svdvals(R / torch.where(norms > 0, norms, 1.0))


def _ratio(values: Tensor) -> float:
    positive = values[values > 0]
    return float(positive.max() / positive.min()) if positive.numel() else 1.0
