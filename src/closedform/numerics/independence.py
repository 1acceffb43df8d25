"""Columns that do not depend on one another: a Cholesky factor of their Gram matrix with pivots, block by block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Independence", "independent_columns"]

#: Columns that are proposed at a time: so many make products of matrices of what would be one of vectors each.
_BLOCK = 128
#: Share of the longest rest of any column that a proposed one must have left by itself, beside those taken before it.
_SHARE = 0.25


@final
@dataclass(frozen=True, eq=False)
class Independence:
    """Some columns, and how all others follow from them.

    Attributes:
        chosen: Numbers of the columns that were taken, ascending, int64, ``(rank,)``.
        others: Those of the others.
        R: A triangular factor of the Gram matrix of those chosen, in the order in which they were taken.
        order: That order: ``chosen[order]`` are the columns of R.
        dependence: T, so that the others are the chosen ones times T, ``(rank, others)``.
        rest: The largest square that is left of any of the others.
    """

    chosen: Tensor
    others: Tensor
    R: Tensor
    order: Tensor
    dependence: Tensor
    rest: float

    @property
    def rank(self) -> int:
        """How many were taken."""
        return self.chosen.shape[0]

    def normal_solve(self, right: Tensor) -> Tensor:
        """Return the inverse of the Gram matrix of the chosen columns times ``right``, ``(rank, k)``."""
        half = torch.linalg.solve_triangular(self.R.T, right[self.order], upper=False)
        return torch.empty_like(right).index_copy_(
            0, self.order, torch.linalg.solve_triangular(self.R, half, upper=True)
        )


def independent_columns(gram: Tensor, least: float) -> Independence:
    """Choose columns until less than ``least`` is left of the square of any other.

    Cholesky with pivots (Higham 2002, 10.3) on blocks of columns that have most left; each block is pivoted by itself,
    and a column that those before it in the block have used up is not taken: Epperly, Tropp and Webber (2024), with the
    longest rests for candidates in the place of random ones.

    Args:
        gram: ``(columns, columns)``, float64; only the upper triangle is read.
        least: Not negative.

    Example:
        >>> import torch
        >>> A = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 2.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
        >>> found = independent_columns((A.T @ A).triu(), 1e-12)
        >>> found.chosen.tolist(), found.others.tolist(), found.dependence.tolist()
        ([0, 2], [1], [[1.0], [0.0]])
    """
    p = gram.shape[0]
    index = torch.arange(p, device=gram.device)
    left = gram.diagonal().clone()
    F = gram.new_zeros(p, p)
    taken: list[Tensor] = []
    rank = 0

    while rank < p and float(left.max()) > least:
        proposed = torch.topk(left, min(_BLOCK, p - rank)).indices.sort().values
        rows = torch.where(index >= proposed.unsqueeze(1), gram[proposed], gram[:, proposed].T)
        rows -= F[:rank, proposed].T @ F[:rank]
        limit = max(least, _SHARE * float(left.max()))
        order, factor = _pivots(rows[:, proposed].cpu().numpy(), limit)
        if not order:
            break

        # The sums of the rest of a column by itself and beside the others differ by rounding.
        taken.append(proposed[order])
        count = len(order)
        R = torch.from_numpy(factor).to(gram.device)
        F[rank : rank + count] = torch.linalg.solve_triangular(R.T, rows[order], upper=False)
        left -= F[rank : rank + count].square().sum(0)
        left[taken[-1]] = -1.0
        rank += count

    pivots = torch.cat(taken) if taken else index[:0]
    chosen, order_of_pivots = pivots.sort()
    others = index[torch.ones(p, dtype=torch.bool, device=gram.device).index_fill_(0, pivots, False)]
    R = F[:rank, pivots].triu()
    dependence = torch.linalg.solve_triangular(R, F[:rank, others], upper=True)[order_of_pivots]
    rest = max(float(left.max()), 0.0) if p else 0.0
    return Independence(chosen, others, R, torch.argsort(order_of_pivots), dependence, rest)


def _pivots(gram: NDArray[np.float64], limit: float) -> tuple[list[int], NDArray[np.float64]]:
    """Return which columns are taken, the longest rest first while it is above ``limit``, and their triangle."""
    left, R = gram.diagonal().copy(), np.zeros_like(gram)
    order: list[int] = []
    while len(order) < len(gram):
        pivot = int(left.argmax())
        rank = len(order)
        row = gram[pivot] - R[:rank, pivot] @ R[:rank]
        if not row[pivot] > limit:
            break
        R[rank] = row / row[pivot] ** 0.5
        left -= R[rank] ** 2
        left[pivot] = -np.inf
        order.append(pivot)
    return order, np.triu(R[: len(order), order])
