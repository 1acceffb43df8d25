"""The contract of a file format, and what all formats share: entries, keys and one-line errors.

To add a format, write one file with a :class:`FileFormat` and a :class:`FileSource`, and name the format in
the list of :mod:`closedform.rows.files`.
"""

from __future__ import annotations

import difflib
import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from closedform.rows.source import Source
from closedform.rows.tensors import array_to_tensor
from closedform.words.errors import ClosedformError, MissingExtraError, SourceError

__all__ = [
    "Entry",
    "FileFormat",
    "FileSource",
    "UnknownKey",
    "describe",
    "import_extra",
    "key_error",
    "native_dtype",
    "reading",
    "sniff",
    "table_name",
]

_LISTED = 20


@dataclass(frozen=True)
class Entry:
    """One data set of a file: its shape, its dtype by name, and whether it holds real numbers."""

    shape: tuple[int, ...]
    dtype: str
    numeric: bool


class UnknownKey(Exception):
    """Raised by a format that has no data set of this key; the door turns it into the error a user sees."""


class FileSource(Source):
    """A data set inside a file, read from the disk range by range.

    Attributes:
        streams: Whether a range of rows can be read without reading what stands before it. Where it cannot,
            the table is used only if it fits in memory.
        nbytes: Bytes of the whole table once it is in memory.
    """

    device = torch.device("cpu")
    in_memory = False
    streams: bool = True

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def close(self) -> None:
        """Let go of the file; a source that is collected closes itself, and reading again opens it again."""
        return


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


def table_name(path: Path, key: str) -> str:
    """Return what the user calls a data set: ``FILE::KEY``, or ``FILE`` alone for an unnamed table."""
    return f"{path}::{key}" if key else str(path)


def describe(entries: Mapping[str, Entry]) -> str:
    """Return the data sets with their shapes on one line.

    Example:
        >>> describe({"X": Entry((5, 2), "float32", True), "y": Entry((5,), "int64", True)})
        'X (5, 2) float32, y (5,) int64'
    """
    words = [f"{key or '(unnamed)'} {entry.shape} {entry.dtype}" for key, entry in entries.items()]
    more = [f"and {len(words) - _LISTED} more"] if len(words) > _LISTED else []
    return ", ".join(words[:_LISTED] + more) or "no data set at all"


def key_error(path: Path, key: str, entries: Mapping[str, Entry]) -> SourceError:
    """Return the error for a key that is not in the file: the near matches, and all there is."""
    by_lower = {known.lower(): known for known in entries if known}
    by_lower |= {known.rsplit("/", 1)[-1].lower(): known for known in entries if "/" in known}
    near = {by_lower[word] for word in difflib.get_close_matches(key.lower(), by_lower, n=3, cutoff=0.65)}
    hint = f" Did you mean {' or '.join(sorted(near))}?" if near else ""
    return SourceError(f"{path} has no data set '{key}'.{hint} It holds: {describe(entries)}.")


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


@contextmanager
def reading(path: Path, title: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn the ``errors`` of a format's library into a one-line :class:`SourceError`."""
    try:
        yield
    except (ClosedformError, UnknownKey, MemoryError):
        raise
    except errors as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise SourceError(
            f"{path} could not be read as {title}: {lines[0].rstrip('.')}. {_advice(path, title)}"
        ) from error


def _advice(path: Path, title: str) -> str:
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
    b"\x80\x02": "pickle",
    b"\x80\x03": "pickle",
    b"\x80\x04": "pickle",
    b"\x80\x05": "pickle",
}


def sniff(path: Path) -> str | None:
    """Return the title of the format that the first bytes of a file belong to, or None.

    A zip archive is ``.pt`` where it has a ``data.pkl`` (torch), else ``.npz``.
    """
    import zipfile

    with path.open("rb") as file:
        head = file.read(8)
    found = next((title for magic, title in _MAGIC.items() if head.startswith(magic)), None)
    if found != "zip":
        return found
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return None
    return ".pt" if any(name.endswith("data.pkl") for name in names) else ".npz"
