"""What is certified is what is stored: minimisers of criteria whose digits a narrow dtype of the layer cannot hold."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import closedform as cf
from closedform.fit.convex.joint_scale import solve_with_scale

CRITERIA: dict[str, Any] = {
    "huber": nn.HuberLoss(),
    "absolute": nn.L1Loss(),
    "counts": nn.PoissonNLLLoss(reduction="sum"),
    "classes": nn.CrossEntropyLoss(label_smoothing=0.1),
    "margins": nn.MultiMarginLoss(),
}


def targets_of(name: str, X: Tensor) -> Tensor:
    line = X @ torch.tensor([1.0, -0.5, 0.25]) + 0.1 * torch.randn(
        X.shape[0], generator=torch.Generator().manual_seed(1)
    )
    if name in ("classes", "margins"):
        return (line > 0).long() + (line > 1).long()
    return line.exp().round() if name == "counts" else line


def table(name: str, shift: float) -> tuple[Tensor, Tensor]:
    """Rows in float32, of features far from zero if there is a shift."""
    X = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    return X + shift, targets_of(name, X)


def loss_of(name: str, sol: Any, X: Tensor, Y: Tensor, l2: float) -> float:
    """The objective in the units of the criterion, by torch, in float64."""
    Z = X.double() @ sol.weight.double().T + sol.bias.double()
    Y = Y if name in ("classes", "margins") else Y.double()
    Z = Z if name in ("classes", "margins") else Z[:, 0]
    rows = 1 if name == "counts" else X.shape[0]
    return float(CRITERIA[name](Z, Y)) + l2 / 2 * float(sol.weight.double().square().sum()) / rows


@pytest.mark.parametrize(
    ("name", "shift"), [*((name, 0.0) for name in CRITERIA), ("huber", 3e5), ("absolute", 3e5), ("counts", 2e5)]
)
def test_both_losses_are_torchs_and_the_first_line_says_what_is_stored(name: str, shift: float) -> None:
    X, Y = table(name, shift)
    sol = cf.solve(X, Y, criterion=CRITERIA[name], bias=True, l2=1e-3)
    exact = cf.solve(
        X.double(), Y if Y.dtype == torch.int64 else Y.double(), criterion=CRITERIA[name], bias=True, l2=1e-3
    )
    assert sol.outcome.certified
    assert exact.certified
    assert exact.stored is None
    assert sol.stored is not None
    assert sol.stored.loss == pytest.approx(loss_of(name, sol, X, Y, 1e-3), rel=1e-9)
    assert sol.stored.certified_loss == pytest.approx(loss_of(name, exact, X, Y, 1e-3), rel=1e-6)

    assert sol.stored.lost == (shift > 0)
    assert sol.certified == (shift == 0)
    assert ("as float32 the loss is" in str(sol).splitlines()[0]) == (shift > 0)
    assert sol.metrics()["certified"] == float(shift == 0)
    assert sol.to_dict()["certified"] == (shift == 0)


@pytest.mark.parametrize(("shift", "l2"), [(0.0, 1e-3), (3e5, 0.0)])
def test_the_fit_with_its_scale_says_it_too(shift: float, l2: float) -> None:
    X, Y = table("huber", shift)
    found = solve_with_scale(X, Y, epsilon=1.35, bias=True, l2=l2)
    sol, scale = found.solution, found.scale
    assert sol.stored is not None

    Z = X.double() @ sol.weight[0].double() + sol.bias.double()
    z = (Y.double() - Z) / scale
    loss = 2 * nn.functional.huber_loss(z, torch.zeros_like(z), delta=1.35, reduction="sum")
    objective = scale * float(len(z) + loss) + l2 * float(sol.weight.double().square().sum())
    assert sol.stored.loss == pytest.approx(objective, rel=1e-9)
    assert sol.stored.certified_loss == sol.certificate.objective
    assert (sol.stored.lost, sol.certified) == (shift > 0, shift == 0)


def test_an_exact_fit_loses_no_more_than_the_rows_were_rounded() -> None:
    X = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    sol = cf.solve(X, X @ torch.ones(3), criterion=nn.L1Loss())
    assert sol.certified
    assert sol.stored is not None
    assert not sol.stored.lost


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_plan_names_what_was_done() -> None:
    X, y = gaussian(40, 3).to(torch.float32), gaussian(40, seed=1).to(torch.float32)
    labels = (y > 0).long()
    classes = cf.solve(X, labels, bias=True, l2=1.0, criterion=nn.CrossEntropyLoss())
    kinks = cf.solve(X, y, bias=True, criterion=nn.L1Loss())
    divided = cf.solve(X, (X[:, 0] > 0).double(), criterion=nn.BCEWithLogitsLoss())
    joint = solve_with_scale(X, y, epsilon=1.35, bias=True, l2=1.0).solution
    wide = cf.solve(gaussian(20, 80), (gaussian(20, seed=2) > 0).long(), l2=1.0, criterion=nn.CrossEntropyLoss())

    names = []
    for found in (classes, kinks, divided, joint, wide):
        assert isinstance(found, cf.ConvexSolution)
        assert found.to_dict()["plan"] == found.plan.to_dict()
        assert all(f"done: {stage}" in str(found).split("\n") for stage in found.plan.stages)
        names.append([stage.name for stage in found.plan.stages])
    newton = "Newton's method"
    assert names[0] == [newton, "rounding"]
    assert names[1] == ["active rows", "rounding"]
    assert names[2][0] == newton
    assert names[2][-2:] == ["linear program", "rounding"]
    assert names[3] == [newton, "rounding"]
    assert names[4] == ["row space", newton]
    assert "products in float32" in str(classes.plan)
    assert sum(stage.steps for stage in classes.plan.stages) == classes.steps
