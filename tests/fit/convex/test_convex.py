"""Convex fits against mpmath's Newton and exact linear programs: the gap is never below the excess, and proofs hold."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import closedform as cf
from closedform.engine import compiled
from closedform.fit.convex import ConvexRequest, solve_criterion
from closedform.fit.convex.certificate import _ProofSums
from closedform.fit.convex.passes import CurvatureGram, LossSums, RootGram
from closedform.fit.convex.solving import targets_of
from closedform.losses import Criterion, SquaredHingeLoss, read_criterion
from closedform.rows import Design, as_rows, scan
from closedform.words.errors import InputError
from closedform.words.outcome import Outcome
from walkers import Parts


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def drawn(high: int, rows: int, seed: int = 0) -> Tensor:
    return torch.randint(high, (rows,), generator=torch.Generator().manual_seed(seed))


def objective(module: nn.Module, X: Tensor, Y: Tensor, l2: float, weight: Tensor, bias: Tensor | None) -> Any:
    """The objective in 50 digits, by the formulas of torch's documentation."""
    with mpmath.workdps(50):
        total = mpmath.mpf(0)
        for x, y in zip(X.tolist(), Y.tolist(), strict=True):
            z = [mpmath.fdot(map(mpmath.mpf, x), map(mpmath.mpf, row)) for row in weight.tolist()]
            if bias is not None:
                z = [a + mpmath.mpf(b) for a, b in zip(z, bias.tolist(), strict=True)]
            if isinstance(module, nn.CrossEntropyLoss):
                total += mpmath.log(mpmath.fsum(map(mpmath.exp, z))) - z[y]
            elif isinstance(module, nn.BCEWithLogitsLoss):
                total += mpmath.log1p(mpmath.exp(z[0])) - y * z[0]
            elif isinstance(module, nn.PoissonNLLLoss):
                total += mpmath.exp(z[0]) - y * z[0]
            else:
                r = abs(z[0] - mpmath.mpf(y))
                total += r * r / 2 if r <= 1 else r - mpmath.mpf(1) / 2
        return total + mpmath.mpf(l2) / 2 * mpmath.fsum(mpmath.mpf(w) ** 2 for w in weight.reshape(-1).tolist())


def exact_minimum(module: nn.Module, X: Tensor, Y: Tensor, l2: float, weight: Tensor, bias: Tensor | None) -> Any:
    """The minimum in 50 digits: a Newton step of 30 digits from a good start, by differences of exact gradients."""
    with mpmath.workdps(50):
        rows, k = X.tolist(), weight.shape[0]
        first = [1] if bias is not None else []
        A = [[mpmath.mpf(v) for v in [*first, *row]] for row in rows]
        stacked = (
            weight.tolist() if bias is None else [[b, *w] for b, w in zip(bias.tolist(), weight.tolist(), strict=True)]
        )
        theta = [mpmath.mpf(v) for row in stacked for v in row]
        c = len(A[0])

        def pieces(theta: list[Any]) -> tuple[Any, Any]:
            g, H = mpmath.zeros(k * c, 1), mpmath.zeros(k * c, k * c)
            for a, y in zip(A, Y.tolist(), strict=True):
                z = [mpmath.fdot(a, theta[j * c : (j + 1) * c]) for j in range(k)]
                if isinstance(module, nn.CrossEntropyLoss):
                    total = mpmath.fsum(map(mpmath.exp, z))
                    p = [mpmath.exp(v) / total for v in z]
                    slope = [p[j] - (j == y) for j in range(k)]
                    bent = [[p[i] * ((i == j) - p[j]) for j in range(k)] for i in range(k)]
                elif isinstance(module, nn.BCEWithLogitsLoss):
                    s = 1 / (1 + mpmath.exp(-z[0]))
                    slope, bent = [s - y], [[s * (1 - s)]]
                elif isinstance(module, nn.PoissonNLLLoss):
                    slope, bent = [mpmath.exp(z[0]) - y], [[mpmath.exp(z[0])]]
                else:
                    r = z[0] - mpmath.mpf(y)
                    slope, bent = ([r], [[1]]) if abs(r) <= 1 else ([mpmath.sign(r)], [[0]])
                for i in range(k):
                    for u in range(c):
                        g[i * c + u] += slope[i] * a[u]
                        for j in range(k):
                            for v in range(c):
                                H[i * c + u, j * c + v] += bent[i][j] * a[u] * a[v]
            for i in range(k * c):
                if i % c or bias is None:
                    g[i] += mpmath.mpf(l2) * theta[i]
                    H[i, i] += mpmath.mpf(l2)
            for u in range(c):  # a shift of all classes is held still
                for i in range(k):
                    for j in range(k):
                        H[i * c + u, j * c + u] += 1 if k > 1 else 0
            return g, H

        for _ in range(3):
            g, H = pieces(theta)
            step = mpmath.lu_solve(H, -g)
            theta = [t + s for t, s in zip(theta, step, strict=True)]
        final = [theta[j * c : (j + 1) * c] for j in range(k)]
        total = mpmath.mpf(0)
        for a, y in zip(A, Y.tolist(), strict=True):
            z = [mpmath.fdot(a, row) for row in final]
            if isinstance(module, nn.CrossEntropyLoss):
                total += mpmath.log(mpmath.fsum(map(mpmath.exp, z))) - z[y]
            elif isinstance(module, nn.BCEWithLogitsLoss):
                total += mpmath.log1p(mpmath.exp(z[0])) - y * z[0]
            elif isinstance(module, nn.PoissonNLLLoss):
                total += mpmath.exp(z[0]) - y * z[0]
            else:
                r = abs(z[0] - mpmath.mpf(y))
                total += r * r / 2 if r <= 1 else r - mpmath.mpf(1) / 2
        free = [w for row in final for w in row[len(first) :]]
        return total + mpmath.mpf(l2) / 2 * mpmath.fsum(w**2 for w in free)


def targets_for(name: str, X: Tensor, seed: int) -> tuple[nn.Module, Tensor]:
    rows, noise = X.shape[0], gaussian(X.shape[0], seed=seed + 1)
    if name == "cross-entropy":
        return nn.CrossEntropyLoss(), drawn(3, rows, seed)
    if name == "bce":
        return nn.BCEWithLogitsLoss(), (X[:, 0] + 2 * noise > 0).double()
    if name == "poisson":
        return nn.PoissonNLLLoss(), torch.floor(torch.exp((X[:, 0] + noise).clamp(-2, 3)))
    return nn.HuberLoss(), X[:, 0] + noise.pow(3)


@pytest.mark.parametrize("name", ["cross-entropy", "bce", "poisson", "huber"])
@pytest.mark.parametrize(("bias", "l2", "steps"), [(True, 0.0, 9), (False, 0.5, 2), (True, 1e-6, 1), (False, 0.0, 3)])
def test_the_gap_is_never_below_the_excess(name: str, bias: bool, l2: float, steps: int) -> None:
    for seed in range(2):
        X = gaussian(14, 2, seed=seed) * torch.tensor([1.0, 100.0**seed], dtype=torch.float64)
        module, Y = targets_for(name, X, seed)
        sol = cf.solve(X, Y, bias=bias, l2=l2, criterion=module)
        assert isinstance(sol, cf.ConvexSolution)
        if sol.direction is not None:
            continue
        assert sol.outcome is Outcome.CERTIFIED
        now = objective(module, X, Y, l2, sol.weight, sol.bias)
        best = exact_minimum(module, X, Y, l2, sol.weight, sol.bias)
        assert 0 <= now - best <= sol.certificate.gap
        assert sol.certificate.gap <= 1e-15 * abs(float(best))


def assert_proven(module: nn.Module, X: Tensor, Y: Tensor, *, bias: bool, l2: float = 0.0) -> None:
    """The fit is certified, and no exact minimum is further below it than its gap."""
    sol = cf.solve(X, Y, bias=bias, l2=l2, criterion=module)
    assert isinstance(sol, cf.ConvexSolution)
    assert sol.outcome is Outcome.CERTIFIED, sol
    now = objective(module, X, Y, l2, sol.weight, sol.bias)
    best = exact_minimum(module, X, Y, l2, sol.weight, sol.bias)
    assert 0 <= now - best <= sol.certificate.gap
    assert sol.certificate.gap <= 1e-10 * abs(float(now))


@pytest.mark.parametrize("name", ["cross-entropy", "bce", "poisson", "huber"])
@pytest.mark.parametrize("apart", [1e-4, 1e-7])
def test_columns_that_hardly_differ_do_not_spoil_the_proof(name: str, apart: float) -> None:
    """The Hessian has a condition of 1e8 and 1e14: it is proven in an orthonormal basis of the columns."""
    X = gaussian(24, 2, seed=5)
    X[:, 1] = X[:, 0] + apart * X[:, 1]
    module, Y = targets_for(name, X, 5)
    assert_proven(module, X, Y, bias=True)


@pytest.mark.parametrize("shape", [(20, 2), (8, 70)])
def test_divided_classes_with_a_tiny_ridge(shape: tuple[int, int]) -> None:
    """Probabilities differ from one by 1e-9: slopes keep their digits, and the whole Hessian takes few steps."""
    X = gaussian(*shape, seed=3)
    Y = torch.stack([X[:, 0], X[:, 1], -X[:, 0] - X[:, 1]], 1).argmax(1)
    sol = cf.solve(X, Y, bias=True, l2=1e-9, criterion=nn.CrossEntropyLoss())
    assert sol.outcome is Outcome.CERTIFIED
    assert sol.certificate.relative_gap < 1e-10
    assert sol.steps < 80
    if shape[1] == 2:
        assert_proven(nn.CrossEntropyLoss(), X, Y, bias=True, l2=1e-9)


@pytest.mark.parametrize(("bias", "l2"), [(True, 0.0), (False, 1e-6)])
def test_a_narrow_quadratic_beside_large_residuals(bias: bool, l2: float) -> None:
    """Least squares leaves no row within the width, so that a Newton step says nothing."""
    X, noise = gaussian(24, 3, seed=2), gaussian(24, seed=3)
    assert_proven(nn.HuberLoss(), X, 1e4 * (X[:, 0] + noise.pow(3)), bias=bias, l2=l2)


@pytest.mark.parametrize("shape", [(30, 4), (6, 12)])
@pytest.mark.parametrize(("bias", "l2"), [(True, 0.0), (True, 1e-6)])
def test_rows_that_weights_can_meet(shape: tuple[int, int], bias: bool, l2: float) -> None:
    X = gaussian(*shape, seed=2)
    sol = cf.solve(X, X[:, 0] + 1, bias=bias, l2=l2, criterion=nn.HuberLoss(delta=1e-3))
    assert sol.outcome.certified
    assert sol.certificate.loss < 1e-10


@pytest.mark.parametrize("l2", [0.0, 1e-9])
def test_squared_shortfalls_of_divided_rows(l2: float) -> None:
    """Without a ridge the loss is zero once margins are wide; with a tiny one rows lie within 1e-9 of theirs."""
    X = gaussian(60, 4)
    sol = cf.solve(X, torch.sign(X[:, 0]), bias=True, l2=l2, criterion=SquaredHingeLoss())
    # Margins that are wide enough are so in every direction.
    assert sol.outcome is (Outcome.CERTIFIED if l2 else Outcome.CERTIFIED_NOT_UNIQUE), sol
    assert sol.certificate.flat_directions == (0 if l2 else 5)
    assert sol.certificate.loss == 0 if not l2 else 0 < sol.certificate.loss < 1e-12


@pytest.mark.parametrize(("criterion", "l2"), [(nn.HuberLoss(delta=1e-12), 0.0), (nn.SmoothL1Loss(beta=1e-12), 1e-3)])
def test_a_quadratic_as_narrow_as_rounding(criterion: nn.Module, l2: float) -> None:
    """Rounded weights move a slope by a ten-thousandth of itself, and the gap by its square."""
    X, Y = gaussian(24, 2), gaussian(24, seed=3)
    unit = 1e-12 if isinstance(criterion, nn.HuberLoss) else 1.0
    narrow = cf.solve(X, Y, bias=True, l2=l2 * unit, criterion=criterion)
    kinked = cf.solve(X, Y, bias=True, l2=l2, criterion=nn.L1Loss())
    assert narrow.outcome is Outcome.CERTIFIED
    assert narrow.certificate.objective == pytest.approx(unit * kinked.certificate.objective, rel=1e-11)


def test_a_narrow_quadratic_beside_a_tiny_ridge() -> None:
    """Where no row is within the width a Newton step is 1e20 times too long."""
    X, Y = 1e4 * gaussian(8, 2, seed=3), 1e3 * gaussian(8, seed=1)
    X[:, 1] = X[:, 0] + 1e-5 * X[:, 1]
    narrow, kinked = (
        cf.solve(X, Y, l2=1e-6, criterion=criterion) for criterion in (nn.SmoothL1Loss(beta=1e-6), nn.L1Loss())
    )
    assert narrow.outcome is Outcome.CERTIFIED
    assert narrow.certificate.objective == pytest.approx(kinked.certificate.objective, rel=1e-8)


@pytest.mark.parametrize("weighted", [False, True])
def test_residuals_that_are_all_beyond_the_quadratic(weighted: bool) -> None:
    """No row bends the loss, and it is level along the bias: the slopes balance, which proves it."""
    X, Y = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]).double(), 1e6 * torch.tensor([1.0, 1.0, -1.0, -1.0]).double()
    weight = torch.full((4,), 3.0) if weighted else None
    sol = cf.solve(X, Y, bias=True, l2=1.0, sample_weight=weight, criterion=nn.HuberLoss())
    assert sol.outcome is Outcome.CERTIFIED
    assert sol.certificate.objective == (3 if weighted else 1) * (4e6 - 2)


@pytest.mark.parametrize("kind", ["loader", "dask"])
@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss(), nn.PoissonNLLLoss()])
def test_rows_that_come_in_batches(criterion: nn.Module, kind: str) -> None:
    X, Y = gaussian(90, 2), drawn(3, 90)
    Y = Y if isinstance(criterion, nn.CrossEntropyLoss) else Y.double()
    if kind == "loader":
        data = torch.utils.data.TensorDataset(X, Y)
        sol = cf.solve(torch.utils.data.DataLoader(data, batch_size=40), bias=True, criterion=criterion)
    else:
        arrays = pytest.importorskip("dask.array")
        tables = (arrays.from_array(table.numpy(), chunks=(40, *table.shape[1:])) for table in (X, Y))
        sol = cf.solve(*tables, bias=True, criterion=criterion)
    assert sol.outcome is Outcome.CERTIFIED
    torch.testing.assert_close(sol.weight, cf.solve(X, Y, bias=True, criterion=criterion).weight, rtol=1e-8, atol=1e-9)


def test_divided_classes_in_batches_are_not_decided() -> None:
    X = gaussian(12, 1)
    data = torch.utils.data.TensorDataset(X, (X[:, 0] > 0).double())
    sol = cf.solve(torch.utils.data.DataLoader(data, batch_size=6), criterion=nn.BCEWithLogitsLoss())
    assert sol.outcome is Outcome.NOT_CERTIFIED
    assert "whether there is a minimiser was not decided: all 12 rows" in sol.notes[-1]


def test_ignored_rows_bend_nothing() -> None:
    """What only rows that do not count tell apart is level, and the weights of least norm have none of it."""
    X, Y = gaussian(6, 9), torch.tensor([0, 1, 2, 1, 0, 0])
    criterion = nn.CrossEntropyLoss(ignore_index=1, label_smoothing=0.5)
    some = cf.solve(X, Y, bias=True, criterion=criterion)
    only = cf.solve(X[Y != 1], Y[Y != 1], bias=True, criterion=criterion)
    assert some.outcome is only.outcome is Outcome.CERTIFIED_NOT_UNIQUE
    torch.testing.assert_close(some.weight, only.weight, rtol=1e-7, atol=1e-9)


def test_rows_of_weight_zero_need_not_be_met() -> None:
    X, Y, weight = gaussian(6, 3), gaussian(6, seed=1), torch.tensor([0.0, 1.0, 0.0, 2.0, 0.0, 3.0])
    sol = cf.solve(X, Y, bias=True, sample_weight=weight, criterion=nn.HuberLoss())
    assert sol.outcome.certified
    assert sol.certificate.loss < 1e-25


def test_what_was_reached_is_said_where_nothing_is_certified() -> None:
    # Rows in parts are not minimised along a path of widths, which takes all of them at once.
    rows = as_rows(gaussian(60, 4), gaussian(60, seed=3))
    object.__setattr__(rows, "walker", Parts(2))
    sol = solve_criterion(rows, ConvexRequest(nn.HuberLoss(delta=1e-12), True, 0.0))
    assert sol.outcome is Outcome.NOT_CERTIFIED
    first = str(sol).split("\n")[0]
    assert "could not be bounded: " in first
    assert "norm of the gradient" in first
    assert "backward error" not in first
    assert sol.to_dict()["sentence"] == first


def test_weights_are_those_of_published_tables() -> None:
    # Spector and Mazzeo (1980), the logit of Greene's Econometric Analysis, table 21.1, as statsmodels prints it.
    sm = pytest.importorskip("statsmodels.api")
    data = sm.datasets.spector.load()
    sol = cf.solve(data.exog.to_numpy(), data.endog.to_numpy(), bias=True, criterion=nn.BCEWithLogitsLoss())
    expected = sm.Logit(data.endog, sm.add_constant(data.exog)).fit(disp=0, tol=1e-14, maxiter=99).params.to_numpy()
    np.testing.assert_allclose(np.concatenate([sol.bias, sol.weight[0]]), expected, rtol=1e-10)


def exact_separation(x: list[Fraction], above: list[bool]) -> bool:
    """Whether a threshold divides one feature: no value of one class lies strictly between those of the other."""
    low = [v for v, a in zip(x, above, strict=True) if not a]
    high = [v for v, a in zip(x, above, strict=True) if a]
    return max(low) <= min(high) or max(high) <= min(low)


@pytest.mark.parametrize("margin", [1e-1, 1e-3, 1e-6, 1e-9, 1e-12, 0.0, -1e-12, -1e-9, -1e-6, -1e-3, -1e-1])
@pytest.mark.parametrize("kind", ["bce", "cross-entropy", "soft-margin"])
def test_separation_is_decided_exactly(margin: float, kind: str) -> None:
    for seed in range(2):
        x = gaussian(20, seed=seed).abs() + margin
        above = torch.arange(20) % 2 == 0
        x = torch.where(above, x, -x)
        x[0], x[1] = margin / 2, -margin / 2
        separable = exact_separation([Fraction(v) for v in x.tolist()], above.tolist())
        Y = {"bce": above.double(), "cross-entropy": above.long(), "soft-margin": 2 * above.double() - 1}[kind]
        module = {
            "bce": nn.BCEWithLogitsLoss(),
            "cross-entropy": nn.CrossEntropyLoss(),
            "soft-margin": nn.SoftMarginLoss(),
        }
        sol = cf.solve(x[:, None], Y, bias=True, criterion=module[kind])
        assert isinstance(sol, cf.ConvexSolution)
        assert (sol.direction is not None) == separable, (margin, sol)
        if not separable:
            assert sol.outcome is not Outcome.NO_MINIMISER


def test_a_direction_is_a_proof() -> None:
    X = torch.tensor([[0.0, 1.0], [0.0, 2.0], [1.0, 5.0], [1.0, 3.0], [0.0, 1.5]], dtype=torch.float64)
    sol = cf.solve(X, torch.tensor([0, 1, 1, 1, 0]), bias=True, criterion=nn.CrossEntropyLoss())
    assert isinstance(sol, cf.ConvexSolution)
    assert sol.outcome is Outcome.NO_MINIMISER
    assert sol.direction is not None
    assert not sol.outcome.certified
    outputs = nn.functional.linear(X, sol.direction.weight, sol.direction.bias)
    margins = outputs.gather(1, torch.tensor([[0], [1], [1], [1], [0]])) - outputs
    assert bool((margins >= 0).all())
    assert bool((margins > 0).any())


@pytest.mark.parametrize(
    ("module", "Y"),
    [
        (nn.PoissonNLLLoss(), torch.zeros(30)),
        (nn.BCEWithLogitsLoss(), torch.ones(30)),
        (nn.CrossEntropyLoss(), torch.zeros(30, dtype=torch.int64)),
    ],
)
def test_one_class_alone_has_no_minimiser_whatever_the_ridge(module: nn.Module, Y: Tensor) -> None:
    for l2 in (0.0, 1.0):
        sol = cf.solve(gaussian(30, 2), Y.double() if Y.dtype != torch.int64 else Y, bias=True, l2=l2, criterion=module)
        assert sol.outcome is Outcome.NO_MINIMISER


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("module", [nn.BCEWithLogitsLoss(), nn.PoissonNLLLoss(), nn.HuberLoss(delta=0.3)], ids=str)
def test_sums_by_matrix_products_are_those_of_compiled_loops(module: nn.Module, bias: bool) -> None:
    X, weight = gaussian(3000, 4), gaussian(3000, seed=2).abs() * (gaussian(3000, seed=3) > -1)
    y = (X[:, :1] + gaussian(3000, 1, seed=1) > 0).double()
    theta = gaussian(4 + bias, 1, seed=4) / 2
    found: list[tuple[Tensor, ...]] = []
    # The columns of the second one after the other: no compiled loop reads them.
    for table in (X, X.T.contiguous().T):
        rows = as_rows(table, y, weight)
        criterion = read_criterion(module, targets_of(rows))
        assert isinstance(criterion, Criterion)
        design = Design(rows, scan(rows), bias=bias)
        roots = torch.zeros(3000, dtype=torch.float64)
        loss = rows.walk(LossSums(criterion, design.columns, theta, roots=roots))
        proof = rows.walk(_ProofSums(criterion, design.columns, theta, 1, 2))
        again = rows.walk(RootGram(design.columns, roots)).gram
        gram = rows.walk(CurvatureGram(criterion, design.columns, theta)).gram
        torch.testing.assert_close(again.triu(), gram.triu(), rtol=1e-12, atol=1e-12)
        found.append((*loss.sums(), roots, proof.peak, proof.grams.triu(), *proof.sums()[:3]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("module", [nn.BCEWithLogitsLoss(), nn.PoissonNLLLoss(), nn.HuberLoss(delta=0.3)], ids=str)
def test_a_sample_and_its_hessian_lead_to_the_minimum(module: nn.Module) -> None:
    X = gaussian(64_000, 6) * torch.tensor([1, 2, 5, 10, 1e3, 1e-3])
    y = (X[:, 0] / 2 + X[:, 1] / 4 + gaussian(64_000, seed=1) > 1).double()
    fit = cf.solve(X, y, bias=True, criterion=module)
    assert fit.outcome is Outcome.CERTIFIED
    assert fit.certificate.relative_gap <= 1e-14
    # A look at all rows is a gradient; they are factored once or twice.
    assert fit.passes <= 9
    weight, bias = fit.weight.clone().requires_grad_(), fit.bias.clone().requires_grad_()
    outputs = torch.nn.functional.linear(X / X.std(0), weight * X.std(0), bias)[:, 0]
    gradient = torch.autograd.grad(module(outputs, y), bias)[0]
    assert float(gradient.abs()) <= 1e-9


@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_the_unit_of_features_may_be_anything(unit: float) -> None:
    X = gaussian(200, 3)
    y = (X[:, 0] + gaussian(200, seed=1) > 0).double()
    for module in (nn.PoissonNLLLoss(), nn.BCEWithLogitsLoss()):
        fit, plain = (cf.solve(table, y, bias=True, criterion=module) for table in (X * unit, X))
        assert fit.outcome is Outcome.CERTIFIED
        assert fit.certificate.loss == pytest.approx(plain.certificate.loss, rel=1e-13)


def test_dependent_columns_give_the_weights_of_least_norm() -> None:
    X, Y = gaussian(60, 3), drawn(3, 60)
    once = cf.solve(X, Y, bias=True, criterion=nn.CrossEntropyLoss())
    twice = cf.solve(torch.cat([X, X], 1), Y, bias=True, criterion=nn.CrossEntropyLoss())
    assert twice.outcome is Outcome.CERTIFIED_NOT_UNIQUE
    torch.testing.assert_close(twice.weight, torch.cat([once.weight, once.weight], 1) / 2, rtol=1e-9, atol=1e-10)


def test_rows_cut_in_parts_give_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    X, Y = gaussian(90, 3), drawn(3, 90)
    whole = cf.solve(X, Y, bias=True, l2=0.1, criterion=nn.CrossEntropyLoss())
    monkeypatch.setattr("closedform.rows.table.InOrder", lambda: Parts(3))
    rows = as_rows(X, Y)
    object.__setattr__(rows, "walker", Parts(3))
    cut = solve_criterion(rows, ConvexRequest(nn.CrossEntropyLoss(), True, 0.1))
    assert cut.outcome is Outcome.CERTIFIED
    torch.testing.assert_close(cut.weight, whole.weight, rtol=1e-10, atol=1e-12)


def test_rows_of_weight_zero_and_ignored_rows_do_not_count() -> None:
    X, Y = gaussian(80, 3), drawn(3, 80)
    weight = (torch.arange(80) % 3 != 0).double() * 2
    some = cf.solve(X, Y, sample_weight=weight, l2=2.0, bias=True, criterion=nn.CrossEntropyLoss())
    kept = cf.solve(X[weight > 0], Y[weight > 0], l2=1.0, bias=True, criterion=nn.CrossEntropyLoss())
    ignored = torch.where(weight > 0, Y, -100)
    left = cf.solve(X, ignored, l2=1.0, bias=True, criterion=nn.CrossEntropyLoss())
    for other in (some, left):
        torch.testing.assert_close(other.weight, kept.weight, rtol=1e-10, atol=1e-12)
        assert other.certificate.loss == pytest.approx(kept.certificate.loss, rel=1e-12)


@pytest.mark.parametrize("module", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1, reduction="sum")])
def test_a_layer_at_the_minimum_has_no_gradient_in_torch(module: nn.Module) -> None:
    X, Y = gaussian(70, 4), drawn(3, 70)
    layer = nn.Linear(4, 3, dtype=torch.float64)
    before = cf.gap(layer, X, Y, criterion=module)
    assert before.loss == pytest.approx(module(layer(X), Y).item(), rel=1e-13)
    sol = cf.fit_(layer, X, Y, criterion=module)
    assert sol.outcome is Outcome.CERTIFIED
    loss = module(layer(X), Y)
    loss.backward()
    assert layer.weight.grad is not None
    assert float(layer.weight.grad.norm()) < 1e-12 * 70
    assert before.optimal_loss == pytest.approx(loss.item(), rel=1e-13)
    assert before.excess_loss == pytest.approx(before.loss - before.optimal_loss, rel=1e-10)
    assert 0 <= cf.gap(layer, X, Y, criterion=module).excess_loss < 1e-25


def test_the_excess_of_a_small_step_keeps_its_digits() -> None:
    X, Y = gaussian(70, 4), (gaussian(70, seed=5) > 0).double()
    layer = nn.Linear(4, 1, dtype=torch.float64)
    sol = cf.fit_(layer, X, Y, criterion=nn.BCEWithLogitsLoss())
    with torch.no_grad():
        layer.weight += 1e-9
        s = torch.sigmoid(sol.predict(X))
        step = X @ (layer.weight - sol.weight).T
        expected = 0.5 * float((s * (1 - s) * step[:, 0].square()).mean())
    assert cf.gap(layer, X, Y, criterion=nn.BCEWithLogitsLoss()).excess_loss == pytest.approx(expected, rel=1e-6)


def test_nothing_is_written_where_there_is_no_minimiser() -> None:
    layer = nn.Linear(1, 2)
    before = [p.detach().clone() for p in layer.parameters()]
    X = torch.tensor([[-1.0], [1.0]])
    assert cf.fit_(layer, X, torch.tensor([0, 1]), criterion=nn.CrossEntropyLoss()).outcome is Outcome.NO_MINIMISER
    assert all(torch.equal(a, b) for a, b in zip(before, layer.parameters(), strict=True))


def test_squared_error_is_least_squares() -> None:
    X, Y = gaussian(30, 3), gaussian(30, 2, seed=1)
    plain, named = cf.solve(X, Y, l2=0.3), cf.solve(X, Y, l2=0.3, criterion=nn.MSELoss(reduction="sum"))
    assert isinstance(named, cf.Solution)
    assert torch.equal(plain.weight, named.weight)


def test_a_support_vector_machine_with_squared_hinge() -> None:
    svm = pytest.importorskip("sklearn.svm")
    X = gaussian(80, 3)
    Y = torch.sign(X[:, 0] + gaussian(80, seed=7))
    sol = cf.solve(X, Y, l2=0.5, criterion=SquaredHingeLoss())
    peer = svm.LinearSVC(C=2.0 * 0.5, dual=False, fit_intercept=False, tol=1e-12, max_iter=100000)
    peer.C = 1 / 0.5
    np.testing.assert_allclose(sol.weight.numpy(), peer.fit(X.numpy(), Y.numpy()).coef_, rtol=1e-6)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "label too large": (
        {"Y": torch.tensor([0, 1, 3]), "criterion": nn.CrossEntropyLoss(weight=torch.ones(3))},
        r"holds 3 in row 2; .* weight has 3 entries",
    ),
    "negative label": ({"Y": torch.tensor([0, -1, 1]), "criterion": nn.CrossEntropyLoss()}, "holds -1 in row 1"),
    "names of classes": ({"Y": torch.tensor([0, 10**9, 1]), "criterion": nn.CrossEntropyLoss()}, "numbers the classes"),
    "all ignored": ({"Y": torch.full((3,), -100), "criterion": nn.CrossEntropyLoss()}, "no row counts"),
    "no probabilities": ({"Y": torch.ones(3, 2), "criterion": nn.CrossEntropyLoss()}, "sum to 2"),
    "negative counts": ({"Y": torch.tensor([1.0, -2.0, 0.0]), "criterion": nn.PoissonNLLLoss()}, "negative"),
    "two numbers for bce": ({"Y": torch.tensor([1.0, 2.0, 0.0]), "criterion": nn.BCEWithLogitsLoss()}, "from 0 to 1"),
    "digits": ({"Y": torch.tensor([0, 1, 1]), "criterion": nn.CrossEntropyLoss(), "digits": 9}, "digits= is for"),
    "a name": ({"Y": torch.tensor([0, 1, 1]), "criterion": "entropy"}, "not known"),
    "strengths": ({"Y": torch.tensor([0, 1, 1]), "criterion": "cross-entropy", "l2": [1.0, 2.0]}, "couples"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_words(name: str) -> None:
    arguments, words = BAD[name]
    with pytest.raises(cf.ClosedformError, match=words):
        cf.solve(gaussian(3, 2), arguments.pop("Y"), **arguments)


def test_labels_beyond_the_layer_are_refused() -> None:
    with pytest.raises(cf.ClosedformError, match="labels must be from 0 to 1"):
        cf.fit_(nn.Linear(2, 2), gaussian(4, 2), torch.tensor([0, 1, 2, 0]), criterion=nn.CrossEntropyLoss())
    with pytest.raises(cf.ClosedformError, match="3 outputs, but Y has 1 column"):
        cf.fit_(nn.Linear(2, 3), gaussian(4, 2), torch.ones(4), criterion=nn.HuberLoss())


def test_a_medical_table_to_ten_digits() -> None:
    # Two hundred patients of scikit-learn's breast cancer data; the oracle is a Newton step of mpmath in 50 digits.
    datasets = pytest.importorskip("sklearn.datasets")
    table, labels = datasets.load_breast_cancer(return_X_y=True)
    X = torch.from_numpy(table[:200, :3] / table[:200, :3].std(0))
    X, Y = X - X.mean(0), torch.from_numpy(labels[:200]).double()
    sol = cf.solve(X, Y, bias=True, criterion=nn.BCEWithLogitsLoss())
    with mpmath.workdps(50):
        A = [[mpmath.mpf(1), *map(mpmath.mpf, row)] for row in X.tolist()]
        g, H = mpmath.zeros(4, 1), mpmath.zeros(4, 4)
        theta = [*sol.bias.tolist(), *sol.weight[0].tolist()]
        for a, y in zip(A, Y.tolist(), strict=True):
            s = 1 / (1 + mpmath.exp(-mpmath.fdot(a, theta)))
            for u in range(4):
                g[u] += (s - y) * a[u]
                for v in range(4):
                    H[u, v] += s * (1 - s) * a[u] * a[v]
        step = mpmath.lu_solve(H, -g)
    assert max(abs(float(d)) / abs(t) for d, t in zip(step, theta, strict=True)) < 1e-10


@pytest.mark.parametrize("kind", ["binary", "classes", "huber"])
def test_a_wide_table_has_the_minimum_of_its_row_space(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(30, 200, dtype=torch.float64, generator=generator)
    codes = torch.randint(3, (30,), generator=generator)
    criterion: nn.Module = nn.CrossEntropyLoss()
    Y = codes
    if kind == "binary":
        criterion, Y = nn.BCEWithLogitsLoss(), (codes > 0).double()
    elif kind == "huber":
        criterion, Y = nn.HuberLoss(), torch.randn(30, dtype=torch.float64, generator=generator)
    sol = cf.solve(X, Y, l2=2.0, criterion=criterion)
    assert sol.outcome.certified, sol
    basis, R = torch.linalg.qr(X.T)
    # Without the detour: the columns of this table are not many.
    narrow = cf.solve(R.T.contiguous(), Y, l2=2.0, criterion=criterion)
    torch.testing.assert_close(sol.weight, narrow.weight @ basis.T, rtol=1e-7, atol=1e-8)
    assert sol.certificate.objective == pytest.approx(narrow.certificate.objective, rel=1e-12)

    free = cf.solve(X, Y, bias=True, criterion=criterion)
    if kind == "huber":
        assert free.outcome is Outcome.CERTIFIED_NOT_UNIQUE
        least = cf.solve(X, Y, bias=True)
        torch.testing.assert_close(free.weight, least.weight, rtol=1e-8, atol=1e-10)
    else:
        assert free.outcome is Outcome.NO_MINIMISER
        direction = free.direction
        assert direction is not None
        change = X @ direction.weight.T + direction.bias
        right = (2 * Y - 1) * change[:, 0] > 0 if kind == "binary" else change.argmax(1) == Y
        assert bool(right.all())


@pytest.mark.parametrize("l2", [0.0, 1.0])
def test_squared_margins_of_several_classes(l2: float) -> None:
    X = gaussian(80, 4)
    y = (X[:, :3] + gaussian(80, 3, seed=1)).argmax(1)
    criterion = nn.MultiMarginLoss(p=2, weight=torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64), reduction="sum")
    sol = cf.solve(X, y, bias=True, l2=l2, criterion=criterion)
    assert sol.outcome is Outcome.CERTIFIED, sol
    weight, bias = sol.weight.clone().requires_grad_(), sol.bias.clone().requires_grad_()
    loss = criterion(nn.functional.linear(X, weight, bias), y) + l2 / 2 * weight.square().sum()
    loss.backward()
    # Where the gradient of a convex function vanishes is its minimum.
    assert weight.grad is not None
    assert bias.grad is not None
    assert max(float(weight.grad.abs().max()), float(bias.grad.abs().max())) < 1e-11
    assert sol.certificate.objective == pytest.approx(float(loss.detach()), rel=1e-13)
    with pytest.raises(InputError, match="integer labels"):
        cf.solve(X, y.double(), criterion=criterion)


@pytest.mark.parametrize(
    "criterion",
    [
        nn.CrossEntropyLoss(reduction="sum"),
        nn.CrossEntropyLoss(reduction="sum", label_smoothing=0.1),
        nn.MultiMarginLoss(p=2, reduction="sum"),
    ],
)
def test_many_classes_are_proven_as_well_as_few(criterion: nn.Module) -> None:
    """Bounds on the rounding of a slope that grew with the square of the classes proved 9e-9 of 100 classes."""
    X = 30 * gaussian(1500, 40) * torch.logspace(0, -2, 40, dtype=torch.float64)
    y = torch.unique((X @ gaussian(40, 80, seed=1) / 5).argmax(1), return_inverse=True)[1]
    sol = cf.solve(X, y, criterion=criterion, l2=1.0)
    assert isinstance(sol, cf.ConvexSolution)
    assert sol.certificate.accepted
    assert sol.certificate.relative_gap < (1e-12 if compiled.available() else 1e-11)


@pytest.mark.skipif(not compiled.available(), reason="no C compiler built the passes here")
@pytest.mark.parametrize("bias", [False, True])
def test_outputs_without_curvature_are_not_multiplied(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Curvatures below the range of float32 made each product of 100 classes take four times as long."""
    X = 100 * gaussian(500, 8)
    y = torch.unique((X @ gaussian(8, 40, seed=1)).argmax(1), return_inverse=True)[1]
    criterion, taken = nn.CrossEntropyLoss(reduction="sum"), []
    passes = compiled.Compiled.curvature_sums_

    def counted(self: Any, sums: Tensor, X: Tensor, curvatures: Any, *others: Any) -> None:
        taken.append(curvatures.values)
        passes(self, sums, X, curvatures, *others)

    monkeypatch.setattr(compiled.Compiled, "curvature_sums_", counted)
    sol = cf.solve(X, y, criterion=criterion, l2=1.0, bias=bias)
    assert isinstance(sol, cf.ConvexSolution)
    assert sol.certificate.accepted
    assert "curvatures that do not vanish" in str(sol.plan)
    assert taken
    assert float(torch.cat(taken).min()) >= torch.finfo(torch.float32).tiny

    weight = sol.weight.clone().requires_grad_()
    loss = criterion(nn.functional.linear(X, weight, sol.bias), y) + 0.5 * weight.square().sum()
    (slope,) = torch.autograd.grad(loss, weight)
    assert float(slope.abs().max()) < 1e-8
