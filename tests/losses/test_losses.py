"""Each criterion has torch's value and slope, a curvature that is that of its slope, and a lower bound that is one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from closedform.losses import (
    CRITERIA,
    Criterion,
    HingeLoss,
    Kinked,
    PinballLoss,
    SquaredHingeLoss,
    Targets,
    criterion_by_name,
    read_criterion,
)
from closedform.losses.kinked import OneKink
from closedform.words.errors import ClosedformError

K, ROWS = 4, 60


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def labels() -> Tensor:
    return torch.randint(K, (ROWS,), generator=torch.Generator().manual_seed(1))


def ignored() -> Tensor:
    found = labels()
    found[::5] = -100
    return found


def probabilities() -> Tensor:
    return torch.softmax(gaussian(ROWS, K, seed=2), 1)


def bits() -> Tensor:
    return (gaussian(ROWS, K, seed=3) > 0).double()


FACTORS = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
CASES: dict[str, tuple[nn.Module, Tensor]] = {
    "labels": (nn.CrossEntropyLoss(), labels()),
    "labels, sum": (nn.CrossEntropyLoss(reduction="sum"), labels()),
    "labels, weights, smoothing, ignored": (nn.CrossEntropyLoss(weight=FACTORS, label_smoothing=0.2), ignored()),
    "probabilities": (nn.CrossEntropyLoss(), probabilities()),
    "probabilities, weights, smoothing": (nn.CrossEntropyLoss(weight=FACTORS, label_smoothing=0.1), probabilities()),
    "bce": (nn.BCEWithLogitsLoss(), bits()),
    "bce, weights": (nn.BCEWithLogitsLoss(weight=FACTORS, pos_weight=FACTORS.flip(0)), probabilities()),
    "multi-label": (nn.MultiLabelSoftMarginLoss(), bits()),
    "multi-label, weights": (nn.MultiLabelSoftMarginLoss(weight=FACTORS), bits()),
    "soft margin": (nn.SoftMarginLoss(), 2 * bits() - 1),
    "poisson": (nn.PoissonNLLLoss(), 3 * bits()),
    "poisson, full": (nn.PoissonNLLLoss(full=True, reduction="sum"), 3 * bits()),
    "huber": (nn.HuberLoss(delta=0.7), gaussian(ROWS, K, seed=4)),
    "smooth l1": (nn.SmoothL1Loss(beta=0.7), gaussian(ROWS, K, seed=4)),
    "multi-margin": (nn.MultiMarginLoss(p=2, margin=0.7), labels()),
    "multi-margin, weights": (nn.MultiMarginLoss(p=2, weight=FACTORS, reduction="sum"), labels()),
    "squared hinge": (SquaredHingeLoss(), 2 * bits() - 1),
    "weighted squared hinge": (SquaredHingeLoss(pos_weight=torch.rand(K) + 0.5), 2 * bits() - 1),
}
EVERY_CASE = pytest.mark.parametrize("case", CASES)


def opened(case: str) -> tuple[nn.Module, Tensor, Criterion, Tensor]:
    module, Y = CASES[case]
    criterion = read_criterion(module, Targets(1 if Y.dim() == 1 else Y.shape[1], Y.dim() == 1, Y.dtype == torch.int64))
    assert isinstance(criterion, Criterion)
    T = (Y.unsqueeze(1) if Y.dim() == 1 else Y).double()
    return module, Y, criterion, T


@EVERY_CASE
def test_value_and_slope_are_those_of_torch(case: str) -> None:
    module, Y, criterion, T = opened(case)
    Z = (3 * gaussian(ROWS, K)).requires_grad_()
    loss = module(Z, Y)
    (slope,) = torch.autograd.grad(loss, Z)
    divisor = criterion.counts(T, K).sum() if criterion.averages else 1.0
    values, slopes, curvatures = criterion.evaluate(Z.detach(), T)
    torch.testing.assert_close(values.sum() / divisor, loss.detach(), rtol=1e-13, atol=0)
    torch.testing.assert_close(slopes / divisor, slope, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(criterion.values(Z.detach(), T), values, rtol=1e-13, atol=1e-300)
    torch.testing.assert_close(criterion.slopes(Z.detach(), T), slopes, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(criterion.curvatures(Z.detach(), T), curvatures, rtol=1e-13, atol=1e-300)


@EVERY_CASE
def test_the_curvature_is_that_of_the_slope(case: str) -> None:
    _, _, criterion, T = opened(case)
    Z, S = gaussian(ROWS, K), gaussian(ROWS, K, seed=9)
    step = 1e-6
    change = (criterion.slopes(Z + step * S, T) - criterion.slopes(Z - step * S, T)) / (2 * step)
    product = criterion.product(criterion.curvatures(Z, T), S)
    torch.testing.assert_close(product, change, rtol=1e-6, atol=1e-7)


@EVERY_CASE
def test_curvatures_that_are_left_out_hardly_count(case: str) -> None:
    """float32 that holds numbers of fewer bits takes a hundred times as long for them."""
    _, _, criterion, T = opened(case)
    S = gaussian(ROWS, K, seed=9)
    for size in (1, 10, 60, 200):
        whole = criterion.curvatures(size * gaussian(ROWS, K), T)
        few = criterion.thinned(whole)
        lost = (criterion.product(few, S) - criterion.product(whole, S)).abs().amax(1)
        most = criterion.diagonal(whole).sum(1) * (S.amax(1) - S.amin(1))
        assert bool((lost <= 2 * K * 2.0**-10 * most + 1e-37).all())
        assert not criterion.coupled or not bool(((few > 0) & (few < torch.finfo(torch.float32).tiny)).any())


@EVERY_CASE
def test_the_lower_bound_holds_within_the_radius(case: str) -> None:
    _, _, criterion, T = opened(case)
    Z = 2 * gaussian(ROWS, K)
    least = criterion.least_curvature(Z, T)
    for seed in range(20):
        move, S = gaussian(ROWS, K, seed=10 + seed), gaussian(ROWS, K, seed=50 + seed)
        move *= criterion.radius / (2 * move.abs().amax(1, keepdim=True))
        if criterion.coupled:
            S -= S.mean(1, keepdim=True)
        bent = (S * criterion.product(criterion.curvatures(Z + move, T), S)).sum(1)
        assert bool((bent >= (least * S * S).sum(1) * (1 - 1e-12)).all())


@EVERY_CASE
def test_slopes_change_by_no_more_than_their_bound(case: str) -> None:
    _, _, criterion, T = opened(case)
    for seed in range(20):
        Z = (1 + seed) * gaussian(ROWS, K, seed=seed)
        changes = 1e-6 * gaussian(ROWS, K, seed=100 + seed).abs()
        signs = torch.randint(0, 2, Z.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        found = (criterion.slopes(Z + signs * changes, T) - criterion.slopes(Z, T)).abs()
        bound = criterion.slope_changes(criterion.curvatures(Z, T), changes)
        # To first order; two exact kinks, where the curvature is that of one side, may lie between.
        bent = criterion.curvatures(Z + signs * changes, T)
        bound = torch.maximum(bound, criterion.slope_changes(bent, changes))
        assert bool((found <= bound * (1 + 1e-4) + 1e-14).all())


@EVERY_CASE
def test_the_recession_is_the_slope_far_out(case: str) -> None:
    _, _, criterion, T = opened(case)
    S, far = gaussian(ROWS, K, seed=5), 400.0
    if criterion.name == "MultiMarginLoss":
        S = S.scatter(1, T.long(), S.amax(1, keepdim=True) + 1)
    elif criterion.name in {"PoissonNLLLoss", "SquaredHingeLoss"}:
        S = -S.abs() if criterion.name == "PoissonNLLLoss" else S.abs() * T
    slope = (criterion.values(far * S, T) - criterion.values(far / 2 * S, T)) / (far / 2)
    torch.testing.assert_close(criterion.recession(S, T), slope, rtol=1e-2, atol=1e-2)


@EVERY_CASE
def test_slopes_of_one_output_far_out_are_the_recession(case: str) -> None:
    _, _, criterion, T = opened(case)
    if criterion.name in {"HuberLoss", "SmoothL1Loss", "SquaredHingeLoss", "MultiMarginLoss"}:
        pytest.skip("a minimum is always attained")
    for rises, slopes in enumerate(criterion.far_slopes(T, K)):
        for output in range(K):
            S = T.new_zeros(ROWS, K)
            S[:, output] = 2.0 * rises - 1
            whole = criterion.recession(S, T)
            one = slopes.expand(ROWS, K)[:, output]
            assert torch.equal(whole > 0, one > 0)


def test_kinks_are_worth_what_their_modules_say() -> None:
    Y, Z = 2 * bits() - 1, gaussian(ROWS, K)
    hinges = (HingeLoss(reduction="sum"), HingeLoss("sum", pos_weight=torch.rand(K) + 0.5))
    for module in (nn.L1Loss(reduction="sum"), PinballLoss(0.3, reduction="sum"), *hinges):
        kinked = read_criterion(module, Targets(K, False, False))
        assert isinstance(kinked, OneKink)
        kink, above, below = kinked.pieces(Y)
        worth = above * (kink - Z).clamp_min(0) + below * (Z - kink).clamp_min(0)
        torch.testing.assert_close(worth.sum(), module(Z, Y), rtol=1e-13, atol=0)


def test_margins_of_classes_are_worth_what_torch_says() -> None:
    Y, Z = labels(), gaussian(ROWS, K).requires_grad_()
    module = nn.MultiMarginLoss(p=1, margin=0.7, weight=FACTORS, reduction="none")
    kinked = read_criterion(nn.MultiMarginLoss(p=1, margin=0.7, weight=FACTORS), Targets(1, True, True))
    assert isinstance(kinked, Kinked)
    T = Y.double().unsqueeze(1)
    losses = module(Z, Y)
    torch.testing.assert_close(kinked.losses(Z, T), losses, rtol=1e-13, atol=0)
    losses.sum().backward()
    assert Z.grad is not None
    assert bool((Z.grad.abs() <= kinked.steepness(T, K) * (1 + 1e-12)).all())


def test_every_name_is_a_criterion() -> None:
    for name in CRITERIA:
        assert isinstance(criterion_by_name(name), nn.Module)
    quantile = criterion_by_name("quantile:0.25")
    assert isinstance(quantile, PinballLoss)
    assert quantile.quantile == 0.25


COLUMN, INTEGERS = Targets(1, True, False), Targets(1, True, True)
REFUSED: dict[str, tuple[Any, Targets, str]] = {
    "float labels": (nn.CrossEntropyLoss(), COLUMN, "Y.long()"),
    "one-hot integers": (nn.CrossEntropyLoss(), Targets(3, False, True), r"Y.double\(\)"),
    "no reduction": (nn.CrossEntropyLoss(reduction="none"), INTEGERS, "no single loss"),
    "a lambda": (lambda output, target: 0, INTEGERS, "pass the module"),
    "a function": (nn.functional.cross_entropy, INTEGERS, "pass the module"),
    "a class": (nn.CrossEntropyLoss, INTEGERS, "pass an instance"),
    "rates": (nn.PoissonNLLLoss(log_input=False), COLUMN, "log of the rate"),
    "log-probabilities": (nn.NLLLoss(), INTEGERS, r"CrossEntropyLoss\(\)"),
    "infinite weight": (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([torch.inf])), COLUMN, "pos_weight"),
    "negative weight": (nn.CrossEntropyLoss(weight=torch.tensor([-1.0, 1.0])), INTEGERS, "not negative"),
    "weights of rows": (nn.BCEWithLogitsLoss(weight=torch.ones(9, 1)), COLUMN, "sample_weight"),
    "weights of others": (nn.BCEWithLogitsLoss(pos_weight=torch.ones(3)), COLUMN, "3 entries"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused(name: str) -> None:
    criterion, targets, words = REFUSED[name]
    with pytest.raises(ClosedformError, match=words):
        read_criterion(criterion, targets)


@pytest.mark.parametrize("quantile", [0.0, 1.0, -1.0, True, "x", float("nan")])
def test_quantiles_lie_between_0_and_1(quantile: Any) -> None:
    with pytest.raises(ClosedformError, match="between 0 and 1"):
        PinballLoss(quantile)
