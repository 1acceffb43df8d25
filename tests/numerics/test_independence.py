"""Columns that do not depend on one another, from their Gram matrix."""

from __future__ import annotations

import pytest
import torch

from closedform.numerics.independence import independent_columns
from data import gaussian


# More columns than are proposed at a time, and blocks in which most depend on those before them.
@pytest.mark.parametrize(("columns", "rank"), [(1, 1), (7, 3), (150, 40), (300, 200), (300, 3), (150, 150)])
def test_others_follow_from_those_chosen(columns: int, rank: int) -> None:
    A = gaussian(400, rank) @ gaussian(rank, columns, seed=1)
    found = independent_columns((A.T @ A).triu(), 1e-9 * float(A.square().sum(0).max()))
    assert found.rank == rank
    assert sorted([*found.chosen.tolist(), *found.others.tolist()]) == list(range(columns))
    chosen, others = A[:, found.chosen], A[:, found.others]
    torch.testing.assert_close(chosen @ found.dependence, others, rtol=1e-8, atol=1e-7)
    taken = chosen[:, found.order]
    torch.testing.assert_close(found.R.T @ found.R, taken.T @ taken, rtol=1e-11, atol=1e-9)
    right = gaussian(rank, 2, seed=2)
    torch.testing.assert_close(chosen.T @ chosen @ found.normal_solve(right), right, rtol=1e-7, atol=1e-7)
    # No other column is far longer than what it is made of: the pivots were among the longest that were left.
    if found.others.numel():
        assert float(found.dependence.abs().max()) < 50


def test_nothing_is_chosen_of_nothing() -> None:
    found = independent_columns(torch.zeros(3, 3, dtype=torch.float64), 0.0)
    assert (found.rank, found.others.tolist(), found.rest) == (0, [0, 1, 2], 0.0)
    assert independent_columns(torch.zeros(0, 0, dtype=torch.float64), 0.0).rank == 0


def test_one_of_each_group_of_equal_columns_is_chosen() -> None:
    A = torch.eye(5, dtype=torch.float64).repeat_interleave(60, 1)
    found = independent_columns(A.T @ A, 1e-12)
    assert (found.chosen // 60).tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(A[:, found.chosen] @ found.dependence, A[:, found.others])
    assert found.rest == 0.0


def test_what_is_left_tells_of_a_spectrum_without_a_gap() -> None:
    A = gaussian(60, 20) * torch.logspace(0, -6, 20, dtype=torch.float64)
    found = independent_columns((A.T @ A).triu(), 1e-6)
    assert 0 < found.rank < 20
    assert 1e-9 < found.rest <= 1e-6
