"""Huber's regression with its scale, held to its optimality conditions solved in forty digits."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from closedform.fit.convex import solve_with_scale
from closedform.words.outcome import Outcome


def table(shift: float = 0.0, n: int = 24, seed: int = 5) -> tuple[Tensor, Tensor]:
    """Rows, far from zero, whose numbers are exact, and targets of which some lie far off."""
    draw = torch.Generator().manual_seed(seed)
    X = (1024 * torch.randn(n, 2, dtype=torch.float64, generator=draw)).round() / 1024
    Y = X @ torch.tensor([1.0, -2.0], dtype=torch.float64)
    Y = (1024 * (Y + torch.randn(n, dtype=torch.float64, generator=draw))).round() / 1024
    Y[::7] += 16
    return X + shift, Y


def objective(X: Tensor, Y: Tensor, w: list[mp.mpf], b: mp.mpf, s: mp.mpf, epsilon: float, l2: float) -> mp.mpf:
    """The objective in forty digits."""
    total = mp.mpf(l2) * sum(value * value for value in w)
    for x, y in zip(X.tolist(), Y.tolist(), strict=True):
        size = abs(mp.mpf(y) - b - sum(value * mp.mpf(each) for value, each in zip(w, x, strict=True)))
        inner = min(size, mp.mpf(epsilon) * s)
        total += s + inner * (2 * size - inner) / s
    return total


def least(X: Tensor, Y: Tensor, epsilon: float, l2: float, start: list[float], scale: float) -> mp.mpf:
    """The minimum: which rows count linearly is looked at again until the optimality conditions with them hold."""
    A = [[mp.mpf(1), *map(mp.mpf, row)] for row in X.tolist()]
    t, epsilon = list(map(mp.mpf, Y.tolist())), mp.mpf(epsilon)
    ridge = mp.diag([0, *[mp.mpf(l2)] * X.shape[1]])
    v, s = mp.matrix(start), mp.mpf(scale)
    for _ in range(100):
        r = [value - sum(a * w for a, w in zip(row, v, strict=True)) for row, value in zip(A, t, strict=True)]
        inside = [abs(value) <= epsilon * s for value in r]
        H, g = s * ridge, mp.zeros(len(A[0]), 1)
        for row, value, residual, near in zip(A, t, r, inside, strict=True):
            column = mp.matrix(row)
            H += column * column.T if near else 0 * H
            g += column * (value if near else epsilon * s * mp.sign(residual))
        moved, v = v, mp.lu_solve(H, g)
        r = [value - sum(a * w for a, w in zip(row, v, strict=True)) for row, value in zip(A, t, strict=True)]
        squares = sum(value * value for value, near in zip(r, inside, strict=True) if near)
        s = mp.sqrt(squares / (len(t) - inside.count(False) * epsilon**2))
        if mp.norm(v - moved) <= mp.mpf(10) ** -30 * mp.norm(v):
            return objective(X, Y, list(v)[1:], v[0], s, float(epsilon), l2)
    raise AssertionError("the optimality conditions were not met")


def check(X: Tensor, Y: Tensor, epsilon: float, l2: float) -> None:
    """Hold a fit, and what it says of itself, to the minimum."""
    found = solve_with_scale(X, Y, epsilon=epsilon, bias=True, l2=l2)
    certificate, bias = found.solution.certificate, found.solution.bias
    assert found.solution.outcome is Outcome.CERTIFIED, found.solution
    assert bias is not None

    w, b = found.solution.weight[0].tolist(), float(bias)
    with mp.workdps(40):
        best = least(X, Y, epsilon, l2, [b, *w], found.scale)
        above = objective(X, Y, list(map(mp.mpf, w)), mp.mpf(b), mp.mpf(found.scale), epsilon, l2) - best
    assert above <= certificate.gap <= 1e-10 * best


@pytest.mark.parametrize(("shift", "l2"), [(3e4, 1e-4), (1e6, 1.0)])
def test_features_far_from_zero_are_certified(shift: float, l2: float) -> None:
    check(*table(shift), 1.35, l2)


# Newton's method alone stopped above the minimum of each.
@pytest.mark.parametrize(("epsilon", "n", "seed"), [(1.03, 12, 0), (1.1, 12, 5)])
def test_a_narrow_quadratic_is_certified(epsilon: float, n: int, seed: int) -> None:
    check(*table(n=n, seed=seed), epsilon, 1e-4)


@pytest.mark.parametrize("epsilon", [1.0, 1.001])
def test_a_scale_of_zero_is_found_where_it_is_best(epsilon: float) -> None:
    X, Y = table()
    found = solve_with_scale(X, Y, epsilon=epsilon, bias=True, l2=0.0)
    assert found.solution.outcome is Outcome.CERTIFIED, found.solution
    assert found.scale < 1e-10
    # With no scale sizes of residuals are what is minimised, by a linear program.
    A, m = np.concatenate([np.ones((len(Y), 1)), X.numpy()], 1), len(Y)
    cost, sides = np.concatenate([np.zeros(3), np.ones(2 * m)]), [A, np.eye(m), -np.eye(m)]
    free = [(None, None)] * 3 + [(0, None)] * (2 * m)
    solved = linprog(cost, A_eq=np.hstack(sides), b_eq=Y.numpy(), bounds=free)
    assert found.solution.certificate.objective == pytest.approx(2 * epsilon * solved.fun, rel=1e-10)


@pytest.mark.parametrize("unit", [1e-150, 1e150])
def test_units_decide_nothing(unit: float) -> None:
    X, Y = table()
    unit = 2.0 ** round(math.log2(unit))
    usual = solve_with_scale(X, Y, epsilon=1.35, bias=True, l2=0.0)
    found = solve_with_scale(X * unit, Y / unit, epsilon=1.35, bias=True, l2=0.0)
    assert found.solution.outcome is Outcome.CERTIFIED
    assert found.scale * unit == usual.scale
    assert torch.equal(found.solution.weight * unit * unit, usual.solution.weight)
