"""Where many weights minimise: the certificate measures which of them it was given, and refuses a wrong choice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import closedform as cf
from closedform.engine.rates import known_rates
from closedform.fit.certification import certify
from closedform.fit.certification.choice import CHOICE_TOLERANCE
from closedform.fit.claims import Claims
from closedform.fit.factors import METHODS, Facts
from closedform.fit.problem import Problem
from closedform.fit.weights import Weights
from closedform.numerics.rank import default_rcond
from closedform.rows import Design, as_rows, scan
from oracle import minimise

TALL = ("projected gram64", "sketched", "svd")
WIDE = ("dual gram32", "dual gram64", "dual", "svd")


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def table(method: str, *, wide: bool, graded: bool) -> tuple[Tensor, Tensor]:
    """Return a table whose rows leave directions undetermined; graded columns differ by three orders in unit."""
    X = gaussian(12, 30) + 1.0 if wide else gaussian(400, 9) @ gaussian(9, 9, seed=1)
    if not wide:
        X[:, 4] = X[:, 0] - X[:, 2]
    if graded:
        X = X * torch.logspace(0, 3 if not method.startswith("dual gram") else 2, X.shape[1], dtype=torch.float64)
        if not wide:
            X[:, 4] = X[:, 0] - X[:, 2]
    return X, gaussian(X.shape[0], 2, seed=2)


def fitted(
    method: str, X: Tensor, Y: Tensor, *, bias: bool, near: Weights | None
) -> tuple[Problem, Weights, Claims, Tensor | None, Tensor | None]:
    rows = as_rows(X, Y)
    problem = Problem(Design(rows, scan(rows), bias=bias), 0.0)
    facts = Facts(
        n_rows=X.shape[0],
        n_columns=problem.n_columns,
        n_targets=2,
        bias=bias,
        ridge=False,
        weighted=False,
        rcond=default_rcond(X.shape[0], problem.n_columns),
        rcond_given=False,
        nearest=near is not None,
        row_bytes=8.0 * X.shape[1],
        in_memory=True,
        bfloat16=False,
        rates=known_rates(X.device),
    )
    nearest = None if near is None else problem.from_weights(near)
    (chosen,) = [each for each in METHODS if each.name == method]
    factor, right = chosen.factor(problem, facts)
    refined = factor.refinement.refine(problem, factor.start(right, nearest), nearest)
    return problem, problem.to_weights(refined.Z), factor.claims, nearest, refined.multipliers


def null_step(X: Tensor, *, bias: bool) -> Weights:
    """Return a change of the weights that changes no prediction, of length one."""
    A = torch.cat([torch.ones_like(X[:, :1]), X], 1) if bias else X
    scale = A.norm(dim=0)
    _, _, vectors = torch.linalg.svd(A / scale, full_matrices=True)
    step = vectors[-1] / scale
    step = step / step.norm()
    return Weights.from_stacked(torch.stack([step, -step], 1), bias=bias)


CASES = [(method, wide) for wide, methods in ((False, TALL), (True, WIDE)) for method in methods]


@pytest.mark.parametrize("graded", [False, True], ids=["alike", "graded"])
@pytest.mark.parametrize("near", [False, True], ids=["least norm", "nearest"])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize(("method", "wide"), CASES)
def test_the_right_choice_is_accepted_and_a_wrong_one_refused(
    method: str, wide: bool, bias: bool, near: bool, graded: bool
) -> None:
    X, Y = table(method, wide=wide, graded=graded)
    # Weights whose predictions are about as large as the targets.
    sizes = gaussian(2, X.shape[1], seed=3) / X.norm(dim=0) * X.shape[0] ** 0.5
    to = Weights(sizes, gaussian(2, seed=4) if bias else None) if near else None
    problem, weights, claims, nearest, multipliers = fitted(method, X, Y, bias=bias, near=to)
    right = certify(problem, weights, claims, nearest, multipliers)
    assert right.accepted
    assert right.least_norm_error is not None
    assert right.least_norm_error <= 1e-10

    step = null_step(X, bias=bias)
    size = 1e-3 * max(weights.norm(), 0.0 if to is None else to.norm())
    shift = None if weights.bias is None or step.bias is None else weights.bias + size * step.bias
    wrong = certify(problem, Weights(weights.weight + size * step.weight, shift), claims, nearest, multipliers)
    assert wrong.backward_error <= wrong.tolerance, "the residual cannot see the step"
    assert wrong.least_norm_error is not None
    assert wrong.least_norm_error > CHOICE_TOLERANCE
    assert not wrong.accepted
    assert "from those of least norm or nearest" in wrong.verdict


def test_a_solver_that_is_not_the_one_of_least_norm_is_seen() -> None:
    # A generalised inverse that meets the equations, but with another choice: its own weights come back from it.
    X, Y = table("dual", wide=True, graded=False)
    problem, _, claims, _, _ = fitted("dual", X, Y, bias=False, near=None)
    first = torch.linalg.inv(X[:, :12])

    def basic(right: Tensor) -> Tensor:
        weights = torch.zeros(30, right.shape[1], dtype=torch.float64)
        weights[:12] = first @ right
        return weights / problem.scale.unsqueeze(1)

    lie = Claims(claims.rank, extremes=claims.extremes, least_norm_solve=basic)
    weights = problem.to_weights(basic(problem.gathered_targets))
    found = certify(problem, weights, lie)
    assert found.backward_error < 1e-12
    assert found.least_norm_error is not None
    assert found.least_norm_error > 0.1
    assert not found.accepted


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_solution_tells_the_number(wide: bool, bias: bool) -> None:
    X, Y = table("auto", wide=wide, graded=False)
    layer = nn.Linear(X.shape[1], 2, bias=bias, dtype=torch.float64)
    for sol in (cf.solve(X, Y, bias=bias), cf.solve(X, Y, bias=bias, nearest_to=layer)):
        error = sol.certificate.least_norm_error
        assert sol.outcome is cf.Outcome.CERTIFIED_NOT_UNIQUE
        assert error is not None
        assert error <= 1e-10
        assert sol.certificate.to_dict()["least_norm_error"] == error
    assert cf.solve(gaussian(40, 3), gaussian(40, 1, seed=1)).certificate.least_norm_error is None


@pytest.mark.parametrize("method", TALL)
@pytest.mark.parametrize("bits", [0, 20, 40])
def test_digits_of_weights_of_least_norm_count_what_the_row_space_rounds(method: str, bits: int) -> None:
    # Exact numbers of rank two: a direction of size 1, and one of 2^-bits that alone some of the columns hold. How far
    # others are to share its weights rests on digits that are lost beside the first one.
    first, second = (gaussian(162, 1, seed=seed).mul(3).round() for seed in (1, 2))
    held = torch.tensor([[2.0, 0.0, 3.0, 0.0, 1.0, -4.0, 0.0, 5.0]], dtype=torch.float64)
    X = first @ held + 2.0**-bits * second @ gaussian(1, 8, seed=3).mul(4).round().clamp(min=1)
    Y = gaussian(162, 1, seed=4)
    exact = minimise(X, Y)
    assert exact.rank == 2

    sol = cf.solve(X, Y, method=method)
    assert sol.certificate.accepted
    assert sol.certificate.rank == 2
    off = np.linalg.norm(sol.weight.numpy() - exact.weight) / np.linalg.norm(exact.weight)
    claimed = sol.certificate.forward_error
    assert off <= claimed
    assert claimed <= 1e-13 * 2.0**bits
