"""Tables with more features than rows, in the coordinates of their rows: a square table has the same minimum."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from closedform.fit.convex.certificate import GAP_TOLERANCE, GapCertificate
from closedform.fit.convex.coordinates import Coordinates
from closedform.fit.convex.finish import interpolated
from closedform.fit.convex.kinked_rows import KinkedRows
from closedform.fit.convex.passes import counted_rows
from closedform.fit.convex.solution import ConvexSolution
from closedform.fit.weights import Weights
from closedform.losses import Criterion
from closedform.numerics.twofold import LOST, residual, twofold_product
from closedform.rows import Design, Rows, TensorSource
from closedform.rows.walkers import InOrder

__all__ = ["Narrowed", "met", "narrowed"]

#: Features for each row from which on a QR factorization of the rows costs less than it saves.
_WIDE = 1.5
#: Features from which on it is worth a thought.
_MANY = 64
_EPS = torch.finfo(torch.float64).eps


@final
@dataclass(frozen=True, eq=False)
class Narrowed:
    """``X = L Q'`` with orthonormal Q: with a ridge the weights at the minimum are combinations of the rows of Q'.

    Attributes:
        rows: The table with L, ``(rows, rows)``, in the place of X.
        wide: The table.
        X: Its features in float64, ``(rows, features)``.
        Q: ``(features, rows)``.
    """

    rows: Rows
    wide: Rows
    X: Tensor
    Q: Tensor

    def lowered(self, weights: Weights | None) -> Weights | None:
        """Return weights of the narrow table with the same outputs."""
        return None if weights is None else Weights(weights.weight @ self.Q, weights.bias)

    def raised(self, weights: Weights) -> Weights:
        """Return weights of the wide table with the same outputs, of least norm."""
        return Weights(weights.weight @ self.Q.T, weights.bias)

    def gap(self, solution: ConvexSolution, criterion: Criterion, l2: float) -> float:
        """Return the gap in the wide table, which is L Q' but for the rounding of the factorization.

        What a row's loss changes by is at most its slope times what its outputs change by, and with a ridge the
        minimiser is no longer than the objective allows.

        Args:
            solution: That of the narrow table.
            criterion: The criterion.
            l2: The smallest ridge strength.
        """
        block = self.rows.gather()
        Z = torch.nn.functional.linear(block.X, solution.weight, solution.bias)
        slopes = criterion.slopes(Z, block.Y).norm(dim=1)
        if block.weight is not None:
            slopes = slopes * block.weight
        length = math.sqrt(2 * max(solution.certificate.objective, 0.0) / l2) + float(solution.weight.norm())
        missed = (self.X - block.X @ self.Q.T).norm(dim=1)
        missed = missed + 4 * math.sqrt(self.X.shape[0]) * _EPS * self.X.norm(dim=1)
        return solution.certificate.gap + 2 * length * float((slopes * missed).sum())

    def separates(self, direction: Weights, criterion: Criterion) -> bool:
        """Say whether all rows' losses fall strictly along a direction, in twice the precision: then it is a proof."""
        outputs = direction.weight.shape[0]
        falling, rising = criterion.far_slopes(self.rows.gather().Y, outputs)
        columns = []
        for output in range(outputs):
            high, low = twofold_product(self.X, direction.weight[output])
            shift = 0.0 if direction.bias is None else float(direction.bias[output])
            columns.append(high + shift + low)
        changes = torch.stack(columns, 1)
        doubt = 4 * _EPS * changes.abs() + LOST * (self.X.abs() @ direction.weight.abs().T)
        if not criterion.coupled:
            up, down = (rising == 0) & (falling > 0), (falling == 0) & (rising > 0)
            return bool(((up & (changes > doubt)) | (down & (-changes > doubt))).all())
        own = falling > 0
        least = torch.where(own, changes - doubt, math.inf).amin(1)
        others = torch.where(own, -math.inf, changes + doubt).amax(1)
        return bool(((own.sum(1) == 1) & (least > others)).all())


def narrowed(rows: Rows) -> Narrowed | None:
    """Return a wide table in memory in the coordinates of its rows; None where that does not pay.

    Args:
        rows: The table.
    """
    m, c = rows.n_rows, rows.n_features
    if c < max(_MANY, _WIDE * m) or not rows.in_memory or not isinstance(rows.walker, InOrder):
        return None
    X = rows.block(0, m, unweighted=True).X
    Q, R = torch.linalg.qr(X.T)
    return Narrowed(replace(rows, x=TensorSource(R.T.contiguous(), "X")), rows, X, Q)


def met(design: Design, criterion: Criterion, n_outputs: int) -> tuple[Weights, GapCertificate] | None:
    """Return weights that meet every target of a criterion of residuals up to their own rounding, or None.

    No loss is below zero, so that the loss there is the gap; it is told relative to the loss of weights of zero.

    Args:
        design: The rows, scanned; not fewer columns than rows.
        criterion: One that is zero where a residual is, and nowhere below.
        n_outputs: How many outputs there are.
    """
    columns, (X, Y, weight, _) = design.columns, counted_rows(design.rows.gather())
    A = columns.unweighted(X)
    coordinates = Coordinates.of(A, columns.scale, bias=columns.bias, ridge=False)
    ones = torch.ones_like(weight)
    fits = [
        interpolated(KinkedRows(A, Y[:, output], ones, ones, 0 * columns.scale), coordinates)
        for output in range(n_outputs)
    ]
    found = [fit for fit in fits if fit is not None]
    if len(found) < n_outputs:
        return None

    theta = torch.stack([fit.v for fit in found], 1)
    left = torch.stack([residual(Y[:, j], A, fit.v) for j, fit in enumerate(found)], 1)
    loss, without = (float((criterion.values(r, torch.zeros_like(r)) * weight).sum()) for r in (-left, -Y))
    gap = loss * (1 + (left.numel() + 8) * _EPS)
    relative = gap / without if without else gap
    certificate = GapCertificate(
        accepted=relative <= GAP_TOLERANCE,
        gap=gap,
        relative_gap=relative,
        tolerance=GAP_TOLERANCE,
        excess_loss=gap,
        loss=loss,
        objective=loss,
        gradient_norm=math.nan,
        condition=coordinates.condition**2,
        flat_directions=A.shape[1] - coordinates.rank,
        unique=coordinates.rank == A.shape[1],
        reason="no loss is below zero, and residuals are the rounding of the weights to float64",
    )
    return Weights.from_stacked(theta * columns.scale.unsqueeze(1), bias=columns.bias), certificate
