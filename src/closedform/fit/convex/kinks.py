"""From rows and a criterion with kinks to certified weights: each output by itself, on all rows in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from closedform.engine.threads import one_thread
from closedform.fit.convex.certificate import GAP_TOLERANCE, GapCertificate
from closedform.fit.convex.coordinates import Coordinates
from closedform.fit.convex.kinked import minimise_kinked
from closedform.fit.convex.kinked_rows import KinkedFit, KinkedRows
from closedform.fit.convex.passes import counted_rows
from closedform.fit.convex.plan import ConvexPlan, Stage, rounding_to
from closedform.fit.convex.request import ConvexRequest
from closedform.fit.convex.solution import ConvexSolution, face_note, own_notes
from closedform.fit.layers import check_range, round_to
from closedform.fit.request import check_ridge
from closedform.fit.weights import Weights
from closedform.losses import Kinked
from closedform.losses.kinked import OneKink
from closedform.losses.multi_margin import MultiMarginHinge
from closedform.rows import Design, Rows
from closedform.rows.columns import Columns
from closedform.words.errors import InputError
from closedform.words.numbers import plural
from closedform.words.outcome import Outcome

__all__ = ["kinked_loss", "kinked_sums", "solve_kinked"]

#: Entries of the table of all pairs of a row's label and another class: 400 MB.
_MOST_PAIRS = 50_000_000
#: Part of what rounding moves an objective by (eight roundings) that centring the classes may add.
_RECENTRED = 0.5
#: How far below all outputs, in parts of the largest, a class without rows is put beyond its margin.
_WELL_BELOW = 2.0**-10


@final
@dataclass(frozen=True, eq=False)
class _Gathered:
    """All rows of positive weight."""

    criterion: Kinked
    outputs: int
    X: Tensor
    T: Tensor
    weight: Tensor

    @staticmethod
    def of(rows: Rows, criterion: Kinked, outputs: int | None) -> _Gathered:
        X, Y, weight, numbers = counted_rows(rows.gather())
        outputs = criterion.n_outputs(Y) if outputs is None else outputs
        criterion.check(Y, numbers, outputs)
        return _Gathered(criterion, outputs, X, Y, weight)

    def divisor(self) -> float:
        """Return what the reduction divides the sum of row losses by."""
        each = 1 if self.criterion.coupled else self.T.shape[1]
        return float(self.weight.sum()) * each if self.criterion.averages else 1.0

    def losses(self, weights: Weights) -> Tensor:
        """Return the loss of each row, times its weight, ``(rows,)``."""
        Z = torch.nn.functional.linear(self.X, weights.weight, weights.bias)
        return self.weight * self.criterion.losses(Z, self.T)


def kinked_loss(rows: Rows, criterion: Kinked, *weights: Weights) -> tuple[list[Tensor], float]:
    """Return the losses of the rows at some weights, and what the criterion's reduction divides their sum by.

    Args:
        rows: The rows.
        criterion: The criterion.
        *weights: Weights of a layer.
    """
    gathered = _Gathered.of(rows, criterion, weights[0].weight.shape[0] if weights else None)
    return [gathered.losses(each) for each in weights], gathered.divisor()


def kinked_sums(rows: Rows, criterion: Kinked, weights: Weights) -> tuple[float, float, float]:
    """Return the sum of the row losses, what its reduction divides that by, and how far it hangs on the last digits.

    The last is the sum of the sizes of slopes times outputs.

    Args:
        rows: The rows.
        criterion: The criterion.
        weights: Weights of a layer.
    """
    gathered = _Gathered.of(rows, criterion, weights.weight.shape[0])
    Z = torch.nn.functional.linear(gathered.X, weights.weight, weights.bias)
    slopes = criterion.steepness(gathered.T, Z.shape[1])
    losses, reach = criterion.losses(Z, gathered.T), (slopes * Z.abs()).sum(1)
    return float(gathered.weight @ losses), gathered.divisor(), float(gathered.weight @ reach)


def solve_kinked(design: Design, criterion: Kinked, request: ConvexRequest) -> ConvexSolution:
    """Minimise a criterion with kinks and prove it.

    Args:
        design: The rows, scanned.
        criterion: The criterion.
        request: What is asked.

    Raises:
        InputError: targets that the criterion is not defined for, another number of them than of outputs, or a
            minimiser beyond the range of float64.
    """
    rows, columns = design.rows, design.columns
    gathered = _Gathered.of(rows, criterion, request.outputs if criterion.coupled else None)
    k = gathered.outputs
    if request.outputs not in (None, k):
        raise InputError(f"the layer has {plural(request.outputs or 0, 'output')}, but Y has {plural(k, 'column')}.")
    strengths = check_ridge(request.l2, k)
    A = columns.unweighted(gathered.X)

    solve = _solve_pairs if isinstance(criterion, MultiMarginHinge) else _solve_outputs
    # Threads that wait for each other make factorizations of a few hundred columns slower, on a busy machine by far.
    with one_thread(min(A.shape), A.device):
        theta, fits, moved = solve(gathered, A, columns, strengths)
    weights = Weights.from_stacked(theta * columns.scale.unsqueeze(1), bias=columns.bias)
    check_range(theta, weights.weight, weights.bias)
    certificate = _certificate(fits, gathered.divisor(), moved)
    outcome = Outcome.NOT_CERTIFIED
    notes = own_notes(rows, criterion)
    if criterion.coupled:
        notes.append("a shift of all classes changes no loss; the centred weights are returned")
    if certificate.accepted:
        outcome = Outcome.CERTIFIED_NOT_UNIQUE if certificate.flat_directions else Outcome.CERTIFIED
    if certificate.flat_directions:
        notes.append(face_note(certificate.flat_directions))
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
        single_target=rows.single_target and not criterion.coupled,
        plan=ConvexPlan.of([*(Stage("active rows", fit.how, fit.steps) for fit in fits), *rounding_to(dtype)]),
        on_face=any(fit.face for fit in fits),
        sharp=any(fit.unique and math.isfinite(fit.condition) for fit in fits),
    )


def _solve_outputs(
    gathered: _Gathered, A: Tensor, columns: Columns, strengths: list[float]
) -> tuple[Tensor, list[KinkedFit], float]:
    """Return coefficients ``(columns, outputs)``, the fit of each output, and what rounding moves the objective by."""
    criterion = gathered.criterion
    assert isinstance(criterion, OneKink)
    kinks, above, below = criterion.pieces(gathered.T)
    above, below = above * gathered.weight.unsqueeze(1), below * gathered.weight.unsqueeze(1)
    free = columns.scale.square()
    if columns.bias:
        free[0] = 0
    problems = [
        KinkedRows(A, kinks[:, j], above[:, j], below[:, j], _penalty(s, free)) for j, s in enumerate(strengths)
    ]
    # Outputs share the coordinates of the rows, one for those with a ridge and one for those without.
    shared = {
        ridge: Coordinates.of(A, columns.scale, bias=int(columns.bias), ridge=ridge)
        for ridge in {strength > 0 for strength in strengths}
    }

    fits = [minimise_kinked(problem, shared[s > 0], s) for problem, s in zip(problems, strengths, strict=True)]
    moved = sum(problem.moved(fit.v) for problem, fit in zip(problems, fits, strict=True))
    return torch.stack([fit.v for fit in fits], 1), fits, moved


def _penalty(strength: float, free: Tensor) -> Tensor:
    """Return a ridge by squared scales, which may leave the range of float64: no strength is none all the same."""
    return strength * free if strength else torch.zeros_like(free)


def _solve_pairs(
    gathered: _Gathered, A: Tensor, columns: Columns, strengths: list[float]
) -> tuple[Tensor, list[KinkedFit], float]:
    """Return the same for classes: each pair of a row's label and another class is a row with a kink.

    Raises:
        InputError: other strengths for other classes, or more pairs than fit into memory.
    """
    criterion, k = gathered.criterion, gathered.outputs
    assert isinstance(criterion, MultiMarginHinge)
    if len(set(strengths)) > 1:
        raise InputError(f"{criterion.name} couples the classes, so that l2 must be one number.")
    own, each = gathered.T[:, 0].to(torch.int64), criterion.factors(gathered.T, k) * gathered.weight
    used = each.new_zeros(k).scatter_add(0, own, each) > 0
    if not columns.bias or bool(used.all()) or int(used.sum()) < 2:
        theta, fit, moved = _solved_pairs(criterion.margin, A, own, each, columns, strengths[0], k)
        return theta, [fit], moved

    # A class that no row counts for can have a bias so low that it costs nothing, whatever the other classes are.
    counted, number = each > 0, used.cumsum(0) - 1
    A, own, each = A[counted], own[counted], each[counted]
    found, fit, moved = _solved_pairs(criterion.margin, A, number[own], each, columns, strengths[0], int(used.sum()))
    theta = A.new_zeros(A.shape[1], k)
    theta[:, used] = found
    Z = (A @ theta).gather(1, own.unsqueeze(1))
    theta[0, ~used] = (Z.min() - 2 * criterion.margin - _WELL_BELOW * Z.abs().max()) / columns.scale[0]
    theta[0] -= theta[0].mean()
    level = int((~used).sum()) * (1 if strengths[0] else A.shape[1])
    gap = fit.gap + _RECENTRED * moved
    return theta, [replace(fit, gap=gap, flat=fit.flat + level, unique=False, face=True)], moved


def _solved_pairs(
    margin: float, A: Tensor, own: Tensor, each: Tensor, columns: Columns, strength: float, k: int
) -> tuple[Tensor, KinkedFit, float]:
    """Return the coefficients of k classes, their fit, and what rounding moves the objective by.

    A shift of all classes changes no loss, so that the class with most rows has no bias, and without a ridge no
    weights. Of those with a ridge the centred ones are the smallest.

    Args:
        margin: By which the output of a label is to be above that of another class.
        A: ``(rows, columns)``.
        own: Labels, ``(rows,)``.
        each: Slope of each pair of a row, ``(rows,)``.
        columns: The design matrix.
        strength: Ridge strength.
        k: How many classes there are.

    Raises:
        InputError: more pairs than fit into memory.
    """
    bias = int(columns.bias)
    order = torch.bincount(own, minlength=k).argsort()
    kept, n_features = k if strength else k - 1, A.shape[1] - bias
    entries = A.shape[0] * (k - 1) * (bias * (k - 1) + n_features * kept)
    if entries > _MOST_PAIRS:
        raise InputError(
            f"MultiMarginLoss(p=1) of {plural(A.shape[0], 'row')} and {k} classes has {entries:.1e} numbers in its "
            f"pairs of classes, more than {_MOST_PAIRS:.0e}; the nearest that takes them is MultiMarginLoss(p=2), or "
            "HingeLoss() on -1 and 1 for each class."
        )

    apart = torch.eye(k, dtype=A.dtype, device=A.device).expand(A.shape[0], k, k) - torch.nn.functional.one_hot(
        own, k
    ).to(A.dtype).unsqueeze(1)
    others = torch.ones_like(apart[:, 0]).scatter(1, own.unsqueeze(1), 0.0).bool()
    D = apart[others].reshape(A.shape[0], k - 1, k)[:, :, order]
    features = (D[:, :, :kept, None] * A[:, None, None, bias:]).reshape(A.shape[0] * (k - 1), -1)
    shifts = (D[:, :, : k - 1] * columns.scale[0]).reshape(A.shape[0] * (k - 1), -1)[:, : bias * (k - 1)]
    P = torch.cat([shifts, features], 1)

    free = columns.feature_scale.square().expand(n_features).repeat(kept)
    penalty = torch.cat([free.new_zeros(shifts.shape[1]), _penalty(strength, free)])
    units = torch.cat([columns.scale[:1].repeat(shifts.shape[1]), columns.feature_scale.repeat(kept)])
    slopes = each.repeat_interleave(k - 1)
    pairs = KinkedRows(P, torch.full_like(slopes, -margin), torch.zeros_like(slopes), slopes, penalty)
    # A shift of all classes, along which singular values are rounding, is no direction to look along.
    rank = n_features * (k - 1)
    coordinates = Coordinates.of(P, units, bias=shifts.shape[1], ridge=strength > 0, most=rank)
    fit = minimise_kinked(pairs, coordinates, strength)

    theta = A.new_zeros(A.shape[1], k)
    theta[bias:, order[:kept]] = fit.v[shifts.shape[1] :].reshape(kept, n_features).T
    if bias:
        theta[0, order[: k - 1]] = fit.v[: shifts.shape[1]]
    theta = theta - theta.mean(1, keepdim=True)
    moved = pairs.moved(fit.v)
    # The weights are differences from the mean of those that the gap is of: once more rounded.
    return theta, replace(fit, gap=fit.gap + _RECENTRED * moved), moved


def _certificate(fits: list[KinkedFit], divisor: float, moved: float) -> GapCertificate:
    gap = sum(fit.gap for fit in fits)
    objective = sum(fit.objective for fit in fits)
    # No float64 weights go below what their own rounding adds: an exact fit leaves nothing else to be relative to.
    size = max(abs(objective), moved / GAP_TOLERANCE)

    relative = gap / size if size else gap
    accepted = relative <= GAP_TOLERANCE
    reasons = [fit.reason for fit in fits if fit.reason]
    reason = reasons[0] if reasons else "the duality gap"
    if moved > GAP_TOLERANCE * abs(objective) and gap:
        reason += f"; rounding the weights to float64 moves the objective by up to {moved:.1e}"
    return GapCertificate(
        accepted=accepted,
        gap=gap,
        relative_gap=relative,
        tolerance=GAP_TOLERANCE,
        excess_loss=gap / divisor,
        loss=sum(fit.loss for fit in fits) / divisor,
        objective=objective,
        gradient_norm=math.nan,
        condition=max(fit.condition for fit in fits),
        flat_directions=sum(fit.flat for fit in fits),
        unique=accepted and all(fit.unique for fit in fits),
        reason=reason,
    )
