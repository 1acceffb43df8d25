"""From rows and a criterion with kinks to certified weights: each output by itself, on all rows in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from closedform.engine.threads import one_thread
from closedform.fit.convex.certificate import GAP_TOLERANCE, GapCertificate
from closedform.fit.convex.coordinates import Coordinates
from closedform.fit.convex.finish import KinkedFit, KinkedRows
from closedform.fit.convex.kinked import minimise_kinked
from closedform.fit.convex.request import ConvexRequest
from closedform.fit.convex.solution import ConvexSolution
from closedform.fit.layers import round_to
from closedform.fit.request import check_ridge
from closedform.fit.weights import Weights
from closedform.losses import Kinked
from closedform.rows import Design, Rows
from closedform.words.errors import InputError
from closedform.words.numbers import plural
from closedform.words.outcome import Outcome

__all__ = ["kinked_loss", "solve_kinked"]


@final
@dataclass(frozen=True, eq=False)
class _Gathered:
    """All rows of positive weight, with the kinks and slopes of each output."""

    X: Tensor
    kinks: Tensor
    above: Tensor
    below: Tensor
    weight: Tensor

    @staticmethod
    def of(rows: Rows, criterion: Kinked) -> _Gathered:
        block = rows.gather()
        X, Y, weight = block.X, block.Y, block.weight
        numbers = torch.arange(X.shape[0], device=X.device)
        if weight is not None:
            counted = weight > 0
            X, Y, numbers, weight = X[counted], Y[counted], numbers[counted], weight[counted]
        criterion.check(Y, numbers)
        kinks, above, below = criterion.pieces(Y)
        ones = X.new_ones(X.shape[0]) if weight is None else weight
        return _Gathered(X, kinks, above * ones.unsqueeze(1), below * ones.unsqueeze(1), ones)

    def divisor(self, criterion: Kinked) -> float:
        """Return what the reduction divides the sum of row losses by."""
        return float(self.weight.sum()) * self.kinks.shape[1] if criterion.averages else 1.0

    def losses(self, weights: Weights) -> Tensor:
        """Return the loss of each row, ``(rows,)``."""
        r = self.kinks - torch.nn.functional.linear(self.X, weights.weight, weights.bias)
        return (self.above * r.clamp_min(0) + self.below * (-r).clamp_min(0)).sum(1)


def kinked_loss(rows: Rows, criterion: Kinked, *weights: Weights) -> tuple[list[Tensor], float]:
    """Return the losses of the rows at some weights, and what the criterion's reduction divides their sum by.

    Args:
        rows: The rows.
        criterion: The criterion.
        *weights: Weights of a layer.
    """
    gathered = _Gathered.of(rows, criterion)
    return [gathered.losses(each) for each in weights], gathered.divisor(criterion)


def solve_kinked(design: Design, criterion: Kinked, request: ConvexRequest) -> ConvexSolution:
    """Minimise a criterion with kinks and prove it.

    Args:
        design: The rows, scanned.
        criterion: The criterion.
        request: What is asked.

    Raises:
        InputError: targets that the criterion is not defined for, or another number of them than of outputs.
    """
    rows, columns = design.rows, design.columns
    k = rows.n_targets
    if request.outputs not in (None, k):
        raise InputError(f"the layer has {plural(request.outputs or 0, 'output')}, but Y has {plural(k, 'column')}.")
    strengths = check_ridge(request.l2, k)
    gathered = _Gathered.of(rows, criterion)
    A = gathered.X * columns.feature_scale
    if columns.bias:
        A = torch.cat([A.new_full((A.shape[0], 1), float(columns.scale[0])), A], 1)
    free = columns.scale.square()
    if columns.bias:
        free[0] = 0

    problems = [
        KinkedRows(A, gathered.kinks[:, j], gathered.above[:, j], gathered.below[:, j], strengths[j] * free)
        for j in range(k)
    ]
    # Threads that wait for each other make factorizations of a few hundred columns slower, on a busy machine by far.
    with one_thread(min(A.shape), A.device):
        # Outputs share the coordinates of the rows, one for those with a ridge and one for those without.
        shared = {
            ridge: Coordinates.of(A, columns.scale, bias=columns.bias, ridge=ridge)
            for ridge in {strength > 0 for strength in strengths}
        }
        fits = [minimise_kinked(problems[j], shared[strengths[j] > 0], strengths[j]) for j in range(k)]
    theta = torch.stack([fit.v for fit in fits], 1)
    weights = Weights.from_stacked(theta * columns.scale.unsqueeze(1), bias=columns.bias)
    moved = sum(problem.moved(fit.v) for problem, fit in zip(problems, fits, strict=True))
    certificate = _certificate(fits, gathered.divisor(criterion), moved)
    outcome = Outcome.NOT_CERTIFIED
    notes = list(rows.notes)
    if certificate.accepted:
        outcome = Outcome.CERTIFIED_NOT_UNIQUE if certificate.flat_directions else Outcome.CERTIFIED
    if certificate.flat_directions:
        notes.append(f"the minimum is a face: it stays level along {plural(certificate.flat_directions, 'direction')}")
    dtype = rows.dtype if request.dtype is None else request.dtype
    if dtype != torch.float64:
        notes.append(f"the weights were computed in float64 and rounded to {str(dtype).removeprefix('torch.')}")

    return ConvexSolution(
        weight=round_to(weights.weight, dtype),
        bias=None if weights.bias is None else weights.bias.to(dtype),
        criterion=criterion.name,
        certificate=certificate,
        outcome=outcome,
        direction=None,
        steps=sum(fit.steps for fit in fits),
        passes=1,
        notes=tuple(notes),
        seconds=0.0,
        single_target=rows.single_target,
    )


def _certificate(fits: list[KinkedFit], divisor: float, moved: float) -> GapCertificate:
    gap = sum(fit.gap for fit in fits)
    objective = sum(fit.objective for fit in fits)
    # No float64 weights go below what their own rounding adds: an exact fit leaves nothing else to be relative to.
    size = max(abs(objective), moved / GAP_TOLERANCE)

    relative = gap / size if size else gap
    reasons = [fit.reason for fit in fits if fit.reason]
    reason = reasons[0] if reasons else "the duality gap"
    if moved > GAP_TOLERANCE * abs(objective) and gap:
        reason += f"; rounding the weights to float64 moves the objective by up to {moved:.1e}"
    return GapCertificate(
        accepted=relative <= GAP_TOLERANCE,
        gap=gap,
        relative_gap=relative,
        tolerance=GAP_TOLERANCE,
        excess_loss=gap / divisor,
        loss=sum(fit.loss for fit in fits) / divisor,
        objective=objective,
        gradient_norm=math.nan,
        condition=max(fit.condition for fit in fits),
        flat_directions=sum(fit.flat for fit in fits),
        unique=all(fit.unique for fit in fits),
        reason=reason,
    )
