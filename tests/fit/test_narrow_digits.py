"""Digits for data narrower than float64: how far exact minimisers move when the data are rounded once more."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

import closedform as cf
from oracle import minimise

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
#: By what factor the movement of a few roundings may exceed what is said of it, or be less.
ABOVE, BELOW = 1.5, 500.0


def movement(X: torch.Tensor, Y: torch.Tensor, units: tuple[float, float], rounds: int = 4, **options: Any) -> float:
    """How far the exact minimiser moves, relative to it in scaled columns, under errors of up to half a unit."""
    rng = np.random.default_rng(5)
    x, y = X.double().numpy(), Y.double().numpy()
    norms = np.linalg.norm(x, axis=0)
    before, moved = minimise(x, y, **options).weight * norms, 0.0
    for _ in range(rounds):
        errors = [unit * rng.uniform(-1, 1, part.shape) for part, unit in zip((x, y), units, strict=True)]
        after = minimise(x * (1 + errors[0]), y * (1 + errors[1]), **options).weight * norms
        moved = max(moved, float((np.linalg.norm(after - before, axis=1) / np.linalg.norm(before, axis=1)).max()))
    return moved


def unit(dtype: torch.dtype) -> float:
    return 0.0 if dtype == torch.float64 else torch.finfo(dtype).eps / 2


def problem(seed: int, dtypes: tuple[torch.dtype, torch.dtype]) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 6))
    m = int(rng.choice([n, n + 2, 4 * n, 60, max(n // 2, 2)]))
    X = rng.standard_normal((m, n)) * 10.0 ** rng.uniform(-2, 0, n)
    X[:, -1] = X[:, -1] * 10.0 ** rng.uniform(-1, 0) + X[:, 0]
    Y = X @ rng.standard_normal((n, 2)) + rng.standard_normal((m, 2)) * 10.0 ** rng.uniform(-4, 0)
    options = {"bias": bool(rng.random() < 0.3), "l2": float(10.0 ** rng.uniform(-6, 0)) if rng.random() < 0.3 else 0.0}
    return torch.tensor(X, dtype=dtypes[0]), torch.tensor(Y, dtype=dtypes[1]), options


@pytest.mark.parametrize("seed", range(20))
def test_what_is_said_is_how_far_exact_minimisers_move(seed: int) -> None:
    dtypes = [(d, d) for d in DTYPES] + [(torch.float32, torch.float64), (torch.float64, torch.float16)]
    dtype = dtypes[seed % len(dtypes)]
    X, Y, options = problem(seed, dtype)
    certificate = cf.solve(X, Y, progress=False, **options).certificate
    assert certificate.rounding_error is not None
    moved = movement(X, Y, (unit(dtype[0]), unit(dtype[1])), **options)
    assert moved <= ABOVE * certificate.rounding_error
    assert min(certificate.rounding_error, 1.0) <= BELOW * max(moved, *map(unit, dtype))


def test_both_numbers_are_said_and_written() -> None:
    """A kernel of ten points, scikit-learn#6128: its rounding to float32 moves the weights by 3e-4."""
    x = np.linspace(0, 10, 10)[:, None]
    K, y = np.exp(-0.5 * ((x - x.T) / 2) ** 2), 2 * x.ravel()
    exact = cf.solve(K, y).weight.numpy()
    narrow = cf.solve(K.astype(np.float32), y.astype(np.float32))
    moved = np.linalg.norm(narrow.weight.double().numpy() - exact) / np.linalg.norm(exact)
    certificate = narrow.certificate
    assert certificate.rounding_error is not None
    assert moved <= certificate.rounding_error <= 10 * moved
    said = "(estimated error 1.8e-11) for the data as stored, about 3 for data rounded to float32"
    assert "about 10 digits" in str(certificate)
    assert said in str(certificate)
    written = json.loads(json.dumps(narrow.to_dict()))["certificate"]
    assert (written["digits"], written["rounded_digits"], written["rounded_to"]) == (10, 3, "float32")
    assert narrow.metrics()["rounding_error"] == certificate.rounding_error


def test_data_that_are_not_narrow_have_one_number() -> None:
    for X in (torch.arange(6.0, dtype=torch.float64).reshape(3, 2), torch.arange(6).reshape(3, 2)):
        certificate = cf.solve(X, torch.ones(3, dtype=torch.float64)).certificate
        assert certificate.rounded_digits is None
        assert "as stored" not in str(certificate)


def test_nothing_is_said_where_rounding_would_end_a_dependency() -> None:
    X = torch.ones(5, 2)
    assert cf.solve(X, torch.arange(5.0)).certificate.rounded_digits is None


def test_of_targets_with_their_own_strengths_the_worst_counts() -> None:
    X, Y = torch.randn(30, 3, generator=torch.Generator().manual_seed(0)), torch.arange(60.0).reshape(30, 2)
    worst = max(cf.solve(X, Y[:, [j]], l2=l2).certificate.rounding_error or 0.0 for j, l2 in enumerate((1e-3, 10.0)))
    both = cf.solve(X, Y, l2=torch.tensor([1e-3, 10.0])).certificate.rounding_error
    assert both == pytest.approx(worst)
