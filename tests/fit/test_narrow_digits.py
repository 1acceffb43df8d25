"""Digits for data narrower than float64: how far exact minimisers move when the data are rounded once more."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

import closedform as cf
from closedform.words.errors import InputError, NonFiniteError
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


def accumulated(X: torch.Tensor, Y: torch.Tensor, *, bias: bool) -> cf.Accumulator:
    parts = [cf.Accumulator(X.shape[-1], Y.shape[-1], bias=bias).fold(x, y) for x, y in zip(X, Y, strict=True)]
    whole = parts[0]
    for part in parts[1:]:
        whole.merge(part)
    return whole


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float32), (torch.bfloat16, torch.float64)])
@pytest.mark.parametrize("bias", [False, True])
def test_accumulated_rows_have_both_numbers(dtypes: tuple[torch.dtype, torch.dtype], bias: bool) -> None:
    rng = np.random.default_rng(3)
    X = torch.tensor(rng.standard_normal((6, 9, 3)) * [1.0, 1e-2, 30.0], dtype=dtypes[0])
    Y = torch.tensor(rng.standard_normal((6, 9, 2)), dtype=dtypes[1])
    acc = accumulated(X, Y, bias=bias)
    rows = cf.solve(X.reshape(-1, 3), Y.reshape(-1, 2), bias=bias).certificate
    wanted = rows.rounding_error
    assert wanted is not None

    again = cf.Accumulator(3, 2, bias=bias).load_state_dict(acc.state_dict())
    by_generator = cf.solve(iter(zip(X, Y, strict=True)), bias=bias)
    for sol in (acc.solve(), again.solve(), by_generator):
        error = sol.certificate.rounding_error
        assert error is not None
        assert wanted / 3 <= error <= 3 * wanted
        assert sol.certificate.rounded_to == rows.rounded_to
        assert "for data rounded to" in str(sol)


def test_rows_of_float64_or_integers_have_one_number() -> None:
    X, Y = torch.arange(12.0, dtype=torch.float64).reshape(6, 2).square(), torch.arange(6)
    acc = cf.Accumulator(2).fold(X, Y)
    assert acc.solve().certificate.rounding_error is None
    assert acc.fold(X.float(), Y).solve().certificate.rounding_error is not None

    before = acc.state_dict()
    with pytest.raises(InputError, match="damaged"):
        cf.Accumulator(2).load_state_dict({**before, "roundoff": torch.tensor([-1.0, 0.0])})
    # States of the first version do not say how the rows were stored.
    del before["roundoff"]
    assert cf.Accumulator(2).load_state_dict(before).solve().certificate.rounding_error is None


def test_a_batch_that_fails_says_nothing_of_how_rows_are_stored() -> None:
    acc = cf.Accumulator(2).fold(torch.eye(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    with pytest.raises(NonFiniteError):
        acc.fold(torch.full((1, 2), torch.nan), torch.ones(1))
    assert acc.solve().certificate.rounding_error is None
