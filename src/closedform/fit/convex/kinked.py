"""Exact minimisers of losses with kinks: smoothed less and less, until the rows on their kinks give the answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from closedform.numerics.rank import default_rcond

__all__ = ["KinkedFit", "KinkedRows", "minimise_kinked"]

#: By what each smoothing is narrower than the one before.
_NARROWER = 0.2
#: Smoothings at most; each takes a few Newton steps.
_MOST_LEVELS = 40
#: Newton steps within one smoothing.
_MOST_STEPS = 40
#: Evaluations of the slope along one step.
_MOST_TRIALS = 60
#: Part of the slope at its start that the end of a step may have.
_FLAT = 0.1
#: Gradient, relative to what its terms could sum to, at which a smoothing is solved.
_SOLVED = 1e-11
#: Shift of a singular Hessian, in parts of what as many rows as columns would add. It bends steps and no minimum.
_SHIFT = 1e-2
#: Squared ratio of the diagonal of a Cholesky factor below which a Hessian is taken for singular.
_SINGULAR = 1e-9
#: Distance of a dual value from its bounds, relative to their distance, from which its row holds the minimiser.
_INSIDE = 1e-9
#: Rows on their kinks, beyond twice the columns, that are solved for together with the weights.
_FEW = 20
#: Rows within the width, in multiples of the columns, from which it is too wide to finish, unless little is left of it.
_CROWD = 8
#: Relative difference of objectives, and of residuals, that counts as none.
_LEVEL = 1e-12
#: Relative gap at which no narrower smoothing is tried.
_CLOSED = 1e-12
_EPS = torch.finfo(torch.float64).eps


@final
@dataclass(frozen=True, eq=False)
class KinkedRows:
    """One output: ``sum_i above_i max(t_i - a_i v, 0) + below_i max(a_i v - t_i, 0) + v' diag(penalty) v / 2``.

    Attributes:
        A: ``(rows, columns)``, columns of comparable norms.
        t: Kinks, ``(rows,)``.
        above: Slopes where the output is below its kink, times the weights of rows.
        below: The same on the other side.
        penalty: ``(columns,)``.
    """

    A: Tensor
    t: Tensor
    above: Tensor
    below: Tensor
    penalty: Tensor

    def loss(self, r: Tensor) -> Tensor:
        """Return the loss of each row, for residuals ``t - A v``."""
        return self.above * r.clamp_min(0) + self.below * (-r).clamp_min(0)

    def dual(self, r: Tensor, width: float) -> Tensor:
        """Return minus the slopes of the smoothed loss: a point within the bounds of the dual."""
        return torch.minimum(torch.maximum(r / width, -self.below), self.above)


@final
@dataclass(frozen=True, eq=False)
class KinkedFit:
    """The minimiser of one output, with what proves it.

    Attributes:
        v: Coefficients.
        gap: Proven bound on the excess; inf where there is none.
        objective: The objective.
        unique: Whether the minimiser is proven to be the only one.
        flat: Dimension of the directions that the rows on their kinks leave open.
        condition: Squared condition of the rows that hold the minimiser.
        steps: Newton steps.
        reason: Why nothing is proven, or an empty string.
    """

    v: Tensor
    gap: float
    objective: float
    unique: bool
    flat: int
    condition: float
    steps: int
    reason: str


def minimise_kinked(rows: KinkedRows) -> KinkedFit:
    """Minimise by Newton's method on smoothed losses (Madsen and Nielsen 1993), finished exactly.

    Each kink is rounded within a width that shrinks. The slopes of a smoothed minimum are a feasible point of the dual
    of the problem itself. Once the rows within the width are those on their kinks at a minimiser, they determine it: it
    is solved for, and the dual point says that it is one, by a gap that is zero up to rounding.

    Args:
        rows: What is minimised.
    """
    v = _least_squares_start(rows)
    r = rows.t - rows.A @ v
    width = float(r.abs().median()) / max(float((rows.above + rows.below).mean()), _EPS)
    width = width or float(r.abs().max()) or 1.0
    best, steps, last = None, 0, -1
    for _ in range(_MOST_LEVELS):
        v, r, taken = _smoothed(rows, v, r, width)
        steps += taken
        crowd = int(((r < rows.above * width) & (r > -rows.below * width)).sum())
        if crowd <= _CROWD * rows.A.shape[1] or crowd == last:
            found = _finished(rows, v, r, width, steps)
            best = found if best is None or found.gap < best.gap else best
        last = crowd
        if best is not None and best.gap <= _CLOSED * abs(best.objective):
            break
        width *= _NARROWER
    return _finished(rows, v, r, width, steps) if best is None else best


def _least_squares_start(rows: KinkedRows) -> Tensor:
    weight = rows.above + rows.below
    H = rows.A.T @ (rows.A * weight.unsqueeze(1)) + torch.diag(rows.penalty)
    return _solve(H, rows.A.T @ (weight * rows.t), float(H.diagonal().mean()) / rows.A.shape[0])


def _solve(H: Tensor, g: Tensor, usual: float) -> Tensor:
    """Solve with a semidefinite matrix, shifted where it is singular: the direction of a step need not be exact."""
    shift = 0.0
    while True:
        factor, broken = torch.linalg.cholesky_ex(H + shift * torch.eye(H.shape[0], dtype=H.dtype, device=H.device))
        size = factor.diagonal().abs()
        if not int(broken) and (shift or float(size.amin() ** 2) > _SINGULAR * float(size.amax() ** 2)):
            return torch.cholesky_solve(g.unsqueeze(1), factor).squeeze(1)
        shift = max(_SHIFT * usual, 10 * shift) or 1.0


def _direction(H: Tensor, g: Tensor, usual: float) -> Tensor:
    """Return a Newton direction; while too few rows bend the loss, the way down where none of them does."""
    values, vectors = torch.linalg.eigh(H / usual)
    straight = values <= _SINGULAR * values[-1].clamp_min(1.0)
    if bool(straight.any()):
        open_part = vectors[:, straight] @ (vectors[:, straight].T @ g)
        if float(open_part.norm()) > _SOLVED * float(g.norm()):
            return open_part / usual
    return _solve(H, g, usual)


def _smoothed(rows: KinkedRows, v: Tensor, r: Tensor, width: float) -> tuple[Tensor, Tensor, int]:
    """Minimise the smoothed objective; return coefficients, residuals and steps."""
    size = float((rows.above + rows.below).square().sum().sqrt())
    usual = float(rows.A.square().sum()) / rows.A.shape[0]
    for step in range(_MOST_STEPS):
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
    return v, r, _MOST_STEPS


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


def _finished(rows: KinkedRows, v: Tensor, r: Tensor, width: float, steps: int) -> KinkedFit:
    """Solve for the rows within the width, and bound the excess there by the dual."""
    inside = (r < rows.above * width) & (r > -rows.below * width)
    E = rows.A[inside]
    u = rows.dual(r, width)
    if E.shape[0]:
        v, u = _on_kinks(rows, E, inside, v, r, u)
    u = torch.minimum(torch.maximum(u, -rows.below), rows.above)
    r = rows.t - rows.A @ v
    objective = float(rows.loss(r).sum()) + 0.5 * float((rows.penalty * v * v).sum())

    # Every term is at least zero, so that nothing cancels; what rounding may hide in a residual counts in full.
    hidden = (rows.A.shape[1] + 2) * _EPS * (rows.A.norm(dim=1) * v.norm() + rows.t.abs())
    reached = u * r.sign() >= torch.where(r > 0, rows.above, rows.below)
    worth = torch.where(reached, torch.zeros_like(r), rows.loss(r) - u * r).clamp_min(0)
    doubtful = (~reached) | (r.abs() <= hidden)
    slack = float(worth.sum()) + float(((rows.above + rows.below) * hidden)[doubtful].sum())
    left = rows.penalty * v - rows.A.T @ u
    error = (rows.A.shape[0] + 8) * _EPS * rows.A.norm(dim=0) * float(u.norm()) + 4 * _EPS * (rows.penalty * v).abs()
    return _proven(rows, v, u, left.abs() + error, slack, objective, steps)


def _on_kinks(rows: KinkedRows, E: Tensor, inside: Tensor, v: Tensor, r: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Return the coefficients that put rows E on their kinks, and a dual point at which the gradient vanishes."""
    c, e = E.shape[1], E.shape[0]
    few = e <= 2 * c + _FEW
    if few:
        system = E.new_zeros(c + e, c + e)
        system[:c, :c] = torch.diag(rows.penalty)
        system[:c, c:], system[c:, :c] = -E.T, E

    for _ in range(2):
        # Corrections, so that a second one repairs the rounding of the first.
        right = rows.A.T @ u - rows.penalty * v
        if few:
            both = torch.cat([right, r[inside]]).unsqueeze(1)
            change = torch.linalg.lstsq(system, both, driver="gelsd").solution.squeeze(1)
            step, moved = change[:c], change[c:]
        else:
            # So many rows on their kinks, some of them twice, determine the weights among themselves.
            step = torch.linalg.lstsq(E, r[inside].unsqueeze(1), driver="gelsd").solution.squeeze(1)
            bent = (rows.penalty * step - right).unsqueeze(1)
            moved = torch.linalg.lstsq(E.T, bent, driver="gelsd").solution.squeeze(1)
        v, u = v + step, u.clone()
        u[inside] += moved
        r = rows.t - rows.A @ v
    return v, u


def _proven(
    rows: KinkedRows, v: Tensor, u: Tensor, left: Tensor, slack: float, objective: float, steps: int
) -> KinkedFit:
    """Bound the excess where the dual point misses feasibility by at most ``left``.

    Rows whose dual value is a margin m inside its bounds hold the minimiser: their loss grows by m times the size of
    their residual. Where they have full rank, ``left . d`` along any step d is no more than that growth once the norm
    of ``left`` is below m times their smallest singular value, and the gap is what the residuals on the kinks leave.
    """
    c = rows.A.shape[1]
    margin = torch.minimum(rows.above - u, u + rows.below)
    span = rows.above + rows.below
    holding = margin > _INSIDE * span
    held = rows.A[holding]
    values = torch.linalg.svdvals(held) if held.shape[0] else held.new_zeros(1)
    cut = default_rcond(max(held.shape[0], 1), c) * float(values[0])
    rank = int((values > cut).sum())
    ridge = bool((rows.penalty > 0).any())

    gap, reason = math.inf, "the rows on their kinks do not hold the weights"
    if rank == c:
        growth = float(margin[holding].min()) * float(values[-1])
        if float(left.norm()) <= growth:
            r = rows.t[holding] - held @ v
            gap, reason = slack + float((margin[holding] * r.abs()).sum()), ""
    if not math.isfinite(gap) and ridge and bool((left[rows.penalty == 0] == 0).all()):
        free = rows.penalty > 0
        gap, reason = slack + 0.5 * float((left[free] ** 2 / rows.penalty[free]).sum()), ""
    if not math.isfinite(gap):
        # A minimiser is no further than the objective allows, since every row's loss grows both ways.
        every = torch.linalg.svdvals(rows.A * torch.minimum(rows.above, rows.below).unsqueeze(1))
        kept = every[every > default_rcond(rows.A.shape[0], c) * every[0]]
        if kept.numel():
            gap, reason = slack + float(left.norm()) * 2 * objective / float(kept[-1]), ""

    condition = float((values[0] / values[-1]) ** 2) if rank == c else math.inf
    flat = 0 if rank == c or ridge else _level_directions(rows, held, cut, v, objective)
    return KinkedFit(v, gap, objective, rank == c or ridge, flat, condition, steps, reason)


def _level_directions(rows: KinkedRows, held: Tensor, cut: float, v: Tensor, objective: float) -> int:
    """Count the directions, of those the rows that hold leave open, along which the objective stays where it is."""
    _, values, right = torch.linalg.svd(torch.cat([held, held.new_zeros(1, held.shape[1])]), full_matrices=True)
    r, level = rows.t - rows.A @ v, 0
    for d in right[int((values > cut).sum()) :]:
        q = rows.A @ d
        apart = (r.abs() > _LEVEL * r.abs().max()) & (q != 0)
        length = 0.5 * float((r[apart] / q[apart]).abs().min()) if bool(apart.any()) else 1.0
        ends = [float(rows.loss(r - sign * length * q).sum()) for sign in (1.0, -1.0)]
        level += min(ends) <= objective * (1 + _LEVEL)
    return level
