"""Squared shortfalls whose minimum is a face: held to bounded least squares by an active set method."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear
from torch import Tensor, nn

import closedform as cf
from closedform.losses import SquaredHingeLoss
from closedform.words.outcome import Outcome


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def minimum(X: Tensor, D: Tensor, margin: float, rho: float, bias: bool, l2: float) -> float:
    """The least sum of rho max(0, margin - sum_k D_ik z_ik)^2 and half the ridge; D is (margins, rows, outputs)."""
    A = torch.cat([torch.ones(len(X), 1, dtype=X.dtype), X], 1) if bias else X
    rows = torch.einsum("prk,rc->pkc", D, A).reshape(len(D), -1).numpy()
    m, c = rows.shape
    free = np.ones((D.shape[2], A.shape[1]))
    free[:, : int(bias)] = 0
    # What is missing plus a part that is not negative: least squares with a bound.
    whole = np.block(
        [[np.sqrt(rho) * rows, -np.sqrt(rho) * np.eye(m)], [np.diag(np.sqrt(l2 / 2) * free.ravel()), np.zeros((c, m))]]
    )
    aim = np.concatenate([np.full(m, np.sqrt(rho) * margin), np.zeros(c)])
    low = np.concatenate([np.full(c, -np.inf), np.zeros(m)])
    solved = lsq_linear(whole, aim, (low, np.inf), method="bvls", tol=1e-15, max_iter=1000)
    return 2 * float(solved.cost)


def signs(Y: Tensor) -> Tensor:
    """The margins of targets of -1 and 1, for each output."""
    m, k = Y.shape
    D = torch.zeros(m * k, m, k, dtype=Y.dtype)
    for row in range(m):
        for output in range(k):
            D[row * k + output, row, output] = Y[row, output]
    return D


def pairs(labels: Tensor, k: int) -> Tensor:
    """The margins of each label from each other class."""
    m, found = len(labels), []
    for row, own in enumerate(labels.tolist()):
        for other in set(range(k)) - {own}:
            part = torch.zeros(m, k, dtype=torch.float64)
            part[row, own], part[row, other] = 1, -1
            found.append(part)
    return torch.stack(found)


@pytest.mark.parametrize("bias", [False, True])
def test_outputs_of_which_one_is_divided(bias: bool) -> None:
    X = gaussian(24, 2)
    Y = torch.sign(torch.stack([X[:, 0], X[:, 1] + gaussian(24, seed=1)], 1))
    found = cf.solve(X, Y, bias=bias, criterion=SquaredHingeLoss(reduction="sum"))
    assert isinstance(found, cf.ConvexSolution)
    best = minimum(X, signs(Y), 1.0, 1.0, bias, 0.0)
    assert found.outcome is Outcome.CERTIFIED_NOT_UNIQUE, found
    assert found.on_face
    assert found.certificate.flat_directions == 2 + bias
    assert found.certificate.objective == pytest.approx(best, rel=1e-10)
    assert found.certificate.gap <= 1e-12 * best


@pytest.mark.parametrize(("bias", "l2"), [(True, 0.0), (True, 1e-3)])
def test_classes_of_which_one_lies_far_from_the_others(bias: bool, l2: float) -> None:
    X, labels = gaussian(18, 2), torch.arange(18) % 3
    X[labels == 2, 0] += 50
    criterion = nn.MultiMarginLoss(p=2, reduction="sum")
    found = cf.solve(X, labels, bias=bias, l2=l2, criterion=criterion)
    assert isinstance(found, cf.ConvexSolution)
    best = minimum(X, pairs(labels, 3), 1.0, 1 / 3, bias, l2)
    assert found.outcome.certified, found
    assert found.certificate.objective == pytest.approx(best, rel=1e-10)
    assert found.certificate.gap <= 1e-10 * best


def test_a_class_that_no_row_has() -> None:
    X, labels = gaussian(16, 2), torch.arange(16) % 2
    layer = nn.Linear(2, 3, dtype=torch.float64)
    found = cf.fit_(layer, X, labels, criterion=nn.MultiMarginLoss(p=2, margin=0.5, reduction="sum"))
    assert isinstance(found, cf.ConvexSolution)
    best = minimum(X, pairs(labels, 3), 0.5, 1 / 3, True, 0.0)
    assert found.outcome is Outcome.CERTIFIED_NOT_UNIQUE, found
    assert found.certificate.objective == pytest.approx(best, rel=1e-10)


def test_rows_twice_with_other_labels_beside_divided_ones() -> None:
    """Two rows alone lose anything, which determine one direction of four: the gradient vanishes exactly."""
    X = torch.cat([gaussian(12, 4), gaussian(1, 4, seed=9)]) / 3
    Y = torch.sign(X[:, 0])
    X, Y = torch.cat([X, X[-1:]]), torch.cat([Y, -Y[-1:]])
    found = cf.solve(X, Y, criterion=SquaredHingeLoss(reduction="sum"))
    assert isinstance(found, cf.ConvexSolution)
    assert found.outcome.certified, found
    assert not found.certificate.unique
    assert found.certificate.objective == pytest.approx(2.0, rel=1e-10)
    assert found.certificate.gap <= 1e-12
