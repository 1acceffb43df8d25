"""Numerical rank: where singular values are cut, whether there is a gap, and which columns are to blame."""

from __future__ import annotations

import math

import pytest
import torch

from closedform.numerics.rank import CLEAR_GAP, columns_involved, decide_rank
from data import F64


@pytest.mark.parametrize(
    ("values", "columns", "rank", "ambiguous"),
    [
        ([1.0, 0.5, 0.1], 3, 3, False),
        ([1.0, 0.5, 1e-17], 3, 2, False),
        ([1e200, 1e190, 1e100], 3, 2, False),
        ([1.0, 1e-3, 1e-6, 1e-9, 1e-11, 1e-13], 6, 5, True),
        ([1.0, 5e-12], 2, 2, True),
        ([1.0, 0.5], 5, 2, False),
        ([0.0, 0.0], 2, 0, False),
        ([], 3, 0, False),
    ],
    ids=["full", "clear", "large numbers", "no gap", "just above the cut", "wide", "zero", "no rows"],
)
def test_singular_values_above_the_cut_are_counted(
    values: list[float], columns: int, rank: int, ambiguous: bool
) -> None:
    found = decide_rank(torch.tensor(values, dtype=F64), columns, 1e-12)
    assert (found.rank, found.ambiguous, found.full) == (rank, ambiguous, rank == columns)


def test_the_gap_is_the_ratio_across_the_cut() -> None:
    found = decide_rank(torch.tensor([1.0, 1e-2, 1e-14], dtype=F64), 3, 1e-12)
    assert found.gap == pytest.approx(1e12)
    assert found.gap > CLEAR_GAP
    # Below eps a value is rounding and may be anything smaller: the gap is counted to eps.
    noise = decide_rank(torch.tensor([1.0, 1e-30], dtype=F64), 2, 1e-12)
    assert noise.gap == pytest.approx(2.0**52)
    assert decide_rank(torch.zeros(2, dtype=F64), 2, 1e-12).gap == math.inf


def test_columns_of_undetermined_directions_are_named_most_involved_first() -> None:
    directions = torch.tensor([[0.0, 0.6, 0.0, 0.8, 0.01]], dtype=F64)
    assert columns_involved(directions) == (3, 1)
    assert columns_involved(directions, share=1e-3) == (3, 1, 4)
    # Two directions: what counts is the length in both.
    assert columns_involved(torch.eye(3, dtype=F64)[:2]) in ((0, 1), (1, 0))
    assert columns_involved(torch.zeros(0, 4, dtype=F64)) == ()
