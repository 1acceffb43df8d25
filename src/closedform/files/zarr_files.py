"""Zarr stores (folders, of version 2 or 3), read by the package ``zarr`` range by range."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from closedform.files.formats import (
    Entry,
    FileFormat,
    FileSource,
    UnknownKey,
    import_extra,
    native_dtype,
    reading,
    table_name,
)
from closedform.files.packing import Packing
from closedform.files.records import array_entry
from closedform.rows.tensors import array_to_tensor
from closedform.words.errors import SourceError

__all__ = ["ZarrFormat", "ZarrSource", "is_zarr"]

_ERRORS = (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError, NotImplementedError)


def is_zarr(path: Path) -> bool:
    """Return whether a folder is a Zarr store."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def _open(path: Path) -> Any:
    library = import_extra("zarr", "zarr", "reading Zarr stores")
    return library.open(str(path), mode="r")


def _arrays(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield the key and the array of every array of a store; the key of a store that is one array is ``""``."""
    if hasattr(node, "shape"):
        yield "", node
        return
    pending = [("", node)]
    while pending:
        prefix, group = pending.pop(0)
        for name, array in sorted(group.arrays()):
            yield f"{prefix}{name}", array
        pending += [(f"{prefix}{name}/", inner) for name, inner in sorted(group.groups())]


@final
class ZarrFormat(FileFormat):
    """A folder of chunks, with keys as in HDF5."""

    title = "Zarr"
    suffixes = (".zarr",)

    @override
    def entries(self, path: Path) -> dict[str, Entry]:
        with reading(path, self.title, *_ERRORS):
            return {key: array_entry(tuple(array.shape), np.dtype(array.dtype)) for key, array in _arrays(_open(path))}

    @override
    def open(self, path: Path, key: str, budget: int) -> FileSource:
        return ZarrSource(path, key.strip("/"))


@final
class ZarrSource(FileSource):
    """One array of a store."""

    def __init__(self, path: Path, key: str) -> None:
        self.name = table_name(path, key)
        self._path = path
        with reading(path, ZarrFormat.title, *_ERRORS):
            node = _open(path)
            if key:
                if hasattr(node, "shape") or key not in node:
                    raise UnknownKey(key)
                node = node[key]

            if not hasattr(node, "shape"):
                raise SourceError(f"{self.name} is a group, not an array; add one of its keys.")

            if node.shape == ():
                raise SourceError(f"{self.name} holds a single number, not a table; choose another key.")

            if node.nchunks_initialized < node.nchunks and node.size:
                raise SourceError(
                    f"{self.name} was never written in {node.nchunks - node.nchunks_initialized} of {node.nchunks} "
                    f"chunks: Zarr would hand out its fill value {node.fill_value} there. Write those rows first."
                )

            self._array = node
            self.shape = tuple(node.shape)
            self.dtype, self.notes = native_dtype(np.dtype(node.dtype), self.name)
            self._packing = Packing.of(dict(node.attrs))
            if self._packing is not None:
                self.dtype, self.notes = torch.float64, (*self.notes, self._packing.note(self.name))

    @override
    def read(self, start: int, stop: int) -> Tensor:
        with reading(self._path, ZarrFormat.title, *_ERRORS):
            array = np.asarray(self._array[start : min(stop, self.shape[0])])
        if self._packing is not None:
            array = self._packing.unpack(array)
        return array_to_tensor(array, self.name)[0]
