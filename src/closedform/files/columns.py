"""Tables with named columns that pyarrow reads: what they share, Parquet by batches, Arrow (Feather) by record batches.

A key is one or more columns: ``a,b``. A column may be wide: a list of numbers of one length in every row, as
embeddings are stored.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from closedform.files.formats import (
    LABEL,
    Entry,
    FileFormat,
    FileSource,
    import_extra,
    native_dtype,
    reading,
    table_name,
)
from closedform.files.selection import split_columns
from closedform.rows.frames import nearest_floats
from closedform.rows.labels import RowLabels, index_columns
from closedform.rows.tensors import array_to_tensor
from closedform.words.errors import DataTypeError, InputError, SourceError
from closedform.words.text import printable

__all__ = [
    "ArrowFormat",
    "ArrowSource",
    "ColumnSource",
    "ParquetFormat",
    "ParquetSource",
    "arrow_errors",
    "entries_of",
    "words_of",
]

_BATCH_BYTES = 1 << 24


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
    if types.is_dictionary(kind) or _is_list(kind):
        return _value_type(kind.value_type)
    return kind


def _is_list(kind: Any) -> bool:
    types = _types()
    if hasattr(kind, "storage_type"):
        kind = kind.storage_type
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_number(kind: Any) -> bool:
    types, value = _types(), _value_type(kind)
    if _is_list(kind) and _is_list(kind.value_type if not hasattr(kind, "storage_type") else value):
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
        if not _is_list(field.type):
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
            printable(name) if width == 1 and not _is_list(kinds[name]) else f"{printable(name)}[{i}]"
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
        if _is_list(column.type):
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


@final
class ParquetFormat(FileFormat):
    """Parquet; structs and maps are no numbers."""

    title = "Parquet"
    suffixes = (".parquet", ".pq")
    columns = True

    @override
    def entries(self, path: Path) -> dict[str, Entry]:
        with reading(path, self.title, *arrow_errors()), _parquet_file(path) as file:
            schema = file.schema_arrow
            return entries_of(schema, file.metadata.num_rows, list_widths(schema, _first_rows(file)))

    @override
    def open(self, path: Path, key: str, budget: int) -> FileSource:
        return ParquetSource(path, key)

    @override
    def words(self, path: Path, key: str) -> np.ndarray[Any, Any] | None:
        with reading(path, self.title, *arrow_errors()), _parquet_file(path) as file:
            names = file.schema_arrow.names
            return words_of(file.read([key], use_threads=False)) if names.count(key) == 1 else None


def _parquet_file(path: Path) -> Any:
    parquet = import_extra("pyarrow.parquet", "pyarrow", "reading Parquet files")
    return parquet.ParquetFile(path, memory_map=True)


def _first_rows(file: Any) -> Any:
    """Return the first row of the columns of lists, or None where there are none."""
    lists = [field.name for field in file.schema_arrow if _is_list(field.type)]
    return next(file.iter_batches(1, columns=lists, use_threads=False), None) if lists else None


@final
class ParquetSource(ColumnSource):
    """Columns of a Parquet file, decoded batch by batch within its row groups.

    Parquet has no random access inside a row group. A walk in order decodes each batch once; a read that does
    not go on where the last one ended starts again at the row group that holds its first row.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        with reading(path, ParquetFormat.title, *arrow_errors()), _parquet_file(path) as file:
            schema = file.schema_arrow
            self.set_columns(path, key, schema, file.metadata.num_rows, list_widths(schema, _first_rows(file)))
            groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        self._group_starts = np.concatenate([[0], np.cumsum(groups, dtype=np.int64)])
        self._batch_rows = max(1, _BATCH_BYTES // (self.shape[1] * self.dtype.itemsize))
        self._batches: Iterator[Tensor] | None = None
        self._ahead = torch.empty(0, device="cpu")
        self._position = 0

    @override
    def read(self, start: int, stop: int) -> Tensor:
        stop = min(stop, self.shape[0])
        with reading(self._path, ParquetFormat.title, *arrow_errors()):
            if self._batches is None or start != self._position:
                self.close()
                self._batches = self._decode(start)
            try:
                parts = self._take(self._batches, stop - start)
            except BaseException:
                # A walk that broke off cannot be gone on with.
                self.close()
                raise
        self._position = stop
        return torch.cat(parts) if parts else torch.empty((0, *self.shape[1:]), dtype=self.dtype, device="cpu")

    @override
    def read_table(self, names: list[str]) -> Any:
        with reading(self._path, ParquetFormat.title, *arrow_errors()), _parquet_file(self._path) as file:
            return file.read(names, use_threads=False)

    def _take(self, batches: Iterator[Tensor], rows: int) -> list[Tensor]:
        parts = []
        while rows > 0:
            if not len(self._ahead):
                self._ahead = next(batches)
            parts.append(self._ahead[:rows])
            self._ahead = self._ahead[rows:]
            rows -= len(parts[-1])
        return parts

    @override
    def close(self) -> None:
        if self._batches is not None:
            self._batches = None
            self._ahead = torch.empty(0, device="cpu")
            self._close()

    def _decode(self, start: int) -> Iterator[Tensor]:
        """Open the file and return its batches from row ``start`` on."""
        file = _parquet_file(self._path)
        self._close = weakref.finalize(self, file.close)
        group = int(np.searchsorted(self._group_starts, start, side="right")) - 1
        batches = file.iter_batches(
            self._batch_rows,
            row_groups=range(group, len(self._group_starts) - 1),
            columns=self._columns,
            use_threads=False,
        )
        return self._from_row(batches, int(self._group_starts[group]), start)

    def _from_row(self, batches: Iterator[Any], row: int, start: int) -> Iterator[Tensor]:
        for batch in batches:
            first, row = row, row + batch.num_rows
            if row > start:
                skipped = max(start - first, 0)
                yield self.stack(batch.slice(skipped), first + skipped)


@final
class ArrowFormat(FileFormat):
    """Arrow's own files (Feather of version 2) and streams in files, mapped and read by record batches."""

    title = "Arrow"
    suffixes = (".arrow", ".feather", ".ipc")
    columns = True

    @override
    def entries(self, path: Path) -> dict[str, Entry]:
        with reading(path, self.title, *arrow_errors()), _arrow_file(path) as file:
            first = file.get_batch(0) if file.num_record_batches else None
            return entries_of(file.schema, sum(_batch_rows(file)), list_widths(file.schema, first))

    @override
    def open(self, path: Path, key: str, budget: int) -> FileSource:
        return ArrowSource(path, key)

    @override
    def words(self, path: Path, key: str) -> np.ndarray[Any, Any] | None:
        with reading(path, self.title, *arrow_errors()), _arrow_file(path) as file:
            return words_of(file.read_all().select([key])) if file.schema.names.count(key) == 1 else None


def _arrow_file(path: Path) -> Any:
    arrow = import_extra("pyarrow", "pyarrow", "reading Arrow files")
    library = import_extra("pyarrow.ipc", "pyarrow", "reading Arrow files")
    with path.open("rb") as file:
        if file.read(len(_ARROW_MARK)) == _ARROW_MARK:
            return library.open_file(arrow.memory_map(str(path)))
    return _ArrowStream(arrow, library.open_stream(arrow.memory_map(str(path))))


#: The first bytes of an Arrow file that is not just a stream.
_ARROW_MARK = b"ARROW1"


@final
class _ArrowStream:
    """A stream of record batches in a file, as data sets of Hugging Face are stored, with what a file of Arrow has.

    The batches of a stream that is not compressed are views of the file.
    """

    def __init__(self, arrow: Any, reader: Any) -> None:
        self._arrow, self.schema, self._batches = arrow, reader.schema, list(reader)
        self.num_record_batches = len(self._batches)

    def get_batch(self, number: int) -> Any:
        return self._batches[number]

    def read_all(self) -> Any:
        return self._arrow.Table.from_batches(self._batches, self.schema)

    def __enter__(self) -> _ArrowStream:
        return self

    def __exit__(self, *error: object) -> None:
        self._batches = []


def _batch_rows(file: Any) -> list[int]:
    return [file.get_batch(i).num_rows for i in range(file.num_record_batches)]


@final
class ArrowSource(ColumnSource):
    """Columns of an Arrow file; a read decodes the record batches that it touches."""

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        with reading(path, ArrowFormat.title, *arrow_errors()), _arrow_file(path) as file:
            first = file.get_batch(0) if file.num_record_batches else None
            rows = _batch_rows(file)
            self.set_columns(path, key, file.schema, sum(rows), list_widths(file.schema, first))
        self._starts = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])

    @override
    def read(self, start: int, stop: int) -> Tensor:
        stop = min(stop, self.shape[0])
        parts = [torch.empty((0, *self.shape[1:]), dtype=self.dtype, device="cpu")]
        with reading(self._path, ArrowFormat.title, *arrow_errors()), _arrow_file(self._path) as file:
            batch = int(np.searchsorted(self._starts, start, side="right")) - 1
            while start < stop:
                first, end = int(self._starts[batch]), min(int(self._starts[batch + 1]), stop)
                if end > start:
                    parts.append(self.stack(file.get_batch(batch).slice(start - first, end - start), start))
                    start = end
                batch += 1
        return torch.cat(parts)

    @override
    def read_table(self, names: list[str]) -> Any:
        with reading(self._path, ArrowFormat.title, *arrow_errors()), _arrow_file(self._path) as file:
            return file.read_all().select(names)
