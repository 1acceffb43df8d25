"""Conjugate gradients with the lengths of the columns: right where columns are nearly orthogonal, refused elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import closedform as cf
from closedform.fit.plan import make_plan
from closedform.rows import Rows
from closedform.words.errors import InputError
from data import F64, gaussian
from facts import tall_facts

pytestmark = pytest.mark.device

ROWS, COLUMNS = 1500, 40


def exact(X: Tensor, Y: Tensor, l2: float = 0.0, weight: Tensor | None = None) -> np.ndarray:
    """The minimiser by elimination in extended precision; ``X`` holds the column of ones of a bias first, if any."""
    A, B = (values.numpy().astype(np.longdouble) for values in (X, Y))
    w = np.ones(len(A), np.longdouble) if weight is None else weight.numpy().astype(np.longdouble)
    G, C = A.T @ (w[:, None] * A) + np.longdouble(l2) * np.eye(A.shape[1]), A.T @ (w[:, None] * B)
    Z = np.linalg.solve(G.astype(float), C.astype(float)).astype(np.longdouble)
    for _ in range(4):
        Z += np.linalg.solve(G.astype(float), (C - G @ Z).astype(float))
    return Z.astype(float)


@pytest.mark.parametrize("targets", [1, 4])
@pytest.mark.parametrize(("l2", "weighted", "bias"), [(0.0, False, False), (50.0, True, False), (0.0, True, True)])
def test_it_is_the_minimiser(l2: float, weighted: bool, bias: bool, targets: int) -> None:
    X = gaussian(ROWS, COLUMNS)
    Y = X @ gaussian(COLUMNS, targets, seed=1) + gaussian(ROWS, targets, seed=2)
    weight = gaussian(ROWS, 1, seed=3)[:, 0].abs() + 0.5 if weighted else None
    sol = cf.solve(X, Y, l2=l2, bias=bias, sample_weight=weight, method="diagonal")
    A = torch.cat([torch.ones(ROWS, 1, dtype=F64), X], 1) if bias else X
    found = sol.weight.T if sol.bias is None else torch.cat([sol.bias.unsqueeze(0), sol.weight.T])
    Z = exact(A, Y, l2, weight)
    assert (np.linalg.norm(found.numpy() - Z, axis=0) <= 2e-15 * np.linalg.norm(Z, axis=0)).all()
    assert sol.certificate.backward_error <= sol.certificate.tolerance / 8
    singular = torch.linalg.svdvals(A if weight is None else A * weight.sqrt().unsqueeze(1)).square()
    condition = float(((singular[0] + l2) / (singular[-1] + l2)).sqrt())
    assert sol.certificate.condition == pytest.approx(condition, rel=0.1)


@pytest.mark.parametrize("unit", [1e-150, 1e150])
def test_units_do_not_matter(unit: float) -> None:
    X, Y = gaussian(ROWS, COLUMNS), gaussian(ROWS, 1, seed=1)
    units = torch.logspace(-100, 100, COLUMNS, dtype=F64)
    sol = cf.solve(X * units, Y * unit, method="diagonal")
    Z = exact(X, Y)[:, 0]
    found = (sol.weight[0] * units / unit).numpy()
    assert np.linalg.norm(found - Z) <= 1e-14 * np.linalg.norm(Z)


@pytest.mark.parametrize("what", ["orthonormal", "one column", "zero target", "exact target"])
def test_there_is_little_to_do(what: str) -> None:
    X, Y = torch.linalg.qr(gaussian(ROWS, COLUMNS)).Q, gaussian(ROWS, 2, seed=1)
    if what == "one column":
        X = X[:, :1]
    elif what == "zero target":
        Y[:, 1] = 0
    elif what == "exact target":
        Y = X @ torch.arange(2.0 * COLUMNS, dtype=F64).reshape(COLUMNS, 2)
    sol = cf.solve(X, Y, method="diagonal")
    assert sol.certificate.accepted
    torch.testing.assert_close(sol.weight.T, torch.from_numpy(exact(X, Y)), rtol=1e-14, atol=1e-13)


@pytest.mark.parametrize("what", ["twin", "nearly", "common mean", "zero column"])
def test_one_direction_among_all_is_enough_to_refuse(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X = gaussian(8 * 300, 300)
    if what == "twin":
        X[:, 7] = X[:, 11]
    elif what == "nearly":
        X[:, 7] = X[:, 11] + 1e-3 * X[:, 7]
    elif what == "common mean":
        X += 1
    else:
        X[:, 3] = 0
    walks: list[str] = []
    walk = Rows.walk
    monkeypatch.setattr(Rows, "walk", lambda rows, fold: walks.append(type(fold).__name__) or walk(rows, fold))
    # A target that has nothing of that direction must not hide it.
    Y = X @ torch.ones(300, 1, dtype=F64)
    with pytest.raises(InputError, match=r"condition number at least|a column is zero"):
        cf.solve(X, Y, method="diagonal")
    assert len(walks) <= 12
    assert cf.solve(X, Y).certificate.accepted


def test_it_comes_first_where_columns_are_thousands() -> None:
    assert make_plan(tall_facts(100_000, 4000)).ladder[0].name == "diagonal"
    assert make_plan(tall_facts(20_000, 1000)).ladder[0].name != "diagonal"
    assert make_plan(tall_facts(1_000_000, 50)).ladder[0].name != "diagonal"
