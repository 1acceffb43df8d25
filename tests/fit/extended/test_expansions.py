"""Sums of three doubles by the compiled pass, against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from closedform.engine import compiled
from closedform.engine.choice import engine_for
from closedform.fit.extended import expansions
from closedform.fit.extended.fixed_point import Gradient, gradient
from closedform.fit.extended.preconditioner import from_root
from closedform.fit.extended.refinement import refine
from closedform.fit.extended.tall import Tall
from closedform.fit.problem import Problem
from closedform.numerics.expansion import renormalise
from closedform.numerics.symmetric import mirror
from closedform.rows import Design, as_rows, scan

pytestmark = pytest.mark.skipif(not compiled.available(), reason="no C compiler built the passes here")

U = 2.0**-53


def numbers(rng: np.random.Generator, *shape: int, orders: float) -> torch.Tensor:
    """Numbers over so many powers of ten, in whose sums much cancels."""
    values = rng.standard_normal(shape) * 10.0 ** rng.uniform(-orders, 0, shape)
    return torch.from_numpy(values)


def fractions(values: torch.Tensor) -> list[Fraction]:
    return [Fraction(value) for value in values.double().flatten().tolist()]


def parts(expansion: torch.Tensor) -> Fraction:
    return sum(fractions(expansion), Fraction(0))


@pytest.mark.parametrize(("m", "n", "q"), [(1, 1, 1), (3, 7, 1), (70, 8, 2), (41, 9, 3), (700, 21, 1), (2500, 2, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
def test_sums_lose_the_cube_of_eps(
    m: int, n: int, q: int, dtype: torch.dtype, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(m + n)
    X = numbers(rng, m, n + 2, orders=6).to(dtype)[:, :n]
    Y = numbers(rng, m, q, orders=6).to(dtype)
    V = renormalise(torch.stack([numbers(rng, q, n, orders=3) * U**part for part in range(3)]))
    offset = renormalise(torch.stack([numbers(rng, q, orders=3) * U**part for part in range(3)]))
    scale = 2.0 ** torch.arange(q, dtype=torch.float64)
    weight = numbers(rng, m, orders=6).abs() if weighted else None
    half, ways = m // 2, []
    for threads in (1, 3):
        monkeypatch.setattr(compiled, "_threads", lambda *_, threads=threads: threads)
        sums = torch.zeros(3 * q * (n + 1) + q, dtype=torch.float64)
        for rows in (slice(0, half), slice(half, m)):
            w = None if weight is None else weight[rows]
            engine_for(X).expansion_sums_(sums, X[rows], Y[rows], V, offset, w, scale)
        ways.append((sums[: 3 * q * (n + 1)].view(3, -1), sums[3 * q * (n + 1) :]))
    x, w = [fractions(row) for row in X], [Fraction(1)] * m if weight is None else fractions(weight)
    for j in range(q):
        v = [parts(V[:, j, c]) for c in range(n)]
        residuals, sizes = [], []
        for i in range(m):
            terms = [a * b for a, b in zip(x[i], v, strict=True)]
            y = Fraction(float(Y[i, j])) * Fraction(float(scale[j]))
            residuals.append(w[i] * (y - parts(offset[:, j]) - sum(terms)))
            sizes.append(w[i] * (abs(y) + abs(parts(offset[:, j])) + sum(map(abs, terms))))
        columns = [[x[i][c] for i in range(m)] for c in range(n)] + [[Fraction(1)] * m]
        places = [j * n + c for c in range(n)] + [q * n + j]
        for column, place in zip(columns, places, strict=True):
            exact = sum((a * r for a, r in zip(column, residuals, strict=True)), Fraction(0))
            size = sum((abs(a) * s for a, s in zip(column, sizes, strict=True)), Fraction(0))
            # Far below what is charged, and far below what two doubles could hold.
            for found, _ in ways:
                assert abs(parts(found[:, place]) - exact) <= 50 * Fraction(U) ** 3 * size
        squares = sum((r * r / a for r, a in zip(residuals, w, strict=True) if a), Fraction(0))
        for _, found in ways:
            assert float(found[j]) >= float(squares) * (1 - 1e-12)


def the_problem(condition: float, *, bias: bool, l2: float, weighted: bool, targets: int = 2) -> Problem:
    rng = np.random.default_rng(7)
    left, right = (np.linalg.qr(rng.standard_normal(shape))[0] for shape in ((60, 6), (6, 6)))
    X = (left * np.geomspace(1, 1 / condition, 6)) @ right * 10.0 ** np.arange(6)
    weight = rng.uniform(0, 3, 60) * (rng.uniform(size=60) > 0.2) if weighted else None
    rows = as_rows(X, X[:, :targets] + rng.standard_normal((60, targets)), weight)
    return Problem(Design(rows, scan(rows), bias=bias), l2)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("l2", [0.0, 1e-3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("entries", [1, 2**17], ids=["target by target", "all targets at once"])
def test_the_bound_on_a_gradient_holds(
    bias: bool, l2: float, weighted: bool, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expansions, "_ENTRIES", entries)
    problem = the_problem(1e6, bias=bias, l2=l2, weighted=weighted)
    operand = Tall(problem)
    assert operand.sums_expansions
    p = problem.n_columns
    rng = np.random.default_rng(1)
    z = renormalise(torch.stack([numbers(rng, p, 2, orders=2) * U**part for part in range(3)]))
    found = Gradient(*operand.gradient_in_expansions(z))
    by_slices = gradient(operand, z, 6)
    size = max(float(found.value.abs().max()), 1.0)
    for a, b in zip(found.value.flatten().tolist(), by_slices.value.flatten().tolist(), strict=True):
        assert abs(a - b) <= 250 * U * abs(b) + 1e-30 * size
    assert bool((found.error < 1e-38).all())
    assert bool((found.residual_error < 1e-40).all())
    X, Y = problem.rows.x.read(0, 60), problem.rows.y.read(0, 60)
    w = [Fraction(1)] * 60 if problem.rows.weight is None else fractions(problem.rows.weight.read(0, 60))
    scale, target_scale = fractions(problem.scale), fractions(problem.target_scale)
    rows = [[Fraction(1)] * int(bias) + fractions(row) for row in X]
    rows = [[a * s for a, s in zip(row, scale, strict=True)] for row in rows]
    for j in range(2):
        v = [parts(z[:, c, j]) for c in range(p)]
        y = [value * target_scale[j] for value in fractions(Y[:, j])]
        r = [b - sum(a * c for a, c in zip(row, v, strict=True)) for row, b in zip(rows, y, strict=True)]
        for c in range(p):
            exact = sum((a * row[c] * b for a, row, b in zip(w, rows, r, strict=True)), Fraction(0))
            exact -= (Fraction(l2) * scale[c] ** 2 * v[c]) if c >= int(bias) else 0
            # The exact gradient of the rounded residual is not at hand: both errors count, the second through |A'W|.
            error = float(abs(Fraction(float(found.value[c, j])) - exact))
            assert error <= 130 * U * abs(float(exact)) + float(found.error[j] + 2 * found.residual_error[j])
    foreseen = operand.foreseen_errors(z, torch.full((2,), 1e3, dtype=torch.float64))
    assert bool((foreseen[0] >= found.error).all())


def test_numbers_out_of_range_have_no_bound() -> None:
    problem = the_problem(10.0, bias=False, l2=0.0, weighted=False)
    operand = Tall(problem)
    z = torch.zeros(3, 6, 2, dtype=torch.float64)
    z[0, 3, 0], z[2, 1, 1] = 1e300, 5e-324
    problem.scale[3], problem.scale[1] = 2.0**60, 2.0**-60
    found = Gradient(*operand.gradient_in_expansions(z))
    assert found.error.tolist() == [float("inf")] * 2
    assert not found.value.any()


@pytest.mark.parametrize("condition", [1e1, 1e5, 1e11])
def test_a_rough_triangle_is_enough(condition: float) -> None:
    problem = the_problem(condition, bias=True, l2=0.0, weighted=True)
    operand = Tall(problem)
    noise = torch.rand(7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).triu()
    turn = torch.eye(7, dtype=torch.float64) + 0.1 * noise
    rough = turn @ problem.triangle.R
    found = from_root(operand, rough)
    assert found is not None
    assert found.delta < 0.02
    A = problem.columns.matrix(problem.rows.gather())[0]
    Y = A.numpy().astype(np.longdouble) @ found.T.numpy().astype(np.longdouble)
    assert np.linalg.norm((Y.T @ Y).astype(float) - np.eye(7)) <= found.delta


def test_a_triangle_that_says_nothing_is_refused() -> None:
    operand = Tall(the_problem(1e12, bias=False, l2=0.0, weighted=False))
    assert from_root(operand, torch.zeros(6, 6, dtype=torch.float64)) is None
    assert from_root(operand, torch.diag(torch.logspace(0, 8, 6, dtype=torch.float64)) * 1e-3) is None


def test_where_expansions_do_not_reach_slices_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = the_problem(1e3, bias=False, l2=0.0, weighted=False)
    operand = Tall(problem)
    preconditioner = from_root(operand, problem.triangle.R)
    assert preconditioner is not None
    A, B = problem.columns.matrix(problem.rows.gather())
    start = preconditioner.T @ (preconditioner.T.T @ (A.T @ B))
    monkeypatch.setattr(expansions, "_loss", lambda _: 1e-12)
    monkeypatch.setattr("closedform.fit.extended.refinement._slices", lambda *_, **__: 0)
    found = refine(operand, start, preconditioner.T, preconditioner.delta, 1e-25, measured=True)
    assert bool((found.bound <= 1e-25 * start.abs().amax(0)).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("built", [False, True], ids=["torch", "compiled"])
@pytest.mark.parametrize(("m", "n", "ones"), [(1, 1, True), (300, 7, True), (777, 33, False)])
def test_gram_matrix_of_a_product(
    dtype: torch.dtype, built: bool, m: int, n: int, ones: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not built:
        monkeypatch.setattr(compiled, "library", None)
    generator = torch.Generator().manual_seed(n)
    X, Y, weight = (torch.randn(m, k, dtype=torch.float64, generator=generator) for k in (n, 2, 1))
    root = weight.abs().flatten()
    p = n + int(ones)
    factor = torch.randn(p, p, dtype=torch.float64, generator=generator).triu()
    gram, cross = torch.zeros(p, p, dtype=dtype), torch.zeros(p, 2, dtype=dtype)
    scale = torch.tensor([1.0, 2.0], dtype=torch.float64)
    engine_for(X).normal_equations_(gram, cross, X, Y, scale, row_scale=root, factor=factor, ones=ones)
    A = torch.cat([torch.ones(m, int(ones), dtype=torch.float64), X], 1) @ factor * root.unsqueeze(1)
    B = Y * scale * root.unsqueeze(1)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    size = float((A.T @ A).abs().max())
    torch.testing.assert_close(mirror(gram).double(), A.T @ A, rtol=tolerance, atol=tolerance * size)
    torch.testing.assert_close(cross.double(), A.T @ B, rtol=tolerance, atol=tolerance * size)
