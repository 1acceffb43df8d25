"""A triangle of a sketch as the factor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import closedform as cf
from closedform.fit.factors import METHODS, sketched
from closedform.numerics.root import TriangularRoot
from exact import minimiser
from facts import tall_facts


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e6, 1e9, 1e11])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("n", [30, 120])
@pytest.mark.parametrize("whiten", [False, True], ids=["conjugate gradients", "whitened"])
def test_a_sketch_serves_at_any_condition_and_the_certificate_measures_it(
    condition: float, bias: bool, n: int, whiten: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sketched, "_cheapest", lambda facts: (sketched._cost(facts, 12, whiten), 12, whiten))
    rng = np.random.default_rng(5)
    U, _ = np.linalg.qr(rng.standard_normal((3000, n)))
    V, _ = np.linalg.qr(rng.standard_normal((n, n)))
    X = U * np.geomspace(1, 1 / condition, n) @ V.T
    Y = X @ rng.standard_normal((n, 2)) + 0.1 * rng.standard_normal((3000, 2))
    sol = cf.solve(X, Y, bias=bias, method="sketched")
    assert sol.outcome is cf.Outcome.CERTIFIED
    assert (sol.attempts[-1].passes <= 3) == whiten
    # Steps that gain what is left to gain, and no more.
    assert sol.attempts[-1].passes <= 30
    A = np.column_stack([np.ones(3000), X]) if bias else X
    assert_allclose(sol.certificate.condition, np.linalg.cond(A), rtol=0.15)
    # The weights are up to 1e10: what NumPy can say about the loss is about as much.
    assert_allclose(
        sol.certificate.loss, ((A @ np.linalg.lstsq(A, Y, rcond=0)[0] - Y) ** 2).mean(), rtol=1e-12 + 1e-19 * condition
    )


@pytest.mark.parametrize("ratio", [3, 12])
def test_a_sketch_is_certified_without_its_singular_values(ratio: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketched, "_cheapest", lambda facts: (sketched._cost(facts, ratio, False), ratio, False))
    monkeypatch.setattr(TriangularRoot, "spectrum", lambda self: pytest.fail("decomposed"))
    rng = np.random.default_rng(6)
    X = rng.standard_normal((3000, 120)) * np.geomspace(1, 1e-5, 120) @ np.linalg.qr(rng.standard_normal((120, 120)))[0]
    # A residual so short that the gradient alone bounds nothing.
    sol = cf.solve(X, X @ rng.standard_normal(120) + 1e-12 * rng.standard_normal(3000), method="sketched")
    assert sol.certificate.accepted


@pytest.mark.parametrize("weighted", [False, True])
def test_whitened_rows_with_ridge_and_weights(weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketched, "_cheapest", lambda facts: (sketched._cost(facts, 3, True), 3, True))
    rng = np.random.default_rng(10)
    X = rng.standard_normal((900, 5)) @ np.diag(np.geomspace(1, 1e-5, 5)) @ rng.standard_normal((5, 5))
    Y = rng.standard_normal((900, 1))
    options: dict[str, Any] = {"l2": 1e-9, "bias": True}
    if weighted:
        options["sample_weight"] = rng.uniform(0, 2, 900)
    sol = cf.solve(X, Y, method="sketched", **options)
    assert sol.outcome is cf.Outcome.CERTIFIED
    assert sol.attempts[-1].passes <= 3
    # Noise on the targets: the square of the condition number stands before eps.
    exact = [float(row[0]) for row in minimiser(X, Y, **options).weights[1:]]
    assert_allclose(sol.weight.numpy()[0], exact, rtol=1e-5)


def test_where_whitening_is_spoilt_conjugate_gradients_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketched, "_cheapest", lambda facts: (sketched._cost(facts, 3, True), 3, True))
    monkeypatch.setattr(sketched, "cholesky_of", lambda gram: (gram, 1))
    rng = np.random.default_rng(11)
    sol = cf.solve(rng.standard_normal((900, 5)), rng.standard_normal(900), method="sketched")
    assert sol.outcome is cf.Outcome.CERTIFIED
    assert sol.attempts[-1].passes > 3


@pytest.mark.parametrize(("condition", "used"), [(10.0, torch.float32), (1e4, torch.float64), (1e18, None)])
def test_a_sketch_is_factored_in_single_precision_only_where_columns_are_nearly_orthogonal(
    condition: float, used: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sketched, "_SINGLE", 20)
    monkeypatch.setattr(sketched, "_cheapest", lambda facts: (sketched._cost(facts, 8, False), 8, False))
    found: list[torch.dtype] = []
    factored = sketched._gram_root

    def watched(A: torch.Tensor, dtype: torch.dtype, limit: float) -> TriangularRoot | None:
        root = factored(A, dtype, limit)
        if root is not None:
            found.append(dtype)
        return root

    monkeypatch.setattr(sketched, "_gram_root", watched)
    rng = np.random.default_rng(12)
    n = 60
    X = rng.standard_normal((2000, n)) * np.geomspace(1, min(1.0, 10 / condition), n)
    X = X @ np.linalg.qr(rng.standard_normal((n, n)))[0]
    if used is None:
        # One column that depends on others, nearly orthogonal ones.
        X = rng.standard_normal((2000, n))
        X[:, -1] = X[:, :-1].sum(1)
    sol = cf.solve(X, X @ rng.standard_normal(n) + rng.standard_normal(2000), method="sketched")
    assert found == ([] if used is None else [used])
    assert sol.certificate.accepted
    assert sol.certificate.rank == (n if used else n - 1)


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("near", [False, True], ids=["least norm", "nearest"])
def test_a_sketch_finds_the_rank_and_the_least_norm(bias: bool, near: bool) -> None:
    rng = np.random.default_rng(8)
    n, r = 40, 25
    X = rng.standard_normal((2000, r)) @ np.diag(np.geomspace(1, 1e-4, r)) @ rng.standard_normal((r, n))
    X = X * np.ldexp(1.0, rng.integers(-6, 6, n))
    Y = rng.standard_normal((2000, 2))
    layer = torch.nn.Linear(n, 2, bias=bias, dtype=torch.float64)
    sol = cf.solve(X, Y, bias=bias, method="sketched", nearest_to=layer if near else None)
    assert sol.outcome is cf.Outcome.CERTIFIED_NOT_UNIQUE
    assert sol.certificate.rank == r + bias
    assert sol.certificate.columns == n + bias
    oracle = cf.solve(X, Y, bias=bias, method="svd", nearest_to=layer if near else None)
    assert_allclose(sol.weight.numpy(), oracle.weight.numpy(), atol=1e-10 * oracle.weight.abs().max().item())
    assert_allclose(sol.certificate.condition, oracle.certificate.condition, rtol=0.1)
    if not near:
        centred = X - X.mean(0) if bias else X
        pinv = (np.linalg.pinv(centred, rcond=1e-11) @ (Y - Y.mean(0) * bias)).T
        assert_allclose(sol.weight.numpy(), pinv, atol=1e-9 * np.abs(pinv).max())


@pytest.mark.parametrize(
    ("rows", "columns", "cheapest"),
    [(20_000, 2000, "gram64"), (100_000, 1000, "gram64"), (100_000, 4000, "sketched"), (1_000_000, 4000, "sketched")],
)
def test_a_sketch_is_preferred_where_it_was_measured_to_be_faster(rows: int, columns: int, cheapest: str) -> None:
    facts = tall_facts(rows, columns, condition=1e4)
    chosen = [method for method in METHODS if method.name in ("gram64", "sketched")]
    assert min(chosen, key=lambda method: method.cost(facts).seconds).name == cheapest
