"""Tables with named columns that pyarrow reads: what Parquet, Arrow and CSV share.

A key is one or more columns: ``a,b``. A column may be wide: a list of numbers of one length in every row, as
embeddings are stored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from closedform.files.formats import (
    LABEL,
    Entry,
    FileSource,
    import_extra,
    native_dtype,
    table_name,
)
from closedform.files.selection import split_columns
from closedform.rows.frames import nearest_floats
from closedform.rows.labels import RowLabels, index_columns
from closedform.rows.tensors import array_to_tensor
from closedform.words.errors import DataTypeError, InputError, SourceError
from closedform.words.text import printable

__all__ = ["ColumnSource", "arrow_errors", "entries_of", "is_list", "list_widths", "words_of"]


def arrow_errors() -> tuple[type[Exception], ...]:
    """Return what pyarrow raises for files that it cannot read."""
    arrow = import_extra("pyarrow", "pyarrow", "reading Parquet and CSV files")
    return (arrow.ArrowException, OSError, ValueError)


def _types() -> Any:
    return import_extra("pyarrow.types", "pyarrow", "reading tables")


def _value_type(kind: Any) -> Any:
    """Return the type of the numbers in a column: what a dictionary, a tensor or a list holds, else its own."""
    types = _types()
    if hasattr(kind, "storage_type"):
        kind = kind.storage_type
    if types.is_dictionary(kind) or is_list(kind):
        return _value_type(kind.value_type)
    return kind


def is_list(kind: Any) -> bool:
    """Whether a type of Arrow is a list of values, of one length or of several."""
    types = _types()
    if hasattr(kind, "storage_type"):
        kind = kind.storage_type
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_number(kind: Any) -> bool:
    types, value = _types(), _value_type(kind)
    if is_list(kind) and is_list(kind.value_type if not hasattr(kind, "storage_type") else value):
        return False
    known = types.is_integer(value) or types.is_floating(value) or types.is_boolean(value) or types.is_decimal(value)
    return bool(known)


def _is_null(kind: Any) -> bool:
    return bool(_types().is_null(kind))


#: Types that NumPy calls by other names than Arrow.
_ARROW_NAMES = {"halffloat": "float16", "float": "float32", "double": "float64"}


def _array_dtype(kind: Any) -> np.dtype[Any]:
    value = _value_type(kind)
    # A column without a single value has no type; reading it says so, if there are rows at all.
    if _is_null(value) or _types().is_decimal(value):
        return np.dtype(np.float64)
    # Its own name for it; older Arrow asks pandas for the dtype, which need not be there.
    return np.dtype(_ARROW_NAMES.get(str(value), str(value)))


def range_labels(schema: Any) -> np.ndarray[Any, Any] | None:
    """Return the row numbers that pandas' metadata describe without storing them, or None where there are none."""
    try:
        metadata = schema.pandas_metadata or {}
    except ValueError:
        return None
    for index in metadata.get("index_columns", ()):
        if isinstance(index, dict) and index.get("kind") == "range":
            return np.arange(index["start"], index["stop"], index["step"])
    return None


def entries_of(schema: Any, n_rows: int, widths: dict[str, int] | None = None) -> dict[str, Entry]:
    """Return the columns of a table, each as an entry of shape ``(rows, width)``."""
    labels, widths = index_columns(schema), widths or {}
    return {
        field.name: Entry(
            (n_rows, widths.get(field.name, 1)),
            str(field.type),
            _is_number(field.type),
            LABEL if field.name in labels else "",
        )
        for field in schema
    }


def list_widths(schema: Any, first_rows: Any) -> dict[str, int]:
    """Return the length of the lists in each column of lists, from the first row of a table."""
    widths = {}
    for field in schema:
        if not is_list(field.type):
            continue
        kind = getattr(field.type, "storage_type", field.type)
        size = getattr(kind, "list_size", None)
        if size is None and first_rows is not None and first_rows.num_rows:
            value = first_rows.column(first_rows.schema.get_field_index(field.name))[0].as_py()
            size = 1 if value is None else len(value)
        widths[field.name] = size or 1
    return widths


def words_of(table: Any) -> np.ndarray[Any, Any] | None:
    """Return the only column of an Arrow table where it holds words, ``(rows,)`` of objects, else None."""
    types, column = _types(), table.column(0)
    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
        return None
    words = np.empty(table.num_rows, dtype=object)
    words[:] = column.to_pylist()
    return words


class ColumnSource(FileSource, ABC):
    """What Parquet, Arrow and CSV share: some columns of one table, stacked side by side in their common dtype.

    Abstract: a subclass reads batches and calls :meth:`set_columns` once and :meth:`stack` for each.
    """

    def set_columns(self, path: Path, key: str, schema: Any, n_rows: int, widths: dict[str, int]) -> None:
        """Choose the columns of ``key`` and set what a source has to tell.

        Args:
            path: The file, for messages.
            key: Names of columns; empty for all but those that pandas marked as an index.
            schema: The table's schema.
            n_rows: Its rows.
            widths: The lengths of its lists, by column.

        Raises:
            SourceError: no columns, or two of one name.
            DataTypeError: a column does not hold numbers.
            UnknownKey: there is no such column.
        """
        self.name = table_name(path, key)
        names = list(schema.names)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SourceError(f"{path} has more than one column named '{twice[0]}'; rename one of them.")

        labels = index_columns(schema)
        self._columns = split_columns(key, names, labels) if key else [name for name in names if name not in labels]
        if not self._columns:
            raise SourceError(f"{path} has no columns.")

        kinds = {column: schema.field(column).type for column in self._columns}
        for column, kind in kinds.items():
            if not (_is_number(kind) or _is_null(kind)):
                remedy = (
                    "leave it out by naming the columns you want (--x COL,COL), or turn it into numbers first"
                    if len(self._columns) > 1
                    else f"words are labels, for a probe: closedform probe {path} --labels {column}; or turn them into "
                    "numbers first"
                )
                raise DataTypeError(
                    f"column '{column}' of {path} holds {kind} values, which are not numbers; {remedy}."
                )

        self._widths = {column: widths.get(column, 1) for column in self._columns}
        self._array_dtype = np.result_type(*map(_array_dtype, kinds.values()))
        self.shape = (n_rows, sum(self._widths.values()))
        self.dtype, notes = native_dtype(self._array_dtype, self.name)
        decimals = [printable(name) for name, kind in kinds.items() if _types().is_decimal(_value_type(kind))]
        if decimals:
            notes += (f"decimal numbers of {self.name} ({', '.join(decimals[:5])}) were rounded to float64",)

        if not key and labels:
            notes += (f"{', '.join(map(printable, sorted(labels)))} of {path} left out: pandas wrote it as an index",)

        self.notes = notes
        rows = range_labels(schema)
        if rows is not None or (labels and labels.issubset(names)):
            self.row_labels = RowLabels(str(path), lambda: self._labels(sorted(labels)) if rows is None else (rows,))
        self.columns = tuple(
            printable(name) if width == 1 and not is_list(kinds[name]) else f"{printable(name)}[{i}]"
            for name, width in self._widths.items()
            for i in range(width)
        )

    def _labels(self, names: list[str]) -> tuple[np.ndarray[Any, Any], ...]:
        """Return columns that label the rows."""
        table = self.read_table(names)
        return tuple(np.asarray(table.column(name).to_pylist()) for name in names)

    @abstractmethod
    def read_table(self, names: list[str]) -> Any:
        """Return columns of any kind as an Arrow table."""

    def stack(self, table: Any, first_row: int) -> Tensor:
        """Return an Arrow table or batch, whose first row is ``first_row`` of the file, as a tensor.

        Raises:
            InputError: a missing value, or lists of several lengths.
        """
        stacked = np.empty((table.num_rows, self.shape[1]), self._array_dtype)
        position = 0
        for name, width in self._widths.items():
            column = table.column(table.schema.get_field_index(name))
            if column.null_count:
                row = first_row + column.is_null().index(True).as_py()
                self._refuse_missing(name, row)
            numbers = self._numbers(column, name, width, first_row)
            if self._array_dtype.kind == "f":
                self.heed_rounding(numbers, f"column '{printable(name)}' of {self.name}", first_row)
            stacked[:, position : position + width] = numbers
            position += width
        return array_to_tensor(stacked, self.name)[0]

    def _refuse_missing(self, name: str, row: int) -> None:
        raise InputError(
            f"column '{name}' of {self.name} has a missing value, first in row {row} (counted "
            "from 0); drop or fill those rows."
        )

    def _numbers(self, column: Any, name: str, width: int, first_row: int) -> np.ndarray[Any, Any]:
        """Return a column without missing values as an array ``(rows, width)``.

        Raises:
            InputError: a list of another length, or with a missing value in it.
        """
        types = _types()
        if hasattr(column, "combine_chunks"):
            column = column.combine_chunks()

        if hasattr(column, "storage"):
            column = column.storage

        rows = len(column)
        if is_list(column.type):
            compute = import_extra("pyarrow.compute", "pyarrow", "reading tables")
            lengths = compute.list_value_length(column).to_numpy(zero_copy_only=False)
            odd = np.flatnonzero(lengths != width)
            if len(odd):
                raise InputError(
                    f"column '{name}' of {self.name} holds lists of {width} numbers, but row {first_row + odd[0]} "
                    f"(counted from 0) has {lengths[odd[0]]}; write lists of one length."
                )
            column = column.flatten()
            if column.null_count:
                self._refuse_missing(name, first_row + column.is_null().index(True).as_py() // width)

        if types.is_dictionary(column.type):
            column = column.dictionary_decode()

        if types.is_decimal(column.type):
            column = nearest_floats(column)

        return column.to_numpy(zero_copy_only=False).reshape(rows, width)
