"""Exact minimisers of losses with kinks: smoothed less and less, until the rows on their kinks give the answer."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from closedform.fit.convex.coordinates import Coordinates
from closedform.fit.convex.finish import finished, interpolated
from closedform.fit.convex.interior import interior_point
from closedform.fit.convex.kinked_rows import KinkedFit, KinkedRows
from closedform.fit.convex.problem import BEYOND_RANGE
from closedform.numerics.scaling import unit_of
from closedform.words.errors import InputError

__all__ = ["MOST_STEPS", "minimise_kinked", "minimise_rounded", "smoothed"]

#: By what each smoothing is narrower than the one before.
_NARROWER = 0.2
#: Smoothings at most; each takes a few Newton steps.
_MOST_LEVELS = 40
#: Times that a first smoothing may be made wider, each by a factor of 125.
_MOST_WIDER = 6
#: Newton steps within one smoothing.
MOST_STEPS = 40
#: Evaluations of the slope along one step, which can be 1e20 times too long where no row is within the width.
_MOST_TRIALS = 200
#: Part of the slope at its start that the end of a step may have.
_FLAT = 0.1
#: Gradient, relative to what its terms could sum to, at which a smoothing is solved.
_SOLVED = 1e-11
#: Shift of a singular Hessian, in parts of what as many rows as columns would add. It bends steps and no minimum.
_SHIFT = 1e-2
#: Squared ratio of the diagonal of a Cholesky factor below which a Hessian is taken for singular.
_SINGULAR = 1e-9
#: Rows within the width, in multiples of the columns, from which it is too wide to finish, unless little is left of it.
_CROWD = 8
#: Relative gap at which no narrower smoothing is tried.
_CLOSED = 1e-12
#: Gap, in parts of what the rounding of the weights moves the objective by, at which the same holds.
_CLOSED_OF_ROUNDING = 0.5
#: Smoothings that rounding keeps from their minimum after which no narrower one is tried.
_IDLE = 4
#: Residuals of least squares, relative to the kinks, from which an exact fit is looked for.
_NEARLY_EXACT = 1e-6
#: Coordinates up to which an interior point method is tried where smoothing did not end: each step factors a Hessian.
_MOST_INTERIOR = 400
_EPS = torch.finfo(torch.float64).eps


def minimise_kinked(rows: KinkedRows, coordinates: Coordinates, strength: float) -> KinkedFit:
    """Minimise by Newton's method on smoothed losses (Madsen and Nielsen 1993), finished exactly.

    Each kink is rounded within a width that shrinks. The slopes of a smoothed minimum are a feasible point of the dual
    of the problem itself. Once the rows within the width are those on their kinks at a minimiser, they determine it: it
    is solved for, and the dual point says that it is one, by a gap that is zero up to rounding. Where least squares
    puts every row on its kink, nothing is smoothed: no loss is below zero. Where smoothing loses its way, as beside a
    ridge that hardly counts, an interior point method finds the rows. Units of kinks and of slopes decide nothing: both
    are made about 1, by powers of two.

    Args:
        rows: What is minimised.
        coordinates: Of these rows, in which it is.
        strength: Ridge strength.

    Raises:
        InputError: numbers on the way, or the minimiser, are beyond the range of float64.
    """
    unit, heavy = unit_of(rows.t), unit_of(torch.maximum(rows.above, rows.below))
    ratio, worth = unit / heavy, unit * heavy
    penalty = (rows.penalty * ratio).masked_fill(rows.penalty == 0, 0.0)
    alike = KinkedRows(rows.A, rows.t / unit, rows.above / heavy, rows.below / heavy, penalty)
    fit = _minimised(alike, coordinates, strength * ratio if strength else 0.0)
    v, objective = unit * fit.v, worth * fit.objective
    if not bool(torch.isfinite(v).all()) or not math.isfinite(objective):
        raise InputError(BEYOND_RANGE)
    return replace(fit, v=v, gap=worth * fit.gap, loss=worth * fit.loss, objective=objective, dual=heavy * fit.dual)


def _minimised(rows: KinkedRows, coordinates: Coordinates, strength: float) -> KinkedFit:
    """Return the same for kinks and slopes of about 1."""
    small = KinkedRows(coordinates.U, rows.t, rows.above, rows.below, strength * coordinates.penalised)
    w = _least_squares_start(small)
    r = small.t - small.A @ w
    if float(r.norm()) <= _NEARLY_EXACT * float(small.t.norm()) or small.A.shape[0] <= small.A.shape[1]:
        exact = interpolated(rows, coordinates)
        if exact is not None:
            return replace(exact, how="least squares, which puts every row on its kink")

    width = float(r.abs().median()) / max(float((rows.above + rows.below).mean()), _EPS)
    width = width or float(r.abs().max()) or 1.0

    w, r, width, steps = _first_smoothed(small, w, r, width)
    best, last, idle = None, -1, 0
    for _ in range(_MOST_LEVELS):
        w, r, taken = smoothed(small, w, r, width)
        steps += taken
        crowd = int(((r < rows.above * width) & (r > -rows.below * width)).sum())
        if crowd <= _CROWD * small.A.shape[1] or crowd == last:
            stuck = taken == MOST_STEPS
            found = finished(rows, small, coordinates, small.within(w, width), steps, exchanging=stuck)
            idle += stuck
            best = found if best is None or found.gap < best.gap else best
        last = crowd
        if best is not None and (idle >= _IDLE or best.gap <= _closed(rows, best)):
            break
        width *= _NARROWER
        if width * float((rows.above + rows.below).max()) < float(small.rounding(w).min()):
            break
    if best is None or best.gap > _closed(rows, best):
        found = finished(rows, small, coordinates, small.within(w, width), steps, exchanging=True)
        best = found if best is None or found.gap < best.gap else best
    how = "kinks rounded within ever smaller widths, then the rows on them solved for"
    if best.gap > _closed(rows, best) and small.A.shape[1] <= _MOST_INTERIOR:
        near, taken = interior_point(small)
        found = finished(rows, small, coordinates, near, steps + taken, exchanging=True)
        best, how = found if found.gap < best.gap else best, f"{how}; an interior point method for what that left"
    return replace(best, how=how)


def _first_smoothed(rows: KinkedRows, w: Tensor, r: Tensor, width: float) -> tuple[Tensor, Tensor, float, int]:
    """Minimise for a width that the steps of one smoothing are enough for; return it and all steps taken as well.

    Where least squares nearly meets every row its residuals say nothing of how far those of a minimiser are.
    """
    steps = 0
    for _ in range(_MOST_WIDER):
        found, left, taken = smoothed(rows, w, r, width)
        steps += taken
        if taken < MOST_STEPS:
            return found, left, width, steps
        width /= _NARROWER**3
    return w, r, width, steps


def minimise_rounded(rows: KinkedRows, width: float) -> Tensor:
    """Return coefficients at the minimum of a loss whose kinks are rounded within a width, by way of wider ones.

    Args:
        rows: What is minimised, in coordinates that are well conditioned.
        width: That width.
    """
    w = _least_squares_start(rows)
    r = rows.t - rows.A @ w
    # From a width on that holds every row, where it is least squares.
    ratio = float((r.abs() / (rows.above * width).clamp_min(torch.finfo(r.dtype).tiny)).max())
    levels = 0 if ratio <= 1 else min(_MOST_LEVELS, math.ceil(math.log(ratio) / -math.log(_NARROWER)))
    for level in range(levels, -1, -1):
        w, r, _ = smoothed(rows, w, r, width * _NARROWER**-level)
    return w


def _closed(rows: KinkedRows, fit: KinkedFit) -> float:
    """Return the gap that a narrower smoothing would not make smaller."""
    return max(_CLOSED * abs(fit.objective), _CLOSED_OF_ROUNDING * rows.moved(fit.v))


def _least_squares_start(rows: KinkedRows) -> Tensor:
    weight = rows.above + rows.below
    H = rows.A.T @ (rows.A * weight.unsqueeze(1)) + torch.diag(rows.penalty)
    return _solve(H, rows.A.T @ (weight * rows.t), float(H.diagonal().mean()) / rows.A.shape[0])


def _solve(H: Tensor, g: Tensor, usual: float) -> Tensor:
    """Solve with a semidefinite matrix, shifted where it is singular: the direction of a step need not be exact."""
    _check_range(H)
    shift = 0.0
    while True:
        factor, broken = torch.linalg.cholesky_ex(H + shift * torch.eye(H.shape[0], dtype=H.dtype, device=H.device))
        size = factor.diagonal().abs()
        if not int(broken) and (shift or float(size.amin() ** 2) > _SINGULAR * float(size.amax() ** 2)):
            return torch.cholesky_solve(g.unsqueeze(1), factor).squeeze(1)
        shift = max(_SHIFT * usual, 10 * shift) or 1.0


def _check_range(H: Tensor) -> None:
    """Refuse what no shift mends.

    Raises:
        InputError: a number is not finite.
    """
    if not bool(torch.isfinite(H).all()):
        raise InputError(BEYOND_RANGE)


def _direction(H: Tensor, g: Tensor, usual: float) -> Tensor:
    """Return a Newton direction; while too few rows bend the loss, the way down where none of them does."""
    # In units in which every coordinate bends the loss alike, as far as it does.
    units = H.diagonal().sqrt()
    units = torch.where(units > 0, units, math.sqrt(usual))
    H, g = H / units / units.unsqueeze(1), g / units
    _check_range(H)
    values, vectors = torch.linalg.eigh(H)
    straight = values <= _SINGULAR * values[-1].clamp_min(1.0)
    if bool(straight.any()):
        open_part = vectors[:, straight] @ (vectors[:, straight].T @ g)
        if float(open_part.norm()) > _SOLVED * float(g.norm()):
            return open_part / units
    return _solve(H, g, 1.0) / units


def smoothed(rows: KinkedRows, v: Tensor, r: Tensor, width: float) -> tuple[Tensor, Tensor, int]:
    """Minimise the objective whose kinks are rounded; return coefficients, residuals and Newton steps.

    Args:
        rows: What is minimised, in coordinates that are well conditioned.
        v: Coefficients to start from.
        r: Residuals there.
        width: Within which the kinks are rounded, for a slope of 1.
    """
    size = float((rows.above + rows.below).square().sum().sqrt())
    usual = float(rows.A.square().sum()) / rows.A.shape[0]
    for step in range(MOST_STEPS):
        u = rows.dual(r, width)
        g = rows.penalty * v - rows.A.T @ u
        if float(g.norm()) <= _SOLVED * size:
            return v, r, step
        inside = (r < rows.above * width) & (r > -rows.below * width)
        E = rows.A[inside]
        D = _direction(E.T @ E / width + torch.diag(rows.penalty), -g, usual / width)
        q = rows.A @ D

        length = _along(rows, v, D, r, q, width)
        if length == 0:
            return v, r, step
        v = v + length * D
        r = rows.t - rows.A @ v
    return v, r, MOST_STEPS


def _along(rows: KinkedRows, v: Tensor, D: Tensor, r: Tensor, q: Tensor, width: float) -> float:
    """Return a length at which the objective, smooth and convex along the step, hardly has a slope left."""

    def slope(length: float) -> float:
        bent = float((rows.penalty * (v + length * D) * D).sum())
        return bent - float((rows.dual(r - length * q, width) * q).sum())

    start = slope(0.0)
    if not start < 0:
        return 0.0
    low, high, length = 0.0, math.inf, 1.0
    for _ in range(_MOST_TRIALS):
        now = slope(length)
        if abs(now) <= _FLAT * -start:
            return length
        if now < 0:
            low = length
            length = 2 * length if math.isinf(high) else 0.5 * (low + high)
        else:
            high = length
            length = 0.5 * (low + high)
    return low
