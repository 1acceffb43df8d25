"""Tables with named columns inside HDF5: compound data sets, pandas' HDFStore and AnnData's data frames.

The layouts are those that pandas (``pandas.io.pytables``, of 0.15.2 and later) and AnnData (its on-disk
specification) document. pandas itself is not asked: PyTables unpickles attributes, and no pickle of a file is ever
loaded here. Names that are pickled are read by a reader that builds no objects.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from closedform.files.formats import LABEL, Entry
from closedform.files.hdf5_walk import attribute
from closedform.files.plain_pickles import read_plain_pickle
from closedform.rows.labels import label_text
from closedform.words.errors import InputError, SourceError

__all__ = ["Column", "Frame", "find_frame", "read_columns", "read_labels"]


@final
@dataclass(frozen=True)
class Column:
    """Where a column of a frame lies.

    Attributes:
        dataset: The name of its data set, relative to the frame; ``"."`` is the frame itself.
        field: The field of a compound data set, or empty.
        positions: Its columns in that data set or field, flattened; None for all.
        dtype: The dtype of its numbers.
        width: Number of columns that it takes.
        numeric: Whether it holds real numbers.
        label: Whether it labels rows and is no data.
        mask: The data set that is true where a value is missing, or empty.
        rows_last: Whether the rows lie along the last axis.
        meaning: What its numbers stand for, where they are no numbers (categories, dates); else empty.
    """

    dataset: str
    field: str
    positions: slice | None
    dtype: np.dtype[Any]
    width: int
    numeric: bool
    label: bool = False
    mask: str = ""
    rows_last: bool = False
    meaning: str = ""

    @property
    def kind(self) -> str:
        """What is said of its values."""
        return self.meaning or str(self.dtype)


@final
@dataclass(frozen=True)
class Frame:
    """A table with named columns, in the order of the file.

    Attributes:
        n_rows: Its rows.
        columns: Its columns.
        labelled: Whether its rows have labels beside it (:func:`read_labels`).
    """

    n_rows: int
    columns: Mapping[str, Column]
    labelled: bool = False

    def entry(self) -> Entry:
        """Return what discovery sees of it."""
        columns = {
            name: Entry((self.n_rows, column.width), column.kind, column.numeric, LABEL if column.label else "")
            for name, column in self.columns.items()
        }
        shape = (self.n_rows, sum(column.width for column in self.columns.values()))
        return Entry(shape, "table", numeric=False, columns=columns)


def find_frame(h5py: Any, item: Any, name: str) -> Frame | None:
    """Return the frame that a group or data set is; None where it is none.

    Raises:
        SourceError: two columns have the same name, or the layout is none that is known.
    """
    if isinstance(item, h5py.Dataset):
        if item.dtype.names is None or len(item.shape) != 1:
            return None
        return Frame(item.shape[0], dict(_fields(item, ".")))

    kind = attribute(item, "pandas_type")
    if attribute(item, "encoding-type") == "dataframe":
        found, n_rows = _anndata(h5py, item)
    elif kind == "frame":
        found, n_rows = _fixed(item)
    elif kind == "series":
        found, n_rows = _series(item)
    elif kind:
        found, n_rows = _appendable(item)
    else:
        return None

    columns = dict(found)
    if len(columns) < len(found):
        names = [column for column, _ in found]
        twice = next(column for column in names if names.count(column) > 1)
        raise SourceError(f"{name} has more than one column named '{twice}'; rename one of them.")

    return Frame(n_rows, columns, labelled=True)


_Columns = list[tuple[str, Column]]


def _is_number(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "fiub"


def _fields(dataset: Any, where: str) -> Iterator[tuple[str, Column]]:
    for field in dataset.dtype.names:
        dtype = dataset.dtype[field]
        yield field, Column(where, field, None, dtype.base, math.prod(dtype.shape), _is_number(dtype.base))


def _fixed(group: Any) -> tuple[_Columns, int]:
    """The fixed layout of pandas: one data set for each dtype, its columns named by another."""
    blocks = sorted(int(match[1]) for key in group if (match := re.fullmatch(r"block(\d+)_values", key)))
    order = _axis(group, "axis0")
    n_rows = len(group["axis1"]) if "axis1" in group else len(group["axis1_label0"])
    found: _Columns = []
    for block in blocks:
        where = f"block{block}_values"
        values = group[where]
        items = _axis(group, f"block{block}_items")
        stored = attribute(values, "value_type")
        meaning = _meaning(stored)
        numeric = len(values.shape) == 2 and _is_number(values.dtype) and not meaning
        if values.attrs.get("shape") is not None:
            # PyTables stores one number in place of an empty table.
            n_rows = 0

        rows_last = numeric and values.shape[0] != n_rows
        names = items or [f"block{block}_{i}" for i in range(values.shape[-1] if values.shape else 0)]
        for i, name in enumerate(names):
            chosen = slice(i, i + 1)
            column = Column(where, "", chosen, values.dtype, 1, numeric, rows_last=rows_last, meaning=meaning)
            found.append((name, column))

    place = {name: position for position, name in enumerate(order)}
    found.sort(key=lambda pair: place.get(pair[0], len(place)))
    return found, n_rows


def _axis(group: Any, axis: str) -> list[str]:
    """Return the labels along an axis as text; empty where they are objects of which nothing can be known."""
    if axis in group:
        return _labels(group[axis])
    levels = int(group.attrs.get(f"{axis}_nlevels", 0))
    parts = []
    for level in range(levels):
        labels = _labels(group[f"{axis}_level{level}"])
        parts.append([labels[code] for code in group[f"{axis}_label{level}"][()]])
    return [label_text(names) for names in zip(*parts, strict=True)]


def _labels(dataset: Any) -> list[str]:
    if dataset.dtype.kind == "O":
        # PyTables pickles an array of mixed labels as a whole, into the bytes of one row.
        row = dataset[0] if dataset.shape == (1,) else None
        return _names(read_plain_pickle(row.tobytes())) if isinstance(row, np.ndarray) else []
    encoding = attribute(dataset.parent, "encoding") or "utf-8"
    values = dataset[()].tolist()
    return [value.decode(encoding, "replace") if isinstance(value, bytes) else str(value) for value in values]


def _series(group: Any) -> tuple[_Columns, int]:
    values = group["values"]
    names = _names(_pickled(group.attrs.get("name")))
    name = names[0] if names else group.name.rsplit("/", 1)[-1]
    meaning = _meaning(attribute(values, "value_type"))
    numeric = _is_number(values.dtype) and not meaning
    return [(name, Column("values", "", None, values.dtype, 1, numeric, meaning=meaning))], values.shape[0]


def _meaning(stored: str) -> str:
    """Return the type of times that pandas stores as numbers; empty for other types."""
    return stored if stored.startswith(("datetime", "timedelta")) else ""


def _appendable(group: Any) -> tuple[_Columns, int]:
    """The table layout of pandas: one compound data set, whose blocks of columns are named by its attributes."""
    table = group["table"]
    attrs = table.attrs
    labels = {
        "index",
        *_names(_second(_pickled(group.attrs.get("index_cols")))),
        *_names(_pickled(group.attrs.get("levels"))),
    }
    found: _Columns = []
    for field, column in _fields(table, "table"):
        # pandas writes the word itself; it is pickled where the attribute is one of PyTables' own.
        meta = f"{field}_meta"
        category = "category" in (attribute(table, meta), _pickled(attrs.get(meta)))
        meaning = "category" if category else _meaning(attribute(table, f"{field}_dtype"))
        numeric = column.numeric and not meaning
        names = _names(_pickled(attrs.get(f"{field}_kind")))
        block = re.fullmatch(r"values_block_\d+", field) is not None
        if not block or len(names) != column.width:
            names = [f"{field}_{i}" for i in range(column.width)] if block else [field]
        step = 1 if block else column.width
        for i, name in enumerate(names):
            place = slice(i, i + 1) if block else None
            label = field in labels
            found.append((name, Column("table", field, place, column.dtype, step, numeric, label, meaning=meaning)))

    place_of = {name: i for i, name in enumerate(_names(_second(_pickled(group.attrs.get("non_index_axes")))))}
    found.sort(key=lambda pair: place_of.get(pair[0], len(place_of)))
    return found, table.shape[0]


def _pickled(value: Any) -> Any:
    """Return what an attribute of PyTables holds, where it is a pickle of texts and numbers; else None."""
    return read_plain_pickle(bytes(value)) if isinstance(value, bytes | np.bytes_) else None


def _names(labels: Any) -> list[str]:
    """Return the names of labels: of one, of several in a list; none where they are anything else."""
    found = labels if isinstance(labels, list) else [] if labels is None else [labels]
    levels = [label if isinstance(label, tuple) else (label,) for label in found]
    plain = all(isinstance(part, str | int | float) for parts in levels for part in parts)
    return [label_text(parts) for parts in levels] if plain else []


def _second(pairs: Any) -> Any:
    """Return the second item of the first of some pairs, as pandas describes an axis by its number and its names."""
    first = pairs[0] if isinstance(pairs, list) and pairs else None
    return first[1] if isinstance(first, tuple | list) and len(first) == 2 else None


def _anndata(h5py: Any, group: Any) -> tuple[_Columns, int]:
    """A data frame of AnnData: a data set for each column, or a group of values and mask."""
    index = attribute(group, "_index") or "_index"
    order = [text.decode() if isinstance(text, bytes) else str(text) for text in group.attrs.get("column-order", ())]
    n_rows = group[index].shape[0]
    found: _Columns = []
    for name in order:
        item = group.get(name)
        if isinstance(item, h5py.Dataset):
            numeric = _is_number(item.dtype) and item.shape == (n_rows,)
            found.append((name, Column(name, "", None, item.dtype, 1, numeric)))
        elif isinstance(item, h5py.Group) and attribute(item, "encoding-type").startswith("nullable-"):
            values = item["values"]
            mask = f"{name}/mask"
            found.append(
                (name, Column(f"{name}/values", "", None, values.dtype, 1, _is_number(values.dtype), mask=mask))
            )
        else:
            found.append((name, Column(name, "", None, np.dtype(object), 1, numeric=False)))
    return found, n_rows


def read_labels(item: Any) -> tuple[np.ndarray[Any, Any], ...]:
    """Return the index of a frame of pandas or AnnData, each level ``(rows,)``; nothing where it is pickled."""
    if attribute(item, "encoding-type") == "dataframe":
        return (np.asarray(item[attribute(item, "_index") or "_index"].asstr()[()]),)
    if "table" in item:
        table = item["table"]
        kind = attribute(table, "index_kind")
        return (_as_written(table["index"], kind),) if "index" in (table.dtype.names or ()) else ()
    for axis in ("axis1", "index"):
        if axis in item:
            labels = item[axis]
            return () if labels.dtype.kind == "O" else (_as_written(labels[()], attribute(labels, "kind")),)
        if f"{axis}_label0" in item:
            return (np.asarray(_axis(item, axis)),)
    return ()


def _as_written(labels: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    """Return times as what they are: pandas writes them as integers of a unit."""
    return labels.view(kind) if kind.startswith("datetime64[") else labels


def read_columns(item: Any, columns: Sequence[tuple[str, Column]], start: int, stop: int, name: str) -> list[Any]:
    """Read rows ``start`` to ``stop`` of some columns, each of shape ``(rows, width)``; each data set is read once.

    Raises:
        InputError: a value is missing.
    """
    read: dict[tuple[str, str], Any] = {}
    parts = []
    for title, column in columns:
        place = (column.dataset, column.field)
        if place not in read:
            dataset = item if column.dataset == "." else item[column.dataset]
            view = dataset.fields(column.field) if column.field else dataset
            rows = view[:, start:stop].T if column.rows_last else view[start:stop]
            read[place] = rows.reshape(len(rows), math.prod(rows.shape[1:]))
        if column.mask:
            missing = np.flatnonzero(item[column.mask][start:stop])
            if len(missing):
                raise InputError(
                    f"column '{title}' of {name} has a missing value, first in row {start + int(missing[0])} (counted "
                    "from 0); drop or fill those rows."
                )
        parts.append(read[place] if column.positions is None else read[place][:, column.positions])
    return parts
