"""Rows that come in several blocks: the answer is that of one block, and errors name the row in the whole table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import closedform as cf
from cases import BY_NAME
from closedform.fit.plan import METHOD_NAMES
from closedform.rows import as_rows, block
from closedform.words.errors import InputError, NonFiniteError
from oracle import (
    minimise,
)
from solved import (
    problem_of,
    solution_of,
)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_CACHED_BYTES", "_PASS_BYTES"):
        monkeypatch.setattr(block, name, 1)
    extent = as_rows(np.zeros((300, 5)), np.zeros(300)).extent
    assert max(extent.cached_rows(), extent.pass_rows) < 100, "these tests are about several blocks"


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("l2", [0.0, 100.0])
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("rank", [5, 3])
def test_rows_read_by_blocks_give_the_same_minimiser(rank: int, bias: bool, weighted: bool, l2: float) -> None:
    rng = np.random.default_rng(11)
    X = rng.integers(-9, 10, (300, rank)) @ rng.integers(-9, 10, (rank, 5)) + 1000.0 * bias
    Y = rng.standard_normal((300, 2))
    weight = rng.integers(0, 3, 300) if weighted else None
    options = {"bias": bias, "l2": l2, "sample_weight": weight}
    exact = minimise(X, Y, **options)
    for method in ("auto", *METHOD_NAMES):
        try:
            sol = cf.solve(X, Y, method=method, **options)
        except InputError:
            assert method != "auto"
            continue
        assert sol.certificate.accepted or method != "auto"
        if sol.certificate.accepted:
            assert sol.certificate.rank == exact.rank
            slack = max(1e-11, sol.certificate.forward_error) * np.abs(exact.weight).max()
            assert_allclose(sol.weight.numpy(), exact.weight, rtol=1e-9, atol=slack)
            assert_allclose(sol.certificate.loss, exact.loss, rtol=1e-12)


@pytest.mark.usefixtures("small_blocks")
def test_a_bad_number_in_a_late_block_is_found_in_its_row() -> None:
    X, Y = np.ones((300, 5)), np.ones(300)
    X[287, 3] = np.nan
    with pytest.raises(NonFiniteError, match=r"column 3.*row 287"):
        cf.solve(X, Y)
    weight = np.ones(300)
    weight[291] = -1.0
    with pytest.raises(InputError, match=r"row 291"):
        cf.solve(np.ones((300, 5)), Y, sample_weight=weight)


def test_a_read_only_memory_map_is_read_in_place(tmp_path: Path) -> None:
    problem, sol = problem_of(BY_NAME["tall with bias"]), solution_of(BY_NAME["tall with bias"])
    np.save(tmp_path / "X.npy", problem.X)
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert torch.equal(cf.solve(X, problem.Y, bias=True).weight, sol.weight)


@pytest.mark.usefixtures("small_blocks")
def test_progress_is_told() -> None:
    told: list[tuple[str, float]] = []
    rng = np.random.default_rng(0)
    cf.solve(rng.standard_normal((300, 5)), rng.standard_normal(300), progress=lambda *args: told.append(args))
    assert {label for label, _ in told} >= {"certifying"}
    assert all(0 <= part <= 1 for _, part in told)
    assert any(0 < part < 1 for _, part in told)
