"""HDF5 files: any real data set at any depth, read by ranges of rows with each chunk decompressed once.

Beside plain data sets: tables with named columns (compound data sets, pandas' HDFStore, AnnData), sparse matrices of
AnnData, and MATLAB's files of version 7.3, whose axes are in reverse.
"""

from __future__ import annotations

import importlib
import math
import re
import weakref
from contextlib import suppress
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from closedform.files.formats import (
    LABEL,
    PARAMETER,
    Entry,
    FileFormat,
    FileSource,
    UnknownKey,
    import_extra,
    native_dtype,
    reading,
    table_name,
)
from closedform.files.hdf5_frames import Column, Frame, find_frame, read_columns, read_labels
from closedform.files.hdf5_walk import attribute, check_parts, check_written, walk
from closedform.files.packing import Packing
from closedform.files.selection import split_columns, split_selection
from closedform.rows.labels import RowLabels
from closedform.rows.tensors import array_to_tensor
from closedform.words.errors import DataTypeError, InputError, SourceError
from closedform.words.text import printable

__all__ = ["Hdf5Format", "Hdf5FrameSource", "Hdf5Source", "Hdf5SparseSource"]

_TITLE = "HDF5"
# h5py meets damaged structures with any of these.
_LIBRARY_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError)
#: Bytes of the smallest chunk cache: HDF5's own default.
_SMALLEST_CACHE = 1 << 20
#: Labels of an enumeration that a note lists.
_SHOWN_LABELS = 10
#: Where Keras 3 keeps the parameters of a layer.
_KERAS_3 = re.compile(r"(.*/)?vars/\d+")
#: What MATLAB calls its classes of numbers; text is stored as numbers too, but is none.
_MATLAB_NUMBERS = re.compile(r"double|single|logical|u?int(8|16|32|64)")


def _h5py() -> Any:
    library = import_extra("h5py", "h5py", "reading HDF5 files")
    _import_filters()
    return library


@cache
def _import_filters() -> None:
    """Bring in the compression filters of the package hdf5plugin, where it is installed."""
    with suppress(ImportError):
        importlib.import_module("hdf5plugin")


@final
class Hdf5Format(FileFormat):
    """HDF5, with keys such as ``kernels/train_kernel``, and ``df[a,b]`` for columns of a table in it."""

    title = _TITLE
    suffixes = (".h5", ".hdf5", ".hdf", ".h5ad", ".nc", ".nc4")

    @override
    def entries(self, path: Path) -> dict[str, Entry]:
        h5py = _h5py()
        found: dict[str, Entry] = {}
        with reading(path, _TITLE, *_LIBRARY_ERRORS), h5py.File(path, "r") as file:
            keras, matlab = _is_keras(file), _has_matlab_head(file)
            for key, item in walk(h5py, file):
                frame = find_frame(h5py, item, table_name(path, key))
                if frame is not None:
                    found[key] = frame.entry()
                elif isinstance(item, h5py.Group):
                    found[key] = _sparse_entry(item)
                else:
                    role = PARAMETER if keras or _KERAS_3.fullmatch(key) else _label(item)
                    shape = item.shape[::-1] if matlab or "MATLAB_class" in item.attrs else item.shape
                    found[key] = Entry(shape, item.dtype.name, _is_numeric(item), role)
        return found

    @override
    def open(self, path: Path, key: str, budget: int) -> FileSource:
        key = key.strip("/")
        h5py = _h5py()
        with reading(path, _TITLE, *_LIBRARY_ERRORS), h5py.File(path, "r") as file:
            inner, columns = key, ""
            if file.get(key, getlink=True) is None and (parts := split_selection(key)) is not None:
                inner, columns = parts[0].strip("/"), parts[1]

            item = _find(h5py, file, inner, table_name(path, key))
            frame = find_frame(h5py, item, table_name(path, inner))
            if frame is not None:
                return Hdf5FrameSource(path, inner, columns, frame)

            if columns:
                raise UnknownKey(key)

            if isinstance(item, h5py.Dataset):
                check_parts(h5py, item, table_name(path, key))
                source = Hdf5Source(path, key, budget)
                check_written(item, table_name(path, key))
                return source

            if _is_sparse(item):
                return Hdf5SparseSource(path, key, item)

            inside = ", ".join(map(printable, list(item)[:20])) or "nothing"
            raise SourceError(
                f"{table_name(path, key)} is a group, not a data set; it holds: {inside}. Add one to the key."
            )

    @override
    def words(self, path: Path, key: str) -> np.ndarray[Any, Any] | None:
        h5py = _h5py()
        with reading(path, _TITLE, *_LIBRARY_ERRORS), h5py.File(path, "r") as file:
            item = file.get(key.strip("/")) if key.strip("/") else None
            if not isinstance(item, h5py.Dataset):
                return None
            if h5py.check_string_dtype(item.dtype) is not None:
                return np.asarray(item.asstr()[()])
            codes = h5py.check_enum_dtype(item.dtype)
            if codes is None or item.dtype.kind == "b":
                return None
            names = {code: name for name, code in codes.items()}
            # A code without a name is a missing label.
            return np.array([names.get(code) for code in item[()].ravel().tolist()], dtype=object).reshape(item.shape)


def _is_keras(file: Any) -> bool:
    """Whether Keras wrote this file, the layers at the top or below ``model_weights``."""
    return any(name in group.attrs for group in (file, file.get("model_weights", file)) for name in _KERAS_ATTRIBUTES)


_KERAS_ATTRIBUTES = ("keras_version", "layer_names", "model_config")


def _label(dataset: Any) -> str:
    """The role of a data set that is a coordinate of others (netCDF, xarray: a dimension scale)."""
    return LABEL if attribute(dataset, "CLASS") == "DIMENSION_SCALE" else ""


def _has_matlab_head(file: Any) -> bool:
    """Whether MATLAB wrote a file: it stores columns first, which HDF5 shows in reverse."""
    if file.userblock_size < len(_MATLAB_HEAD):
        return False
    with open(file.filename, "rb") as stream:
        return stream.read(len(_MATLAB_HEAD)) == _MATLAB_HEAD


_MATLAB_HEAD = b"MATLAB 7.3 MAT-file"


def _is_numeric(dataset: Any) -> bool:
    matlab = attribute(dataset, "MATLAB_class")
    if matlab and (not _MATLAB_NUMBERS.fullmatch(matlab) or "MATLAB_empty" in dataset.attrs):
        return False
    return dataset.dtype.kind in "fiub"


def _is_sparse(group: Any) -> bool:
    return all(name in group for name in ("data", "indices", "indptr"))


def _sparse_layout(group: Any) -> tuple[str, tuple[int, ...]]:
    """Return ``"csr"`` or ``"csc"`` and the shape of a sparse matrix of AnnData, old or new."""
    layout = (attribute(group, "encoding-type") or attribute(group, "h5sparse_format"))[:3]
    shape = group.attrs.get("shape", group.attrs.get("h5sparse_shape", ()))
    return layout, tuple(int(size) for size in shape)


def _sparse_entry(group: Any) -> Entry:
    layout, shape = _sparse_layout(group)
    dtype = group["data"].dtype
    return Entry(shape, f"{dtype.name} {layout}", dtype.kind in "fiub")


def _find(h5py: Any, file: Any, key: str, name: str) -> Any:
    """Return the data set or group of a key.

    Raises:
        UnknownKey: there is none.
        SourceError: it is a link to nowhere.
    """
    link = file.get(key, getlink=True) if key else None
    if link is None:
        raise UnknownKey(key)
    if isinstance(link, h5py.ExternalLink):
        target = Path(file.filename).parent / link.filename
        if target.exists() and not target.is_file():
            raise SourceError(f"{name} is a link to {target}, which is not a regular file.")
    try:
        item = file[key]
    except (KeyError, OSError) as error:
        where = f"'{link.path}' in {getattr(link, 'filename', 'the same file')}"
        raise SourceError(
            f"{name} is a link to {where}, which cannot be found; put that file where the link "
            "points, or choose another key."
        ) from error
    if not isinstance(item, h5py.Group | h5py.Dataset):
        raise SourceError(f"{name} is a named data type, not a data set; choose another key.")
    return item


@final
class Hdf5Source(FileSource):
    """One HDF5 data set. The file is opened for reading at the first read and stays open until ``close``."""

    def __init__(self, path: Path, key: str, budget: int) -> None:
        self.name = table_name(path, key)
        self._path, self._key = path, key
        self._dataset: Any = None
        h5py = _h5py()
        with reading(path, _TITLE, *_LIBRARY_ERRORS), h5py.File(path, "r") as file:
            dataset = _find(h5py, file, key, self.name)
            if dataset.shape is None or dataset.shape == ():
                raise SourceError(f"{self.name} holds a single value, not a table; choose another key.")

            matlab = attribute(dataset, "MATLAB_class")
            if matlab and not _is_numeric(dataset):
                raise DataTypeError(f"{self.name} holds MATLAB's {matlab} values, which are no table of numbers.")

            self.dtype, self.notes = native_dtype(dataset.dtype, self.name)
            self._reversed = (bool(matlab) or _has_matlab_head(file)) and len(dataset.shape) > 1
            self.shape = dataset.shape[::-1] if self._reversed else dataset.shape
            if self._reversed:
                self.notes += (
                    f"{self.name} was transposed to {self.shape}: MATLAB stores columns first, so HDF5 shows it as "
                    f"{dataset.shape}",
                )

            self.notes += _enumerated(dataset.dtype, self.name)
            self._packing = Packing.of(dict(dataset.attrs))
            if self._packing is not None:
                self.dtype, self.notes = torch.float64, (*self.notes, self._packing.note(self.name))

            self._fill = _fill_values(dataset)
            self._cache = _chunk_cache(dataset, budget, reverse=self._reversed)

    @override
    def read(self, start: int, stop: int) -> Tensor:
        with reading(self._path, _TITLE, *_LIBRARY_ERRORS):
            if self._dataset is None:
                file = _h5py().File(self._path, "r", **self._cache)
                self._close = weakref.finalize(self, file.close)
                self._dataset = file[self._key]
            array = self._dataset[..., start:stop].transpose() if self._reversed else self._dataset[start:stop]
        for value in self._fill:
            self._refuse_fill(array, value, start)
        if self._packing is not None:
            array = self._packing.unpack(array)
        return array_to_tensor(array, self.name)[0]

    def _refuse_fill(self, array: np.ndarray[Any, Any], value: Any, start: int) -> None:
        found = array == value
        if found.any():
            row = start + int(np.flatnonzero(found.reshape(len(array), -1).any(axis=1))[0])
            raise InputError(
                f"{self.name} holds {value} in row {row} (counted from 0), its fill value, which stands for what "
                "was never written; drop or fill those rows."
            )

    @override
    def close(self) -> None:
        if self._dataset is not None:
            self._dataset = None
            self._close()


def _fill_values(dataset: Any) -> tuple[Any, ...]:
    """Return the numbers that stand for missing values: netCDF's attributes, or a fill value that the writer chose."""
    found = []
    for name in ("_FillValue", "missing_value"):
        value = np.asarray(dataset.attrs.get(name, ()))
        if value.size == 1 and value.dtype.kind in "fiu":
            found.append(value.reshape(-1)[0])
    h5d = _h5py().h5d
    chosen = dataset.id.get_create_plist().fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED
    if chosen and dataset.dtype.kind in "fiu" and dataset.fillvalue != 0:
        found.append(dataset.fillvalue)
    return tuple(dict.fromkeys(value for value in found if value == value))  # NaN is found by every later check


def _enumerated(dtype: np.dtype[Any], name: str) -> tuple[str, ...]:
    """Say what the numbers of an enumeration stand for, in a tuple; an empty one where they are just numbers."""
    labels = _h5py().check_enum_dtype(dtype)
    if not labels:
        return ()
    shown = [f"{value} for {printable(label)}" for label, value in sorted(labels.items(), key=itemgetter(1))]
    listed = ", ".join(shown[:_SHOWN_LABELS] + (["..."] if len(shown) > _SHOWN_LABELS else []))
    return (f"{name} holds labels, which HDF5 stores as numbers ({listed}); these numbers were read",)


def _chunk_cache(dataset: Any, budget: int, *, reverse: bool = False) -> dict[str, int]:
    """Size HDF5's chunk cache so that a walk by rows decompresses a chunk once, wherever the ranges end.

    A range that ends inside a row of chunks leaves that row to be read again with the next range; the cache
    has to hold one row of chunks, and twice that leaves room for the one being read.
    """
    if dataset.chunks is None:
        return {}
    sizes = list(zip(dataset.shape, dataset.chunks, strict=True))
    across = math.prod(-(-size // chunk) for size, chunk in (sizes[:-1] if reverse else sizes[1:]))
    row_of_chunks = across * math.prod(dataset.chunks) * dataset.dtype.itemsize
    cache = max(min(2 * row_of_chunks, budget), _SMALLEST_CACHE)
    return {"rdcc_nbytes": cache, "rdcc_nslots": max(521, 101 * across)}


@final
class Hdf5FrameSource(FileSource):
    """Some columns of a table with named columns, stacked side by side in their common dtype."""

    def __init__(self, path: Path, key: str, columns: str, frame: Frame) -> None:
        self.name = table_name(path, f"{key}[{columns}]" if columns else key)
        self._path, self._key = path, key
        self._item: Any = None
        data = [name for name, column in frame.columns.items() if not column.label]
        labels = frame.columns.keys() - data
        names = split_columns(columns, list(frame.columns), labels) if columns else data
        self._columns: list[tuple[str, Column]] = [(name, frame.columns[name]) for name in names]
        for name, column in self._columns:
            if not column.numeric:
                raise DataTypeError(
                    f"column '{name}' of {table_name(path, key)} holds {column.kind} values, which are not real "
                    "numbers; name the columns you want (--x 'KEY[COL,COL]'), or turn it into numbers first."
                )

        if not self._columns:
            raise SourceError(f"{self.name} has no columns.")

        self.row_labels = RowLabels(table_name(path, key), self._labels) if frame.labelled else None
        self._array_dtype = np.result_type(*(column.dtype for _, column in self._columns))
        self.shape = (frame.n_rows, sum(column.width for _, column in self._columns))
        self.dtype, self.notes = native_dtype(self._array_dtype, self.name)
        for name, column in self._columns:
            self.notes += _enumerated(column.dtype, f"column '{printable(name)}' of {table_name(path, key)}")
        self.columns = tuple(
            printable(name) if column.width == 1 else f"{printable(name)}[{i}]"
            for name, column in self._columns
            for i in range(column.width)
        )

    @override
    def read(self, start: int, stop: int) -> Tensor:
        stop = min(stop, self.shape[0])
        with reading(self._path, _TITLE, *_LIBRARY_ERRORS):
            if self._item is None:
                file = _h5py().File(self._path, "r")
                self._close = weakref.finalize(self, file.close)
                self._item = file[self._key]
            parts = read_columns(self._item, self._columns, start, stop, self.name)
        if self._array_dtype.kind == "f":
            for (name, _), part in zip(self._columns, parts, strict=True):
                self.heed_rounding(part, f"column '{printable(name)}' of {self.name}", start)
        return array_to_tensor(np.concatenate(parts, axis=1, dtype=self._array_dtype), self.name)[0]

    def _labels(self) -> tuple[np.ndarray[Any, Any], ...]:
        with reading(self._path, _TITLE, *_LIBRARY_ERRORS), _h5py().File(self._path, "r") as file:
            return read_labels(file[self._key])

    @override
    def close(self) -> None:
        if self._item is not None:
            self._item = None
            self._close()


@final
class Hdf5SparseSource(FileSource):
    """A sparse matrix of AnnData, handed out dense; compressed by rows (csr) it is read by ranges of rows."""

    def __init__(self, path: Path, key: str, group: Any) -> None:
        self.name = table_name(path, key)
        self._path, self._key = path, key
        self._layout, self.shape = _sparse_layout(group)
        if self._layout not in ("csr", "csc") or len(self.shape) != 2:
            raise SourceError(f"{self.name} is a sparse matrix of an unknown layout; write it dense.")

        self.streams = self._layout == "csr"
        self.dtype, notes = native_dtype(group["data"].dtype, self.name)
        self.notes = (*notes, f"{self.name} is sparse ({self._layout}); it was read as a dense table")

    @override
    def read(self, start: int, stop: int) -> Tensor:
        from scipy.sparse import csc_matrix, csr_matrix

        stop = min(stop, self.shape[0])
        with reading(self._path, _TITLE, *_LIBRARY_ERRORS), _h5py().File(self._path, "r") as file:
            group = file[self._key]
            if self._layout == "csc":
                whole = csc_matrix((group["data"][()], group["indices"][()], group["indptr"][()]), self.shape)
                array = whole[start:stop].toarray()
            else:
                ends = group["indptr"][start : stop + 1]
                first, last = (int(ends[0]), int(ends[-1])) if len(ends) else (0, 0)
                data, indices = group["data"][first:last], group["indices"][first:last]
                array = csr_matrix((data, indices, ends - first), (stop - start, self.shape[1])).toarray()
        return array_to_tensor(np.ascontiguousarray(array), self.name)[0]
