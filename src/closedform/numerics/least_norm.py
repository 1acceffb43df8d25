"""Solutions of least norm: the shortest vector, or the one nearest to a given vector, that meets linear constraints."""

from __future__ import annotations

import math
from typing import Literal, final

import torch
from torch import Tensor

__all__ = ["LeastNorm", "least_norm_lstsq"]

#: Rows whose sizes differ by no more than this factor need not be sorted: it is what sorting could gain.
_ALIKE = 8.0


def least_norm_lstsq(A: Tensor, B: Tensor, *, driver: Literal["gelsd", "svd"] | None = None) -> Tensor:
    """Return the X of least norm among those that minimise ``|A X - B|``, whatever the rank of A, on any device.

    By singular values, of which those below the rounding of the largest count as zero (Golub and Van Loan 2013, section
    5.5.2).

    Args:
        A: ``(rows, columns)``.
        B: ``(rows, targets)``.
        driver: ``"gelsd"``, LAPACK's, which only a CPU has, or ``"svd"``; None takes the first where it can.

    Returns:
        ``(columns, targets)``.

    Example:
        >>> import torch
        >>> least_norm_lstsq(torch.ones(3, 2), torch.full((3, 1), 4.0)).flatten().round(decimals=4)
        tensor([2., 2.])
    """
    if driver == "gelsd" or (driver is None and A.is_cpu):
        return torch.linalg.lstsq(A, B, driver="gelsd").solution

    U, values, right = torch.linalg.svd(A, full_matrices=False)
    least = torch.finfo(A.dtype).eps * max(A.shape) * values[:1].sum()
    inverse = torch.where(values > least, 1 / values, 0.0)
    return right.T @ (inverse.unsqueeze(1) * (U.T @ B))


@final
class LeastNorm:
    r"""Solve :math:`\min \|w - w_0\|` subject to ``M' w = c`` by Householder QR of M.

    The first ``free`` entries of w can be left outside the norm (a bias). Then the constraints are reflected so that
    the free entry stands in one of them alone; the others determine the rest of w, and that one determines the free
    entry. Rows of M are sorted by decreasing size first, which keeps the factorization accurate for each row where
    their sizes differ by orders (Powell and Reid 1969; Cox and Higham 1998). Backward stable: Higham (2002),
    theorem 21.4.

    Args:
        M: Columns spanning the row space, ``(n, r)`` with r <= n, of full column rank.
        free_first: Whether entry 0 of w is outside the norm.
    """

    def __init__(self, M: Tensor, *, free_first: bool) -> None:
        self.free_first = free_first
        if free_first:
            self.pivot = M[0].clone()
            self.reflector = _reflector(self.pivot)
            M = _reflect(M[1:].T, self.reflector)
            self.pivot_row = M[0].clone()
            M = M[1:].T
        sizes = M.abs().amax(1) if M.shape[1] else M.new_zeros(M.shape[0])
        self.order: Tensor | None = None
        positive = sizes[sizes > 0]
        if positive.numel() and float(positive.max() / positive.min()) > _ALIKE:
            self.order = torch.argsort(sizes, descending=True, stable=True)
            M = M[self.order]
        self.n = M.shape[0]
        self.reflectors, self.tau = torch.geqrf(M)
        self.R = self.reflectors[: M.shape[1]].triu()

    def solve(self, c: Tensor) -> Tensor:
        """Return the w of least norm with ``M' w = c``, shape ``(n, k)`` for c of shape ``(r, k)``."""
        if self.free_first:
            c = _reflect(c, self.reflector)
            first, c = c[:1], c[1:]
        short = torch.linalg.solve_triangular(self.R.T, c, upper=False) if c.shape[0] else c
        padded = torch.cat([short, short.new_zeros(self.n - short.shape[0], c.shape[1])])
        w = torch.ormqr(self.reflectors, self.tau, padded) if self.tau.numel() else padded
        if self.order is not None:
            unsorted = torch.empty_like(w)
            unsorted[self.order] = w
            w = unsorted
        if self.free_first:
            norm = torch.linalg.vector_norm(self.pivot) * -torch.copysign(torch.ones_like(self.pivot[0]), self.pivot[0])
            w = torch.cat([(first - self.pivot_row.unsqueeze(0) @ w) / norm, w])
        return w

    def multipliers(self, w: Tensor) -> Tensor:
        """Return the u with ``M u = w`` for a w of least norm; at a free entry with ``M_0' u = 0``."""
        rest = w[1:] if self.free_first else w
        rest = rest if self.order is None else rest[self.order]
        turned = torch.ormqr(self.reflectors, self.tau, rest, left=True, transpose=True) if self.tau.numel() else rest
        u = torch.linalg.solve_triangular(self.R, turned[: self.R.shape[0]], upper=True)
        return _reflect(torch.cat([w.new_zeros(1, w.shape[1]), u]), self.reflector) if self.free_first else u

    def whole_gram(self, free_unit: float) -> WholeGram:
        """Return M'M with the row of the free entry in it, times ``free_unit``."""
        if not self.free_first:
            return WholeGram(self.R, None, self.R.new_zeros(0), 1.0)
        pivot = self.pivot_row if self.order is None else self.pivot_row[self.order]
        turned = pivot.unsqueeze(1)
        if self.tau.numel():
            turned = torch.ormqr(self.reflectors, self.tau, turned, left=True, transpose=True)
        r = self.R.shape[0]
        rest = float(torch.linalg.vector_norm(turned[r:]))
        return WholeGram(
            self.R,
            self.reflector,
            turned[:r],
            math.hypot(free_unit * float(torch.linalg.vector_norm(self.pivot)), rest),
        )

    def gram_solve(self, v: Tensor) -> Tensor:
        """Return ``(M'M)^-1 v``, or with a free entry the same on the constraints that do not hold it."""
        u = _reflect(v, self.reflector) if self.free_first else v
        rest = u[1:] if self.free_first else u
        half = torch.linalg.solve_triangular(self.R.T, rest, upper=False)
        whole = torch.linalg.solve_triangular(self.R, half, upper=True)
        return _reflect(torch.cat([torch.zeros_like(u[:1]), whole]), self.reflector) if self.free_first else whole


@final
class WholeGram:
    """``H [[pivot^2 + q'q, q'R], [R'q, R'R]] H`` for a reflection H, or R'R without one.

    Args:
        R: Upper triangular, ``(r, r)``.
        reflector: That of H, ``(r + 1,)``, or None.
        row: q, ``(r, 1)``.
        pivot: What is left of the first row.
    """

    def __init__(self, R: Tensor, reflector: Tensor | None, row: Tensor, pivot: float) -> None:
        self.R, self.reflector, self.row, self.pivot = R, reflector, row, pivot

    def product(self, v: Tensor) -> Tensor:
        """Return its product with v, ``(rows, k)``."""
        if self.reflector is None:
            return self.R.T @ (self.R @ v)
        v = _reflect(v, self.reflector)
        inner = self.row * v[:1] + self.R @ v[1:]
        return _reflect(torch.cat([self.pivot**2 * v[:1] + self.row.T @ inner, self.R.T @ inner]), self.reflector)

    def solve(self, v: Tensor) -> Tensor:
        """Return its inverse times v, ``(rows, k)``."""
        if self.reflector is None:
            half = torch.linalg.solve_triangular(self.R.T, v, upper=False)
            return torch.linalg.solve_triangular(self.R, half, upper=True)
        v = _reflect(v, self.reflector)
        half = torch.linalg.solve_triangular(self.R.T, v[1:], upper=False)
        first = (v[:1] - self.row.T @ half) / self.pivot**2
        rest = torch.linalg.solve_triangular(self.R, half - self.row * first, upper=True)
        return _reflect(torch.cat([first, rest]), self.reflector)


def _reflector(v: Tensor) -> Tensor:
    """Return the unit vector u of the reflection ``I - 2 u u'`` that maps v to ``-sign(v_0) |v| e_0``."""
    u = v.clone()
    u[0] += torch.copysign(torch.linalg.vector_norm(v), v[0])
    return u / torch.linalg.vector_norm(u)


def _reflect(M: Tensor, u: Tensor) -> Tensor:
    return M - 2 * torch.outer(u, u @ M)
