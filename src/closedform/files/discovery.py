"""Which tables of a file are the features and which the targets: by name, never by guess.

A shape alone does not tell a target from row numbers, ids, times, lengths or masks; where nothing else speaks, the user
is asked.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from closedform.files.contents import Files, Frame, Table, holder_of, is_key, known_key
from closedform.files.formats import Entry, UnknownKey, describe, key_error
from closedform.files.held_out import find_test_rows
from closedform.files.naming import INDEX_COLUMNS, TARGET_COLUMNS, WEIGHT_NAMES, is_test, other_words
from closedform.files.pairing import find_pair, is_data, last_part
from closedform.files.selection import split_selection
from closedform.files.specs import split_spec
from closedform.words.errors import SourceError
from closedform.words.text import printable

__all__ = ["Discovery", "discover"]


@final
@dataclass(frozen=True)
class Discovery:
    """Specs (``FILE`` or ``FILE::KEY``) of the tables of a problem, and a sentence on their choice."""

    x: str
    y: str
    x_test: str | None
    y_test: str | None
    weight: str | None
    sentence: str


def discover(
    path: str | os.PathLike[str],
    *,
    x: str | None = None,
    y: str | None = None,
    x_test: str | None = None,
    y_test: str | None = None,
    weight: str | None = None,
    test_rows: bool = True,
) -> Discovery:
    """Find the features and the targets in a file, and the test rows and sample weights if there are any.

    What is given is kept: a key of ``path``, a ``FILE::KEY``, or another file. The rest is found by name; features
    may be found by shape beside a target that is named. In tables with named columns a column named y, target or
    label is the target and all others are features. The target may be a column of the one table, by name or by
    number: ``y="-1"``. A test file given as ``x_test`` alone is read by the keys of the training tables.

    Args:
        path: A file, a pattern, a folder of Parquet files, or several files as ``join_files`` joins them.
        x: The features.
        y: The targets.
        x_test: The features of the test rows.
        y_test: The targets of the test rows.
        weight: The sample weights.
        test_rows: Whether test rows are of use; else none are looked for or mentioned.

    Returns:
        The specs, to be opened by :func:`closedform.files.open_source`, and a sentence on their choice.

    Raises:
        SourceError: more than one reading of the file is possible, or none; or a key is not there.

    Example:
        >>> import tempfile, pathlib, numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "data.npz")
        ...     np.savez(file, X_train=np.eye(3), y_train=np.arange(3), noise=np.zeros(7))
        ...     print(discover(file).sentence)
        By name: X = X_train (3, 3), Y = y_train (3,); no test rows.
    """
    path, files = Path(path), Files()
    x, y, x_test, y_test, weight = (_of_this_file(path, key) for key in (x, y, x_test, y_test, weight))
    frame = _frame(files, path, x, y)
    if frame is not None:
        how, train_x, train_y, row_weight = _find_columns(files, frame, x, y, weight)
    else:
        given_x, given_y, given_weight = (None if key is None else files.given(path, key) for key in (x, y, weight))
        how, train_x, train_y, row_weight = _find_tables(files, path, given_x, given_y, given_weight)
    test_x = test_y = None
    if test_rows:
        test_x, test_y = find_test_rows(files, path, train_x, train_y, x_test, y_test)
    return Discovery(
        x=train_x.spec,
        y=train_y.spec,
        x_test=None if test_x is None else test_x.spec,
        y_test=None if test_y is None else test_y.spec,
        weight=None if row_weight is None else row_weight.spec,
        sentence=_sentence(path, how, train_x, train_y, test_x, test_y, row_weight, test_rows=test_rows),
    )


def _of_this_file(path: Path, key: str | None) -> str | None:
    """Return ``KEY`` for ``FILE::KEY`` of this very file, by whatever name, so that its columns count as taken."""
    if key is None:
        return None
    other, other_key = split_spec(key)
    same = other == path or (os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other))
    return other_key if same and other_key is not None else key


_Found = tuple[str, Table, Table, Table | None]


def _frame(files: Files, path: Path, x: str | None, y: str | None) -> Frame | None:
    """Return the table that holds both features and targets as its columns; None where they are tables of their own."""
    form, entries = files.look(path)
    if form.columns:
        return Frame(path, None, entries)
    frames = {key: Frame(path, key, entry.columns) for key, entry in entries.items() if entry.columns}
    arrays = [key for key, entry in entries.items() if entry.numeric and entry.shape and is_data(key, entry)]
    only = next(iter(frames.values())) if len(frames) == 1 and not arrays else None
    if x is not None:
        holder = holder_of(x, entries)
        if holder is None and only is not None:
            return only
        if holder in frames:
            return frames[holder]
        return _numbered(path, holder, entries, y) if holder is not None and split_selection(x) is None else None

    if y is None:
        return only
    if known_key(y, entries) in entries:
        return None
    holder = holder_of(y, entries)
    if holder is None:
        holders = [key for key, frame in frames.items() if y in frame.columns] or list(frames)
        holder = holders[0] if len(holders) == 1 else None
    if holder in frames:
        # Tables of their own with as many rows may be the features just as well as the other columns.
        rivals = [key for key in arrays if entries[key].shape[0] == frames[holder].n_rows]
        return None if rivals else frames[holder]
    tables = [key for key in arrays if len(entries[key].shape) == 2]
    return _numbered(path, holder or tables[0], entries, y) if holder is not None or len(tables) == 1 else None


def _numbered(path: Path, key: str, entries: dict[str, Entry], y: str | None) -> Frame | None:
    """Return a table without names whose columns ``y`` names by number; None where it does not."""
    entry = entries[key]
    if y is None or known_key(y, entries) in entries or len(entry.shape) != 2 or not entry.numeric:
        return None
    selection = split_selection(y)
    if selection is not None and not is_key(selection[0], key):
        return None
    if re.fullmatch(r"[-\d:,\s]+", y if selection is None else selection[1]) is None:
        return None
    column = Entry((entry.shape[0], 1), entry.dtype, numeric=True)
    return Frame(path, key, {str(position): column for position in range(entry.shape[1])}, numbered=True)


def _find_columns(files: Files, frame: Frame, x: str | None, y: str | None, weight: str | None) -> _Found:
    names, columns, path = list(frame.columns), frame.columns, frame.path
    how = "As given" if x and y else "By name"
    used: set[str] = set()

    def take(key: str) -> Table:
        try:
            chosen = frame.names(key)
        except UnknownKey as error:
            if split_spec(key)[1] is None and not os.path.exists(key) and frame.key is None:
                raise key_error(path, str(error), columns) from None
            return files.given(path, key)
        used.update(chosen)
        return frame.choose(chosen)

    if y is not None:
        target = take(y)
        if target.path == path and frame.numbered:
            how = "As given"
    else:
        named = [name for name in names if name.lower() in TARGET_COLUMNS and not columns[name].role]
        if len(named) != 1:
            found = f"the columns {', '.join(named)} could all be" if named else "no column is named like"
            raise SourceError(f"{found} the target of {path}; it holds: {describe(columns)}. Pass --y COL.")
        target = frame.choose(named)
        used.update(named)

    weights = [name for name in names if name.lower() in WEIGHT_NAMES]
    row_weight = None if weight is None else take(weight)
    if row_weight is None:
        row_weight = frame.choose(weights) if len(weights) == 1 else None
        used.update(weights if row_weight else ())

    if x is not None and (frame.key is None or not is_key(x, frame.key)):
        return how, take(x), target, row_weight

    labels = {name for name in names if columns[name].role}
    labels |= set() if frame.numbered else INDEX_COLUMNS.intersection(names)
    features = [name for name in names if name not in used | labels]
    if not features:
        raise SourceError(f"{path} has no column left for the features: {describe(columns)}. Pass --x COL.")

    if labels - used:
        how += " (row numbers left out)"

    return how, frame.choose(features), target, row_weight


def _find_tables(files: Files, path: Path, x: Table | None, y: Table | None, weight: Table | None) -> _Found:
    entries = {key: _as_table(key, entry) for key, entry in files.look(path)[1].items()}
    tables = [Table(path, key, entry.shape) for key, entry in entries.items() if entry.numeric]
    weights = [table for table in tables if last_part(table.key) in WEIGHT_NAMES]
    given = [table for table in (x, y, weight) if table is not None]
    taken = {table.key for table in weights + given if table.path == path}
    free = [
        Table(path, key, entry.shape)
        for key, entry in entries.items()
        if key not in taken and (entry.columns is None or entry.numeric) and is_data(key, entry)
    ]

    if x is not None and y is not None:
        how = "As given"
    else:
        how, x, y = find_pair(path, entries, free, x, y)
    rows = x.shape[:-1]
    fitting = [table for table in weights if table.shape == rows and not is_test(table.key)]
    return how, x, y, weight or (fitting[0] if len(fitting) == 1 else None)


def _as_table(key: str, entry: Entry) -> Entry:
    """Return a table with named columns, all numbers, as one table, where its own name says what it is."""
    data = [column for column in (entry.columns or {}).values() if not column.role]
    if not data or not all(column.numeric for column in data) or not any(other_words(key)):
        return entry
    return replace(entry, shape=(data[0].shape[0], sum(column.shape[1] for column in data)), numeric=True)


def _sentence(
    path: Path,
    how: str,
    x: Table,
    y: Table,
    test_x: Table | None,
    test_y: Table | None,
    weight: Table | None,
    *,
    test_rows: bool,
) -> str:
    def say(table: Table) -> str:
        return f"{_short(path, table)} {table.shape}"

    test = f"; test rows: X = {say(test_x)}, Y = {say(test_y)}" if test_x and test_y else "; no test rows"
    test = test if test_rows else ""
    weighted = f"; sample weight = {say(weight)}" if weight else ""
    return printable(f"{how}: X = {say(x)}, Y = {say(y)}{test}{weighted}.")


def _short(path: Path, table: Table) -> str:
    """Name a table for the sentence: without the file in question, and cut where it has many columns."""
    if table.path != path:
        return table.spec if len(table.key) <= 60 else f"{table.path}::{table.key[:57]}..."
    name = table.key or str(table.path)
    return name if len(name) <= 60 else f"{name[:57]}..."
