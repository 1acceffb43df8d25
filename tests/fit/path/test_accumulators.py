"""Paths of rows that were folded and are gone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import closedform as cf
from closedform.words.errors import InputError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 5)) + 2
Y = X[:, :2] + RNG.standard_normal((60, 2))
WEIGHT = RNG.uniform(0.2, 2.0, 60)
FOLDS = np.arange(60) % 3


def folded(rows: Any, *, bias: bool = True) -> cf.Accumulator:
    return cf.Accumulator(5, 2, bias=bias).fold(X[rows], Y[rows], sample_weight=WEIGHT[rows])


@pytest.mark.parametrize("l2", [None, [0.0, 0.1, 10.0]])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("select", ["gcv", 3])
def test_equal_to_the_path_of_the_rows(select: Any, bias: bool, l2: Any) -> None:
    parts = [folded(fold == FOLDS, bias=bias) for fold in range(3)]
    path = cf.ridge_path(parts, l2=l2, select=select)
    rows = cf.ridge_path(X, Y, l2=l2, bias=bias, sample_weight=WEIGHT, select=select if select == "gcv" else FOLDS)
    torch.testing.assert_close(path.strengths, rows.strengths, rtol=1e-12, atol=0)
    torch.testing.assert_close(path.errors, rows.errors, rtol=1e-11, atol=0)
    torch.testing.assert_close(path.l2, rows.l2, rtol=1e-12, atol=0)
    torch.testing.assert_close(path.solution.weight, rows.solution.weight, rtol=1e-9, atol=1e-12)
    assert path.solution.certificate.accepted
    assert [len(part) for part in parts] == [20, 20, 20]


def test_one_accumulator_by_generalized_cross_validation() -> None:
    path = cf.ridge_path(folded(slice(None)), select="gcv")
    parts = cf.ridge_path([folded(fold == FOLDS) for fold in range(3)], select="gcv")
    torch.testing.assert_close(path.errors, parts.errors, rtol=1e-11, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "select='loo' needs the rows"),
        ({"select": 2}, "select=2 needs the rows"),
        ({"select": "gcv", "Y": Y}, "Y was given with an Accumulator"),
        ({"select": "gcv", "sample_weight": WEIGHT}, "sample_weight was given"),
        ({"select": "gcv", "bias": False}, "made with bias=True"),
        ({"select": "gcv", "kernel": True}, "kernel=True with an Accumulator"),
    ],
    ids=str,
)
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cf.ridge_path([folded(fold == FOLDS) for fold in range(3)], **arguments)


def test_other_lists_are_refused() -> None:
    one = folded(slice(None))
    with pytest.raises(InputError, match="place 1 of the list holds a list"):
        cf.ridge_path([one, [1.0]], select=2)
    with pytest.raises(InputError, match="their columns differ"):
        cf.ridge_path([one, folded(slice(None), bias=False)], select=2)
    with pytest.raises(InputError, match="at least 2 must count"):
        cf.ridge_path(cf.Accumulator(5, 2), select="gcv")
