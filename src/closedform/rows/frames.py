"""Frames and columns of pandas, Polars and Arrow, and arrays of records, as torch tensors."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from torch import Tensor

from closedform.rows.arrays import array_to_tensor
from closedform.rows.labels import index_columns
from closedform.words.errors import DataTypeError, InputError, MissingExtraError

__all__ = ["frame_to_tensor", "nearest_floats"]

#: Integers up to this size are exact in float64.
_EXACT_INTEGER = 2**53


@final
@dataclass(frozen=True)
class _Column:
    """One column of a frame: what it is called, its type there, and its numbers, ``(rows,)`` or ``(rows, width)``."""

    label: Any
    kind: str
    values: np.ndarray[Any, Any]


def frame_to_tensor(data: Any, name: str) -> tuple[Tensor, tuple[str, ...]] | None:
    """Return a frame, a series or a column as a tensor, or None where it is none of these.

    Missing values (InputError) and columns of other kinds (DataTypeError) are refused by the label of their column; an
    Arrow table needs pyarrow (MissingExtraError).

    Args:
        data: A pandas or Polars frame or series (subclasses too), a pandas index or extension array, a Polars lazy
            frame, an array of records ``(rows,)``, or anything that exports itself by Arrow's C interface: tables,
            record batches, arrays.
        name: What the user calls it, for messages.

    Returns:
        The tensor, ``(rows, columns)`` or ``(rows,)``, and notes on what was done on the way.

    Raises:
        DataTypeError: labels of several levels, which are no numbers.

    Example:
        >>> import pandas as pd
        >>> frame_to_tensor(pd.DataFrame({"height": [1.5, 2.0], "tall": [False, True]}), "X")
        (tensor([[1.5000, 0.0000],
                [2.0000, 1.0000]], dtype=torch.float64), ('X has columns of float64, bool; they were converted ...',))
        >>> frame_to_tensor([1.0], "X") is None
        True
    """
    if isinstance(data, np.ndarray):
        return _records_to_tensor(data, name) if data.dtype.names and data.ndim == 1 else None
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    if pandas is not None:
        if isinstance(data, (pandas.DataFrame, pandas.Series)):
            return _pandas_to_tensor(data, name)
        if isinstance(data, pandas.MultiIndex):
            raise DataTypeError(f"{name} is a MultiIndex, which holds labels; pass its levels as columns, .to_frame().")
        if isinstance(data, (pandas.Index, pandas.api.extensions.ExtensionArray)):
            return _pandas_to_tensor(pandas.Series(data), name)
    if polars is not None and isinstance(data, (polars.DataFrame, polars.Series, polars.LazyFrame)):
        return _polars_to_tensor(data, name)
    if hasattr(type(data), "__arrow_c_stream__") or hasattr(type(data), "__arrow_c_array__"):
        return _arrow_to_tensor(data, name)
    return None


def _records_to_tensor(data: np.ndarray[Any, Any], name: str) -> tuple[Tensor, tuple[str, ...]]:
    columns = []
    for label in data.dtype.names or ():
        values = data[label]
        if values.dtype.kind not in "fiub":
            kind = "record" if values.dtype.names else values.dtype
            raise DataTypeError(f"column {label!r} of {name} holds {kind} values; {_remedy(name)}.")
        if np.ma.is_masked(values):
            raise InputError(_missing(label, name, int(np.argwhere(np.ma.getmaskarray(values))[0][0])))
        values = np.asarray(values)
        wide = values.reshape(len(values), math.prod(values.shape[1:])) if values.ndim > 1 else values
        columns.append(_Column(label, str(values.dtype), wide))
    return _stack(columns, name, single=False)


def _pandas_to_tensor(data: Any, name: str) -> tuple[Tensor, tuple[str, ...]]:
    from pandas.api.types import is_bool_dtype, is_complex_dtype, is_numeric_dtype

    frame = data.to_frame() if data.ndim == 1 else data
    dtypes = list(frame.dtypes)
    if not dtypes:
        return array_to_tensor(np.empty((len(frame), 0)), name)
    # By position: labels may repeat.
    for position, (label, dtype) in enumerate(zip(frame.columns, dtypes, strict=True)):
        column = frame.iloc[:, position]
        if is_complex_dtype(dtype) or not (is_numeric_dtype(dtype) or is_bool_dtype(dtype)):
            hint = _remedy(name)
            if dtype.kind == "O" and len(column) and isinstance(column.iloc[0], (list, tuple, np.ndarray)):
                hint = f"make it a table of its own first: np.stack({name}[{label!r}])"
            raise DataTypeError(f"column {label!r} of {name} holds {dtype} values; {hint}.")
        missing = column.isna().to_numpy()
        if missing.any():
            raise InputError(_missing(label, name, int(missing.argmax())))
    if len(set(dtypes)) == 1 and isinstance(dtypes[0], np.dtype):
        return array_to_tensor(np.asarray(data.to_numpy()), name)
    columns = [
        _Column(label, str(dtype), _pandas_values(frame.iloc[:, position], dtype))
        for position, (label, dtype) in enumerate(zip(frame.columns, dtypes, strict=True))
    ]
    notes: tuple[str, ...] = ()
    if any(hasattr(dtype, "fill_value") for dtype in dtypes):
        notes = (f"{name} has sparse columns; they were made dense",)
    tensor, more = _stack(columns, name, single=data.ndim == 1)
    return tensor, (*notes, *more)


def _remedy(name: str) -> str:
    """Say what to do with a column that holds no numbers."""
    if name == "Y":
        return "class labels are for closedform.probe(X, Y), or turn it into numbers first"
    return "drop it or turn it into numbers first"


def _pandas_values(column: Any, dtype: Any) -> np.ndarray[Any, Any]:
    """Return a column without missing values as an array of numbers."""
    values = np.asarray(column.to_numpy())
    if values.dtype.kind != "O":
        return values
    # Nullable columns, and decimals.
    wanted = getattr(dtype, "numpy_dtype", np.dtype(np.float64))
    return column.to_numpy(dtype=wanted if wanted.kind in "fiub" else np.float64)


def _polars_to_tensor(data: Any, name: str) -> tuple[Tensor, tuple[str, ...]]:
    import polars

    if isinstance(data, polars.LazyFrame):
        data = data.collect()
    single = isinstance(data, polars.Series)
    series = [data] if single else data.get_columns()
    if not series:
        return array_to_tensor(np.empty((0, 0)), name)
    for column in series:
        inner = column.dtype
        while isinstance(inner, (polars.Array, polars.List)):
            inner = inner.inner
        if not (inner.is_numeric() or inner == polars.Boolean):
            raise DataTypeError(f"column {column.name!r} of {name} holds {column.dtype} values; {_remedy(name)}.")
        if column.null_count():
            raise InputError(_missing(column.name, name, int(column.is_null().arg_true()[0])))
    dtype = series[0].dtype if len({column.dtype for column in series}) == 1 else None
    if dtype is not None and (dtype.is_float() or (dtype.is_integer() and "128" not in str(dtype))):
        return array_to_tensor(np.asarray(data.to_numpy()), name)
    columns = [_Column(column.name, str(column.dtype), _polars_values(column, name)) for column in series]
    return _stack(columns, name, single=single)


def _polars_values(column: Any, name: str) -> np.ndarray[Any, Any]:
    """Return a column without missing values as an array of numbers."""
    import polars

    if isinstance(column.dtype, polars.List):
        lengths = column.list.len()
        _check_lengths(column.name, name, lengths.min(), lengths.max())
        column = column.list.to_array(int(lengths.max()))
    elif column.dtype.is_decimal() or "128" in str(column.dtype):
        column = column.cast(polars.Float64)
    return np.asarray(column.to_numpy())


def _arrow_to_tensor(data: Any, name: str) -> tuple[Tensor, tuple[str, ...]]:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtraError("pyarrow", "files", f"reading {name} as an Arrow table") from error

    if not isinstance(data, (pyarrow.Table, pyarrow.RecordBatch, pyarrow.ChunkedArray, pyarrow.Array)):
        data = pyarrow.chunked_array(data) if hasattr(type(data), "__arrow_c_stream__") else pyarrow.array(data)
    if isinstance(data, pyarrow.Array):
        data = pyarrow.chunked_array([data])
    if isinstance(data, pyarrow.ChunkedArray) and pyarrow.types.is_struct(data.type):
        data = pyarrow.Table.from_struct_array(data)

    single = isinstance(data, pyarrow.ChunkedArray)
    index = set() if single else index_columns(data.schema)
    if index:
        data = data.select([label for label in data.column_names if label not in index])
    series = [data] if single else data.columns
    labels = ["0"] if single else data.column_names
    columns = [
        _Column(label, str(column.type), _arrow_values(label, column, name))
        for label, column in zip(labels, series, strict=True)
    ]
    if not columns:
        raise DataTypeError(f"{name} has no columns but the index of a pandas frame.")
    tensor, notes = _stack(columns, name, single=single)
    left_out = f"{', '.join(sorted(index))} of {name} left out: pandas wrote it as an index"
    return tensor, ((left_out, *notes) if index else notes)


def _arrow_values(label: str, column: Any, name: str) -> np.ndarray[Any, Any]:
    """Return an Arrow column, chunked or not, as an array of numbers.

    Raises:
        DataTypeError: other types than real numbers, booleans, decimals and lists of these, all of one length.
        InputError: a missing value.
    """
    import pyarrow
    import pyarrow.compute

    if isinstance(column, pyarrow.Array):
        column = pyarrow.chunked_array([column])
    if isinstance(column.type, pyarrow.BaseExtensionType):
        column = column.cast(column.type.storage_type)
    types = pyarrow.types
    listed = types.is_list(column.type) or types.is_large_list(column.type) or types.is_fixed_size_list(column.type)
    inner = column.type.value_type if listed else column.type
    is_number = (
        types.is_floating(inner) or types.is_integer(inner) or types.is_boolean(inner) or types.is_decimal(inner)
    )
    if not is_number:
        raise DataTypeError(f"column {label!r} of {name} holds {column.type} values; {_remedy(name)}.")
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy()))
        raise InputError(_missing(label, name, row))
    if listed:
        lengths = pyarrow.compute.min_max(pyarrow.compute.list_value_length(column)).as_py()
        _check_lengths(label, name, lengths["min"], lengths["max"])
        rows = len(column)
        column = pyarrow.chunked_array([chunk.flatten() for chunk in column.chunks], inner)
        return _arrow_values(label, column, name).reshape(rows, -1)
    if types.is_decimal(inner):
        column = nearest_floats(column)
    return np.asarray(column.to_numpy())


def nearest_floats(column: Any) -> Any:
    """Return an Arrow column of decimals, chunked or not, as the nearest numbers of float64.

    Arrow's own cast multiplies by a power of ten that is rounded itself, and is a bit off for some prices in ten; the
    way over their text is exact.

    Example:
        >>> import pyarrow as pa, decimal
        >>> nearest_floats(pa.array([decimal.Decimal("0.07")], pa.decimal128(4, 2)))[0].as_py()
        0.07
    """
    import pyarrow

    return column.cast(pyarrow.string()).cast(pyarrow.float64())


def _check_lengths(label: Any, name: str, shortest: int | None, longest: int | None) -> None:
    if shortest != longest:
        raise DataTypeError(
            f"column {label!r} of {name} holds lists of {shortest} to {longest} numbers; a table has one length."
        )


def _missing(label: Any, name: str, row: int) -> str:
    return f"column {label!r} of {name} has a missing value, first in row {row}; drop or fill those rows."


def _stack(columns: list[_Column], name: str, *, single: bool) -> tuple[Tensor, tuple[str, ...]]:
    """Return columns, one at least, side by side in the narrowest type that holds them all."""
    arrays = [column.values if column.values.ndim > 1 else column.values[:, np.newaxis] for column in columns]
    dtype = np.result_type(*arrays)
    notes = []
    if dtype.kind == "f":
        if not all(column.values.dtype.kind == "f" and "ecimal" not in column.kind for column in columns):
            kinds = ", ".join(dict.fromkeys(column.kind for column in columns))
            notes.append(f"{name} has columns of {kinds}; they were converted to {dtype}")
        notes += [
            f"column {column.label!r} of {name} holds integers beyond 2**53, which were rounded to float64"
            for column in columns
            if _rounds(column.values)
        ]
    table = np.concatenate([array.astype(dtype, copy=False) for array in arrays], axis=1)
    tensor, more = array_to_tensor(table[:, 0] if single and columns[0].values.ndim == 1 else table, name)
    return tensor, (*notes, *more)


def _rounds(values: np.ndarray[Any, Any]) -> bool:
    """Say whether integers are so large that float64 rounds them."""
    if values.dtype.kind not in "iu" or values.dtype.itemsize < 8 or not values.size:
        return False
    return int(values.max()) > _EXACT_INTEGER or int(values.min()) < -_EXACT_INTEGER
