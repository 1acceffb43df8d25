"""Tables in files: ``FILE`` or ``FILE::KEY``, whole where they fit, else by blocks of rows."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from closedform.files.columns import CsvFormat, ParquetFormat
from closedform.files.formats import FileFormat, UnknownKey, describe, key_error, sniff
from closedform.files.hdf5 import Hdf5Format
from closedform.files.memory import available_memory
from closedform.files.numpy_files import NpyFormat, NpzFormat
from closedform.files.tensor_files import PtFormat, SafetensorsFormat
from closedform.rows.source import Source
from closedform.rows.tensors import TensorSource
from closedform.words.errors import InputError, SourceError

__all__ = ["file_format", "list_keys", "open_source", "split_spec"]

FORMATS: tuple[FileFormat, ...] = (
    Hdf5Format(),
    NpyFormat(),
    NpzFormat(),
    SafetensorsFormat(),
    ParquetFormat(),
    CsvFormat(),
    PtFormat(),
)


def split_spec(spec: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """Split ``FILE::KEY`` into its file and its key; the key is None where only a file is given.

    Example:
        >>> path, key = split_spec("data.h5::kernels/train_kernel")
        >>> path.name, key
        ('data.h5', 'kernels/train_kernel')
    """
    text = os.fspath(spec)
    file, separator, key = text.partition("::")
    # A file that really is called so comes first.
    if not separator or os.path.exists(text):
        return Path(text), None
    return Path(file), key or None


def open_source(spec: str | os.PathLike[str], *, key: str | None = None, memory_share: float = 0.25) -> Source:
    """Open one table of a file.

    HDF5, .npy, .npz, .safetensors, Parquet, CSV/TSV and .pt files are read; nothing is ever unpickled.

    Args:
        spec: ``FILE`` or ``FILE::KEY``. The key of a Parquet or CSV file is a column or several: ``a,b``.
        key: The key, where ``spec`` does not hold it. May be left out where the file holds one table only.
        memory_share: The part of the available memory, 0 to 1, that this table may take. A smaller table
            is read whole; a larger one is read by blocks of rows and never whole.

    Returns:
        A source of shape ``(rows,)``, ``(rows, columns)`` or the shape in the file, in the dtype of the file.

    Raises:
        SourceError: the file is missing, damaged, of unknown kind or too large for its format, or the key
            is not in it.
        DataTypeError: the data set does not hold real numbers.
        InputError: ``memory_share`` is out of range, two keys are given, or a column has missing values.
        MissingExtraError: the package that reads this format is not installed.

    Example:
        >>> import tempfile, pathlib, numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "data.npz")
        ...     np.savez(file, X=np.eye(3), y=np.arange(3))
        ...     source = open_source(f"{file}::X")
        >>> source.shape, source.dtype, source.read(0, 1).tolist()
        ((3, 3), torch.float64, [[1.0, 0.0, 0.0]])
    """
    if not 0 <= memory_share <= 1:
        raise InputError(f"memory_share is {memory_share}; it is a part of the available memory, from 0 to 1.")
    path, spec_key = split_spec(spec)
    if spec_key is not None and key is not None:
        raise InputError(f"the key is given twice, in '{os.fspath(spec)}' and as key='{key}'; give it once.")
    form = file_format(path)
    wanted = spec_key if spec_key is not None else key
    budget = int(memory_share * available_memory())
    try:
        source = form.open(path, _only_key(form, path) if wanted is None else wanted, budget)
    except UnknownKey as error:
        raise key_error(path, str(error), form.entries(path)) from None
    if source.nbytes > budget and source.streams:
        return source
    if source.nbytes > budget:
        raise SourceError(
            f"{source.name} takes {source.nbytes / 1e9:.2f} GB, over the share of "
            f"{budget / 1e9:.2f} GB, and {form.title} cannot be read by row ranges; convert it to .npy or .h5."
        )
    tensor = source.read(0, source.shape[0])
    source.close()
    return TensorSource(tensor, source.name, source.notes)


def list_keys(path: str | os.PathLike[str]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return ``{key: (shape, dtype name)}`` of every data set of real numbers in a file.

    The key of a file that holds one unnamed table (.npy, or a bare tensor in .pt) is ``""``; the keys of
    Parquet and CSV files are the columns, each of shape ``(rows, 1)``.

    Raises:
        SourceError: the file is missing, damaged or of unknown kind.
        MissingExtraError: the package that reads this format is not installed.

    Example:
        >>> import tempfile, pathlib, numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "data.npz")
        ...     np.savez(file, X=np.eye(3), y=np.arange(3), note=np.array("hello"))
        ...     list_keys(file)
        {'X': ((3, 3), 'float64'), 'y': ((3,), 'int64')}
    """
    path = Path(path)
    entries = file_format(path).entries(path)
    return {key: (entry.shape, entry.dtype) for key, entry in entries.items() if entry.numeric}


def file_format(path: Path) -> FileFormat:
    """Return the format of a file by its ending, or by its first bytes where the ending is unknown.

    Raises:
        SourceError: it is not a file that can be read, or of none of the formats.
    """
    _check_file(path)
    suffix = path.suffix.lower()
    for form in FORMATS:
        if suffix in form.suffixes:
            return form
    found = sniff(path)
    for form in FORMATS:
        if form.title == found:
            return form
    supported = ", ".join(suffix for form in FORMATS for suffix in form.suffixes)
    if found == "pickle":
        raise SourceError(f"{path} is a Python pickle, which closedform never loads; save it as one of {supported}.")
    raise SourceError(f"{path} has the unknown ending '{path.suffix}'; convert it to one of {supported}.")


def _check_file(path: Path) -> None:
    try:
        kind = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise SourceError(f"{path} is a link to {os.readlink(path)}, where there is no file.") from None
        raise SourceError(f"there is no file {path}; check the path (looked in {Path.cwd()}).") from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    if stat.S_ISDIR(kind):
        raise SourceError(f"{path} is a directory; name a file in it.")
    if not stat.S_ISREG(kind):
        # A pipe would block until somebody writes to it, and none of the formats can be read in one go.
        raise SourceError(f"{path} is not a regular file (a pipe, socket or device); save the data to a file first.")
    try:
        with path.open("rb") as file:
            first = file.read(1)
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    if not first:
        raise SourceError(f"{path} is empty (0 bytes); write it again.")


def _only_key(form: FileFormat, path: Path) -> str:
    """Return the key of a file that holds one table, whose name therefore need not be given."""
    if form.columns:
        return ""
    entries = form.entries(path)
    numeric = [key for key, entry in entries.items() if entry.numeric and entry.shape]
    candidates = numeric or [key for key, entry in entries.items() if entry.shape]
    if len(candidates) != 1:
        number = f"{len(candidates)} tables" if candidates else "no table"
        raise SourceError(f"{path} holds {number}: {describe(entries)}. Name one as {path}::KEY.")
    return candidates[0]
