"""Covering arrays: few combinations of many parameters in which every pair, or triple, of values still occurs.

Most faults need one or two parameters to show (Kuhn, Wallace and Gallo 2004), so a product of all of them tests the
same thing many times over.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import combinations, product
from typing import Any

import pytest

__all__ = ["covering", "parametrize_covering"]


def covering(
    parameters: Sequence[Sequence[Any]], strength: int, allowed: Callable[..., bool] = lambda *_: True
) -> list[tuple[Any, ...]]:
    """Choose rows of the product so that every combination of values of ``strength`` parameters is in one of them.

    Greedy: the row that adds most comes next, the first of them where several do (Cohen, Dalal, Fredman and Patton
    1997), so the same rows are chosen each time.

    Args:
        parameters: The values of each parameter.
        strength: How many parameters are combined.
        allowed: Whether a row may be chosen; what occurs in no such row is not covered.

    Example:
        >>> covering([[0, 1], "ab", [False, True]], 2)
        [(0, 'a', False), (0, 'b', True), (1, 'a', True), (1, 'b', False)]
    """
    indices = [row for row in product(*map(range, map(len, parameters))) if allowed(*_values(parameters, row))]
    places = list(combinations(range(len(parameters)), min(strength, len(parameters))))
    holders: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for number, row in enumerate(indices):
        for place in places:
            holders[place, *(row[p] for p in place)].append(number)

    chosen, gains = [], [len(places)] * len(indices)
    while any(gains):
        best = max(range(len(gains)), key=gains.__getitem__)
        chosen.append(best)
        for place in places:
            for number in holders.pop((place, *(indices[best][p] for p in place)), []):
                gains[number] -= 1
    return [_values(parameters, indices[number]) for number in chosen]


def _values(parameters: Sequence[Sequence[Any]], row: Sequence[int]) -> tuple[Any, ...]:
    return tuple(values[index] for values, index in zip(parameters, row, strict=True))


def parametrize_covering(
    strength: int,
    *,
    indirect: Sequence[str] = (),
    allowed: Callable[..., bool] = lambda *_: True,
    **parameters: Sequence[Any],
) -> pytest.MarkDecorator:
    """Parametrize a test by a covering array.

    Args:
        strength: How many parameters are combined.
        indirect: Names that are fixtures, which take the value.
        allowed: Whether a combination may be chosen; it takes the values in the order of the parameters.
        parameters: The values of each parameter by its name.
    """
    rows = covering(list(parameters.values()), strength, allowed)
    ids = ["-".join(str(value).removeprefix("torch.").replace(" ", "") for value in row) for row in rows]
    return pytest.mark.parametrize(tuple(parameters), rows, ids=ids, indirect=list(indirect))
