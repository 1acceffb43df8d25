"""Which format a file has: by its ending, or by its first bytes where the ending is unknown."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
from typing_extensions import override

from closedform.files.arrow_files import ArrowFormat
from closedform.files.csv_files import CsvFormat, looks_like_table
from closedform.files.formats import Entry, FileFormat, FileSource, UnknownKey, describe, short_key, sniff
from closedform.files.hdf5 import Hdf5Format
from closedform.files.matlab import MatlabFormat
from closedform.files.numpy_files import NpyFormat, NpzFormat
from closedform.files.parquet_files import ParquetFormat
from closedform.files.selection import open_selected
from closedform.files.shards import (
    ShardedSource,
    find_shards,
    is_pattern,
    missing_shards,
    partitions,
    tables_in_folder,
)
from closedform.files.specs import BETWEEN_FILES, join_spec
from closedform.files.tensor_files import PtFormat, SafetensorsFormat
from closedform.files.zarr_files import ZarrFormat, is_zarr
from closedform.words.errors import InputError, SourceError
from closedform.words.text import printable

__all__ = ["FORMATS", "check_file", "file_format", "known_endings"]

#: All formats; to add one is one file and one line here.
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


def known_endings() -> tuple[str, ...]:
    """Return the endings of all formats, lower case with the dot."""
    return tuple(suffix for form in FORMATS for suffix in form.suffixes)


def file_format(path: Path) -> FileFormat:
    """Return the format of a file by its ending, or by its first bytes where the ending is unknown.

    Several files in one spec, a pattern or a folder of Parquet files have the format of their files.

    Raises:
        SourceError: it is not a file that can be read, or of none of the formats.
    """
    if not os.path.exists(path):
        if BETWEEN_FILES in str(path):
            return _ShardedFormat([Path(name) for name in str(path).split(BETWEEN_FILES)])
        if is_pattern(str(path)):
            return _ShardedFormat(find_shards(str(path)), found=True)
    elif path.is_dir():
        if is_zarr(path):
            return next(form for form in FORMATS if form.title == ZarrFormat.title)
        if tables := tables_in_folder(path):
            _refuse_partitions(path, tables)
            return _ShardedFormat(tables, found=True)

    check_file(path)
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
    def words(self, path: Path, key: str) -> np.ndarray[Any, Any] | None:
        parts = [self._form.words(shard, key) for shard in self._paths]
        found = [part for part in parts if part is not None]
        return np.concatenate(found) if len(found) == len(parts) else None

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
                sources.append(open_selected(self._form, shard, key, budget))
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


def check_file(path: Path) -> None:
    """Refuse what is no file with something in it, before it is opened: a pipe would block.

    Raises:
        SourceError: it is not there, no regular file, empty, or cannot be read.
    """
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
        # A pipe waits until somebody writes to it, and none of the formats can be read in one go.
        raise SourceError(f"{path} is not a regular file (a pipe, socket or device); save the data to a file first.")

    try:
        with path.open("rb") as file:
            first = file.read(1)
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error

    if not first:
        raise SourceError(f"{path} is empty (0 bytes); write it again.")
