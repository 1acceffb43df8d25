"""Tables in files: ``FILE`` or ``FILE::KEY``, whole where they fit, else by blocks of rows.

``FILE`` may be a pattern (``emb_*.npy``), a folder of Parquet files, or several paths with a line break between them:
one table whose rows are in many files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.engine.capacity import available_memory
from closedform.files.columns import ArrowFormat, ParquetFormat
from closedform.files.csv_files import CsvFormat, looks_like_table
from closedform.files.formats import Entry, FileFormat, FileSource, UnknownKey, describe, key_error, short_key, sniff
from closedform.files.hdf5 import Hdf5Format
from closedform.files.matlab import MatlabFormat
from closedform.files.numpy_files import NpyFormat, NpzFormat
from closedform.files.selection import RowsSource, SelectedSource, TransposedSource, column_positions, split_selection
from closedform.files.shards import (
    ShardedSource,
    find_shards,
    in_natural_order,
    is_pattern,
    missing_shards,
    partitions,
    tables_in_folder,
)
from closedform.files.tensor_files import PtFormat, SafetensorsFormat
from closedform.files.zarr_files import ZarrFormat, is_zarr
from closedform.rows.source import Source
from closedform.rows.tensors import TensorSource
from closedform.words.errors import InputError, SourceError
from closedform.words.text import printable

__all__ = [
    "file_format",
    "files_of",
    "join_files",
    "join_spec",
    "known_endings",
    "list_keys",
    "open_source",
    "split_spec",
]

FORMATS: tuple[FileFormat, ...] = (
    Hdf5Format(),
    NpyFormat(),
    NpzFormat(),
    SafetensorsFormat(),
    ParquetFormat(),
    ArrowFormat(),
    CsvFormat(),
    MatlabFormat(),
    ZarrFormat(),
    PtFormat(),
)
#: Between the paths of one table in many files; no name of a file holds it, but by malice.
_BETWEEN_FILES = "\n"
#: Integers beyond this are not all numbers of float64.
_LARGEST_EXACT = 2**53


def files_of(path: Path) -> list[Path]:
    """Return the files that the path of a spec stands for: of a pattern all that match, of several files all."""
    if os.path.exists(path):
        return [path]
    if _BETWEEN_FILES in str(path):
        return [Path(name) for name in str(path).split(_BETWEEN_FILES)]
    return [Path(name) for name in _matches(str(path))] if is_pattern(str(path)) else [path]


def known_endings() -> tuple[str, ...]:
    """Return the endings of all formats, lower case with the dot."""
    return tuple(suffix for form in FORMATS for suffix in form.suffixes)


def join_spec(path: Path, key: str) -> str:
    """Return ``FILE::KEY``, or ``FILE`` alone for an empty key: what :func:`split_spec` splits."""
    return f"{path}::{key}" if key else str(path)


def join_files(files: Sequence[str | os.PathLike[str]]) -> str:
    """Return one spec for a table whose rows are in several files, in this order.

    Files in alphabetical order, as a shell leaves them, are put in the order in which people count.

    Raises:
        SourceError: no file at all.

    Example:
        >>> join_files(["e_1.npy", "e_10.npy", "e_2.npy"]).split()
        ['e_1.npy', 'e_2.npy', 'e_10.npy']
    """
    names = [os.fspath(file) for file in files]
    if not names:
        raise SourceError("the list of files is empty; name at least one.")
    if names == sorted(names):
        names = [str(path) for path in in_natural_order([Path(name) for name in names])]
    return _BETWEEN_FILES.join(names)


def split_spec(spec: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """Split ``FILE::KEY`` into its file and its key; the key is None where only a file is given.

    A name of a file may hold ``::`` itself: the longest part that is a file comes first.

    Example:
        >>> path, key = split_spec("data.h5::kernels/train_kernel")
        >>> path.name, key
        ('data.h5', 'kernels/train_kernel')
    """
    text = os.fspath(spec)
    file, separator, key = text, "", ""
    while not _exists(file):
        file, separator, rest = file.rpartition("::")
        if not separator:
            # None of its parts is a file.
            file, separator, key = text.partition("::")
            return Path(file), (key or None) if separator else None
        key = f"{rest}::{key}" if key else rest
    return Path(file), key or None


def _exists(text: str) -> bool:
    if os.path.exists(text):
        return True
    if _BETWEEN_FILES in text:
        return all(map(os.path.exists, text.split(_BETWEEN_FILES)))
    return is_pattern(text) and any(True for _ in _matches(text))


def _matches(pattern: str) -> Iterator[str]:
    import glob

    return glob.iglob(pattern, recursive=True)


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
        source = _open(form, path, _only_key(form, path) if wanted is None else wanted, budget)
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


def _open(form: FileFormat, path: Path, key: str, budget: int) -> FileSource:
    """Open a key, or the columns ``KEY[COLUMNS]`` or the transpose ``KEY.T`` of one.

    Raises:
        UnknownKey: the file holds no such table, or the table no such columns.
    """
    try:
        return form.open(path, key, budget)
    except UnknownKey:
        selection = split_selection(key)
        if selection is not None and not form.columns:
            source = form.open(path, selection[0], budget)
            width = source.shape[1] if len(source.shape) == 2 else 0
            positions = column_positions(selection[1], width) if width else None
            if positions is None:
                raise
            return SelectedSource(source, positions, printable(join_spec(path, key)))
        if key.endswith(".T") and not form.columns:
            return TransposedSource(form.open(path, key.removesuffix(".T"), budget))
        raise


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
    table.columns = source.columns
    return table


def _rounding_notes(tensor: Tensor, name: str) -> tuple[str, ...]:
    """Say which integers float64 cannot hold."""
    if tensor.dtype != torch.int64 or not tensor.numel():
        return ()
    large = (tensor > _LARGEST_EXACT) | (tensor < -_LARGEST_EXACT)
    if not bool(large.any()):
        return ()
    row = int(large.reshape(len(tensor), -1).any(dim=1).nonzero()[0])
    return (
        f"{name} holds integers beyond 2**53, first in row {row} (counted from 0): float64 rounds them, so numbers "
        "that differ may count as equal",
    )


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


def file_format(path: Path) -> FileFormat:
    """Return the format of a file by its ending, or by its first bytes where the ending is unknown.

    Several files in one spec, a pattern or a folder of Parquet files have the format of their files.

    Raises:
        SourceError: it is not a file that can be read, or of none of the formats.
    """
    if not os.path.exists(path):
        if _BETWEEN_FILES in str(path):
            return _ShardedFormat([Path(name) for name in str(path).split(_BETWEEN_FILES)])
        if is_pattern(str(path)):
            return _ShardedFormat(find_shards(str(path)), found=True)
    elif path.is_dir():
        if is_zarr(path):
            return next(form for form in FORMATS if form.title == ZarrFormat.title)
        if tables := tables_in_folder(path):
            _refuse_partitions(path, tables)
            return _ShardedFormat(tables, found=True)

    _check_file(path)
    name = path.name.lower()
    found = sniff(path) if name.endswith(MatlabFormat.suffixes) else None
    for form in FORMATS:
        if name.endswith(form.suffixes) and found != Hdf5Format.title:
            return form

    found = sniff(path) if found is None else found
    for form in FORMATS:
        if form.title == found:
            return form

    if found is None and looks_like_table(path):
        return next(form for form in FORMATS if form.title == CsvFormat.title)

    supported = ", ".join(known_endings())
    if found == "pickle":
        raise SourceError(f"{path} is a Python pickle, which closedform never loads; save it as one of {supported}.")

    raise SourceError(f"{path} has the unknown ending '{path.suffix}'; convert it to one of {supported}.")


def _refuse_partitions(folder: Path, tables: list[Path]) -> None:
    """Refuse a folder whose table has columns that stand in the names of folders and in no file.

    Raises:
        SourceError: with the ways to read it.
    """
    named = partitions(folder, tables)
    if not named:
        return
    held = file_format(tables[0]).entries(tables[0])
    missing = [name for name in named if name not in held]
    if missing:
        columns = ", ".join(map(printable, missing))
        raise SourceError(
            f"{folder} is partitioned by {columns}, which stands in the names of its folders and in no file. Read it "
            f"whole with pyarrow.dataset.dataset({str(folder)!r}, partitioning='hive').to_table() and pass that, or "
            f"leave {columns} out with the pattern '{folder}/**/*{tables[0].suffix}'."
        )


@final
class _ShardedFormat(FileFormat):
    """Files of one format, whose tables of one key are the rows of one table.

    Args:
        paths: The files.
        found: Whether they were looked for, and not named one by one: then one may be missing.
    """

    suffixes = ()

    def __init__(self, paths: Sequence[Path], *, found: bool = False) -> None:
        self._paths, self._found = list(paths), found
        self._form = file_format(self._paths[0])
        self.title, self.columns = self._form.title, self._form.columns
        for path in self._paths[1:]:
            if file_format(path).title != self.title:
                raise SourceError(f"{self._paths[0]} is {self.title} and {path} is not; name files of one format.")

    @override
    def entries(self, path: Path) -> dict[str, Entry]:
        """Return the entries of the first file with the rows of all of them.

        Raises:
            InputError: the files have no table in common.
        """
        shards = [self._form.entries(shard) for shard in self._paths]
        found = {}
        for key, entry in shards[0].items():
            same = [shard[key] for shard in shards if key in shard]
            if len(same) == len(shards) and entry.shape and all(part.shape[1:] == entry.shape[1:] for part in same):
                rows = sum(part.shape[0] for part in same)
                found[key] = Entry((rows, *entry.shape[1:]), entry.dtype, entry.numeric, entry.role, entry.columns)
        if self.columns and found:
            found |= _partly_there(shards, found)
        if shards[0] and not found:
            odd = next(i for i, shard in enumerate(shards) if not _same_tables(shards[0], shard))
            raise InputError(
                f"{self._paths[0]} holds {describe(shards[0])}, and {self._paths[odd]} {describe(shards[odd])}; "
                "the files of one table have the same columns."
            )
        return found

    @override
    def open(self, path: Path, key: str, budget: int) -> FileSource:
        """Open all files; a table of named columns takes the names of the first.

        Raises:
            UnknownKey: no file has this table.
            InputError: some have it, and others do not.
        """
        sources: list[FileSource] = []
        for shard in self._paths:
            try:
                sources.append(_open(self._form, shard, key, budget))
            except UnknownKey as error:
                held = [other for other in self._paths if str(error) in self._form.entries(other)]
                if not held:
                    raise
                what = f"{'column' if self.columns else 'table'} {short_key(str(error))!r}"
                raise InputError(
                    f"{shard} has no {what}, which {held[0]} has; the files of one table have the same columns. "
                    "Name those that all have, or write it again."
                ) from None

        source = ShardedSource(sources, join_spec(path, key))
        missing = missing_shards(self._paths) if self._found else []
        if missing:
            shown = ", ".join(map(printable, missing[:4])) + (", ..." if len(missing) > 4 else "")
            are = "is" if len(missing) == 1 else "are"
            source.notes = (*source.notes, f"by the numbers of the files {shown} {are} missing")
        return source


def _partly_there(shards: list[dict[str, Entry]], found: dict[str, Entry]) -> dict[str, Entry]:
    """Return the columns that some files have and others lack, so that none is left out without a word.

    Who asks for all columns asks for these, and is told which file lacks one.
    """
    rows = next(iter(found.values())).shape[0]
    partly = {key: entry for shard in shards for key, entry in shard.items() if not all(key in each for each in shards)}
    return {key: replace(entry, shape=(rows, *entry.shape[1:])) for key, entry in partly.items()}


def _same_tables(first: dict[str, Entry], other: dict[str, Entry]) -> bool:
    """Whether two files hold a table of the same key and width."""
    return any(key in other and other[key].shape[1:] == entry.shape[1:] for key, entry in first.items())


def _check_file(path: Path) -> None:
    try:
        kind = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise SourceError(f"{path} is a link to {os.readlink(path)}, where there is no file.") from None
        raise SourceError(f"there is no file {path}; check the path (looked in {Path.cwd()}).") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise SourceError(f"{path} cannot be read ({getattr(error, 'strerror', error)}); check the path.") from error

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
