"""One frame that holds features, targets and weights: its columns by name."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from closedform.rows.labels import index_columns, label_text
from closedform.words.errors import DataTypeError, InputError

__all__ = ["take_columns"]

#: Names of columns that a message lists before it only counts.
_LISTED = 8


def take_columns(X: Any, **wanted: Any) -> tuple[Any, ...]:
    """Take the arguments that name columns of a frame out of it: the features are its other columns.

    A string names a column, a list of strings several; of a column with several levels also its tuple, its levels
    joined by dots, and the first level for all columns under it; and of columns that are called by integers also the
    integer. What is no column of the frame may still be a path to a file that exists; anything else is handed back as
    it is.

    Args:
        X: A frame of pandas, Polars, Arrow or Dask, ``(rows, columns)``, an array of records ``(rows,)``, whose fields
            are columns, or any other data, which have no columns.
        **wanted: The other arguments of a fit, as the user gave them.

    Returns:
        The features without the columns that were taken, then the other arguments in order.

    Raises:
        DataTypeError: a query of Polars that fails.
        InputError: a name that is neither a column of the frame nor a file, or a frame that has no other columns.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"size": [1.0, 2.0], "price": [3.0, 5.0]})
        >>> features, price = take_columns(frame, Y="price")
        >>> list(features.columns), price.tolist()
        (['size'], [3.0, 5.0])
    """
    labels = _labels(X) if any(_is_name(value) for value in wanted.values()) else None
    if labels is None:
        return X, *wanted.values()
    if _is(X, "polars", "LazyFrame"):
        X = X.collect()

    taken: dict[str, tuple[list[int], bool]] = {}
    for name, value in wanted.items():
        if not _is_name(value):
            continue
        several = isinstance(value, list | tuple) and value not in labels
        names = list(value) if several else [value]
        places = [_places(each, labels) for each in names]
        unknown = [each for each, found in zip(names, places, strict=True) if not found]
        if not unknown:
            taken[name] = [place for found in places for place in found], several or len(places[0]) > 1
        elif len(unknown) < len(names) or not _is_file(unknown[0]):
            raise InputError(_unknown(name, unknown[0], labels))

    used = {place for places, _ in taken.values() for place in places}
    rest = [place for place in range(len(labels)) if place not in used]
    if not rest:
        raise InputError(f"X has the columns {_listed(labels)}, and all of them are asked for otherwise: none is left.")
    features = _choose(X, rest, labels, several=True) if taken else X
    return features, *(
        _choose(X, taken[name][0], labels, several=taken[name][1]) if name in taken else value
        for name, value in wanted.items()
    )


def _is_file(name: Any) -> bool:
    return isinstance(name, str) and os.path.exists(name.partition("::")[0])


def _is_name(value: Any) -> bool:
    if isinstance(value, str):
        return True
    if isinstance(value, int | np.integer):
        return not isinstance(value, bool)
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, str) for item in value)


def _places(name: Any, labels: list[Any]) -> list[int]:
    """Return the columns that a name means: more than one where labels repeat or have several levels; none if none."""
    ways: tuple[Callable[[Any], bool], ...] = (
        lambda label: type(label) is not bool and bool(label == name),
        lambda label: label_text(label) == name,
        lambda label: isinstance(label, tuple) and label[0] == name,
    )
    for means in ways:
        if found := [place for place, label in enumerate(labels) if means(label)]:
            return found
    return []


def _is(data: Any, package: str, *kinds: str) -> bool:
    """Say whether data are of a class of a package, which is not loaded for that."""
    module = sys.modules.get(package)
    return module is not None and isinstance(data, tuple(getattr(module, kind) for kind in kinds))


def _labels(data: Any) -> list[Any] | None:
    """Return the labels of the columns of a frame, or None where it is none.

    Raises:
        DataTypeError: a query of Polars that fails.
    """
    if isinstance(data, np.ndarray):
        return list(data.dtype.names) if data.dtype.names and data.ndim == 1 else None
    if _is(data, "pandas", "DataFrame") or _is(data, "dask.dataframe", "DataFrame"):
        return list(data.columns)
    if _is(data, "polars", "DataFrame", "LazyFrame"):
        try:
            return list(data.collect_schema())
        except sys.modules["polars"].exceptions.PolarsError as error:
            raise DataTypeError(f"X is a query that fails: {error}") from error
    if _is(data, "pyarrow", "Table", "RecordBatch"):
        index = index_columns(data.schema)
        return [name for name in data.schema.names if name not in index]
    return None


def _choose(data: Any, places: list[int], labels: list[Any], *, several: bool) -> Any:
    """Return one column, or a frame of several."""
    if _is(data, "pandas", "DataFrame"):
        # By position: labels may repeat.
        return data.iloc[:, places if several else places[0]]
    if _is(data, "pyarrow", "Table", "RecordBatch"):
        index = index_columns(data.schema)
        positions = [position for position, name in enumerate(data.schema.names) if name not in index]
        chosen = [positions[place] for place in places]
        # The index goes along, by which rows are aligned.
        kept = [position for position, name in enumerate(data.schema.names) if name in index]
        return data.select([*chosen, *kept]) if several else data.column(chosen[0])
    names = [labels[place] for place in places]
    return data[names if several else names[0]]


def _unknown(name: str, value: Any, labels: list[Any]) -> str:
    texts = [label_text(label) for label in labels]
    near = difflib.get_close_matches(str(value), texts, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{name} is {value!r}, which is no column of X ({_listed(labels)}) and no file.{hint}"


def _listed(labels: list[Any]) -> str:
    more = f", ... {len(labels) - _LISTED:,} more" if len(labels) > _LISTED else ""
    return ", ".join(map(label_text, labels[:_LISTED])) + more
