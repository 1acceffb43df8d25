"""Tables of a probe: layers of features, and some of their rows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.files import open_data
from closedform.files.shards import ShardedSource
from closedform.rows.labels import column_names
from closedform.rows.source import Source
from closedform.rows.tensors import FloatSource, TensorSource, as_tensor
from closedform.words.errors import InputError
from closedform.words.text import printable

__all__ = ["ChosenRows", "leading_shape", "open_layers", "rows_of"]

#: Name of features that are the only ones.
_ONLY = "features"


@final
class ChosenRows(Source):
    """Some rows of a table in a file, in ascending order."""

    def __init__(self, source: Source, chosen: Tensor) -> None:
        self._source, self._chosen = source, chosen
        self.name, self.dtype, self.device = source.name, source.dtype, source.device
        self.in_memory, self.notes, self.columns = source.in_memory, source.notes, source.columns
        self.shape = (chosen.shape[0], *source.shape[1:])

    @property
    @override
    def stored_dtype(self) -> torch.dtype:
        return self._source.stored_dtype

    @override
    def read(self, start: int, stop: int) -> Tensor:
        rows = self._chosen[start:stop]
        if not rows.numel():
            return self._source.read(0, 0)
        first = int(rows[0])
        return self._source.read(first, int(rows[-1]) + 1)[(rows - first).to(self.device)]


def rows_of(source: Source, chosen: Tensor) -> Source:
    """Return some rows of a table, in ascending order: read once from memory, and block by block from a file."""
    some = ChosenRows(source, chosen)
    if not source.in_memory:
        return some
    return TensorSource(some.read(0, len(chosen)), source.name, source.notes, columns=source.columns)


def open_layers(features: Any, n_labels: int, name: str = "features") -> dict[str, Source]:
    """Return the features of each layer, ``(rows, features)``.

    Args:
        features: One table; a mapping of tables by the names of their layers; or a list of tables or paths, which are
            layers where each has a row for every label, and shards of one table where their rows add up to that.
        n_labels: How many labels there are.
        name: What the user calls the features.

    Raises:
        InputError: tables whose rows are not those of the labels, or that have more than two dimensions.
    """
    if isinstance(features, Mapping):
        if not features:
            raise InputError(f"{name} is an empty mapping; give one table for each layer, by its name.")
        layers = {str(key): _table(value, f"{name}[{key!r}]") for key, value in features.items()}
    elif _is_list_of_tables(features):
        layers = _from_list(features, n_labels, name)
    else:
        layers = {_ONLY: _table(features, name)}
    return {key: _checked(source, n_labels, name) for key, source in layers.items()}


def leading_shape(features: Any) -> tuple[int, ...]:
    """Return the leading dimensions of features in memory that have several, as token features have; else nothing."""
    first = next(iter(features.values()), None) if isinstance(features, Mapping) else features
    shape = tuple(getattr(first, "shape", ()))
    return shape[:-1] if len(shape) > 2 else ()


def _is_list_of_tables(features: Any) -> bool:
    return (
        isinstance(features, list | tuple)
        and bool(features)
        and all(isinstance(item, str | os.PathLike) or len(getattr(item, "shape", ())) >= 2 for item in features)
    )


def _from_list(features: Any, n_labels: int, name: str) -> dict[str, Source]:
    """Tell layers from shards by their rows.

    Raises:
        InputError: they are neither.
    """
    tables = [_table(item, f"{name}[{place}]") for place, item in enumerate(features)]
    rows = [table.shape[0] for table in tables]
    if all(count == n_labels for count in rows):
        return dict(zip(_names(features), tables, strict=True))
    if sum(rows) == n_labels:
        return {_ONLY: ShardedSource(tables, name)}
    listed = ", ".join(f"{table.name} {table.shape}" for table in tables[:6])
    raise InputError(
        f"there are {n_labels:,} labels, and {len(tables)} tables of {name} with {sum(rows):,} rows in all ({listed}): "
        "layers have a row for each label, and the rows of shards add up to the labels."
    )


def _names(features: Any) -> list[str]:
    """Return the names of layers: those of their files where these differ, else their places."""
    texts = [os.fspath(item) if isinstance(item, str | os.PathLike) else "" for item in features]
    short = [text.rpartition("::")[2] if "::" in text else Path(text).stem for text in texts]
    if all(short) and len(set(short)) == len(short):
        return short
    return (
        [text or str(place) for place, text in enumerate(texts)]
        if len(set(texts)) == len(texts)
        else [str(place) for place in range(len(texts))]
    )


def _table(data: Any, name: str) -> Source:
    if isinstance(data, Source):
        source: Source = data
    else:
        opened = open_data(data)
        if opened is None:
            tensor, notes = as_tensor(data, name)
            names = column_names(data)
            shown = None if names is None else tuple(map(printable, names))
            opened = TensorSource(tensor, name, notes, columns=shown)
        source = opened
    return source if source.dtype.is_floating_point else FloatSource(source)


def _checked(source: Source, n_labels: int, name: str) -> Source:
    """Return a table of two dimensions with a row for each label.

    Raises:
        InputError: it has other rows or other dimensions.
    """
    shape = source.shape
    leading = torch.Size(shape[:-1]).numel()
    if len(shape) > 2 and leading == n_labels and isinstance(source, TensorSource):
        return TensorSource(source.tensor.reshape(-1, shape[-1]), source.name, source.notes)
    if len(shape) > 2:
        raise InputError(_pooling(source.name, shape, n_labels))
    if len(shape) < 2:
        raise InputError(f"{source.name} has shape {shape}; features come as (rows, features).")
    if shape[0] != n_labels:
        raise InputError(
            f"{source.name} has {shape[0]:,} rows, and there are {n_labels:,} labels; {name} and labels belong "
            "together row by row."
        )
    if 0 in shape:
        raise InputError(f"{source.name} is empty: its shape is {shape}.")
    return source


def _pooling(name: str, shape: tuple[int, ...], n_labels: int) -> str:
    """Say how activations with positions become one row of features for each label."""
    if len(shape) == 4:
        ways = "x.mean((2, 3)) averages over positions (of (rows, channels, height, width)), x.flatten(1) keeps all"
    else:
        ways = "x.mean(1) averages over positions (of (rows, positions, features)), x[:, 0] takes the first one, "
        ways += "such as the class token, x.flatten(1) keeps all"
    return (
        f"{name} has shape {shape}, and there are {n_labels:,} labels: a probe takes one row of features for each "
        f"label, (rows, features). Pool first: {ways}."
    )
