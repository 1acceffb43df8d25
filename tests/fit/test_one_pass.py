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
    gram = A.T @ A
    size = np.sqrt(np.diag(gram))
    scaled, Z = (gram / size[:, None] / size).astype(float), np.zeros_like(A.T @ B)
    for _ in range(5):
        Z += np.linalg.solve(scaled, (A.T @ (B - A @ Z) / size[:, None]).astype(float)) / size[:, None]
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


def test_a_factor_in_float32_takes_one_pass_more(monkeypatch: pytest.MonkeyPatch) -> None:
    X = gaussian(8000, 60) @ (torch.eye(60, dtype=F64) + 0.05 * gaussian(60, 60, seed=3))
    Y = X @ gaussian(60, 4, seed=1) + gaussian(8000, 4, seed=2)
    walks: list[str] = []
    walk = Rows.walk
    monkeypatch.setattr(Rows, "walk", lambda rows, fold: walks.append(type(fold).__name__) or walk(rows, fold))
    sol = cf.solve(X, Y, method="gram32")
    assert sol.attempts[-1].passes == 1
    assert (walks.count("ResidualSums"), walks.count("CertificateSums")) == (1, 1)

    Z, found = exact(X, Y), sol.weight.numpy().T
    assert (np.linalg.norm(found - Z, axis=0) <= 1e-15 * np.linalg.norm(Z, axis=0)).all()
    problem, _, claims = parts(X, Y, monkeypatch)
    fresh = certify(problem, cf.fit.weights.Weights(sol.weight, None), claims)
    assert fresh.backward_error <= sol.certificate.backward_error <= sol.certificate.tolerance / 8
    assert fresh.joint_backward_error <= sol.certificate.joint_backward_error <= sol.certificate.tolerance
    assert sol.certificate.loss == pytest.approx(fresh.loss, rel=1e-13)


@pytest.mark.parametrize("condition", [1e3, 1e6])
def test_a_step_that_is_claimed_to_settle_does(condition: float, monkeypatch: pytest.MonkeyPatch) -> None:
    spectrum = torch.logspace(0, -np.log10(condition), 40, dtype=F64)
    X = gaussian(20_000, 40) * spectrum @ torch.linalg.qr(gaussian(40, 40, seed=4)).Q
    Y = X @ gaussian(40, 2, seed=1) + 0.1 * gaussian(20_000, 2, seed=2)
    sol = cf.solve(X, Y, method="gram64")
    assert sol.attempts[-1].passes == 0
    problem, _, claims = parts(X, Y, monkeypatch)
    fresh = certify(problem, cf.fit.weights.Weights(sol.weight, None), claims)
    assert fresh.backward_error <= sol.certificate.backward_error <= sol.certificate.tolerance / 8
    assert sol.certificate.loss == pytest.approx(fresh.loss, rel=1e-13)
    assert fresh.gradient_norm <= 3 * sol.certificate.gradient_norm
    assert fresh.forward_error <= 2 * sol.certificate.forward_error
    assert np.linalg.norm(sol.weight.numpy().T - exact(X, Y)) <= sol.certificate.forward_error * sol.weight.norm()


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
