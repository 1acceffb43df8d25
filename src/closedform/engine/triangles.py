"""Cholesky factors, and solutions and products with square matrices in memory: compiled, or by LAPACK through torch."""

from __future__ import annotations

from types import ModuleType
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine import compiled
from closedform.engine.memory import address, held, table
from closedform.engine.threads import CHOLESKY_BY_ONE, all_threads, team
from closedform.numerics.arithmetic import BY_TORCH, Arithmetic
from closedform.numerics.chain import Chain, NormalProduct, NormalSolve, Scaling
from closedform.numerics.lanczos import GROWTH, MOST_STEPS, TOLERANCE
from closedform.numerics.symmetric import cholesky
from closedform.numerics.triangle import leaf_rows

__all__ = ["COMPILED", "CompiledArithmetic", "append_rows", "cholesky_of", "is_symmetric", "shortened"]

#: Columns up to which a product, or LAPACK's Cholesky factor, is done before a call of the compiled loops pays.
_SMALL = 32
#: Numbers of a matrix from which the threads of BLAS read it faster than one thread does that reads it once.
_LARGE = 2**22
#: Columns up to which the compiled reflections beat those of LAPACK: what they work on stays in cache.
_NARROW = 64
#: Vectors from which a product of matrices is faster than one vector after the other.
_MANY = 12


def cholesky_of(gram: Tensor) -> tuple[Tensor, int]:
    """Return what :func:`closedform.numerics.symmetric.cholesky` does, by the tiles that compute Gram matrices.

    Backward stable as LAPACK is: entries of ``R'R - gram`` are at most ``(n + 1) u`` times those of ``|R|'|R|`` (Higham
    2002, theorem 10.3), whatever the order of the sums. LAPACK takes what the loops do not: other devices and layouts,
    small matrices, and where nothing was compiled.

    Args:
        gram: ``(columns, columns)``, float32 or float64; only the upper triangle is read.

    Example:
        >>> import torch
        >>> R, info = cholesky_of(torch.full((40, 40), 0.5, dtype=torch.float64) + torch.eye(40, dtype=torch.float64))
        >>> info, bool((R.tril(-1) == 0).all())
        (0, True)
        >>> cholesky_of(-torch.eye(40))[1]
        1
    """
    n, library = gram.shape[0], _loops()
    worth_threads = n > CHOLESKY_BY_ONE
    if library is None or n <= _SMALL or not (gram.is_cpu and gram.is_contiguous()):
        with all_threads(worth_threads):
            return cholesky(gram)
    gram = held(gram)
    R = torch.empty_like(gram)
    single = gram.dtype == torch.float32
    place = library.cholesky(address(gram), address(R), n, single, team() if worth_threads else 1)
    return (R.fill_(torch.nan) if place else R), place


def shortened(rows: Tensor) -> Tensor:
    """Return fewer rows with the same products of columns, where compiled loops make them faster than LAPACK does.

    Each part of a few hundred rows becomes its triangle by Householder's reflections, whose rounding is as that of
    LAPACK (Higham 2002, theorem 19.4). What is wide, short or not in this processor's memory comes back as it is.

    Args:
        rows: ``(rows, columns)``, float64, finite, of columns whose sizes are within ``2**400`` of 1.

    Example:
        >>> import torch
        >>> rows = torch.ones(5000, 3, dtype=torch.float64)
        >>> (few := shortened(rows)).shape[0] <= 5000, round(float(few[:, 0].square().sum()), 9)
        (True, 5000.0)
    """
    m, n = rows.shape
    part = leaf_rows(n)
    library, count = compiled.library, m // part
    if library is None or not hasattr(library, "triangles") or not 1 < n <= _NARROW or not count:
        return rows
    if not (rows.is_cpu and rows.dtype == torch.float64 and rows.is_contiguous()):
        return rows
    rows = held(rows)
    few = rows.new_empty(count * n + m - count * part, n)
    library.triangles((address(rows), count, part, n), address(few))
    few[count * n :] = rows[count * part :]
    return few


def append_rows(out: Tensor, start: int, X: Tensor, Y: Tensor) -> bool | None:
    """Write rows ``[1 | X | Y]``, and return whether all numbers are finite; None where no compiled loops serve them.

    Args:
        out: ``(room, 1 + features + targets)``, float64, contiguous, of no less than ``start + rows`` rows.
        start: The first row that is written. What stands there afterwards is no use where the answer is not True.
        X: ``(rows, features)``.
        Y: ``(rows, targets)``.

    Example:
        >>> import torch
        >>> append_rows(torch.empty(2, 3, dtype=torch.float64), 0, torch.ones(2, 1), torch.ones(2, 1)) in (True, None)
        True
    """
    library = compiled.library
    if library is None or not hasattr(library, "append_rows") or not (X.is_cpu and Y.is_cpu and out.is_cpu):
        return None
    (X, x), (Y, y) = table(X), table(Y)
    return library.append_rows(x, y, out.data_ptr() + 8 * start * (1 + x[3] + y[3]))


def is_symmetric(matrix: Tensor) -> bool:
    """Whether a matrix is its transpose to the last bit.

    Args:
        matrix: ``(n, n)``, float64.

    Example:
        >>> import torch
        >>> is_symmetric(torch.eye(3, dtype=torch.float64)), is_symmetric(torch.ones(3, 3, dtype=torch.float64).tril())
        (True, False)
    """
    library = _loops()
    # One row and column settle the question for most.
    if not torch.equal(matrix[0], matrix[:, 0]):
        return False
    if library is None or not (matrix.is_cpu and matrix.is_contiguous()):
        return torch.equal(matrix, matrix.T)
    matrix = held(matrix)
    return bool(library.is_symmetric(address(matrix), matrix.shape[0]))


@final
class CompiledArithmetic(Arithmetic):
    """Rows of a matrix are read once for a few vectors, where loops were compiled; else as torch does it."""

    @override
    def solve(self, R: Tensor, V: Tensor, *, adjoint: bool = False) -> Tensor:
        library = _loops()
        if library is None or not _serves(R, V):
            return BY_TORCH.solve(R, V, adjoint=adjoint)
        return _solved(library, R, V, (adjoint, not adjoint))

    @override
    def normal_solve(self, R: Tensor, V: Tensor) -> Tensor:
        library = _loops()
        if library is None or not _serves(R, V):
            return BY_TORCH.normal_solve(R, V)
        return _solved(library, R, V, (True, True))

    @override
    def normal_product(self, M: Tensor, V: Tensor, *, upper: bool = False) -> Tensor:
        library = _loops()
        if library is None or M.shape[1] <= _SMALL or not _serves(M, V):
            return BY_TORCH.normal_product(M, V, upper=upper)
        return _products(library, M, V, (True, True), upper=upper)

    @override
    def product(self, M: Tensor, V: Tensor, *, adjoint: bool = False) -> Tensor:
        library = _loops()
        if library is None or M.shape[1] <= _SMALL or not _serves(M, V):
            return BY_TORCH.product(M, V, adjoint=adjoint)
        return _products(library, M, V, (not adjoint, adjoint))

    @override
    def dominant_pair(self, chain: Chain, start: Tensor, tolerance: float = TOLERANCE) -> tuple[float, Tensor, Tensor]:
        library = _loops()
        links = None if library is None else _links(library, chain, start)
        if library is None or links is None:
            return super().dominant_pair(chain, start, tolerance)
        first = held(start.contiguous())
        n, pair = first.shape[0], first.new_empty(2, first.shape[0])
        stop = (min(MOST_STEPS, n), 1 + GROWTH, tolerance)
        value = library.dominant_pair(links, (address(first), n), stop, address(pair))
        return value, pair[0].unsqueeze(1), pair[1].unsqueeze(1)


def _loops() -> ModuleType | None:
    """Return the compiled loops, unless they were built before they had these functions; None without."""
    library = compiled.library
    return library if hasattr(library, "dominant_pair") else None


def _solved(library: ModuleType, R: Tensor, V: Tensor, steps: tuple[bool, bool]) -> Tensor:
    """Solve with the transposed triangle, with the triangle, or with both: see the loops."""
    R, vectors = held(R), held(V).T.clone(memory_format=torch.contiguous_format)
    library.triangle_solve((address(R), R.shape[0]), steps, address(vectors), vectors.shape[0])
    return vectors.T


def _products(library: ModuleType, M: Tensor, V: Tensor, steps: tuple[bool, bool], *, upper: bool = False) -> Tensor:
    """Multiply by the matrix, by its transpose, or by both: see the loops."""
    M, vectors = held(M), held(held(V).T.contiguous())
    products = vectors.new_zeros(vectors.shape[0], M.shape[1 if steps[1] else 0])
    library.matrix_product((address(M), *M.shape, upper), steps, address(vectors), address(products), vectors.shape[0])
    return products.T


def _links(library: ModuleType, chain: Chain, start: Tensor) -> tuple[tuple[int, int, int, bool], ...] | None:
    """Return a chain as the loops take it: kind, address, rows and shape of each step; or None where they do not."""
    links: list[tuple[int, int, int, bool]] = []
    if not (start.is_cpu and start.dtype == torch.float64):
        return None
    for step in chain:
        match step:
            case Scaling(values, inverse) if values.is_cpu and values.dtype == torch.float64 and _stands(values):
                links.append((library.DIVISION if inverse else library.SCALING, address(values), 1, False))
            case NormalProduct(M, upper) if _serves(M, start) and _stands(M):
                links.append((library.NORMAL_PRODUCT, address(M), M.shape[0], upper))
            case NormalSolve(R) if _serves(R, start) and _stands(R):
                links.append((library.NORMAL_SOLVE, address(R), R.shape[0], True))
            case _:
                return None
    return tuple(links) if len(links) <= library.MOST_LINKS else None


def _stands(values: Tensor) -> bool:
    """Whether numbers stand in memory as loops read them."""
    return values.is_contiguous() and held(values) is values


def _serves(M: Tensor, V: Tensor) -> bool:
    plain = M.is_cpu and M.dtype == V.dtype == torch.float64 and M.is_contiguous()
    return plain and 0 < M.numel() <= _LARGE and 0 < V.shape[1] < _MANY


#: The only one that is needed: it has no state.
COMPILED = CompiledArithmetic()
