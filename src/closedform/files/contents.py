"""What files hold: tables, tables of named columns, and each file looked into once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from closedform.files.formats import Entry, FileFormat, UnknownKey, describe, key_error
from closedform.files.recognition import file_format
from closedform.files.selection import column_positions, join_columns, positions_text, split_columns, split_selection
from closedform.files.specs import join_spec, split_spec
from closedform.words.errors import SourceError

__all__ = ["Files", "Frame", "Table", "holder_of", "is_key", "known_key"]


@final
@dataclass(frozen=True)
class Table:
    """A table of numbers in a file: its key there, which may name columns or a transpose, and its shape."""

    path: Path
    key: str
    shape: tuple[int, ...]

    @property
    def spec(self) -> str:
        """``FILE::KEY``."""
        return join_spec(self.path, self.key)

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return self.shape[-1] if len(self.shape) > 1 else 1

    def fits(self, target: Table) -> bool:
        """Whether these could be the features of a target, by their shapes."""
        leading = self.shape[:-1]
        return len(self.shape) >= 2 and len(target.shape) >= 1 and leading in (target.shape, target.shape[:-1])


@final
@dataclass(frozen=True)
class Frame:
    """A table of which some columns are features and others targets; columns without names are numbered.

    Attributes:
        key: The key of the table in its file; None where the file is the table and columns are its keys.
        columns: Its columns.
        numbered: Whether the columns are numbers, because they have no names.
    """

    path: Path
    key: str | None
    columns: Mapping[str, Entry]
    numbered: bool = False

    def choose(self, names: list[str]) -> Table:
        """Return the table of these columns."""
        shape = (self.n_rows, sum(self.columns[name].shape[1] for name in names))
        if self.key is None:
            return Table(self.path, join_columns(names), shape)
        text = positions_text([int(name) for name in names]) if self.numbered else join_columns(names)
        return Table(self.path, f"{self.key}[{text}]", shape)

    @property
    def n_rows(self) -> int:
        """Rows of each column."""
        return next(iter(self.columns.values())).shape[0]

    def names(self, key: str) -> list[str]:
        """Return the columns that a user's key names, with or without the key of the table around them.

        Raises:
            UnknownKey: there is no such column.
        """
        selection = split_selection(key)
        if key not in self.columns and selection is not None and is_key(selection[0], self.key or ""):
            key = selection[1]
        return split_columns(key, list(self.columns), self.labels)

    @property
    def labels(self) -> list[str]:
        """The columns that the file itself calls labels of the rows."""
        return [name for name, column in self.columns.items() if column.role]


@final
@dataclass(frozen=True)
class Files:
    """What files hold, each looked into once."""

    seen: dict[Path, tuple[FileFormat, dict[str, Entry]]] = field(default_factory=dict)

    def look(self, path: Path) -> tuple[FileFormat, dict[str, Entry]]:
        """Return the format of a file and its entries."""
        if path not in self.seen:
            form = file_format(path)
            self.seen[path] = form, form.entries(path)
        return self.seen[path]

    def table(self, path: Path, key: str | None) -> Table:
        """Return the table of this key, or of the only table in the file where the key is None.

        Raises:
            SourceError: there is no such table, or more than one.
        """  # noqa: DOC501  # key_error makes it
        form, entries = self.look(path)
        if form.columns:
            try:
                frame = Frame(path, None, entries)
                columns = split_columns(key or "", list(entries), frame.labels)
            except UnknownKey as error:
                raise key_error(path, str(error), entries) from None
            if not key:
                columns = [name for name in columns if name not in frame.labels]
            return Table(path, key or "", frame.choose(columns).shape)

        if key is None:
            numeric = [name for name, entry in entries.items() if entry.numeric or entry.columns]
            if len(entries) == 1 and not numeric:
                raise SourceError(f"{path} holds {describe(entries)} values, which are not real numbers.")
            if len(numeric) != 1:
                raise SourceError(f"{path} is not one table: {describe(entries)}. Name one as {path}::KEY.")
            key = numeric[0]

        key = known_key(key, entries)
        if key in entries:
            # Labels of the rows, which the file names as such, are read only by name.
            named = entries[key].columns or {}
            data = [name for name, column in named.items() if not column.role]
            return Table(path, key, Frame(path, key, named).choose(data).shape if data else entries[key].shape)
        return self._part(path, key, entries)

    def _part(self, path: Path, key: str, entries: dict[str, Entry]) -> Table:
        """Return columns of a table in the file, or its transpose.

        Raises:
            SourceError: the file holds neither a table nor a column of this name.
        """  # noqa: DOC501  # key_error makes it
        if key.endswith(".T") and (entry := entries.get(key.removesuffix(".T"))) is not None:
            return Table(path, key, entry.shape[::-1])
        selection = split_selection(key)
        if selection is not None and (table := known_key(selection[0], entries)) in entries:
            entry = entries[table]
            if entry.columns is not None:
                try:
                    frame = Frame(path, table, entry.columns)
                    return frame.choose(split_columns(selection[1], list(entry.columns), frame.labels))
                except UnknownKey as error:
                    raise key_error(path, str(error), entry.columns) from None
            if len(entry.shape) == 2 and (positions := column_positions(selection[1], entry.shape[1])) is not None:
                return Table(path, key, (entry.shape[0], len(positions)))
        frames = [Frame(path, name, entry.columns) for name, entry in entries.items() if entry.columns]
        holders = [(frame, columns) for frame in frames if (columns := _columns_of(frame, key))]
        if len(holders) == 1:
            ((frame, columns),) = holders
            return frame.choose(columns)
        raise key_error(path, key, entries)

    def given(self, path: Path, key: str) -> Table:
        """Return what the user named: a key of this file, or else another file.

        Raises:
            SourceError: it is neither.
        """
        other, other_key = split_spec(key)
        entries = self.look(path)[1]
        if holder_of(key, entries) is not None:
            return self.table(path, key)
        if other_key is not None:
            return self.table(other, other_key)
        try:
            return self.table(path, key)
        except SourceError:
            try:
                return self.table(other, None)
            except SourceError:
                if os.path.exists(other):
                    raise
            raise


def _columns_of(frame: Frame, key: str) -> list[str]:
    """Return the columns of a frame that a key names; none where it names anything else."""
    try:
        return frame.names(key)
    except (UnknownKey, SourceError):
        return []


def known_key(key: str, entries: Mapping[str, Entry]) -> str:
    """Return a key as the file has it: one that is not there as written may stand there without slashes around it."""
    return key if key in entries else key.strip("/")


def is_key(written: str, key: str) -> bool:
    """Return whether a user who wrote this means that key."""
    return key in (written, written.strip("/"))


def holder_of(key: str, entries: Mapping[str, Entry]) -> str | None:
    """Return the table that ``KEY`` or ``KEY[COLUMNS]`` names; None where there is none."""
    selection = split_selection(key)
    for name in (key, key if selection is None else selection[0]):
        if (known := known_key(name, entries)) in entries:
            return known
    return None
