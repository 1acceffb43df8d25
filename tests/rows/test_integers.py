"""Tables of integers and booleans: float64 on every path, and said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import closedform as cf
from closedform.files import open_source
from closedform.fit.plan import METHOD_NAMES
from closedform.words.errors import InputError

RNG = np.random.default_rng(3)
DTYPES = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
SHAPES = [(50, 200), (6, 7), (30, 30), (200, 5), (3000, 60)]


def table(shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    return RNG.integers(0, 2 if dtype == "bool" else 9, shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_integer_type_solves_like_its_float64_copy(shape: tuple[int, int], dtype: str) -> None:
    X, Y = table(shape, dtype), table((shape[0], 2), dtype)
    expected = cf.solve(X.astype(float), Y.astype(float))
    for x, y in ((X, Y), (torch.from_numpy(X), torch.from_numpy(Y)), (X, Y.astype(float))):
        sol = cf.solve(x, y)
        assert sol.outcome is expected.outcome
        assert torch.equal(sol.weight, expected.weight)
        assert any(dtype_said(note, dtype) and "float64" in note for note in sol.notes)


def dtype_said(note: str, dtype: str) -> bool:
    # Wide unsigned integers have no arithmetic in torch and are read as int64.
    return (dtype if dtype in {"bool", "uint8"} or not dtype.startswith("u") else "int64") in note or dtype in note


@pytest.mark.parametrize("method", METHOD_NAMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_method_takes_integers(shape: tuple[int, int], method: str) -> None:
    X, Y = table(shape, "int64"), table((shape[0], 2), "bool")
    weight = RNG.integers(1, 4, shape[0])
    for options in ({}, {"bias": True}, {"l2": 2}, {"sample_weight": weight}, {"digits": 6}):
        try:
            expected = cf.solve(X.astype(float), Y.astype(float), method=method, **options)
        except InputError:  # this method does not serve these shapes
            continue
        assert torch.equal(cf.solve(X, Y, method=method, **options).weight, expected.weight)


def test_integers_in_a_file_are_converted_as_they_are_read(tmp_path: Path) -> None:
    X, Y = table((50, 200), "int16"), table((50,), "int8")
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    sol = cf.solve(open_source(tmp_path / "x.npy"), open_source(tmp_path / "y.npy"))
    assert torch.equal(sol.weight, cf.solve(X.astype(float), Y.astype(float)).weight)


@pytest.mark.parametrize("door", ["fit_", "gap", "diagnose", "compare", "solve_batched"])
def test_every_door_takes_integers(door: str) -> None:
    X, Y = table((8, 20), "int32"), table((8, 2), "uint8")
    layer = torch.nn.Linear(20, 2, bias=False, dtype=torch.float64)
    torch.nn.init.zeros_(layer.weight)
    if door == "fit_":
        cf.fit_(layer, X, Y)
        assert torch.equal(layer.weight, cf.solve(X.astype(float), Y.astype(float)).weight)
    elif door == "gap":
        assert cf.gap(layer, X, Y).loss == cf.gap(layer, X.astype(float), Y.astype(float)).loss
    elif door == "diagnose":
        assert cf.diagnose(X, Y).condition == cf.diagnose(X.astype(float), Y.astype(float)).condition
    elif door == "compare":
        assert (
            cf.compare(X, Y, optimizers=[]).condition
            == cf.compare(X.astype(float), Y.astype(float), optimizers=[]).condition
        )
    else:
        found = cf.solve_batched(X[None], Y[None])
        assert torch.equal(found.weight, cf.solve_batched(X[None].astype(float), Y[None].astype(float)).weight)
