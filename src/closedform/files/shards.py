"""One table in many files: their rows one below the other."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from closedform.files.formats import FileSource
from closedform.rows.source import Source
from closedform.words.errors import InputError, SourceError
from closedform.words.text import printable

__all__ = [
    "ShardedSource",
    "find_shards",
    "in_natural_order",
    "is_pattern",
    "missing_beside",
    "missing_shards",
    "partitions",
    "tables_in_folder",
]

#: Endings of the tables that a folder may consist of.
_TABLES = (".parquet", ".pq")
#: A name with its own number, behind which there may stand how many there are.
_NUMBERED = re.compile(r"(.*?)(\d+)((?:-of-\d+)?\D*)")


def is_pattern(path: str) -> bool:
    """Return whether a path that names no file is a pattern such as ``emb_*.npy``."""
    return glob.has_magic(path) and not Path(path).exists()


def in_natural_order(paths: Sequence[Path]) -> list[Path]:
    """Return paths ordered as people count: ``emb_2`` before ``emb_10``.

    Example:
        >>> [path.name for path in in_natural_order([Path("e10.npy"), Path("e2.npy")])]
        ['e2.npy', 'e10.npy']
    """
    return sorted(paths, key=lambda path: [_rank(part) for part in re.split(r"(\d+)", str(path))])


def _rank(part: str) -> tuple[int, int, str]:
    return (1, int(part), "") if part.isascii() and part.isdigit() else (0, 0, part)


def find_shards(pattern: str) -> list[Path]:
    """Return the files of a pattern, in natural order.

    Raises:
        SourceError: there are none.
    """
    found = in_natural_order([Path(name) for name in glob.glob(pattern, recursive=True)])
    if not found:
        raise SourceError(f"no file matches {pattern} (looked in {Path.cwd()}).")
    return found


def missing_shards(paths: Sequence[Path]) -> list[str]:
    """Return the names that numbered files lack: a number between the others, or one up to ``-of-N``.

    Example:
        >>> missing_shards([Path("e_0.npy"), Path("e_1.npy"), Path("e_3.npy")])
        ['e_2.npy']
        >>> missing_shards([Path("part-00000-of-00002.parquet")])
        ['part-00001-of-00002.parquet']
        >>> missing_shards([Path("e_0.npy"), Path("e_100.npy"), Path("e_200.npy")])
        []
    """
    names = [_NUMBERED.fullmatch(path.name) for path in paths]
    found = [name for name in names if name is not None]
    if len(found) < len(paths) or len({(name[1], name[3]) for name in found}) != 1:
        return []
    before, written, after = found[0].groups()
    present = {int(name[2]) for name in found}
    total = re.match(r"-of-(\d+)", after)
    if total is None:
        expected = range(min(present), max(present) + 1)
        if len(expected) >= 2 * len(present):
            return []  # Numbers of rows or dates rather than of files.
    else:
        first = min(present & {0, 1}, default=0)
        expected = range(first, first + int(total[1]))
    return [f"{before}{number:0{len(written)}}{after}" for number in expected if number not in present]


def missing_beside(paths: Sequence[Path], others: Sequence[Path]) -> list[str]:
    """Return the names that numbered files lack by their own numbers, or by those of the files they belong to.

    Example:
        >>> missing_beside([Path("X_0.npy"), Path("X_1.npy")], [Path("Y_0.npy"), Path("Y_1.npy"), Path("Y_2.npy")])
        ['X_2.npy']
        >>> missing_beside([Path("X_0.npy"), Path("X_1.npy")], [Path("Y.npy")])
        []
    """
    missing = missing_shards(paths)
    own, beside = _numbers(paths), _numbers(others)
    if missing or len(own) < 2 or len(beside) < 2 or not own & beside:
        return missing
    match = _NUMBERED.fullmatch(paths[0].name)
    assert match is not None
    before, written, after = match.groups()
    return [f"{before}{number:0{len(written)}}{after}" for number in sorted(beside - own)]


def _numbers(paths: Sequence[Path]) -> set[int]:
    """Return the numbers of files that differ in nothing else; none where they do."""
    names = [_NUMBERED.fullmatch(path.name) for path in paths]
    found = [name for name in names if name is not None]
    if len(found) < len(paths) or len({(name[1], name[3]) for name in found}) != 1:
        return set()
    return {int(name[2]) for name in found}


def tables_in_folder(folder: Path) -> list[Path]:
    """Return the Parquet files of a folder and of the folders in it, in natural order; hidden ones are left out.

    Raises:
        SourceError: a folder in it cannot be read, so that tables might be missing.
    """

    def fail(error: OSError) -> None:
        raise SourceError(
            f"{folder} cannot be read whole: {error.filename} ({error.strerror}); check its permissions, or name the "
            "files of the table."
        ) from error

    found = []
    for place, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        paths = [Path(place, name) for name in names if not name.startswith((".", "_"))]
        found += [path for path in paths if path.suffix.lower() in _TABLES and path.is_file()]
    return in_natural_order(found)


def partitions(folder: Path, tables: Sequence[Path]) -> list[str]:
    """Return the columns that the folders of a partitioned table name, as in ``year=2020/part-0.parquet``.

    Example:
        >>> partitions(Path("data"), [Path("data/year=2020/month=1/a.parquet"), Path("data/b.parquet")])
        ['year', 'month']
    """
    parts = [part for table in tables for part in table.relative_to(folder).parent.parts]
    return list(dict.fromkeys(part.partition("=")[0] for part in parts if "=" in part))


@final
class ShardedSource(FileSource):
    """The rows of several tables, one below the other.

    Args:
        sources: Tables of one width.
        name: What the user calls the whole.

    Raises:
        InputError: the tables differ in width, in their columns or in dtypes that have no common one.
    """

    def __init__(self, sources: Sequence[Source], name: str) -> None:
        first = sources[0]
        for source in sources:
            if source.shape[1:] != first.shape[1:]:
                raise InputError(
                    f"{first.name} has rows of shape {first.shape[1:]} and {source.name} of {source.shape[1:]}; the "
                    "files of one table have the same columns."
                )

            names = (getattr(first, "columns", None), getattr(source, "columns", None))
            if names[0] != names[1]:
                raise InputError(f"{first.name} and {source.name} name their columns differently; use one order.")

        self.name = printable(name)
        self._sources = list(sources)
        self._starts = [0]
        self.dtype = first.dtype
        for source in sources:
            self._starts.append(self._starts[-1] + source.shape[0])
            self.dtype = torch.promote_types(self.dtype, source.dtype)

        self.shape = (self._starts[-1], *first.shape[1:])
        self.columns = getattr(first, "columns", None)
        own = f"{self.name} is {len(sources):,} files, read in this order: {_listed(sources)}"
        self.notes = (own, *dict.fromkeys(note for source in sources for note in source.notes))
        self.streams = all(source.streams for source in sources if isinstance(source, FileSource))

    @override
    def read(self, start: int, stop: int) -> Tensor:
        stop = min(stop, self.shape[0])
        parts = [torch.empty((0, *self.shape[1:]), dtype=self.dtype, device="cpu")]
        for source, first, end in zip(self._sources, self._starts, self._starts[1:], strict=False):
            if first < stop and end > start:
                parts.append(source.read(max(start - first, 0), min(stop, end) - first).to(self.dtype))
        return torch.cat(parts)

    @override
    def close(self) -> None:
        for source in self._sources:
            if isinstance(source, FileSource):
                source.close()


def _listed(sources: Sequence[Source]) -> str:
    names = [source.name for source in sources]
    return ", ".join(names if len(names) <= 4 else [*names[:2], "...", names[-1]])
