"""Which tables of a file are the features and which the targets: by name, never by guess.

A shape alone does not tell a target from row numbers, ids, times, lengths or masks; where nothing else speaks, the user
is asked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from closedform.files.formats import PARAMETER, Entry, FileFormat, UnknownKey, describe, key_error, short_key
from closedform.files.naming import (
    INDEX_COLUMNS,
    LAYER_NAMES,
    TARGET_COLUMNS,
    WEIGHT_NAMES,
    is_label,
    is_test,
    names_target,
    other_words,
    stem,
)
from closedform.files.opening import file_format, join_spec, split_spec
from closedform.files.selection import column_positions, join_columns, positions_text, split_columns, split_selection
from closedform.files.shapes import misfit
from closedform.words.errors import SourceError
from closedform.words.text import printable

__all__ = ["Discovery", "discover"]

#: Tables among which the one reading that shapes would allow is looked for, to name it in the question.
_FEW = 50


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


@final
@dataclass(frozen=True)
class _Table:
    path: Path
    key: str
    shape: tuple[int, ...]

    @property
    def spec(self) -> str:
        return join_spec(self.path, self.key)


@final
@dataclass(frozen=True)
class _Frame:
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

    def choose(self, names: list[str]) -> _Table:
        """Return the table of these columns."""
        shape = (self.n_rows, sum(self.columns[name].shape[1] for name in names))
        if self.key is None:
            return _Table(self.path, join_columns(names), shape)
        text = positions_text([int(name) for name in names]) if self.numbered else join_columns(names)
        return _Table(self.path, f"{self.key}[{text}]", shape)

    @property
    def n_rows(self) -> int:
        return next(iter(self.columns.values())).shape[0]

    def names(self, key: str) -> list[str]:
        """Return the columns that a user's key names, with or without the key of the table around them.

        Raises:
            UnknownKey: there is no such column.
        """
        selection = split_selection(key)
        if key not in self.columns and selection is not None and selection[0].strip("/") == (self.key or ""):
            key = selection[1]
        return split_columns(key, list(self.columns))


@final
@dataclass(frozen=True)
class _Files:
    """What files hold, each looked into once."""

    seen: dict[Path, tuple[FileFormat, dict[str, Entry]]] = field(default_factory=dict)

    def look(self, path: Path) -> tuple[FileFormat, dict[str, Entry]]:
        if path not in self.seen:
            form = file_format(path)
            self.seen[path] = form, form.entries(path)
        return self.seen[path]

    def table(self, path: Path, key: str | None) -> _Table:
        """Return the table of this key, or of the only table in the file where the key is None.

        Raises:
            SourceError: there is no such table, or more than one.
        """  # noqa: DOC501  # key_error makes it
        form, entries = self.look(path)
        if form.columns:
            try:
                columns = split_columns(key or "", list(entries))
            except UnknownKey as error:
                raise key_error(path, str(error), entries) from None
            return _Table(path, key or "", _Frame(path, None, entries).choose(columns).shape)
        if key is None:
            numeric = [name for name, entry in entries.items() if entry.numeric or entry.columns]
            if len(entries) == 1 and not numeric:
                raise SourceError(f"{path} holds {describe(entries)} values, which are not real numbers.")
            if len(numeric) != 1:
                raise SourceError(f"{path} is not one table: {describe(entries)}. Name one as {path}::KEY.")
            key = numeric[0]
        key = key.strip("/")
        if key in entries:
            return _Table(path, key, entries[key].shape)
        return self._part(path, key, entries)

    def _part(self, path: Path, key: str, entries: dict[str, Entry]) -> _Table:
        """Return columns of a table in the file, or its transpose.

        Raises:
            SourceError: the file holds neither a table nor a column of this name.
        """  # noqa: DOC501  # key_error makes it
        if key.endswith(".T") and (entry := entries.get(key.removesuffix(".T"))) is not None:
            return _Table(path, key, entry.shape[::-1])
        selection = split_selection(key)
        if selection is not None and (entry := entries.get(selection[0].strip("/"))) is not None:
            if entry.columns is not None:
                try:
                    return _Frame(path, selection[0].strip("/"), entry.columns).choose(
                        split_columns(selection[1], list(entry.columns))
                    )
                except UnknownKey as error:
                    raise key_error(path, str(error), entry.columns) from None
            if len(entry.shape) == 2 and (positions := column_positions(selection[1], entry.shape[1])) is not None:
                return _Table(path, key, (entry.shape[0], len(positions)))
        holders = [name for name, entry in entries.items() if key in (entry.columns or ())]
        if len(holders) == 1:
            columns = entries[holders[0]].columns or {}
            return _Frame(path, holders[0], columns).choose([key])
        raise key_error(path, key, entries)

    def given(self, path: Path, key: str) -> _Table:
        """Return what the user named: a key of this file, or else another file.

        Raises:
            SourceError: it is neither.
        """
        other, other_key = split_spec(key)
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
    path, files = Path(path), _Files()
    x, y, x_test, y_test, weight = (_of_this_file(path, key) for key in (x, y, x_test, y_test, weight))
    frame = _frame(files, path, x, y)
    if frame is not None:
        how, train_x, train_y, row_weight = _find_columns(files, frame, x, y, weight)
    else:
        given_x, given_y, given_weight = (None if key is None else files.given(path, key) for key in (x, y, weight))
        how, train_x, train_y, row_weight = _find_tables(files, path, given_x, given_y, given_weight)
    test_x = test_y = None
    if test_rows:
        test_x, test_y = _find_test(files, path, train_x, train_y, x_test, y_test)
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


_Found = tuple[str, _Table, _Table, _Table | None]


def _frame(files: _Files, path: Path, x: str | None, y: str | None) -> _Frame | None:
    """Return the table that holds both features and targets as its columns; None where they are tables of their own."""
    form, entries = files.look(path)
    if form.columns:
        return _Frame(path, None, entries)
    frames = {key: _Frame(path, key, entry.columns) for key, entry in entries.items() if entry.columns}
    if x is not None:
        holder = _holder(x, entries)
        if holder in frames:
            return frames[holder]
        return _numbered(path, holder, entries, y) if holder is not None and split_selection(x) is None else None

    arrays = [key for key, entry in entries.items() if entry.numeric and entry.shape and _is_data(key, entry)]
    if y is None:
        return next(iter(frames.values())) if len(frames) == 1 and not arrays else None
    if y.strip("/") in entries:
        return None
    holder = _holder(y, entries)
    if holder is None:
        holders = [key for key, frame in frames.items() if y in frame.columns] or list(frames)
        holder = holders[0] if len(holders) == 1 else None
    if holder in frames:
        # Tables of their own with as many rows may be the features just as well as the other columns.
        rivals = [key for key in arrays if entries[key].shape[0] == frames[holder].n_rows]
        return None if rivals else frames[holder]
    tables = [key for key in arrays if len(entries[key].shape) == 2]
    return _numbered(path, holder or tables[0], entries, y) if holder is not None or len(tables) == 1 else None


def _holder(key: str, entries: dict[str, Entry]) -> str | None:
    """Return the table that ``KEY`` or ``KEY[COLUMNS]`` names."""
    key = key.strip("/")
    selection = split_selection(key)
    for name in (key, selection[0].strip("/") if selection else key):
        if name in entries:
            return name
    return None


def _numbered(path: Path, key: str, entries: dict[str, Entry], y: str | None) -> _Frame | None:
    """Return a table without names whose columns ``y`` names by number; None where it does not."""
    entry = entries[key]
    if y is None or y.strip("/") in entries or len(entry.shape) != 2 or not entry.numeric:
        return None
    selection = split_selection(y)
    if selection is not None and selection[0].strip("/") != key:
        return None
    if re.fullmatch(r"[-\d:,\s]+", y if selection is None else selection[1]) is None:
        return None
    column = Entry((entry.shape[0], 1), entry.dtype, numeric=True)
    return _Frame(path, key, {str(position): column for position in range(entry.shape[1])}, numbered=True)


def _find_columns(files: _Files, frame: _Frame, x: str | None, y: str | None, weight: str | None) -> _Found:
    names, columns, path = list(frame.columns), frame.columns, frame.path
    how = "As given" if x and y else "By name"
    used: set[str] = set()

    def take(key: str) -> _Table:
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

    if x is not None and x.strip("/") != frame.key:
        return how, take(x), target, row_weight

    labels = {name for name in names if columns[name].role}
    labels |= set() if frame.numbered else INDEX_COLUMNS.intersection(names)
    features = [name for name in names if name not in used | labels]
    if not features:
        raise SourceError(f"{path} has no column left for the features: {describe(columns)}. Pass --x COL.")

    if labels - used:
        how += " (row numbers left out)"

    return how, frame.choose(features), target, row_weight


def _find_tables(files: _Files, path: Path, x: _Table | None, y: _Table | None, weight: _Table | None) -> _Found:
    _, entries = files.look(path)
    tables = [_Table(path, key, entry.shape) for key, entry in entries.items() if entry.numeric]
    weights = [table for table in tables if _last_part(table.key) in WEIGHT_NAMES]
    given = [table for table in (x, y, weight) if table is not None]
    taken = {table.key for table in weights + given if table.path == path}
    free = [
        _Table(path, key, entry.shape)
        for key, entry in entries.items()
        if key not in taken and entry.columns is None and _is_data(key, entry)
    ]
    if x is not None and y is not None:
        how = "As given"
    else:
        how, x, y = _pair(path, entries, free, x, y)
    rows = x.shape[:-1]
    fitting = [table for table in weights if table.shape == rows and not is_test(table.key)]
    return how, x, y, weight or (fitting[0] if len(fitting) == 1 else None)


def _pair(
    path: Path, entries: dict[str, Entry], free: list[_Table], x: _Table | None, y: _Table | None
) -> tuple[str, _Table, _Table]:
    """Return what told and the one reading of the free tables, x or y as given.

    Raises:
        SourceError: there is no such reading, or more than one.
    """  # noqa: DOC501  # _question and _why_not make it
    misnamed = None
    by_rank = _named_pairs(free, x, y)
    for rank in sorted(by_rank):
        reasons = [(pair, _misfit(path, entries, *pair)) for pair in by_rank[rank]]
        fitting = [pair for pair, reason in reasons if reason is None]
        if len(fitting) == 1:
            return "By name", *fitting[0]

        if fitting:
            raise _question(path, entries, "more than one reading as")

        # Tables whose names say what they are are not passed over for others that happen to fit.
        misnamed = misnamed or (reasons[0][1] if rank[0] == 0 else None)

    if misnamed:
        raise SourceError(f"{path}: {misnamed}. It holds: {describe(entries)}.")

    targets = [y] if y else [] if x else [table for table in free if names_target(table.key)]
    if len(targets) == 1:
        beside = [table for table in free if _could_be_features(table, targets[0], entries)]
        if len(beside) == 1:
            return ("By shape" if y else "By name and shape"), beside[0], targets[0]

    raise _why_not(path, entries, free, x, y)


def _could_be_features(table: _Table, target: _Table, entries: dict[str, Entry]) -> bool:
    fits = table != target and entries[table.key].numeric and _fits(table, target)
    return fits and not is_label(table.key) and (_width(table) > 1 or _width(target) == 1)


def _named_pairs(
    free: list[_Table], x: _Table | None, y: _Table | None
) -> dict[tuple[int, int], list[tuple[_Table, _Table]]]:
    """Return the pairs of tables whose names read as features and targets, by how well; lower is better.

    Best is a pair of words with nothing else, then one with the same other words on both sides, then a word on one
    side where the user gave the other.
    """
    targets: dict[tuple[int, tuple[str, ...]], list[_Table]] = {}
    for table in [y] if y else free:
        if y or not is_label(table.key):
            for reading in other_words(table.key)[1]:
                targets.setdefault(reading, []).append(table)
    plain = [table for reading, tables in targets.items() if reading[1] == () for table in tables]

    found: dict[tuple[int, int], dict[tuple[_Table, _Table], None]] = {}
    for table in [x] if x else free:
        readings = other_words(table.key)[0]
        if x:
            pairs = [((1, 0), target) for target in plain]
        elif y and any(other == () for _, other in readings):
            pairs = [((1, 0), y)]
        else:
            pairs = []
        pairs += [((0, len(reading[1])), target) for reading in readings for target in targets.get(reading, ())]
        for rank, target in pairs:
            if target != table:
                found.setdefault(rank, {})[table, target] = None
    # A pair counts where it reads best.
    seen: set[tuple[_Table, _Table]] = set()
    best: dict[tuple[int, int], list[tuple[_Table, _Table]]] = {}
    for rank in sorted(found):
        best[rank] = [pair for pair in found[rank] if pair not in seen]
        seen.update(found[rank])
    return {rank: pairs for rank, pairs in best.items() if pairs}


def _why_not(
    path: Path, entries: dict[str, Entry], free: list[_Table], x: _Table | None, y: _Table | None
) -> SourceError:
    """Return the error for tables that no name tells apart."""
    if list(entries) == [""]:
        if not entries[""].numeric:
            return SourceError(f"{path} holds {describe(entries)} values, which are not real numbers.")
        return SourceError(
            f"{path} holds one table: {describe(entries)}. Pass the other one with --y FILE, or name the columns of "
            "it that are the targets: --y -1."
        )

    few = free if len(free) <= _FEW else []
    pairs = [(a, b) for a in ([x] if x else few) for b in ([y] if y else few) if a != b]
    reasons = [_misfit(path, entries, *pair) for pair in pairs]
    if all(reasons) and (reason := _only_reason(few, pairs, reasons)):
        return SourceError(f"{path}: {reason}. It holds: {describe(entries)}.")

    if len(free) == 1 and not pairs:
        return SourceError(
            f"{path} holds one table: {describe(entries)}. Pass the other one with --y FILE::KEY, or name the columns "
            "of it that are the targets: --y -1."
        )

    parameters = [key for key, entry in entries.items() if entry.role == PARAMETER or _last_part(key) in LAYER_NAMES]
    if parameters and not any(_fits(*pair) for pair in pairs):
        return SourceError(
            f"{path} holds the parameters of a layer, not data: {describe(entries)}. If they are what you mean, pass "
            "--x KEY --y KEY."
        )

    shaped = [pair for pair, reason in zip(pairs, reasons, strict=True) if reason is None]
    shaped = [pair for pair in shaped if _width(pair[0]) > 1 or _width(pair[1]) == 1]
    if len(shaped) == 1:
        ((some_x, some_y),) = shaped
        return SourceError(
            f"{path}: only the shapes say that {short_key(some_x.key)} {some_x.shape} could be the features of "
            f"{short_key(some_y.key)} {some_y.shape}, and row numbers, ids, times or masks have that shape too. It "
            f"holds: {describe(entries)}. Pass --x KEY --y KEY."
        )

    return _question(path, entries, "more than one reading as" if shaped else "no")


def _question(path: Path, entries: dict[str, Entry], found: str) -> SourceError:
    return SourceError(f"{path} has {found} features and targets; it holds: {describe(entries)}. Pass --x KEY --y KEY.")


def _is_data(key: str, entry: Entry) -> bool:
    """Whether a key may be taken without being named: no test rows, weights, labels of rows, parameters of a layer."""
    return not entry.role and not is_test(key) and _last_part(key) not in WEIGHT_NAMES | LAYER_NAMES


def _last_part(key: str) -> str:
    return key.replace(".", "/").rsplit("/", 1)[-1].lower()


def _misfit(path: Path, entries: dict[str, Entry], x: _Table, y: _Table) -> str | None:
    """Why two tables do not fit; a table of another file, which the user named, is checked when it is opened."""
    x_entry, y_entry = (
        entries[table.key] if table.path == path and table.key in entries else Entry(table.shape, "", numeric=True)
        for table in (x, y)
    )
    return misfit(x.key or str(x.path), x_entry, y.key or str(y.path), y_entry)


def _only_reason(free: list[_Table], pairs: list[tuple[_Table, _Table]], reasons: list[str | None]) -> str | None:
    """Why the only two tables that could be the features and the targets are not; None where there are more."""
    if len(pairs) == 1:
        return reasons[0]
    if len(free) != 2 or len(pairs) != 2:
        return None
    # Of two tables without telling names the wider one would be the features.
    return reasons[0 if len(pairs[0][0].shape) >= len(pairs[0][1].shape) else 1]


def _fits(x: _Table, y: _Table) -> bool:
    return len(x.shape) >= 2 and len(y.shape) >= 1 and x.shape[:-1] in (y.shape, y.shape[:-1])


def _width(table: _Table) -> int:
    return table.shape[-1] if len(table.shape) > 1 else 1


def _find_test(
    files: _Files, path: Path, x: _Table, y: _Table, x_test: str | None, y_test: str | None
) -> tuple[_Table, _Table] | tuple[None, None]:
    _, entries = files.look(path)
    test_x = None if x_test is None else _given_test(files, path, x_test, x)
    test_y = None if y_test is None else _given_test(files, path, y_test, y)
    if (
        x_test is not None
        and test_x is not None
        and y_test is None
        and test_x.path != path
        and x.path == y.path
        and x.key
    ):
        test_y = files.table(test_x.path, y.key)

    tables = [_Table(path, key, entry.shape) for key, entry in entries.items() if entry.numeric]
    test_x = test_x or _counterpart(tables, x)
    test_y = test_y or _counterpart(tables, y)
    if x_test is None and y_test is None:
        complete = test_x is not None and test_y is not None and _fits(test_x, test_y)
        if not (complete and test_x and test_y and _same_columns(x, test_x) and _same_columns(y, test_y)):
            return None, None

    if test_x is None or test_y is None:
        missing = "--x-test" if test_x is None else "--y-test"
        raise SourceError(
            f"test rows need features and targets, and one of them is not in {path}, which holds: "
            f"{describe(entries)}. Pass {missing} KEY."
        )

    return test_x, test_y


def _given_test(files: _Files, path: Path, key: str, train: _Table) -> _Table:
    """Return a test table named by the user; a file or a frame alone is read by the columns of the training table."""
    other, other_key = split_spec(key)
    if other_key is None and os.path.exists(other):
        form, entries = files.look(other)
        selection = split_selection(train.key)
        if train.key and (form.columns or train.key in entries or (selection and selection[0] in entries)):
            return files.table(other, train.key)
    entry = files.look(path)[1].get(key.strip("/"))
    if entry is not None and entry.columns is not None and (selection := split_selection(train.key)) is not None:
        return files.table(path, f"{key.strip('/')}[{selection[1]}]")
    return files.given(path, key)


def _counterpart(tables: Iterable[_Table], train: _Table) -> _Table | None:
    """Return the only table named as ``train`` is, with test in the place of train or beside it."""
    if is_test(train.key):
        return None
    wanted = stem(train.key)
    found = [table for table in tables if is_test(table.key) and stem(table.key) == wanted]
    return found[0] if len(found) == 1 else None


def _same_columns(train: _Table, test: _Table) -> bool:
    return len(train.shape) == len(test.shape) and _width(train) == _width(test)


def _sentence(
    path: Path,
    how: str,
    x: _Table,
    y: _Table,
    test_x: _Table | None,
    test_y: _Table | None,
    weight: _Table | None,
    *,
    test_rows: bool,
) -> str:
    def say(table: _Table) -> str:
        return f"{_short(path, table)} {table.shape}"

    test = f"; test rows: X = {say(test_x)}, Y = {say(test_y)}" if test_x and test_y else "; no test rows"
    test = test if test_rows else ""
    weighted = f"; sample weight = {say(weight)}" if weight else ""
    return printable(f"{how}: X = {say(x)}, Y = {say(y)}{test}{weighted}.")


def _short(path: Path, table: _Table) -> str:
    """Name a table for the sentence: without the file in question, and cut where it has many columns."""
    if table.path != path:
        return table.spec if len(table.key) <= 60 else f"{table.path}::{table.key[:57]}..."
    name = table.key or str(table.path)
    return name if len(name) <= 60 else f"{name[:57]}..."
