"""Layers that are not plain, and results that have to stay true when their data change or travel."""

from __future__ import annotations

import gc
import math
import pickle
import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import closedform as cf
from closedform.words.errors import DataTypeError, InputError

F64 = torch.float64


def data(
    rows: int = 50, features: int = 4, targets: int = 2, dtype: torch.dtype = F64
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(rows, features, dtype=F64, generator=generator)
    return X.to(dtype), torch.randn(rows, targets, dtype=F64, generator=generator).to(dtype)


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, lambda m: prune.l1_unstructured(m, "weight", 2)])
def test_a_layer_whose_weight_is_computed_is_refused(wrap) -> None:  # type: ignore[no-untyped-def]
    layer = wrap(nn.Linear(4, 2, bias=False, dtype=F64))
    before = layer.weight.detach().clone()
    with pytest.raises(InputError, match="computed from other parameters"):
        cf.fit_(layer, *data())
    assert torch.equal(layer.weight, before)


def test_a_layer_with_shared_memory_is_refused() -> None:
    layer = nn.Linear(4, 2, bias=False, dtype=F64)
    layer.weight = nn.Parameter(torch.zeros(2, 1, dtype=F64).expand(2, 4))
    with pytest.raises(InputError, match="share memory"):
        cf.fit_(layer, *data())


def test_an_inference_bias_leaves_the_weight_alone() -> None:
    layer = nn.Linear(4, 2, dtype=F64)
    with torch.inference_mode():
        layer.bias = nn.Parameter(torch.zeros(2, dtype=F64))
    before = layer.weight.detach().clone()
    with pytest.raises(InputError, match="inference_mode"):
        cf.fit_(layer, *data())
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("narrow", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_rounded_once_to_the_dtype_of_the_layer(narrow: torch.dtype) -> None:
    X, Y = data(dtype=narrow)
    exact = np.linalg.lstsq(X.double().numpy(), Y.double().numpy(), rcond=None)[0].T
    layer = nn.Linear(4, 2, bias=False, dtype=F64)
    sol = cf.fit_(layer, X, Y)
    np.testing.assert_allclose(layer.weight.detach().numpy(), exact, rtol=1e-12, atol=1e-14)
    assert not any("rounded" in note for note in sol.notes)
    assert cf.gap(layer, X, Y).weight_distance < 1e-12


def test_gap_of_a_rounded_layer_is_the_rounding() -> None:
    X, Y = data(dtype=torch.bfloat16)
    layer = nn.Linear(4, 2, bias=False, dtype=torch.bfloat16)
    cf.fit_(layer, X, Y)
    assert 1e-5 < cf.gap(layer, X, Y).weight_distance < 1e-2


def test_a_large_answer_fits_a_wide_layer() -> None:
    X = torch.tensor([[1.0], [2.0]], dtype=torch.float16)
    Y = torch.tensor([3e6, 6e6], dtype=F64)
    with pytest.raises(InputError, match="float16 cannot hold"):
        cf.solve(X, Y)
    layer = nn.Linear(1, 1, bias=False)
    cf.fit_(layer, X, Y)
    assert float(layer.weight.detach()) == pytest.approx(3e6)


def test_a_cut_that_was_asked_for_is_not_called_the_minimum() -> None:
    generator = torch.Generator().manual_seed(0)
    U = torch.linalg.qr(torch.randn(40, 5, dtype=F64, generator=generator)).Q
    V = torch.linalg.qr(torch.randn(5, 5, dtype=F64, generator=generator)).Q
    X = U @ torch.diag(torch.tensor([1, 0.5, 0.3, 1e-9, 1e-9], dtype=F64)) @ V.T
    Y = torch.randn(40, dtype=F64, generator=generator)
    sol = cf.solve(X, Y, rcond=1e-4)
    assert sol.outcome is cf.Outcome.TRUNCATED
    assert sol.certificate.rank == 3
    assert sol.certificate.loss > cf.solve(X, Y).certificate.loss * 1.01
    # The cut is made on scaled columns, which turns the kept directions by about the size of what is cut.
    np.testing.assert_allclose(sol.weight[0], np.linalg.pinv(X.numpy(), rcond=1e-4) @ Y.numpy(), rtol=1e-7)
    # Where nothing but rounding is cut, the minimum is the minimum.
    twice = torch.cat([X[:, :2], X[:, :1]], 1)
    assert cf.solve(twice, Y, rcond=1e-8).outcome is cf.Outcome.CERTIFIED_NOT_UNIQUE


@pytest.mark.parametrize("rcond", ["a", True, -1.0, 1.0, float("nan")])
def test_a_cut_has_to_be_a_number(rcond: object) -> None:
    with pytest.raises(InputError, match="rcond"):
        cf.solve(*data(), rcond=rcond)  # type: ignore[arg-type]


def test_a_cut_of_zero_keeps_everything() -> None:
    X, Y = data()
    sol = cf.solve(X, Y, rcond=0)
    assert sol.outcome is cf.Outcome.CERTIFIED
    assert sol.certificate.rank == 4


def test_per_target_ridge_tells_of_the_worst_group() -> None:
    A = np.random.default_rng(4).normal(size=(30, 4))
    X, Y = np.column_stack([A, A[:, 0]]), np.random.default_rng(5).normal(size=(30, 2))
    sol = cf.solve(X, Y, l2=[0.0, 0.1])
    assert sol.outcome is cf.Outcome.CERTIFIED_NOT_UNIQUE
    assert sol.certificate.rank == 4


def test_weights_beyond_float64_or_float32_are_refused() -> None:
    X, Y = data()
    for big, small in ((1e200, 1e-200), (1e-200, 1e200)):
        with pytest.raises(InputError, match="range of float64"):
            cf.solve(X * big, Y * small)
    with pytest.raises(InputError, match="float32 cannot hold"):
        cf.solve((X * 1e25).float(), (Y * 1e-25).float())
    with pytest.raises(InputError, match="loss is beyond"):
        cf.gap(nn.Linear(4, 2, dtype=F64), X, Y * 1e300)


def test_rank_zero_determines_nothing() -> None:
    assert cf.solve(torch.zeros(4, 2, dtype=F64), torch.ones(4, dtype=F64)).certificate.digits == 0


def test_standard_errors_do_not_follow_later_changes() -> None:
    X, Y = data(rows=3000, features=20, targets=1)
    expected = cf.solve(X.clone(), Y).standard_errors()[0]
    sol = cf.solve(X, Y)
    X.mul_(10)
    torch.testing.assert_close(sol.standard_errors()[0], expected, rtol=1e-12, atol=0)
    kept = pickle.loads(pickle.dumps(sol))
    torch.testing.assert_close(kept.standard_errors()[0], expected, rtol=1e-12, atol=0)


def test_a_solution_keeps_no_rows() -> None:
    X, Y = data(rows=3000, features=20, targets=1)
    seen = [weakref.ref(X), weakref.ref(Y), weakref.ref(X.untyped_storage())]
    sol = cf.solve(X, Y, bias=True)
    del X, Y
    gc.collect()
    assert [reference() for reference in seen] == [None] * 3
    assert len(pickle.dumps(sol)) < 50_000
    assert sol.standard_errors()[0].shape == (1, 20)


def test_where_the_factor_is_rough_standard_errors_ask_for_the_rows() -> None:
    X, Y = data(rows=40000, features=80, targets=1)
    sol = cf.solve(X, Y, method="gram32")
    with pytest.raises(InputError, match=r"pass them once more: standard_errors\(X\)"):
        sol.standard_errors()
    exact = cf.solve(X, Y, method="householder").standard_errors()[0]
    torch.testing.assert_close(sol.standard_errors(X)[0], exact, rtol=1e-10, atol=0)
    with pytest.raises(InputError, match="not those of the fit"):
        sol.standard_errors(2 * X)
    with pytest.raises(InputError, match="not those of the fit"):
        sol.standard_errors(X, torch.full((40000,), 2.0))


@pytest.mark.parametrize("features", [20, 80, 150])
def test_standard_errors_take_the_rows_however_the_fit_has_scanned_them(features: int) -> None:
    X, Y = data(rows=60000, features=features, targets=1)
    exact = cf.solve(X, Y, method="householder").standard_errors()[0]
    torch.testing.assert_close(cf.solve(X, Y).standard_errors(X)[0], exact, rtol=1e-10, atol=0)


def test_solutions_compare_by_identity() -> None:
    sol = cf.solve(*data())
    assert sol == sol
    assert sol != cf.solve(*data())


def test_pandas_columns_of_several_kinds_and_repeated_names() -> None:
    X, Y = data()
    frame = pd.DataFrame(X.numpy(), columns=["a", "b", "a", "c"])
    torch.testing.assert_close(cf.solve(frame, Y).weight, cf.solve(X, Y).weight)
    mixed = pd.DataFrame({"f": X[:, 0].numpy(), "i": np.arange(50), "b": X[:, 1].numpy() > 0})
    plain = cf.solve(np.column_stack([mixed["f"], mixed["i"], mixed["b"].astype(float)]), Y)
    sol = cf.solve(mixed, Y)
    torch.testing.assert_close(sol.weight, plain.weight)
    assert any("converted to float64" in note for note in sol.notes)
    nullable = mixed.convert_dtypes()
    torch.testing.assert_close(cf.solve(nullable, Y).weight, plain.weight)


def test_a_gap_of_summed_squares_is_a_sum() -> None:
    g = torch.Generator().manual_seed(0)
    X, Y = (torch.randn(5, 2, dtype=torch.float64, generator=g) for _ in range(2))
    layer = torch.nn.Linear(2, 2, dtype=torch.float64)
    criterion = torch.nn.MSELoss(reduction="sum")
    found = cf.gap(layer, X, Y, criterion=criterion)
    mean = cf.gap(layer, X, Y)
    assert found.loss == pytest.approx(float(criterion(layer(X), Y).detach()), rel=1e-13)
    assert found.excess_loss == pytest.approx(10 * mean.excess_loss, rel=1e-13)
    assert found.optimal_loss == pytest.approx(10 * mean.optimal_loss, rel=1e-13)


def test_ridge_of_a_gap_is_one_number() -> None:
    layer = nn.Linear(4, 2, bias=False, dtype=F64)
    assert math.isfinite(cf.gap(layer, *data(), l2=[1.0]).excess_loss)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="l2 has 2 values"):
        cf.gap(layer, *data(), l2=[1.0, 2.0])  # type: ignore[arg-type]


def test_eight_bit_floats_are_refused() -> None:
    X, Y = data()
    with pytest.raises(DataTypeError, match="float8"):
        cf.solve(X.to(torch.float8_e4m3fn), Y)


@pytest.mark.parametrize("method", ["dual", "svd"])
@pytest.mark.parametrize("near", [False, True])
def test_a_wide_solution_is_the_nearest_one_by_every_method(method: str, near: bool) -> None:
    """A wrong choice among the minimisers has no residual, so no backward error shows it."""
    X, Y = data(rows=4, features=8)
    layer = nn.Linear(8, 2, dtype=F64)
    start = np.vstack([layer.bias.detach().numpy(), layer.weight.detach().numpy().T])
    A = np.column_stack([np.ones(4), X.numpy()])
    expected = start + np.linalg.pinv(A) @ (Y.numpy() - A @ start)
    if not near:
        centred = X.numpy() - X.numpy().mean(0)
        weight = np.linalg.pinv(centred) @ (Y.numpy() - Y.numpy().mean(0))
        expected = np.vstack([Y.numpy().mean(0) - X.numpy().mean(0) @ weight, weight])
    sol = cf.solve(X, Y, bias=True, nearest_to=layer if near else None, method=method)
    assert sol.outcome is cf.Outcome.CERTIFIED_NOT_UNIQUE
    np.testing.assert_allclose(sol.weight.T, expected[1:], rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(sol.bias, expected[0], rtol=1e-11, atol=1e-13)
