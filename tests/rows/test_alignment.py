"""Rows with labels are never put side by side by their position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import closedform as cf
from closedform.comparison.tables import held_out_table
from closedform.rows import as_rows
from closedform.rows.labels import check_alignment
from closedform.words.errors import InputError

X = pd.DataFrame({"height": [1.0, 2.0, 4.0], "width": [0.0, 1.0, 1.0]}, index=["a", "b", "c"])
Y = pd.Series([3.0, 8.0, 14.0], index=["a", "b", "c"])

DOORS: dict[str, Callable[..., Any]] = {
    "solve": cf.solve,
    "fit_": lambda X, Y, **options: cf.fit_(linear(), X, Y, **options),
    "gap": lambda X, Y, **options: cf.gap(linear(), X, Y, **options),
    "diagnose": cf.diagnose,
    "compare": lambda X, Y, **options: cf.compare(X, Y, optimizers=[], **options),
}


def linear() -> torch.nn.Linear:
    return torch.nn.Linear(2, 1, bias=False)


@pytest.mark.parametrize("door", DOORS)
def test_another_order_is_refused_with_the_call_that_mends_it(door: str) -> None:
    with pytest.raises(InputError, match=r"row 0 is 'a' in X, but 'c' in Y.*Y\.loc\[X\.index\].*Y\.to_numpy\(\)"):
        DOORS[door](X, Y[::-1])


def test_the_call_that_mends_it_does() -> None:
    expected = cf.solve(X.to_numpy(), Y.to_numpy()).weight
    np.testing.assert_array_equal(cf.solve(X, Y[::-1].loc[X.index]).weight, expected)


def test_weights_have_labels_too() -> None:
    weight = pd.Series([1.0, 2.0, 0.5], index=["c", "b", "a"])
    with pytest.raises(InputError, match=r"indexes of X and sample_weight.*sample_weight\.loc\[X\.index\]"):
        cf.solve(X, Y, sample_weight=weight)
    with pytest.raises(InputError, match="indexes of Y and sample_weight"):
        cf.solve(X.to_numpy(), Y, sample_weight=weight)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (pd.RangeIndex(3), pd.RangeIndex(1, 4)),
        (pd.Index(["a", "a", "b"]), pd.Index(["a", "b", "a"])),
        (pd.Index([1, 2, 3]), pd.Index(["1", "2", "3"])),
        (pd.date_range("2024-01-01", periods=3), pd.date_range("2024-01-02", periods=3)),
        (pd.MultiIndex.from_tuples([(0, 1), (0, 2), (1, 1)]), pd.MultiIndex.from_tuples([(0, 1), (1, 1), (0, 2)])),
        (pd.Index([0.0, np.nan, 1.0]), pd.Index([0.0, 1.0, np.nan])),
        (pd.Index(["a", None, "b"]), pd.Index(["a", pd.NA, "c"], dtype="string")),
    ],
    ids=["shifted", "repeated", "numbers and words", "dates", "several levels", "missing", "missing of two kinds"],
)
def test_other_labels_are_refused(left: pd.Index, right: pd.Index) -> None:
    with pytest.raises(InputError, match="indexes of X and Y do not agree"):
        check_alignment(X=X.set_axis(left), Y=Y.set_axis(right))


def test_labels_are_shown_as_they_are_and_repeated_ones_are_said() -> None:
    with pytest.raises(InputError, match=r"row 0 is 0 in X, but 1 in Y\. They hold other labels"):
        check_alignment(X=X.set_axis(pd.Index([0, 1, 2])), Y=Y.set_axis(pd.Index([1, 2, 3])))
    with pytest.raises(InputError, match="the same labels in another order, and some more than once"):
        check_alignment(X=X.set_axis(pd.Index([7, 7, 8])), Y=Y.set_axis(pd.Index([7, 8, 7])))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (pd.RangeIndex(3), pd.Index([0, 1, 2])),
        (pd.Index([0, 1, 2]), pd.Index([0.0, 1.0, 2.0])),
        (pd.Index(["a", "a", "b"]), pd.Index(["a", "a", "b"], dtype=object)),
        (pd.Index([0.0, np.nan, 1.0]), pd.Index([0.0, np.nan, 1.0])),
    ],
    ids=["range", "integers and floats", "repeated", "missing"],
)
def test_equal_labels_pass(left: pd.Index, right: pd.Index) -> None:
    expected = cf.solve(X.to_numpy(), Y.to_numpy()).weight
    np.testing.assert_array_equal(cf.solve(X.set_axis(left), Y.set_axis(right)).weight, expected)


def test_what_has_no_labels_goes_with_anything() -> None:
    expected = cf.solve(X.to_numpy(), Y.to_numpy()).weight
    np.testing.assert_array_equal(cf.solve(X, Y.to_list()).weight, expected)
    np.testing.assert_array_equal(cf.solve(X.to_numpy(), Y[::-1][::-1]).weight, expected)


def test_rows_that_do_not_match_are_told_by_their_shapes() -> None:
    with pytest.raises(InputError, match="the rows do not match"):
        cf.solve(X, Y[:2])


def test_held_out_rows_are_looked_at_as_well() -> None:
    with pytest.raises(InputError, match="indexes of X_test and Y_test do not agree"):
        cf.compare(X, Y, X_test=X, Y_test=Y[::-1], optimizers=[])


NAMED = pd.DataFrame(np.random.default_rng(0).standard_normal((12, 3)), columns=list("abc"))
VALUES = NAMED["a"] - 2 * NAMED["b"] + 3 * NAMED["c"]
PREDICTING: dict[str, Any] = {
    "solve": lambda X: cf.solve(NAMED, VALUES).predict(X),
    "criterion": lambda X: cf.solve(NAMED, VALUES, criterion="huber", l2=0.1).predict(X),
    "fit_ by criterion": lambda X: cf.fit_(
        torch.nn.Linear(3, 1, dtype=torch.float64), NAMED, VALUES, criterion="huber", l2=0.1
    ).predict(X),
    "ridge path": lambda X: cf.ridge_path(NAMED, VALUES).solution.predict(X),
    "probe": lambda X: cf.probe(NAMED, (VALUES > 0).astype(int)).predict(X),
    "test features": lambda X: cf.probe(
        NAMED, (VALUES > 0).astype(int), test_features=X, test_labels=(VALUES > 0).astype(int)
    ),
    "compare": lambda X: held_out_table(X, VALUES, as_rows(NAMED, VALUES)),
}


@pytest.mark.parametrize("name", PREDICTING)
def test_columns_in_another_order_are_refused(name: str) -> None:
    for X in (NAMED[["c", "b", "a"]], NAMED.rename(columns={"a": "z"})):
        with pytest.raises(InputError, match="column 0 of"):
            PREDICTING[name](X)
    for X in (NAMED, NAMED.to_numpy(), pd.DataFrame(NAMED.to_numpy())):
        PREDICTING[name](X)


def test_indexes_of_other_levels_are_refused() -> None:
    with pytest.raises(InputError, match="do not agree"):
        cf.solve(NAMED.set_index("a", append=True), VALUES)
