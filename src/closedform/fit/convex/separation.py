"""Directions along which a loss falls for ever: found by a linear program, and checked in exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import linprog
from torch import Tensor

from closedform.fit.convex.problem import ConvexProblem

__all__ = ["find_separation"]

#: Entries of the constraints of a linear program that is worth waiting for.
_MOST_ENTRIES = 5_000_000
#: Unknowns of a system that is solved in rational numbers.
_MOST_UNKNOWNS = 150
#: Margins of at most this, beside a change of v of size 1 and rows of length 1, may be ties.
_TIE = 1e-6
#: Sizes of the changes of v that linear programs are solved for, one after the other: each resolves 1e-7 of it.
_SIZES = (1.0, 1e-5, 1e-10)


def find_separation(problem: ConvexProblem) -> Tensor | None:
    """Return a direction ``(columns, outputs)`` along which the loss falls for ever, or None.

    Albert and Anderson (1984): the loss has no minimiser if and only if there is a direction along which no row's loss
    ever rises and some row's falls. A linear program finds it (Konis 2007). Before it is returned it is made rational,
    with ties exactly zero, and every row is checked in exact arithmetic: it is a proof.

    Args:
        problem: One without a ridge.
    """
    block = problem.rows.gather()
    counted = None if block.weight is None else block.weight > 0
    X = block.X if counted is None else block.X[counted]
    T = block.Y if counted is None else block.Y[counted]
    A = X.cpu().numpy()
    if problem.columns.bias:
        A = np.concatenate([np.ones((A.shape[0], 1)), A], 1)

    slopes = problem.criterion.far_slopes(T, problem.n_outputs)
    falling, rising = (part.expand(A.shape[0], problem.n_outputs).cpu().numpy() for part in slopes)
    k, c = problem.n_outputs, A.shape[1]

    direction = np.zeros((c, k))
    if problem.criterion.coupled:
        found = _coupled(A, falling, k)
        return None if found is None else torch.from_numpy(found).to(problem.penalty)
    for output in range(k):
        if problem.strengths[output]:
            continue
        found = _single(A, falling[:, output], rising[:, output])
        if found is not None:
            direction[:, output] = found
    return torch.from_numpy(direction).to(problem.penalty) if direction.any() else None


def _single(A: np.ndarray, falling: np.ndarray, rising: np.ndarray) -> np.ndarray | None:
    """Return a direction of one output: outputs of rows whose loss grows as they fall must not fall, and so on."""
    counted = (falling > 0) | (rising > 0)
    A, falling, rising = A[counted], falling[counted], rising[counted]
    signs = np.where(falling > 0, 1.0, -1.0)
    return _program(sparse.csr_matrix(A * signs[:, None]), (falling > 0) & (rising > 0))


def _coupled(A: np.ndarray, shares: np.ndarray, k: int) -> np.ndarray | None:
    """Return a direction for classes: that of a row must stay the largest; of the last class it is zero."""
    m, c = A.shape
    if m * (k - 1) * c * 2 > _MOST_ENTRIES:
        return None

    pieces, equal = [], []
    for own in range(k):
        for other in range(k):
            chosen = A[shares[:, own] > 0]
            if own == other or not chosen.shape[0]:
                continue
            part = sparse.lil_matrix((chosen.shape[0], c * k))
            part[:, own * c : (own + 1) * c] = chosen
            part[:, other * c : (other + 1) * c] = -chosen
            pieces.append(part.tocsr()[:, : c * (k - 1)])
            equal.append(shares[shares[:, own] > 0][:, other] > 0)

    if not pieces:
        return None
    found = _program(sparse.vstack(pieces).tocsr(), np.concatenate(equal))
    if found is None:
        return None
    return np.concatenate([found.reshape(k - 1, c).T, np.zeros((c, 1))], 1)


def _program(U: sparse.csr_matrix, equal: np.ndarray) -> np.ndarray | None:
    """Find v with margins ``U v`` of which none is negative and some are positive; return it only with the proof.

    The linear program (as many margins as can be are raised to the length of their row) is right to its tolerance.
    Where that leaves ties in doubt it is solved again for a small change of v, beside margins that are exact.
    """
    if U.nnz > _MOST_ENTRIES or equal.all():
        return None
    lengths = np.sqrt(np.asarray(U.multiply(U).sum(1)).ravel())
    scaled = sparse.diags(1 / np.where(lengths > 0, lengths, 1.0)) @ U
    columns = np.maximum(abs(scaled).max(0).toarray().ravel(), np.finfo(float).tiny)
    units = 2.0 ** np.round(np.log2(columns))
    scaled = (scaled @ sparse.diags(1 / units)).tocsr()

    v = np.zeros(U.shape[1])
    margins = np.zeros(U.shape[0])
    for size in _SIZES:
        step = _raised(scaled, equal, np.clip(margins / size, -1e6, 1e6))
        if step is None:
            return None
        v = v + size * step / units
        exact = [Fraction(float(value)) for value in v]
        values = _margins(U, exact)
        if all(value >= 0 and not (value and tied) for value, tied in zip(values, equal, strict=True)):
            return v if any(values) else None
        margins = np.array([float(value) for value in values]) / np.where(lengths > 0, lengths, 1.0)
        ties = np.flatnonzero((np.abs(margins) <= _TIE * size) | equal)
        found = _proven(U, equal, exact, ties)
        if found is not None:
            return found
    return None


def _raised(U: sparse.csr_matrix, equal: np.ndarray, margins: np.ndarray) -> np.ndarray | None:
    """Return the change of v in a box that raises most margins, each by 1 at most, and leaves none negative."""
    free, width = ~equal, U.shape[1]
    count = int(free.sum())
    # Unknowns: the change, then by how much each margin is positive.
    solved = linprog(
        np.concatenate([np.zeros(width), -np.ones(count)]),
        A_ub=sparse.hstack([-U[free], sparse.identity(count)]).tocsr(),
        b_ub=margins[free],
        A_eq=sparse.hstack([U[equal], sparse.csr_matrix((U.shape[0] - count, count))]).tocsr() if equal.any() else None,
        b_eq=-margins[equal] if equal.any() else None,
        bounds=[(-1, 1)] * width + [(0, 1)] * count,
        method="highs",
    )
    if solved.status != 0 or not solved.x[:width].any():
        return None
    return np.asarray(solved.x[:width])


def _margins(U: sparse.csr_matrix, v: list[Fraction]) -> list[Fraction]:
    """Return ``U v`` exactly."""
    found = []
    for row in range(U.shape[0]):
        part = slice(U.indptr[row], U.indptr[row + 1])
        terms = zip(U.indices[part].tolist(), U.data[part].tolist(), strict=True)
        found.append(sum((Fraction(value) * v[index] for index, value in terms), Fraction(0)))
    return found


def _proven(U: sparse.csr_matrix, equal: np.ndarray, v: list[Fraction], ties: np.ndarray) -> np.ndarray | None:
    """Return v, moved so that ties are exact, if then every margin is right in exact arithmetic; else None."""
    if ties.size and len(v) > _MOST_UNKNOWNS:
        return None
    exact = _onto_ties(U[ties], v) if ties.size else v
    values = _margins(U, exact)
    right = all(value >= 0 and not (value and tied) for value, tied in zip(values, equal, strict=True))
    return np.array([float(value) for value in exact]) if right and any(values) else None


def _onto_ties(U: sparse.csr_matrix, v: list[Fraction]) -> list[Fraction]:
    """Return the vector with ``U v = 0`` exactly that keeps the entries of v which elimination leaves free."""
    basis: list[tuple[int, dict[int, Fraction]]] = []
    for row in range(U.shape[0]):
        part = slice(U.indptr[row], U.indptr[row + 1])
        left = {i: Fraction(x) for i, x in zip(U.indices[part].tolist(), U.data[part].tolist(), strict=True) if x}
        for pivot, other in basis:
            if pivot in left:
                factor = left.pop(pivot)
                for index, value in other.items():
                    if index != pivot:
                        left[index] = left.get(index, Fraction(0)) - factor * value
        left = {index: value for index, value in left.items() if value}
        if left:
            pivot = max(left, key=lambda index: abs(left[index]))
            basis.append((pivot, {index: value / left[pivot] for index, value in left.items()}))
    moved = list(v)
    for pivot, other in reversed(basis):
        moved[pivot] = -sum((value * moved[index] for index, value in other.items() if index != pivot), Fraction(0))
    return moved
