"""Losses with kinks by an interior point method: where smoothing loses its way, as beside a tiny ridge."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from closedform.fit.convex.kinked_rows import ActiveRows, KinkedRows
from closedform.numerics.least_norm import least_norm_lstsq

__all__ = ["interior_point"]

#: Steps at most; ten to forty are usual.
_MOST_STEPS = 100
#: Part of the way to the nearest bound that a step takes at most.
_TO_BOUND = 0.9995
#: Sum of the products, relative to the objective, at which it is known which rows lie on their kinks.
_CLOSED = 1e-15
#: Shift of a singular matrix of unit diagonal. It bends steps and no minimum.
_SHIFT = 1e-15
#: How far a step that nothing bounds may go, in parts of what it changes.
_FAR = 1e10


def interior_point(rows: KinkedRows) -> tuple[ActiveRows, int]:
    """Return which rows lie on their kinks at a minimiser, what they were found by, and the steps taken.

    A primal-dual method with a corrector (Mehrotra 1992; for quantiles Portnoy and Koenker 1997): the parts of the
    residuals above and below their kinks, and how far the dual point is from its bounds, stay positive, and their
    products shrink together. No curvature of the rows decides a step, so that a ridge may be as small as it likes.

    Args:
        rows: What is minimised, in coordinates that are well conditioned.
    """
    point, steps = _first(rows), 0
    while steps < _MOST_STEPS and point.products > _CLOSED * point.objective(rows):
        following = _stepped(rows, point)
        if not following.finite:
            break
        point, steps = following, steps + 1

    margin, distance = torch.minimum(point.over, point.under), torch.maximum(point.p, point.q)
    inside = margin * float(distance.mean()) > distance * float(margin.mean())
    return ActiveRows(point.v, point.u, inside), steps


@final
@dataclass(frozen=True, eq=False)
class _Point:
    """Coefficients v, parts p and q of the residuals above and below, a dual point u, and how far its bounds are."""

    v: Tensor
    p: Tensor
    q: Tensor
    u: Tensor
    over: Tensor
    under: Tensor

    @property
    def products(self) -> float:
        """The sum of the products that vanish at a minimiser."""
        return float((self.p * self.over + self.q * self.under).sum())

    @property
    def finite(self) -> bool:
        """Whether all numbers are."""
        return math.isfinite(float(self.v.sum() + self.p.sum() + self.q.sum() + self.u.sum()))

    def objective(self, rows: KinkedRows) -> float:
        """Return what these parts of the residuals cost."""
        return float((rows.above * self.p + rows.below * self.q).sum()) + rows.ridge(self.v)


def _first(rows: KinkedRows) -> _Point:
    v = least_norm_lstsq(rows.A, rows.t.unsqueeze(1)).squeeze(1)
    r = rows.t - rows.A @ v
    far, middle = float(r.abs().mean()) or 1.0, 0.5 * (rows.above + rows.below)
    return _Point(v, r.clamp_min(0) + far, (-r).clamp_min(0) + far, 0.5 * (rows.above - rows.below), middle, middle)


def _stepped(rows: KinkedRows, at: _Point) -> _Point:
    """Take a step towards products of zero, corrected for what it leaves of them."""
    system, zero = _System(rows, at), torch.zeros_like(at.p)
    _, dp, dq, du = system.change(zero, zero)
    length = min(_reach(at.p, dp), _reach(at.q, dq))
    reach = min(_reach(at.over, -du), _reach(at.under, du))
    then = (at.p + length * dp) * (at.over - reach * du) + (at.q + length * dq) * (at.under + reach * du)
    now = at.products
    aim = (float(then.sum()) / now) ** 3 * now / (2 * len(rows.t))

    dv, dp, dq, du = system.change(aim + dp * du, aim - dq * du)
    length = min(1.0, _TO_BOUND * min(_reach(at.p, dp), _reach(at.q, dq)))
    reach = min(1.0, _TO_BOUND * min(_reach(at.over, -du), _reach(at.under, du)))
    if bool((rows.penalty > 0).any()):
        # The gradient of the ridge ties the dual point to the coefficients.
        length = reach = min(length, reach)
    u = at.u + reach * du
    return _Point(
        at.v + length * dv, at.p + length * dp, at.q + length * dq, u, at.over - reach * du, at.under + reach * du
    )


@final
class _System:
    """The equations of a step from a point, factored."""

    def __init__(self, rows: KinkedRows, at: _Point) -> None:
        self._rows, self._at = rows, at
        self._missed = rows.t - rows.A @ at.v - at.p + at.q
        self._left = rows.A.T @ at.u - rows.penalty * at.v
        self._weights = 1 / (at.p / at.over + at.q / at.under)
        H = (rows.A.T * self._weights) @ rows.A + torch.diag(rows.penalty)
        # In units in which every coordinate bends it alike, however small its ridge is.
        self._units = H.diagonal().clamp_min(torch.finfo(H.dtype).tiny).sqrt()
        self._factor = _factor(H / self._units / self._units.unsqueeze(1))

    def change(self, up: Tensor, down: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return changes of v, p, q and u towards products of these sizes above and below."""
        at, A, units = self._at, self._rows.A, self._units
        b = self._missed - up / at.over + at.p + down / at.under - at.q
        right = ((A.T @ (self._weights * b) + self._left) / units).unsqueeze(1)
        dv = torch.cholesky_solve(right, self._factor).squeeze(1) / units
        du = self._weights * (b - A @ dv)
        return dv, (up + at.p * du) / at.over - at.p, (down - at.q * du) / at.under - at.q, du


def _reach(x: Tensor, dx: Tensor) -> float:
    """Return how far a positive x may move along dx."""
    return 1 / max(float((-dx / x).max()), 1 / _FAR)


def _factor(H: Tensor) -> Tensor:
    shift = 0.0
    while True:
        factor, broken = torch.linalg.cholesky_ex(H + shift * torch.eye(H.shape[0], dtype=H.dtype, device=H.device))
        if not int(broken) or not shift < 1:
            return factor
        shift = max(_SHIFT, 100 * shift)
