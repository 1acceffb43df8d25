"""Weights from the rows on their kinks, and what proves that they are a minimiser."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import final

import torch
from torch import Tensor

from closedform.fit.convex.coordinates import Coordinates
from closedform.numerics.least_norm import least_norm_lstsq
from closedform.numerics.rank import default_rcond
from closedform.numerics.rational import solved_exactly
from closedform.numerics.twofold import LOST, residual, twofold_product

__all__ = ["ActiveRows", "KinkedFit", "KinkedRows", "finished", "interpolated", "rounded_gap"]

#: Distance of a dual value from its bounds, relative to their distance, from which its row holds the minimiser.
_INSIDE = 1e-9
#: Rows on their kinks, beyond twice the columns, that are solved for together with the weights.
_FEW = 20
#: Relative difference of objectives, and of residuals, that counts as none.
_LEVEL = 1e-12
#: Rounding of its terms, in units, that a residual of an exact fit may show: coefficients are rounded to float64.
_EXACT = 8.0
#: Steps of refinement of an exact fit, each by residuals of twice the precision.
_REFINEMENTS = 3
#: How far beyond its kink a row with a loss on one side alone is put, relatively: its loss is zero then, not rounding.
_BEYOND = 2.0**-10
#: Part of the kinks from which on what the rounding of coefficients hides is no exact fit any more.
_MOST_HIDDEN = 1e-4
#: Numbers of rows that are worth a sum in rational arithmetic.
_MOST_EXACT = 20_000
#: Times that rows are exchanged between those on their kinks and those beside them, and coordinates up to which.
_EXCHANGES = 10
_MOST_EXCHANGED = 400
#: Numbers of rows on their kinks that are worth an elimination in rational arithmetic: a second or so.
_MOST_RATIONAL = 2_500
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

    def within(self, w: Tensor, width: float) -> ActiveRows:
        """Return the rows within the width at a smoothed minimum."""
        r = self.t - self.A @ w
        return ActiveRows(w, self.dual(r, width), (r < self.above * width) & (r > -self.below * width))

    def loss(self, r: Tensor) -> Tensor:
        """Return the loss of each row, for residuals ``t - A v``."""
        return self.above * r.clamp_min(0) + self.below * (-r).clamp_min(0)

    def dual(self, r: Tensor, width: float | Tensor) -> Tensor:
        """Return minus the slopes of the smoothed loss: a point within the bounds of the dual."""
        return torch.minimum(torch.maximum(r / width, -self.below), self.above)

    def ridge(self, v: Tensor) -> float:
        """Return half the penalty of coefficients v."""
        return 0.5 * float((self.penalty * v * v).sum())

    def rounding(self, v: Tensor) -> Tensor:
        """Return how much the residual of each row moves where its numbers are rounded to float64, ``(rows,)``.

        ``eps (|A| |v| + |t|)``: residuals of this size are those of an exact fit to a table that differs from this one
        in the last bits (Oettli and Prager 1964). Beyond a ten-thousandth of the kinks that says nothing any more.
        """
        return _EPS * (self.A.abs() @ v.abs() + self.t.abs())

    def moved(self, v: Tensor) -> float:
        """Return what rounding the coefficients to float64 moves the objective by, about."""
        slopes = self.above + self.below
        hidden = _EXACT * float((slopes * self.rounding(v)).sum())
        return min(hidden, _MOST_HIDDEN * float((slopes * self.t.abs()).sum()))


@final
@dataclass(frozen=True, eq=False)
class KinkedFit:
    """The minimiser of one output, with what proves it.

    Attributes:
        v: Coefficients.
        gap: Proven bound on the excess; inf where there is none.
        loss: Sum of the row losses.
        objective: That sum and half the penalty.
        unique: Whether the minimiser is proven to be the only one.
        flat: Dimension of the directions that the rows on their kinks leave open.
        condition: Squared condition of the rows that hold the minimiser.
        steps: Newton steps.
        reason: Why nothing is proven, or an empty string.
        dual: The point of the dual that the proof rests on, ``(rows,)``.
    """

    v: Tensor
    gap: float
    loss: float
    objective: float
    unique: bool
    flat: int
    condition: float
    steps: int
    reason: str
    dual: Tensor


@final
@dataclass(frozen=True, eq=False)
class ActiveRows:
    """Which rows seem to lie on their kinks at a minimiser, and what they were found by.

    Attributes:
        w: Coefficients near it, ``(coordinates,)``.
        u: A point within the bounds of the dual, ``(rows,)``.
        inside: The rows, as marks.
    """

    w: Tensor
    u: Tensor
    inside: Tensor


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
    for step in range(_REFINEMENTS):
        v = v + coordinates.raised(coordinates.nearest(r))
        v = coordinates.shortest(v) if step == 0 else v
        r = residual(aim, rows.A, v)
    if bool((r.abs() > _EXACT * rows.rounding(v)).any()):
        return None

    c, loss = v.shape[0], float(rows.loss(residual(rows.t, rows.A, v)).sum())
    two_sided = bool(((rows.above > 0) & (rows.below > 0)).any())
    flat = c - coordinates.rank if two_sided else c
    gap = loss * (1 + (len(rows.t) + 8) * _EPS) + 2 * LOST / _EPS * float(
        ((rows.above + rows.below) * rows.rounding(v)).sum()
    )
    reason = "no loss is below zero"
    return KinkedFit(v, gap, loss, loss, not flat, flat, coordinates.condition**2, steps, reason, 0 * rows.t)


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
        if best.gap <= _LEVEL * best.objective or not bool((over | (wrong & ~inside)).any()):
            break
        inside = (inside & ~over) | wrong
    assert best is not None
    return best


def rounded_gap(rows: KinkedRows, coordinates: Coordinates, v: Tensor, width: Tensor) -> float:
    """Bound the excess where each kink is rounded within a width; inf where nothing is proven.

    With slopes ``s`` at residuals r, any u within the bounds of the dual leaves each row the duality gap
    ``(s - u) (r - width (s + u) / 2)``, which is never negative and zero for ``u = s`` (Rockafellar 1970, section 31).
    The slopes of rows within the width are changed until the gradient vanishes: residuals that are rounded move a slope
    by many roundings where the width is narrow, but the gap only by their square. What is left of the gradient is
    outweighed by the ridge, or told for as far as a minimiser can be, since no loss is below its kinked one by more
    than ``width s^2 / 2``.

    Args:
        rows: What is minimised, but for the rounding.
        coordinates: Of these rows.
        v: Coefficients.
        width: That width for a slope of 1, ``(rows,)``.
    """
    r = residual(rows.t, rows.A, v)
    slopes = rows.dual(r, width)
    u, inside = slopes.clone(), (slopes < rows.above) & (slopes > -rows.below)
    if bool(inside.any()):
        left = coordinates.lowered(rows.penalty * v - rows.A.T @ u).unsqueeze(1)
        u[inside] += least_norm_lstsq(coordinates.U[inside].T, left).squeeze(1)
        u = torch.minimum(torch.maximum(u, -rows.below), rows.above)

    moved = slopes - u
    doubt = 2 * _EPS * r.abs() + LOST / _EPS * rows.rounding(v)
    worth = (moved * (r - 0.5 * width * (slopes + u))).clamp_min(0) + doubt * (moved.abs() + 0.5 * doubt / width)
    loss = float((slopes * (r - 0.5 * width * slopes)).sum())
    proof = _Proof(rows, coordinates, v, r, u, float(worth.sum()), loss, width)
    # The bounds of the dual and the widths are rounded products, so that losses are known up to two roundings.
    return proof.smooth_gap() * (1 + (len(r) + 8) * _EPS) + 4 * _EPS * proof.level


def _judged(rows: KinkedRows, coordinates: Coordinates, v: Tensor, u: Tensor, steps: int) -> tuple[KinkedFit, Tensor]:
    """Return what is proven of coefficients by a dual point, and which rows lie on the other side of their kinks."""
    v = coordinates.shortest(v)
    r = rows.t - rows.A @ v
    # Every term is at least zero, so that nothing cancels; what rounding may hide in a residual counts in full.
    hidden = (rows.A.shape[1] + 2) * _EPS * (rows.A.norm(dim=1) * v.norm() + rows.t.abs())
    close = r.abs() <= hidden
    if float(hidden.sum()) > _LEVEL * float(r.abs().sum()):
        close = torch.ones_like(close)
    if bool(close.any()):
        r[close] = residual(rows.t[close], rows.A[close], v)
        hidden[close] = _EPS * r[close].abs() + LOST / _EPS * hidden[close]
    loss = float(rows.loss(r).sum())
    reached = u * r.sign() >= torch.where(r > 0, rows.above, rows.below)
    worth = torch.where(reached, torch.zeros_like(r), rows.loss(r) - u * r).clamp_min(0)
    doubtful = (~reached) | (r.abs() <= hidden)
    slack = float(worth.sum()) + float(((rows.above + rows.below) * hidden)[doubtful].sum())

    found = _Proof(rows, coordinates, v, r, u, slack, loss).fit(steps)
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


@final
class _Proof:
    """A bound on the excess at coefficients with residuals r and a dual point u within its bounds.

    Rows whose dual value is a margin m inside its bounds hold the minimiser: their loss grows by m times the size of
    their residual. Where they have full rank, the gradient ``left`` that the dual point misses feasibility by gains
    along any step d no more than that growth once its norm is below m times their smallest singular value, and the gap
    is what the residuals on the kinks leave. All this in the coordinates, of which every change of outputs has one.
    """

    def __init__(
        self,
        rows: KinkedRows,
        coordinates: Coordinates,
        v: Tensor,
        r: Tensor,
        u: Tensor,
        slack: float,
        loss: float,
        width: Tensor | None = None,
    ) -> None:
        self.rows, self.coordinates, self.v, self.r, self.u = rows, coordinates, v, r, u
        self.slack, self.loss, self.objective = slack, loss, loss + rows.ridge(v)
        # What the losses, without their rounding, are no more than at a minimiser.
        self.width = torch.zeros_like(u) if width is None else width
        self.level = self.objective + 0.5 * float((self.width * torch.maximum(rows.above, rows.below).square()).sum())
        self.margin = torch.minimum(rows.above - u, u + rows.below)
        self.holding = self.margin > _INSIDE * (rows.above + rows.below)
        self.held = coordinates.U[self.holding]
        count = self.held.shape[1]
        self.values = torch.linalg.svdvals(self.held) if self.held.shape[0] else self.held.new_zeros(1)
        self.cut = default_rcond(max(self.held.shape[0], 1), count) * float(self.values[0])
        self.full = int((self.values > self.cut).sum()) == count

    def fit(self, steps: int) -> KinkedFit:
        """Return the coefficients with what is proven of them."""
        rows, coordinates, full = self.rows, self.coordinates, self.full
        left = rows.penalty * self.v - rows.A.T @ self.u
        error = (rows.A.shape[0] + 8) * _EPS * rows.A.norm(dim=0) * float(self.u.norm())
        left = left.abs() + error + 4 * _EPS * (rows.penalty * self.v).abs()
        ridge = bool((rows.penalty > 0).any())
        missed = float(self._lowered(left).norm())
        gap, reason = self._held_gap(missed), ""
        if not math.isfinite(gap) and ridge:
            gap = self._ridge_gap(left)
            if gap > _LEVEL * self.objective:
                # A small ridge makes much of what rounding may hide in a sum.
                gap = min(gap, self._ridge_gap(self._left()))
        if not math.isfinite(gap) and full and not ridge:
            gap = self._held_gap(self._refined())
        if not math.isfinite(gap) and not ridge and self._vanishes():
            gap = self.slack
        if not math.isfinite(gap):
            gap, reason = self._far_gap(missed), "the rows on their kinks do not hold the weights"
            reason = reason if not math.isfinite(gap) else ""

        condition = float((self.values[0] / self.values[-1]) ** 2) if full else math.inf
        if coordinates.lift is not None and not ridge:
            condition *= coordinates.condition**2
        unseen = 0 if ridge else rows.A.shape[1] - coordinates.rank
        flat = unseen if full or ridge else unseen + self._level_directions()
        return KinkedFit(
            self.v, gap, self.loss, self.objective, not flat and (full or ridge), flat, condition, steps, reason, self.u
        )

    def smooth_gap(self) -> float:
        """Return the gap where kinks are rounded, so that no row holds the weights by one."""
        left = self._left()
        if bool((self.rows.penalty > 0).any()):
            return self._ridge_gap(left)
        return self._far_gap(float(self._lowered(left).norm()))

    def _left(self) -> Tensor:
        """Bound the sizes of the entries of the gradient at the dual point, by products in twice the precision."""
        rows = self.rows
        turned, bent = rows.A.T.contiguous(), rows.penalty * self.v
        high, rest = twofold_product(turned, self.u)
        left = (bent - high - rest).abs()
        return left + 4 * _EPS * (left + bent.abs()) + LOST * (turned.abs() @ self.u.abs())

    def _lowered(self, left: Tensor) -> Tensor:
        """Bound a gradient, given by the sizes of its entries, in the coordinates."""
        return left if self.coordinates.lift is None else self.coordinates.lift.abs().T @ left

    def _held_gap(self, missed: float) -> float:
        """Return the gap where the rows that hold outweigh what the gradient misses, or inf."""
        if not self.full:
            return math.inf
        margin = self.margin[self.holding]
        least = float(self.values[-1]) - self.held.shape[1] * _EPS * float(self.values[0])
        if self.coordinates.lift is not None and not bool((self.rows.penalty > 0).any()):
            # The coordinates are computed: what they tell of the rows is off by this much.
            lost = float(self.rows.A[self.holding].norm()) * float(self.coordinates.lift.norm())
            least -= math.sqrt(self.rows.A.shape[1]) * _EPS * lost
        if not missed <= float(margin.min()) * least:
            return math.inf
        return self.slack + float((margin * self.r[self.holding].abs()).sum())

    def _refined(self) -> float:
        """Return what the gradient misses once the dual values of rows that hold have a low part of their own."""
        rows, low, missed = self.rows, torch.zeros_like(self.u), math.inf
        turned = rows.A.T.contiguous()
        for _ in range(_REFINEMENTS):
            high, rest = twofold_product(turned, self.u, low)
            left = high + rest
            error = 4 * _EPS * left.abs() + LOST * (turned.abs() @ self.u.abs())
            missed = float(self._lowered(left.abs() + error).norm())
            wanted = self.coordinates.lowered(left).unsqueeze(1)
            low[self.holding] -= least_norm_lstsq(self.held.T, wanted).squeeze(1)
        # The last correction was not looked at, so that it does not count; those before moved the dual point this much.
        self.slack += float((low * self.r)[self.holding].abs().sum()) * 2
        return missed

    def _vanishes(self) -> bool:
        """Say whether the gradient is zero in exact arithmetic, after rational changes of dual values that may move.

        So it is where rows twice have contrary targets, and wherever the minimum is a face.
        """
        rows = self.rows
        # Values that are at a bound but for rounding are put there.
        bound = torch.where(rows.above - self.u < self.u + rows.below, rows.above, -rows.below)
        u = torch.where(self.holding, self.u, bound)
        used = u != 0
        if rows.A[used].numel() > _MOST_EXACT:
            return False
        dual = [Fraction(value) for value in u[used].tolist()]
        missed = [
            -sum((Fraction(a) * d for a, d in zip(column, dual, strict=True)), Fraction(0))
            for column in rows.A[used].T.tolist()
        ]
        self.slack += float(((u - self.u) * self.r).abs().sum())
        if not any(missed):
            return True
        if self.held.shape[0] * rows.A.shape[1] > _MOST_RATIONAL:
            return False

        moved = solved_exactly(rows.A[self.holding].T.tolist(), missed)
        if moved is None:
            return False
        sizes = self.r.new_tensor([abs(float(value)) for value in moved]) * (1 + 4 * _EPS)
        self.slack += float((sizes * self.r[self.holding].abs()).sum())
        return bool((sizes < self.margin[self.holding]).all())

    def _ridge_gap(self, left: Tensor) -> float:
        """Return the gap by the strong convexity of the ridge; a bias without one is no further than losses allow."""
        rows, free = self.rows, self.rows.penalty > 0
        over = 0.0
        if not bool(free.all()):
            missed, moved = self._bias_missed(~free)
            ranges = self._bias_ranges(~free)
            # What the gradient does not miss needs no bound on how far it reaches.
            over = float((missed[missed > 0] * ranges[missed > 0]).sum())
            left = left + rows.A.abs().T @ moved
        return self.slack + 0.5 * float((left[free] ** 2 / rows.penalty[free]).sum()) + over

    def _bias_ranges(self, bias: Tensor) -> Tensor:
        """Return how far each bias can be from its value at a minimiser.

        There no row loses more than the objective, and the weights pay no more ridge than that: rows that see one bias
        alone bound it.
        """
        rows, B = self.rows, self.rows.A[:, bias]
        free = ~bias
        lengths = (rows.A[:, free] / rows.penalty[free].sqrt()).norm(dim=1) * math.sqrt(2 * self.level)
        least = torch.where(rows.above > 0, rows.t - self.level / rows.above - lengths, -math.inf)
        most = torch.where(rows.below > 0, rows.t + self.level / rows.below + lengths, math.inf)
        ranges = []
        for column, value in zip(range(B.shape[1]), self.v[bias], strict=True):
            alone = (B != 0).sum(1) == 1
            up, down = alone & (B[:, column] > 0), alone & (B[:, column] < 0)
            unit = B[:, column].abs().max()
            low = torch.cat([least[up], -most[down], least.new_full((1,), -math.inf)]).max() / unit
            high = torch.cat([most[up], -least[down], least.new_full((1,), math.inf)]).min() / unit
            ranges.append(torch.maximum(high - value, value - low))
        return torch.stack(ranges)

    def _bias_missed(self, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient by each bias, once rows that hold share what is left of it, and how far they moved."""
        turned, low = self.rows.A[:, bias].T.contiguous(), torch.zeros_like(self.u)
        high, rest = twofold_product(turned, self.u)
        if bool(self.holding.any()):
            held = turned[:, self.holding]
            wanted = -(high + rest).unsqueeze(1)
            low[self.holding] = least_norm_lstsq(held, wanted).squeeze(1)
            high, rest = twofold_product(turned, self.u, low)
            bent = self.r.abs() + self.width * (self.u.abs() + low.abs())
            self.slack += float((low.abs() * bent)[self.holding].sum())
        return (high + rest).abs() * (1 + 4 * _EPS) + LOST * (turned.abs() @ self.u.abs()), low.abs()

    def _far_gap(self, missed: float) -> float:
        """Return the gap where a minimiser is no further than its objective allows: all losses grow both ways."""
        rows, U = self.rows, self.coordinates.U
        every = torch.linalg.svdvals(U * torch.minimum(rows.above, rows.below).unsqueeze(1))
        if not float(every[-1]) > default_rcond(U.shape[0], U.shape[1]) * float(every[0]):
            return math.inf
        return self.slack + missed * 2 * self.level / float(every[-1])

    def _level_directions(self) -> int:
        """Count the directions, of those the rows that hold leave open, along which the objective stays level."""
        held, rows, r, level = self.held, self.rows, self.r, 0
        _, values, right = torch.linalg.svd(torch.cat([held, held.new_zeros(1, held.shape[1])]), full_matrices=True)
        for d in right[int((values > self.cut).sum()) :]:
            q = self.coordinates.U @ d
            apart = (r.abs() > _LEVEL * r.abs().max()) & (q != 0)
            length = 0.5 * float((r[apart] / q[apart]).abs().min()) if bool(apart.any()) else 1.0
            ends = [float(rows.loss(r - sign * length * q).sum()) for sign in (1.0, -1.0)]
            level += min(ends) <= self.objective * (1 + _LEVEL)
        return level
