"""Parquet, decoded batch by batch within its row groups."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from closedform.files.columns import ColumnSource, arrow_errors, entries_of, is_list, list_widths, words_of
from closedform.files.formats import Entry, FileFormat, FileSource, import_extra, reading

__all__ = ["ParquetFormat", "ParquetSource"]

#: Bytes that are decoded at once.
_BATCH_BYTES = 1 << 24


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
    lists = [field.name for field in file.schema_arrow if is_list(field.type)]
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
