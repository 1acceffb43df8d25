"""What no loss depends on: idle outputs, columns of zeros, rows without weight, and faces of minimisers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import closedform as cf
from closedform.losses import HingeLoss, PinballLoss, SquaredHingeLoss
from closedform.words.errors import InputError
from closedform.words.outcome import Outcome
from data import F64


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


X = gaussian(40, 3)
BITS = (gaussian(40, 3, seed=1) > 0).double()
SIGNS = 2 * BITS - 1


@pytest.mark.parametrize("kind", [nn.BCEWithLogitsLoss, nn.MultiLabelSoftMarginLoss])
@pytest.mark.parametrize(("bias", "l2"), [(True, 0.0), (True, 0.5), (False, 0.5)])
def test_an_output_of_weight_zero_has_a_minimum(kind: Any, bias: bool, l2: float) -> None:
    factors = torch.tensor([0.0, 1.0, 2.0], dtype=F64)
    found = cf.solve(X, BITS, bias=bias, l2=l2, criterion=kind(weight=factors))
    share = 3 if kind is nn.MultiLabelSoftMarginLoss else 1
    others = cf.solve(X, BITS[:, 1:], bias=bias, l2=share * l2, criterion=nn.BCEWithLogitsLoss(weight=factors[1:]))
    assert found.outcome is (Outcome.CERTIFIED if l2 and not bias else Outcome.CERTIFIED_NOT_UNIQUE)
    assert not bool(found.weight[0].any())
    torch.testing.assert_close(found.weight[1:], others.weight, rtol=1e-9, atol=1e-12)
    level = (0 if l2 else 3) + bias
    assert found.certificate.flat_directions == level


FACES: dict[str, tuple[Tensor, Tensor, nn.Module]] = {
    "absolute": (torch.tensor([[1.0], [-1], [1], [-1]]), torch.tensor([1.0, 1, 2, 2]), nn.L1Loss()),
    "quantile": (torch.tensor([[1.0], [-1], [1], [-1]]), torch.tensor([1.0, 1, 2, 2]), PinballLoss(0.5)),
    "hinge": (torch.tensor([[0.1], [-0.1]]), torch.tensor([1.0, -1]), HingeLoss()),
    "one sign": (torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 1]), HingeLoss()),
    "classes": (torch.tensor([[0.1], [-0.1], [-0.1], [0.1]]), torch.tensor([0, 1, 1, 0]), nn.MultiMarginLoss()),
}


@pytest.mark.parametrize("name", FACES)
def test_a_bias_that_is_free_beside_a_ridge_is_told(name: str) -> None:
    A, Y, criterion = FACES[name]
    A, Y = A.double(), Y if Y.dtype == torch.int64 else Y.double()
    found = cf.solve(A, Y, bias=True, l2=1.0, criterion=criterion)
    assert isinstance(found, cf.ConvexSolution)
    assert found.outcome is Outcome.CERTIFIED_NOT_UNIQUE
    assert not found.certificate.unique
    assert found.certificate.flat_directions == 1
    assert found.bias is not None
    # Here or there along the bias the loss is the same.
    losses = []
    for change in (-0.01, 0.0, 0.01):
        outputs = A @ found.weight.T + found.bias
        outputs[:, 0] += change
        losses.append(float(criterion(outputs if Y.dtype == torch.int64 else outputs[:, 0], Y)))
    assert min(losses[0], losses[2]) == pytest.approx(losses[1], abs=1e-15)


def test_a_bias_that_a_row_holds_beside_a_ridge_is_unique() -> None:
    found = cf.solve(X, gaussian(40, seed=2), bias=True, l2=1.0, criterion=PinballLoss(0.3))
    assert found.outcome is Outcome.CERTIFIED


def test_no_point_of_a_face_is_said_to_be_the_nearest() -> None:
    ones, y = torch.ones(4, 1, dtype=F64), torch.tensor([1.0, 2, 5, 9], dtype=F64)
    found = cf.solve(ones, y, criterion=nn.L1Loss())
    assert isinstance(found, cf.ConvexSolution)
    assert found.sentence == "certified, not unique: the minimum is a face, and these weights are a point of it"
    twice = cf.solve(torch.cat([X, X[:, :1]], 1), gaussian(40, seed=2), criterion=nn.L1Loss())
    assert isinstance(twice, cf.ConvexSolution)
    assert "nearest to the origin" in twice.sentence
    assert float(twice.weight[0, 0]) == pytest.approx(float(twice.weight[0, 3]), rel=1e-12)


def test_no_ridge_is_advised_where_the_bias_alone_falls() -> None:
    found = cf.solve(X, torch.ones(40, dtype=F64), bias=True, l2=1.0, criterion=nn.BCEWithLogitsLoss())
    assert isinstance(found, cf.ConvexSolution)
    assert found.outcome is Outcome.NO_MINIMISER
    assert "no ridge on the weights changes that" in found.sentence


LABELS = BITS[:, 0].long()
STILL: dict[str, tuple[nn.Module, Tensor]] = {
    "absolute": (nn.L1Loss(), SIGNS[:, 0]),
    "hinge": (HingeLoss(), SIGNS[:, 0]),
    "pairs": (nn.MultiMarginLoss(), LABELS),
    "huber": (nn.HuberLoss(), SIGNS[:, 0]),
    "classes": (nn.CrossEntropyLoss(), LABELS),
    "squared hinge": (SquaredHingeLoss(), SIGNS[:, 0]),
}


@pytest.mark.parametrize("name", STILL)
@pytest.mark.parametrize("l2", [0.0, 1.0])
def test_columns_of_zeros_have_weights_of_zero(name: str, l2: float) -> None:
    criterion, Y = STILL[name]
    found = cf.solve(0 * X[:, :2], Y, l2=l2, criterion=criterion)
    assert found.outcome is (Outcome.CERTIFIED if l2 else Outcome.CERTIFIED_NOT_UNIQUE)
    assert not bool(found.weight.any())


def test_what_rows_of_a_class_without_weight_alone_tell_apart_is_level() -> None:
    labels = torch.arange(40) % 3
    # The last feature is seen by rows of class 0 alone.
    A = torch.cat([X, (labels == 0).double().unsqueeze(1)], 1)
    criterion = nn.CrossEntropyLoss(weight=torch.tensor([0.0, 1.0, 2.0], dtype=F64))
    found = cf.solve(A, labels, criterion=criterion)
    assert found.outcome is Outcome.CERTIFIED_NOT_UNIQUE
    assert found.certificate.flat_directions == 1
    assert found.certificate.loss == pytest.approx(float(criterion(A @ found.weight.T, labels)), rel=1e-14)


@pytest.mark.parametrize("l2", [1e-12, 1e-9])
def test_a_shift_of_classes_is_not_looked_along_beside_a_tiny_ridge(l2: float) -> None:
    labels = (X[:, 1] > 0).long() + BITS[:, 1].long()
    found = cf.solve(1e8 * X[:, :2], labels, bias=True, l2=l2, criterion=nn.MultiMarginLoss())
    assert found.outcome.certified
    assert isinstance(found, cf.ConvexSolution)
    assert found.certificate.gap <= 1e-10 * found.certificate.objective


@pytest.mark.parametrize("l2", [1e-3, 1e3])
@pytest.mark.parametrize("criterion", [nn.HuberLoss(), nn.SmoothL1Loss(beta=0.1)])
def test_a_constant_that_the_bias_meets_is_a_minimum_of_zero(criterion: nn.Module, l2: float) -> None:
    found = cf.solve(X, torch.full((40,), 0.7, dtype=F64), bias=True, l2=l2, criterion=criterion)
    assert found.outcome.certified
    assert found.bias is not None
    assert float(found.weight.abs().max()) < 1e-12
    assert float(found.bias) == pytest.approx(0.7, rel=1e-15)


@pytest.mark.parametrize(
    ("criterion", "Y"),
    [(SquaredHingeLoss(), torch.ones(40, dtype=F64)), (nn.MultiMarginLoss(p=2), torch.zeros(40, dtype=torch.int64))],
)
def test_one_class_alone_has_margins_by_the_bias(criterion: nn.Module, Y: Tensor) -> None:
    found = cf.solve(X, Y, bias=True, l2=1.0, criterion=criterion)
    assert found.outcome.certified
    assert found.certificate.loss == 0


def test_losses_beyond_float64_are_refused() -> None:
    with pytest.raises(InputError, match="HuberLoss of these targets is beyond the range of float64"):
        cf.solve(X, 1e300 * SIGNS, bias=True, criterion=nn.HuberLoss(delta=1e300))
