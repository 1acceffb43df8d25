"""Dask arrays, frames and delayed objects as rows; nothing of them is read here but how many rows there are."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
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
    lengths = _agreed_lengths(named)
    columns = _partitions([_cut_as(name, data, lengths) for name, data in named])
    if len(columns) == 2:
        columns.append([None] * len(lengths))
    filled = next((i for i, length in enumerate(lengths) if length), None)
    if filled is None:
        raise InputError("X is empty: no partition of it has rows. At least one row and one feature are needed.")

    # What the first rows are like, without the others.
    dask = import_dask()
    head = computed(dask.delayed(_head)(*(column[filled] for column in columns)))
    try:
        first, total = as_rows(*head), sum(lengths)
    except (InputError, DataTypeError) as error:
        raise type(error)(f"the first rows of the Dask collection: {error}") from error
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


def _agreed_lengths(named: Sequence[tuple[str, Any]]) -> list[int]:
    """Return how many rows each partition of X has; where nobody knows, all tables are counted in one go.

    Raises:
        InputError: another table has other partitions, and no chunks that can be cut anew.
    """
    known, unknown = _known_lengths(named[0][1]), [(name, data) for name, data in named if _has_unknown_lengths(data)]
    dask = import_dask()
    counts = [[dask.delayed(len)(part) for part in parts] for parts in _partitions([data for _, data in unknown])]
    counted = dict(zip([name for name, _ in unknown], computed(counts) if counts else (), strict=True))
    lengths = list(counted["X"] if known is None else known)
    for name, others in counted.items():
        if list(others) != lengths:
            raise InputError(
                f"the partitions of X have {_shown(lengths)} rows and those of {name} {_shown(others)}; make them from "
                "one table, or call compute_chunk_sizes() on arrays of unknown chunks."
            )
    return lengths


def _known_lengths(data: Any) -> tuple[int, ...] | None:
    """Return the rows of each chunk of an array that knows them."""
    known = _kind(data) == "array" and not any(map(math.isnan, data.chunks[0]))
    return tuple(data.chunks[0]) if known else None


def _has_unknown_lengths(data: Any) -> bool:
    return is_dask(data) and _known_lengths(data) is None


def _cut_as(name: str, data: Any, lengths: list[int]) -> Any:
    """Return a table cut into partitions of so many rows: a collection, or a list of them.

    Raises:
        InputError: it has other rows.
    """
    if _has_unknown_lengths(data):
        return data

    rows, known = sum(lengths), _known_lengths(data)
    have = data.shape[0] if hasattr(data, "shape") else len(data)
    if have != rows:
        raise InputError(f"X has {rows:,} rows and {name} has {have:,}: the rows do not match.")
    if known is not None:
        return data if known == tuple(lengths) else data.rechunk({0: tuple(lengths)})
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    return [data[start : start + length] for start, length in zip(starts, lengths, strict=True)]


def _partitions(tables: Sequence[Any]) -> list[list[Any]]:
    """Return the partitions of each table, as delayed objects.

    Collections are optimized so that what several of them are made from stays a task of its own, which is done once for
    all in each pass. Left to themselves, ``X`` and ``X.sum(axis=1)`` would each make it anew.
    """
    tables = list(tables)
    arrays = [i for i, data in enumerate(tables) if _kind(data) == "array"]
    frames = [i for i, data in enumerate(tables) if _kind(data) == "frame"]
    for i in frames:
        # No more than that: an optimized frame of few columns has other partitions than one of many.
        tables[i] = tables[i].simplify().to_delayed(optimize_graph=False)
    for i, array in zip(arrays, _optimized([tables[i] for i in arrays]), strict=True):
        blocks = array.to_delayed(optimize_graph=False)
        tables[i] = blocks.reshape(blocks.shape[0], -1)[:, 0]
    return [[data] if _kind(data) == "delayed" else list(data) for data in tables]


def _optimized(arrays: Sequence[Any]) -> list[Any]:
    """Return arrays on one graph, optimized; ``dask.optimize`` would give each one of its own again."""
    if not arrays:
        return []
    merged = import_module("dask.highlevelgraph").HighLevelGraph.merge(*(array.dask for array in arrays))
    graph = arrays[0].__dask_optimize__(merged, [array.__dask_keys__() for array in arrays])
    rebuilds = [array.__dask_postpersist__() for array in arrays]
    return [rebuild(graph, *arguments) for rebuild, arguments in rebuilds]


def _shown(lengths: Sequence[int]) -> str:
    shown = ", ".join(map(str, lengths[:6]))
    return f"{shown}, ... ({len(lengths)} of them)" if len(lengths) > 6 else shown


def _head(X: Any, Y: Any, weight: Any) -> tuple[Any, Any, Any]:
    """The first row of a partition."""
    return X[:1], Y[:1], None if weight is None else weight[:1]
