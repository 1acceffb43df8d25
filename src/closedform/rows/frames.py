"""Tables with labels in memory: what their rows and columns are called."""

from __future__ import annotations

import sys
from bisect import bisect
from typing import Any

from closedform.words.errors import InputError

__all__ = ["check_alignment"]


def check_alignment(**tables: Any) -> None:
    """Refuse tables whose rows have labels, but not the same ones in the same order: position says nothing there.

    Rows are labelled by the index of a pandas frame or series, and by the coordinate of the first dimension of an
    xarray array; other data have no labels and go with anything. Tables of unequal length are left to the check of
    shapes.

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
        if len(labels) == len(wanted) and not labels.equals(wanted):
            raise InputError(_disagreement(first, wanted, name, labels))


def _disagreement(first: str, wanted: Any, name: str, labels: Any) -> str:
    # An index alone knows which of its labels are equal (1 and 1.0, one missing value and another): ask for prefixes.
    row = bisect(range(len(labels)), False, key=lambda row: not wanted[: row + 1].equals(labels[: row + 1]))
    if wanted.is_unique and labels.is_unique and wanted.isin(labels).all():
        remedy = f"They hold the same labels in another order: pass {name}.loc[{first}.index]"
    else:
        remedy = f"They hold other labels: take the rows that both have, {first}.index.intersection({name}.index)"
    return (
        f"the indexes of {first} and {name} do not agree: row {row} is {wanted[row]!r} in {first}, but "
        f"{labels[row]!r} in {name}. {remedy}; if the rows belong together as they stand, pass {name}.to_numpy()."
    )


def _row_labels(data: Any) -> Any:
    """Return the labels of the rows as a pandas index, or None where rows have none."""
    pandas, xarray = sys.modules.get("pandas"), sys.modules.get("xarray")
    if pandas is not None and isinstance(data, (pandas.DataFrame, pandas.Series)):
        return data.index
    if xarray is not None and isinstance(data, xarray.DataArray) and data.ndim:
        return data.indexes.get(data.dims[0])
    return None
