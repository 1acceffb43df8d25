"""Sums of a criterion of one output: against torch's own modules and mpmath, in registers of every width."""

from __future__ import annotations

import copy
import math

import mpmath
import pytest
import torch
from torch import Tensor, nn

from closedform.engine import compiled
from closedform.engine.choice import engine_for
from closedform.engine.compiled import Compiled
from closedform.engine.products import Blas
from closedform.engine.sums import LossTotals, RowLengths, loss_totals
from closedform.fit.convex import certificate
from closedform.losses import Criterion, SquaredHingeLoss, Targets, read_criterion
from closedform.losses.formula import Formula, Shape
from covering import parametrize_covering

pytestmark = pytest.mark.skipif(not compiled.available(), reason="no C compiler built the passes here")

BCE = Formula(Shape.LOGISTIC, (0.0, 1.0, 1.0, 1.0))
POISSON = Formula(Shape.EXPONENTIAL)
FEW = torch.tensor([3.0], dtype=torch.float64)
MODULES: dict[str, nn.Module] = {
    "binary": nn.BCEWithLogitsLoss(),
    "binary, factors": nn.BCEWithLogitsLoss(weight=FEW / 2, pos_weight=FEW),
    "soft margin": nn.SoftMarginLoss(),
    "multi-label": nn.MultiLabelSoftMarginLoss(weight=FEW),
    "Poisson": nn.PoissonNLLLoss(),
    "Huber": nn.HuberLoss(delta=0.7),
    "smooth L1": nn.SmoothL1Loss(beta=0.4),
}


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def targets(name: str, rows: int) -> Tensor:
    y = gaussian(rows, 1, seed=1)
    if name == "soft margin":
        return y.sign()
    if name == "Poisson":
        return (3 * y.abs()).floor()
    return (y > 0).double() if name in ("binary", "multi-label") else y.sigmoid()


def one_output(module: nn.Module) -> Criterion:
    criterion = read_criterion(module, Targets(1, one_dimensional=False, integers=False))
    assert isinstance(criterion, Criterion)
    return criterion


@parametrize_covering(
    2,
    indirect=("width",),
    width=(16, 32, 64),
    name=tuple(MODULES),
    dtype=(torch.float64, torch.float32),
    weighted=(False, True),
    shape=((1, 1), (15, 3), (16, 8), (1000, 5), (5000, 17)),
)
def test_sums_are_those_of_torch(
    name: str, dtype: torch.dtype, weighted: bool, shape: tuple[int, int], width: int
) -> None:
    rows, columns = shape
    X, y = gaussian(rows, columns, seed=2).to(dtype), targets(name, rows)
    weight = gaussian(rows, seed=3).abs() * (gaussian(rows, seed=4) > -1.5) if weighted else gaussian(rows) * 0 + 1
    v, formula = gaussian(columns, seed=5) / 2, one_output(MODULES[name]).formula()
    assert formula is not None
    sums, roots = loss_totals(columns, torch.device("cpu")), torch.full((rows,), math.nan, dtype=torch.float64)
    lengths = RowLengths(gaussian(columns, seed=6).square(), 0.25, 3.0, 5.0)
    Compiled().loss_sums_(sums, X, y, formula, v, 0.5, weight if weighted else None, roots=roots, lengths=lengths)

    z = (X.double() @ v + 0.5).unsqueeze(1).requires_grad_()
    module = copy.copy(MODULES[name])
    module.reduction = "none"
    losses = module(z, y).reshape(rows)
    (slopes,) = torch.autograd.grad(losses.sum(), z, create_graph=True)
    # Of constant slopes there is no graph.
    bends = torch.autograd.grad(slopes.sum(), z)[0][:, 0] if slopes.requires_grad else torch.zeros(rows)
    slopes, losses = slopes.detach()[:, 0], losses.detach()
    squares = X.double().square() @ lengths.squares + lengths.own
    off = lengths.few * slopes.abs() + bends * lengths.reach * squares.sqrt()
    wanted = [X.double().T @ (weight * slopes), weight @ slopes, weight @ losses, weight @ losses.abs()]
    found = [sums.features, sums.ones[0], *sums.losses]
    for one, other in zip([*found, sums.errors[0]], [*wanted, weight @ off.square()], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12 * rows)
    torch.testing.assert_close(roots.square(), bends * weight, rtol=1e-12, atol=1e-15)
    assert float(sums.peak) == pytest.approx(float((squares * (weight > 0)).max()), rel=1e-14)
    assert engine_for(X).sums_losses
    assert width


def at(z: float, t: float, formula: Formula) -> tuple[float, float]:
    """Return loss and slope of one row."""
    sums = loss_totals(1, torch.device("cpu"))
    one = torch.ones(1, 1, dtype=torch.float64)
    Compiled().loss_sums_(sums, one, t * one, formula, z * one[0], 0.0)
    return float(sums.losses[0]), float(sums.features[0])


@pytest.mark.parametrize("width", [16, 32], indirect=True)
def test_exponentials_and_logarithms_are_as_near_as_is_said(width: int) -> None:
    assert compiled.library is not None
    said = compiled.library.SLOPE_ROUNDINGS * 2.0**-53
    assert said <= certificate._FEW * 2.0**-52
    with mpmath.workprec(150):
        for z in (10.0 ** gaussian(200, seed=width)).clamp(1e-9, 700).mul(gaussian(200).sign()).tolist():
            e = mpmath.exp(z)
            exact = {BCE: (mpmath.log1p(e), e / (1 + e)), POISSON: (e, e)}
            for formula, pair in exact.items():
                for found, wanted in zip(at(z, 0.0, formula), pair, strict=True):
                    assert abs(found - wanted) <= said * wanted


def test_outputs_beyond_the_range_are_infinite_and_no_numbers_stay() -> None:
    assert at(710.0, 0.0, POISSON)[1] == math.inf
    assert at(709.7, 0.0, POISSON)[1] == pytest.approx(math.exp(709.7), rel=1e-14)
    assert at(-1e4, 0.0, POISSON)[1] <= 1e-307
    assert at(1e4, 0.0, BCE) == (1e4, 1.0)
    assert at(1e4, 1.0, BCE)[0] <= 1e-307
    for formula in (POISSON, BCE, Formula(Shape.ROUNDED, (1.0, 1.0))):
        assert math.isnan(at(math.nan, 0.0, formula)[0])


def test_other_engines_and_criteria_have_none() -> None:
    ones, sums = torch.ones(1, 1, dtype=torch.float64), loss_totals(1, torch.device("cpu"))
    assert isinstance(sums, LossTotals)
    assert not Blas().sums_losses
    with pytest.raises(NotImplementedError, match="Blas has no sums of losses"):
        Blas().loss_sums_(sums, ones, ones, POISSON, ones[0], 0.0)
    assert one_output(nn.PoissonNLLLoss(full=True)).formula() is None
    assert one_output(SquaredHingeLoss()).formula() is None
