"""Condition numbers: extreme singular values from a factor, measured on the rows where the factor is not close."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import torch
from torch import Tensor

from closedform.engine.threads import EXTREMES_BY_ONE, all_threads, dense_of
from closedform.engine.triangles import COMPILED
from closedform.fit.certification.wide import dense_conditions, direct
from closedform.fit.claims import Claims
from closedform.fit.problem import Problem
from closedform.numerics.extremes import Extremes, extreme_singular_values
from closedform.numerics.lanczos import dominant_pair
from closedform.numerics.root import TriangularRoot

__all__ = ["condition_numbers"]

#: A factor further from the matrix than this, as probed, tells where the extreme singular values are, not what.
_CLOSE = 0.02
#: Beyond this part of 1 / eps the image of a trailing singular vector is rounding, and longer than its singular value.
_RESOLVED = 1e-3
#: Seed of start vectors; any serves.
_SEED = 43


def condition_numbers(problem: Problem, claims: Claims, factor_error: float) -> tuple[Extremes, Extremes]:
    """Return the extreme singular values of the matrix with columns scaled, and as it came.

    Args:
        problem: The problem.
        claims: What the factor says.
        factor_error: How far its root is from the matrix, as probed; nan without a root.
    """
    if claims.root is None:
        large_ridge = problem.l2 > 0 and not direct(problem)
        return _of_a_ridge(problem, claims) if large_ridge else dense_conditions(problem, claims.rank.rank)
    scaled, raw = _claimed(problem, claims)
    measured = factor_error <= _CLOSE or claims.measured
    return (scaled, raw) if measured else _measured(problem, scaled, raw)


def _of_a_ridge(problem: Problem, claims: Claims) -> tuple[Extremes, Extremes]:
    """Extreme singular values of a large wide matrix with the rows of its ridge, which the smallest come from."""
    found, first = claims.extremes or Extremes(0.0, 0.0), int(problem.bias)
    root = problem.l2**0.5
    generator = torch.Generator().manual_seed(_SEED)
    start = torch.randn(problem.n_columns, 1, dtype=torch.float64, device="cpu", generator=generator)
    largest, _, _ = dominant_pair(problem.normal_product, start.to(problem.scale.device))
    ones = problem.scanned.weight_sum**0.5 if problem.bias else 0.0
    smallest = root * float(problem.scale[first:].min())
    return Extremes(largest**0.5, smallest), Extremes(math.hypot(found.largest, ones), min(root, found.smallest))


def _claimed(problem: Problem, claims: Claims) -> tuple[Extremes, Extremes]:
    root, extremes, rank, scale = claims.root, claims.extremes, claims.rank, problem.scale
    assert root is not None
    if root.shape[0] == 0:
        return Extremes(0.0, 0.0), Extremes(0.0, 0.0)

    if rank.full:
        found = extremes or extreme_singular_values(root)
    elif extremes is not None and extremes.dominant is not None:
        found = extremes
    else:
        found = _rows_extremes(dense_of(root))
    unit, most = problem.columns.scale_range
    if unit == most:
        return found, Extremes(found.largest / unit, found.smallest / unit, found.dominant, found.recessive)
    if rank.full:
        return found, extreme_singular_values(root, scale, start=found)
    raw, unscale = _rows_extremes(dense_of(root) / scale), 1 / scale.unsqueeze(1)
    assert raw.dominant is not None
    assert raw.recessive is not None
    return found, replace(raw, dominant=unscale * raw.dominant, recessive=unscale * raw.recessive)


def _rows_extremes(S: Tensor) -> Extremes:
    """Extreme singular values of independent rows, and the right singular vectors they belong to."""
    # In the middle of its range, so that squares stay in that of float64.
    unit = torch.ldexp(S.new_ones(()), torch.frexp(S.abs().max()).exponent.clamp(-1000, 1000))
    with all_threads(S.shape[1] > EXTREMES_BY_ONE):
        Q, T = torch.linalg.qr((S / unit).T)
    # S = T'Q', so with T = W diag(s) U' the right singular vectors of S are Q W; and W = T U / s = T^-T U s.
    root = TriangularRoot(T.contiguous(), COMPILED)
    found = extreme_singular_values(root)
    assert found.dominant is not None
    assert found.recessive is not None
    ends = Q @ torch.cat([root.product(found.dominant), root.adjoint_solve(found.recessive)], 1)
    ends = ends / torch.linalg.vector_norm(ends, dim=0)
    size = float(unit)
    return Extremes(found.largest * size, found.smallest * size, ends[:, :1], ends[:, 1:])


def _measured(problem: Problem, scaled: Extremes, raw: Extremes) -> tuple[Extremes, Extremes]:
    """Measure the extreme singular values on the rows themselves, in the directions where the factor found them."""
    found = [scaled.dominant, scaled.recessive, raw.dominant, raw.recessive]
    vectors = [v for v in found if v is not None]
    resolved = max(scaled.condition, raw.condition) * sys.float_info.epsilon < _RESOLVED
    if len(vectors) < len(found) or not resolved:
        return scaled, raw
    directions = torch.cat(vectors, 1)
    lengths = torch.cat([directions[:, :2], directions[:, 2:] * problem.scale.unsqueeze(1)], 1)
    sizes = problem.image_norms(directions) / torch.linalg.vector_norm(lengths, dim=0)
    values = [float(size) for size in sizes]
    return (
        replace(scaled, largest=values[0], smallest=values[1]),
        replace(raw, largest=values[2], smallest=values[3]),
    )
