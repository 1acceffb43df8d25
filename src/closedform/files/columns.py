"""Tables with named columns: Parquet by batches, CSV and TSV whole. A key is one or more columns: ``a,b``."""

from __future__ import annotations

import csv
import io
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from closedform.files.formats import (
    Entry,
    FileFormat,
    FileSource,
    UnknownKey,
    import_extra,
    native_dtype,
    reading,
    table_name,
)
from closedform.rows.tensors import array_to_tensor
from closedform.words.errors import DataTypeError, InputError, SourceError

__all__ = ["CsvFormat", "CsvSource", "ParquetFormat", "ParquetSource", "join_columns", "split_columns"]

_BATCH_BYTES = 1 << 24


def join_columns(columns: Sequence[str]) -> str:
    """Return the key of several columns; names that hold a comma are quoted as in CSV.

    Example:
        >>> join_columns(["age", "height, cm"])
        'age,"height, cm"'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(columns)
    return text.getvalue()


def split_columns(key: str, known: Sequence[str]) -> list[str]:
    """Return the columns that ``key`` names; an empty key names all of them.

    Raises:
        UnknownKey: one of them is not in ``known``.

    Example:
        >>> split_columns('age,"height, cm"', ["age", "sex", "height, cm"])
        ['age', 'height, cm']
    """
    if not key:
        return list(known)
    if key in known:
        return [key]
    columns = [name if name in known else name.strip() for name in next(csv.reader([key]))]
    for column in columns:
        if column not in known:
            raise UnknownKey(column)
    return columns


def _is_number(kind: Any) -> bool:
    types = import_extra("pyarrow.types", "pyarrow", "reading tables")
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


class _ColumnSource(FileSource):
    """What Parquet and CSV share: some columns of one table, stacked side by side in their common dtype."""

    def _set(self, path: Path, key: str, schema: Any, n_rows: int) -> None:
        self.name = table_name(path, key)
        names = list(schema.names)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SourceError(f"{path} has more than one column named '{twice[0]}'; rename one of them.")
        self._columns = split_columns(key, names)
        if not self._columns:
            raise SourceError(f"{path} has no columns.")
        for column in self._columns:
            kind = schema.field(column).type
            if not (_is_number(kind) or _is_null(kind)):
                raise DataTypeError(
                    f"column '{column}' of {path} holds {kind} values, which are not numbers; leave it "
                    "out by naming the columns you want (--x COL,COL), or turn it into numbers first."
                )
        kinds = [schema.field(column).type for column in self._columns]
        # A column without a single value has no type; reading it says so, if there are rows at all.
        dtypes = [np.dtype(np.float64 if _is_null(kind) else kind.to_pandas_dtype()) for kind in kinds]
        self._array_dtype = np.result_type(*dtypes)
        self.shape = (n_rows, len(self._columns))
        self.dtype, self.notes = native_dtype(self._array_dtype, self.name)

    def _stack(self, table: Any, first_row: int) -> Tensor:
        """Return an Arrow table or batch, whose first row is ``first_row`` of the file, as a tensor."""
        stacked = np.empty((table.num_rows, len(self._columns)), self._array_dtype)
        for position, name in enumerate(self._columns):
            column = table.column(name)
            if column.null_count:
                row = first_row + column.is_null().index(True).as_py()
                raise InputError(
                    f"column '{name}' of {self.name} has a missing value, first in row {row} (counted "
                    "from 0); drop or fill those rows."
                )
            stacked[:, position] = column.to_numpy(zero_copy_only=False)
        return array_to_tensor(stacked, self.name)[0]


def _is_null(kind: Any) -> bool:
    return bool(import_extra("pyarrow.types", "pyarrow", "reading tables").is_null(kind))


def _entries(schema: Any, n_rows: int) -> dict[str, Entry]:
    return {field.name: Entry((n_rows, 1), str(field.type), _is_number(field.type)) for field in schema}


@final
class ParquetFormat(FileFormat):
    """Parquet; nested columns are no numbers."""

    title = "Parquet"
    suffixes = (".parquet", ".pq")
    columns = True

    def entries(self, path: Path) -> dict[str, Entry]:
        with reading(path, self.title, *_arrow_errors()), _parquet_file(path) as file:
            return _entries(file.schema_arrow, file.metadata.num_rows)

    def open(self, path: Path, key: str, budget: int) -> FileSource:
        return ParquetSource(path, key)


def _arrow_errors() -> tuple[type[Exception], ...]:
    arrow = import_extra("pyarrow", "pyarrow", "reading Parquet and CSV files")
    return (arrow.ArrowException, OSError, ValueError)


def _parquet_file(path: Path) -> Any:
    parquet = import_extra("pyarrow.parquet", "pyarrow", "reading Parquet files")
    return parquet.ParquetFile(path, memory_map=True)


@final
class ParquetSource(_ColumnSource):
    """Columns of a Parquet file, decoded batch by batch within its row groups.

    Parquet has no random access inside a row group. A walk in order decodes each batch once; a read that does
    not go on where the last one ended starts again at the row group that holds its first row.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        with reading(path, ParquetFormat.title, *_arrow_errors()), _parquet_file(path) as file:
            self._set(path, key, file.schema_arrow, file.metadata.num_rows)
            groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        self._group_starts = np.concatenate([[0], np.cumsum(groups, dtype=np.int64)])
        self._batch_rows = max(1, _BATCH_BYTES // (len(self._columns) * self.dtype.itemsize))
        self._batches: Iterator[Tensor] | None = None
        self._ahead = torch.empty(0)
        self._position = 0

    def read(self, start: int, stop: int) -> Tensor:
        stop = min(stop, self.shape[0])
        with reading(self._path, ParquetFormat.title, *_arrow_errors()):
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
        return torch.cat(parts) if parts else torch.empty((0, *self.shape[1:]), dtype=self.dtype)

    def _take(self, batches: Iterator[Tensor], rows: int) -> list[Tensor]:
        parts = []
        while rows > 0:
            if not len(self._ahead):
                self._ahead = next(batches)
            parts.append(self._ahead[:rows])
            self._ahead = self._ahead[rows:]
            rows -= len(parts[-1])
        return parts

    def close(self) -> None:
        if self._batches is not None:
            self._batches = None
            self._ahead = torch.empty(0)
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
                yield self._stack(batch.slice(skipped), first + skipped)


@final
class CsvFormat(FileFormat):
    """Comma- or tab-separated text whose first line names the columns."""

    title = "CSV"
    suffixes = (".csv", ".tsv")
    columns = True

    def entries(self, path: Path) -> dict[str, Entry]:
        table = _read_csv(path)
        return _entries(table.schema, table.num_rows)

    def open(self, path: Path, key: str, budget: int) -> FileSource:
        # Only parsing tells how many numbers the text holds; and it is rarely smaller than they are.
        size = path.stat().st_size
        if size > budget:
            raise SourceError(
                f"{path} has {size / 1e9:.2f} GB of text, over the memory share of {budget / 1e9:.2f} GB, "
                "and text cannot be read by row ranges; convert it to .parquet or .h5."
            )
        return CsvSource(path, key, _read_csv(path))


def _read_csv(path: Path) -> Any:
    library = import_extra("pyarrow.csv", "pyarrow", "reading CSV files")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with reading(path, CsvFormat.title, *_arrow_errors()):
        table = library.read_csv(path, parse_options=library.ParseOptions(delimiter=delimiter))
        names = table.column_names
    if len(names) == 1 and any(separator in names[0] for separator in ";\t,"):
        raise SourceError(
            f"{path} is not separated by {'tabs' if delimiter == chr(9) else 'commas'}: its first line is "
            f"{names[0]!r}; write it with the separator of its ending (.csv: comma, .tsv: tab)."
        )
    if _are_data(names):
        raise SourceError(
            f"the first line of {path} holds numbers ({', '.join(names[:3])}, ...), not column names; add a "
            "first line that names the columns."
        )
    return table


def _are_data(names: list[str]) -> bool:
    """Whether a header line looks like a row of numbers; 0, 1, 2, ... are the names pandas gives columns."""
    if [name for name in names if name] == [str(i) for i in range(len([name for name in names if name]))]:
        return False
    try:
        for name in names:
            float(name)
    except ValueError:
        return False
    return True


@final
class CsvSource(_ColumnSource):
    """Columns of a parsed CSV file."""

    streams = False

    def __init__(self, path: Path, key: str, table: Any) -> None:
        self._set(path, key, table.schema, table.num_rows)
        self._table = table

    def read(self, start: int, stop: int) -> Tensor:
        return self._stack(self._table.slice(start, stop - start), start)
