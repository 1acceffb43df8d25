"""One frame that holds features, targets and weights: its columns by name."""

from __future__ import annotations

import difflib
import os
import sys
from typing import Any

from closedform.rows.labels import index_columns
from closedform.words.errors import DataTypeError, InputError

__all__ = ["take_columns"]

#: Names of columns that a message lists before it only counts.
_LISTED = 8


def take_columns(X: Any, **wanted: Any) -> tuple[Any, ...]:
    """Take the arguments that name columns of a frame out of it: the features are its other columns.

    A string names a column, a list of strings several. What is no column of the frame may still be a path to a file
    that exists; anything else is handed back as it is.

    Args:
        X: A frame of pandas, Polars, Arrow or Dask, ``(rows, columns)``, or any other data, which have no columns.
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

    taken: dict[str, Any] = {}
    for name, value in wanted.items():
        if not _is_name(value):
            continue
        names = [value] if isinstance(value, str) else list(value)
        unknown = [each for each in names if each not in labels]
        if not unknown:
            taken[name] = value
        elif not os.path.exists(unknown[0].partition("::")[0]):
            raise InputError(_unknown(name, unknown[0], labels))

    used = {each for value in taken.values() for each in ([value] if isinstance(value, str) else value)}
    rest = [label for label in labels if not (isinstance(label, str) and label in used)]
    if not rest:
        raise InputError(f"X has the columns {_listed(labels)}, and all of them are asked for otherwise: none is left.")
    features = _choose(X, rest, labels) if taken else X
    return features, *(_choose(X, taken[name], labels) if name in taken else value for name, value in wanted.items())


def _is_name(value: Any) -> bool:
    if isinstance(value, str):
        return True
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, str) for item in value)


def _is(data: Any, package: str, *kinds: str) -> bool:
    """Say whether data are of a class of a package, which is not loaded for that."""
    module = sys.modules.get(package)
    return module is not None and isinstance(data, tuple(getattr(module, kind) for kind in kinds))


def _labels(data: Any) -> list[Any] | None:
    """Return the labels of the columns of a frame, or None where it is none.

    Raises:
        DataTypeError: a query of Polars that fails.
    """
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


def _choose(data: Any, names: Any, labels: list[Any]) -> Any:
    """Return one column where ``names`` is a string, and a frame of several where it is a list."""
    if _is(data, "pandas", "DataFrame") and len(set(labels)) < len(labels):
        # Labels may repeat, and a label then means every column of that name.
        wanted = [names] if isinstance(names, str) else names
        return data.iloc[:, [place for place, label in enumerate(labels) if label in wanted]]
    if _is(data, "pyarrow", "Table", "RecordBatch"):
        # The index goes along, by which rows are aligned.
        kept = [] if isinstance(names, str) else sorted(index_columns(data.schema))
        return data.column(names) if isinstance(names, str) else data.select([*names, *kept])
    return data[names if isinstance(names, str) else list(names)]


def _unknown(name: str, value: str, labels: list[Any]) -> str:
    texts = [str(label) for label in labels]
    near = difflib.get_close_matches(value, texts, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{name} is {value!r}, which is no column of X ({_listed(labels)}) and no file.{hint}"


def _listed(labels: list[Any]) -> str:
    more = f", ... {len(labels) - _LISTED:,} more" if len(labels) > _LISTED else ""
    return ", ".join(map(str, labels[:_LISTED])) + more
