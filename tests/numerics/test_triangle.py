"""The triangle of rows: folded, merged, rescaled, with a ridge and centred, against exact and LAPACK answers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from closedform.numerics import triangle as module
from closedform.numerics.triangle import Triangle


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_of_rows(found: Triangle, A: Tensor, B: Tensor, *, rtol: float = 1e-12) -> None:
    """What the triangle says of A and B, in their own units, whatever signs its rows have."""
    plain = found.unscaled()
    R, C = plain.R, plain.C
    assert torch.equal(R, R.triu())
    scale, target_scale = A.norm(dim=0), B.norm(dim=0)
    torch.testing.assert_close(R.T @ R / scale / scale[:, None], A.T @ A / scale / scale[:, None], rtol=0, atol=rtol)
    torch.testing.assert_close(
        R.T @ C / scale[:, None] / target_scale, A.T @ B / scale[:, None] / target_scale, rtol=0, atol=rtol
    )
    squares = C.square().sum(0) + plain.residual_squares
    torch.testing.assert_close(squares, B.square().sum(0), rtol=rtol, atol=0)


@pytest.mark.parametrize("update", [True, False], ids=["tpqrt", "geqrf"])
def test_the_two_ways_to_fold_agree(update: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not update:
        monkeypatch.setattr(module, "_updated", module._refactored)
    first = Triangle.empty(7, 2).fold(gaussian(4, 7), gaussian(4, 2, seed=1)).padded()
    A, B = gaussian(6, 7, seed=2), gaussian(6, 2, seed=3)
    found = first.fold(A, B)
    assert_of_rows(found, torch.cat([gaussian(4, 7), A]), torch.cat([gaussian(4, 2, seed=1), B]))
    assert found.rows == 10


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 60),
    columns=st.integers(1, 8),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    seed=st.integers(0, 1000),
    order=st.randoms(use_true_random=False),
)
def test_any_cut_and_any_order_of_merging_is_the_table(
    rows: int, columns: int, cuts: list[int], seed: int, order
) -> None:
    A, B = gaussian(rows, columns, seed=seed), gaussian(rows, 2, seed=seed + 1)
    ends = sorted({min(cut, rows) for cut in cuts} | {0, rows})
    parts = []
    for number, (start, stop) in enumerate(pairwise(ends)):
        # Each part takes powers of two of its own out of the columns.
        exponents = torch.full((columns,), 3 * number - 4)
        target_exponents = torch.tensor([number, -number])
        empty = Triangle.empty(columns, 2, exponents=exponents, target_exponents=target_exponents)
        scale, target_scale = 2.0 ** -exponents.double(), 2.0 ** -target_exponents.double()
        parts.append(empty.fold(A[start:stop] * scale, B[start:stop] * target_scale))
    order.shuffle(parts)
    while len(parts) > 1:
        parts.append(parts.pop(0).merge(parts.pop(0)))
    assert_of_rows(parts[0], A, B)
    assert (parts[0].rows, parts[0].weight_sum) == (rows, float(rows))


def test_an_empty_triangle_takes_the_scale_of_what_is_merged_into_it() -> None:
    full = Triangle.empty(2, 1, exponents=torch.tensor([-700, 3])).fold(gaussian(5, 2), gaussian(5, 1, seed=1))
    merged = Triangle.empty(2, 1, exponents=torch.tensor([-700, 3])).merge(full)
    assert torch.equal(merged.exponents, full.exponents)
    torch.testing.assert_close(merged.R.abs(), full.R.abs(), rtol=1e-14, atol=0)


def test_rescaling_is_exact_and_goes_back() -> None:
    first = Triangle.empty(3, 2).fold(gaussian(9, 3), gaussian(9, 2, seed=1))
    there = first.rescaled(torch.tensor([5, -3, 200]), torch.tensor([-7, 1]))
    back = there.unscaled()
    for name in ("R", "C", "residual_squares"):
        assert torch.equal(getattr(first, name), getattr(back, name)), name


def test_a_ridge_is_rows_under_the_table_that_are_not_counted() -> None:
    A, B, penalty = gaussian(9, 3), gaussian(9, 2, seed=1), torch.tensor([0.0, 2.0, 0.5], dtype=torch.float64)
    found = Triangle.empty(3, 2).fold(A, B).with_ridge(penalty)
    assert_of_rows(found, torch.cat([A, torch.diag(penalty)]), torch.cat([B, torch.zeros(3, 2).double()]))
    assert found.rows == 9


def test_centred_and_without_ones() -> None:
    X, Y = gaussian(9, 3) + 5, gaussian(9, 2, seed=1) - 7
    ones = torch.ones(9, 1, dtype=torch.float64)
    whole = Triangle.empty(4, 2, has_ones=True).fold(torch.cat([ones, X], 1), Y)
    assert_of_rows(whole.centred(), X - X.mean(0), Y - Y.mean(0))
    assert_of_rows(whole.without_ones(), X, Y)
    assert whole.without_ones().rows == 9
    with pytest.raises(ValueError, match="no means"):
        whole.without_ones().centred()


def test_discounted_rows_weigh_less() -> None:
    A, B = gaussian(9, 3), gaussian(9, 2, seed=1)
    found = Triangle.empty(3, 2).fold(A, B).discounted(0.25)
    assert_of_rows(found, A / 2, B / 2)
    assert (found.rows, found.weight_sum) == (9, 2.25)


def test_some_targets() -> None:
    A, B = gaussian(9, 3), gaussian(9, 4, seed=1)
    chosen = torch.tensor([2, 0])
    assert_of_rows(Triangle.empty(3, 4).fold(A, B).select(chosen), A, B[:, chosen])


def test_the_state_is_all_of_it() -> None:
    found = Triangle.empty(3, 2, exponents=torch.tensor([1, 2, 3]), has_ones=True).fold(
        gaussian(9, 3), gaussian(9, 2, seed=1)
    )
    state = found.state_dict()
    again = Triangle.from_state_dict({name: value.clone() for name, value in state.items()})
    for name, value in again.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert (again.rows, again.weight_sum, again.has_ones) == (9, 9.0, True)


@pytest.mark.parametrize("name", ["R", "C", "exponents", "rows_weight_ones"])
def test_a_state_that_is_not_whole_is_refused(name: str) -> None:
    state = Triangle.empty(3, 2).fold(gaussian(9, 3), gaussian(9, 2, seed=1)).state_dict()
    with pytest.raises(ValueError, match="do not fit"):
        Triangle.from_state_dict({**state, name: state[name][..., :-1]})
    del state[name]
    with pytest.raises(ValueError, match=f"lacks {name}"):
        Triangle.from_state_dict(state)


def test_triangles_of_other_tables_are_not_merged() -> None:
    with pytest.raises(ValueError, match="cannot be merged"):
        Triangle.empty(3, 2).merge(Triangle.empty(3, 1))
    with pytest.raises(ValueError, match="cannot be merged"):
        Triangle.empty(3, 2).merge(replace(Triangle.empty(3, 2), has_ones=True))
