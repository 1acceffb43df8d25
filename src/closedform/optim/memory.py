"""Recursive least squares in square-root form: what is remembered of all rows seen, and the weights they determine.

While the rows are fewer than the unknowns and independent, they are kept as they came; a new row then moves the weights
only in the one direction that is new (least change). From then on the rows are a triangle R with coordinates C, into
which new rows are folded by QR; the weights solve ``R w = C``. Neither an inverse nor a normal matrix is kept, so
nothing drifts: a million updates round as a million rows folded at once would. Source: Golub (1965); square-root
recursive least squares as in Bjorck (1996, 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from closedform.fit.orchestrator import solve_rows
from closedform.fit.request import Request
from closedform.fit.weights import Weights
from closedform.numerics.extremes import extreme_singular_values
from closedform.numerics.root import TriangularRoot
from closedform.numerics.row_hash import hash_rows
from closedform.numerics.triangle import Triangle
from closedform.optim.arrived import Arrived, Waiting
from closedform.optim.few_rows import FewRows, are_met
from closedform.rows import as_rows

__all__ = ["Memory", "going_on", "init", "mark", "update"]

#: Roundings in a triangle beside those that grow with its columns and, slowly, with the rows folded into it.
_ROUNDINGS = 8
#: A weight that became smaller by more than this factor is computed once more.
_SHRINKAGE = 1e-3
#: So often at most.
_MOST_ROUNDS = 3
#: The mark of rows that are not those of one batch.
_MANY = 0


@final
@dataclass(frozen=True, eq=False)
class Memory:
    """All rows seen, compressed, and the weights they determine; n columns, k targets.

    Attributes:
        weights: The minimiser over the rows seen that is nearest to the weights before, ``(n, k)``.
        held: The rows.
        full: Whether the rows determine every weight.
        settled: Whether the layer was put at ``weights``, and not just a part of the way.
        batch: By what the only batch seen so far is known when it comes again; 0 where there were several or none.
    """

    weights: Tensor
    held: FewRows | Triangle
    full: bool = False
    settled: bool = True
    batch: int = _MANY


def init(weights: Tensor, l2: float, bias: bool) -> Memory:
    """Return the memory before any row was seen; with a ridge it starts as the triangle of the ridge rows.

    Args:
        weights: Those of the layer, ``(n, k)``, the bias in row 0 if there is one.
        l2: Ridge strength.
        bias: Whether row 0 is the bias, which has no ridge.
    """
    n, k = weights.shape
    if l2 == 0:
        return Memory(weights, FewRows.empty(n, k, dtype=weights.dtype, device=weights.device))
    empty = Triangle.empty(n, k, dtype=weights.dtype, device=weights.device)
    return Memory(weights, empty.padded().with_ridge(_ridge(weights, l2, bias)))


def going_on(weights: Tensor, l2: float, bias: bool, triangle: Triangle) -> Memory:
    """Return the memory of rows that were folded before, elsewhere; the layer is not at their solution yet.

    Args:
        weights: Those of the layer, ``(n, k)``.
        l2: Ridge strength.
        bias: Whether row 0 is the bias.
        triangle: The triangle of the rows, in their units, ``(n, n)``.
    """
    held = triangle.unscaled().padded()
    held = replace(held, R=held.R.to(weights), C=held.C.to(weights), has_ones=False)
    held = replace(held, residual_squares=held.residual_squares.to(weights))
    return Memory(weights, held.with_ridge(_ridge(weights, l2, bias)) if l2 > 0 else held, settled=False)


def _ridge(weights: Tensor, l2: float, bias: bool) -> Tensor:
    """The diagonal of the ridge rows."""
    diagonal = torch.full_like(weights[:, 0], l2**0.5)
    if bias:
        diagonal[0] = 0.0
    return diagonal


def update(memory: Memory, new: Waiting, *, l2: float, bias: bool) -> Memory:
    """Return the memory with new rows in it and the weights of all rows.

    Args:
        memory: What is known of the rows before; it is not changed.
        new: The rows, and what the weight of every earlier one is multiplied by first; 1 keeps all.
        l2: The ridge that :func:`init` was given.
        bias: Whether column 0 is the bias, which has no ridge.

    Example:
        >>> import torch
        >>> from closedform.optim.arrived import Arrived
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> memory = init(0 * one, 0.0, False)
        >>> for target in (1.0, 1.0, 0.0):
        ...     rows = Arrived(one, target * one)
        ...     new = Waiting(rows, one[0], exact=True, faded=1.0, steps=1, mark=mark(rows.A, rows.B))
        ...     memory = update(memory, new, l2=0.0, bias=False)
        >>> round(memory.weights.item(), 12), memory.held.rows
        (0.666666666667, 3)
    """
    rows, forgetting = new.arrived, new.faded
    if l2 == 0 and forgetting == 1 and (memory.batch != _MANY or memory.held.rows == 0):
        if new.mark == memory.batch and memory.held.rows:
            return _again(memory, rows)
        memory = replace(memory, batch=_MANY if memory.held.rows else new.mark)
    else:
        memory = replace(memory, batch=_MANY)

    if forgetting < 1:
        memory = replace(memory, held=memory.held.discounted(forgetting))
    held = memory.held
    if isinstance(held, FewRows):
        # Rows before the layer was moved by others are not met by its weights: the triangle looks after that.
        as_they_came = memory.settled and rows.rows == rows.A.shape[0]
        extended = held.extended(rows.A, rows.B, memory.weights) if as_they_came else None
        if extended is not None:
            return replace(memory, held=extended[0], weights=extended[1])
        held = held.triangle()

    held = held.fold(rows.A, rows.B, rows=rows.rows)
    held = replace(held, residual_squares=held.residual_squares + rows.squares)
    if l2 > 0 and forgetting < 1:  # the ridge rows in the triangle faded with the others: fill them up again
        held = held.with_ridge(_ridge(memory.weights, (1 - forgetting) * l2, bias))
    return _solved(memory, held, rows.A, rows.B)


def mark(A: Tensor, B: Tensor) -> int:
    """Return by what a batch is known again: a number of all its bits, and never 0.

    Args:
        A: Its rows, ``(rows, n)``.
        B: Their targets, ``(rows, k)``.

    Example:
        >>> import torch
        >>> mark(torch.ones(2, 3), torch.ones(2, 1)) == mark(torch.ones(2, 3), torch.zeros(2, 1))
        False
    """
    hashes = hash_rows(A, B)
    places = torch.arange(1, 2 * A.shape[0], 2, device=A.device)  # odd, so that no bit of a product is lost
    return int((hashes * places).sum()) or 1


def _again(memory: Memory, new: Arrived) -> Memory:
    """All rows seen come once more: each weighs more, and the minimiser, which is the same, is refined."""
    rows, A, B = memory.held.rows + new.rows, new.A, new.B
    held = replace(memory.held.discounted(rows / memory.held.rows), rows=rows)
    if isinstance(held, FewRows):
        if memory.settled and are_met(A, B, memory.weights):
            return replace(memory, held=held)
        return _solved(memory, held.triangle(), A, B)

    if memory.full or _is_full(held, was_full=False):
        weights = _refined(memory.weights, held.R, A, B, rows / new.rows)
        return replace(memory, held=held, weights=weights, full=True, settled=True)
    return replace(memory, held=held) if memory.settled else _solved(memory, held, A, B)


def _refined(weights: Tensor, R: Tensor, A: Tensor, B: Tensor, times: float) -> Tensor:
    """Take one step of iterative refinement: the gradient of the rows, preconditioned by the triangle of them.

    A step that does not help is undone, for each target by itself.

    Args:
        weights: ``(n, k)``.
        R: The triangle of the rows, each of them ``times`` times, ``(n, n)``.
        A: The rows, ``(rows, n)``.
        B: Their targets, ``(rows, k)``.
        times: See R.
    """
    root = TriangularRoot(R)

    def left(weights: Tensor) -> Tensor:
        return root.adjoint_solve(A.T @ (B - A @ weights))

    remainder = left(weights)
    candidate = weights + times * root.solve(remainder)
    size, new_size = (torch.linalg.vector_norm(part, dim=0) for part in (remainder, left(candidate)))
    return torch.where(new_size < size, candidate, weights)


def _solved(memory: Memory, held: Triangle, A: Tensor, B: Tensor) -> Memory:
    """Put the weights at the minimiser of the triangle; ``A`` and ``B`` are the rows that came last."""
    memory = replace(memory, held=held)
    if _is_full(held, memory.full):
        weights = torch.linalg.solve_triangular(held.R, held.C, upper=True)
        return replace(memory, weights=weights, full=True, settled=True)
    if memory.settled and are_met(A, B, memory.weights):
        return replace(memory, full=False)  # the minimiser of the rows before meets the new ones too
    return replace(memory, weights=_nearest(held, memory.weights), full=False, settled=True)


def _cut(held: Triangle) -> float:
    """Below this share of the largest, a singular value of the scaled triangle is rounding."""
    return (held.columns + _ROUNDINGS + held.rows**0.5) * torch.finfo(held.R.dtype).eps


def _is_full(held: Triangle, was_full: bool) -> bool:
    """Whether the triangle has full numerical rank, whatever the units of its columns."""
    R = held.R
    sizes = torch.linalg.vector_norm(R, dim=0)
    # Rows only add to the singular values. With forgetting they fade, and their pivots with them.
    if not bool((R.diagonal().abs() > _cut(held) * sizes).all()):
        return False
    if was_full:
        return True
    return extreme_singular_values(TriangularRoot((R / sizes).double())).condition * _cut(held) < 1


def _nearest(held: Triangle, weights: Tensor) -> Tensor:
    """Where many weights minimise: those nearest to the weights before."""
    used = held.R.abs().amax(1) > 0
    if not bool(used.any()):
        return weights
    R, C = held.R[used].double(), held.C[used].double()
    rows = as_rows(R, C)
    for _ in range(_MOST_ROUNDS):
        before = Weights(weights.T.to(torch.float64), None)
        request = Request.checked(rows, nearest_to=before, rcond=_cut(held), progress=False)
        found = solve_rows(rows, request).weight.to(weights.dtype).T.contiguous()
        # A weight that became much smaller holds the rounding of what it was, which large columns would make felt.
        shrank = bool((found.abs() < _SHRINKAGE * weights.abs()).any())
        weights = found
        if not shrank:
            break
    return weights
