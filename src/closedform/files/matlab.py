"""MATLAB files up to version 7, read by scipy; those of version 7.3 are HDF5."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, final

import numpy as np
from torch import Tensor
from typing_extensions import override

from closedform.files.formats import Entry, FileFormat, FileSource, UnknownKey, native_dtype, reading, table_name
from closedform.files.shapes import variable_remedy
from closedform.rows.tensors import array_to_tensor
from closedform.words.errors import DataTypeError, SourceError

__all__ = ["MatlabFormat", "MatlabSource"]

_ERRORS = (OSError, ValueError, TypeError, KeyError, NotImplementedError, zlib.error, IndexError, OverflowError)
#: What MATLAB calls its classes of real numbers; integers are int8 ... uint64.
_NUMBERS = frozenset({"double", "single", "logical", *(f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64))})


@final
class MatlabFormat(FileFormat):
    """Variables of a ``.mat`` file; text, cells, structures and sparse matrices are no tables."""

    title = "MATLAB"
    suffixes = (".mat",)

    @override
    def entries(self, path: Path) -> dict[str, Entry]:
        from scipy.io import whosmat

        with reading(path, self.title, *_ERRORS):
            return {name: Entry(shape, kind, kind in _NUMBERS) for name, shape, kind in whosmat(path)}

    @override
    def open(self, path: Path, key: str, budget: int) -> FileSource:
        entries = self.entries(path)
        if key not in entries:
            raise UnknownKey(key)
        return MatlabSource(path, key, entries[key])


@final
class MatlabSource(FileSource):
    """One variable, which scipy only reads whole."""

    streams = False

    def __init__(self, path: Path, key: str, entry: Entry) -> None:
        self.name = table_name(path, key)
        if not entry.numeric:
            remedy = variable_remedy(key, entry.dtype)
            raise DataTypeError(
                f"{self.name} holds MATLAB's {entry.dtype} values, which are no table of numbers"
                f"{'.' if remedy is None else f'; {remedy}.'}"
            )
        self._path, self._key = path, key
        self.shape = entry.shape
        dtype = {"double": "float64", "single": "float32", "logical": "bool"}.get(entry.dtype, entry.dtype)
        self.dtype, self.notes = native_dtype(np.dtype(dtype), self.name)

    @override
    def read(self, start: int, stop: int) -> Tensor:
        from scipy.io import loadmat

        with reading(self._path, MatlabFormat.title, *_ERRORS):
            array: Any = loadmat(self._path, variable_names=[self._key])[self._key]
            if not isinstance(array, np.ndarray):
                raise SourceError(f"{self.name} is a sparse matrix; save full({self._key}).")
            if array.dtype.kind in "fiub":
                # MATLAB stores a matrix of whole numbers in fewer bytes than its class has.
                array = array.astype(str(self.dtype).removeprefix("torch."), copy=False)
        return array_to_tensor(array[start:stop], self.name)[0]
