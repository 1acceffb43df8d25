"""One pass that certifies a start and gives the last step of its refinement."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import closedform as cf
from closedform.fit.certification import certify, one_pass
from closedform.fit.claims import Claims
from closedform.fit.factors import Gram64
from closedform.fit.problem import Problem
from closedform.numerics.root import TriangularRoot
from closedform.rows import Design, Rows, scan
from closedform.rows.table import as_rows
from data import F64, gaussian


def table(noise: float, targets: int = 3) -> tuple[Tensor, Tensor]:
    X = gaussian(30_000, 12) * torch.logspace(-2, 2, 12, dtype=F64)
    return X, X @ gaussian(12, targets, seed=1) + noise * gaussian(30_000, targets, seed=2)


def exact(X: Tensor, Y: Tensor) -> np.ndarray:
    """The minimiser by refinement in extended precision."""
    A, B = (values.numpy().astype(np.longdouble) for values in (X, Y))
    gram, right = A.T @ A, A.T @ B
    size = np.sqrt(np.diag(gram))
    scaled, Z = (gram / size[:, None] / size).astype(float), np.zeros_like(right)
    for _ in range(5):
        Z += np.linalg.solve(scaled, ((right - gram @ Z) / size[:, None]).astype(float)) / size[:, None]
    return Z


def parts(X: Tensor, Y: Tensor, monkeypatch: pytest.MonkeyPatch) -> tuple[Problem, Tensor, Claims]:
    """The problem, the start and the claims that a fit of these rows comes to."""
    found: list[tuple[Problem, Tensor, Claims]] = []
    inner = one_pass.certify_and_step
    monkeypatch.setattr(
        "closedform.fit.orchestrator.certify_and_step",
        lambda problem, start, claims: found.append((problem, start, claims)) or inner(problem, start, claims),
    )
    cf.solve(X, Y)
    return found[0]


@pytest.mark.parametrize("noise", [1e-3, 1.0, 1e3])
def test_the_weights_are_those_of_refinement_and_the_certificate_holds_for_them(
    noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, Y = table(noise)
    walks: list[str] = []
    walk = Rows.walk
    monkeypatch.setattr(Rows, "walk", lambda rows, fold: walks.append(type(fold).__name__) or walk(rows, fold))
    sol = cf.solve(X, Y)
    assert sol.attempts[-1].method == "gram64"
    assert sol.attempts[-1].passes == 0
    assert walks.count("ResidualSums") == 0
    assert walks.count("CertificateSums") == 1

    Z, found = exact(X, Y), sol.weight.numpy().T
    norms = X.norm(dim=0).numpy()[:, None]
    assert (np.linalg.norm((found - Z) * norms, axis=0) <= 1e-15 * np.linalg.norm(Z * norms, axis=0)).all()

    problem, _, claims = parts(X, Y, monkeypatch)
    fresh = certify(problem, cf.fit.weights.Weights(sol.weight, None), claims)
    assert fresh.accepted
    assert fresh.backward_error <= sol.certificate.backward_error
    assert sol.certificate.loss == pytest.approx(fresh.loss, rel=1e-12)
    assert sol.certificate.backward_error <= sol.certificate.tolerance / 8
    # What rounding of the weights alone could cost is in it, however near the start was.
    assert sol.certificate.backward_error >= 2.0**-53
    assert fresh.joint_backward_error <= sol.certificate.joint_backward_error


def test_residuals_that_are_rounding_are_looked_at_afresh() -> None:
    X, Y = table(0.0)
    sol = cf.solve(X, Y)
    assert sol.attempts[-1].passes == 1
    assert sol.certificate.accepted
    assert sol.certificate.loss == pytest.approx(float((X @ sol.weight.T - Y).square().mean()), rel=0.5)


def test_nothing_is_claimed_of_a_start_or_a_factor_that_is_not_near(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, start, claims = parts(*table(1.0), monkeypatch)
    assert one_pass.certify_and_step(problem, start, claims).certificate is not None
    assert one_pass.certify_and_step(problem, start * (1 + 1e-9), claims).certificate is None
    assert isinstance(claims.root, TriangularRoot)
    far = replace(claims, root=TriangularRoot(claims.root.R * (1 + 1e-3)))
    assert one_pass.certify_and_step(problem, start, far).certificate is None


def test_a_ridge_is_refined_by_itself() -> None:
    X, Y = table(1.0)
    assert cf.solve(X, Y, l2=1.0, method="gram64").attempts[-1].passes == 1


def test_the_step_is_that_of_refinement() -> None:
    X, Y = table(1.0)
    rows = as_rows(X, Y)
    problem = Problem(Design(rows, scan(rows), bias=False), 0.0)
    facts = cf.solve(X, Y).plan.facts
    factor, right = Gram64().factor(problem, facts)
    start = factor.start(right, None)
    stepped = one_pass.certify_and_step(problem, start, factor.claims)
    refined = factor.refinement.refine(problem, start, None)
    torch.testing.assert_close(stepped.Z, refined.Z, rtol=0, atol=1e-16)
