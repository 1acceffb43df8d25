"""Rows always count: equal ones, at the start and later, and rows beside columns of very different units."""

from __future__ import annotations

from fractions import Fraction

import flint
import numpy as np
import pytest
import torch
from test_optim import make_layer, rows_of, slices, train
from torch import Tensor, nn

import closedform as cf
from closedform.optim import RecursiveLeastSquares
from closedform.optim.memory import init, update

ONE = torch.ones(1, 1, dtype=torch.float64)


def exact_nearest(A: Tensor, B: Tensor, start: Tensor) -> list[float]:
    """The minimiser nearest to ``start``, one target, in rational arithmetic: ``start + A^+ (B - A start)``."""
    rational = [[flint.fmpq(*Fraction(v).as_integer_ratio()) for v in row] for row in A.tolist()]
    a = flint.fmpq_mat(rational)
    w = flint.fmpq_mat([[flint.fmpq(*Fraction(v).as_integer_ratio())] for v in start[:, 0].tolist()])
    b = flint.fmpq_mat([[flint.fmpq(*Fraction(v).as_integer_ratio())] for v in B[:, 0].tolist()])
    normal, right = a.transpose() * a, a.transpose() * (b - a * w)
    # The step lies in the row space: A'A restricted to independent rows V of itself, where V (A'A) V' is regular.
    reduced, rank = normal.rref()
    if rank == 0:
        return [float(Fraction(int(v.p), int(v.q))) for v in w.entries()]
    V = flint.fmpq_mat([[reduced[i, j] for j in range(normal.ncols())] for i in range(rank)])
    step = V.transpose() * ((V * normal * V.transpose()).solve(V * right))
    return [float(Fraction(int(v.p), int(v.q))) for v in (w + step).entries()]


def test_two_equal_rows_are_two_rows() -> None:
    layer = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    train(layer, RecursiveLeastSquares(layer), ONE.expand(3, 1), torch.tensor([[1.0], [1.0], [0.0]]).double(), 1)
    assert layer.weight.item() == pytest.approx(2 / 3, rel=1e-14)


@pytest.mark.parametrize("seed", range(250))
def test_streams_of_binary_rows_end_at_the_exact_minimiser(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = int(rng.integers(1, 9)), int(rng.integers(1, 4))
    bias = bool(rng.integers(2))
    X = torch.from_numpy(rng.integers(0, 2, (rows, columns)).astype(float))
    Y = torch.from_numpy(rng.integers(0, 2, (rows, 1)).astype(float))
    layer = make_layer(columns, bias=bias)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_((8 * parameter).round() / 8)
    start = layer.weight.detach().T if not bias else torch.cat([layer.bias.detach()[None], layer.weight.detach().T])
    A = torch.cat([torch.ones(rows, 1, dtype=torch.float64), X], 1) if bias else X
    expected = exact_nearest(A, Y, start)

    train(layer, RecursiveLeastSquares(layer), X, Y, int(rng.integers(1, rows + 1)))

    found = torch.cat([layer.bias.detach(), layer.weight.detach()[0]]) if bias else layer.weight.detach()[0]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_a_row_that_differs_only_beside_a_large_number_is_another_row() -> None:
    # A product of the rows with any fixed weights rounds to the same number for both.
    A = torch.tensor([[1.0, 0.0, 1e18], [0.0, 1.0, 1e18]], dtype=torch.float64)
    memory = init(torch.zeros(3, 1, dtype=torch.float64), 0.0, bias=False)
    for row in A.split(1):
        memory = update(memory, rows_of(row, ONE), l2=0.0, bias=False)
    memory = update(memory, rows_of(A[1:], 0 * ONE), l2=0.0, bias=False)
    residual = torch.tensor([[0.0], [0.5], [-0.5]], dtype=torch.float64)
    rows, targets = A[[0, 1, 1]], torch.tensor([[1.0], [1.0], [0.0]], dtype=torch.float64)
    torch.testing.assert_close(targets - rows @ memory.weights, residual, rtol=0, atol=1e-10)


@pytest.mark.parametrize("times", [2, 5])
def test_a_batch_that_comes_again_weighs_as_often_as_it_came(times: int) -> None:
    X, Y = torch.randn(4, 9, dtype=torch.float64), torch.randn(4, 1, dtype=torch.float64)  # fewer rows than columns
    layer = make_layer(9)
    opt = RecursiveLeastSquares(layer)
    train(layer, opt, X, Y, 4, epochs=times)
    assert opt.state[layer.weight]["rows"] == 4 * times
    other = torch.randn(30, 9, dtype=torch.float64)
    train(layer, opt, other, Y[0].expand(30, 1), 30)
    whole = torch.cat([X.repeat(times, 1), other]), torch.cat([Y.repeat(times, 1), Y[0].expand(30, 1)])
    assert cf.gap(layer, *whole).weight_distance < 1e-12


@pytest.mark.filterwarnings("ignore:lr=0.5")
@pytest.mark.parametrize("rows", [3, 60])
def test_a_damped_step_on_dependent_columns_goes_on(rows: int) -> None:
    X, Y = torch.randn(rows, 6, dtype=torch.float64), torch.randn(rows, 1, dtype=torch.float64)
    X[:, 5] = 2 * X[:, 0]
    layer = make_layer(6)
    opt = RecursiveLeastSquares(layer, lr=0.5)
    train(layer, opt, X, Y, rows, epochs=60)  # every step goes half of what is left
    assert cf.gap(layer, X, Y).excess_loss < 1e-25


def time_table(rng: np.random.Generator, unit: float, rows: int = 45) -> tuple[Tensor, Tensor]:
    """One-hot columns that add up to the bias, a column of time, and noise."""
    group, day = rng.integers(0, 3, rows), 20000 + rng.uniform(0, 365, rows)
    X = np.c_[np.eye(3)[group], day * unit]
    noise = 0.1 * rng.standard_normal(rows)
    Y = np.array([1.0, 2.0, 4.0])[group] + 0.01 * (day - 20000) + noise
    return torch.from_numpy(X), torch.from_numpy(Y)[:, None]


@pytest.mark.parametrize("size", [1, 32, 45])
@pytest.mark.parametrize("unit", [1.0, 86400.0, 86400e6, 86400e9, 86400e-12])
def test_units_of_time_beside_dependent_columns(unit: float, size: int) -> None:
    X, Y = time_table(np.random.default_rng(0), unit)
    layer = make_layer(4)
    train(layer, RecursiveLeastSquares(layer), X, Y, size)
    gap = cf.gap(layer, X, Y)
    assert gap.excess_loss <= 1e-18 * gap.loss


@pytest.mark.parametrize("seed", range(40))
def test_mixed_units_end_at_the_minimiser(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = int(rng.integers(2, 40)), int(rng.integers(1, 7))
    units = 10.0 ** rng.uniform(-12, 12, columns)
    X = rng.standard_normal((rows, columns)) * (rng.random((rows, columns)) < 0.7)
    if columns > 2 and seed % 2:
        X[:, 0] = X[:, 1] + X[:, 2]
        units[:3] = 2.0 ** rng.integers(-40, 40)  # they stay dependent, exactly
    X, Y = torch.from_numpy(X * units), torch.from_numpy(rng.standard_normal((rows, 1)))
    layer = make_layer(columns, bias=bool(seed % 3))
    train(layer, RecursiveLeastSquares(layer), X, Y, int(rng.integers(1, rows + 1)))

    A = torch.cat([torch.ones(rows, 1, dtype=torch.float64), X], 1) if layer.bias is not None else X
    weights = torch.cat([p.detach().reshape(-1) for p in reversed(list(layer.parameters()))])[:, None]
    # What is left must be orthogonal to every column, up to the rounding of its products.
    residual = Y - A @ weights
    size = A.abs().T @ (A.abs() @ weights.abs() + Y.abs())
    assert bool(((A.T @ residual).abs() <= 1e-12 * size).all())


def test_epochs_weigh_all_rows_alike() -> None:
    X, Y = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 1, dtype=torch.float64)
    layer = make_layer(3)
    opt = RecursiveLeastSquares(layer)
    train(layer, opt, X, Y, 7, epochs=3)
    assert opt.state[layer.weight]["rows"] == 60
    assert cf.gap(layer, X, Y).weight_distance < 1e-13
    assert len(list(slices(20, 7))) == 3
