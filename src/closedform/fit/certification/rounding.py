"""How far the weights would move if the data were rounded once more to the dtype they came in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from closedform.fit.certification.wide import WideEvidence
from closedform.fit.claims import Claims
from closedform.fit.problem import Problem
from closedform.numerics.host import Vector, lengths
from closedform.rows import Rows

__all__ = ["Rounding", "rounding_error"]

#: Standard deviations that random rounding may reach.
_MARGIN = 3.0
#: Part of the measured effect on a wide system that is kept in store for roundings other than those of the data.
_SPARE = 8.0


@final
@dataclass(frozen=True)
class Rounding:
    """The units of roundoff of data narrower than float64; 0 for what is not.

    Attributes:
        features: Of X, relative.
        targets: Of Y, relative.
        name: What the coarser dtype is called.
    """

    features: float
    targets: float
    name: str

    @staticmethod
    def of(rows: Rows) -> Rounding | None:
        """Return what is known of rows, or None where they are of float64 or of integers.

        Args:
            rows: The rows, whose sources know the dtype they are stored in.
        """
        dtypes = rows.x.stored_dtype, rows.y.stored_dtype
        features, targets = (_unit(dtype) for dtype in dtypes)
        if not features and not targets:
            return None
        return Rounding(features, targets, str(dtypes[int(targets > features)]).removeprefix("torch."))


def _unit(dtype: torch.dtype) -> float:
    """Return half a unit in the last place of 1, or 0 where doubles are no wider."""
    return torch.finfo(dtype).eps / 2 if dtype.is_floating_point and dtype != torch.float64 else 0.0


def rounding_error(
    problem: Problem, claims: Claims, Z: Tensor, residual: Vector, seen: WideEvidence, probes: Tensor
) -> tuple[float | None, str | None]:
    """Return about how far the minimiser moves if the data are rounded to their dtype, and the name of that.

    The error is relative to the weights, in scaled columns, of the worst target; (None, None) where nothing was
    rounded, or the rank is lower than rows and columns. Bounded as a perturbation of that norm (Wedin 1973) and, which
    is mostly less, expected of independent errors of all entries in rows that are alike (Stewart 1990): then the
    weights are moved by ``A^+`` times errors of the size ``u |a_ij z_j|``, and ``|A^+|_F`` is known from probes.

    Args:
        problem: The problem.
        claims: What the factor says.
        Z: Coordinates of the weights, ``(columns, targets)``.
        residual: Lengths of the residuals, ``(targets,)``, the ridge rows counted.
        seen: The extreme singular values, and the effect of rounding where the system is wide.
        probes: Images of Gaussian vectors under the inverse of the root, ``(columns, k)``, or ``(columns, 0)``.
    """
    rounding = Rounding.of(problem.rows)
    rank = claims.rank
    if rounding is None or not (rank.full or rank.rank == problem.scanned.positive_rows):
        return None, None
    unit = max(rounding.features, rounding.targets)
    if rank.ambiguous:
        return math.inf, rounding.name
    if claims.rows is not None:
        return max(unit, unit * seen.effect / _SPARE), rounding.name

    size, smallest = lengths(Z), seen.scaled.smallest
    determined = size > 0
    if not determined.any():
        return unit, rounding.name
    if not smallest > 0:
        return math.inf, rounding.name

    # The ridge rows and the ones of a bias are exact.
    norms = rounding.features * problem.design.norms * problem.scale
    norms[: int(problem.bias)] = 0.0
    change, of_targets = float(torch.linalg.vector_norm(norms)), rounding.targets * problem.target_sizes
    bound = (change * size + of_targets + change * residual / smallest) / smallest
    if probes.shape[1]:
        rows = max(problem.rows.triangle_of or problem.scanned.positive_rows, 1)
        moved = np.hypot(lengths(norms.unsqueeze(1) * Z), of_targets)
        turned = rounding.features * residual / smallest
        inverse = max(float(torch.linalg.vector_norm(probes)) / math.sqrt(probes.shape[1]), 1 / smallest)
        # The variance of a rounding error is a third of its largest square.
        bound = np.minimum(bound, _MARGIN * np.hypot(moved, turned) * inverse / math.sqrt(3 * rows))
    return max(unit, float((bound / size)[determined].max())), rounding.name
