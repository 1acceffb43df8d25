"""Labels: integers, strings, one-hot rows or numbers, checked once and told apart."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from closedform.files import open_source
from closedform.files.opening import read_words
from closedform.files.recognition import check_file
from closedform.files.specs import split_spec
from closedform.rows.labels import column_names
from closedform.rows.tensors import as_tensor
from closedform.words.errors import InputError, SourceError
from closedform.words.numbers import plural

__all__ = ["Labels", "encode", "read_labels"]

#: Share of different integers among labels from which on they are rather numbers than classes.
_RATHER_NUMBERS = 0.5
#: Rows from which on that share says something.
_ENOUGH_ROWS = 20
#: Names that a message lists before it only counts.
_LISTED = 5
#: Files that hold one label a line.
_LINES = (".txt", ".labels")


@final
@dataclass(frozen=True, eq=False)
class Labels:
    """What the rows are to be told by.

    Attributes:
        names: The class of each row, ``(rows,)`` of integers or strings; None for a regression.
        values: The numbers of each row, ``(rows, targets)``; None for classes.
        notes: What was read into them that the user should know.
        width: Columns of one-hot rows that have no names, so that classes are their places; else None.
    """

    names: Any
    values: Tensor | None
    notes: tuple[str, ...] = ()
    width: int | None = None

    @property
    def count(self) -> int:
        """How many rows they are of."""
        return len(self.names) if self.values is None else self.values.shape[0]

    def take(self, rows: Tensor) -> Labels:
        """Return those of some rows."""
        if self.values is None:
            return Labels(self.names[rows.numpy()], None, self.notes, self.width)
        return Labels(None, self.values[rows], self.notes)


def read_labels(
    labels: Any, name: str, task: str | None, *, leading: tuple[int, ...] = (), settled: str | None = None
) -> Labels:
    """Return labels as classes or as numbers.

    Strings, booleans and integers are classes, as are rows with a single one among zeros, of which the names of the
    columns are the classes where they have some; floating numbers are those of a regression, unless they are few whole
    ones.

    Args:
        labels: A tensor, array, list, series, or a path: what :func:`closedform.files.open_source` opens, a column or
            an array of words in such a file, or a text file with one label a line.
        name: What the user calls them.
        task: ``"classification"`` or ``"regression"`` where it is settled; None to find out.
        settled: What settled the task, where the user did not.
        leading: Leading dimensions of features that have several; labels of that shape are one for each position.

    Raises:
        InputError: missing labels, a mixture of kinds, several ones in a row, or as many classes as rows.
        SourceError: a file that holds no labels.
    """
    if labels is None:
        raise InputError(f"{name} are missing: give one for each row of features, or the name of their column.")
    array = _opened(labels)
    if len(leading) > 1 and array.shape == leading:
        array = array.reshape(-1)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2) or 0 in array.shape:
        raise InputError(f"{name} have shape {array.shape}; one label for each row is needed: (rows,) or one-hot rows.")

    if array.dtype.kind in "OUS":
        return _words(array, name, task, settled or f"task={task!r} asks for numbers")
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} hold {array.dtype} values; give integers, strings, one-hot rows or numbers.")
    _check_finite(array, name)
    if task == "regression":
        return _numbers(array)
    if array.ndim == 2:
        return _rows_of_numbers(array, name, task, column_names(labels))
    if array.dtype.kind == "f":
        return _floats(array, name, task, settled or f"task={task!r} asks for classes")
    if array.dtype.kind == "u" and int(array.max()) > np.iinfo(np.int64).max:
        raise InputError(f"{name} hold {int(array.max())}, and 2**63 - 1 is the largest; give such labels as strings.")
    _check_few(array, name, task)
    return Labels(array.astype(np.int64), None)


def encode(labels: Labels, classes: Any, name: str) -> Tensor:
    """Return the place of each row's class among the classes, ``(rows,)`` int64.

    Args:
        labels: Of classes.
        classes: In ascending order.
        name: What the user calls them.

    Raises:
        InputError: a label that is none of the classes.

    Example:
        >>> import numpy as np
        >>> encode(Labels(np.array(["cat", "ant"]), None), np.array(["ant", "bee", "cat"]), "labels")
        tensor([2, 0])
    """
    names = labels.names
    if (names.dtype.kind == "U") != (classes.dtype.kind == "U"):
        raise InputError(f"{name} hold {_kind(names)} and the training labels {_kind(classes)}; give both alike.")
    places = np.searchsorted(classes, names).clip(max=len(classes) - 1)
    unknown = classes[places] != names
    if unknown.any():
        strangers = [str(label) for label in np.unique(names[unknown])]
        shown = ", ".join(strangers[:_LISTED]) + (", ..." if len(strangers) > _LISTED else "")
        raise InputError(
            f"{name} hold {plural(len(strangers), 'class').replace('classs', 'classes')} that no training row has "
            f"({shown}; first in row {int(unknown.argmax())}): a probe cannot learn a class without rows. Leave those "
            "rows out, or add rows of theirs to the training set."
        )
    return torch.from_numpy(places.astype(np.int64))


def _kind(names: Any) -> str:
    return "strings" if names.dtype.kind == "U" else "integers"


def _numbers(array: Any) -> Labels:
    values = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64))
    return Labels(None, values.unsqueeze(1) if values.ndim == 1 else values)


def _floats(array: Any, name: str, task: str | None, settled: str) -> Labels:
    whole = bool((array == np.round(array)).all()) and bool(np.abs(array).max() < 2**53)
    few = len(np.unique(array)) <= max(2, len(array) ** 0.5)
    if task == "classification" and not whole:
        raise InputError(f"{name} hold numbers that are not whole, and {settled}.")
    if task is None and not (whole and few):
        return _numbers(array)
    note = f"{name} hold few whole numbers and are taken for classes; task='regression' takes them for numbers"
    return Labels(array.astype(np.int64), None, () if task else (note,))


def _rows_of_numbers(array: Any, name: str, task: str | None, columns: tuple[str, ...] | None) -> Labels:
    zeros_and_ones = bool(((array == 0) | (array == 1)).all())
    ones = array.sum(1)
    if zeros_and_ones and bool((ones == 1).all()):
        return _classes_of_columns(array, name, columns)
    if zeros_and_ones or task == "classification":
        row = int((ones != 1).argmax())
        raise InputError(
            f"{name} are {array.shape[1]} columns, but row {row} has not a single one among zeros. For labels that do "
            "not exclude each other probe each column on its own, or ask for task='regression'."
        )
    return _numbers(array)


def _classes_of_columns(array: Any, name: str, columns: tuple[str, ...] | None) -> Labels:
    """Return the classes of one-hot rows: the names of the columns, or their places."""
    width = array.shape[1]
    known = list(range(width)) if columns is None or len(set(columns)) < width else list(columns)
    empty = [str(known[column]) for column in np.flatnonzero(array.sum(0) == 0)]
    shown = ", ".join(empty[:_LISTED]) + (", ..." if len(empty) > _LISTED else "")
    notes = (f"no row of {name} is of {plural(len(empty), 'column')} of {width} ({shown}), which have no output",)

    places = array.argmax(1)
    if isinstance(known[0], int):
        return Labels(places.astype(np.int64), None, notes if empty else (), width)
    whole = all(column.removeprefix("-").isdecimal() and str(int(column)) == column for column in known)
    names = np.array([int(column) for column in known] if whole else known)
    return Labels(names[places], None, notes if empty else ())


def _check_few(array: Any, name: str, task: str | None) -> None:
    different = len(np.unique(array))
    if task is None and len(array) >= _ENOUGH_ROWS and different > _RATHER_NUMBERS * len(array):
        raise InputError(
            f"{name} hold {different} different integers in {len(array)} rows; say task='regression' if they are "
            "numbers, task='classification' if they are classes."
        )


def _check_finite(array: Any, name: str) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise InputError(f"{name} hold NaN or an infinity, first in row {row}; leave rows without a label out.")


def _words(array: Any, name: str, task: str | None, settled: str) -> Labels:
    if array.ndim != 1:
        raise InputError(f"{name} have shape {array.shape}; words come as one for each row: (rows,).")
    items = array.tolist()
    # None, pandas.NA and NaN are missing; the latter two are not equal to themselves, or do not say.
    missing = [row for row, item in enumerate(items) if item is None or item is _na() or item != item or item == ""]
    if missing:
        raise InputError(
            f"{name} are missing in {plural(len(missing), 'row')}, first in row {missing[0]} ({items[missing[0]]!r}); "
            "leave those rows out, or name what they are."
        )

    # NumPy's own strings would show as such in messages.
    items = [str(item) if isinstance(item, str) else item for item in items]
    if all(isinstance(item, bytes) for item in items):
        items = [item.decode() for item in items]
    if all(isinstance(item, str) for item in items):
        if task == "regression":
            raise InputError(f"{name} hold words, and {settled}.")
        return Labels(np.array(items, dtype=str), None)

    if any(isinstance(item, str) for item in items):
        row = next(row for row, item in enumerate(items) if isinstance(item, str) != isinstance(items[0], str))
        raise InputError(
            f"{name} hold words and numbers: {items[0]!r} in row 0 and {items[row]!r} in row {row}; give all of a kind."
        )
    tensor, _ = as_tensor(items, name)
    return read_labels(tensor, name, task)


def _na() -> Any:
    import sys

    pandas = sys.modules.get("pandas")
    return None if pandas is None else pandas.NA


def _opened(labels: Any) -> Any:
    """Return labels as a NumPy array of numbers, strings or objects."""
    if isinstance(labels, str | os.PathLike):
        return _from_file(os.fspath(labels))
    if isinstance(labels, Tensor):
        plain, _ = as_tensor(labels, "labels")
        plain = plain.cpu()
        return (plain.to(torch.float64) if plain.is_floating_point() else plain).numpy()
    if isinstance(labels, list | tuple):
        return _from_list(labels)
    if hasattr(labels, "to_numpy"):
        return np.asarray(labels.to_numpy())
    return np.asarray(labels)


def _from_list(labels: Sequence[Any]) -> Any:
    if any(isinstance(item, str | bytes) or item is None for item in labels):
        # NumPy would make words of the numbers among words.
        array = np.empty(len(labels), dtype=object)
        array[:] = labels
        return array
    return as_tensor(list(labels), "labels")[0].cpu().numpy()


def _from_file(spec: str) -> Any:
    """Read labels from a file: words as they are, and numbers as any other table."""
    path, _ = split_spec(spec)
    if path.suffix.lower() in _LINES:
        return _from_list(_lines(path))
    words = read_words(spec)
    if words is not None:
        return words
    source = open_source(spec)
    return source.read(0, source.shape[0]).numpy()


def _lines(path: Path) -> list[str | None]:
    """Return the lines of a text; None for a blank one.

    Raises:
        SourceError: it cannot be read.
    """
    check_file(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read as labels, one a line ({error}).") from error
    return [line.strip() or None for line in text.removesuffix("\n").split("\n")]
