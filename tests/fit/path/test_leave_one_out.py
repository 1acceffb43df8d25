"""Leave-one-out by one factor equals refitting without each row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV

import closedform as cf
import oracle
from closedform.fit.path import left_out_residuals
from closedform.rows import OneHotRows, as_rows

STRENGTHS = [0.0, 1e-3, 0.1, 10.0, 1e3]


def refitted(X: np.ndarray, Y: np.ndarray, l2: float, weight: np.ndarray | None, bias: bool, row: int) -> np.ndarray:
    """Return what a fit to the other rows misses a row by: LAPACK's least squares on the rows with the ridge's own."""
    others = np.arange(len(X)) != row
    if weight is not None:
        others &= weight > 0
    w = np.ones(others.sum()) if weight is None else weight[others]
    mean, target_mean = np.zeros(X.shape[1]), np.zeros(Y.shape[1])
    if bias:
        mean, target_mean = w @ X[others] / w.sum(), w @ Y[others] / w.sum()
    A, B = X[others] - mean, Y[others] - target_mean
    A, B = A * np.sqrt(w)[:, None], B * np.sqrt(w)[:, None]
    if l2:
        A, B = np.vstack([A, l2**0.5 * np.eye(A.shape[1])]), np.vstack([B, np.zeros((A.shape[1], B.shape[1]))])
    W = np.linalg.lstsq(A, B, rcond=1e-12)[0]
    return Y[row] - target_mean - (X[row] - mean) @ W


def problem(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, bool]:
    """Return one of the problems: tall, square, wide, deficient, with an outlier, weighted, with a bias or without."""
    rng = np.random.default_rng(number)
    m, n, k = int(rng.integers(6, 24)), int(rng.integers(1, 24)), int(rng.integers(1, 4))
    X, Y = rng.standard_normal((m, n)), rng.standard_normal((m, k))
    if number % 5 == 0 and n > 2:
        X[:, 1] = 2 * X[:, 0]
    if number % 7 == 0:
        X[0], X[:, 0] = 0.0, 0.0
        X[0, 0] = 100.0
    if number % 11 == 0:
        X[3] = X[2]
    weight = rng.uniform(0.5, 2.0, m) if number % 2 else None
    if weight is not None and number % 3 == 0:
        weight[rng.integers(m)] = 0.0
    return X, Y, weight, bool(number % 4 < 2)


@pytest.mark.parametrize("number", range(60))
def test_equal_to_refitting_without_each_row(number: int) -> None:
    X, Y, weight, bias = problem(number)
    residuals = left_out_residuals(X, Y, l2=STRENGTHS, bias=bias, sample_weight=weight).numpy()
    path = cf.ridge_path(X, Y, l2=STRENGTHS, bias=bias, sample_weight=weight)
    counted = np.ones(len(X), dtype=bool) if weight is None else weight > 0
    w = np.ones(len(X)) if weight is None else weight

    for place, l2 in enumerate(STRENGTHS):
        expected = np.array([refitted(X, Y, l2, weight, bias, row) for row in range(len(X))])
        size = np.abs(expected[counted]).max()
        assert np.abs(residuals[place] - expected)[counted].max() < 1e-10 * size
        errors = w @ expected**2 / w.sum()
        assert np.abs(path.errors[place].numpy() - errors).max() < 1e-10 * errors.max()
        # The standard error of a weighted mean, from the rows.
        spread = w @ (w[:, None] * (expected**2 - errors) ** 2) * counted.sum() / (counted.sum() - 1)
        assert path.standard_errors[place].numpy() == pytest.approx(spread**0.5 / w.sum(), rel=1e-7)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(60, 5), (20, 40)])
def test_equal_to_what_scikit_learn_stores(shape: tuple[int, int], bias: bool) -> None:
    rng = np.random.default_rng(1)
    X, Y, strengths = rng.standard_normal(shape), rng.standard_normal((shape[0], 3)), np.logspace(-2, 3, 8)
    peer = RidgeCV(strengths, fit_intercept=bias, alpha_per_target=True, store_cv_results=True).fit(X, Y)
    path = cf.ridge_path(X, Y, l2=strengths, bias=bias)
    squares = left_out_residuals(X, Y, l2=strengths, bias=bias).numpy() ** 2
    np.testing.assert_allclose(squares.transpose(1, 2, 0), peer.cv_results_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(path.errors.numpy().T, peer.cv_results_.mean(0), rtol=1e-10)
    assert path.l2.tolist() == peer.alpha_.tolist()
    np.testing.assert_allclose(path.solution.weight.numpy(), peer.coef_, rtol=1e-9, atol=1e-12)
    assert path.solution.certificate.accepted


def test_a_large_table_is_taken_by_its_gram_matrix_and_gives_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(12000, 90, dtype=torch.float64, generator=generator) + 3
    Y = X[:, :2] + torch.randn(12000, 2, dtype=torch.float64, generator=generator)
    strengths = torch.logspace(-1, 5, 12, dtype=torch.float64)
    path = cf.ridge_path(X, Y, l2=strengths, bias=True)
    centred, targets = X - X.mean(0), Y - Y.mean(0)
    for place, l2 in enumerate(strengths.tolist()):
        ridge = torch.eye(90, dtype=torch.float64) * l2
        inverse = torch.linalg.inv(centred.T @ centred + ridge)
        left = 1 - 1 / 12000 - (centred @ inverse * centred).sum(1, keepdim=True)
        residual = (targets - centred @ (inverse @ (centred.T @ targets))) / left
        torch.testing.assert_close(path.errors[place], residual.square().mean(0), rtol=1e-10, atol=0)


def near_one(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, bool]:
    """Return a problem with rows of leverage near 1: few rows for its columns, or rows far from all others.

    In every third the columns are in very different units.
    """
    rng = np.random.default_rng(1000 + number)
    n, bias = int(rng.integers(2, 10)), bool(number % 2)
    m = n + bias + 1 + int(rng.integers(0, 2)) if number % 4 < 2 else 3 * n
    X, Y = rng.standard_normal((m, n)), rng.standard_normal((m, 1 + number % 2))
    if number % 4 >= 2:
        X[rng.integers(m), rng.integers(n)] = 10.0 ** rng.uniform(3, 7)
    if number % 3 == 0:
        X *= 10.0 ** rng.uniform(-9, 9, n)
    weight = rng.uniform(0.5, 2.0, m) if number % 5 < 2 else None
    return X, Y, weight, bias


@pytest.mark.parametrize("number", range(16))
def test_leverages_near_one_cost_no_digits(number: int) -> None:
    X, Y, weight, bias = near_one(number)
    strengths = [0.0, 1e-8, 1e-2]
    residuals = left_out_residuals(X, Y, l2=strengths, bias=bias, sample_weight=weight).numpy()
    path = cf.ridge_path(X, Y, l2=strengths, bias=bias, sample_weight=weight)
    w = np.ones(len(X)) if weight is None else weight

    for place, l2 in enumerate(strengths):
        expected = np.empty_like(Y)
        for row in range(len(X)):
            others = np.arange(len(X)) != row
            fit = oracle.minimise(X[others], Y[others], bias=bias, l2=l2, sample_weight=w[others])
            expected[row] = Y[row] - fit.weight @ X[row] - (0.0 if fit.bias is None else fit.bias)
        assert np.abs(residuals[place] - expected).max() < 1e-10 * np.abs(expected).max()
        np.testing.assert_allclose(path.errors[place].numpy(), w @ expected**2 / w.sum(), rtol=2e-10)


def alone(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a problem with a row that alone makes a direction far longer than all others: its leverage is 1."""
    rng = np.random.default_rng(2000 + number)
    X, Y = rng.standard_normal((7, (3, 7, 10)[number % 3])), rng.standard_normal((7, 2))
    size = 10.0 ** rng.uniform(3, 9)
    if number % 2:
        X[2] *= size
    else:
        X = np.column_stack([X, size * np.eye(7)[:, 4]])
    return X, Y


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("number", range(6))
def test_a_row_alone_in_its_direction_costs_no_digits(number: int, bias: bool) -> None:
    X, Y = alone(number)
    strengths = [1e-6, 1.0, 1e3]
    residuals = left_out_residuals(X, Y, l2=strengths, bias=bias).numpy()
    path = cf.ridge_path(X, Y, l2=strengths, bias=bias)
    for place, l2 in enumerate(strengths):
        expected = np.empty_like(Y)
        for row in range(len(X)):
            others = np.arange(len(X)) != row
            fit = oracle.minimise(X[others], Y[others], bias=bias, l2=l2)
            expected[row] = Y[row] - fit.weight @ X[row] - (0.0 if fit.bias is None else fit.bias)
        assert np.abs(residuals[place] - expected).max() < 1e-10 * np.abs(expected).max()
        np.testing.assert_allclose(path.errors[place].numpy(), (expected**2).mean(0), rtol=2e-10)


def test_labels_and_absolute_errors_of_leverages_near_one() -> None:
    rng = np.random.default_rng(4)
    X, codes = rng.standard_normal((90, 4)), torch.from_numpy(rng.integers(0, 20, 90))
    X[7, 2], X[50, 0] = 1e5, 1e6
    labels = OneHotRows(codes, 20, torch.float64)
    Y = torch.nn.functional.one_hot(codes, 20).double()
    residuals = left_out_residuals(X, Y, l2=[0.0, 1.0], bias=True)
    by_class = cf.ridge_path(X, labels, l2=[0.0, 1.0], bias=True)
    torch.testing.assert_close(by_class.errors, residuals.square().mean(1), rtol=1e-10, atol=0)
    absolute = cf.ridge_path(X, Y, l2=[0.0, 1.0], bias=True, scoring="mae")
    torch.testing.assert_close(absolute.errors, residuals.abs().mean(1), rtol=1e-12, atol=0)


def test_absolute_errors() -> None:
    rng = np.random.default_rng(3)
    X, Y, weight = rng.standard_normal((30, 4)), rng.standard_normal((30, 2)), rng.uniform(0.1, 3.0, 30)
    residuals = left_out_residuals(X, Y, l2=[0.5], sample_weight=weight).numpy()[0]
    path = cf.ridge_path(X, Y, l2=[0.5], sample_weight=weight, scoring="mae")
    np.testing.assert_allclose(path.errors[0].numpy(), weight @ np.abs(residuals) / weight.sum(), rtol=1e-12)


def test_rows_of_leverage_one_are_named_with_what_is_used_instead() -> None:
    X = torch.zeros(12, 3, dtype=torch.float64)
    X[:, 0] = torch.arange(12)
    X[4, 1], X[9, 2] = 1.0, 5.0
    Y = X[:, 0] + torch.arange(12).sin()
    path = cf.ridge_path(X, Y, l2=[0.0, 1.0], bias=True)
    assert path.interpolated_rows == 2
    assert any("2 rows of leverage 1" in note and "row 4, 9" in note and "least norm" in note for note in path.notes)


def test_far_units_and_narrow_dtypes() -> None:
    rng = np.random.default_rng(5)
    X, Y = rng.standard_normal((40, 3)), rng.standard_normal((40, 2))
    path = cf.ridge_path(X, Y, l2=[1.0], bias=True)
    far = cf.ridge_path(X * 2.0**500, Y * 2.0**-300, l2=[2.0**1000], bias=True)
    assert torch.equal(far.errors, torch.ldexp(path.errors, torch.tensor(-600)))
    narrow = cf.ridge_path(X.astype(np.float32), Y.astype(np.float32), l2=[1.0], bias=True)
    torch.testing.assert_close(narrow.errors, path.errors, rtol=1e-5, atol=0)
    assert narrow.errors.dtype == torch.float64
    assert narrow.solution.weight.dtype == torch.float32


def test_rows_from_files_and_in_parts(tmp_path: object) -> None:
    from dataclasses import replace
    from pathlib import Path

    from closedform.fit.path.entry import path_of_rows
    from closedform.fit.path.search import Selection
    from closedform.fit.request import Request
    from walkers import Parts

    rng = np.random.default_rng(6)
    X, Y = rng.standard_normal((300, 7)), rng.standard_normal((300, 2))
    here = cf.ridge_path(X, Y, bias=True)
    folder = Path(str(tmp_path))
    np.save(folder / "x.npy", X)
    np.save(folder / "y.npy", Y)
    filed = cf.ridge_path(str(folder / "x.npy"), str(folder / "y.npy"), bias=True)
    torch.testing.assert_close(filed.errors, here.errors, rtol=1e-13, atol=0)

    rows = replace(as_rows(X, Y), walker=Parts(7))
    parts = path_of_rows(rows, Request.checked(rows, bias=True), None, Selection("loo", None, True, "mse"))
    torch.testing.assert_close(parts.errors, here.errors, rtol=1e-12, atol=0)


@pytest.mark.parametrize("columns", [2, 5])
def test_interpolated_rows_are_named_among_all_rows(columns: int) -> None:
    X = torch.zeros(6, columns, dtype=torch.float64)
    X[:, 0] = torch.arange(1.0, 7.0)
    X[4, 1] = 1.0
    path = cf.ridge_path(X, torch.arange(6.0).square(), l2=[0.0, 1.0], sample_weight=[0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    assert any("1 row of leverage 1 without a ridge (row 4)" in note for note in path.notes)
