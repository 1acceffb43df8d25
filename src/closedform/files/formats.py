"""The contract of a file format, and what all formats share: entries, keys and one-line errors.

To add a format, write one file with a :class:`FileFormat` and a :class:`FileSource`, and name the format in
the list of :mod:`closedform.files.recognition`.
"""

from __future__ import annotations

import difflib
import importlib
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from closedform.rows.source import Source
from closedform.rows.tensors import array_to_tensor
from closedform.words.errors import ClosedformError, MissingExtraError, SourceError
from closedform.words.text import printable

__all__ = [
    "LABEL",
    "PARAMETER",
    "Entry",
    "FileFormat",
    "FileSource",
    "UnknownKey",
    "describe",
    "import_extra",
    "key_error",
    "native_dtype",
    "reading",
    "rounding_note",
    "short_key",
    "sniff",
    "table_name",
]

#: Data sets that a message lists before it only counts.
_LISTED = 20
#: Keys among which a near match is looked for; it takes microseconds for each.
_COMPARED = 2000
#: Characters of a key that a message shows.
_SHOWN = 200
#: Integers beyond this are not all numbers of float64.
_LARGEST_EXACT = 2**53


#: The role of an entry that labels the rows: an index, a coordinate of a grid.
LABEL = "label"
#: The role of an entry that is a parameter of a layer.
PARAMETER = "parameter"


@final
@dataclass(frozen=True)
class Entry:
    """One data set of a file.

    Attributes:
        shape: Its shape.
        dtype: Its dtype by name.
        numeric: Whether it holds real numbers and can be read as one table.
        role: What the file itself says that this is for, where it is no data: :data:`LABEL` (an index, a coordinate)
            or :data:`PARAMETER` (of a layer); else empty.
        columns: The columns by name, each of shape ``(rows, width)``, where it is a table with named columns; such a
            table is read by ``KEY[NAME,NAME]``, and counts as numeric column by column.
    """

    shape: tuple[int, ...]
    dtype: str
    numeric: bool
    role: str = ""
    columns: Mapping[str, Entry] | None = None


@final
class UnknownKey(Exception):
    """Raised by a format that has no data set of this key; the door turns it into the error a user sees."""


class FileSource(Source, ABC):
    """A data set inside a file, read from the disk range by range.

    Attributes:
        streams: Whether a range of rows can be read without reading what stands before it. Where it cannot,
            the table is used only if it fits in memory.
    """

    device = torch.device("cpu")
    in_memory = False
    streams: bool = True

    @property
    def nbytes(self) -> int:
        """Bytes of the whole table once it is in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def close(self) -> None:
        """Let go of the file; a source that is collected closes itself, and reading again opens it again."""
        return

    def heed_rounding(self, values: np.ndarray[Any, Any], what: str, first_row: int) -> None:
        """Note integers that float64, which they are read into, cannot hold.

        Args:
            values: Rows of them, or of other numbers, of which nothing is noted.
            what: What they are called.
            first_row: The number of the first row.
        """
        note = rounding_note(values, what, first_row)
        if note is not None and not any(said.startswith(note.partition(",")[0]) for said in self.notes):
            self.notes = (*self.notes, note)


class FileFormat(ABC):
    """A file format: which files it claims, what a file holds, and how one data set is read.

    Attributes:
        title: The name of the format in messages.
        suffixes: The file endings it claims, lower case with the dot.
        columns: Whether the keys are the columns of one table, so that ``a,b`` is a key too.
    """

    title: str
    suffixes: tuple[str, ...]
    columns: bool = False

    @abstractmethod
    def entries(self, path: Path) -> dict[str, Entry]:
        """Return every data set of the file; the key of a file that holds one unnamed table is ``""``."""

    @abstractmethod
    def open(self, path: Path, key: str, budget: int) -> FileSource:
        """Return the data set ``key``; ``budget`` is the bytes of memory that one table may take.

        Raises:
            UnknownKey: the file has no such data set.
            SourceError: the file is damaged or the data set cannot be read.
            DataTypeError: the data set does not hold real numbers.
        """

    def words(self, path: Path, key: str) -> np.ndarray[Any, Any] | None:
        """Return a data set of words, ``(rows, ...)`` of strings and None where one is missing; None for numbers."""
        return None


def table_name(path: Path, key: str) -> str:
    """Return what the user calls a data set: ``FILE::KEY``, or ``FILE`` alone for an unnamed table."""
    return printable(f"{path}::{key}" if key else str(path))


def describe(entries: Mapping[str, Entry]) -> str:
    """Return the data sets with their shapes on one line.

    Example:
        >>> describe({"X": Entry((5, 2), "float32", True), "y": Entry((5,), "int64", True)})
        'X (5, 2) float32, y (5,) int64'
    """
    listed = [_described(key, entry) for key, entry in islice(entries.items(), _LISTED)]
    more = [f"and {len(entries) - _LISTED:,} more"] if len(entries) > _LISTED else []
    return ", ".join(listed + more) or "no data set at all"


def _described(key: str, entry: Entry) -> str:
    name = short_key(key) or "(unnamed)"
    if entry.columns is None:
        return f"{name} {entry.shape} {entry.dtype}"
    names = list(islice(entry.columns, _LISTED))
    more = ", ..." if len(entry.columns) > _LISTED else ""
    return f"{name} {entry.shape} with columns {', '.join(map(short_key, names))}{more}"


def short_key(key: str) -> str:
    """Return a key as one line of a message shows it: no control characters, and cut where it is very long."""
    shown = printable(key)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


def key_error(path: Path, key: str, entries: Mapping[str, Entry]) -> SourceError:
    """Return the error for a key that is not in the file: the near matches, and all there is."""
    known_keys = list(islice(entries, _COMPARED))
    by_lower = {known.lower(): known for known in known_keys if known}
    by_lower |= {known.rsplit("/", 1)[-1].lower(): known for known in known_keys if "/" in known}
    near = {by_lower[word] for word in difflib.get_close_matches(key.lower(), by_lower, n=3, cutoff=0.65)}
    hint = f" Did you mean {' or '.join(map(short_key, sorted(near)))}?" if near else ""
    return SourceError(f"{path} has no data set '{short_key(key)}'.{hint} It holds: {describe(entries)}.")


def import_extra(module: str, package: str, purpose: str) -> Any:
    """Import an optional dependency of the extra ``files``.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(package, "files", purpose) from error


def native_dtype(dtype: np.dtype[Any], name: str) -> tuple[torch.dtype, tuple[str, ...]]:
    """Return the dtype of the tensors that arrays of ``dtype`` become, and the notes on the cast.

    Raises:
        DataTypeError: complex, object, string, compound or other data that are not real numbers.
    """
    tensor, notes = array_to_tensor(np.empty(0, dtype), name)
    return tensor.dtype, notes


def rounding_note(values: np.ndarray[Any, Any], what: str, first_row: int = 0) -> str | None:
    """Return what is said of integers that float64 cannot hold, or None where there are none.

    Example:
        >>> rounding_note(np.array([1, 2**60]), "ids")
        'ids holds integers beyond 2**53, first in row 1 (counted from 0): float64 rounds them, so numbers ...'
    """
    if values.dtype.kind not in "iu" or values.dtype.itemsize < 8 or not values.size:
        return None
    if int(values.max()) <= _LARGEST_EXACT and int(values.min()) >= -_LARGEST_EXACT:
        return None
    large = (values > _LARGEST_EXACT) | (values < -_LARGEST_EXACT if values.dtype.kind == "i" else False)
    row = first_row + int(np.flatnonzero(large.reshape(len(values), -1).any(axis=1))[0])
    return (
        f"{what} holds integers beyond 2**53, first in row {row} (counted from 0): float64 rounds them, so numbers "
        "that differ may count as equal"
    )


@contextmanager
def reading(path: Path, title: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn the ``errors`` of a format's library into a one-line :class:`SourceError`.

    Raises:
        SourceError: one of the ``errors`` was raised within.
        ClosedformError: it was raised within, and says already what is wrong.
        UnknownKey: it was raised within, for a caller that knows the keys.
        MemoryError: it was raised within; that is no damage of the file.
    """
    try:
        yield
    except (ClosedformError, UnknownKey, MemoryError):
        raise
    except errors as error:
        if not _is_utf8(path):
            raise SourceError(
                f"{path} could not be read as {title}, whose reader opens only names that are UTF-8, and this one is "
                "not; rename the file."
            ) from error
        lines = str(error).splitlines() or [type(error).__name__]
        raise SourceError(
            f"{path} could not be read as {title}: {lines[0].rstrip('.')}. {_advice(path, title, lines[0])}"
        ) from error


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _advice(path: Path, title: str, reason: str) -> str:
    if title == "HDF5" and re.search(r"\b(plugins?|filter)\b", reason):
        return (
            "It is compressed by a filter that h5py does not bring along: install hdf5plugin, or write it again with "
            "compression='gzip'."
        )
    if title == "CSV" and re.search(r"Expected \d+ columns?, got", reason):
        return (
            "Its lines do not all have the same columns: take titles, units, sums and comments (other than those with "
            "#) out, and quote what holds a separator."
        )
    found = sniff(path)
    if found == "pickle":
        return "It is a Python pickle, which closedform never loads; save the arrays as .npy, .npz or .h5."
    if found is not None and found != title:
        return f"Its first bytes are those of {found}; give it the ending that belongs to that format."
    return "The file looks damaged or cut short; copy or write it again."


# The first bytes of a file that give its format away, whatever it is called.
_MAGIC = {
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"\x93NUMPY": ".npy",
    b"PK\x03\x04": "zip",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"MATLAB 5.0 MAT-file": "MATLAB",
    b"MATLAB 7.3 MAT-file": "HDF5",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "Excel",
    b"\x1f\x8b": "gzip",
    b"\x80\x02": "pickle",
    b"\x80\x03": "pickle",
    b"\x80\x04": "pickle",
    b"\x80\x05": "pickle",
}


def sniff(path: Path) -> str | None:
    """Return the title of the format that the first bytes of a file belong to, or None.

    A zip archive is ``.pt`` where it has a ``data.pkl`` (torch), else ``.npz``.

    Raises:
        SourceError: it belongs to a program whose files hold no plain tables (a spreadsheet, a Keras model), or it is
            an archive of other files.
    """
    import zipfile

    with path.open("rb") as file:
        head = file.read(20)
    found = next((title for magic, title in _MAGIC.items() if head.startswith(magic)), None)
    if found == "Excel":
        raise SourceError(f"{path} is an Excel workbook; save the sheet as .csv or .parquet.")
    if found != "zip":
        return found
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return None
    if "[Content_Types].xml" in names:
        raise SourceError(f"{path} is an Excel workbook; save the sheet as .csv or .parquet.")
    if "model.weights.h5" in names:
        raise SourceError(f"{path} is a Keras model, which holds the parameters of layers, not data.")
    if any(name.endswith("data.pkl") for name in names):
        return ".pt"
    if names and not any(name.endswith(".npy") for name in names):
        raise SourceError(f"{path} is a zip archive without arrays of NumPy; unpack it, and name a file of it.")
    return ".npz"
