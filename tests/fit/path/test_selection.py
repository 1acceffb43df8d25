"""Grids, generalized cross-validation, folds, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, KFold, ShuffleSplit

import closedform as cf
from closedform.fit.path import left_out_residuals
from closedform.rows import OneHotRows
from closedform.words.errors import InputError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((50, 6))
Y = X[:, :2] + RNG.standard_normal((50, 2))
STRENGTHS = np.logspace(-2, 3, 6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("select", [5, KFold(4, shuffle=True, random_state=1), np.arange(50) % 7, torch.arange(50) % 7])
def test_folds_equal_fits_to_the_other_folds(select: Any, bias: bool, weighted: bool) -> None:
    weight = RNG.uniform(0.2, 2.0, 50) if weighted else None
    path = cf.ridge_path(X, Y, l2=STRENGTHS, bias=bias, select=select, sample_weight=weight)
    w = np.ones(50) if weight is None else weight
    splitter = KFold(select) if isinstance(select, int) else select
    tests = (
        [np.flatnonzero(select == fold) for fold in range(7)]
        if isinstance(select, np.ndarray | torch.Tensor)
        else [test for _, test in splitter.split(X)]
    )
    errors = np.zeros((6, 2))
    for test in tests:
        others = np.setdiff1d(np.arange(50), test)
        for place, l2 in enumerate(STRENGTHS):
            fit = Ridge(l2, fit_intercept=bias, solver="svd").fit(X[others], Y[others], w[others])
            errors[place] += w[test] @ (Y[test] - fit.predict(X[test])) ** 2 / w.sum()
    np.testing.assert_allclose(path.errors.numpy(), errors, rtol=1e-11)
    assert bool((path.standard_errors > 0).all())


def test_a_fold_for_each_row_is_leave_one_out() -> None:
    one = cf.ridge_path(X, Y, l2=STRENGTHS, bias=True)
    folds = cf.ridge_path(X, Y, l2=STRENGTHS, bias=True, select=50)
    torch.testing.assert_close(folds.errors, one.errors, rtol=1e-11, atol=0)
    torch.testing.assert_close(folds.standard_errors, one.standard_errors, rtol=1e-9, atol=0)


@pytest.mark.parametrize("bias", [False, True])
def test_generalized_cross_validation_is_its_formula(bias: bool) -> None:
    path = cf.ridge_path(X, Y, l2=STRENGTHS, bias=bias, select="gcv")
    A, B = (X - X.mean(0), Y - Y.mean(0)) if bias else (X, Y)
    for place, l2 in enumerate(STRENGTHS):
        H = A @ np.linalg.solve(A.T @ A + l2 * np.eye(6), A.T) + (np.ones((50, 50)) / 50 if bias else 0)
        R = Y - H @ Y
        expected = (R**2).mean(0) / (1 - np.trace(H) / 50) ** 2
        np.testing.assert_allclose(path.errors[place].numpy(), expected, rtol=1e-11)
        assert float(path.degrees_of_freedom[place]) == pytest.approx(np.trace(H), rel=1e-12)
    assert bool(path.standard_errors.isnan().all())
    _ = B


def test_a_wide_table_has_a_limit_of_generalized_cross_validation() -> None:
    path = cf.ridge_path(X[:5], Y[:5], l2=[0.0, 1e-9], bias=False, select="gcv")
    torch.testing.assert_close(path.errors[0], path.errors[1], rtol=1e-6, atol=0)


def test_the_default_grid_is_extended_where_the_best_is_at_its_end() -> None:
    noise = np.random.default_rng(8).standard_normal(50)
    path = cf.ridge_path(X, noise, bias=True)
    assert any("extended" in note for note in path.notes)
    assert bool((path.strengths.diff() > 0).all())
    # No strength of a finer grid does better than what was found.
    fine = cf.ridge_path(X, noise, l2=np.logspace(-8, 8, 400), bias=True)
    assert float(path.error) <= float(fine.error) * 1.01


def test_strengths_stay_in_the_order_they_came() -> None:
    path = cf.ridge_path(X, Y, l2=[10.0, 0.0, 0.1, 10.0], bias=True)
    assert path.strengths.tolist() == [10.0, 0.0, 0.1, 10.0]
    assert torch.equal(path.errors[0], path.errors[3])
    alone = cf.ridge_path(X, Y, l2=0.1, bias=True)
    torch.testing.assert_close(path.errors[2], alone.errors[0], rtol=1e-13, atol=0)
    assert torch.equal(path.error, path.errors.min(0).values)


def test_one_strength_for_all_targets() -> None:
    targets = np.column_stack([X[:, 0] * 5, RNG.standard_normal(50)])
    own = cf.ridge_path(X, targets, l2=STRENGTHS)
    shared = cf.ridge_path(X, targets, l2=STRENGTHS, per_target=False)
    assert own.l2[0] != own.l2[1]
    assert shared.l2[0] == shared.l2[1] == shared.strengths[shared.errors.mean(1).argmin()]


def test_a_best_strength_at_an_end_of_those_given_is_said() -> None:
    path = cf.ridge_path(X, Y[:, 0], l2=[100.0, 1000.0], bias=True)
    assert any("smallest strength, 100" in note and "add lower" in note for note in path.notes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"l2": []}, "l2 is empty"),
        ({"l2": [1.0, -2.0]}, "l2 holds -2.0 at place 1"),
        ({"l2": [1.0, math.nan]}, "l2 holds nan at place 1"),
        ({"l2": [math.inf]}, "l2 holds inf"),
        ({"l2": [[1.0, 2.0]]}, "(1, 2)"),
        ({"l2": "many"}, "no|not a list of numbers"),
        ({"l2": [None]}, "not a list of numbers"),
        ({"l2": True}, "truth values"),
        ({"l2": np.array([1j])}, "not a list of numbers"),
        ({"select": 1}, "at least 2"),
        ({"select": 51}, "at most as many as rows"),
        ({"select": True}, "no number of folds"),
        ({"select": "k"}, "choose 'loo', 'gcv'"),
        ({"select": 2.5}, "numbers of folds"),
        ({"select": np.zeros(50, dtype=int)}, "one fold"),
        ({"select": np.zeros(49, dtype=int)}, "one for each of 50 rows"),
        ({"select": ShuffleSplit(3)}, "more than once|no fold"),
        ({"scoring": "r2"}, "choose from 'mse', 'mae', 'density'"),
        ({"scoring": "density"}, "kernel=True"),
        ({"scoring": "mae", "select": "gcv"}, "residual of each row"),
        ({"per_target": 1}, "True or False"),
        ({"bias": "yes"}, "True or False"),
        ({"kernel": True}, "square"),
        ({"kernel": 1}, "True or False"),
    ],
    ids=str,
)
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(cf.ClosedformError, match=message.replace("(", r"\(").replace(")", r"\)")):
        cf.ridge_path(X, Y, **arguments)


@pytest.mark.parametrize("select", ["loo", "gcv", 2])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_single_row_that_counts_is_refused(rows: int, select: Any) -> None:
    weight = [0.0] * (rows - 1) + [1.0]
    message = "1 row of positive weight|at most as many as rows"
    with pytest.raises(InputError, match=message):
        cf.ridge_path(X[:rows], Y[:rows], sample_weight=weight, select=select)
    with pytest.raises(InputError, match="1 row of positive weight"):
        left_out_residuals(X[:rows], Y[:rows], l2=[1.0], sample_weight=weight)


def test_folds_without_rows_that_count_are_refused() -> None:
    weight = np.zeros(50)
    weight[:10] = 1.0
    with pytest.raises(cf.ClosedformError, match="fewer than 2 folds have a row of positive weight"):
        cf.ridge_path(X, Y, select=5, sample_weight=weight)


def test_what_is_shown(tmp_path: Any) -> None:
    path = cf.ridge_path(X, Y, l2=STRENGTHS, bias=True)
    frame = path.to_frame()
    assert list(frame.columns) == ["strength", "target", "error", "standard_error", "degrees_of_freedom", "chosen"]
    assert frame[frame.chosen].sort_values("target")["strength"].tolist() == path.l2.tolist()
    assert frame["error"].to_numpy() == pytest.approx(path.errors.reshape(-1).numpy())
    values = path.to_dict()
    assert values["l2"] == path.l2.tolist()
    assert values["solution"]["outcome"] == "certified"
    assert "leave-one-out" in str(path)
    assert path.section().title == "Ridge path"
    path.to_html(tmp_path / "path.html")
    assert "ridge strength l2" in (tmp_path / "path.html").read_text()
    axes = path.plot()
    assert axes.get_xlabel() == "ridge strength l2"
    assert len(axes.get_lines()) == 3


@pytest.mark.parametrize("select", ["loo", "gcv", 3])
@pytest.mark.parametrize("rows", [8, 40])
@pytest.mark.parametrize("level", [0.1, 1.0, 1e6, 1e15 / 7])
def test_a_constant_column_beside_a_bias_changes_no_error(level: float, rows: int, select: Any) -> None:
    x, y = X[:rows, :3], Y[:rows]
    wide = np.column_stack([np.full(rows, level), x, np.full((rows, 5 * (rows < 9)), 3 * level)])
    alone, beside = (cf.ridge_path(A, y, l2=[0.0, 1e-9, 1.0], bias=True, select=select) for A in (x, wide))
    np.testing.assert_allclose(beside.errors.numpy(), alone.errors.numpy(), rtol=1e-7)
    np.testing.assert_allclose(beside.degrees_of_freedom, alone.degrees_of_freedom, rtol=1e-9)
    assert not any("leverage 1" in note for note in beside.notes)


def test_a_direction_that_is_constant_is_none() -> None:
    x = np.random.default_rng(3).integers(-4, 5, 30).astype(float)
    pair = np.column_stack([1e6 + x, 1e6 - x])
    found = cf.ridge_path(pair, Y[:30], l2=[0.0], bias=True)
    np.testing.assert_allclose(found.errors, cf.ridge_path(x[:, None], Y[:30], l2=[0.0], bias=True).errors, rtol=1e-7)


def test_features_without_any_direction() -> None:
    y = Y[:40, 0]
    for bias in (False, True):
        left = [y[i] - bias * np.delete(y, i).mean() for i in range(40)]
        path = cf.ridge_path(np.zeros((40, 2)), y, l2=[0.0, 1.0], bias=bias)
        np.testing.assert_allclose(path.errors[:, 0], [np.square(left).mean()] * 2)
    labels = torch.arange(40) % 20
    path = cf.ridge_path(np.zeros((40, 2)), OneHotRows(labels, 20, torch.float64), l2=[1.0], bias=True)
    np.testing.assert_allclose(path.errors, [[(2 * (38 / 39) ** 2 + 38 * (2 / 39) ** 2) / 40] * 20])


def test_a_strength_beyond_the_range_beside_tiny_rows_shrinks_all() -> None:
    path = cf.ridge_path(1e-200 * X, Y, l2=[1.0])
    np.testing.assert_allclose(path.errors[0], np.square(Y).mean(0))


def test_folds_as_a_splitter_made_them() -> None:
    groups = np.arange(50) % 7
    made = list(GroupKFold(3).split(X, groups=groups))
    numbers = np.zeros(50, dtype=int)
    for fold, (_, test) in enumerate(made):
        numbers[test] = fold
    by_pairs, by_numbers = (cf.ridge_path(X, Y, l2=[1.0], select=select) for select in (made, numbers))
    assert torch.equal(by_pairs.errors, by_numbers.errors)
    for wrong, message in (
        (GroupKFold(3), r"list\(splitter.split\(X, labels, groups\)\)"),
        ([(made[0][0], [50]), (made[1][0], [1])], "test set 0 is no list of rows from 0 to 49"),
        ([(made[0][0], [0.5]), (made[1][0], [1])], "test set 0 is no list of rows"),
        (made[:2], "leaves rows in no fold"),
    ):
        with pytest.raises(InputError, match=message):
            cf.ridge_path(X, Y, select=wrong)


def test_folds_are_given_as_users_have_them() -> None:
    numbers = np.arange(50) % 3
    masks = [(numbers != fold, numbers == fold) for fold in range(3)]
    frame = pd.Series(numbers, index=np.arange(50, 0, -1))
    expected = cf.ridge_path(X, Y, l2=[1.0], select=numbers).errors
    for select in (masks, iter(masks), frame):
        assert torch.equal(cf.ridge_path(X, Y, l2=[1.0], select=select).errors, expected)
    plain = cf.ridge_path(X, Y, l2=[1.0, 2.0], select=3, per_target=False)
    numpy = cf.ridge_path(
        X, Y, l2=pd.Series([1.0, 2.0], index=[7, 8]), select=np.int64(3), per_target=np.False_, kernel=np.False_
    )
    assert torch.equal(numpy.errors, plain.errors)
    assert torch.equal(numpy.l2, plain.l2)


@pytest.mark.parametrize(
    ("tests", "left", "message"),
    [
        ([range(25), range(25, 50)], 3, "training set 0 is not all rows but those of test set 0"),
        ([[*range(25), 0], range(25, 50)], 0, "tests a row more than once"),
        ([np.arange(49) < 25, np.arange(49) >= 25], 0, "test set 0 is no list of rows"),
    ],
)
def test_what_a_splitter_trained_on_is_looked_at(tests: list[Any], left: int, message: str) -> None:
    pairs = [(np.setdiff1d(np.arange(50), test)[left:], test) for test in tests]
    with pytest.raises(InputError, match=message):
        cf.ridge_path(X, Y, select=pairs)
