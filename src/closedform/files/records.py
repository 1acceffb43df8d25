"""Tables of records: arrays of a structured dtype, whose fields are named columns."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import numpy as np
from torch import Tensor
from typing_extensions import override

from closedform.files.formats import Entry, FileSource, UnknownKey, native_dtype, table_name
from closedform.files.selection import split_columns, split_selection
from closedform.rows.tensors import array_to_tensor
from closedform.words.errors import DataTypeError, SourceError
from closedform.words.text import printable

__all__ = ["RecordsSource", "array_entry", "record_key"]

_Array = np.ndarray[Any, Any]


def array_entry(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Entry:
    """Return what discovery sees of an array; one of records is a table with named columns.

    Example:
        >>> array_entry((9,), np.dtype([("age", "f4"), ("height", "f8")])).columns["age"]
        Entry(shape=(9, 1), dtype='float32', numeric=True, role='', columns=None)
    """
    if dtype.names is None:
        return Entry(shape, dtype.name, dtype.kind in "fiub")
    if len(shape) != 1:
        return Entry(shape, f"records of {', '.join(map(printable, dtype.names))}", numeric=False)
    columns = {name: Entry((shape[0], _width(dtype[name])), *_numbers(dtype[name].base)) for name in dtype.names}
    return Entry((shape[0], sum(column.shape[1] for column in columns.values())), "table", False, columns=columns)


def _width(field: np.dtype[Any]) -> int:
    return math.prod(field.shape)


def _numbers(dtype: np.dtype[Any]) -> tuple[str, bool]:
    """Return the name of a dtype and whether it is one of real numbers."""
    return str(dtype) if dtype.names is None else "records", dtype.kind in "fiub"


def record_key(key: str, member: str) -> str:
    """Return the columns that ``key`` names of the array ``member``, ``"a,b"`` for ``MEMBER[a,b]``; empty for all.

    Raises:
        UnknownKey: it names something else.
    """
    if key == member:
        return ""
    selection = split_selection(key)
    if selection is not None and selection[0] == member:
        return selection[1]
    if member:
        raise UnknownKey(key)
    return key


@final
class RecordsSource(FileSource):
    """Some fields of an array of records, side by side in their common dtype.

    Args:
        path: The file.
        key: The key of the array, for messages.
        columns: Names of fields, or their numbers; empty for all.
        shape: Of the array.
        dtype: Of the array.
        read: Returns the records of a range of rows.
        streams: Whether it reads no others for that.

    Raises:
        DataTypeError: a field does not hold real numbers.
        SourceError: an array of several axes, or without fields.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        columns: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        read: Callable[[int, int], _Array],
        *,
        streams: bool,
    ) -> None:
        whole = table_name(path, key)
        if len(shape) != 1:
            raise SourceError(f"{whole} holds records in the shape {shape}; save one for each row, .reshape(-1).")
        self.name = table_name(path, f"{key}[{columns}]" if columns else key)
        fields = split_columns(columns, list(dtype.names or ()))
        if not fields:
            raise SourceError(f"{whole} has no columns.")
        for name in fields:
            kind, numeric = _numbers(dtype[name].base)
            if not numeric:
                raise DataTypeError(
                    f"column '{name}' of {whole} holds {kind} values, which are not real numbers; name the columns "
                    "you want (--x COL,COL), or turn it into numbers first."
                )

        if dtype.hasobject:
            raise DataTypeError(f"{whole} holds Python objects, which closedform never loads; save the numbers alone.")

        self.streams, self._read, self._fields = streams, read, fields
        self._array_dtype = np.result_type(*(dtype[name].base for name in fields))
        self.dtype, self.notes = native_dtype(self._array_dtype, self.name)
        self.shape = (shape[0], sum(_width(dtype[name]) for name in fields))
        self.columns = tuple(
            printable(name) if dtype[name].shape == () else f"{printable(name)}[{i}]"
            for name in fields
            for i in range(_width(dtype[name]))
        )

    @override
    def read(self, start: int, stop: int) -> Tensor:
        records = self._read(start, min(stop, self.shape[0]))
        parts = [records[name].reshape(len(records), _width(records.dtype[name])) for name in self._fields]
        if self._array_dtype.kind == "f":
            for name, part in zip(self._fields, parts, strict=True):
                self.heed_rounding(part, f"column '{printable(name)}' of {self.name}", start)
        return array_to_tensor(np.concatenate(parts, axis=1, dtype=self._array_dtype), self.name)[0]
