"""Many rows of more columns: the scan and a Gram matrix in single precision from one read, where a sample allows it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import closedform as cf
from closedform.engine import compiled
from closedform.engine.choice import engine_for
from closedform.rows import as_rows, scan, scan_and_sum
from closedform.words.errors import NonFiniteError
from covering import parametrize_covering
from data import F64, gaussian

needs_kernels = pytest.mark.skipif(not compiled.available(), reason="no C compiler built the passes here")

#: More columns than are summed up in double precision, and rows that make the read worth sparing.
ROWS, COLUMNS = 8192, 140


def table(targets: int = 2) -> tuple[Tensor, Tensor]:
    X = gaussian(ROWS, COLUMNS) * torch.logspace(-1, 1, COLUMNS, dtype=F64) + 0.1
    return X, X @ gaussian(COLUMNS, targets, seed=1) + gaussian(ROWS, targets, seed=2)


def lapack(X: Tensor, Y: Tensor, *, bias: bool = False, l2: float = 0.0) -> Tensor:
    """The minimiser by LAPACK in float64, ``(columns, targets)``, the bias last."""
    X, Y = X.double(), Y.double()
    ridge = l2**0.5 * torch.eye(X.shape[1], X.shape[1] + bias, dtype=F64)
    if bias:
        X = torch.cat([X, X.new_ones(X.shape[0], 1)], 1)
    if l2:
        X, Y = torch.cat([X, ridge]), torch.cat([Y, Y.new_zeros(ridge.shape[0], Y.shape[1])])
    return torch.linalg.lstsq(X, Y, driver="gelsd").solution


def stacked(sol: Any) -> Tensor:
    weight = sol.weight.T.double()
    return weight if sol.bias is None else torch.cat([weight, sol.bias.double().unsqueeze(0)])


@needs_kernels
@parametrize_covering(
    2,
    bias=[False, True],
    l2=[0.0, 3.0],
    dtype=[torch.float32, F64],
    targets=[1, 12],
    strided=[False, True],
    progress=[False, True],
)
def test_the_rows_are_scanned_and_multiplied_in_one_read(
    walks: list[str], bias: bool, l2: float, dtype: torch.dtype, targets: int, strided: bool, progress: bool
) -> None:
    X, Y = table(targets)
    X, Y = X.to(dtype), Y.to(dtype)
    told: list[float] = []
    watcher = (lambda label, part: told.append(part)) if progress else None
    taken = torch.cat([X, X], 1).view(2 * ROWS, COLUMNS)[::2] if strided else X
    sol = cf.solve(taken, Y, bias=bias, l2=l2, progress=watcher)
    assert walks[:2] == ["NormalEquations", "FirstSums"]
    # Of all rows nothing else is multiplied, and none is scanned again.
    assert not {"NormalEquations", "_ColumnSquares"} & {*walks[2:]}
    assert sol.attempts[-1].method == "gram32"
    assert sol.plan.facts.summed == ("float32",)
    assert sol.certificate.accepted
    assert 1.0 in told if progress else not told

    exact = lapack(X, Y, bias=bias, l2=l2)
    near = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(stacked(sol), exact, rtol=near, atol=near * float(exact.abs().max()))


@needs_kernels
def test_what_a_scan_tells_is_what_the_scan_alone_does() -> None:
    X, Y = table(3)
    X[:, 5], X[:, 6] = 0.0, 1e-150 * X[:, 6]
    for rows in (as_rows(X, Y), as_rows(X, Y, gaussian(ROWS, seed=4).relu())):
        alone, (beside, first) = scan(rows), scan_and_sum(rows, torch.float32)
        assert first.products.gram.dtype == torch.float32
        # Rounding of the roots of the weights; the sums are those of the same groups of rows, in another order.
        for name in ("feature_norms", "feature_sums", "target_norms", "target_means"):
            size = float(alone.feature_norms.max()) * ROWS**0.5
            torch.testing.assert_close(getattr(beside, name), getattr(alone, name), rtol=1e-13, atol=1e-15 * size)
        assert (beside.weight_sum, beside.positive_rows) == (alone.weight_sum, alone.positive_rows)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("row", [0, 1234, ROWS - 1])
@pytest.mark.parametrize("of_target", [False, True], ids=["of X", "of Y"])
def test_numbers_that_are_not_finite_are_refused_wherever_they_stand(value: float, row: int, of_target: bool) -> None:
    X, Y = table()
    (Y if of_target else X)[row, 1] = value
    with pytest.raises(NonFiniteError, match=f"(?s)column 1.*row {row};"):
        cf.solve(X, Y)


@needs_kernels
@pytest.mark.parametrize(("of_X", "of_Y"), [(1e150, 1.0), (1e-150, 1.0), (1.0, 1e150), (1.0, 1e-150)], ids=str)
def test_units_that_leave_single_precision_are_scaled_first(walks: list[str], of_X: float, of_Y: float) -> None:
    X, Y = table(1)
    unit = torch.ones(COLUMNS, dtype=F64).index_fill(0, torch.tensor([3, 77]), of_X)
    sol = cf.solve(X * unit, Y * of_Y)
    assert sol.certificate.accepted
    # The products that were found on the way are not used.
    assert "NormalEquations" in walks[1:]
    exact = lapack(X, Y)
    torch.testing.assert_close(stacked(sol) * unit.unsqueeze(1) / of_Y, exact, rtol=1e-11, atol=1e-12)


@needs_kernels
@pytest.mark.parametrize("rows", [slice(0, 2000), slice(4001, 4002), slice(ROWS - 1, ROWS)], ids=str)
def test_rows_unlike_the_others_do_not_fool_anything(rows: slice) -> None:
    X, Y = table(1)
    X[rows] *= 1e9
    sol = cf.solve(X, Y)
    assert sol.certificate.accepted
    householder = cf.solve(X, Y, method="householder")
    assert sol.certificate.loss == pytest.approx(householder.certificate.loss, rel=1e-9)
    X, Y = table(1)
    X[rows] = X[rows][:, :1]
    exact = lapack(X, Y)
    torch.testing.assert_close(stacked(cf.solve(X, Y)), exact, rtol=1e-11, atol=1e-12 * float(exact.abs().max()))


@pytest.mark.parametrize("value", [0.0, 3.0], ids=["empty", "constant"])
@pytest.mark.parametrize("bias", [False, True], ids=["without a bias", "with a bias"])
def test_a_column_of_one_value_is_told_as_one(value: float, bias: bool) -> None:
    X, Y = table(1)
    X[:, 7] = value
    sol = cf.solve(X, Y, bias=bias)
    assert sol.certificate.accepted
    assert sol.certificate.rank == COLUMNS + bias - (bias or value == 0.0)


@needs_kernels
def test_columns_that_depend_in_rows_beyond_the_sample_are_left_to_others(walks: list[str]) -> None:
    X, Y = table(1)
    X[:, 3] = X[:, 2]
    # The sample is of so few rows that it holds at most one of these.
    X[::4001, 3] += 1.0
    sol = cf.solve(X, Y)
    assert "FirstSums" not in walks
    assert sol.certificate.accepted
    assert sol.certificate.rank == COLUMNS


@needs_kernels
def test_other_tables_are_scanned_first(walks: list[str]) -> None:
    X, Y = table(1)
    ill = (
        X
        @ (gaussian(COLUMNS, COLUMNS, seed=5) * torch.logspace(0, -6, COLUMNS, dtype=F64))
        @ gaussian(COLUMNS, COLUMNS, seed=6)
    )
    for options, given in (
        ({}, ill),
        ({}, X.T.contiguous().T),
        ({}, X[:2000]),
        ({}, X.half()),
        ({"sample_weight": torch.ones(ROWS)}, X),
        ({"method": "householder"}, X),
        ({"method": "gram64"}, X),
        ({"rcond": 1e-10}, X),
    ):
        walks.clear()
        sol = cf.solve(given, Y[: len(given)], **options)
        assert "FirstSums" not in walks, options
        assert sol.certificate.accepted


@needs_kernels
def test_several_strengths_share_the_read(walks: list[str]) -> None:
    X, Y = table(4)
    sol = cf.solve(X, Y, l2=[0.0, 1.0, 1.0, 50.0])
    assert walks.count("FirstSums") == 1
    assert walks.count("NormalEquations") == 1
    for target, l2 in enumerate([0.0, 1.0, 1.0, 50.0]):
        exact = lapack(X, Y[:, target : target + 1], l2=l2)
        torch.testing.assert_close(sol.weight[target : target + 1].T, exact, rtol=1e-11, atol=1e-13)


@needs_kernels
def test_a_watcher_may_stop_the_read() -> None:
    X, Y = table(1)

    def stop(label: str, part: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cf.solve(X, Y, progress=stop)
    assert cf.solve(X, Y).certificate.accepted


def test_parts_of_the_rows_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    X, Y = table(2)
    rows = as_rows(X, Y)
    whole = scan_and_sum(rows, torch.float32)[1]
    cuts = [0, 1, 700, 5000, ROWS]
    sums = whole.fresh()
    for start, stop in itertools.pairwise(cuts):
        part = whole.fresh()
        part.add(rows.block(start, stop, as_stored=True, unweighted=True))
        sums.merge(part)
    assert sums.products.rows == ROWS
    for mine, theirs in zip(sums.state(), whole.state(), strict=True):
        torch.testing.assert_close(
            mine.triu() if mine.dim() == 2 else mine,
            theirs.triu() if theirs.dim() == 2 else theirs,
            rtol=1e-4,
            atol=1e-2,
        )
    assert engine_for(X).sums_while_multiplying == compiled.available()
