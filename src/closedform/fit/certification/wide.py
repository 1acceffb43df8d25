"""What the certificate says of a wide system: condition numbers, and the error of weights of least norm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import final

import torch
from torch import Tensor

from closedform.fit.claims import Claims, RowClaims
from closedform.fit.problem import Problem
from closedform.fit.row_space import adjoint_product
from closedform.numerics.extremes import Extremes
from closedform.numerics.lanczos import dominant_pair

__all__ = ["WideEvidence", "dense_conditions", "direct", "usual_length", "wide_evidence"]

#: Multiplications of a decomposition of the whole matrix that costs little beside a fit.
_DIRECT = 2**21
#: Squares of singular values above this part of the largest: eigenvalues of the Gram matrix have three digits of them.
_OF_SQUARES = 1e-12
#: Columns whose scales differ by no more than this factor: the extreme singular vectors of the matrix as it came tell
#: about those of the scaled one.
_ALIKE = 4.0
#: Random perturbations of the rows whose effect is measured.
_PROBES = 3
#: What such an effect may be short of the worst one, and rounding above one unit.
_MARGIN = 16.0
#: Seed of the perturbations; any serves.
_SEED = 41


def direct(problem: Problem) -> bool:
    """Whether the whole matrix is decomposed: it is small."""
    rows = problem.rows.n_rows + (problem.n_columns if problem.l2 > 0 else 0)
    return rows * problem.n_columns * min(rows, problem.n_columns) <= _DIRECT


def dense_conditions(problem: Problem, rank: int) -> tuple[Extremes, Extremes]:
    """Return the extreme singular values of the matrix with columns scaled and as it came, up to the rank."""
    A = problem.columns.matrix(problem.gathered)[0]
    if problem.l2 > 0:
        A = torch.cat([A, torch.diag(problem.penalty)[int(problem.bias) :]])
    return _dense(A, rank), _dense(A / problem.scale, rank)


def _dense(A: Tensor, rank: int) -> Extremes:
    peak = float(A.abs().max()) if A.numel() else 0.0
    if not 0 < peak < math.inf or rank == 0:
        return Extremes(0.0, 0.0)
    unit = 2.0 ** math.frexp(peak)[1] if math.frexp(peak)[1] < 1024 else 2.0**1023
    A = A / unit
    short = A if A.shape[0] <= A.shape[1] else A.T
    squares = torch.linalg.eigvalsh(short @ short.T)
    least, most = float(squares[-rank]), float(squares[-1])
    if least > _OF_SQUARES * most:
        return Extremes(math.sqrt(most) * unit, math.sqrt(least) * unit)

    # LAPACK finds the singular values of a triangle faster, and as well.
    R = torch.linalg.qr(A if A.shape[0] >= A.shape[1] else A.T, mode="r").R
    values = torch.linalg.svdvals(R)[:rank]
    return Extremes(float(values[0]) * unit, float(values[-1]) * unit)


@final
@dataclass(frozen=True, eq=False)
class WideEvidence:
    """What one pass over the rows of a wide system tells.

    Attributes:
        scaled: Extreme singular values of the matrix with columns scaled.
        raw: The same as it came.
        effect: How much one unit of rounding in rows and targets may change the weights, relative to them in scaled
            columns; of the worst target.
        no_combination: How far the weights are from the combination of rows that the multipliers say, relative to their
            norm; None without any.
    """

    scaled: Extremes
    raw: Extremes
    effect: float = math.nan
    no_combination: float | None = None


def wide_evidence(
    problem: Problem, claims: Claims, Z: Tensor, nearest: Tensor | None, multipliers: Tensor | None
) -> WideEvidence:
    """Look at the rows once, for all that is to be known of weights of least norm.

    Condition numbers come from the Lanczos process on ``A A'`` and its inverse, as the factor has them; the images
    of the
    vectors that it finds are measured with scaled columns. Where columns differ in scale that would tell little, and
    the matrix is decomposed.

    A backward stable solution is exact for rows and targets that are each off by some units of rounding of their own
    size
    (Higham 2002, 21.2 and 21.3). Targets change the weights through the solution operator; rows through it too, and
    through the space that the weights lie in: ``x = X'u``. The effect of random perturbations is measured.

    Args:
        problem: A wide problem without a ridge.
        claims: What the factor says of its rows.
        Z: Coordinates, ``(columns, targets)``.
        nearest: Coordinates that they are to be near to, or None.
        multipliers: Those of the weights, or None.
    """
    rows = claims.rows
    assert rows is not None
    m, first = problem.rows.n_rows, int(problem.bias)
    free = problem.bias and nearest is None
    change = Z if nearest is None else Z - nearest
    if multipliers is None and rows.multipliers is not None:
        multipliers = rows.multipliers(change)
    u = Z.new_zeros(m, 0) if multipliers is None else multipliers[:m]
    if free and u.shape[1]:
        u = (u - u.sum(0) / problem.scanned.positive_rows) * _counted(problem, u)

    scales = _Scales(problem, Z)
    generator = torch.Generator().manual_seed(_SEED)
    gaussian = torch.randn(m, 2 * _PROBES, dtype=torch.float64, device="cpu", generator=generator).to(Z.device)
    right = scales.of_rows(rows.norms) * gaussian[:, :_PROBES]
    turned = scales.of_multipliers(u) * gaussian[:, _PROBES:] if u.shape[1] else u
    moved = right[:, :0] if rows.solve is None else rows.solve(right)
    raw, ends = _raw_extremes(problem, claims, rows)

    widths = (u.shape[1], moved.shape[1], turned.shape[1], ends.shape[1])
    features, ones = adjoint_product(problem.gathered, torch.cat([u, moved[:m], turned, ends], 1))
    lifted = torch.cat([ones.unsqueeze(0), features]) if problem.bias else features
    whole, by_targets, by_rows, images = torch.tensor_split(lifted, list(accumulate(widths))[:-1], 1)
    unscale = problem.scale.unsqueeze(1)

    if rows.solve is None:
        by_targets = claims.least_norm_solve(right) * unscale if claims.least_norm_solve is not None else by_rows
    elif free:
        by_targets = torch.cat([moved[m:], by_targets[1:]])
    if free:
        by_rows = torch.cat([torch.zeros_like(by_rows[:1]), by_rows[1:]])
    effect = sum(scales.effect(part / unscale, first) for part in (by_targets, by_rows))

    no_combination = None
    if u.shape[1]:
        start = int(free)
        size = torch.linalg.vector_norm((Z * unscale)[start:], dim=0) + unscale[start:].max() * usual_length(problem)
        if nearest is not None:
            size = size + torch.linalg.vector_norm(nearest * unscale, dim=0)
        rest = torch.linalg.vector_norm((change * unscale - whole)[start:], dim=0)
        no_combination = float(torch.where(rest > 0, rest / torch.where(size > 0, size, 1.0), 0.0).max())
    scaled, raw = _scaled_extremes(problem, raw, images)
    return WideEvidence(scaled, raw, _MARGIN * effect if math.isfinite(effect) else math.inf, no_combination)


@final
class _Scales:
    """How large rows, multipliers and coordinates are beside the weights; of many targets the worst.

    Args:
        problem: The problem.
        Z: Coordinates, ``(columns, targets)``.
    """

    def __init__(self, problem: Problem, Z: Tensor) -> None:
        self._problem, self._Z = problem, Z
        whole = torch.linalg.vector_norm(Z, dim=0)
        features = torch.linalg.vector_norm(Z[int(problem.bias) :], dim=0)
        features = torch.where(features > 0, features, whole)
        self._determined = whole > 0
        self._features = torch.where(self._determined, features, 1.0)
        self._share = float((features[self._determined] / whole[self._determined]).amax()) if bool(whole.any()) else 0.0

    def of_rows(self, norms: Tensor) -> Tensor:
        """Return the sizes of rows, with their weights, times those of the weights, and of targets, ``(rows, 1)``."""
        V, offset = self._problem.columns.raw(self._Z)
        sizes = norms.unsqueeze(1) * torch.linalg.vector_norm(V, dim=0) + self._problem.gathered_targets.abs()
        if offset is not None:
            sizes = sizes + offset.abs()
        weight = self._problem.gathered.weight
        return self._worst(sizes if weight is None else sizes * weight.sqrt().unsqueeze(1))

    def of_multipliers(self, u: Tensor) -> Tensor:
        """Return the sizes of multipliers, ``(rows, 1)``."""
        return self._worst(u.abs())

    def _worst(self, sizes: Tensor) -> Tensor:
        return torch.where(self._determined, sizes / self._features, 0.0).amax(1, keepdim=True)

    def effect(self, moved: Tensor, first: int) -> float:
        """Return how far coordinates were moved, in the features alone or with the bias, whichever is more."""
        if not moved.shape[1]:
            return 0.0
        inside = float(torch.linalg.vector_norm(moved[first:], dim=0).max()) if moved.shape[0] > first else 0.0
        return max(inside, self._share * float(torch.linalg.vector_norm(moved, dim=0).max()))


def _counted(problem: Problem, like: Tensor) -> Tensor:
    """Return ones for rows of positive weight, ``(rows, 1)``."""
    weight = problem.gathered.weight
    return like.new_ones(like.shape[0], 1) if weight is None else (weight > 0).unsqueeze(1).to(like)


def usual_length(problem: Problem) -> Tensor:
    """Return the length of coordinates that reach the targets, ``(targets,)``: weights far below it are rounding."""
    return problem.target_norms / (problem.frobenius_norm or 1.0)


def _raw_extremes(problem: Problem, claims: Claims, rows: RowClaims) -> tuple[Extremes, Tensor]:
    """Return the extreme singular values of the matrix as it came, and the left vectors they belong to, ``(rows, 2)``.

    Without any vectors where the matrix is decomposed.
    """
    scale, count = problem.scale, problem.scanned.positive_rows
    if direct(problem) or float(scale.max() / scale.min()) > _ALIKE:
        return Extremes(0.0, 0.0), scale.new_zeros(problem.rows.n_rows, 0)

    generator = torch.Generator().manual_seed(_SEED)
    gaussian = torch.randn(count, 1, dtype=torch.float64, device="cpu", generator=generator).to(scale.device)
    found = claims.extremes or Extremes(0.0, 0.0)
    starts = [
        gaussian if known is None or known.shape[0] != count else known for known in (found.dominant, found.recessive)
    ]
    largest, high, _ = dominant_pair(rows.gram_product, starts[0])
    inverse, low, _ = dominant_pair(rows.gram_solve, starts[1])

    ends = torch.cat([high, low], 1)
    ends = ends / torch.linalg.vector_norm(ends, dim=0)
    if rows.kept is not None:
        spread = ends.new_zeros(rows.kept.shape[0], 2)
        spread[rows.kept] = ends
        ends = spread
    if problem.gathered.weight is not None:
        ends = ends * problem.gathered.weight.sqrt().unsqueeze(1)
    return Extremes(math.sqrt(largest), 1 / math.sqrt(inverse) if inverse > 0 else 0.0), ends


def _scaled_extremes(problem: Problem, raw: Extremes, images: Tensor) -> tuple[Extremes, Extremes]:
    if not images.shape[1]:
        return dense_conditions(problem, problem.scanned.positive_rows)
    scale = problem.scale
    if float(scale.max()) == float(scale.min()):
        unit = float(scale[0])
        return Extremes(raw.largest * unit, raw.smallest * unit), raw
    # |D A'u| for a unit vector u: from below for the largest, from above for the smallest.
    sizes = torch.linalg.vector_norm(images * scale.unsqueeze(1), dim=0).tolist()
    return Extremes(sizes[0], sizes[1]), raw
