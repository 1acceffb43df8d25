"""Least squares in exact rational arithmetic (FLINT): the oracle of ``digits=``. Every double is taken as it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import flint
import numpy as np
from numpy.typing import NDArray

import closedform as cf

__all__ = ["Errors", "Exact", "errors", "minimiser"]

Array = NDArray[np.float64]
EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Exact:
    """The minimiser, and how hard the problem is.

    Attributes:
        weights: ``weights[i][j]``: column i (the bias first, if there is one), target j.
        condition: Condition number in the 2-norm with every column (every equation of a wide system) scaled to norm 1,
            right to a few units of double precision.
        norms: Norms of the columns of the design, with weights and ridge in them, to double precision.
    """

    weights: list[list[Fraction]]
    condition: float
    norms: Array


def minimiser(X: Any, Y: Any, *, bias: bool = False, l2: float = 0.0, sample_weight: Any = None) -> Exact:
    """Return the minimiser as ``cf.solve`` defines it; of a wide system without a ridge the one of least norm.

    A problem without a single minimiser (of least norm, when wide) raises ZeroDivisionError.
    """
    x, y = _rational(X), _rational(Y)
    weight = [flint.fmpq(1)] * x.nrows() if sample_weight is None else _rational(sample_weight).entries()
    # A row of weight zero is no equation.
    kept = [i for i, value in enumerate(weight) if value != 0]
    x, y, weight = _rows(x, kept), _rows(y, kept), [weight[i] for i in kept]
    if x.nrows() < x.ncols() + bias and not l2:
        return _wide(x, y, bias)
    design = _with_ones(x) if bias else x
    weighted = _scale_rows(design, weight)
    normal = design.transpose() * weighted
    for j in range(int(bias), design.ncols()):
        normal[j, j] += _number(l2)
    # One solve gives the weights and the inverse that the condition number needs.
    both = normal.solve(_beside(weighted.transpose() * y, _identity(design.ncols())))
    solution, inverse = _columns(both, 0, y.ncols()), _columns(both, y.ncols(), both.ncols())
    norms = _roots(normal)
    return Exact(_fractions(solution), _condition(normal, inverse, norms), norms)


def _rows(matrix: flint.fmpq_mat, kept: list[int]) -> flint.fmpq_mat:
    return flint.fmpq_mat([[matrix[i, j] for j in range(matrix.ncols())] for i in kept])


def _wide(x: flint.fmpq_mat, y: flint.fmpq_mat, bias: bool) -> Exact:
    design, right = x, y
    if bias:
        last = x.nrows() - 1
        design = _difference(x, last)
        right = _difference(y, last)
    weights = [[Fraction(0)] * y.ncols() for _ in range(x.ncols())]
    condition = 1.0
    if design.nrows():
        gram = design * design.transpose()
        both = gram.solve(_beside(right, _identity(design.nrows())))
        u, inverse = _columns(both, 0, y.ncols()), _columns(both, y.ncols(), both.ncols())
        weights = _fractions(design.transpose() * u)
        condition = _condition(gram, inverse, _roots(gram))
    norms = _roots((_with_ones(x) if bias else x).transpose() * (_with_ones(x) if bias else x))
    if bias:
        row = [_fraction(x[x.nrows() - 1, j]) for j in range(x.ncols())]
        offset = [
            _fraction(y[x.nrows() - 1, j]) - sum((a * w[j] for a, w in zip(row, weights, strict=True)), Fraction(0))
            for j in range(y.ncols())
        ]
        weights = [offset, *weights]
    return Exact(weights, condition, norms)


@dataclass(frozen=True)
class Errors:
    """How a solution compares with the exact one.

    Attributes:
        bound_holds: Whether every finite ``weight_bound`` (and ``bias_bound``) holds, as exact numbers.
        relative: Largest relative error of ``weight + weight_low``; a weight below eps times the largest of its target,
            in scaled columns, is held to that absolute size, as ``cf.solve`` says.
        rounded: Largest relative error of ``weight`` itself, where the exact weight is not zero.
        bound: Largest relative bound, sized as ``relative``.
    """

    bound_holds: bool
    relative: float
    rounded: float
    bound: float

    @property
    def digits(self) -> float:
        """Log relative error of ``weight``, as NIST counts it, at most 17."""
        return -float(np.log10(max(self.rounded, 1e-17)))


def errors(solution: cf.Solution, exact: Exact) -> Errors:
    """Compare the weights of a solution with ``digits`` to the exact ones."""
    assert solution.weight_low is not None
    assert solution.weight_bound is not None
    parts = (solution.weight, solution.weight_low, solution.weight_bound)
    high, low, bound = (part.double().T.cpu().numpy() for part in parts)
    if solution.bias is not None:
        assert solution.bias_low is not None
        assert solution.bias_bound is not None
        high = np.vstack([solution.bias.double().cpu().numpy(), high])
        low = np.vstack([solution.bias_low.cpu().numpy(), low])
        bound = np.vstack([solution.bias_bound.cpu().numpy(), bound])
    assert high.shape == (len(exact.weights), len(exact.weights[0]))
    if np.isnan(bound).any():
        return Errors(False, np.inf, np.inf, np.nan)
    if not (np.isfinite(high).all() and np.isfinite(low).all()):
        return Errors(bool(np.isinf(bound[~np.isfinite(high + low)]).all()), np.inf, np.inf, np.inf)
    holds, relative, rounded, relative_bound = True, Fraction(0), Fraction(0), 0.0
    for j in range(high.shape[1]):
        sizes = [abs(row[j]) * Fraction(float(norm)) for row, norm in zip(exact.weights, exact.norms, strict=True)]
        floor = Fraction(EPS) * max(sizes)
        for i, size in enumerate(sizes):
            true, norm = exact.weights[i][j], Fraction(float(exact.norms[i]))
            error = abs(Fraction(float(high[i, j])) + Fraction(float(low[i, j])) - true)
            if np.isfinite(bound[i, j]):
                holds &= error <= Fraction(float(bound[i, j]))
                if max(size, floor):
                    relative_bound = max(relative_bound, _float(Fraction(float(bound[i, j])) * norm / max(size, floor)))
            else:
                relative_bound = np.inf
            if max(size, floor):
                relative = max(relative, error * norm / max(size, floor))
            if true:
                rounded = max(rounded, abs(Fraction(float(high[i, j])) - true) / abs(true))
    return Errors(holds, _float(relative), _float(rounded), relative_bound)


def _rational(values: Any) -> flint.fmpq_mat:
    table = np.asarray(values)
    table = table.reshape(len(table), -1)
    return flint.fmpq_mat(*table.shape, [_number(v) for v in table.ravel()])


def _number(value: Any) -> flint.fmpq:
    """A double, an int or a Fraction (decimal data) as an exact number."""
    exact = Fraction(value) if isinstance(value, Fraction | int) else Fraction(float(value))
    return flint.fmpq(exact.numerator, exact.denominator)


def _fraction(value: flint.fmpq) -> Fraction:
    return Fraction(int(value.p), int(value.q))


def _fractions(matrix: flint.fmpq_mat) -> list[list[Fraction]]:
    return [[_fraction(matrix[i, j]) for j in range(matrix.ncols())] for i in range(matrix.nrows())]


def _build(rows: Iterable[list[flint.fmpq]], columns: int) -> flint.fmpq_mat:
    listed = list(rows)
    return flint.fmpq_mat(len(listed), columns, [v for row in listed for v in row])


def _with_ones(x: flint.fmpq_mat) -> flint.fmpq_mat:
    return _build(([flint.fmpq(1), *row] for row in x.table()), x.ncols() + 1)


def _scale_rows(x: flint.fmpq_mat, weight: list[flint.fmpq]) -> flint.fmpq_mat:
    return _build(([w * v for v in row] for row, w in zip(x.table(), weight, strict=True)), x.ncols())


def _difference(x: flint.fmpq_mat, last: int) -> flint.fmpq_mat:
    table = x.table()
    return _build(([a - b for a, b in zip(row, table[last], strict=True)] for row in table[:last]), x.ncols())


def _beside(a: flint.fmpq_mat, b: flint.fmpq_mat) -> flint.fmpq_mat:
    return _build((p + q for p, q in zip(a.table(), b.table(), strict=True)), a.ncols() + b.ncols())


def _columns(a: flint.fmpq_mat, start: int, stop: int) -> flint.fmpq_mat:
    return _build((row[start:stop] for row in a.table()), stop - start)


def _identity(n: int) -> flint.fmpq_mat:
    return _build(([flint.fmpq(int(i == j)) for j in range(n)] for i in range(n)), n)


def _roots(gram: flint.fmpq_mat) -> Array:
    return np.array([_root(_fraction(gram[i, i])) for i in range(gram.nrows())])


def _root(value: Fraction) -> float:
    """Square root of a number whose square root is in the range of doubles, although it itself need not be."""
    if not value:
        return 0.0
    shift = (value.numerator.bit_length() - value.denominator.bit_length()) // 2
    return float(np.ldexp(float(value / Fraction(4) ** shift) ** 0.5, shift))


def _condition(gram: flint.fmpq_mat, inverse: flint.fmpq_mat, norms: Array) -> float:
    """Condition of the matrix behind a Gram matrix: the largest eigenvalue of either is found well in double."""
    exact_norms = [Fraction(float(norm)) for norm in norms]

    def scaled(matrix: flint.fmpq_mat, power: int) -> Array:
        n = matrix.nrows()
        return np.array(
            [
                [_float(_fraction(matrix[i, j]) * (exact_norms[i] * exact_norms[j]) ** power) for j in range(n)]
                for i in range(n)
            ]
        )

    tables = [scaled(gram, -1), scaled(inverse, 1)]
    if not all(np.isfinite(table).all() for table in tables):
        return np.inf
    return float(np.sqrt(np.prod([np.linalg.eigvalsh(table).max() for table in tables])))


def _float(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf
