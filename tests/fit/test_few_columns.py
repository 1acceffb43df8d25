"""Many rows of few columns: one read for the scan and the Gram matrix, one for the certificate and the last step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import closedform as cf
from closedform.rows.first_pass import FirstSums
from closedform.words.errors import InputError, NonFiniteError
from covering import parametrize_covering
from data import F64, gaussian

ROWS, COLUMNS = 2**16, 16


def table(targets: int = 2) -> tuple[Tensor, Tensor]:
    X = gaussian(ROWS, COLUMNS) * torch.logspace(-1, 1, COLUMNS, dtype=F64) + 0.5
    return X, X @ gaussian(COLUMNS, targets, seed=1) + gaussian(ROWS, targets, seed=2)


@parametrize_covering(
    2, bias=[False, True], weighted=[False, True], l2=[0.0, 3.0], dtype=[torch.float32, F64], targets=[1, 12]
)
def test_the_rows_are_read_twice(
    walks: list[str], bias: bool, weighted: bool, l2: float, dtype: torch.dtype, targets: int
) -> None:
    X, Y = table(targets)
    X, Y = X.to(dtype), Y.to(dtype)
    options = {"bias": bias, "l2": l2, "sample_weight": gaussian(ROWS, seed=3).abs() if weighted else None}
    sol = cf.solve(X.double(), Y, **options)
    # With a ridge, weights may be short beside their targets, which refinement looks at.
    assert walks == ["FirstSums", "CertificateSums"] if not l2 else walks[0] == "FirstSums"
    assert sol.attempts[-1].method == "gram64"
    assert sol.certificate.accepted

    other = cf.solve(X.double(), Y, **options, method="householder")
    size = float(other.weight.abs().max())
    torch.testing.assert_close(sol.weight, other.weight, rtol=0, atol=1e-13 * size)
    assert sol.certificate.loss == pytest.approx(other.certificate.loss, rel=1e-12)
    assert sol.certificate.r_squared == pytest.approx(other.certificate.r_squared, abs=1e-12)


def test_more_columns_are_read_twice_where_a_read_is_dear(walks: list[str]) -> None:
    X, Y = gaussian(2**14, 100), gaussian(2**14, 1, seed=1)
    batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=1024)
    sol = cf.solve(batches)
    assert walks == ["FirstSums", "CertificateSums"]
    assert sol.certificate.accepted
    torch.testing.assert_close(sol.weight, torch.linalg.lstsq(X, Y).solution.T, rtol=1e-12, atol=1e-14)


def test_what_a_scan_refuses_is_refused() -> None:
    X, Y = table()
    X[1234, 5] = torch.nan
    with pytest.raises(NonFiniteError, match=r"(?s)column 5.*1234"):
        cf.solve(X, Y)
    X, Y = table()
    weight = torch.ones(ROWS, dtype=F64)
    with pytest.raises(InputError, match="row 7;"):
        cf.solve(X, Y, sample_weight=weight.index_fill(0, torch.tensor([7]), -1.0))
    with pytest.raises(InputError, match="zero for every row"):
        cf.solve(X, Y, sample_weight=torch.zeros(ROWS))


@pytest.mark.parametrize("units", [1e-160, 1e160], ids=str)
def test_numbers_whose_squares_leave_the_range_are_scaled_first(walks: list[str], units: float) -> None:
    X, Y = table(1)
    sol = cf.solve(X * units, Y)
    assert sol.certificate.accepted
    assert "NormalEquations" in walks
    torch.testing.assert_close(sol.weight * units, cf.solve(X, Y).weight, rtol=1e-12, atol=1e-13)


def test_columns_that_a_gram_matrix_cannot_hold_are_left_to_others() -> None:
    X, Y = table(1)
    X[:, 3] = X[:, 2] * (1 + 1e-9 * gaussian(ROWS, seed=5))
    sol = cf.solve(X, Y)
    assert sol.attempts[-1].method != "gram64"
    assert sol.certificate.accepted
    assert sol.certificate.rank == COLUMNS
    # Columns that are equal are told as such.
    X[:, 3] = X[:, 2]
    assert cf.solve(X, Y).certificate.undetermined_columns == (2, 3)


def test_no_other_table_is_summed_before_it_is_planned(walks: list[str]) -> None:
    X, Y = table(1)
    cf.solve(X[:1000], Y[:1000])
    cf.solve(X, Y, method="householder")
    cf.solve(X, Y, rcond=1e-10)
    assert FirstSums.__name__ not in walks
