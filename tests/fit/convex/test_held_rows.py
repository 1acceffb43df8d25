"""Sums over rows that are held whole, by compiled loops and by matrix products, against exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from closedform.engine import choice
from closedform.fit.convex.held_rows import HeldRows

ROWS, COLUMNS = 700, 5


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=["as built", "by matrix products"])
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> HeldRows:
    if request.param == "by matrix products":
        monkeypatch.setattr(choice, "serves", lambda table: False)
    U = gaussian(ROWS, COLUMNS)
    U[1::2] = -U[::2] * (1 + 1e-9 * gaussian(ROWS // 2, COLUMNS, seed=1))
    return HeldRows(U)


def exactly(U: Tensor, t: Tensor) -> list[Fraction]:
    terms = [[Fraction(value) for value in column] for column in U.T.tolist()]
    numbers = [Fraction(value) for value in t.tolist()]
    return [sum((a * b for a, b in zip(column, numbers, strict=True)), Fraction(0)) for column in terms]


def test_products_round_no_more_than_is_said(rows: HeldRows) -> None:
    T = torch.stack([torch.ones(ROWS, dtype=torch.float64), gaussian(ROWS, seed=2)], 1)
    found, sizes = rows.adjoint(T), rows.U.abs().T @ T.abs()
    for vector in range(2):
        for column, wanted in enumerate(exactly(rows.U, T[:, vector])):
            assert abs(Fraction(float(found[column, vector])) - wanted) <= rows.roundings * float(sizes[column, vector])
    torch.testing.assert_close(rows.images(gaussian(COLUMNS)), rows.U @ gaussian(COLUMNS), rtol=1e-12, atol=1e-12)


def test_sums_that_cancel_keep_their_digits(rows: HeldRows) -> None:
    t = torch.ones(ROWS, dtype=torch.float64)
    for found, wanted in zip(rows.exact_adjoint(t).tolist(), exactly(rows.U, t), strict=True):
        assert abs(Fraction(found) - wanted) <= 2 * Fraction(2) ** -53 * abs(wanted)


def test_gram_matrices_of_all_rows_and_of_some(rows: HeldRows) -> None:
    weight, order = gaussian(ROWS, seed=3).abs(), torch.arange(3, ROWS, 7)
    U = rows.U
    torch.testing.assert_close(rows.gram(), U.T @ U, rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(rows.gram(weight), (U.T * weight) @ U, rtol=1e-12, atol=1e-10)
    some = (U[order].T * weight[order]) @ U[order]
    torch.testing.assert_close(rows.gram(weight, order), some, rtol=1e-12, atol=1e-10)
    assert not bool(rows.gram(weight, order[:0]).any())
