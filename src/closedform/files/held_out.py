"""Which tables hold the test rows: those named as the training tables are, with test in the name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from closedform.files.contents import Files, Table, known_key
from closedform.files.formats import describe
from closedform.files.naming import is_test, stem
from closedform.files.selection import split_selection
from closedform.files.specs import split_spec
from closedform.words.errors import SourceError

__all__ = ["find_test_rows"]


def find_test_rows(
    files: Files, path: Path, x: Table, y: Table, x_test: str | None, y_test: str | None
) -> tuple[Table, Table] | tuple[None, None]:
    """Return the features and targets of the test rows, as given or found by name; None where there are none.

    Args:
        files: What the files hold.
        path: The file of the problem.
        x: The features of the training rows.
        y: Their targets.
        x_test: What the user named for the features.
        y_test: What the user named for the targets.

    Raises:
        SourceError: only one of the two is there.
    """
    _, entries = files.look(path)
    test_x = None if x_test is None else _given_test(files, path, x_test, x)
    test_y = None if y_test is None else _given_test(files, path, y_test, y)
    elsewhere = test_x is not None and test_x.path != path
    if test_x is not None and elsewhere and y_test is None and x.path == y.path and x.key:
        test_y = files.table(test_x.path, y.key)

    tables = [Table(path, key, entry.shape) for key, entry in entries.items() if entry.numeric]
    test_x = test_x or _counterpart(tables, x)
    test_y = test_y or _counterpart(tables, y)
    if x_test is None and y_test is None:
        complete = test_x is not None and test_y is not None and test_x.fits(test_y)
        if not (complete and test_x and test_y and _same_columns(x, test_x) and _same_columns(y, test_y)):
            return None, None

    if test_x is None or test_y is None:
        missing = "--x-test" if test_x is None else "--y-test"
        raise SourceError(
            f"test rows need features and targets, and one of them is not in {path}, which holds: "
            f"{describe(entries)}. Pass {missing} KEY."
        )

    return test_x, test_y


def _given_test(files: Files, path: Path, key: str, train: Table) -> Table:
    """Return a test table named by the user; a file or a frame alone is read by the columns of the training table."""
    other, other_key = split_spec(key)
    if other_key is None and os.path.exists(other):
        form, entries = files.look(other)
        selection = split_selection(train.key)
        if train.key and (form.columns or train.key in entries or (selection and selection[0] in entries)):
            return files.table(other, train.key)
    entries = files.look(path)[1]
    table = known_key(key, entries)
    entry = entries.get(table)
    if entry is not None and entry.columns is not None and (selection := split_selection(train.key)) is not None:
        return files.table(path, f"{table}[{selection[1]}]")
    return files.given(path, key)


def _counterpart(tables: Iterable[Table], train: Table) -> Table | None:
    """Return the only table named as ``train`` is, with test in the place of train or beside it."""
    if is_test(train.key):
        return None
    wanted = stem(train.key)
    found = [table for table in tables if is_test(table.key) and stem(table.key) == wanted]
    return found[0] if len(found) == 1 else None


def _same_columns(train: Table, test: Table) -> bool:
    return len(train.shape) == len(test.shape) and train.width == test.width
