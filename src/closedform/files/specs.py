"""How a table is named: ``FILE`` or ``FILE::KEY``, where FILE may be a pattern or several paths.

Several paths are one text with line breaks between them: one table whose rows are in many files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from closedform.files.shards import in_natural_order, is_pattern
from closedform.words.errors import SourceError

__all__ = ["BETWEEN_FILES", "files_of", "join_files", "join_spec", "split_spec"]

#: Between the paths of one table in many files; no name of a file holds it, but by malice.
BETWEEN_FILES = "\n"


def files_of(path: Path) -> list[Path]:
    """Return the files that the path of a spec stands for: of a pattern all that match, of several files all."""
    if os.path.exists(path):
        return [path]
    if BETWEEN_FILES in str(path):
        return [Path(name) for name in str(path).split(BETWEEN_FILES)]
    return [Path(name) for name in _matches(str(path))] if is_pattern(str(path)) else [path]


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
    return BETWEEN_FILES.join(names)


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
    if BETWEEN_FILES in text:
        return all(map(os.path.exists, text.split(BETWEEN_FILES)))
    return is_pattern(text) and any(True for _ in _matches(text))


def _matches(pattern: str) -> Iterator[str]:
    import glob

    return glob.iglob(pattern, recursive=True)
