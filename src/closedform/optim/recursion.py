"""Recursive least squares in square-root form: what is remembered of all rows seen, and the weights they determine.

While the rows are fewer than the unknowns and independent, they are kept as they came, with an orthonormal basis of
their span; a new row then moves the weights only in the one direction that is new (least change). From then on the rows
are a triangle R with coordinates C, into which new rows are folded by QR; the weights solve ``R w = C``. Neither an
inverse nor a normal matrix is kept, so nothing drifts: a million updates round as a million rows folded at once would.
Source: Golub (1965); square-root recursive least squares as in Bjorck (1996, 3.2); block Gram-Schmidt done twice as in
Barlow and Smoktunowicz (2013).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from closedform.fit.orchestrator import solve
from closedform.numerics.extremes import extreme_singular_values
from closedform.numerics.root import TriangularRoot
from closedform.numerics.triangle import Triangle

__all__ = ["Memory", "begin", "learn"]


@dataclass(frozen=True)
class Memory:
    """All rows seen, compressed, and the weights they determine; n columns, k targets.

    Attributes:
        weights: The minimiser over the rows seen that is nearest to the weights before, ``(n, k)``.
        rows: Number of rows seen (a repeated full batch counts once).
        few_A, few_B: The rows themselves while they are few, ``(rows, n)`` and ``(rows, k)``; else None.
        basis: Orthonormal rows that span them, ``(rows, n)``; else None.
        R, C, residual_squares: The triangle of the rows once they are many, ``(n, n)``, ``(n, k)``, ``(k,)``; else
            None.
        full: Whether the rows determine every weight.
        settled: Whether the layer was put at ``weights``, and not just a part of the way.
        fingerprint: A product with the rows of the last batch, by which it is known when it comes again.
    """

    weights: Tensor
    rows: int = 0
    few_A: Tensor | None = None
    few_B: Tensor | None = None
    basis: Tensor | None = None
    R: Tensor | None = None
    C: Tensor | None = None
    residual_squares: Tensor | None = None
    full: bool = False
    settled: bool = True
    fingerprint: Tensor | None = None


def begin(weights: Tensor, l2: float, bias: bool) -> Memory:
    """Return the memory before any row was seen; with a ridge it starts as the triangle of the ridge rows."""
    n, k = weights.shape
    if l2 == 0:
        empty = weights.new_zeros(0, n)
        return Memory(weights, few_A=empty, few_B=weights.new_zeros(0, k), basis=empty)
    R = torch.diag(_ridge(weights, l2, bias))
    return Memory(weights, R=R, C=torch.zeros_like(weights), residual_squares=weights.new_zeros(k))


def _ridge(weights: Tensor, l2: float, bias: bool) -> Tensor:
    """The diagonal of the ridge rows."""
    diagonal = torch.full_like(weights[:, 0], l2**0.5)
    if bias:
        diagonal[0] = 0.0
    return diagonal


def learn(memory: Memory, A: Tensor, B: Tensor, *, forgetting: float, l2: float, bias: bool) -> Memory:
    """Return the memory with the rows ``A`` (rows, n), ``B`` (rows, k) in it and the weights of all rows.

    Args:
        forgetting: What the weight of every earlier row is multiplied by first; 1 keeps all.
        l2: The ridge that :func:`begin` was given.
        bias: Whether column 0 is the bias, which has no ridge.
    """
    fingerprint = _fingerprint(A, B)
    again = memory.fingerprint is not None and torch.equal(memory.fingerprint, fingerprint)
    if again and forgetting == 1 and memory.rows == A.shape[0]:
        return _refine(memory, A, B, l2, bias)
    if forgetting < 1:
        memory = _forget(memory, forgetting)
    memory = replace(memory, fingerprint=fingerprint)
    extended = _extend(memory, A, B)
    if extended is not None:
        return extended
    memory = _to_triangle(memory)
    assert memory.R is not None
    assert memory.C is not None
    assert memory.residual_squares is not None
    n, k = memory.weights.shape
    folded = replace(
        Triangle.empty(n, k, dtype=A.dtype, device=A.device),
        R=memory.R,
        C=memory.C,
        residual_squares=memory.residual_squares,
    ).fold(A, B)
    if l2 > 0 and forgetting < 1:  # the ridge rows in the triangle faded with the others: fill them up again
        folded = folded.with_ridge(_ridge(memory.weights, (1 - forgetting) * l2, bias))
    memory = replace(
        memory, R=folded.R, C=folded.C, residual_squares=folded.residual_squares, rows=memory.rows + A.shape[0]
    )
    return _solved(memory, A, B)


def _fingerprint(A: Tensor, B: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(40)
    direction = torch.rand(A.shape[1], 1, dtype=A.dtype, device="cpu", generator=generator).to(A.device)
    return torch.cat([A @ direction, B], 1)


def _forget(memory: Memory, forgetting: float) -> Memory:
    root = forgetting**0.5
    if memory.R is None:
        assert memory.few_A is not None
        assert memory.few_B is not None
        return replace(memory, few_A=root * memory.few_A, few_B=root * memory.few_B)
    assert memory.C is not None
    assert memory.residual_squares is not None
    return replace(memory, R=root * memory.R, C=root * memory.C, residual_squares=forgetting * memory.residual_squares)


def _extend(memory: Memory, A: Tensor, B: Tensor) -> Memory | None:
    """Interpolate rows that are independent of those before and of each other, or return None where they are not."""
    basis, few_A, few_B = memory.basis, memory.few_A, memory.few_B
    if basis is None or few_A is None or few_B is None or not memory.settled:
        return None
    n = A.shape[1]
    if memory.rows + A.shape[0] > n:
        return None
    rest = (A - (A @ basis.T) @ basis).T
    first, S = torch.linalg.qr(rest)
    # Orthogonal to the basis up to rounding of the remainder, however small it is: once is not enough, twice is.
    new, T = torch.linalg.qr(first - basis.T @ (basis @ first))
    S = T @ S
    threshold = n * torch.finfo(A.dtype).eps * torch.linalg.vector_norm(A, dim=1)
    if not bool((S.diagonal().abs() > threshold).all()):
        return None
    step = torch.linalg.solve_triangular(S.T, B - A @ memory.weights, upper=False)
    return replace(
        memory,
        weights=memory.weights + new @ step,
        rows=memory.rows + A.shape[0],
        few_A=torch.cat([few_A, A]),
        few_B=torch.cat([few_B, B]),
        basis=torch.cat([basis, new.T]),
    )


def _to_triangle(memory: Memory) -> Memory:
    """Give up the rows themselves for their triangle."""
    if memory.R is not None:
        return memory
    assert memory.few_A is not None
    assert memory.few_B is not None
    n, k = memory.weights.shape
    triangle = Triangle.empty(n, k, dtype=memory.weights.dtype, device=memory.weights.device)
    if memory.few_A.shape[0]:
        triangle = triangle.fold(memory.few_A, memory.few_B)
    triangle = triangle.padded()
    memory = replace(memory, few_A=None, few_B=None, basis=None)
    return replace(memory, R=triangle.R, C=triangle.C, residual_squares=triangle.residual_squares)


def _solved(memory: Memory, A: Tensor, B: Tensor) -> Memory:
    """Put the weights at the minimiser of the triangle; ``A`` and ``B`` are the rows that came last."""
    R, C = memory.R, memory.C
    assert R is not None
    assert C is not None
    full = _is_full(R, memory.full)
    if full:
        return replace(memory, weights=torch.linalg.solve_triangular(R, C, upper=True), full=True, settled=True)
    if memory.settled and _explains(memory.weights, A, B):
        return replace(memory, full=False)
    return replace(memory, weights=_nearest(R, C, memory.weights), full=False, settled=True)


def _is_full(R: Tensor, was_full: bool) -> bool:
    """Whether the triangle has full numerical rank, whatever the units of its columns."""
    sizes = torch.linalg.vector_norm(R, dim=0)
    cut = R.shape[1] * torch.finfo(R.dtype).eps
    # Rows only add to the singular values. With forgetting they fade, and their pivots with them.
    if not bool((R.diagonal().abs() > cut * sizes).all()):
        return False
    if was_full:
        return True
    return extreme_singular_values(TriangularRoot((R / sizes).double())).condition * cut < 1


def _explains(weights: Tensor, A: Tensor, B: Tensor) -> bool:
    """Whether the rows are met up to rounding, so that they ask for no change."""
    size = torch.linalg.vector_norm(A, dim=1, keepdim=True) * torch.linalg.vector_norm(weights, dim=0) + B.abs()
    return bool(((B - A @ weights).abs() <= 4 * torch.finfo(A.dtype).eps * size).all())


def _nearest(R: Tensor, C: Tensor, weights: Tensor) -> Tensor:
    """Where many weights minimise: those nearest to the weights before."""
    used = R.abs().amax(1) > 0
    if not bool(used.any()):
        return weights
    n, k = weights.shape
    # Made without memory: the usual initialisation would draw from the user's random numbers.
    before = nn.Linear(n, k, bias=False, dtype=torch.float64, device="meta")
    before.weight = nn.Parameter(weights.T.to(torch.float64))
    # A triangle in float32 says nothing below its own rounding; in float64 the usual cut of solve() is right.
    rcond = n * torch.finfo(R.dtype).eps if R.dtype == torch.float32 else None
    solution = solve(R[used].double(), C[used].double(), nearest_to=before, rcond=rcond, progress=False)
    return solution.weight.to(weights.dtype).T.contiguous()


def _refine(memory: Memory, A: Tensor, B: Tensor, l2: float, bias: bool) -> Memory:
    """Rows seen again: one step of iterative refinement, the gradient preconditioned by the triangle of the same rows.

    A step that does not help is undone, for each target by itself.
    """
    memory = _to_triangle(memory)
    assert memory.R is not None
    root = TriangularRoot(memory.R)
    full = memory.full or _is_full(memory.R, was_full=False)
    if not full:
        return replace(memory, settled=True)
    penalty = _ridge(memory.weights, l2, bias).square().unsqueeze(1)

    def left(weights: Tensor) -> Tensor:
        return root.adjoint_solve(A.T @ (B - A @ weights) - penalty * weights)

    remainder = left(memory.weights)
    candidate = memory.weights + root.solve(remainder)
    size, new_size = (torch.linalg.vector_norm(v, dim=0) for v in (remainder, left(candidate)))
    weights = torch.where(new_size < size, candidate, memory.weights)
    return replace(memory, weights=weights, full=True, settled=True)
