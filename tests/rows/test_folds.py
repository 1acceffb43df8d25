"""Every fold gives the same sums however the rows are cut, its state does not grow with them, and it knows all rows."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from closedform.explain.landscape import _Largest
from closedform.explain.moments import _TurnedRows
from closedform.explain.spectra import spectrum_of_rows
from closedform.fit.certification.by_probes import LabelProbeSums, ProbeSums
from closedform.fit.certification.sums import CertificateSums, Spread
from closedform.fit.convex.certificate import _ProofSums
from closedform.fit.convex.curvature import HessianSums
from closedform.fit.convex.excess import _ExcessSums
from closedform.fit.convex.orthogonal import _Sums
from closedform.fit.convex.passes import CurvatureGram, HessianProduct, LossSums, RootGram, StartSums, TargetCounts
from closedform.fit.convex.problem import ConvexProblem
from closedform.fit.convex.solving import _MostOutputs
from closedform.fit.convex.stored import StoredSums
from closedform.fit.extended.enclosure import _Nonzeros
from closedform.fit.extended.expansions import _ExpansionSums
from closedform.fit.extended.fixed_point import _FixedPointSums, coefficients
from closedform.fit.extended.preconditioner import _CarefulGram, _CarefulProducts, _RoundedGram
from closedform.fit.extended.tall import Tall, _CompiledGram
from closedform.fit.path.centring import Centring, Means
from closedform.fit.path.folds import TrianglesOfFolds
from closedform.fit.path.label_errors import LabelErrors, WeightBasis
from closedform.fit.path.labels import ClassWeights, Coding, LabelMoments, label_scan
from closedform.fit.path.leave_one_out import ErrorSums, LeftOut
from closedform.fit.path.table import PathTable
from closedform.fit.path.tall import CentredSums
from closedform.fit.problem import Problem
from closedform.fit.weights import Weights
from closedform.losses.huber import Huber
from closedform.losses.poisson import Poisson
from closedform.numerics.triangle import Triangle
from closedform.rows import Design, Fold, OneHotRows, Rows, as_rows, scan
from closedform.rows.accumulated import Accumulated
from closedform.rows.block import Extent
from closedform.rows.columns import Columns
from closedform.rows.first_pass import FirstSums
from closedform.rows.folds import Dependence, NormalEquations, ResidualSums, RowsApart, SketchedRows, TriangleOfRows
from closedform.rows.norms import _ColumnSquares, _Peaks, _ScaledSquares
from covering import parametrize_covering
from walkers import Parts

P, K = 6, 3
#: Few enough that a part for each of them is quick.
ROWS = 120
#: More than any target of the table, cut to a whole number.
CLASSES = 14


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def table(rows: int = ROWS, *, weighted: bool = True) -> Rows:
    weight = (gaussian(rows, seed=3).abs() * (gaussian(rows, seed=4) > -1)) if weighted else None
    return as_rows(gaussian(rows, P - 1) + 2, gaussian(rows, K, seed=1) + 7, weight)


def problem_of(rows: Rows) -> Problem:
    return Problem(Design(rows, scan(rows), bias=True), 0.5)


def _empty(problem: Problem) -> Triangle:
    design = problem.design
    return Triangle.empty(P, K, exponents=design.exponents, target_exponents=design.target_exponents, has_ones=True)


def _expansions(columns: int) -> Tensor:
    return torch.stack([gaussian(columns, K, seed=part) * 2.0 ** (-53 * part) for part in range(3)])


def _path(problem: Problem) -> PathTable:
    return PathTable(problem.rows, problem.scanned, bias=True, kernel=False)


def _left_out(problem: Problem) -> ErrorSums:
    path = _path(problem)
    basis = path.basis(None)
    left_out = LeftOut(basis, torch.logspace(-2, 2, 4, dtype=torch.float64))
    return ErrorSums(left_out, path.centring_of(basis), absolute=False)


def _by_classes(problem: Problem) -> tuple[LeftOut, Centring, Coding]:
    """Take the first target, cut to whole numbers, for labels."""
    rows = problem.rows
    labels = OneHotRows(rows.y.read(0, rows.n_rows)[:, 0].to(torch.int64), CLASSES, torch.float64)
    coded = replace(rows, y=labels)
    path = PathTable(coded, label_scan(coded, labels), bias=True, kernel=False)
    basis = path.basis(None)
    centring = path.centring_of(basis)
    return LeftOut(basis, torch.logspace(-2, 2, 4, dtype=torch.float64)), centring, Coding.of(labels, centring)


def _label_errors(problem: Problem) -> LabelErrors:
    left_out, centring, coding = _by_classes(problem)
    return LabelErrors(left_out, centring, coding, WeightBasis.of(left_out.basis, left_out), double=False)


def _of_folds(problem: Problem) -> TrianglesOfFolds:
    return TrianglesOfFolds(problem.columns, _empty(problem), torch.arange(problem.rows.n_rows) % 3, 3)


def _order(problem: Problem) -> Tensor:
    return torch.arange(1, problem.rows.n_rows, 3)


def _dependence(problem: Problem) -> Dependence:
    chosen, others = torch.tensor([0, 2, 5]), torch.tensor([1, 3, 4])
    return Dependence(problem.columns, chosen, others, gaussian(3, 3), _order(problem))


def _layer(seed: int) -> Weights:
    return Weights(gaussian(K, P - 1, seed=seed), gaussian(K, seed=seed))


#: Convex, and curved wherever the targets are.
HUBER = Huber(100.0, averages=True)


def _convex(problem: Problem) -> ConvexProblem:
    return ConvexProblem(problem.rows, HUBER, problem.columns, K, (0.0,) * K)


#: How each fold is made. A new one needs its line here; the test below finds those that have none.
MAKERS: dict[type[Fold], Callable[[Problem], Fold]] = {
    _ColumnSquares: lambda p: _ColumnSquares(P - 1, K, p.rows.device),
    _Peaks: lambda p: _Peaks(P - 1 + K, p.rows.device),
    _ScaledSquares: lambda p: _ScaledSquares(torch.full((P - 1 + K,), 3), 2.0),
    ResidualSums: lambda p: ResidualSums(
        p.columns, gaussian(P - 1, K + 1), gaussian(K + 1), targets=True, groups=(range(K),)
    ),
    FirstSums: lambda p: FirstSums(P - 1, K, p.rows.device),
    NormalEquations: lambda p: NormalEquations(p.columns, torch.float64, order=_order(p)),
    Accumulated: lambda p: Accumulated(P - 1, K),
    TriangleOfRows: lambda p: TriangleOfRows(p.design.columns, _empty(p)),
    SketchedRows: lambda p: SketchedRows(p.columns, 20, 5),
    Dependence: _dependence,
    Spread: lambda p: Spread(p.columns, gaussian(K)),
    Means: lambda p: Means(P - 1, 0.5, torch.full((K,), 0.25, dtype=torch.float64)),
    CentredSums: lambda p: CentredSums(_path(p).centring, P - 1),
    ErrorSums: _left_out,
    ClassWeights: lambda p: ClassWeights(CLASSES, p.rows.device),
    LabelMoments: lambda p: LabelMoments(_by_classes(p)[1], P - 1, CLASSES),
    LabelErrors: _label_errors,
    TrianglesOfFolds: _of_folds,
    RowsApart: lambda problem: RowsApart(problem.columns, _empty(problem), torch.tensor([3, ROWS // 2, ROWS - 1])),
    CertificateSums: lambda p: CertificateSums(
        p.columns, gaussian(P - 1, K), gaussian(K), gaussian(P, 2), gaussian(K), (range(K),)
    ),
    ProbeSums: lambda p: ProbeSums(p.columns, gaussian(P, 2), gaussian(K)),
    LabelProbeSums: lambda p: LabelProbeSums(Columns(True, p.columns.scale, gaussian(CLASSES)), gaussian(P, 2)),
    _ExpansionSums: lambda p: _ExpansionSums(p, _expansions(P)),
    _CompiledGram: lambda p: _CompiledGram(p, None),
    _FixedPointSums: lambda p: _FixedPointSums(Tall(p), coefficients(_expansions(P), Tall(p).peaks, Tall(p).graded, 3)),
    _RoundedGram: lambda p: _RoundedGram(Tall(p), gaussian(P, P).triu()),
    _CarefulGram: lambda p: _CarefulGram(
        _CarefulProducts(Tall(p), gaussian(P, P).triu(), 2.0**-60 * gaussian(P, P, seed=1).triu())
    ),
    _Nonzeros: _Nonzeros,
    TargetCounts: lambda p: TargetCounts(HUBER, K, p.rows.device),
    LossSums: lambda p: LossSums(HUBER, p.columns, gaussian(P, K)),
    HessianProduct: lambda p: HessianProduct(HUBER, p.columns, gaussian(P, K), gaussian(P, K, seed=1)),
    CurvatureGram: lambda p: CurvatureGram(HUBER, p.columns, gaussian(P, K)),
    RootGram: lambda p: RootGram(p.columns, gaussian(p.rows.n_rows, seed=5).abs()),
    StartSums: lambda p: StartSums(Poisson(full=False, averages=True), p.columns, K),
    _ProofSums: lambda p: _ProofSums(HUBER, p.columns, gaussian(P, K), K),
    _ExcessSums: lambda p: _ExcessSums(HUBER, _layer(0), _layer(1), _layer(2)),
    HessianSums: lambda p: HessianSums(HUBER, _layer(0)),
    StoredSums: lambda p: StoredSums(HUBER, _layer(0)),
    _Sums: lambda p: _Sums(_convex(p), HUBER, gaussian(P, K), gaussian(P, P - 2), exactly=True, bound=True),
    _MostOutputs: lambda p: _MostOutputs(HUBER),
    _Largest: lambda p: _Largest(),
    _TurnedRows: lambda p: _TurnedRows(p.rows, spectrum_of_rows(p.rows, bias=True, l2=0.0)),
}
#: Their state grows with the rows, up to a bound of its own.
SAMPLES = (_TurnedRows,)
#: What they draw depends on how the rows are cut, so that only the law of the state is the same.
RANDOM = (SketchedRows,)
#: How many calls or mergers there were is part of their state: what bounds on rounding count with.
COUNTED = (_ExpansionSums, _CompiledGram, _FixedPointSums, _RoundedGram, _CarefulGram)

EVERY_FOLD = pytest.mark.parametrize("kind", MAKERS, ids=lambda kind: kind.__name__)


def kinds(base: type[Fold]) -> set[type[Fold]]:
    found = set()
    for kind in base.__subclasses__():
        found |= kinds(kind)
        if not inspect.isabstract(kind) and kind.__module__.startswith("closedform."):
            found.add(kind)
    return found


def test_every_fold_is_tried_here() -> None:
    assert kinds(Fold) == set(MAKERS)


def answers(kind: type[Fold], fold: Fold) -> tuple[Tensor, ...]:
    """Return the state, as far as it does not depend on signs, draws or counts."""
    if isinstance(fold, TriangleOfRows | Accumulated):
        triangle = fold.whole() if isinstance(fold, Accumulated) else fold.triangle
        R, C = triangle.R, triangle.C
        return R.T @ R, R.T @ C, triangle.residual_squares
    if isinstance(fold, RowsApart):
        R, C = fold.triangle.R, fold.triangle.C
        return fold.A, fold.B, fold.weight, R.T @ R, R.T @ C, fold.triangle.residual_squares
    if isinstance(fold, TrianglesOfFolds):
        return tuple(part for one in fold.triangles for part in (one.R.T @ one.R, one.R.T @ one.C))
    if isinstance(fold, CentredSums | LabelMoments):
        return fold.sums()[0].triu(), *fold.sums()[1:]
    if isinstance(fold, LabelErrors):
        return (fold.errors()[0],)
    state = fold.state()
    if kind in COUNTED:
        state = state[:-1]
    if isinstance(fold, NormalEquations):
        return fold.gram.triu(), *state[1:]
    if isinstance(fold, FirstSums):
        return fold.products.gram.triu(), *state[1:]
    if isinstance(fold, CurvatureGram | RootGram):
        return (fold.gram.triu(),)
    if isinstance(fold, StartSums):
        return fold.gram.triu(), fold.right
    if isinstance(fold, _ProofSums):
        return fold.numbers, fold.gradient, fold.errors, fold.grams.triu(), fold.peak
    if isinstance(fold, _CompiledGram | _RoundedGram | _CarefulGram):
        return (fold.gram.triu(),)
    if isinstance(fold, _ExpansionSums):
        return fold.gradient.sum(0), fold.squares
    if isinstance(fold, _FixedPointSums):
        return fold.value.sum(0), fold.absolute
    return state


@cache
def whole_of(kind: type[Fold], weighted: bool) -> tuple[Problem, Fold]:
    problem = problem_of(table(weighted=weighted))
    return problem, problem.rows.walk(MAKERS[kind](problem))


@parametrize_covering(
    2,
    name=[kind.__name__ for kind in MAKERS if kind not in RANDOM],
    parts=[2, 7, ROWS, ROWS + 50],
    weighted=[False, True],
)
def test_any_cut_gives_the_same(name: str, parts: int, weighted: bool) -> None:
    kind = next(kind for kind in MAKERS if kind.__name__ == name)
    problem, whole = whole_of(kind, weighted)
    split = replace(problem.rows, walker=Parts(parts)).walk(MAKERS[kind](problem))
    for one, other in zip(answers(kind, whole), answers(kind, split), strict=True):
        size = float(one.abs().max()) if one.numel() else 1.0
        torch.testing.assert_close(other, one, rtol=0, atol=1e-12 * size)


@pytest.mark.parametrize("chosen", [(0, 2, 5), (1, 4), (0,)])
def test_normal_equations_of_some_columns_are_those_of_all(chosen: tuple[int, ...]) -> None:
    problem, columns = problem_of(table()), torch.tensor(chosen)
    whole = problem.rows.walk(NormalEquations(problem.columns, torch.float64))
    some = problem.rows.walk(NormalEquations(problem.columns, torch.float64, chosen=columns))
    torch.testing.assert_close(some.gram.triu(), whole.gram.triu()[columns][:, columns], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(some.cross, whole.cross[columns], rtol=1e-13, atol=1e-12)
    torch.testing.assert_close(some.fresh().applied, whole.applied[columns])


@pytest.mark.parametrize("parts", [1, 3])
def test_a_sketch_keeps_lengths_however_it_is_cut(parts: int) -> None:
    problem = problem_of(table(4000))
    sketched = replace(problem.rows, walker=Parts(parts)).walk(SketchedRows(problem.columns, 400, 5))
    A, _ = sketched.matrix(problem.scale)
    exact, _ = problem.columns.matrix(problem.rows.gather())
    values = torch.linalg.svdvals(A @ torch.linalg.inv(torch.linalg.qr(exact).R))
    assert 0.7 < float(values.min()) < float(values.max()) < 1.3


@EVERY_FOLD
def test_the_same_cut_gives_the_same_bits(kind: type[Fold]) -> None:
    problem = problem_of(table())
    rows = replace(problem.rows, walker=Parts(5))
    first, second = (rows.walk(MAKERS[kind](problem)).state() for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


@EVERY_FOLD
def test_the_size_of_a_state_does_not_depend_on_the_rows(kind: type[Fold]) -> None:
    shapes: list[Any] = []
    for count in (40, 400):
        problem = problem_of(table(count))
        shapes.append([tensor.shape for tensor in problem.rows.walk(MAKERS[kind](problem)).state()])
    if kind in SAMPLES:
        assert shapes[1][0][0] <= 400
    else:
        assert shapes[0] == shapes[1]


@EVERY_FOLD
def test_a_fresh_fold_has_seen_nothing(kind: type[Fold]) -> None:
    problem = problem_of(table())
    used = problem.rows.walk(MAKERS[kind](problem))
    again = problem.rows.walk(used.fresh())
    for one, other in zip(used.state(), again.state(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("in_memory", [True, False])
def test_blocks_of_many_targets_are_no_larger_than_those_of_many_columns(in_memory: bool) -> None:
    problem = problem_of(as_rows(gaussian(40, P - 1), gaussian(40, 1000, seed=1)))
    extent = Extent(10**7, P - 1, 1000, in_memory)
    empty = Triangle.empty(P, 1000, has_ones=True)
    most = 2**20 if in_memory else 2**23
    assert extent.cached_rows() * 1000 <= most
    for fold in (TriangleOfRows(problem.columns, empty), TrianglesOfFolds(problem.columns, empty, torch.zeros(1), 3)):
        assert fold.rows_at_a_time(extent) * 1000 <= 2**20
