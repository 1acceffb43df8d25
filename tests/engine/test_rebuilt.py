"""The loops built with other sizes: what a proof counts by follows, and its bounds hold."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from closedform.engine import compiled, threads
from closedform.engine.choice import engine_for
from closedform.engine.compiled import Depths, depths
from closedform.fit.extended import expansions
from closedform.fit.extended import tall as tall_module
from closedform.fit.extended.expansions import dot_additions, sum_additions
from closedform.fit.extended.fixed_point import Gradient
from closedform.fit.extended.tall import Tall, gram_additions
from closedform.fit.problem import Problem
from closedform.numerics.expansion import renormalise
from closedform.rows import Design, as_rows, scan

ROOT = Path(__file__).parents[2]
SIZES = {"GROUP": 64, "EXPANSION_GROUP": 16, "DEPTH": 512, "MAX_PARTS": 5, "PART_GROUPS": 3, "MAX_THREADS": 8}
U = 2.0**-53

pytestmark = [
    pytest.mark.skipif(not compiled.available(), reason="no C compiler built the loops here"),
    pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="the sources are not here"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    folder = tmp_path_factory.mktemp("loops")
    flags = " ".join(f"-D{name}={size}" for name, size in SIZES.items())
    # Compiled for a few calls: a third of the time that the usual level takes.
    environment = {**os.environ, "CFLAGS": flags + " -O1 -Wall -Wextra -Werror"}
    command = [
        sys.executable,
        "setup.py",
        "-q",
        "build_ext",
        f"--build-lib={folder}",
        f"--build-temp={folder / 'temp'}",
    ]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    (library,) = folder.glob("closedform/engine/_loops*")
    spec = importlib.util.spec_from_file_location("closedform.engine._loops", library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["as installed", "with other sizes"])
def loops(request: pytest.FixtureRequest, built: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    if request.param == "with other sizes":
        monkeypatch.setattr(compiled, "library", built)
    monkeypatch.setattr(threads, "NUMBERS_FOR_ONE", 100)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    assert compiled.library is not None
    yield compiled.library
    torch.set_num_threads(before)


def test_what_a_proof_counts_by_follows_the_build(built: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = depths(), sum_additions(10**6), gram_additions(3)
    monkeypatch.setattr(compiled, "library", built)
    lanes = built.lanes()
    assert depths() == Depths(group=64, expansion_group=16, packed=512, part_groups=3, parts=5, threads=8, lanes=lanes)
    assert depths() != installed[0]
    # 1024 groups of 64 rows in five parts: 205 at most, of 4 smaller groups each; 16 calls.
    assert sum_additions(10**6) == 16 + 205 * 4 + 5 + 16
    # 512 in registers, 128 times that in a call, 8 threads, 3 calls.
    assert gram_additions(3) == 512 + 128 + 8 + 3
    assert sum_additions(10**6) != installed[1]
    assert gram_additions(3) != installed[2]


def test_a_dot_product_is_spread_over_the_lanes_there_are() -> None:
    assert compiled.library is not None
    widest = dot_additions(1000)
    try:
        assert compiled.library.use_vectors(16) == 16
        assert dot_additions(1000) == 500 + 2 + 4
        assert dot_additions(1000) > widest
    finally:
        compiled.library.use_vectors(compiled.library.WIDEST)


@pytest.mark.parametrize("part_groups", [1, 3, 8])
@pytest.mark.parametrize("parts", [1, 5, 32])
def test_no_part_has_more_rows_than_is_said(part_groups: int, parts: int) -> None:
    split = Depths(10, 10, 10, part_groups, parts, 10, 10)
    largest = 0
    for groups in range(1, 600):
        count = min(max(groups // part_groups, 1), parts)
        largest = max(largest, 10 * max(groups * (i + 1) // count - groups * i // count for i in range(count)))
        assert largest <= split.part_rows(10 * groups)
        assert largest <= split.part_rows(10 * groups - 9)
    assert split.part_rows(6000) <= largest + 20 * part_groups


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("bytes_", [16, 64], ids=["two lanes", "all lanes"])
@pytest.mark.parametrize("rows", [60, 1500])
def test_bounds_on_a_gradient_hold(loops: ModuleType, rows: int, bytes_: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Several calls, so that their sums are seen as well.
    monkeypatch.setattr(expansions, "PASS_ROWS", 512)
    rng = np.random.default_rng(rows)
    X = rng.standard_normal((rows, 3)) * 10.0 ** rng.uniform(-6, 0, (rows, 3))
    table = as_rows(X, X.sum(1) + rng.standard_normal(rows))
    tall = Tall(Problem(Design(table, scan(table), bias=False), 0.0))
    assert tall.sums_expansions
    z = renormalise(torch.stack([torch.from_numpy(rng.standard_normal((3, 1))) * U**part for part in range(3)]))
    try:
        loops.use_vectors(bytes_)
        found = Gradient(*tall.gradient_in_expansions(z))
    finally:
        loops.use_vectors(loops.WIDEST)

    A = [[Fraction(value) for value in row] for row in (table.x.read(0, rows) * tall.problem.scale).tolist()]
    b = [Fraction(value) for value in (table.y.read(0, rows) * tall.problem.target_scale).flatten().tolist()]
    v = [sum(map(Fraction, z[:, c, 0].tolist())) for c in range(3)]
    residuals = [y - sum(a * c for a, c in zip(row, v, strict=True)) for row, y in zip(A, b, strict=True)]
    for c in range(3):
        exact = sum(row[c] * r for row, r in zip(A, residuals, strict=True))
        error = float(abs(Fraction(float(found.value[c, 0])) - exact))
        # The value is a double; the exact gradient of the rounded residual is not at hand, so both errors count.
        assert error <= 130 * U * abs(float(exact)) + float(found.error[0] + found.residual_error[0])
    assert 0 < float(found.error[0]) < 1e-38


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("triangular", [False, True])
def test_bounds_on_a_gram_matrix_hold(triangular: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tall_module, "PASS_ROWS", 600)
    rng = np.random.default_rng(1)
    table = as_rows(np.abs(rng.standard_normal((1300, 4))), rng.standard_normal(1300))
    tall = Tall(Problem(Design(table, scan(table), bias=True), 0.0))
    T = torch.from_numpy(np.triu(rng.uniform(0.5, 1, (5, 5)))) if triangular else None
    answer = tall.gram(T)
    assert answer is not None
    gram, additions = answer

    A = tall.problem.columns.matrix(table.gather())[0]
    exact = A.numpy().astype(np.longdouble) @ np.eye(5) if T is None else A.numpy().astype(np.longdouble) @ T.numpy()
    error = np.abs(np.triu(gram.numpy() - exact.T @ exact)).astype(float)
    # Everything is positive, so that sums of absolute values are the sums; entries of A T have errors of their own.
    assert bool((error <= (additions + 2 * 10) * U * (exact.T @ exact)).all())


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("rows", [1, 63, 700, 3000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_sums_are_the_same_sums(rows: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(rows)
    X, Y = (torch.randn(rows, n, dtype=torch.float64, generator=generator).to(dtype) for n in (21, 5))
    engine = engine_for(X)
    squares, gram, cross = (torch.zeros(*shape, dtype=torch.float64) for shape in ((21,), (21, 21), (21, 5)))
    engine.column_squares_(squares, X)
    engine.normal_equations_(gram, cross, X, Y, torch.ones(5, dtype=torch.float64))
    wide = X.numpy().astype(np.longdouble)
    np.testing.assert_allclose(squares.numpy(), (wide * wide).sum(0).astype(float), rtol=1e-12)
    np.testing.assert_allclose(gram.triu().numpy(), np.triu(wide.T @ wide).astype(float), atol=1e-11)
    np.testing.assert_allclose(cross.numpy(), (wide.T @ Y.numpy()).astype(float), atol=1e-11)
