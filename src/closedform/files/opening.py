"""Tables in files: ``FILE`` or ``FILE::KEY``, whole where they fit, else by blocks of rows.

``FILE`` may be a pattern (``emb_*.npy``), a folder of Parquet files, or several paths with a line break between them:
one table whose rows are in many files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from closedform.engine.capacity import available_memory
from closedform.files.formats import FileFormat, FileSource, UnknownKey, describe, key_error, rounding_note
from closedform.files.recognition import file_format
from closedform.files.selection import RowsSource, open_selected
from closedform.files.specs import split_spec
from closedform.rows.source import Source
from closedform.rows.tensors import TensorSource
from closedform.words.errors import InputError, SourceError

__all__ = ["list_keys", "open_source", "read_words"]


def open_source(
    spec: str | os.PathLike[str],
    *,
    key: str | None = None,
    memory_share: float = 0.25,
    part: tuple[int, int] = (0, 1),
) -> Source:
    """Open one table of a file.

    HDF5 (pandas' and AnnData's too), .npy, .npz, .safetensors, Parquet, Arrow, CSV and its relatives, MATLAB, Zarr and
    .pt files are read; nothing is ever unpickled.

    Args:
        spec: ``FILE`` or ``FILE::KEY``. The key of a Parquet, Arrow or CSV file is a column or several: ``a,b``; of
            any other table ``KEY[COLUMNS]`` are some columns (``X[-1]``, ``X[0:3,5]``, ``df[a,b]``) and ``KEY.T`` is
            the table transposed. FILE may be a pattern (``emb_*.npy``) or a folder of Parquet files.
        key: The key, where ``spec`` does not hold it. May be left out where the file holds one table only.
        memory_share: The part of the available memory, 0 to 1, that this table may take. A smaller table
            is read whole; a larger one is read by blocks of rows and never whole.
        part: Which of how many parts of its rows, as equal as can be: ``(0, 4)`` is the first quarter. Of a table in
            many files only those are read that hold it.

    Returns:
        A source of shape ``(rows,)``, ``(rows, columns)`` or the shape in the file, in the dtype of the file.

    Raises:
        SourceError: the file is missing, damaged, of unknown kind or too large for its format, or the key
            is not in it.
        DataTypeError: the data set does not hold real numbers.
        InputError: ``memory_share`` or ``part`` is out of range, two keys are given, or a column has missing values.
        MissingExtraError: the package that reads this format is not installed.

    Example:
        >>> import tempfile, pathlib, numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "data.npz")
        ...     np.savez(file, X=np.eye(3), y=np.arange(3))
        ...     source = open_source(f"{file}::X")
        >>> source.shape, source.dtype, source.read(0, 1).tolist()
        ((3, 3), torch.float64, [[1.0, 0.0, 0.0]])
    """  # noqa: DOC501  # key_error makes a SourceError
    if not 0 <= memory_share <= 1:
        raise InputError(f"memory_share is {memory_share}; it is a part of the available memory, from 0 to 1.")

    number, parts = part
    if not 0 <= number < parts:
        raise InputError(f"part is {part}; the first of four parts is (0, 4), the last (3, 4).")

    path, spec_key = split_spec(spec)
    if spec_key is not None and key is not None:
        raise InputError(f"the key is given twice, in '{os.fspath(spec)}' and as key='{key}'; give it once.")

    form = file_format(path)
    wanted = spec_key if spec_key is not None else key
    budget = int(memory_share * available_memory())
    try:
        source = open_selected(form, path, _only_key(form, path) if wanted is None else wanted, budget)
    except UnknownKey as error:
        raise key_error(path, str(error), form.entries(path)) from None

    if parts > 1:
        n_rows = source.shape[0]
        source = RowsSource(source, n_rows * number // parts, n_rows * (number + 1) // parts)

    if source.nbytes > budget and source.streams:
        return source

    if source.nbytes > budget:
        raise SourceError(
            f"{source.name} takes {source.nbytes / 1e9:.2f} GB, over the share of "
            f"{budget / 1e9:.2f} GB, and {form.title} cannot be read by row ranges; convert it to .npy or .h5."
        )

    return _in_memory(source)


def read_words(spec: str | os.PathLike[str]) -> np.ndarray[Any, Any] | None:
    """Read one table of a file that holds words, such as the names of classes; None where it holds numbers.

    Args:
        spec: As for :func:`open_source`.

    Returns:
        The words, ``(rows,)``: strings, or objects where some are missing (None).

    Raises:
        SourceError: the file is missing, damaged or of unknown kind, or has several columns and none is named.

    Example:
        >>> import tempfile, pathlib, numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "names.npy")
        ...     np.save(file, ["cat", "dog"])
        ...     read_words(file).tolist()
        ['cat', 'dog']
    """
    path, key = split_spec(spec)
    form = file_format(path)
    if key is None:
        entries = form.entries(path)
        names = [name for name, entry in entries.items() if not entry.role]
        if form.columns and len(names) > 1:
            raise SourceError(f"{path} holds {describe(entries)}; name the column: {path}::COLUMN.")
        key = names[0] if len(names) == 1 else ""
    return form.words(path, key)


def _in_memory(source: FileSource) -> Source:
    """Read a table whole.

    Raises:
        SourceError: the memory does not suffice after all.
        RuntimeError: reading failed for another reason than memory.
    """  # noqa: DOC501  # a MemoryError is never passed on
    try:
        tensor = source.read(0, source.shape[0])
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        raise SourceError(
            f"{source.name} takes {source.nbytes / 1e9:.2f} GB, and {available_memory() / 1e9:.2f} GB are left; "
            "convert it to .npy or .h5, which are read by blocks of rows."
        ) from error
    finally:
        source.close()
    table = TensorSource(tensor, source.name, (*source.notes, *_rounding_notes(tensor, source.name)))
    table.columns, table.row_labels = source.columns, source.row_labels
    return table


def _rounding_notes(tensor: Tensor, name: str) -> tuple[str, ...]:
    """Say which integers float64 cannot hold."""
    note = rounding_note(tensor.numpy(), name) if tensor.dtype == torch.int64 else None
    return () if note is None else (note,)


def list_keys(path: str | os.PathLike[str]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return ``{key: (shape, dtype name)}`` of every data set of real numbers in a file.

    The key of a file that holds one unnamed table (.npy, or a bare tensor in .pt) is ``""``; the keys of
    Parquet and CSV files are the columns, each of shape ``(rows, 1)``; those of a table with named columns inside
    another file are ``KEY[NAME]``.

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
    found = {}
    for key, entry in entries.items():
        if entry.numeric:
            found[key] = (entry.shape, entry.dtype)
        for name, column in (entry.columns or {}).items():
            if column.numeric:
                found[f"{key}[{name}]"] = (column.shape, column.dtype)
    return found


def _only_key(form: FileFormat, path: Path) -> str:
    """Return the key of a file that holds one table, whose name therefore need not be given.

    Raises:
        SourceError: it holds several tables, or none.
    """
    if form.columns:
        return ""
    entries = form.entries(path)
    readable = [key for key, entry in entries.items() if (entry.numeric or entry.columns) and entry.shape]
    candidates = readable or [key for key, entry in entries.items() if entry.shape]
    if len(candidates) != 1:
        number = f"{len(candidates)} tables" if candidates else "no table"
        raise SourceError(f"{path} holds {number}: {describe(entries)}. Name one as {path}::KEY.")
    return candidates[0]
