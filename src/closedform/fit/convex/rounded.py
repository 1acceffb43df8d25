"""Huber's losses where few rows bend them: minimised for wide quadratics first, then for narrower ones."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from closedform.engine.threads import one_thread
from closedform.fit.convex.certificate import GAP_TOLERANCE
from closedform.fit.convex.coordinates import Coordinates
from closedform.fit.convex.finish import rounded_gap
from closedform.fit.convex.kinked import minimise_kinked, minimise_rounded
from closedform.fit.convex.kinked_rows import KinkedFit, KinkedRows
from closedform.fit.convex.passes import counted_rows
from closedform.fit.convex.problem import ConvexProblem
from closedform.losses.huber import Huber, SmoothL1
from closedform.rows import Design
from closedform.words.errors import InputError

__all__ = ["rounded_minimum"]

#: Roundings of a residual that weights in float64 may leave, as in an exact fit (Oettli and Prager 1964).
_ROUNDINGS = 16.0
#: What quadratics take from absolute errors, in parts of these at zero weights, that may be nothing at the minimum.
_NOTHING = 1e-11


def rounded_minimum(design: Design, problem: ConvexProblem) -> tuple[Tensor, float, float]:
    """Return coefficients at the minimum, ``(columns, outputs)``, and a bound on the excess, along a path of widths.

    The third is what rounding the weights to float64 moves the objective by where residuals are zero.

    Where the quadratic is narrow beside the residuals, hardly a row bends the loss, and a Newton step says little. For
    wide quadratics it is least squares, and each minimum is a start for the next (Madsen and Nielsen 1993). Where it is
    so narrow that it counts for nothing, the minimum is that of absolute errors.

    Args:
        design: The rows, scanned, in memory.
        problem: The problem on them, by ``HuberLoss`` or ``SmoothL1Loss``.

    Raises:
        InputError: the losses are beyond the range of float64.
    """
    criterion = problem.criterion
    assert isinstance(criterion, Huber | SmoothL1)
    columns, (X, T, weight, _) = problem.columns, counted_rows(design.rows.gather())
    A = columns.unweighted(X)
    # Half a squared residual of weight w, linear from the width on, is that of a row times the root of w.
    root, scale = weight.sqrt(), criterion.scale
    bound = scale * criterion.width * root

    if not bool(torch.isfinite(criterion.values(torch.zeros_like(T), T)).all()):
        raise InputError(f"{criterion.name} of these targets is beyond the range of float64; scale the targets down.")
    theta, gap, moved = torch.zeros_like(problem.penalty), 0.0, 0.0
    with one_thread(min(A.shape), A.device):
        for output in range(problem.n_outputs):
            strength, t = problem.strengths[output], T[:, output]
            # What is proven is of the rows as they are.
            rows = KinkedRows(A, t, bound * root, bound * root, problem.penalty[:, output])
            kinked = _kinked(rows, problem, strength, 0.5 * criterion.width * float(rows.above.sum()))
            if kinked is not None:
                theta[:, output], gap = kinked.v, gap + kinked.gap
                continue
            coordinates = Coordinates.of(A * root.unsqueeze(1), columns.scale, bias=columns.bias, ridge=strength > 0)
            small = KinkedRows(coordinates.U, t * root, bound, bound, strength * coordinates.penalised)
            v = coordinates.shortest(coordinates.raised(minimise_rounded(small, 1 / scale)))
            theta[:, output] = v
            unscaled = replace(coordinates, U=coordinates.U / root.unsqueeze(1))
            gap += rounded_gap(rows, unscaled, small.penalty, v, 1 / (scale * weight))
            hidden = (_ROUNDINGS * rows.rounding(v)).unsqueeze(1)
            moved += float((criterion.values(hidden, torch.zeros_like(hidden)) * weight).sum())
    return theta, gap, moved


def _kinked(rows: KinkedRows, problem: ConvexProblem, strength: float, apart: float) -> KinkedFit | None:
    """Return the fit by absolute errors, with what is proven of the rounded ones; None where these are another loss.

    The rounded losses are no larger than the absolute ones, and at most ``apart`` smaller in all.
    """
    if apart > _NOTHING * float(rows.loss(rows.t).sum()):
        return None
    columns = problem.columns
    coordinates = Coordinates.of(rows.A, columns.scale, bias=int(columns.bias), ridge=strength > 0)
    fit = minimise_kinked(rows, coordinates, strength)
    found = replace(fit, gap=fit.gap + apart)
    return found if found.gap <= GAP_TOLERANCE * fit.objective else None
