"""What the rows and columns of the user's tables are called."""

from __future__ import annotations

import inspect
import math
import sys
from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch

from closedform.words.errors import InputError
from closedform.words.text import printable

__all__ = [
    "RowLabels",
    "check_alignment",
    "check_columns",
    "check_names",
    "column_names",
    "index_columns",
    "label_text",
]


@final
@dataclass(frozen=True)
class RowLabels:
    """What a file calls the rows of a table: the index that pandas wrote beside it.

    Attributes:
        table: The table in the file; columns of one table have the same labels.
        read: Reads the levels of the index, each ``(rows,)``.
    """

    table: str
    read: Callable[[], tuple[np.ndarray[Any, Any], ...]]

    def part(self, start: int, stop: int) -> RowLabels:
        """Return those of some rows."""
        return RowLabels(f"{self.table}[{start}:{stop}]", lambda: tuple(level[start:stop] for level in self.read()))


def check_alignment(**tables: Any) -> None:
    """Refuse tables whose rows have labels, but not the same ones in the same order: position says nothing there.

    Rows are labelled by the index of a pandas frame or series, also of one in a file, and by the coordinate of the
    first dimension of an xarray array; other data have no labels and go with anything. Tables of unequal length are
    left to the check of shapes.

    Args:
        **tables: What belongs together row by row, as the user gave it, under the names the user knows.

    Raises:
        InputError: with the first row whose labels differ, and the call that brings the rows into one order.

    Example:
        >>> import pandas as pd
        >>> X = pd.DataFrame({"height": [1.0, 2.0]}, index=["a", "b"])
        >>> check_alignment(X=X, Y=X["height"])
        >>> check_alignment(X=X, Y=X["height"][::-1])
        Traceback (most recent call last):
            ...
        closedform.words.errors.InputError: the indexes of X and Y do not agree: row 0 is 'a' in X, but 'b' in Y. ...
    """
    labelled = [(name, labels) for name, data in tables.items() if (labels := _row_labels(data)) is not None]
    for name, labels in labelled[1:]:
        first, wanted = labelled[0]
        if isinstance(wanted, RowLabels) or isinstance(labels, RowLabels):
            _check_files(first, wanted, name, labels)
        elif len(labels) == len(wanted) and not labels.equals(wanted):
            raise InputError(_disagreement(first, wanted, name, labels))


def _check_files(first: str, wanted: Any, name: str, labels: Any) -> None:
    """Refuse two tables of which one at least is in a file.

    Raises:
        InputError: with the first row whose labels differ.
    """
    if isinstance(wanted, RowLabels) and isinstance(labels, RowLabels) and wanted.table == labels.table:
        return
    pairs = zip(_levels(wanted), _levels(labels), strict=False)
    for one, other in pairs:
        if one.shape != other.shape or bool(np.all(one == other)):
            continue
        row = int(np.argmax(one != other))
        same = np.array_equal(np.sort(one), np.sort(other))
        remedy = "the same labels in another order: sort both" if same else "other labels: keep the rows that both have"
        raise InputError(
            f"the indexes of {first} and {name} do not agree: row {row} is {one[row]!s} in {first}, but {other[row]!s} "
            f"in {name}. They hold {remedy} and write them again; if the rows belong together as they stand, write "
            "them without an index."
        )


def _levels(labels: Any) -> tuple[np.ndarray[Any, Any], ...]:
    if isinstance(labels, RowLabels):
        return labels.read()
    levels = [labels.get_level_values(i) for i in range(labels.nlevels)] if labels.nlevels > 1 else [labels]
    return tuple(np.asarray(level) for level in levels)


def _disagreement(first: str, wanted: Any, name: str, labels: Any) -> str:
    # An index alone knows which of its labels are equal (1 and 1.0, one missing value and another): ask for prefixes.
    row = bisect(range(len(labels)), False, key=lambda row: not wanted[: row + 1].equals(labels[: row + 1]))
    alike = wanted.nlevels == labels.nlevels and wanted.is_unique and labels.is_unique
    if alike and wanted.isin(labels).all():
        remedy = f"They hold the same labels in another order: pass {name}.loc[{first}.index]"
    elif sorted(map(repr, wanted)) == sorted(map(repr, labels)):
        remedy = "They hold the same labels in another order, and some more than once, which tells no row from another"
    else:
        remedy = f"They hold other labels: take the rows that both have, {first}.index.intersection({name}.index)"
    return (
        f"the indexes of {first} and {name} do not agree: row {row} is {_shown(wanted[row])} in {first}, but "
        f"{_shown(labels[row])} in {name}. {remedy}; if the rows belong together as they stand, pass {name}.to_numpy()."
    )


def _shown(label: Any) -> str:
    return repr(label.item() if isinstance(label, np.generic) and label.dtype.kind in "biuf" else label)


def _row_labels(data: Any) -> Any:
    """Return the labels of the rows, as a pandas index or as those of a file, or None where rows have none."""
    if data is None or isinstance(data, np.ndarray | torch.Tensor):
        return None
    # Looked up without running code of the user's own class.
    if isinstance(labels := inspect.getattr_static(data, "row_labels", None), RowLabels):
        return labels
    pandas, xarray = sys.modules.get("pandas"), sys.modules.get("xarray")
    if pandas is not None and isinstance(data, (pandas.DataFrame, pandas.Series)):
        return data.index
    pyarrow = sys.modules.get("pyarrow")
    if pyarrow is not None and isinstance(data, (pyarrow.Table, pyarrow.RecordBatch)):
        index = index_columns(data.schema)
        return data.select(sorted(index)).to_pandas().index if index else None
    if xarray is not None and isinstance(data, xarray.DataArray) and data.ndim:
        return data.indexes.get(data.dims[0])
    return None


def check_columns(name: str, data: Any, wanted: tuple[str, ...] | None) -> None:
    """Refuse a table whose columns have names, but not those of the fit in its order: position says nothing there.

    Where one of the two has no names anything goes; another number of columns is left to the check of shapes.

    Args:
        name: What the user calls the table.
        data: The table as the user gave it.
        wanted: What the columns of the fit are called, or None.

    Raises:
        InputError: with the first column that differs.

    Example:
        >>> import pandas as pd
        >>> check_columns("X", pd.DataFrame({"width": [1.0], "height": [2.0]}), ("height", "width"))
        Traceback (most recent call last):
            ...
        closedform.words.errors.InputError: column 0 of X is 'width', but the fit had 'height' there. ...
    """
    if wanted is not None and (found := column_names(data)) is not None:
        check_names(name, tuple(map(printable, found)), wanted)


def check_names(name: str, shown: tuple[str, ...] | None, wanted: tuple[str, ...] | None) -> None:
    """Refuse columns that are called otherwise than those of the fit, as :func:`check_columns` does.

    Args:
        name: What the user calls their table.
        shown: What they are called, fit to be shown, or None.
        wanted: What the columns of the fit are called, or None.

    Raises:
        InputError: with the first column that differs.
    """
    if shown is None or wanted is None or len(shown) != len(wanted) or shown == wanted:
        return
    at = next(i for i, (one, other) in enumerate(zip(shown, wanted, strict=True)) if one != other)
    same = sorted(shown) == sorted(wanted)
    remedy = "Bring the columns into the order of the fit" if same else "Pass the columns of the fit"
    raise InputError(
        f"column {at} of {name} is {shown[at]!r}, but the fit had {wanted[at]!r} there. {remedy}; if they belong there "
        f"under another name, pass {name} without names, as {name}.to_numpy()."
    )


def column_names(data: Any) -> tuple[str, ...] | None:
    """Return what the columns of a table are called, or None where they have no names.

    Names are those of a pandas, Polars or Arrow frame, the name of a series, the fields of an array of records, and
    the coordinate of the last dimension of an xarray array. Columns that are only counted (the default of pandas) have
    none. A column of lists of k numbers is k columns. Nothing is read but the names.

    Args:
        data: A table as the user gave it.

    Returns:
        A name for each column, in order; they may repeat.

    Example:
        >>> import pandas as pd
        >>> column_names(pd.DataFrame({"height": [1.0], "width": [2.0]}))
        ('height', 'width')
        >>> column_names(pd.DataFrame([[1.0, 2.0]])) is None
        True
    """
    named = (
        _record_names(data) or _pandas_names(data) or _polars_names(data) or _arrow_names(data) or _xarray_names(data)
    )
    if named is None:
        return None
    return tuple(
        name if width is None else f"{name}[{position}]" for name, width in named for position in range(width or 1)
    )


def label_text(label: Any) -> str:
    """Return the label of a column as one text; those of several levels are joined by dots, empty ones left out.

    Example:
        >>> label_text(("size", "width")), label_text(("price", "")), label_text(3)
        ('size.width', 'price', '3')
    """
    if not isinstance(label, tuple):
        return str(label)
    return ".".join(filter(None, map(str, label)))


def index_columns(schema: Any) -> set[str]:
    """Return the columns of an Arrow schema that hold the index of a pandas frame: they label rows and are no data.

    Args:
        schema: A ``pyarrow.Schema``, of a file or in memory.

    Example:
        >>> import pandas as pd, pyarrow as pa
        >>> frame = pd.DataFrame({"height": [1.5, 2.0]}, index=pd.Index([7, 9], name="patient"))
        >>> index_columns(pa.Table.from_pandas(frame).schema)
        {'patient'}
    """
    try:
        metadata = schema.pandas_metadata or {}
    except ValueError:
        return set()
    # Of a table whose columns were chosen, the metadata may still name those that are gone.
    return {name for name in metadata.get("index_columns", ()) if isinstance(name, str) and name in schema.names}


#: Columns as they are called, each with the length of the lists it holds, or None where it holds numbers.
_Named = list[tuple[str, int | None]]


def _record_names(data: Any) -> _Named | None:
    if not isinstance(data, np.ndarray) or data.dtype.names is None or data.ndim != 1:
        return None
    fields = [(name, data.dtype[name].shape) for name in data.dtype.names]
    return [(name, math.prod(shape) if shape else None) for name, shape in fields]


def _pandas_names(data: Any) -> _Named | None:
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(data, (pandas.DataFrame, pandas.Series)):
        return None
    if isinstance(data, pandas.Series):
        return None if data.name is None else [(label_text(data.name), None)]
    if isinstance(data.columns, pandas.RangeIndex):
        return None
    return [(label_text(label), None) for label in data.columns]


def _polars_names(data: Any) -> _Named | None:
    polars = sys.modules.get("polars")
    if polars is None or not isinstance(data, (polars.DataFrame, polars.Series, polars.LazyFrame)):
        return None
    if isinstance(data, polars.Series):
        data = data.to_frame()
    named: _Named = []
    for label, kind in data.collect_schema().items():
        width = None
        if isinstance(kind, polars.Array):
            width = kind.size
        elif isinstance(kind, polars.List):
            first = data.lazy().select(polars.col(label).list.len().first()).collect()
            width = first.item() if first.height else 0
        named.append((label, width))
    return named if any(label for label, _ in named) else None


def _arrow_names(data: Any) -> _Named | None:
    pyarrow = sys.modules.get("pyarrow")
    if pyarrow is None or not isinstance(data, (pyarrow.Table, pyarrow.RecordBatch)):
        return None
    named: _Named = []
    index = index_columns(data.schema)
    for label, column in zip(data.column_names, data.columns, strict=True):
        if label in index:
            continue
        kind = getattr(column.type, "storage_type", column.type)
        width = None
        if pyarrow.types.is_fixed_size_list(kind):
            width = kind.list_size
        elif pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
            width = len(column[0]) if len(column) else 0
        named.append((label, width))
    return named


def _xarray_names(data: Any) -> _Named | None:
    xarray = sys.modules.get("xarray")
    if xarray is None or not isinstance(data, xarray.DataArray):
        return None
    if data.ndim < 2:
        return None if data.name is None else [(label_text(data.name), None)]
    labels = data.indexes.get(data.dims[-1])
    return None if labels is None else [(label_text(label), None) for label in labels]
