"""Which tables of a file are the features and which the targets: by name, else by shape, never by guess."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from closedform.files.columns import join_columns, split_columns
from closedform.files.formats import Entry, UnknownKey, describe, key_error, table_name
from closedform.files.naming import INDEX_COLUMNS, LAYER_NAMES, TARGET_COLUMNS, WEIGHT_NAMES, is_test, pair_rank, stem
from closedform.files.opening import file_format, split_spec
from closedform.files.shapes import misfit
from closedform.words.errors import SourceError

__all__ = ["Discovery", "discover"]


@dataclass(frozen=True)
class Discovery:
    """Specs (``FILE`` or ``FILE::KEY``) of the tables of a problem, and a sentence on their choice."""

    x: str
    y: str
    x_test: str | None
    y_test: str | None
    weight: str | None
    sentence: str


@dataclass(frozen=True)
class _Table:
    path: Path
    key: str
    shape: tuple[int, ...]

    @property
    def spec(self) -> str:
        return table_name(self.path, self.key)


def discover(
    path: str | os.PathLike[str],
    *,
    x: str | None = None,
    y: str | None = None,
    x_test: str | None = None,
    y_test: str | None = None,
    weight: str | None = None,
) -> Discovery:
    """Find the features and the targets in a file, and the test rows and sample weights if there are any.

    What is given is kept: a key of ``path``, a ``FILE::KEY``, or another file. The rest is found by name, and
    where names do not tell, by shape if exactly one assignment fits. In Parquet and CSV files a column named
    y, target or label is the target and all others are features. A test file given as ``x_test`` alone is
    read by the keys of the training tables.

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
    path = Path(path)
    form = file_format(path)
    entries = form.entries(path)
    given_x, given_y, given_weight = (None if key is None else _given(path, key) for key in (x, y, weight))
    find = _find_columns if form.columns else _find_tables
    how, train_x, train_y, row_weight = find(path, entries, given_x, given_y, given_weight)
    test_x, test_y = _find_test(path, entries, train_x, train_y, x_test, y_test)
    return Discovery(
        x=train_x.spec,
        y=train_y.spec,
        x_test=None if test_x is None else test_x.spec,
        y_test=None if test_y is None else test_y.spec,
        weight=None if row_weight is None else row_weight.spec,
        sentence=_sentence(path, how, train_x, train_y, test_x, test_y, row_weight),
    )


_Found = tuple[str, _Table, _Table, _Table | None]


def _table(path: Path, key: str | None) -> _Table:
    """Return the table of this key, or of the only table in the file where the key is None."""
    form = file_format(path)
    entries = form.entries(path)
    if form.columns:
        try:
            columns = split_columns(key or "", list(entries))
        except UnknownKey as error:
            raise key_error(path, str(error), entries) from None
        n_rows = next(iter(entries.values())).shape[0]
        return _Table(path, key or "", (n_rows, len(columns)))
    if key is None:
        numeric = [name for name, entry in entries.items() if entry.numeric]
        if len(entries) == 1 and not numeric:
            raise SourceError(f"{path} holds {describe(entries)} values, which are not real numbers.")
        if len(numeric) != 1:
            raise SourceError(f"{path} is not one table: {describe(entries)}. Name one as {path}::KEY.")
        key = numeric[0]
    key = key.strip("/")
    if key not in entries:
        raise key_error(path, key, entries)
    return _Table(path, key, entries[key].shape)


def _given(path: Path, key: str) -> _Table:
    """Return what the user named: a key of this file, or else another file."""
    other, other_key = split_spec(key)
    if other_key is not None:
        return _table(other, other_key)
    try:
        return _table(path, key)
    except SourceError:
        if not os.path.isfile(other):
            raise
    return _table(other, None)


def _find_tables(
    path: Path, entries: dict[str, Entry], x: _Table | None, y: _Table | None, weight: _Table | None
) -> _Found:
    tables = [_Table(path, key, entry.shape) for key, entry in entries.items() if entry.numeric]
    weights = [table for table in tables if table.key.rsplit("/", 1)[-1].lower() in WEIGHT_NAMES]
    given = [table for table in (x, y, weight) if table is not None]
    taken = [table.key for table in weights + given if table.path == path]
    free = [_Table(path, key, entry.shape) for key, entry in entries.items() if key not in taken and _is_data(key)]
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
    """Return what told (names or shapes) and the one reading of the free tables, x or y as given."""
    pairs = [(some_x, some_y) for some_x in ([x] if x else free) for some_y in ([y] if y else free) if some_x != some_y]
    reasons = [_misfit(path, entries, *pair) for pair in pairs]
    readings = [pair for pair, reason in zip(pairs, reasons, strict=True) if reason is None]
    ranks = [pair_rank(a.key, b.key, x_given=x is not None, y_given=y is not None) for a, b in pairs]
    best = min((rank for rank, reason in zip(ranks, reasons, strict=True) if rank and reason is None), default=None)
    named = [pair for pair, rank in zip(pairs, ranks, strict=True) if rank == best and best and pair in readings]
    if len(named) == 1:
        return "By name", *named[0]
    if not named:
        # Tables whose names say what they are are not passed over for others that happen to fit.
        misnamed = [reason for rank, reason in zip(ranks, reasons, strict=True) if reason and rank and rank[0] == 0]
        if misnamed:
            raise SourceError(f"{path}: {misnamed[0]}. It holds: {describe(entries)}.")
    # A table of one column beside a wider one is the target.
    shaped = [pair for pair in readings if _width(pair[0]) > 1 or _width(pair[1]) == 1]
    if len(named) == 0 and len(shaped) == 1:
        return "By shape", *shaped[0]
    if list(entries) == [""]:
        if not entries[""].numeric:
            raise SourceError(f"{path} holds {describe(entries)} values, which are not real numbers.")
        raise SourceError(f"{path} holds one table: {describe(entries)}. Pass the other one with --y FILE.")
    if not readings and (reason := _only_reason(free, pairs, reasons)):
        raise SourceError(f"{path}: {reason}. It holds: {describe(entries)}.")
    if len(free) == 1 and not pairs:
        raise SourceError(f"{path} holds one table: {describe(entries)}. Pass the other one with --y FILE::KEY.")
    if not free and any(_last_part(key) in LAYER_NAMES for key in entries):
        raise SourceError(
            f"{path} holds the parameters of a layer, not data: {describe(entries)}. If they are what you mean, pass "
            "--x KEY --y KEY."
        )
    found = "more than one reading as" if named or shaped else "no"
    raise SourceError(f"{path} has {found} features and targets; it holds: {describe(entries)}. Pass --x KEY --y KEY.")


def _is_data(key: str) -> bool:
    """Whether a key may be taken without being named: no test rows, no sample weights, no parameters of a layer."""
    return not is_test(key) and _last_part(key) not in WEIGHT_NAMES | LAYER_NAMES


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


def _find_columns(
    path: Path, entries: dict[str, Entry], x: _Table | None, y: _Table | None, weight: _Table | None
) -> _Found:
    names = list(entries)
    n_rows = next(iter(entries.values())).shape[0]
    how = "As given" if x and y else "By name"
    if y is None:
        targets = [name for name in names if name.lower() in TARGET_COLUMNS]
        if len(targets) != 1:
            found = f"the columns {', '.join(targets)} could all be" if targets else "no column is named like"
            raise SourceError(f"{found} the target of {path}; it holds: {describe(entries)}. Pass --y COL.")
        y = _Table(path, join_columns(targets), (n_rows, 1))
    weights = [name for name in names if name.lower() in WEIGHT_NAMES]
    if weight is None and len(weights) == 1:
        weight = _Table(path, join_columns(weights), (n_rows, 1))
    if x is None:
        used = set(INDEX_COLUMNS).union(
            *(split_columns(table.key, names) for table in (y, weight) if table and table.path == path)
        )
        features = [name for name in names if name not in used]
        if not features:
            raise SourceError(f"{path} has no column left for the features: {describe(entries)}. Pass --x COL.")
        if not INDEX_COLUMNS.isdisjoint(names):
            how += " (row numbers left out)"
        x = _Table(path, join_columns(features), (n_rows, len(features)))
    return how, x, y, weight


def _find_test(
    path: Path, entries: dict[str, Entry], x: _Table, y: _Table, x_test: str | None, y_test: str | None
) -> tuple[_Table, _Table] | tuple[None, None]:
    test_x = None if x_test is None else _given_test(path, x_test, x)
    test_y = None if y_test is None else _given_test(path, y_test, y)
    if test_x is not None and test_y is None and test_x.path != path and x.key and x.path == y.path:
        test_y = _table(test_x.path, y.key)
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


def _given_test(path: Path, key: str, train: _Table) -> _Table:
    """Return a test table named by the user; a file alone is read by the key of the training table."""
    other, other_key = split_spec(key)
    if other_key is None and os.path.isfile(other):
        form = file_format(other)
        if train.key and (form.columns or train.key in form.entries(other)):
            return _table(other, train.key)
    return _given(path, key)


def _counterpart(tables: Iterable[_Table], train: _Table) -> _Table | None:
    """Return the only table named as ``train`` is, with test in the place of train or beside it."""
    found = [table for table in tables if is_test(table.key) and stem(table.key) == stem(train.key)]
    return found[0] if len(found) == 1 and not is_test(train.key) else None


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
) -> str:
    def say(table: _Table) -> str:
        return f"{_short(path, table)} {table.shape}"

    test = f"test rows: X = {say(test_x)}, Y = {say(test_y)}" if test_x and test_y else "no test rows"
    weighted = f"; sample weight = {say(weight)}" if weight else ""
    return f"{how}: X = {say(x)}, Y = {say(y)}; {test}{weighted}."


def _short(path: Path, table: _Table) -> str:
    """Name a table for the sentence: without the file in question, and cut where it has many columns."""
    if table.path != path:
        return table.spec if len(table.key) <= 60 else f"{table.path}::{table.key[:57]}..."
    name = table.key or str(table.path)
    return name if len(name) <= 60 else f"{name[:57]}..."
