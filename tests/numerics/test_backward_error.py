"""The backward error of Karlson and Walden: within its known factor of the smallest perturbation there is."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from closedform.numerics.karlson_walden import Evidence, backward_error, joint_backward_error
from closedform.numerics.root import TriangularRoot
from data import F64, gaussian, of_condition


def evidence_of(A: Tensor, B: Tensor, Z: Tensor) -> Evidence:
    root = TriangularRoot(torch.linalg.qr(A).R)
    return Evidence(
        Z=Z,
        gradient=A.T @ (B - A @ Z),
        matrix_norm=float(A.norm()),
        target_norms=B.norm(dim=0).numpy(),
        root=root,
        spectrum=root.spectrum,
        factor_error=0.0,
        least=1.0,
        parts=None,
        good_enough=0.0,
    )


def smallest_perturbation(A: Tensor, b: Tensor, z: Tensor) -> float:
    """The exact one of Walden, Karlson and Sun (1995) of A and b together, by a dense decomposition; relative."""
    theta = A.norm() / b.norm()
    r = b - A @ z
    phi = r.norm() * torch.sqrt(theta**2 / (1 + theta**2 * (z @ z)))
    projector = torch.eye(len(r), dtype=F64) - torch.outer(r, r) / (r @ r)
    smallest = torch.linalg.svdvals(torch.cat([A, phi * projector], 1))[-1]
    return float(torch.minimum(phi, smallest) / A.norm())


@pytest.mark.parametrize("size", [1e-3, 1e-7])
@pytest.mark.parametrize("decades", [0.0, 3.0])
def test_it_is_within_its_factor_of_the_smallest_perturbation(decades: float, size: float) -> None:
    A, B = of_condition(decades, 20, 4), gaussian(20, 3, seed=2)
    Z = torch.linalg.lstsq(A, B).solution
    Z = Z + size * Z.norm() * gaussian(4, 3, seed=3)
    evidence = evidence_of(A, B, Z)
    found = backward_error(evidence, (B - A @ Z).norm(dim=0).numpy())
    exact = max(smallest_perturbation(A, B[:, j], Z[:, j]) for j in range(3))
    assert exact / 1.5 <= found <= 1.5 * exact


def test_one_perturbation_for_all_targets_is_no_smaller_than_for_each() -> None:
    A, B = gaussian(20, 4), gaussian(20, 3, seed=2)
    Z = torch.linalg.lstsq(A, B).solution + 1e-6 * gaussian(4, 3, seed=3)
    R, evidence = B - A @ Z, evidence_of(A, B, Z)
    each, joint = backward_error(evidence, R.norm(dim=0).numpy()), joint_backward_error(evidence, R.T @ R)
    assert each <= joint * 1.5
    assert joint <= 10 * each


@pytest.mark.parametrize("alike", [1.0, 1e-3])
def test_the_joint_bound_without_residuals_is_above_the_estimate_and_no_more_than_the_residuals_tell(
    alike: float,
) -> None:
    A, B = gaussian(40, 5), gaussian(40, 3, seed=2) * torch.tensor([1.0, alike, 1.0], dtype=F64)
    B[:, 1] += B[:, 0]
    Z = torch.linalg.lstsq(A, B).solution + 1e-7 * gaussian(5, 3, seed=3)
    evidence = evidence_of(A, B, Z)
    assert evidence.root is not None
    evidence = replace(evidence, image=evidence.root.adjoint_solve(evidence.gradient))
    R = B - A @ Z
    bound, estimate = joint_backward_error(evidence, None), joint_backward_error(evidence, R.T @ R)
    assert estimate <= bound <= 10 * estimate
    assert joint_backward_error(replace(evidence, factor_error=3.0, least=0.0), None) == math.inf


def test_a_minimiser_has_none_and_numbers_out_of_range_an_infinite_one() -> None:
    A, B = gaussian(20, 4), gaussian(20, 1, seed=2)
    Z = torch.linalg.lstsq(A, B).solution
    assert backward_error(evidence_of(A, B, Z), (B - A @ Z).norm(dim=0).numpy()) < 1e-15
    assert backward_error(evidence_of(A, torch.zeros_like(B), torch.zeros_like(Z)), np.zeros(1)) == 0.0
    assert backward_error(evidence_of(A, B, Z * torch.inf), np.ones(1)) == math.inf
