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
from closedform.files.raw_rows import RawRows
from closedform.files.records import RecordsSource, array_entry, record_key
from closedform.files.selection import split_selection
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


@final
class NpyFormat(FileFormat):
    """One array, whose key is ``""``."""

    title = ".npy"
    suffixes = (".npy",)

    @override
    def entries(self, path: Path) -> dict[str, Entry]:
        with reading(path, self.title, *_NPY_ERRORS), path.open("rb") as file:
            return {"": array_entry(*_header(file))}

    @override
    def open(self, path: Path, key: str, budget: int) -> FileSource:
        array = _NpyArray(path)
        if array.dtype.names is not None:
            columns = record_key(key, "")
            return RecordsSource(path, "", columns, array.shape, array.dtype, array.read, streams=True)
        if key:
            raise UnknownKey(key)
        return NpySource(path, array)

    @override
    def words(self, path: Path, key: str) -> np.ndarray[Any, Any] | None:
        with reading(path, self.title, *_NPY_ERRORS), path.open("rb") as file:
            _, dtype = _header(file)
            if key or dtype.kind not in "US":
                return None
            file.seek(0)
            return np.asarray(np.load(file, allow_pickle=False))


@final
class _NpyArray:
    """The array of a .npy file, of which ranges of rows are read; nothing that is handed out hangs on the file.

    Rows that stand one after the other are read as such; columns one after the other are mapped.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with reading(path, NpyFormat.title, *_NPY_ERRORS), path.open("rb") as file:
            self.shape, self.dtype, by_columns = _full_header(file)
            self._first = file.tell()
        self._by_columns = by_columns and len(self.shape) > 1
        self._rows = RawRows(path, self._first, self.dtype, self.shape)

    def check_length(self) -> None:
        """Refuse a file that is shorter than its header says.

        Raises:
            ValueError: it is.
        """
        needed, held = math.prod(self.shape) * self.dtype.itemsize, self._path.stat().st_size - self._first
        if held < needed:
            raise ValueError(f"it holds {held} bytes of numbers where its header says {needed}")

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Read rows ``start`` to ``stop``."""
        with reading(self._path, NpyFormat.title, *_NPY_ERRORS):
            return np.array(self._map()[start:stop]) if self._by_columns else self._rows.read(start, stop)

    def _map(self) -> np.memmap[Any, Any]:
        return np.lib.format.open_memmap(self._path, mode="r")


@final
class NpySource(FileSource):
    """A .npy file of numbers."""

    def __init__(self, path: Path, array: _NpyArray) -> None:
        self.name = str(path)
        self._array, self.shape = array, array.shape
        with reading(path, NpyFormat.title, *_NPY_ERRORS):
            self.dtype, self.notes = native_dtype(array.dtype, self.name)
            if self.shape == ():
                raise SourceError(f"{self.name} holds a single number, not a table.")
            array.check_length()

    @override
    def read(self, start: int, stop: int) -> Tensor:
        return array_to_tensor(self._array.read(start, stop), self.name)[0]


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
                        found[member.removesuffix(".npy")] = array_entry(*_header(file))
            return found

    @override
    def open(self, path: Path, key: str, budget: int) -> FileSource:
        array = _NpzArray(path, key)
        if array.dtype.names is not None:
            columns = record_key(key, array.key)
            return RecordsSource(path, array.key, columns, array.shape, array.dtype, array.read, streams=False)
        if array.key != key:
            raise UnknownKey(key)
        return NpzSource(path, array)

    @override
    def words(self, path: Path, key: str) -> np.ndarray[Any, Any] | None:
        member = f"{key}.npy"
        with reading(path, self.title, *_NPZ_ERRORS), zipfile.ZipFile(path) as archive:
            if member not in archive.namelist():
                return None
            with archive.open(member) as file:
                _, dtype = _header(file)
            if dtype.kind not in "US":
                return None
            with archive.open(member) as file:
                return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


@final
class _NpzArray:
    """One member of a .npz archive, by its key or by ``KEY[COLUMNS]``; it has no random access and is read whole."""

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        with reading(path, NpzFormat.title, *_NPZ_ERRORS), zipfile.ZipFile(path) as archive:
            selection = split_selection(key)
            keys = [key] if selection is None else [key, selection[0]]
            held = [name for name in keys if f"{name}.npy" in archive.namelist()]
            if not held:
                raise UnknownKey(key)
            self.key = held[0]
            with archive.open(f"{self.key}.npy") as file:
                self.shape, self.dtype = _header(file)

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Read rows ``start`` to ``stop``."""
        with (
            reading(self._path, NpzFormat.title, *_NPZ_ERRORS),
            zipfile.ZipFile(self._path) as archive,
            archive.open(f"{self.key}.npy") as file,
        ):
            array: np.ndarray[Any, Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array[start:stop]


@final
class NpzSource(FileSource):
    """One member of a .npz archive that holds numbers."""

    streams = False

    def __init__(self, path: Path, array: _NpzArray) -> None:
        self.name = table_name(path, array.key)
        self._array, self.shape = array, array.shape
        self.dtype, self.notes = native_dtype(array.dtype, self.name)
        if self.shape == ():
            raise SourceError(f"{self.name} holds a single number, not a table; choose another key.")

    @override
    def read(self, start: int, stop: int) -> Tensor:
        return array_to_tensor(self._array.read(start, stop), self.name)[0]
