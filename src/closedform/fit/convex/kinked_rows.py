"""Rows whose losses have kinks, one output at a time, and what is found of their minimiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

__all__ = ["EXACT", "ActiveRows", "KinkedFit", "KinkedRows"]

#: Rounding of its terms, in units, that a residual of an exact fit may show: coefficients are rounded to float64.
EXACT = 8.0
#: Part of the kinks from which on what the rounding of coefficients hides is no exact fit any more.
_MOST_HIDDEN = 1e-4
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
        hidden = EXACT * float((slopes * self.rounding(v)).sum())
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
        face: Whether some of these directions are seen by the rows: the coefficients are then any that minimise.
        how: What was done.
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
    face: bool = False
    how: str = ""


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
