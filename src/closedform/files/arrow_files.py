"""Arrow (Feather) by record batches: files with random access, and streams in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from closedform.files.columns import ColumnSource, arrow_errors, entries_of, list_widths, words_of
from closedform.files.formats import Entry, FileFormat, FileSource, import_extra, reading

__all__ = ["ArrowFormat", "ArrowSource"]

#: The first bytes of an Arrow file that is not just a stream.
_ARROW_MARK = b"ARROW1"


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
