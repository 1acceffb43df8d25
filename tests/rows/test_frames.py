"""Frames and columns of pandas, Polars and Arrow: the same numbers as their NumPy arrays, or a refusal by column."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet  # used as pa.parquet
import pytest
import torch

import closedform as cf
from closedform.files.opening import open_source
from closedform.rows.labels import column_names
from closedform.rows.tensors import as_tensor
from closedform.words.errors import ClosedformError, DataTypeError, InputError

COLUMNS = {"a": [1, 2, 4, 7], "b": [0.5, 1.5, -2.0, 8.0], "c": [True, False, False, True]}
NUMBERS = np.array([COLUMNS["a"], COLUMNS["b"], COLUMNS["c"]], dtype=float).T
TARGET = [1.0, 3.0, 2.0, 9.0]


class Frame(pd.DataFrame):
    """A subclass that lives in another module, as geopandas' does."""

    @property
    def _constructor(self) -> Any:
        return Frame


Frame.__module__ = "elsewhere"


class Stream:
    """A table of a library that is not known here, which exports itself by Arrow's C interface."""

    def __init__(self, table: Any) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)


FRAMES: dict[str, Callable[[], Any]] = {
    "pandas": lambda: pd.DataFrame(COLUMNS),
    "pandas, nullable": lambda: pd.DataFrame(COLUMNS).convert_dtypes(),
    "pandas, Arrow": lambda: pd.DataFrame(COLUMNS).convert_dtypes(dtype_backend="pyarrow"),
    "pandas, a subclass": lambda: Frame(COLUMNS),
    "pandas, sparse": lambda: pd.DataFrame(COLUMNS).astype({"a": pd.SparseDtype(np.int64, 0)}),
    "pandas, several levels": lambda: pd.DataFrame(COLUMNS).set_axis(
        pd.MultiIndex.from_tuples([("u", "a"), ("u", "b"), ("v", "c")]), axis=1
    ),
    "pandas, labels that repeat": lambda: pd.DataFrame(COLUMNS).set_axis(["a", "a", "c"], axis=1),
    "Polars": lambda: pl.DataFrame(COLUMNS),
    "Polars, lazy": lambda: pl.LazyFrame(COLUMNS),
    "Polars, wide integers": lambda: pl.DataFrame(COLUMNS).with_columns(pl.col("a").cast(pl.Int128)),
    "Polars, decimals": lambda: pl.DataFrame(COLUMNS).with_columns(pl.col("b").cast(pl.Decimal(10, 2))),
    "Arrow table": lambda: pa.table(COLUMNS),
    "Arrow batch": lambda: pa.record_batch(COLUMNS),
    "Arrow chunks": lambda: pa.concat_tables([pa.table(COLUMNS)[:1], pa.table(COLUMNS)[1:]]),
    "Arrow decimals": lambda: pa.table(
        {**COLUMNS, "b": pa.array([Decimal(str(value)) for value in COLUMNS["b"]], pa.decimal128(8, 2))}
    ),
    "Arrow stream": lambda: Stream(pa.table(COLUMNS)),
    "Arrow structs": lambda: pa.table(COLUMNS).to_struct_array(),
}


@pytest.mark.parametrize(
    "kind", [pa.decimal128(9, 2), pa.decimal256(60, 2), pa.list_(pa.decimal128(9, 2)), "pandas", "Polars", "file"]
)
def test_decimals_are_the_nearest_floats(kind: Any, tmp_path: Path) -> None:
    cents = [Decimal(k).scaleb(-2) for k in range(-700, 700)]
    if isinstance(kind, str):
        table = pa.table({"price": pa.array(cents, pa.decimal128(9, 2))})
        if kind == "file":
            pa.parquet.write_table(table, tmp_path / "prices.parquet")
            read = open_source(tmp_path / "prices.parquet").read(0, len(cents))
        else:
            frame = table.to_pandas(types_mapper=pd.ArrowDtype) if kind == "pandas" else pl.from_arrow(table)
            read = as_tensor(frame, "X")[0]
    else:
        rows = [[each] for each in cents] if pa.types.is_list(kind) else cents
        read = as_tensor(pa.table({"price": pa.array(rows, kind)}), "X")[0]
    assert read.reshape(-1).tolist() == [float(each) for each in cents]


@pytest.mark.parametrize("kind", FRAMES)
def test_every_frame_holds_its_numbers(kind: str) -> None:
    tensor, notes = as_tensor(FRAMES[kind](), "X")
    assert tensor.dtype == torch.float64
    np.testing.assert_array_equal(tensor.numpy(), NUMBERS)
    assert any("X has columns of" in note and "float64" in note for note in notes)
    # Columns of a frame stand one after the other, which sums may be taken over in another order.
    torch.testing.assert_close(
        cf.solve(FRAMES[kind](), TARGET).weight, cf.solve(NUMBERS, TARGET).weight, rtol=1e-13, atol=0.0
    )


WHOLE = [1, 2, 4, 7]
SERIES: dict[str, Callable[[], Any]] = {
    "pandas": lambda: pd.Series(WHOLE, name="y"),
    "pandas index": lambda: pd.Index(WHOLE),
    "pandas nullable array": lambda: pd.array(WHOLE, dtype="Int64"),
    "pandas nullable booleans": lambda: pd.array([True, False, False, True], dtype="boolean"),
    "pandas Arrow array": lambda: pd.DataFrame({"y": WHOLE}).convert_dtypes(dtype_backend="pyarrow")["y"].array,
    "pandas plain array": lambda: pd.Series(WHOLE).array,
    "pandas sparse array": lambda: pd.arrays.SparseArray(WHOLE),
    "Polars": lambda: pl.Series(WHOLE),
    "Polars wide integers": lambda: pl.Series(WHOLE, dtype=pl.Int128),
    "Polars unsigned": lambda: pl.Series(WHOLE, dtype=pl.UInt64),
    "Polars booleans": lambda: pl.Series([True, False, False, True]),
    "Arrow array": lambda: pa.array(WHOLE),
    "Arrow chunks": lambda: pa.chunked_array([[1, 2], [4], [7]]),
    "Arrow booleans": lambda: pa.array([True, False, False, True]),
    "Arrow halves": lambda: pa.array(np.array(WHOLE, dtype=np.float16)),
    "Arrow stream": lambda: Stream(pa.chunked_array([WHOLE])),
}


@pytest.mark.parametrize("kind", SERIES)
def test_every_column_holds_its_numbers(kind: str) -> None:
    column = SERIES[kind]()
    tensor, _ = as_tensor(column, "Y")
    expected = [1, 0, 0, 1] if "boolean" in kind else WHOLE
    assert tensor.tolist() == expected
    assert torch.equal(cf.solve(NUMBERS, column).weight, cf.solve(NUMBERS, np.array(expected, float)).weight)


EMBEDDED = [[1.0, 2.0], [0.5, 3.0], [4.0, -1.0]]
LISTS: dict[str, Callable[[], Any]] = {
    "Polars arrays": lambda: pl.DataFrame(
        {"n": [1, 2, 3], "e": EMBEDDED}, schema_overrides={"e": pl.Array(pl.Float64, 2)}
    ),
    "Polars lists": lambda: pl.DataFrame({"n": [1, 2, 3], "e": EMBEDDED}),
    "Arrow lists": lambda: pa.table({"n": [1, 2, 3], "e": EMBEDDED}),
    "Arrow lists in chunks": lambda: pa.concat_tables(
        [pa.table({"n": [1], "e": EMBEDDED[:1]}), pa.table({"n": [2, 3], "e": EMBEDDED[1:]})]
    ),
    "Arrow lists of one size": lambda: pa.table({"n": [1, 2, 3], "e": pa.array(EMBEDDED, pa.list_(pa.float64(), 2))}),
    "Arrow tensors of one shape": lambda: pa.table(
        {"n": [1, 2, 3], "e": pa.FixedShapeTensorArray.from_numpy_ndarray(np.array(EMBEDDED))}
    ),
    "Arrow large lists, a slice": lambda: pa.table(
        {"n": [0, 1, 2, 3], "e": pa.array([[9.0], *EMBEDDED], pa.large_list(pa.float64()))}
    )[1:],
}


@pytest.mark.parametrize("kind", LISTS)
def test_columns_of_lists_are_columns(kind: str) -> None:
    tensor, _ = as_tensor(LISTS[kind](), "X")
    assert tensor.tolist() == [[1.0, 1.0, 2.0], [2.0, 0.5, 3.0], [3.0, 4.0, -1.0]]
    assert column_names(LISTS[kind]()) == ("n", "e[0]", "e[1]")


#: A table that cannot be used, and words that the refusal must hold.
REFUSED: dict[str, tuple[Callable[[], Any], type[ClosedformError], list[str]]] = {
    "pandas words": (lambda: pd.DataFrame({"k": ["a", "b"]}), DataTypeError, ["'k'", "X"]),
    "pandas objects": (lambda: pd.DataFrame({"k": [1, 2]}, dtype=object), DataTypeError, ["'k'", "object"]),
    "pandas lists": (lambda: pd.DataFrame({"k": [[1.0], [2.0]]}), DataTypeError, ["np.stack(X['k'])"]),
    "pandas categories": (lambda: pd.Categorical([1, 2]), DataTypeError, ["category"]),
    "pandas dates": (lambda: pd.date_range("2024-01-01", periods=2), DataTypeError, ["datetime64"]),
    "pandas intervals": (lambda: pd.interval_range(0, 2).array, DataTypeError, ["interval"]),
    "pandas complex": (lambda: pd.DataFrame({"k": [1j, 2]}), DataTypeError, ["'k'", "complex"]),
    "pandas levels": (lambda: pd.MultiIndex.from_tuples([(1, 2), (3, 4)]), DataTypeError, ["MultiIndex"]),
    "pandas missing": (lambda: pd.array([1, None], dtype="Int64"), InputError, ["missing", "row 1"]),
    "pandas Arrow missing": (
        lambda: pd.array([1.5, None], dtype=pd.ArrowDtype(pa.float64())),
        InputError,
        ["missing", "row 1"],
    ),
    "pandas groups": (lambda: pd.DataFrame({"k": [1, 2]}).groupby("k"), DataTypeError, ["X"]),
    "pandas window": (lambda: pd.DataFrame({"k": [1, 2]}).rolling(2), DataTypeError, ["X"]),
    "pandas moment": (lambda: pd.Timestamp("2024-01-01"), DataTypeError, ["X", "Timestamp"]),
    "pandas NA": (lambda: pd.NA, DataTypeError, ["X", "NAType"]),
    "Polars words": (lambda: pl.DataFrame({"k": ["a", "b"]}), DataTypeError, ["'k'", "String"]),
    "Polars dates": (lambda: pl.Series("k", [0, 1]).cast(pl.Date), DataTypeError, ["'k'", "Date"]),
    "Polars missing": (lambda: pl.DataFrame({"k": [1, None]}), InputError, ["'k'", "row 1"]),
    "Polars ragged": (lambda: pl.DataFrame({"k": [[1.0], [2.0, 3.0]]}), DataTypeError, ["'k'", "1 to 2"]),
    "Polars expression": (lambda: pl.col("k"), DataTypeError, ["X", "Expr"]),
    "Polars query that fails": (
        lambda: pl.LazyFrame({"k": [1]}).select("absent"),
        DataTypeError,
        ["X", "absent"],
    ),
    "Arrow words": (lambda: pa.table({"k": ["a", "b"]}), DataTypeError, ["'k'", "string"]),
    "Arrow missing": (lambda: pa.table({"k": [1.0, None]}), InputError, ["'k'", "row 1"]),
    "Arrow nothing": (lambda: pa.table({"k": pa.nulls(2)}), DataTypeError, ["'k'", "null"]),
    "Arrow ragged": (lambda: pa.table({"k": [[1.0], [2.0, 3.0]]}), DataTypeError, ["'k'", "1 to 2"]),
    "Arrow list that is missing": (lambda: pa.table({"k": [[1.0], None]}), InputError, ["'k'", "row 1"]),
    "Arrow missing in a list": (lambda: pa.table({"k": [[1.0], [None]]}), InputError, ["'k'", "missing"]),
    "Arrow dictionary": (lambda: pa.array(["a", "b"]).dictionary_encode(), DataTypeError, ["dictionary"]),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_column_that_cannot_be_used_is_named(kind: str) -> None:
    make, error, words = REFUSED[kind]
    with pytest.raises(error) as caught:
        cf.solve(make(), [1.0, 2.0])
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame, pa.table], ids=["pandas", "Polars", "Arrow"])
def test_integers_that_float64_rounds_are_told_by_column(library: Any) -> None:
    table = library({"id": [2**53 + 1, 2, 3], "x": [1.0, 2.5, 3.0]})
    notes = as_tensor(table, "X")[1]
    assert "column 'id' of X holds integers beyond 2**53, which were rounded to float64" in notes
    narrow = library({"id": [2**53, 2, 3], "x": [1.0, 2.5, 3.0]})
    assert not any("2**53" in note for note in as_tensor(narrow, "X")[1])


def test_narrow_columns_stay_narrow() -> None:
    frame = pd.DataFrame({"a": np.ones(3, np.float32), "b": np.ones(3, np.int8), "c": np.ones(3, np.float16)})
    assert as_tensor(frame, "X")[0].dtype == torch.float32
    assert as_tensor(pd.DataFrame({"a": np.ones(3, np.int8), "b": np.ones(3, np.int16)}), "X")[0].dtype == torch.int16
    assert as_tensor(pd.DataFrame(np.ones((3, 2), np.float32)), "X")[1] == ()


@pytest.mark.parametrize(
    ("table", "names"),
    [
        (pd.DataFrame(COLUMNS), ("a", "b", "c")),
        (pd.DataFrame(NUMBERS), None),
        (pd.DataFrame(NUMBERS, columns=[1998, 1999, 2000]), ("1998", "1999", "2000")),
        (FRAMES["pandas, several levels"](), ("u.a", "u.b", "v.c")),
        (FRAMES["pandas, labels that repeat"](), ("a", "a", "c")),
        (pd.Series(WHOLE, name="y"), ("y",)),
        (pd.Series(WHOLE), None),
        (pl.DataFrame(COLUMNS), ("a", "b", "c")),
        (pl.LazyFrame(COLUMNS), ("a", "b", "c")),
        (pl.Series("y", WHOLE), ("y",)),
        (pl.Series(WHOLE), None),
        (pa.table(COLUMNS), ("a", "b", "c")),
        (pa.array(WHOLE), None),
        (NUMBERS, None),
        (torch.ones(3, 2), None),
        ([[1.0, 2.0]], None),
    ],
    ids=range(16),
)
def test_names_of_columns(table: Any, names: tuple[str, ...] | None) -> None:
    assert column_names(table) == names
