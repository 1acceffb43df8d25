"""Losses with kinks: the minimum of the linear program, by HiGHS, and of quadratic programs by their optimality."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from sklearn.svm import SVC
from torch import Tensor, nn

import closedform as cf
from closedform.losses import HingeLoss, PinballLoss
from closedform.words.errors import InputError
from closedform.words.outcome import Outcome


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def minimum(X: Tensor, Y: Tensor, quantile: float, weight: Tensor | None = None) -> float:
    """The sum of pinball losses at its minimum, with a bias, by a linear program."""
    A = np.concatenate([np.ones((X.shape[0], 1)), X.numpy()], 1)
    m, c = A.shape
    w = np.ones(m) if weight is None else weight.numpy()
    solved = linprog(
        np.concatenate([np.zeros(c), quantile * w, (1 - quantile) * w]),
        A_eq=np.hstack([A, np.eye(m), -np.eye(m)]),
        b_eq=Y.numpy(),
        bounds=[(None, None)] * c + [(0, None)] * (2 * m),
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    return float(solved.fun)


KINDS = ("gaussian", "integers", "twice", "heavy", "far units")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_quantiles_are_those_of_the_linear_program(kind: str, quantile: float) -> None:
    X, Y = gaussian(70, 4), gaussian(70, seed=1)
    if kind == "integers":
        X, Y = X.round(), (2 * Y).round()
    elif kind == "twice":
        X, Y = torch.cat([X, X]), torch.cat([Y, Y])
    elif kind == "heavy":
        Y = Y**5
    elif kind == "far units":
        X = X * torch.tensor([1e-6, 1.0, 1e6, 1e3], dtype=torch.float64)
    sol = cf.solve(X, Y, bias=True, criterion=PinballLoss(quantile, reduction="sum"))
    assert isinstance(sol, cf.ConvexSolution)
    assert sol.outcome.certified, sol
    best = minimum(X if kind != "far units" else gaussian(70, 4), Y, quantile)
    loss = float(PinballLoss(quantile, reduction="sum")(sol.predict(X), Y))
    assert loss == pytest.approx(best, rel=1e-11)
    assert loss - best <= sol.certificate.gap + 1e-11 * best
    assert sol.certificate.relative_gap <= 1e-11


def test_a_weighted_absolute_loss_of_several_targets() -> None:
    X, Y = gaussian(60, 3), gaussian(60, 2, seed=1)
    weight = torch.arange(60).double() % 4
    sol = cf.solve(X, Y, bias=True, sample_weight=weight, criterion=nn.L1Loss())
    best = sum(2 * minimum(X[weight > 0], Y[weight > 0, j], 0.5, weight[weight > 0]) for j in range(2))
    assert sol.certificate.loss == pytest.approx(best / (2 * float(weight.sum())), rel=1e-11)
    assert sol.outcome is Outcome.CERTIFIED


def test_a_median_between_two_values_is_not_unique() -> None:
    Y = torch.tensor([1.0, 2.0, 5.0, 9.0], dtype=torch.float64)
    sol = cf.solve(torch.ones(4, 1, dtype=torch.float64), Y, criterion=nn.L1Loss())
    assert isinstance(sol, cf.ConvexSolution)
    assert sol.outcome is Outcome.CERTIFIED_NOT_UNIQUE
    assert 2.0 <= float(sol.weight) <= 5.0
    assert sol.certificate.loss == pytest.approx(11 / 4, rel=1e-12)
    odd = cf.solve(torch.ones(3, 1, dtype=torch.float64), Y[:3], criterion=nn.L1Loss())
    assert odd.outcome is Outcome.CERTIFIED
    assert float(odd.weight) == 2.0


def test_an_exact_fit_is_certified() -> None:
    X = gaussian(40, 3)
    sol = cf.solve(X, X @ torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64), criterion=nn.L1Loss())
    assert sol.outcome is Outcome.CERTIFIED
    torch.testing.assert_close(sol.weight, torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64), rtol=1e-13, atol=0)


def test_a_support_vector_machine_satisfies_its_conditions() -> None:
    svm = pytest.importorskip("sklearn.svm")
    X = gaussian(90, 3)
    Y = torch.sign(X[:, 0] + gaussian(90, seed=7))
    sol = cf.solve(X, Y, bias=True, l2=0.5, criterion=HingeLoss(reduction="sum"))
    assert isinstance(sol, cf.ConvexSolution)
    assert sol.outcome is Outcome.CERTIFIED
    peer = svm.SVC(C=2.0, kernel="linear", tol=1e-10).fit(X.numpy(), Y.numpy())
    np.testing.assert_allclose(sol.weight.numpy(), peer.coef_, rtol=1e-4)
    coef, intercept = torch.tensor(peer.coef_), torch.tensor(peer.intercept_)
    theirs = HingeLoss(reduction="sum")((X @ coef.T + intercept)[:, 0], Y) + 0.25 * coef.square().sum()
    assert sol.certificate.objective <= float(theirs) * (1 + 1e-14)


def test_a_gap_of_absolute_losses() -> None:
    X, Y = gaussian(50, 3), gaussian(50, seed=2)
    layer = nn.Linear(3, 1, dtype=torch.float64)
    before = cf.gap(layer, X, Y, criterion=nn.L1Loss())
    assert before.loss == pytest.approx(nn.L1Loss()(layer(X)[:, 0], Y).item(), rel=1e-13)
    cf.fit_(layer, X, Y, criterion=nn.L1Loss())
    after = nn.L1Loss()(layer(X)[:, 0], Y).item()
    assert before.optimal_loss == pytest.approx(after, rel=1e-13)
    assert before.excess_loss == pytest.approx(before.loss - after, rel=1e-11)


def test_a_shift_of_all_classes_is_no_distance() -> None:
    X, labels = gaussian(40, 3), torch.arange(40) % 3
    layer, criterion = nn.Linear(3, 3, dtype=torch.float64), nn.MultiMarginLoss()
    cf.fit_(layer, X, labels, l2=1.0, criterion=criterion)
    with torch.no_grad():
        layer.bias.add_(5.0)
    found = cf.gap(layer, X, labels, l2=1.0, criterion=criterion)
    assert found.weight_distance < 1e-12
    assert abs(found.excess_loss) < 1e-13


def ill_conditioned(rows: int, columns: int, condition: float) -> Tensor:
    U, _, V = torch.linalg.svd(gaussian(rows, columns, seed=rows + columns), full_matrices=False)
    return (U * torch.logspace(0, -float(np.log10(condition)), U.shape[1], dtype=torch.float64)) @ V


def exact_losses(sol: cf.ConvexSolution, X: Tensor, Y: Tensor) -> Fraction:
    """The sum of absolute residuals in rational arithmetic."""
    bias = Fraction(0) if sol.bias is None else Fraction(float(sol.bias))
    weight = [Fraction(float(w)) for w in sol.weight[0]]
    outputs = (sum((Fraction(float(x)) * w for x, w in zip(row, weight, strict=True)), bias) for row in X)
    return sum((abs(Fraction(float(y)) - z) for y, z in zip(Y, outputs, strict=True)), Fraction(0))


@pytest.mark.parametrize("condition", [1.0, 1e12])
@pytest.mark.parametrize(("rows", "columns"), [(30, 30), (20, 60)])
@pytest.mark.parametrize("bias", [False, True])
def test_rows_that_weights_can_meet_are_met(rows: int, columns: int, condition: float, bias: bool) -> None:
    X, Y = ill_conditioned(rows, columns, condition), gaussian(rows, seed=5)
    sol = cf.solve(X, Y, bias=bias, criterion=nn.L1Loss(reduction="sum"))
    assert sol.outcome is (Outcome.CERTIFIED_NOT_UNIQUE if columns + bias > rows else Outcome.CERTIFIED), sol
    loss = float(exact_losses(sol, X, Y))
    assert sol.certificate.loss == pytest.approx(loss, rel=1e-9, abs=1e-300)
    # No loss is below zero, so the loss is the gap, and it is what rounding the weights leaves.
    assert loss <= sol.certificate.gap * (1 + 1e-12)
    assert sol.certificate.gap <= 1e-15 * float((X.abs() @ sol.weight[0].abs()).sum() + Y.abs().sum()) * 2
    if condition == 1.0:
        least = cf.solve(X, Y, bias=bias)
        torch.testing.assert_close(sol.weight, least.weight, rtol=1e-9, atol=1e-12)
    separating = cf.solve(X, torch.sign(Y), bias=bias, criterion=HingeLoss())
    assert separating.outcome.certified
    assert separating.certificate.loss == 0.0


@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_columns_that_hardly_differ_give_the_minimum_of_any_other_columns(quantile: float) -> None:
    # Integers, so that the products are exact: both tables span the same outputs.
    Q = (9 * gaussian(60, 6)).round()
    T = torch.eye(6, dtype=torch.float64) + torch.triu((700 * gaussian(6, 6, seed=3)).round(), 1)
    X, Y = Q @ T, gaussian(60, seed=1)
    assert 1e9 < float(torch.linalg.cond(X / X.norm(dim=0))) < 1e13
    criterion = PinballLoss(quantile, reduction="sum")
    sol = cf.solve(X, Y, bias=True, criterion=criterion)
    assert sol.outcome is Outcome.CERTIFIED, sol
    best = minimum(Q, Y, quantile)
    assert sol.certificate.loss == pytest.approx(best, rel=1e-3)
    assert -1e-11 * best <= sol.certificate.loss - best <= sol.certificate.gap + 1e-11 * best


@pytest.mark.parametrize("kind", ["l1", "quantile", "hinge"])
@pytest.mark.parametrize("bias", [False, True])
def test_a_wide_table_with_a_ridge_is_one_of_its_row_space(kind: str, bias: bool) -> None:
    X, Y = gaussian(25, 300), gaussian(25, seed=1)
    criterion = {"l1": nn.L1Loss(), "quantile": PinballLoss(0.2), "hinge": HingeLoss()}[kind]
    Y = torch.sign(Y) if kind == "hinge" else Y
    sol = cf.solve(X, Y, bias=bias, l2=30.0, criterion=criterion)
    assert sol.outcome is Outcome.CERTIFIED, sol
    basis, narrow = torch.linalg.qr(X.T)
    same = cf.solve(narrow.T.contiguous(), Y, bias=bias, l2=30.0, criterion=criterion)
    assert same.outcome is Outcome.CERTIFIED, same
    assert sol.certificate.objective == pytest.approx(same.certificate.objective, rel=1e-12)
    torch.testing.assert_close(sol.weight, same.weight @ basis.T, rtol=1e-8, atol=1e-9)


def test_rows_twice_with_other_targets_in_a_wide_table() -> None:
    X = gaussian(12, 40)
    Y, Z = gaussian(12, seed=1), gaussian(12, seed=2)
    sol = cf.solve(torch.cat([X, X]), torch.cat([Y, Z]), criterion=nn.L1Loss(reduction="sum"))
    assert sol.outcome is Outcome.CERTIFIED_NOT_UNIQUE, sol
    assert sol.certificate.loss == pytest.approx(float((Y - Z).abs().sum()), rel=1e-12)


@pytest.mark.parametrize(
    ("of_features", "of_targets", "of_rows", "l2"),
    [
        (1.0, 2.0**-500, 1.0, 0.0),
        (1.0, 2.0**500, 1.0, 0.0),
        (2.0**-990, 1.0, 1.0, 0.0),
        (2.0**990, 1.0, 1.0, 0.0),
        (1.0, 1.0, 2.0**830, 0.0),
        (1.0, 2.0**100, 2.0**-700, 1.0),
        (1.0, 1.0, 2.0**700, 1.0),
    ],
)
def test_units_decide_nothing(of_features: float, of_targets: float, of_rows: float, l2: float) -> None:
    X, Y, weight = gaussian(40, 3), gaussian(40, seed=1), torch.full((40,), of_rows, dtype=torch.float64)
    plain = cf.solve(X, Y, bias=True, l2=l2, criterion=nn.L1Loss())
    far = cf.solve(
        of_features * X,
        of_targets * Y,
        bias=True,
        l2=l2 * of_rows / of_targets,
        criterion=nn.L1Loss(),
        sample_weight=weight,
    )
    assert far.outcome is Outcome.CERTIFIED
    torch.testing.assert_close(far.weight * of_features / of_targets, plain.weight, rtol=1e-14, atol=0)
    assert far.certificate.loss == pytest.approx(of_targets * plain.certificate.loss, rel=1e-14)


@pytest.mark.parametrize("far", [1e18, 1e121])
def test_a_quadratic_too_narrow_to_count_leaves_absolute_errors(far: float) -> None:
    X, Y = gaussian(40, 3), gaussian(40, seed=1)
    for module, slope in ((nn.HuberLoss(delta=0.5, reduction="sum"), 0.5), (nn.SmoothL1Loss(reduction="sum"), 1.0)):
        sol = cf.solve(X, far * Y, bias=True, criterion=module)
        assert isinstance(sol, cf.ConvexSolution)
        assert sol.outcome is Outcome.CERTIFIED, sol
        assert sol.certificate.objective == pytest.approx(2 * slope * far * minimum(X, Y, 0.5), rel=1e-12)
        assert sol.certificate.gap >= 40 * slope * 0.5 / 2


def minimum_of_margins(X: Tensor, labels: Tensor, factors: Tensor, margin: float, bias: bool) -> float:
    """The sum of ``factor max(0, margin - z_y + z_c)`` over rows and other classes at its minimum, by a program."""
    A, k = X.numpy(), int(labels.max()) + 1
    A = np.column_stack([np.ones(len(A)), A]) if bias else A
    rows, costs = [], []
    for row, own, factor in zip(A, labels.tolist(), factors.tolist(), strict=True):
        for other in set(range(k)) - {own}:
            apart = np.zeros((k, len(row)))
            apart[other], apart[own] = row, -row
            rows.append(apart.ravel())
            costs.append(factor)
    pairs, columns = np.array(rows), k * A.shape[1]
    solved = linprog(
        np.concatenate([np.zeros(columns), costs]),
        A_ub=np.hstack([pairs, -np.eye(len(pairs))]),
        b_ub=np.full(len(pairs), -margin),
        bounds=[(None, None)] * columns + [(0, None)] * len(pairs),
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    return float(solved.fun)


@pytest.mark.parametrize(
    ("seed", "classes", "bias", "twice"), [(2, 4, True, True), (3, 5, False, False), (10, 4, True, False)]
)
def test_margins_of_several_classes_are_those_of_the_linear_program(
    seed: int, classes: int, bias: bool, twice: bool
) -> None:
    X, margin = gaussian(30, 3, seed=seed), 0.7
    if twice:
        X[:, 1] = X[:, 0]
    scores = X[:, :1] * torch.arange(classes) + 1.5 * gaussian(30, classes, seed=seed + 50)
    labels = scores.argmax(1)
    labels[:classes] = torch.arange(classes)
    weight, rows = 0.5 + gaussian(classes, seed=1).abs(), gaussian(30, seed=8).abs()
    criterion = nn.MultiMarginLoss(p=1, margin=margin, weight=weight, reduction="sum")
    sol = cf.solve(X, labels, bias=bias, sample_weight=rows, criterion=criterion)
    assert isinstance(sol, cf.ConvexSolution)
    assert sol.outcome.certified, sol
    best = minimum_of_margins(X, labels, weight[labels] * rows / classes, margin, bias)
    assert sol.certificate.objective == pytest.approx(best, rel=1e-12)
    each = nn.MultiMarginLoss(p=1, margin=margin, weight=weight, reduction="none")(sol.predict(X), labels)
    assert float((rows * each).sum()) == pytest.approx(sol.certificate.loss, rel=1e-12)
    assert float(sol.weight.mean(0).abs().max()) < 1e-12


@pytest.mark.parametrize("shape", [(40, 3), (8, 20)])
@pytest.mark.parametrize("l2", [1.0, 1e-6])
def test_margins_of_two_classes_are_a_hinge(shape: tuple[int, int], l2: float) -> None:
    """The difference of both outputs has half the hinge's loss, and half the penalty."""
    X = gaussian(*shape, seed=4)
    labels = (X[:, 0] + gaussian(shape[0], seed=7) > 0).long()
    sol = cf.solve(X, labels, bias=True, l2=l2, criterion=nn.MultiMarginLoss(reduction="sum"))
    hinge = cf.solve(X, 2.0 * labels - 1, bias=True, l2=l2, criterion=HingeLoss(reduction="sum"))
    assert sol.outcome is hinge.outcome is Outcome.CERTIFIED
    assert 2 * sol.certificate.objective == pytest.approx(hinge.certificate.objective, rel=1e-10)
    torch.testing.assert_close(sol.weight[1] - sol.weight[0], hinge.weight[0], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("seed", [1, 4])
@pytest.mark.parametrize("l2", [1e-3, 10.0])
@pytest.mark.parametrize("held", [(1.0, 0.0, 1.0), (1.0, 0.0, 1.0, 1.0)])
def test_classes_that_no_row_counts_for_leave_a_support_vector_machine(
    seed: int, l2: float, held: tuple[float, ...]
) -> None:
    """Of the other classes two have rows: a third and more of a hinge on their difference, by libsvm."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(40, 3, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, 3, (40,), generator=generator)
    criterion = nn.MultiMarginLoss(weight=torch.tensor(held, dtype=torch.float64), reduction="sum")
    sol = cf.solve(X, labels, bias=True, l2=l2, criterion=criterion)
    assert isinstance(sol, cf.ConvexSolution)
    assert sol.outcome is Outcome.CERTIFIED_NOT_UNIQUE, sol
    assert sol.certificate.flat_directions >= len(held) - 2

    counted, k = labels != 1, len(held)
    machine = SVC(kernel="linear", C=2 / (k * l2), tol=1e-12).fit(X[counted].numpy(), labels[counted].numpy())
    scores = torch.from_numpy(machine.decision_function(X[counted].numpy()))
    hinge = float((1 - (labels[counted] - 1) * scores).clamp_min(0).sum()) / k
    there = hinge + l2 / 4 * float((machine.coef_**2).sum())
    assert there * (1 - 1e-4) <= sol.certificate.objective <= there * (1 + 1e-12)
    penalty = l2 / 2 * float(sol.weight.square().sum())
    assert float(criterion(sol.predict(X), labels)) + penalty == pytest.approx(sol.certificate.objective, rel=1e-12)


def test_pairs_of_classes_that_fill_the_memory_are_refused() -> None:
    X, labels = torch.zeros(40_000, 40, dtype=torch.float64), torch.arange(40_000) % 10
    with pytest.raises(InputError, match=r"p=1.*40,?000 rows and 10 classes"):
        cf.solve(X, labels, criterion=nn.MultiMarginLoss())


@pytest.mark.parametrize(("apart", "l2"), [(1e-6, 1e-3), (1e-8, 1e-3), (1e-10, 1e-9), (1e-12, 1e-12)])
def test_a_hinge_with_a_tiny_ridge_on_columns_that_hardly_differ(apart: float, l2: float) -> None:
    """The minimiser is a bias that puts half of the rows on their kinks: no dual point but bounds tells which."""
    generator = torch.Generator().manual_seed(2)
    X = torch.randn(60, 5, dtype=torch.float64, generator=generator)
    X[:, 1] = X[:, 0] + apart * X[:, 1]
    Y = torch.sign(torch.randn(60, dtype=torch.float64, generator=generator))
    sol = cf.solve(X, Y, bias=True, l2=l2, criterion=HingeLoss(reduction="sum"))
    assert sol.outcome.certified, sol
    # Weights of zero and a bias of one class lose 2 for each row of the other.
    assert sol.certificate.objective == pytest.approx(2 * float((Y < 0).sum().clamp_max((Y > 0).sum())), rel=1e-9)


@pytest.mark.parametrize("module", [HingeLoss(), nn.L1Loss(), PinballLoss(0.3)])
def test_kernels_of_low_rank_in_float32_with_a_tiny_ridge(module: nn.Module) -> None:
    for seed in range(4):
        x = gaussian(12, 3, seed=seed)
        Y = gaussian(12, seed=seed + 20).float()
        Y = torch.sign(Y) if isinstance(module, HingeLoss) else Y
        sol = cf.solve((x @ x.T).float(), Y, bias=seed % 2 == 1, l2=1e-6, criterion=module)
        assert sol.outcome.certified, (seed, str(sol))


@pytest.mark.parametrize(("module", "units"), [(HingeLoss(), (1e-5, 1.0, 1e5)), (nn.L1Loss(), (1e8, 1e8, 1e8))])
@pytest.mark.parametrize("seed", [0, 3])
def test_a_ridge_that_hardly_counts(module: nn.Module, units: tuple[float, ...], seed: int) -> None:
    """The minimum is that of the program without a ridge, but for what the ridge takes."""
    X, Y = gaussian(12, 3, seed=seed) * torch.tensor(units, dtype=torch.float64), gaussian(12, seed=9)
    Y = torch.sign(Y) if isinstance(module, HingeLoss) else Y
    sol = cf.solve(X, Y, bias=True, l2=1e-9, criterion=module)
    free = cf.solve(X, Y, bias=True, criterion=module)
    assert sol.outcome is Outcome.CERTIFIED, sol
    least, paid = free.certificate.objective, 1e-9 / 2 * float(free.weight.square().sum())
    assert least * (1 - 1e-12) <= sol.certificate.objective <= (least + paid) * (1 + 1e-12)


def test_a_ridge_on_a_feature_far_from_zero() -> None:
    shift, l2 = 1e8, 1e-6
    x, y = ((1024 * gaussian(11, seed=seed)).round() / 1024 for seed in (2, 3))
    rows = [(Fraction(a), Fraction(b)) for a, b in zip(x.tolist(), (x + y).tolist(), strict=True)]

    def objective(w: Fraction, bias: Fraction | None = None) -> Fraction:
        left = sorted(b - w * a for a, b in rows)
        return sum((abs(each - (left[5] if bias is None else bias)) for each in left), Fraction(l2) / 2 * w * w)

    low, high = Fraction(-4), Fraction(4)
    while high - low > Fraction(1, 2**50):
        step = (high - low) / 4
        low, high = (low, high - step) if objective(low + step) <= objective(high - step) else (low + step, high)

    sol = cf.solve((x + shift).unsqueeze(1), x + y, bias=True, l2=l2, criterion=nn.L1Loss(reduction="sum"))
    assert sol.outcome is Outcome.CERTIFIED, sol
    assert isinstance(sol, cf.ConvexSolution)
    w = Fraction(float(sol.weight))
    assert sol.bias is not None
    reached = objective(w, Fraction(float(sol.bias)) + w * Fraction(shift))
    best = objective(low)
    assert float(reached - best) <= sol.certificate.gap <= 1e-8 * float(best)


def test_numbers_beyond_the_range_are_refused() -> None:
    # The ridge of weights of 1e271 is beyond float64; the search for a shift never ended.
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(60, 3, dtype=torch.float64, generator=generator)
    y = X.sum(1) + torch.randn(60, dtype=torch.float64, generator=generator)
    labels = (y > 0).long()
    refused: list[tuple[float, float, nn.Module, float]] = [
        (1e-150, 1e121, nn.L1Loss(), 1e-3),
        (1e-200, 1.0, nn.HuberLoss(), 1.0),
        (1e-200, 1.0, nn.CrossEntropyLoss(), 1.0),
        # The weights of the minimiser are below float64.
        (1e300, 1e-150, nn.L1Loss(), 0.0),
        (1e300, 1e-150, nn.HuberLoss(delta=1e-150), 0.0),
    ]
    for of_features, of_targets, module, l2 in refused:
        Y = labels if isinstance(module, nn.CrossEntropyLoss) else y * of_targets
        with pytest.raises(cf.ClosedformError, match="range of float64"):
            cf.solve(X * of_features, Y, criterion=module, l2=l2)
