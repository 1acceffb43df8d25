"""HDF5 files: any real data set at any depth, read by ranges of rows with each chunk decompressed once."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

from torch import Tensor

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
from closedform.rows.tensors import array_to_tensor
from closedform.words.errors import SourceError

__all__ = ["Hdf5Format", "Hdf5Source"]

_TITLE = "HDF5"
# h5py meets damaged structures with any of these.
_LIBRARY_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError)
_SMALLEST_CACHE = 1 << 20


def _h5py() -> Any:
    return import_extra("h5py", "h5py", "reading HDF5 files")


@final
class Hdf5Format(FileFormat):
    """HDF5, with keys such as ``kernels/train_kernel``."""

    title = _TITLE
    suffixes = (".h5", ".hdf5", ".hdf")

    def entries(self, path: Path) -> dict[str, Entry]:
        h5py = _h5py()
        with reading(path, _TITLE, *_LIBRARY_ERRORS), h5py.File(path, "r") as file:
            return {
                key: Entry(dataset.shape, dataset.dtype.name, dataset.dtype.kind in "fiub")
                for key, dataset in _walk(h5py, file, "", ())
            }

    def open(self, path: Path, key: str, budget: int) -> FileSource:
        return Hdf5Source(path, key.strip("/"), budget)


def _walk(h5py: Any, group: Any, prefix: str, parents: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """Yield every data set with a shape, links followed (``visititems`` would leave those out)."""
    # A group that links to one above it would never end.
    if any(group == parent for parent in parents):
        return
    for name in group:
        key = f"{prefix}{name}"
        try:
            item = group[name]
        except (KeyError, OSError):
            continue  # A link to nowhere holds no data; naming it as a key still gives its own error.
        if isinstance(item, h5py.Group):
            yield from _walk(h5py, item, f"{key}/", (*parents, group))
        elif isinstance(item, h5py.Dataset) and item.shape is not None:
            yield key, item


@final
class Hdf5Source(FileSource):
    """One HDF5 data set. The file is opened for reading at the first read and stays open until ``close``."""

    def __init__(self, path: Path, key: str, budget: int) -> None:
        self.name = table_name(path, key)
        self._path, self._key = path, key
        self._dataset: Any = None
        h5py = _h5py()
        with reading(path, _TITLE, *_LIBRARY_ERRORS), h5py.File(path, "r") as file:
            dataset = self._find(h5py, file)
            if dataset.shape is None or dataset.shape == ():
                raise SourceError(f"{self.name} holds a single value, not a table; choose another key.")
            self.shape = dataset.shape
            self.dtype, self.notes = native_dtype(dataset.dtype, self.name)
            self._check_parts(dataset)
            self._cache = _chunk_cache(dataset, budget)

    def read(self, start: int, stop: int) -> Tensor:
        with reading(self._path, _TITLE, *_LIBRARY_ERRORS):
            if self._dataset is None:
                file = _h5py().File(self._path, "r", **self._cache)
                self._close = weakref.finalize(self, file.close)
                self._dataset = file[self._key]
            array = self._dataset[start:stop]
        return array_to_tensor(array, self.name)[0]

    def close(self) -> None:
        if self._dataset is not None:
            self._dataset = None
            self._close()

    def _find(self, h5py: Any, file: Any) -> Any:
        link = file.get(self._key, getlink=True)
        if link is None:
            raise UnknownKey(self._key)
        try:
            item = file[self._key]
        except (KeyError, OSError) as error:
            target = f"'{link.path}' in {getattr(link, 'filename', 'the same file')}"
            raise SourceError(
                f"{self.name} is a link to {target}, which cannot be found; put that file where the link "
                "points, or choose another key."
            ) from error
        if isinstance(item, h5py.Group):
            inside = ", ".join(list(item)[:20]) or "nothing"
            raise SourceError(f"{self.name} is a group, not a data set; it holds: {inside}. Add one to the key.")
        if not isinstance(item, h5py.Dataset):
            raise SourceError(f"{self.name} is a named data type, not a data set; choose another key.")
        return item

    def _check_parts(self, dataset: Any) -> None:
        # HDF5 hands out fill values, silently, for the parts of a virtual data set whose file is missing.
        if not dataset.is_virtual:
            return
        for part in dataset.virtual_sources():
            if part.file_name != "." and "%" not in part.file_name:
                file = self._path.parent / part.file_name
                if not file.exists():
                    raise SourceError(f"{self.name} is assembled from several files and {file} is missing.")


def _chunk_cache(dataset: Any, budget: int) -> dict[str, int]:
    """Size HDF5's chunk cache so that a walk by rows decompresses a chunk once, wherever the ranges end.

    A range that ends inside a row of chunks leaves that row to be read again with the next range; the cache
    has to hold one row of chunks, and twice that leaves room for the one being read.
    """
    if dataset.chunks is None:
        return {}
    across = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape[1:], dataset.chunks[1:], strict=True))
    row_of_chunks = across * math.prod(dataset.chunks) * dataset.dtype.itemsize
    cache = max(min(2 * row_of_chunks, budget), _SMALLEST_CACHE)
    return {"rdcc_nbytes": cache, "rdcc_nslots": max(521, 101 * across)}
