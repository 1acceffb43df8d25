"""Many targets: what sums of the rows say of them is checked on the rows by random directions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import closedform as cf
from closedform.fit import orchestrator
from closedform.fit.certification import by_probes, certify
from closedform.fit.certification.by_probes import measure_by_probes
from closedform.fit.claims import Claims
from closedform.fit.factors import Facts
from closedform.fit.path import table as path_table
from closedform.fit.problem import Problem
from closedform.rows import OneHotRows, Rows
from data import F64, gaussian

ROWS, FEATURES, TARGETS = 3000, 24, 70


def table(noise: float = 1.0, dtype: torch.dtype = F64) -> tuple[Tensor, Tensor]:
    X = gaussian(ROWS, FEATURES) + 0.5
    Y = X @ gaussian(FEATURES, TARGETS, seed=1) + noise * gaussian(ROWS, TARGETS, seed=2)
    return X.to(dtype), (Y * torch.logspace(-3, 3, TARGETS, dtype=F64)).to(dtype)


def walks_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    walks: list[str] = []
    walk = Rows.walk
    monkeypatch.setattr(Rows, "walk", lambda rows, fold: walks.append(type(fold).__name__) or walk(rows, fold))
    return walks


def one_by_one(monkeypatch: pytest.MonkeyPatch, *args: object, **options: object) -> cf.Solution:
    with monkeypatch.context() as patch:
        patch.setattr(Facts, "many_targets", False)
        return cf.solve(*args, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bias", "l2", "weighted", "dtype"),
    [(False, 0.0, False, F64), (True, 0.0, True, F64), (True, 30.0, False, F64), (False, 3.0, True, torch.float32)],
)
def test_all_is_said_that_is_said_of_each_target(
    bias: bool, l2: float, weighted: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, Y = table(dtype=dtype)
    weight = None
    if weighted:
        weight = torch.rand(ROWS, dtype=F64, generator=torch.Generator().manual_seed(5))
        weight[::7] = 0
    options = {"bias": bias, "l2": l2, "sample_weight": weight, "method": "gram64"}
    plain = one_by_one(monkeypatch, X, Y, **options)
    walks = walks_of(monkeypatch)
    found = cf.solve(X, Y, **options)  # type: ignore[arg-type]
    assert walks.count("ProbeSums") == 1
    assert not {"CertificateSums", "ResidualSums"} & set(walks)

    ours, theirs = found.certificate, plain.certificate
    assert (ours.probed, theirs.probed) == (True, False)
    assert ours.accepted
    rounding = torch.finfo(found.weight.dtype).eps
    difference = torch.linalg.vector_norm(found.weight - plain.weight, dim=1)
    assert bool((difference <= 20 * rounding * torch.linalg.vector_norm(plain.weight, dim=1)).all())
    for name in ("loss", "residual_norm", "condition", "scaled_condition"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=1e-12)
    for name in ("r_squared", "residual_std", "r_squared_about_zero"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-10)
    if not bias:
        assert ours.loss_with_bias == pytest.approx(theirs.loss_with_bias, rel=1e-10)
    assert theirs.backward_error <= ours.backward_error <= ours.tolerance
    assert theirs.joint_backward_error <= ours.joint_backward_error <= ours.tolerance


def _parts(monkeypatch: pytest.MonkeyPatch, X: Tensor, Y: Tensor) -> tuple[Problem, Tensor, Tensor, Tensor, Claims]:
    """What a fit hands over to be measured, and the claims of its factor."""
    found: list[tuple[Problem, Tensor, Tensor, Tensor]] = []
    claims: list[Claims] = []
    measure, judge = measure_by_probes, certify
    monkeypatch.setattr(orchestrator, "measure_by_probes", lambda *args: found.append(args[:4]) or measure(*args))
    monkeypatch.setattr(
        orchestrator, "certify", lambda p, w, c, *rest, **kw: claims.append(c) or judge(p, w, c, *rest, **kw)
    )
    cf.solve(X, Y, method="gram64")
    return *found[0], claims[0]


@pytest.mark.parametrize("what", ["one entry", "one target", "all"])
def test_sums_that_are_not_those_of_the_rows_are_seen(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, Z, gram, cross, claims = _parts(monkeypatch, *table())
    wrong, size = cross.clone(), 1e-11 * float(cross.abs().max())
    if what == "one entry":
        wrong[3, 5] += size
    elif what == "one target":
        wrong[:, 9] += size * gaussian(FEATURES, 1, seed=3)[:, 0]
    else:
        wrong += size / 8 * gaussian(FEATURES, TARGETS, seed=3)
    assert claims.root is not None
    moved = Z + torch.linalg.solve(gram, wrong - cross)  # the minimiser, as these sums have it
    measured = measure_by_probes(problem, moved, gram, wrong, claims.root)
    assert measured is not None
    weights = problem.to_weights(moved)
    said = certify(problem, weights, claims, sums=measured)
    true = certify(problem, weights, claims)
    assert true.backward_error > true.tolerance
    assert not said.accepted
    assert true.backward_error <= said.backward_error <= 16 * true.backward_error


def test_the_margin_is_what_is_said() -> None:
    x = by_probes._MARGIN**-2
    assert (x * np.exp(1 - x)) ** (by_probes._PROBES / 2) < 1e-11


@pytest.mark.parametrize("reason", ["exact targets", "ill-conditioned", "few rows"])
def test_where_sums_do_not_suffice_each_target_is_looked_at(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X, Y = table(noise=1e-4 if reason == "exact targets" else 1.0)
    if reason == "ill-conditioned":
        X[:, 0] = X[:, 1] + 1e-4 * X[:, 0]
    elif reason == "few rows":
        X, Y = torch.cat([X] * 11, 1)[:800], Y[:800]
        X = X + 0.1 * gaussian(*X.shape, seed=4)
    found = cf.solve(X, Y)
    assert found.certificate.accepted
    assert not found.certificate.probed
    assert found.certificate.backward_error <= found.certificate.tolerance / 4


def test_classes_are_never_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.randint(70, (4000,), generator=torch.Generator().manual_seed(0))
    X = gaussian(4000, 20)
    columns = torch.nn.functional.one_hot(labels, 70).to(F64) * 2 - 1
    plain = cf.ridge_path(X, columns, l2=[1.0, 100.0], bias=True, per_target=False).solution
    monkeypatch.setattr(path_table, "_SMALL", 0)  # where rows are few, all are compressed with their columns
    monkeypatch.setattr(OneHotRows, "read", None)
    found = cf.ridge_path(X, OneHotRows(labels, 70, F64, off=-1.0), l2=[1.0, 100.0], bias=True, per_target=False)
    ours = found.solution.certificate
    assert ours.accepted
    assert ours.probed
    torch.testing.assert_close(found.solution.weight, plain.weight, rtol=0, atol=1e-15)
    assert ours.loss == pytest.approx(plain.certificate.loss, rel=1e-12)

    # The gradient of the rows themselves, beside what the error of the worst target allows.
    A, W = torch.cat([torch.ones(4000, 1, dtype=F64), X], 1), torch.cat([found_bias(found), found.solution.weight.T])
    penalty = torch.full((21, 1), float(found.l2[0]), dtype=F64)
    penalty[0] = 0
    slopes = torch.linalg.vector_norm(A.T @ (columns - A @ W) - penalty * W, dim=0)
    largest = 8 * ours.backward_error * torch.linalg.vector_norm(A) * torch.linalg.vector_norm(columns, dim=0)
    assert bool((slopes <= largest).all())


def found_bias(path: cf.RidgePath) -> Tensor:
    assert path.solution.bias is not None
    return path.solution.bias.unsqueeze(0)


def test_it_is_told() -> None:
    X, Y = table()
    assert cf.solve(X, Y, method="gram64").certificate.to_dict()["probed"] is True
