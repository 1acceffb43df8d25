"""Independent answers: the minimiser in exact integer arithmetic, and the backward error by dense SVD.

Nothing here is shared with the package. A float64 number is an integer times a power of two, so the normal
equations of a small problem can be formed and solved without any rounding at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import flint
import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]
Exact = NDArray[np.object_]  # of int or Fraction
EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Minimiser:
    """The exact least-norm minimiser, rounded to float64 once at the very end.

    ``weight`` is (targets, features), ``bias`` (targets,) or None. ``loss`` is the weighted mean of squared
    errors over rows and targets. ``rank`` is that of the design matrix in exact arithmetic, the column of ones
    of a bias included; with a ridge it is full.
    """

    weight: Array
    bias: Array | None
    loss: float
    rank: int


def to_numpy(data: Any) -> Array:
    """Return ``data`` as a float64 array; every dtype of the tests fits exactly."""
    if isinstance(data, torch.Tensor):
        data = data.detach().cpu().to(torch.float64).numpy()
    return np.asarray(data, dtype=np.float64)


def as_tables(X: Any, Y: Any) -> tuple[Array, Array]:
    """Return X as (rows, features) and Y as (rows, targets)."""
    x, y = to_numpy(X), to_numpy(Y)
    y = y.reshape(-1, 1) if y.shape == x.shape[:-1] else y.reshape(-1, y.shape[-1])
    return x.reshape(-1, x.shape[-1]), y


def minimise(
    X: Any, Y: Any, *, bias: bool = False, l2: Any = 0.0, sample_weight: Any = None, start: Any = None
) -> Minimiser:
    """Return the exact minimiser of ``sum w (Y - X W' - b)^2 + l2 |W|^2`` of least norm, bias outside it.

    With ``start = (weight, bias)`` it is instead the minimiser nearest to that point, bias inside the norm:
    the limit of gradient descent from there.
    """
    x, y = as_tables(X, Y)
    weight = np.ones(len(x)) if sample_weight is None else to_numpy(sample_weight).reshape(-1)
    if start is not None:
        return _minimise_from(x, y, bias, weight, start)
    strengths = np.broadcast_to(to_numpy(l2), (y.shape[1],))
    if np.ptp(strengths) > 0:
        parts = [_minimise(x, y[:, [j]], bias, float(s), weight) for j, s in enumerate(strengths)]
        return Minimiser(
            np.concatenate([p.weight for p in parts]),
            np.concatenate([p.bias for p in parts if p.bias is not None]) if bias else None,
            float(np.mean([p.loss for p in parts])),
            min(p.rank for p in parts),
        )
    return _minimise(x, y, bias, float(strengths[0]), weight)


def _minimise_from(x: Array, y: Array, bias: bool, weight: Array, start: Any) -> Minimiser:
    origin = to_numpy(start[0])
    if bias:
        x = np.column_stack([x, np.ones(len(x))])
        origin = np.column_stack([origin, to_numpy(start[1])])
    # The move is the least-norm answer for what the start leaves over, and that is kept exact.
    found = _minimise(x, y, False, 0.0, weight, origin=origin)
    if not bias:
        return found
    return Minimiser(found.weight[:, :-1], found.weight[:, -1], found.loss, found.rank)


def _minimise(x: Array, y: Array, bias: bool, l2: float, weight: Array, origin: Array | None = None) -> Minimiser:
    xi, x_shift = _integers(x)
    yi, y_shift = _integers(y)
    wi, w_shift = _integers(weight)
    if origin is not None:
        oi, o_shift = _integers(origin)
        both = max(y_shift, x_shift + o_shift)
        yi = yi * 2 ** (both - y_shift) - (xi @ oi.T) * 2 ** (both - x_shift - o_shift)
        y_shift = both
    total = int(wi.sum())
    weighted = xi * wi[:, None]
    gram, cross, square = weighted.T @ xi, weighted.T @ yi, (yi * yi * wi[:, None]).sum(axis=0)
    if bias:
        x_sum, y_sum = wi @ xi, wi @ yi
        gram = total * gram - np.outer(x_sum, x_sum)
        cross = total * cross - np.outer(x_sum, y_sum)
        square = total * square - y_sum * y_sum
    strength = Fraction(l2) * 2 ** (2 * x_shift + w_shift) * (total if bias else 1)
    scale = strength.denominator
    ridge = np.diag(np.full(len(gram), strength.numerator, dtype=object))
    solution, rank = _least_norm(gram * scale + ridge, cross * scale)

    squared_errors = square - 2 * (solution * cross).sum(axis=0) + (solution * (gram @ solution)).sum(axis=0)
    unit = Fraction(1, 2 ** (2 * y_shift) * total * y.shape[1] * (total if bias else 1))
    result = solution * Fraction(2) ** (x_shift - y_shift)
    offset = None
    if bias:
        offset = (y_sum * Fraction(1, 2**y_shift) - (x_sum @ result) * Fraction(1, 2**x_shift)) / total
    if origin is not None:
        result = result + np.array([[Fraction(float(v)) for v in row] for row in origin.T], dtype=object)
    return Minimiser(
        _floats(result.T),
        None if offset is None else _floats(offset),
        _float(squared_errors.sum() * unit),
        rank + bias,
    )


def _integers(values: Array) -> tuple[Exact, int]:
    """Return integers and a shift with ``values == integers * 2**-shift`` exactly."""
    ratios = [float(v).as_integer_ratio() for v in values.ravel()]
    shift = max(denominator.bit_length() - 1 for _, denominator in ratios)
    integers = np.empty(len(ratios), dtype=object)
    integers[:] = [numerator * (2**shift // denominator) for numerator, denominator in ratios]
    return integers.reshape(values.shape), shift


def _least_norm(gram: Exact, cross: Exact) -> tuple[Exact, int]:
    """Return the least-norm solution of a consistent symmetric system, as Fractions, and its rank."""
    pivots = _pivots(gram)
    rank = len(pivots)
    if rank == 0:
        return np.full(cross.shape, Fraction(0), dtype=object), 0
    # The answer is a combination of rows of the matrix: w = F'u with (F N F')u = F c, which has one solution.
    # The matrix is symmetric, so the rows at the pivot columns are independent.
    whole = _matrix(gram)
    basis = _matrix(np.diag(np.full(rank, 1, dtype=object)) if rank == len(gram) else gram[pivots])
    solved = (basis * whole * basis.transpose()).solve(basis * _matrix(cross))
    combination = basis.transpose() * flint.fmpq_mat(solved)
    result = np.empty(cross.shape, dtype=object)
    for i, row in enumerate(combination.table()):
        result[i] = [Fraction(int(v.p), int(v.q)) for v in row]
    return result, rank


def _matrix(values: Exact) -> flint.fmpz_mat:
    return flint.fmpz_mat(*values.shape, [int(v) for v in values.ravel()])


def _pivots(matrix: Exact) -> list[int]:
    """Return the columns that no combination of those before them gives."""
    reduced, _, rank = _matrix(matrix).rref()
    return [next(j for j in range(reduced.ncols()) if reduced[i, j] != 0) for i in range(rank)]


def _float(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _floats(values: Exact) -> Array:
    return np.array([_float(v) for v in values.ravel()]).reshape(values.shape)


@dataclass(frozen=True)
class Scaled:
    """The dense least-squares problem that a fit stands for, every column divided by its norm.

    ``A`` is (rows, columns) with ridge rows below and the column of ones last; ``B`` (rows, targets);
    ``norms`` the norms of the columns before the division (1 for a zero column).
    """

    A: Array
    B: Array
    norms: Array


def scaled_problem(X: Any, Y: Any, *, bias: bool, l2: float = 0.0, sample_weight: Any = None) -> Scaled:
    """Return the dense problem with unit columns; safe for numbers whose squares overflow."""
    A, B = as_tables(X, Y)
    if bias:
        A = np.column_stack([A, np.ones(len(A))])
    if sample_weight is not None:
        root = np.sqrt(to_numpy(sample_weight).reshape(-1, 1))
        A, B = A * root, B * root
    if l2:
        ridge = math.sqrt(l2) * np.eye(A.shape[1])[: A.shape[1] - bias]
        A, B = np.vstack([A, ridge]), np.vstack([B, np.zeros((len(ridge), B.shape[1]))])
    largest = np.abs(A).max(axis=0)
    largest[largest == 0] = 1.0
    norms = largest * np.linalg.norm(A / largest, axis=0)
    norms[norms == 0] = 1.0
    return Scaled(A / norms, B, norms)


def residual(problem: Scaled, weight: Any, bias: Any) -> tuple[Array, Array]:
    """Return the residual (rows, targets) and the weights in scaled units (columns, targets)."""
    theta = to_numpy(weight).T
    if bias is not None:
        theta = np.vstack([theta, to_numpy(bias)])
    z = theta * problem.norms[:, None]
    # Extended precision where the platform has it, so that the oracle's own rounding stays in the background.
    exactish = problem.B.astype(np.longdouble) - problem.A.astype(np.longdouble) @ z.astype(np.longdouble)
    return exactish.astype(np.float64), z


def backward_error_each(problem: Scaled, weight: Any, bias: Any) -> Array:
    """Return per target the Karlson-Walden backward error, perturbing A alone, relative to the norm of A.

    It is within a factor of two of the smallest ``|dA|_F / |A|_F`` for which the weights minimise exactly.
    """
    R, Z = residual(problem, weight, bias)
    scale = np.abs(R).max(axis=0) + np.abs(Z).max(axis=0)
    scale[scale == 0] = 1.0
    R, Z = R / scale, Z / scale
    U, s, _ = np.linalg.svd(problem.A, full_matrices=False)
    projected = s[:, None] * (U.T @ R)
    weights = (s**2)[:, None] * (Z**2).sum(axis=0) + (R**2).sum(axis=0)
    terms = np.divide(projected**2, weights, out=np.zeros_like(projected), where=weights > 0)
    norm = np.linalg.norm(problem.A) or 1.0
    return np.asarray(np.sqrt(terms.sum(axis=0)) / norm)


def backward_error_joint(problem: Scaled, weight: Any, bias: Any) -> float:
    """Return the backward error of all targets at once: one dA for all of them, and dB, both relative.

    To first order it is the smallest ``|[dA, t dB]|_F / |A|_F`` with ``t = |A|_F / |B|_F``; the Kronecker
    system behind it is diagonal in the singular bases of A and of the pair (residual, weights).
    """
    R, Z = residual(problem, weight, bias)
    unit = np.abs(problem.B).max() or 1.0
    R, Z, B = R / unit, Z / unit, problem.B / unit
    norm = np.linalg.norm(problem.A) or 1.0
    theta = norm / (np.linalg.norm(B) or 1.0)
    U, s, _ = np.linalg.svd(problem.A, full_matrices=False)
    _, stacked, P = np.linalg.svd(np.vstack([Z, np.eye(Z.shape[1]) / theta]), full_matrices=False)
    T = P.T / stacked
    _, d, Q = np.linalg.svd(R @ T, full_matrices=True)
    d = np.concatenate([d, np.zeros(len(Q) - len(d))])
    projected = s[:, None] * (U.T @ R @ T @ Q.T)
    weights = (s**2)[:, None] + d**2
    terms = np.divide(projected**2, weights, out=np.zeros_like(projected), where=weights > 0)
    return float(np.sqrt(terms.sum()) / norm)


def forward_bound(problem: Scaled, exact: Minimiser) -> Array:
    """Return per target how far scaled weights may lie from the exact ones: 100 eps (k |z| + k^2 |r| / s1).

    ``k`` is the condition number of the scaled matrix, cut at its exact rank.
    """
    R, Z = residual(problem, exact.weight, exact.bias)
    s = np.linalg.svd(problem.A, compute_uv=False)[: max(exact.rank, 1)]
    if s[0] == 0:
        return np.zeros(Z.shape[1])
    condition = s[0] / s[-1] if s[-1] > 0 else math.inf
    unit = np.abs(Z).max(axis=0) + np.abs(R).max(axis=0)
    unit[unit == 0] = 1.0
    z, r = np.linalg.norm(Z / unit, axis=0), np.linalg.norm(R / unit, axis=0)
    return np.asarray(100 * EPS * (condition * z + condition**2 * r / s[0]) * unit)
