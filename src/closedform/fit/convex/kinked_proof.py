"""What proves that weights minimise a loss with kinks: a point of the dual, and the rows that hold the minimiser."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from closedform.fit.convex.coordinates import Coordinates
from closedform.fit.convex.kinked_rows import KinkedFit, KinkedRows
from closedform.numerics.least_norm import least_norm_lstsq
from closedform.numerics.rank import default_rcond
from closedform.numerics.rational import solved_exactly
from closedform.numerics.twofold import LOST, twofold_product

__all__ = ["LEVEL", "REFINEMENTS", "Proof"]

#: Distance of a dual value from its bounds, relative to their distance, from which its row holds the minimiser.
_INSIDE = 1e-9
#: Relative difference of objectives, and of residuals, that counts as none.
LEVEL = 1e-12
#: Steps of refinement of an exact fit, each by residuals of twice the precision.
REFINEMENTS = 3
#: Numbers of rows that are worth a sum in rational arithmetic.
_MOST_EXACT = 20_000
#: Numbers of rows on their kinks that are worth an elimination in rational arithmetic: a second or so.
_MOST_RATIONAL = 2_500
_EPS = torch.finfo(torch.float64).eps


@final
class Proof:
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
        level: float | None = None,
    ) -> None:
        self.rows, self.coordinates, self.v, self.r, self.u = rows, coordinates, v, r, u
        self.slack, self.loss, self.objective = slack, loss, loss + rows.ridge(v)
        # What the losses, without their rounding, are no more than at a minimiser.
        self.width, self.low = torch.zeros_like(u) if width is None else width, torch.zeros_like(u)
        rounded = 0.5 * float((self.width * torch.maximum(rows.above, rows.below).square()).sum())
        self.level = self.objective + rounded if level is None else level
        self.margin = torch.minimum(rows.above - u, u + rows.below)
        self.holding = self.margin > _INSIDE * (rows.above + rows.below)

    @cached_property
    def held(self) -> Tensor:
        """The rows that hold, in the coordinates."""
        return self.coordinates.U[self.holding]

    @cached_property
    def values(self) -> Tensor:
        """Their singular values."""
        return torch.linalg.svdvals(self.held) if self.held.shape[0] else self.held.new_zeros(1)

    @cached_property
    def cut(self) -> float:
        """Up to where these are rounding."""
        return default_rcond(max(self.held.shape[0], 1), self.held.shape[1]) * float(self.values[0])

    @cached_property
    def full(self) -> bool:
        """Whether the rows that hold determine every coordinate."""
        return int((self.values > self.cut).sum()) == self.held.shape[1]

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
            if gap > LEVEL * self.objective:
                # A small ridge makes much of what rounding may hide in a sum.
                gap = min(gap, self._ridge_gap(self._left()))
        if full and not (gap <= LEVEL * self.objective if ridge else math.isfinite(gap)):
            gap = min(gap, self._held_gap(self._refined()))
        if not math.isfinite(gap) and not ridge and self._vanishes():
            gap = self.slack
        if not math.isfinite(gap):
            gap, reason = self._far_gap(missed), "the rows on their kinks do not hold the weights"
            reason = reason if not math.isfinite(gap) else ""

        condition = float((self.values[0] / self.values[-1]) ** 2) if full else math.inf
        if coordinates.lift is not None and not ridge:
            condition *= coordinates.condition**2
        unseen = 0 if ridge else rows.A.shape[1] - coordinates.rank
        held = full or (ridge and self._holds_biases())
        flat = unseen if held else unseen + self._level_directions()
        return KinkedFit(
            v=self.v,
            gap=gap,
            loss=self.loss,
            objective=self.objective,
            unique=held and not flat,
            flat=flat,
            condition=condition,
            steps=steps,
            reason=reason,
            dual=self.u,
            face=flat > unseen,
        )

    def smooth_gap(self) -> float:
        """Return the gap where kinks are rounded, so that no row holds the weights by one."""
        left, gap = self._left(), math.inf
        if bool((self.rows.penalty > 0).any()):
            gap = self._ridge_gap(left)
        if gap > LEVEL * self.objective:
            # Also where there is a ridge, which may be so small that it holds nothing.
            gap = min(gap, self._far_gap(float(self._lowered(left).norm())))
        return gap if gap <= LEVEL * self.objective else min(gap, self._far_gap(self._refined()))

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
        turned, bent = rows.A.T.contiguous(), rows.penalty * self.v
        for _ in range(REFINEMENTS):
            high, rest = twofold_product(turned, self.u, low)
            left = (high - bent) + rest
            error = 4 * _EPS * (left.abs() + bent.abs()) + LOST * (turned.abs() @ self.u.abs())
            missed = float(self._lowered(left.abs() + error).norm())
            # The last correction is not looked at, so that it does not count.
            self.low = low.clone()
            wanted = self.coordinates.lowered(left).unsqueeze(1)
            low[self.holding] -= least_norm_lstsq(self.held.T, wanted).squeeze(1)
        if self._beyond(self.low):
            self.low = torch.zeros_like(low)
            return math.inf
        self.slack += self._moved(self.low)
        return missed

    def _beyond(self, low: Tensor) -> bool:
        """Say whether low parts take dual values beyond their bounds: there is no point of the dual then."""
        return bool((low.abs() > self.margin)[self.holding].any())

    def _moved(self, low: Tensor) -> float:
        """Return what low parts of the dual values of rows that hold add to the slack."""
        bent = (self.r - self.width * self.u).abs() + self.width * low.abs()
        return float((low.abs() * bent)[self.holding].sum())

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
            low = torch.zeros_like(low) if self._beyond(low) else low
            high, rest = twofold_product(turned, self.u, low)
            self.low = low
            self.slack += self._moved(low)
        return (high + rest).abs() * (1 + 4 * _EPS) + LOST * (turned.abs() @ self.u.abs()), low.abs()

    def _far_gap(self, missed: float) -> float:
        """Return the gap where a minimiser is no further than its objective allows: all losses grow both ways."""
        rows, U = self.rows, self.coordinates.U
        every = torch.linalg.svdvals(U * torch.minimum(rows.above, rows.below).unsqueeze(1))
        if not float(every[-1]) > default_rcond(U.shape[0], U.shape[1]) * float(every[0]):
            return math.inf
        return self.slack + missed * 2 * self.level / float(every[-1])

    def _holds_biases(self) -> bool:
        """Say whether the rows that hold determine what has no ridge, once the weights, which have one, are known."""
        biases = self.held[:, self.coordinates.penalised == 0]
        return int((torch.linalg.svdvals(biases) > self.cut).sum()) == biases.shape[1]

    def _level_directions(self) -> int:
        """Count the directions, of those the rows that hold leave open, along which the objective stays level.

        A ridge leaves those open that it does not bend.
        """
        rows, r, level = self.rows, self.r, 0
        ridge = bool((rows.penalty > 0).any())
        unbent = self.coordinates.penalised == 0
        open_ = unbent if ridge else torch.ones_like(unbent)
        held, U = self.held[:, open_], self.coordinates.U[:, open_]
        _, values, right = torch.linalg.svd(torch.cat([held, held.new_zeros(1, held.shape[1])]), full_matrices=True)
        for d in right[int((values > self.cut).sum()) :]:
            q = U @ d
            if not bool(q.any()):
                continue
            apart = (r.abs() > LEVEL * r.abs().max()) & (q != 0)
            length = 0.5 * float((r[apart] / q[apart]).abs().min()) if bool(apart.any()) else 1.0
            ends = [float(rows.loss(r - sign * length * q).sum()) for sign in (1.0, -1.0)]
            level += min(ends) <= self.objective * (1 + LEVEL)
        return level
