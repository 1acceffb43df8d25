"""Some columns of a table: ``KEY[-1]``, ``KEY[0:3,5]``, and ``KEY[a,b]`` where the columns have names."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.files.formats import FileFormat, FileSource, UnknownKey
from closedform.files.naming import INDEX_COLUMNS
from closedform.files.specs import join_spec
from closedform.rows.source import Source
from closedform.words.errors import SourceError
from closedform.words.text import printable

__all__ = [
    "RowsSource",
    "SelectedSource",
    "TransposedSource",
    "column_positions",
    "join_columns",
    "open_selected",
    "positions_text",
    "split_columns",
    "split_selection",
]

#: Bytes of a table that are read at once, where only some of its columns are kept.
_BLOCK_BYTES = 64 * 2**20
_SELECTION = re.compile(r"(.*)\[([^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*)\]", re.DOTALL)
_NUMBER = re.compile(r"-?\d+")
_RANGE = re.compile(r"(-?\d+)?:(-?\d+)?")


def split_selection(key: str) -> tuple[str, str] | None:
    """Split ``KEY[COLUMNS]``; None where there are no brackets at the end.

    Example:
        >>> split_selection("run/X[-1]"), split_selection("[0:3]"), split_selection("X")
        (('run/X', '-1'), ('', '0:3'), None)
    """
    match = _SELECTION.fullmatch(key)
    return None if match is None else (match[1], match[2])


def column_positions(text: str, width: int) -> list[int] | None:
    """Return the columns that numbers and ranges name, counted from 0, negative ones from the end.

    None where the text is no list of numbers and ranges.

    Raises:
        SourceError: a column is not there.

    Example:
        >>> column_positions("0:2,-1", 5), column_positions("y", 5)
        ([0, 1, 4], None)
    """
    found: list[int] = []
    for part in text.replace(" ", "").split(","):
        if _NUMBER.fullmatch(part):
            if not -width <= int(part) < width:
                raise SourceError(f"there is no column {part} in a table of {width} columns, 0 to {width - 1}.")
            found.append(int(part) % width)
        elif (match := _RANGE.fullmatch(part)) is not None:
            ends = (None if end is None else int(end) for end in match.groups())
            found += range(width)[slice(*ends)]
        else:
            return None
    return found


def positions_text(positions: Sequence[int]) -> str:
    """Return ascending columns as numbers and ranges, the inverse of :func:`column_positions`.

    Example:
        >>> positions_text([0, 1, 2, 5])
        '0:3,5'
    """
    parts: list[str] = []
    start = 0
    for end in range(1, len(positions) + 1):
        if end == len(positions) or positions[end] != positions[end - 1] + 1:
            first, last = positions[start], positions[end - 1]
            parts.append(str(first) if first == last else f"{first}:{last + 1}")
            start = end
    return ",".join(parts)


def join_columns(columns: Sequence[str]) -> str:
    """Return the key of several columns; names that hold a comma or a line break are quoted as in CSV.

    Example:
        >>> join_columns(["age", "height, cm"])
        'age,"height, cm"'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(columns)
    return text.getvalue().removesuffix("\r\n")


def split_columns(key: str, known: Sequence[str], labels: Collection[str] = ()) -> list[str]:
    """Return the columns that ``key`` names; an empty key names all of them.

    A number that is no name counts from the left, a negative one from the right.

    Args:
        key: Names or numbers.
        known: All columns.
        labels: Those that the file calls labels of the rows; numbers do not count them.

    Raises:
        UnknownKey: one of them is not in ``known``.
        SourceError: a number that is that of a column of row numbers.

    Example:
        >>> split_columns('age,"height, cm"', ["age", "sex", "height, cm"]), split_columns("-1", ["age", "sex"])
        (['age', 'height, cm'], ['sex'])
    """
    if not key:
        return list(known)
    if key in known:
        return [key]
    try:
        written = next(csv.reader(io.StringIO(key, newline=""), strict=True), [key])
    except csv.Error:
        raise UnknownKey(key) from None
    columns = [name if name in known else name.strip() for name in written]
    if any(name not in known for name in columns):
        counted = [name for name in known if name not in labels]
        positions = column_positions(key, len(counted))
        if positions is not None:
            return [_counted(counted, position) for position in positions]
    for column in columns:
        if column not in known:
            raise UnknownKey(column)
    return columns


def _counted(columns: Sequence[str], position: int) -> str:
    """Return the column at a position.

    Raises:
        SourceError: it holds the row numbers that pandas writes.
    """
    name = columns[position]
    if name in INDEX_COLUMNS:
        called = f"'{name}'" if name else "without a name"
        raise SourceError(
            f"column {position} is the one {called}, which holds row numbers; the columns are {', '.join(columns)}. "
            "Name the one you mean."
        )
    return name


@final
class SelectedSource(FileSource):
    """Some columns of another table, in the order given."""

    def __init__(self, source: Source, positions: Sequence[int], name: str) -> None:
        self._source, self._positions = source, torch.tensor(positions, dtype=torch.int64, device="cpu")
        self._adjacent = list(positions) == list(range(positions[0], positions[0] + len(positions)))
        self.name, self.dtype, self.notes = name, source.dtype, source.notes
        self.shape = (source.shape[0], len(positions))
        self.streams = source.streams if isinstance(source, FileSource) else True
        names = getattr(source, "columns", None)
        self.columns = None if names is None else tuple(names[position] for position in positions)

    @override
    def read(self, start: int, stop: int) -> Tensor:
        size = max(1, _BLOCK_BYTES // (self._source.shape[1] * self.dtype.itemsize))
        if not self.streams or stop - start <= size:
            return self._chosen_of(self._source.read(start, stop))

        # Of a table larger than memory one column may well fit, and the others must not be there at once.
        chosen: Tensor | None = None
        for first in range(start, stop, size):
            last = min(first + size, stop)
            part = self._source.read(first, last).index_select(1, self._positions)
            chosen = part.new_empty(stop - start, *part.shape[1:]) if chosen is None else chosen
            chosen[first - start : last - start] = part
        assert chosen is not None
        return chosen

    def _chosen_of(self, block: Tensor) -> Tensor:
        """Return the columns of a block; where they are most of it, side by side, they are not copied."""
        first, count = int(self._positions[0]), len(self._positions)
        if self._adjacent and 2 * count > block.shape[1]:
            return block.narrow(1, first, count)
        return block.index_select(1, self._positions)

    @override
    def close(self) -> None:
        if isinstance(self._source, FileSource):
            self._source.close()


@final
class RowsSource(FileSource):
    """Some consecutive rows of another table.

    Args:
        source: The table.
        start: The first of them.
        stop: The row after the last.
    """

    def __init__(self, source: FileSource, start: int, stop: int) -> None:
        self._source, self._first = source, start
        self.name, self.dtype, self.columns = source.name, source.dtype, source.columns
        self.notes, self.streams = source.notes, source.streams
        self.shape = (stop - start, *source.shape[1:])
        self.row_labels = None if source.row_labels is None else source.row_labels.part(start, stop)

    @override
    def read(self, start: int, stop: int) -> Tensor:
        return self._source.read(self._first + start, self._first + min(stop, self.shape[0]))

    @override
    def close(self) -> None:
        self._source.close()


@final
class TransposedSource(FileSource):
    """Another table with its axes in reverse; it is read whole, so it has to fit in memory."""

    streams = False

    def __init__(self, source: FileSource) -> None:
        self._source = source
        self.name, self.dtype = f"{source.name}.T", source.dtype
        self.notes = (*source.notes, f"{printable(source.name)} was transposed, as the key asks")
        self.shape = source.shape[::-1]

    @override
    def read(self, start: int, stop: int) -> Tensor:
        whole = self._source.read(0, self._source.shape[0])
        return whole.permute(*reversed(range(whole.ndim)))[start:stop].contiguous()

    @override
    def close(self) -> None:
        self._source.close()


def open_selected(form: FileFormat, path: Path, key: str, budget: int) -> FileSource:
    """Open a key, or the columns ``KEY[COLUMNS]`` or the transpose ``KEY.T`` of one.

    Raises:
        UnknownKey: the file holds no such table, or the table no such columns.
    """
    try:
        return form.open(path, key, budget)
    except UnknownKey:
        selection = split_selection(key)
        if selection is not None and not form.columns:
            source = form.open(path, selection[0], budget)
            width = source.shape[1] if len(source.shape) == 2 else 0
            positions = column_positions(selection[1], width) if width else None
            if positions is None:
                raise
            return SelectedSource(source, positions, printable(join_spec(path, key)))
        if key.endswith(".T") and not form.columns:
            return TransposedSource(form.open(path, key.removesuffix(".T"), budget))
        raise
