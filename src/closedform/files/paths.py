"""Paths where a fit takes data: what is a path is opened, and everything else handed back as it is."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, final

from closedform.engine.capacity import available_memory
from closedform.files.csv_files import parsed_once
from closedform.files.discovery import discover
from closedform.files.opening import open_source
from closedform.files.recognition import file_format, known_endings
from closedform.files.specs import join_files, split_spec
from closedform.rows.frame_columns import take_columns
from closedform.rows.labels import column_names
from closedform.rows.source import Source
from closedform.words.errors import SourceError

__all__ = ["OpenedData", "check_memory", "is_path", "open_data", "open_problem", "split_table"]

#: A path, ``FILE::KEY``, or several paths whose rows are one table.
DataPath = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

#: Copies of a wide or square table that a method which needs all rows at once holds in float64: the table and its
#: factor.
_COPIES = 2


@final
@dataclass(frozen=True)
class OpenedData:
    """The arguments of a fit, with sources in place of paths: features, targets and sample weights or None."""

    X: Any
    Y: Any
    sample_weight: Any


def is_path(data: object) -> TypeGuard[DataPath]:
    """Return whether an argument names files: a path, or a list of paths, but not a list of words (labels).

    Example:
        >>> is_path("x.npy"), is_path(["a_1.npy", "a_2.npy"]), is_path(["cat", "dog"]), is_path([1.0, 2.0])
        (True, True, False, False)
    """
    if isinstance(data, str | os.PathLike):
        return True
    if not isinstance(data, list | tuple) or not data or not all(isinstance(item, str | os.PathLike) for item in data):
        return False
    first = os.fspath(data[0])
    return isinstance(first, str) and (os.path.exists(first) or first.lower().endswith(known_endings()))


def open_data(data: object) -> Source | None:
    """Open a table that is given by path; None where ``data`` is no path.

    Args:
        data: ``FILE``, ``FILE::KEY``, a pattern (``"emb_*.npy"``), a folder of Parquet files, a list of paths, or
            anything else.

    Raises:
        SourceError: the file is missing, damaged or of unknown kind, or holds more than one table.

    Example:
        >>> import tempfile, pathlib, numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(pathlib.Path(folder, "x.npy"), np.eye(3))
        ...     source = open_data(f"{folder}/x.npy")
        >>> source.shape, open_data([1.0, 2.0])
        ((3, 3), None)
    """
    return open_source(_spec(data)) if is_path(data) else None


def _spec(data: DataPath) -> str:
    return os.fspath(data) if isinstance(data, str | os.PathLike) else join_files(data)


@parsed_once()
def open_problem(X: Any, Y: Any, sample_weight: Any = None) -> OpenedData:
    """Open the arguments of a fit that are paths, and take those that name columns out of their frame.

    Where X is a frame, Y and the weights may be names of its columns (``solve(frame, "price")``). Where both X and Y
    are paths, they are read as on the command line: Y may be a key or a column of the file that X names
    (``solve("data.csv", "price")``, ``solve("table.npy", "-1")``), and the features are then all the other columns.
    What was chosen is the last note of the features.

    Args:
        X: The features: a path as for :func:`open_data`, or anything else.
        Y: The targets, likewise.
        sample_weight: The weights, likewise.

    Returns:
        The three, with a source in place of each path.

    Raises:
        SourceError: a file or a key that is not there, more than one reading of a file, or a table that does not fit.
        InputError: a name that is no column of a frame.
    """
    X, Y, sample_weight = take_columns(X, Y=Y, sample_weight=sample_weight)
    if not (is_path(X) or is_path(Y) or is_path(sample_weight)):
        return OpenedData(X, Y, sample_weight)
    if not (is_path(X) and is_path(Y)):
        named = (("X", X), ("Y", Y), ("sample_weight", sample_weight))
        return OpenedData(*(_opened(name, data, X) for name, data in named))

    path, key = split_spec(_spec(X))
    weight = _spec(sample_weight) if is_path(sample_weight) else None
    found = discover(path, x=key, y=_spec(Y), weight=weight)
    features, targets = open_source(found.x), open_source(found.y)
    check_memory(features)
    features.notes = (*features.notes, found.sentence.partition(";")[0].removesuffix(".") + ".")
    if weight is not None and found.weight is not None:
        sample_weight = open_source(found.weight)
    elif found.weight is not None and sample_weight is None:
        features.notes = (*features.notes, f"{found.weight} was not used; pass it as sample_weight= to weight the rows")
    return OpenedData(features, targets, sample_weight)


def split_table(table: Any, column: Any, sample_weight: Any = None) -> tuple[Any, Any, Any, str]:
    """Split one table that holds features, labels and weights, where names of columns stand for the latter two.

    Args:
        table: A frame, a path, or anything else.
        column: The name of a column of it, or anything else. ``FILE::COLUMN`` of the same file is a column of it too,
            which must not be among the features.
        sample_weight: The same of the weights.

    Returns:
        The other columns, the column and the weights (as specs where ``table`` is a path, so that labels may be words),
        and a sentence on the choice; all as they are and an empty sentence where the labels are no such column.

    Raises:
        SourceError: the table has no such column.
        InputError: likewise, of a frame.

    Example:
        >>> import pandas as pd
        >>> rest, labels, _, note = split_table(pd.DataFrame({"size": [1.0, 2.0], "kind": ["a", "b"]}), "kind")
        >>> list(rest.columns), labels.tolist(), note
        (['size'], ['a', 'b'], "labels are the column 'kind', features the other columns")
    """
    if not is_path(table):
        rest, labels, weight = take_columns(
            table, labels=column if isinstance(column, str) else None, sample_weight=sample_weight
        )
        if not isinstance(column, str):
            return rest, column, weight, ""
        note = f"labels are the column {column!r}, features the other columns" if labels is not column else ""
        return rest, labels, weight, note
    if not isinstance(column, str):
        return table, column, sample_weight, ""

    path, key = split_spec(_spec(table))
    file, name = split_spec(column)
    same_file = os.path.exists(file) and os.path.exists(path) and os.path.samefile(file, path)
    if os.path.exists(file) and not (same_file and name is not None and key is None):
        return table, column, sample_weight, ""
    if not (same_file or file_format(path).columns):
        return table, column, sample_weight, ""
    named = _spec(sample_weight) if is_path(sample_weight) else None
    found = discover(path, x=key, y=column, weight=named, test_rows=False)
    return found.x, found.y, sample_weight if named is None else found.weight, found.sentence.removesuffix(".")


def _opened(name: str, data: Any, X: Any) -> Any:
    """Return a source in place of a path, and anything else as it is.

    Raises:
        SourceError: the path cannot be opened; the message names the argument.
    """
    try:
        source = open_data(data)
    except SourceError as error:
        hint = ""
        if data is not X and isinstance(data, str) and not is_path(X):
            hint = (
                f" It names a column only where X is a frame or a path, and X is a {type(X).__name__}."
                if column_names(X) is None
                else f" X has no column {reprlib.repr(data)}, or it would be that one."
            )
        raise SourceError(f"{name} is the path {reprlib.repr(data)}: {error}{hint}") from error
    return data if source is None else source


def check_memory(features: Source) -> None:
    """Refuse a wide or square table in a file that does not fit in memory: its methods need all rows at once.

    Args:
        features: A table ``(rows, ..., columns)``; nothing is read of it.

    Raises:
        SourceError: it needs more memory than there is; the message holds both figures.
    """
    if features.in_memory or len(features.shape) < 2:
        return
    n_rows, n_columns = features.shape[0], features.shape[-1]
    for size in features.shape[1:-1]:
        n_rows *= size
    if n_rows > n_columns:
        return
    needed, available = _COPIES * 8 * n_rows * n_columns, available_memory()
    if needed > available:
        raise SourceError(
            f"{features.name} {features.shape} has no more rows than columns, so all of it is needed at once: "
            f"{needed / 1e9:.2f} GB in float64, and {available / 1e9:.2f} GB are available. Use fewer columns or a "
            "machine with more memory."
        )
    features.notes = (
        *features.notes,
        f"{features.name} has no more rows than columns, so it is read whole ({needed / 1e9:.2f} GB in float64)",
    )
