"""Every combination that a covering array promises is in it."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from covering import covering

SIZES = [(2,), (2, 3), (5, 2, 2, 3, 2, 11), (5, 2, 2, 2, 2, 2, 4), (3, 3, 3, 3), (2,) * 8]


@pytest.mark.parametrize("strength", [1, 2, 3])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_combination_of_values_occurs(sizes: tuple[int, ...], strength: int) -> None:
    parameters = [range(size) for size in sizes]
    rows = covering(parameters, strength)
    for place in combinations(range(len(sizes)), min(strength, len(sizes))):
        expected = set(product(*(parameters[p] for p in place)))
        assert {tuple(row[p] for p in place) for row in rows} == expected
    assert len(set(rows)) == len(rows)


def test_rows_that_are_not_allowed_are_not_chosen_and_the_rest_is_covered() -> None:
    rows = covering([range(3)] * 4, 2, allowed=lambda a, b, c, d: a != b)
    assert all(row[0] != row[1] for row in rows)
    assert {row[:2] for row in rows} == {(a, b) for a in range(3) for b in range(3) if a != b}
    assert {row[2:] for row in rows} == set(product(range(3), repeat=2))


def test_there_are_few_rows_and_the_same_ones_each_time() -> None:
    parameters = [range(size) for size in (5, 2, 2, 3, 2, 11)]
    # At least as many as the two, or three, longest parameters have combinations; the product has 1,320.
    assert 55 <= len(covering(parameters, 2)) <= 60
    assert 165 <= len(covering(parameters, 3)) <= 190
    assert covering(parameters, 2) == covering(parameters, 2)
