"""The shortest vector that meets linear constraints, a free first entry outside the norm, rows of any size."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from closedform.numerics.least_norm import LeastNorm, least_norm_lstsq
from data import F64, gaussian


@pytest.mark.parametrize("sizes", [(7, 3), (7, 7), (7, 1), (40, 12)], ids=str)
def test_it_is_the_solution_of_the_pseudo_inverse(sizes: tuple[int, int]) -> None:
    M, c = gaussian(*sizes), gaussian(sizes[1], 2, seed=1)
    found = LeastNorm(M, free_first=False)
    torch.testing.assert_close(found.solve(c), torch.linalg.pinv(M.T) @ c, rtol=1e-11, atol=1e-12)
    gram = M.T @ M
    torch.testing.assert_close(gram @ found.gram_solve(c), c, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sizes", [(8, 3), (8, 2), (8, 1)], ids=str)
def test_a_free_entry_costs_nothing(sizes: tuple[int, int]) -> None:
    M, c = gaussian(*sizes), gaussian(sizes[1], 2, seed=1)
    w = LeastNorm(M, free_first=True).solve(c)
    torch.testing.assert_close(M.T @ w, c, rtol=1e-12, atol=1e-12)
    # The rest is shortest when it is orthogonal to every change that the constraints leave free.
    free = torch.linalg.svd(M.T).Vh[sizes[1] :]
    change = free.T @ gaussian(len(free), 5, seed=2)
    torch.testing.assert_close(change[1:].T @ w[1:], torch.zeros(5, 2, dtype=F64), rtol=0, atol=1e-12)


def test_rows_of_all_sizes_keep_their_digits() -> None:
    units = torch.logspace(-8, 8, 9, dtype=F64)[torch.randperm(9, generator=torch.Generator().manual_seed(0))]
    M, c = gaussian(9, 3) * units.unsqueeze(1), gaussian(3, 1, seed=1)
    w = LeastNorm(M, free_first=False).solve(c)
    # Least norm means w = M z; the residual of the constraints is small beside each of their terms.
    assert bool(((M.T @ w - c).abs() <= 1e-14 * (M.abs().T @ w.abs() + c.abs())).all())
    z = torch.linalg.lstsq(M / units.unsqueeze(1), w / units.unsqueeze(1)).solution
    torch.testing.assert_close(M @ z, w, rtol=1e-6, atol=1e-12 * float(w.abs().max()))


@pytest.mark.parametrize("driver", ["gelsd", "svd", None])
@pytest.mark.parametrize(
    ("shape", "rank"), [((9, 4), 4), ((9, 4), 2), ((3, 7), 3), ((5, 5), 1), ((4, 3), 0), ((0, 3), 0)]
)
def test_any_rank_has_a_solution_of_least_norm(
    shape: tuple[int, int], rank: int, driver: Literal["gelsd", "svd"] | None
) -> None:
    A, B = gaussian(shape[0], rank) @ gaussian(rank, shape[1], seed=1), gaussian(shape[0], 2, seed=2)
    wanted = np.linalg.lstsq(A.numpy(), B.numpy(), rcond=None)[0]
    torch.testing.assert_close(least_norm_lstsq(A, B, driver=driver), torch.from_numpy(wanted), rtol=1e-10, atol=1e-12)
