"""Linear systems and least squares in rational arithmetic, for problems so small that its cost does not matter."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from fractions import Fraction

__all__ = ["exact_least_squares", "solved_exactly"]


def exact_least_squares(X: Sequence[Sequence[Fraction]], y: Sequence[Fraction]) -> list[Fraction]:
    """Solve the normal equations exactly, by elimination without fractions (Bareiss 1968).

    Args:
        X: Design with independent columns, by rows.
        y: Targets, one for each row.

    Raises:
        ZeroDivisionError: the columns are dependent.

    Example:
        >>> from fractions import Fraction
        >>> X = [[Fraction(1), Fraction(x)] for x in (0, 1, 3)]
        >>> exact_least_squares(X, [Fraction(1), Fraction(2), Fraction(2)])
        [Fraction(9, 7), Fraction(2, 7)]
    """
    rows = [[*row, value] for row, value in zip(X, y, strict=True)]
    factor = math.lcm(*(value.denominator for row in rows for value in row))
    integers = [[value.numerator * (factor // value.denominator) for value in row] for row in rows]
    columns = list(zip(*integers, strict=True))
    return _eliminate([[sum(map(operator.mul, left, right)) for right in columns] for left in columns[:-1]])


def _eliminate(table: list[list[int]]) -> list[Fraction]:
    """Reduce ``[N | c]``, N positive definite, and return ``N^-1 c``; every division in the loop is exact.

    Raises:
        ZeroDivisionError: N is singular.
    """
    previous = 1
    for column in range(len(table)):
        pivot = table[column][column]
        if pivot == 0:
            raise ZeroDivisionError("the columns are linearly dependent")
        for i, row in enumerate(table):
            if i != column:
                factor = row[column]
                table[i] = [(pivot * a - factor * b) // previous for a, b in zip(row, table[column], strict=True)]
        previous = pivot
    return [Fraction(row[-1], row[i]) for i, row in enumerate(table)]


def solved_exactly(rows: Sequence[Sequence[float]], right: Sequence[Fraction]) -> list[Fraction] | None:
    """Return a solution of a linear system by Gaussian elimination, or None where there is none.

    Unknowns that elimination leaves free are zero. Numbers grow with every step: for some dozens of equations.

    Args:
        rows: The equations, ``equations`` sequences of ``unknowns`` floats.
        right: Right-hand sides, one for each equation.

    Example:
        >>> from fractions import Fraction
        >>> solved_exactly([[3.0, 3.0]], [Fraction(1)])
        [Fraction(1, 3), Fraction(0, 1)]
        >>> solved_exactly([[1.0], [1.0]], [Fraction(1), Fraction(2)]) is None
        True
    """
    unknowns = len(rows[0]) if rows else 0
    left = [[*map(Fraction, row), value] for row, value in zip(rows, right, strict=True)]
    pivots: list[tuple[int, list[Fraction]]] = []

    while left:
        row = left.pop()
        place = max(range(unknowns), key=lambda index: abs(row[index]), default=0)
        if not unknowns or not row[place]:
            if row[unknowns]:
                return None
            continue
        row = [value / row[place] for value in row]
        for other in (*left, *(each for _, each in pivots)):
            factor = other[place]
            if factor:
                other[:] = [a - factor * b for a, b in zip(other, row, strict=True)]
        pivots.append((place, row))

    found = [Fraction(0)] * unknowns
    for place, row in pivots:
        found[place] = row[unknowns]
    return found
