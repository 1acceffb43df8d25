"""One frame that holds everything: targets and weights by the names of its columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from torch import nn

import closedform as cf
from closedform.words.errors import DataTypeError, InputError

#: A frame of each package, of the same columns.
KINDS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda frame: frame,
    "polars": pl.from_pandas,
    "lazy": lambda frame: pl.from_pandas(frame).lazy(),
    "arrow": pa.Table.from_pandas,
    "records": lambda frame: frame.to_records(index=False),
    "fields": lambda frame: frame.to_records(index=False).view(np.ndarray),
}
#: Those whose columns do not know what they are called.
NAMELESS = ("arrow", "records", "fields")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.standard_normal((40, 3)), columns=["size", "rooms", "age"])
    table["price"] = table @ [3.0, 2.0, 1.0] + rng.standard_normal(40)
    table["rent"] = table["price"] - table["age"]
    table["weight"] = rng.uniform(1, 2, 40)
    return table


@pytest.fixture(scope="module")
def wanted(frame: pd.DataFrame) -> Any:
    return cf.solve(frame[["size", "rooms", "age"]], frame["price"], bias=True, sample_weight=frame["weight"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_is_the_target_and_the_others_are_features(kind: str, frame: pd.DataFrame, wanted: Any) -> None:
    table = KINDS[kind](frame.drop(columns="rent"))
    sol = cf.solve(table, "price", bias=True, sample_weight="weight")
    torch.testing.assert_close(sol.weight, wanted.weight, rtol=1e-12, atol=0)
    torch.testing.assert_close(sol.bias, wanted.bias, rtol=1e-12, atol=0)
    assert "(size, rooms, age) with a bias -> 1 target" + " (price)" * (kind not in NAMELESS) in str(sol)


@pytest.mark.parametrize("kind", KINDS)
def test_several_columns_are_several_targets(kind: str, frame: pd.DataFrame) -> None:
    features = ["size", "rooms", "age"]
    sol = cf.solve(KINDS[kind](frame[[*features, "price", "rent"]]), ["price", "rent"])
    both = cf.solve(frame[features], frame[["price", "rent"]]).weight
    torch.testing.assert_close(sol.weight, both, rtol=1e-12, atol=0)


def test_every_door_takes_them(frame: pd.DataFrame) -> None:
    table, X = frame[["size", "rooms", "age", "price"]], frame[["size", "rooms", "age"]]
    best = cf.solve(X, frame["price"])
    layer = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    cf.fit_(layer, table, "price")
    assert torch.equal(layer.weight, best.weight)
    assert cf.gap(layer, table, "price").excess_loss == cf.gap(layer, X, frame["price"]).excess_loss
    assert cf.diagnose(table, "price").condition == cf.diagnose(X, frame["price"]).condition
    assert torch.equal(cf.ridge_path(table, "price").l2, cf.ridge_path(X, frame["price"]).l2)
    accumulator = cf.Accumulator(3, 1).fold(table[:30], "price").fold(table[30:], "price")
    torch.testing.assert_close(accumulator.solve().weight, best.weight, rtol=1e-12, atol=0)
    raced = cf.compare(table[:30], "price", table[30:], "price", budget=0.1)
    test_error = (
        (cf.solve(X[:30], frame["price"][:30]).predict(X[30:]) - torch.tensor(frame["price"][30:].to_numpy()))
        .abs()
        .mean()
    )
    assert raced.to_dict()["methods"][0]["test_mae"] == pytest.approx(test_error.item(), rel=1e-9)


def test_dask_frames(frame: pd.DataFrame) -> None:
    dask = pytest.importorskip("dask.dataframe")
    table = dask.from_pandas(frame[["size", "rooms", "age", "price"]], npartitions=3)
    best = cf.solve(frame[["size", "rooms", "age"]], frame["price"])
    torch.testing.assert_close(cf.solve(table, "price").weight, best.weight, rtol=1e-12, atol=0)
    assert cf.diagnose(table, "price").condition == pytest.approx(
        cf.diagnose(frame[["size", "rooms", "age"]], frame["price"]).condition
    )


def test_names_that_are_none(frame: pd.DataFrame) -> None:
    with pytest.raises(InputError, match=r"'pric', which is no column of X \(size, rooms, .*\) and no file.*'price'\?"):
        cf.solve(frame, "pric")
    with pytest.raises(InputError, match=r"Y is 'src', which is no column of X"):
        cf.solve(frame, ["price", "src"])
    with pytest.raises(cf.ClosedformError, match=r"X has no column '/dev', or it would be that one"):
        cf.solve(frame, "/dev")
    for empty in (frame[[]], pl.DataFrame()):
        with pytest.raises(InputError, match=r"X is empty: its shape is \((40|0), 0\)"):
            cf.solve(empty, [1.0] * 40)
    with pytest.raises(DataTypeError, match=r"a query that fails.*absent"):
        cf.solve(pl.LazyFrame({"k": [1]}).select("absent"), "k")
    with pytest.raises(InputError, match="all of them are asked for otherwise"):
        cf.solve(frame[["price"]], "price")
    kinds = frame[["size"]].assign(kind="a")
    with pytest.raises(DataTypeError, match=r"column 'kind' of Y .*closedform\.probe\(X, Y\)"):
        cf.solve(kinds, "kind")


def test_a_column_that_is_taken_twice_by_name_is_taken_whole() -> None:
    table = pd.DataFrame([[1.0, 2.0, 3.0], [2.0, 3.0, 5.0]], columns=["a", "y", "y"])
    assert cf.solve(table, "y").weight.shape == (2, 1)
    columns = [table.iloc[:, place].to_numpy() for place in (1, 1, 0)]
    assert cf.solve(pa.table(columns, names=["a", "a", "y"]), "y").weight.shape == (1, 2)


def test_columns_of_several_levels_and_numbered_ones() -> None:
    numbers = np.random.default_rng(0).standard_normal((9, 3))
    levels = pd.MultiIndex.from_tuples([("in", "a"), ("in", "b"), ("out", "y")])
    best = cf.solve(numbers[:, :2], numbers[:, 2]).weight
    for name in (("out", "y"), "out.y", "out", ["out"]):
        sol = cf.solve(pd.DataFrame(numbers, columns=levels), name)
        assert torch.equal(sol.weight, best)
        assert "(in.a, in.b) without a bias -> 1 target (out.y)" in str(sol)
    frame = pd.DataFrame(numbers, columns=levels[:2].append(pd.MultiIndex.from_tuples([("y", "")])))
    assert "(in.a, in.b) without a bias -> 1 target (y)" in str(cf.solve(frame, "y"))
    for label in (2, np.int64(2), "2"):
        assert torch.equal(cf.solve(pd.DataFrame(numbers), label).weight, best)
    for label, data in ((3, pd.DataFrame(numbers)), (2, numbers)):
        with pytest.raises(InputError, match=r"Y is 3, which is no column of X \(0, 1, 2\)|Y has shape \(\)"):
            cf.solve(data, label)


def test_files_beside_a_frame(frame: pd.DataFrame, tmp_path: Any) -> None:
    np.save(tmp_path / "y.npy", frame["price"].to_numpy())
    X = frame[["size", "rooms", "age"]]
    assert torch.equal(cf.solve(X, str(tmp_path / "y.npy")).weight, cf.solve(X, frame["price"]).weight)


def test_an_index_in_an_arrow_table_is_no_feature(frame: pd.DataFrame) -> None:
    labelled = frame[["size", "rooms", "age"]].set_axis(pd.Index(np.arange(100, 140), name="patient"))
    table = pa.Table.from_pandas(labelled)
    sol = cf.solve(table, frame["price"].to_numpy())
    assert sol.weight.shape == (1, 3)
    assert "patient of X left out: pandas wrote it as an index" in sol.notes
    assert cf.solve(table, "age").weight.shape == (1, 2)
    with pytest.raises(InputError, match="indexes of X and Y do not agree"):
        cf.solve(table, pa.Table.from_pandas(labelled[["size"]][::-1]))


def test_names_need_a_frame(frame: pd.DataFrame) -> None:
    with pytest.raises(cf.ClosedformError, match="only where X is a frame or a path, and X is a ndarray"):
        cf.solve(frame.to_numpy(), "price")
