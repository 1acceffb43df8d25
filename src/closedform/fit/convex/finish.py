"""Weights from the rows on their kinks."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from closedform.fit.convex.coordinates import Coordinates
from closedform.fit.convex.kinked_proof import LEVEL, REFINEMENTS, Proof
from closedform.fit.convex.kinked_rows import EXACT, ActiveRows, KinkedFit, KinkedRows
from closedform.numerics.least_norm import least_norm_lstsq
from closedform.numerics.twofold import LOST, residual

__all__ = ["finished", "interpolated", "rounded_gap", "rounded_proof", "shared_out"]

#: Rows on their kinks, beyond twice the columns, that are solved for together with the weights.
_FEW = 20
#: How far beyond its kink a row with a loss on one side alone is put, relatively: its loss is zero then, not rounding.
_BEYOND = 2.0**-10
#: Times that rows are exchanged between those on their kinks and those beside them, and coordinates up to which.
_EXCHANGES = 10
_MOST_EXCHANGED = 400
#: Corrections of a point of the dual: the second repairs the rounding of the first.
_CORRECTIONS = 2
#: Ratio of the diagonal of a Cholesky factor above which normal equations lose few digits.
_REGULAR = 1e-4
_EPS = torch.finfo(torch.float64).eps


def interpolated(rows: KinkedRows, coordinates: Coordinates, steps: int = 0) -> KinkedFit | None:
    """Return coefficients that put every row on its kink up to their own rounding, or None where there are none.

    No loss is below zero, so that the loss there, taken in twice the precision, is the gap.

    Args:
        rows: What is minimised.
        coordinates: Of these rows.
        steps: Newton steps so far.
    """
    if bool((rows.penalty > 0).any()):
        return None
    aim = rows.t.clone()
    aim[rows.below == 0] += _BEYOND * rows.t.abs()[rows.below == 0]
    aim[rows.above == 0] -= _BEYOND * rows.t.abs()[rows.above == 0]
    v, r = rows.A.new_zeros(rows.A.shape[1]), aim
    for step in range(REFINEMENTS):
        v = v + coordinates.raised(coordinates.nearest(r))
        v = coordinates.shortest(v) if step == 0 else v
        r = residual(aim, rows.A, v)
    if bool((r.abs() > EXACT * rows.rounding(v)).any()):
        return None

    c, loss = v.shape[0], float(rows.loss(residual(rows.t, rows.A, v)).sum())
    two_sided = bool(((rows.above > 0) & (rows.below > 0)).any())
    flat = c - coordinates.rank if two_sided else c
    gap = loss * (1 + (len(rows.t) + 8) * _EPS) + 2 * LOST / _EPS * float(
        ((rows.above + rows.below) * rows.rounding(v)).sum()
    )
    reason = "no loss is below zero"
    return KinkedFit(
        v=v,
        gap=gap,
        loss=loss,
        objective=loss,
        unique=not flat,
        flat=flat,
        condition=coordinates.condition**2,
        steps=steps,
        reason=reason,
        dual=0 * rows.t,
        face=not two_sided,
    )


def finished(
    rows: KinkedRows,
    small: KinkedRows,
    coordinates: Coordinates,
    near: ActiveRows,
    steps: int,
    *,
    exchanging: bool = False,
) -> KinkedFit:
    """Solve for the rows that seem to lie on their kinks, and bound the excess there by the dual.

    On request rows whose dual value comes out beyond its bounds leave their kinks, rows on the other side of theirs
    come to lie on them, and it is solved again (primal-dual active sets; Hintermueller, Ito and Kunisch 2002).

    Args:
        rows: What is minimised.
        small: The same in other coordinates.
        coordinates: These.
        near: Where a smoothed objective is smallest.
        steps: Newton steps so far.
        exchanging: Whether rows may be exchanged.
    """
    inside, u, v = near.inside, near.u, coordinates.raised(near.w)
    best = _judged(rows, coordinates, v, u, steps)[0] if exchanging else None
    exchanges = _EXCHANGES if exchanging and small.A.shape[1] <= _MOST_EXCHANGED else 1
    for _ in range(exchanges):
        if bool(inside.any()):
            v, u = _on_kinks(rows, small, coordinates, inside, v, u)
        over = (u > rows.above) | (u < -rows.below)
        u = torch.minimum(torch.maximum(u, -rows.below), rows.above)
        found, wrong = _judged(rows, coordinates, v, u, steps)
        best = found if best is None or found.gap < best.gap else best
        if best.gap <= LEVEL * best.objective or not bool((over | (wrong & ~inside)).any()):
            break
        inside = (inside & ~over) | wrong
    assert best is not None
    return best


def rounded_gap(rows: KinkedRows, coordinates: Coordinates, penalty: Tensor, v: Tensor, width: Tensor) -> float:
    """Bound the excess where each kink is rounded within a width; inf where nothing is proven.

    Args:
        rows: What is minimised, but for the rounding.
        coordinates: Of these rows.
        penalty: In these coordinates.
        v: Coefficients.
        width: That width for a slope of 1, ``(rows,)``.
    """
    return rounded_proof(rows, coordinates, penalty, v, width)[0]


def rounded_proof(
    rows: KinkedRows,
    coordinates: Coordinates,
    penalty: Tensor,
    v: Tensor,
    width: Tensor,
    *,
    level: float | None = None,
    weight: Tensor | None = None,
) -> tuple[float, Proof]:
    """Return a bound on the excess where each kink is rounded within a width, and the point of the dual behind it.

    With slopes ``s`` at residuals r, any u within the bounds of the dual leaves each row the duality gap
    ``(s - u) (r - width (s + u) / 2)``, which is never negative and zero for ``u = s`` (Rockafellar 1970, section 31).
    The slopes of rows within the width are changed as a Newton step does, which ends the gradient: residuals that
    are rounded move a slope by many roundings where the width is narrow, but the gap only by their square. What is
    left of the gradient is outweighed by the ridge, or told for as far as a minimiser can be, since no loss is
    below its kinked one by more than ``width s^2 / 2``.

    Args:
        rows: What is minimised, but for the rounding.
        coordinates: Of these rows.
        penalty: In these coordinates.
        v: Coefficients.
        width: That width for a slope of 1, ``(rows,)``.
        level: What the kinked losses and the ridge are no more than at a minimiser, where it is known otherwise.
        weight: Weights of rows where the width is a multiple of a scale that is minimised as well: what the objective
            gains by that, ``weight - u^2 / (4 weight)`` in all, is to vanish then. ``(rows,)``.
    """
    r = residual(rows.t, rows.A, v)
    slopes = rows.dual(r, width)
    u, inside = slopes.clone(), (slopes < rows.above) & (slopes > -rows.below)
    for _ in range(_CORRECTIONS if bool(inside.any()) else 0):
        E, left, bent = coordinates.U[inside], coordinates.lowered(rows.penalty * v - rows.A.T @ u), penalty
        if weight is not None:
            E = torch.cat([E, (u / (2 * weight))[inside].unsqueeze(1)], 1)
            left = torch.cat([left, (weight - u.square() / (4 * weight)).sum().unsqueeze(0)])
            bent = torch.cat([bent, bent.new_zeros(1)])
        u[inside] += shared_out(E, width[inside], bent, left)
        u = torch.minimum(torch.maximum(u, -rows.below), rows.above)

    moved = slopes - u
    doubt = 2 * _EPS * r.abs() + LOST / _EPS * rows.rounding(v)
    worth = (moved * (r - 0.5 * width * (slopes + u))).clamp_min(0) + doubt * (moved.abs() + 0.5 * doubt / width)
    loss = float((slopes * (r - 0.5 * width * slopes)).sum())
    proof = Proof(rows, coordinates, v, r, u, float(worth.sum()), loss, width, level)
    # The bounds of the dual and the widths are rounded products, so that losses are known up to two roundings.
    return proof.smooth_gap() * (1 + (len(r) + 8) * _EPS) + 4 * _EPS * proof.level, proof


def shared_out(E: Tensor, width: Tensor, penalty: Tensor, left: Tensor) -> Tensor:
    """Return the changes of slopes of rows E that a Newton step makes which ends a gradient: the cheapest to do so.

    By normal equations where these tell all there is, in units in which every coordinate bends the loss alike.

    Args:
        E: The rows, ``(rows, coordinates)``.
        width: By how much a residual changes with its slope, ``(rows,)``.
        penalty: ``(coordinates,)``.
        left: The gradient, ``(coordinates,)``.
    """
    H = E.T @ (E / width.unsqueeze(1)) + torch.diag(penalty)
    units = H.diagonal().clamp_min(torch.finfo(H.dtype).tiny).sqrt()
    factor, broken = torch.linalg.cholesky_ex(H / units / units.unsqueeze(1))
    size, right = factor.diagonal().abs(), (left / units).unsqueeze(1)
    if not int(broken) and float(size.amin()) > _REGULAR * float(size.amax()):
        return E @ (torch.cholesky_solve(right, factor).squeeze(1) / units) / width
    root = width.sqrt()
    whole = torch.cat([E / root.unsqueeze(1), torch.diag(penalty.sqrt())]) / units
    return least_norm_lstsq(whole.T, right).squeeze(1)[: E.shape[0]] / root


def _judged(rows: KinkedRows, coordinates: Coordinates, v: Tensor, u: Tensor, steps: int) -> tuple[KinkedFit, Tensor]:
    """Return what is proven of coefficients by a dual point, and which rows lie on the other side of their kinks."""
    v = coordinates.shortest(v)
    r = rows.t - rows.A @ v
    # Every term is at least zero, so that nothing cancels; what rounding may hide in a residual counts in full.
    hidden = (rows.A.shape[1] + 2) * _EPS * (rows.A.norm(dim=1) * v.norm() + rows.t.abs())
    close = r.abs() <= hidden
    if float(hidden.sum()) > LEVEL * float(r.abs().sum()):
        close = torch.ones_like(close)
    if bool(close.any()):
        r[close] = residual(rows.t[close], rows.A[close], v)
        hidden[close] = _EPS * r[close].abs() + LOST / _EPS * hidden[close]
    loss = float(rows.loss(r).sum())
    reached = u * r.sign() >= torch.where(r > 0, rows.above, rows.below)
    worth = torch.where(reached, torch.zeros_like(r), rows.loss(r) - u * r).clamp_min(0)
    doubtful = (~reached) | (r.abs() <= hidden)
    slack = float(worth.sum()) + float(((rows.above + rows.below) * hidden)[doubtful].sum())

    found = Proof(rows, coordinates, v, r, u, slack, loss).fit(steps)
    # Sums of positive terms round by no more than this.
    upwards = 1 + (len(r) + 8) * _EPS
    wrong = ~reached & (r.abs() > hidden)
    if found.gap <= found.objective:
        return replace(found, gap=found.gap * upwards), wrong
    return replace(found, gap=found.objective * upwards, reason="no loss is below zero"), wrong


def _on_kinks(
    rows: KinkedRows, small: KinkedRows, coordinates: Coordinates, inside: Tensor, v: Tensor, u: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the coefficients that put rows on their kinks, and a dual point at which the gradient vanishes."""
    E = small.A[inside]
    c, e = E.shape[1], E.shape[0]
    few = e <= 2 * c + _FEW
    # In units of the penalty, so that what is cut as dependent does not hang on them.
    units = torch.where(small.penalty > 0, small.penalty.sqrt(), 1.0)
    if few:
        system = E.new_zeros(c + e, c + e)
        system[:c, :c] = torch.diag((small.penalty > 0).to(E.dtype))
        system[:c, c:], system[c:, :c] = -(E / units).T, E / units

    for _ in range(2):
        # Corrections, so that a second one repairs the rounding of the first.
        right = coordinates.lowered(rows.A.T @ u - rows.penalty * v)
        r = residual(rows.t[inside], rows.A[inside], v)
        if few:
            both = torch.cat([right / units, r]).unsqueeze(1)
            change = least_norm_lstsq(system, both).squeeze(1)
            step, moved = change[:c] / units, change[c:]
        else:
            # So many rows on their kinks, some of them twice, determine the weights among themselves.
            step = least_norm_lstsq(E, r.unsqueeze(1)).squeeze(1)
            bent = (small.penalty * step - right).unsqueeze(1)
            moved = least_norm_lstsq(E.T, bent).squeeze(1)
        v, u = v + coordinates.raised(step), u.clone()
        u[inside] += moved
    return v, u
