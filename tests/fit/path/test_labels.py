"""Class labels give the errors of their columns, without the columns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import closedform as cf
from closedform.fit.path.leave_one_out import ErrorSums
from closedform.rows import OneHotRows

ROWS, FEATURES, CLASSES = 3000, 130, 17
STRENGTHS = np.logspace(-1, 4, 7)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, torch.Tensor]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, ROWS)
    X = rng.standard_normal((ROWS, FEATURES)) + 1
    X[np.arange(ROWS), labels] += 2
    X[5] *= 30  # a row of high leverage, which is taken apart
    return X, torch.from_numpy(labels)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_equal_to_columns(data: tuple[np.ndarray, torch.Tensor], bias: bool, weighted: bool) -> None:
    X, labels = data
    rng = np.random.default_rng(1)
    weight = rng.uniform(0.2, 2.0, ROWS) * (rng.uniform(size=ROWS) > 0.1) if weighted else None
    coded = OneHotRows(labels, CLASSES, torch.float64, off=-1.0)
    columns = cf.ridge_path(X, coded.read(0, ROWS), l2=STRENGTHS, bias=bias, sample_weight=weight)
    found = cf.ridge_path(X, coded, l2=STRENGTHS, bias=bias, sample_weight=weight)
    torch.testing.assert_close(found.errors, columns.errors, rtol=1e-10, atol=0)
    assert torch.equal(found.l2, columns.l2)
    torch.testing.assert_close(found.solution.weight, columns.solution.weight, rtol=1e-9, atol=1e-12)
    assert found.solution.certificate.accepted


def test_classes_that_are_told_exactly_fall_back_to_rows() -> None:
    labels = torch.arange(2000) % 16
    X = torch.nn.functional.one_hot(labels, 16).to(torch.float64)
    X = torch.cat([X, torch.randn(2000, 190, dtype=torch.float64, generator=torch.Generator().manual_seed(0))], 1)
    found = cf.ridge_path(X, OneHotRows(labels, 16, torch.float64), l2=[0.01, 0.1])
    columns = cf.ridge_path(X, OneHotRows(labels, 16, torch.float64).read(0, 2000), l2=[0.01, 0.1])
    assert float(columns.errors.max()) < 1e-6
    torch.testing.assert_close(found.errors, columns.errors, rtol=1e-7, atol=0)


def test_a_class_without_rows_does_not_send_the_others_through_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    X, coded = rng.standard_normal((900, 20)), OneHotRows(torch.arange(900) % 16, 17, torch.float64, off=-1.0)
    columns = cf.ridge_path(X, coded.read(0, 900), l2=STRENGTHS, bias=True)
    monkeypatch.setattr(ErrorSums, "add", None)  # what takes the columns of classes row by row
    found = cf.ridge_path(X, coded, l2=STRENGTHS, bias=True)
    assert float(found.errors[:, -1].max()) < 1e-26  # rounding, of any number of threads
    torch.testing.assert_close(found.errors, columns.errors, rtol=1e-10, atol=1e-26)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 3]), "with 3 classes they are 0 to 2"),
        (torch.tensor([-1, 0]), "from -1 to 0"),
        (torch.tensor([0.0, 1.0]), "labels are integers"),
        (torch.tensor([[0, 1]]), r"shape \(1, 2\)"),
        (torch.tensor([True]), "labels are integers"),
    ],
)
def test_what_is_refused(labels: torch.Tensor, message: str) -> None:
    with pytest.raises(cf.ClosedformError, match=message):
        OneHotRows(labels, 3, torch.float64)
