"""Dask arrays, frames and delayed objects as rows; nothing of them is read here but how many rows there are."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from closedform.rows.table import Rows, as_rows
from closedform.rows.unnumbered import UnnumberedSource, whole_numbers_notes
from closedform.rows.walkers.on_dask import OnDask, computed, import_dask
from closedform.words.errors import DataTypeError, InputError
from closedform.words.numbers import plural

__all__ = ["dask_rows", "is_dask"]

#: Said of its tables where somebody reads rows of them by number.
_WHAT = "is a Dask collection"


def is_dask(data: Any) -> bool:
    """Return whether something is a Dask array, frame or series, a delayed object, or a list of these.

    Example:
        >>> is_dask([1.0]), is_dask(None)
        (False, False)
    """
    if isinstance(data, list | tuple):
        return bool(data) and all(_kind(item) == "delayed" for item in data)
    return _kind(data) is not None


def _kind(data: Any) -> str | None:
    """``"array"``, ``"frame"``, ``"delayed"`` or None; nothing of Dask is imported for it."""
    for module, names, kind in (
        ("dask.array", ("Array",), "array"),
        ("dask.dataframe", ("DataFrame", "Series"), "frame"),
        ("dask.delayed", ("Delayed",), "delayed"),
    ):
        found = sys.modules.get(module)
        if found is not None and isinstance(data, tuple(getattr(found, name) for name in names)):
            return kind
    return None


def dask_rows(X: Any, Y: Any, sample_weight: Any = None) -> Rows:
    """Return rows that stay in their partitions.

    Args:
        X: Features: a Dask array ``(rows, features)``, a frame, or a list of delayed tables.
        Y: Targets, likewise, in the same partitions; an array or a tensor in memory is cut as X is.
        sample_weight: Weights, likewise, or None.

    Raises:
        InputError: chunks along the columns, partitions that do not belong together, or no rows.
        DataTypeError: columns that hold no numbers.
    """
    named = [("X", X), ("Y", Y)] + ([] if sample_weight is None else [("sample_weight", sample_weight)])
    _check(named)
    x_parts = _partitions("X", X)
    known = X.chunks[0] if _kind(X) == "array" and not any(map(math.isnan, X.chunks[0])) else None
    lengths = list(known) if known is not None else _lengths(x_parts)
    columns = [x_parts, *(_aligned(name, data, X, lengths) for name, data in named[1:])]
    if len(columns) == 2:
        columns.append([None] * len(x_parts))
    filled = next((i for i, length in enumerate(lengths) if length), None)
    if filled is None:
        raise InputError("X is empty: no partition of it has rows. At least one row and one feature are needed.")

    # What the first rows are like, without the others.
    dask = import_dask()
    head = computed(dask.delayed(_head)(*(column[filled] for column in columns)))
    first, total = as_rows(*head), sum(lengths)
    _check_width("X", X, first.n_features)
    _check_width("Y", Y, first.n_targets)
    notes = [f"X is a Dask collection of {len(lengths):,} partitions; its rows stayed on the workers"]
    notes += whole_numbers_notes("Dask collection", first.y.stored_dtype)
    return replace(
        first,
        x=UnnumberedSource(first.x, first.x.dtype, (total, first.n_features), _WHAT),
        y=UnnumberedSource(first.y, first.y.dtype, (total, first.n_targets), _WHAT),
        weight=None if first.weight is None else UnnumberedSource(first.weight, first.weight.dtype, (total,), _WHAT),
        walker=OnDask(list(zip(*columns, strict=True)), lengths, first),
        notes=(*first.notes, *notes),
    )


def _check(named: Sequence[tuple[str, Any]]) -> None:
    """Refuse columns that are cut, and columns of objects, before anything is computed.

    Raises:
        InputError: chunks along the columns, other shapes than those of tables, or X in memory.
        DataTypeError: objects.
    """
    for name, data in named:
        kind = _kind(data)
        if name == "X" and kind is None and not is_dask(data):
            raise InputError("Y is a Dask collection and X is none; pass X as one too, or Y.compute().")

        if kind == "array" and (data.ndim not in (1, 2) or (name == "X" and data.ndim == 1)):
            raise InputError(f"{name} has shape {data.shape}; a Dask array of (rows, columns) is needed.")
        if kind == "array" and data.ndim == 2 and data.numblocks[1] > 1:
            raise InputError(
                f"{name} has {data.numblocks[1]} chunks along its columns, so that no worker has a whole row; call "
                f"{name}.rechunk({{1: -1}}) first."
            )
        if kind == "array" and data.dtype.kind not in "fiub":
            raise DataTypeError(f"{name} is a Dask array of {data.dtype}; numbers are needed.")

        if kind == "frame":
            dtypes = dict(data.dtypes) if data.ndim == 2 else {data.name: data.dtype}
            for label, dtype in dtypes.items():
                if getattr(dtype, "kind", "O") not in "fiub":
                    raise DataTypeError(
                        f"column {label!r} of {name} holds {dtype}; drop it or turn it into numbers first."
                    )


def _check_width(name: str, data: Any, columns: int) -> None:
    """Refuse an array whose chunks have other columns than it says itself.

    Raises:
        InputError: they do.
    """
    if _kind(data) == "array" and data.ndim == 2 and data.shape[1] != columns:
        raise InputError(
            f"{name} is a Dask array of {plural(data.shape[1], 'column')}, but its first chunk has {columns}; say so "
            "where it is made (map_blocks(chunks=...))."
        )


def _lengths(parts: Sequence[Any]) -> list[int]:
    dask = import_dask()
    return list(computed([dask.delayed(len)(part) for part in parts]))


def _partitions(name: str, data: Any) -> list[Any]:
    if isinstance(data, list | tuple):
        return list(data)
    kind = _kind(data)
    if kind == "array":
        blocks = data.to_delayed()
        return list(blocks.reshape(blocks.shape[0], -1)[:, 0])
    return [data] if kind == "delayed" else list(data.to_delayed())


def _aligned(name: str, data: Any, X: Any, lengths: list[int]) -> list[Any]:
    """Return the partitions of a table that belong to those of X.

    Raises:
        InputError: there are others.
    """
    rows = sum(lengths)
    if not is_dask(data):
        have = data.shape[0] if hasattr(data, "shape") else len(data)
        if have != rows:
            raise InputError(f"X has {rows:,} rows and {name} has {have:,}: the rows do not match.")
        starts = [sum(lengths[:i]) for i in range(len(lengths))]
        return [data[start : start + length] for start, length in zip(starts, lengths, strict=True)]

    if _kind(data) == "array" and not any(map(math.isnan, data.chunks[0])):
        if data.shape[0] != rows:
            raise InputError(f"X has {rows:,} rows and {name} has {data.shape[0]:,}: the rows do not match.")
        if tuple(data.chunks[0]) != tuple(lengths):
            data = data.rechunk({0: tuple(lengths)})
        return _partitions(name, data)

    parts = _partitions(name, data)
    others = _lengths(parts)
    if others != lengths:
        raise InputError(
            f"the partitions of X have {_shown(lengths)} rows and those of {name} {_shown(others)}; make them from one "
            "table, or call compute_chunk_sizes() on arrays of unknown chunks."
        )
    return parts


def _shown(lengths: list[int]) -> str:
    shown = ", ".join(map(str, lengths[:6]))
    return f"{shown}, ... ({len(lengths)} of them)" if len(lengths) > 6 else shown


def _head(X: Any, Y: Any, weight: Any) -> tuple[Any, Any, Any]:
    """The first row of a partition."""
    return X[:1], Y[:1], None if weight is None else weight[:1]
