"""NumPy files: .npy by ranges of rows, .npz member by member. Neither ever loads a pickle."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, final

import numpy as np
from torch import Tensor
from typing_extensions import override

from closedform.files.formats import (
    Entry,
    FileFormat,
    FileSource,
    UnknownKey,
    native_dtype,
    reading,
    table_name,
)
from closedform.rows.tensors import array_to_tensor
from closedform.words.errors import SourceError

__all__ = ["NpyFormat", "NpySource", "NpzFormat", "NpzSource"]

# The header is Python text, so a damaged one can fail as Python text does.
_NPY_ERRORS = (OSError, ValueError, EOFError, TypeError, SyntaxError, tokenize.TokenError)
_NPZ_ERRORS = (*_NPY_ERRORS, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read the shape and dtype of a .npy stream without reading the data."""
    shape, dtype, _ = _full_header(file)
    return shape, dtype


def _full_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Read the shape, the dtype and whether columns stand one after the other.

    Raises:
        SourceError: its version of the format is newer than NumPy.
    """
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    elif version in ((2, 0), (3, 0)):
        # Version 3 differs in the encoding of the names of fields alone.
        shape, by_columns, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise SourceError(f"version {version[0]} of the .npy format is newer than this NumPy; save the array again.")
    return shape, dtype, by_columns


def _entry(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Entry:
    return Entry(shape, dtype.name, dtype.kind in "fiub")


@final
class NpyFormat(FileFormat):
    """One array, whose key is ``""``."""

    title = ".npy"
    suffixes = (".npy",)

    @override
    def entries(self, path: Path) -> dict[str, Entry]:
        with reading(path, self.title, *_NPY_ERRORS), path.open("rb") as file:
            return {"": _entry(*_header(file))}

    @override
    def open(self, path: Path, key: str, budget: int) -> FileSource:
        if key:
            raise UnknownKey(key)
        return NpySource(path)


@final
class NpySource(FileSource):
    """A .npy file, of which ranges of rows are read; nothing that is handed out hangs on the file.

    Rows that stand one after the other are read as such, which needs no room for a map of the whole file among the
    addresses of the process and goes at the speed of the disk; columns one after the other are mapped.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        with reading(path, NpyFormat.title, *_NPY_ERRORS):
            with path.open("rb") as file:
                self.shape, dtype, by_columns = _full_header(file)
                self._first, self._array_dtype = file.tell(), dtype
            self.dtype, self.notes = native_dtype(dtype, self.name)
            if self.shape == ():
                raise SourceError(f"{self.name} holds a single number, not a table.")
            self._by_columns = by_columns and len(self.shape) > 1
            needed, held = math.prod(self.shape) * dtype.itemsize, path.stat().st_size - self._first
            if held < needed:
                raise ValueError(f"it holds {held} bytes of numbers where its header says {needed}")

    @override
    def read(self, start: int, stop: int) -> Tensor:
        with reading(self._path, NpyFormat.title, *_NPY_ERRORS):
            array = np.array(self._map()[start:stop]) if self._by_columns else self._rows(start, stop)
        return array_to_tensor(array, self.name)[0]

    def _rows(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Read rows that stand one after the other.

        Raises:
            EOFError: the file has become shorter.
        """
        stop = min(stop, self.shape[0])
        row, rows = math.prod(self.shape[1:]), max(stop - start, 0)
        with self._path.open("rb") as file:
            file.seek(self._first + start * row * self._array_dtype.itemsize)
            array = np.fromfile(file, self._array_dtype, rows * row)
        if len(array) != rows * row:
            raise EOFError("it ends before its last row")
        return array.reshape(rows, *self.shape[1:])

    def _map(self) -> np.memmap[Any, Any]:
        return np.lib.format.open_memmap(self._path, mode="r")


@final
class NpzFormat(FileFormat):
    """Several arrays in a zip archive, whose keys are their names."""

    title = ".npz"
    suffixes = (".npz",)

    @override
    def entries(self, path: Path) -> dict[str, Entry]:
        with reading(path, self.title, *_NPZ_ERRORS), zipfile.ZipFile(path) as archive:
            found = {}
            for member in archive.namelist():
                if member.endswith(".npy"):
                    with archive.open(member) as file:
                        found[member.removesuffix(".npy")] = _entry(*_header(file))
            return found

    @override
    def open(self, path: Path, key: str, budget: int) -> FileSource:
        return NpzSource(path, key)


@final
class NpzSource(FileSource):
    """One member of a .npz archive. A zip member has no random access, so it is only ever read whole."""

    streams = False

    def __init__(self, path: Path, key: str) -> None:
        self.name = table_name(path, key)
        self._path, self._member = path, f"{key}.npy"
        with reading(path, NpzFormat.title, *_NPZ_ERRORS), zipfile.ZipFile(path) as archive:
            if self._member not in archive.namelist():
                raise UnknownKey(key)
            with archive.open(self._member) as file:
                self.shape, dtype = _header(file)
        self.dtype, self.notes = native_dtype(dtype, self.name)
        if self.shape == ():
            raise SourceError(f"{self.name} holds a single number, not a table; choose another key.")

    @override
    def read(self, start: int, stop: int) -> Tensor:
        with (
            reading(self._path, NpzFormat.title, *_NPZ_ERRORS),
            zipfile.ZipFile(self._path) as archive,
            archive.open(self._member) as file,
        ):
            array = np.lib.format.read_array(file, allow_pickle=False)
        return array_to_tensor(array[start:stop], self.name)[0]
