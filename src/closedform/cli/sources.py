"""The tables that a command line names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from closedform.words.errors import InputError

if TYPE_CHECKING:
    from closedform.cli.output import Screen
    from closedform.cli.processes import Job
    from closedform.rows.source import Source

__all__ = ["Tables", "data_hash", "named_files", "open_tables"]

#: Bytes of a table that are read at a time to be hashed.
_HASHED = 1 << 24
#: Share of the memory that a table may take, to be read whole.
_SHARE = 0.25


@final
@dataclass(frozen=True)
class Tables:
    """Opened tables: features and targets, test features and targets or None, weights or None.

    Attributes:
        file: What the user named.
        keys: Which table is what, by ``FILE::KEY``: X, Y, X_test, Y_test, weight; None where there is none.
        options: The options that name these tables on a command line, as the user would type them.
        parts: Into how many parts of rows the tables to fit were cut, of which these are one.
    """

    X: Source
    Y: Source
    X_test: Source | None
    Y_test: Source | None
    weight: Source | None
    file: str
    keys: dict[str, str | None]
    options: tuple[str, ...]
    parts: int = 1

    def all(self) -> list[Source]:
        """Return the tables there are."""
        return [table for table in (self.X, self.Y, self.X_test, self.Y_test, self.weight) if table is not None]


def named_files(files: Sequence[str]) -> str:
    """Return one spec for the files of a command line, which are the rows of one table where there are several."""
    from closedform.files.specs import join_files

    return files[0] if len(files) == 1 else join_files(files)


def open_tables(
    file: str,
    screen: Screen,
    *,
    x: str | None = None,
    y: str | None = None,
    x_test: str | None = None,
    y_test: str | None = None,
    weight: str | None = None,
    test_rows: bool = True,
    job: Job | None = None,
) -> Tables:
    """Find the tables, say on stderr which ones they are, and open them.

    Args:
        file: ``FILE``, or ``FILE::KEY`` where KEY is the features.
        screen: Where it is said.
        x: The key of the features, and so on.
        y: The key of the targets.
        x_test: The key of the test features.
        y_test: The key of the test targets.
        weight: The key of the sample weights.
        test_rows: Whether the command has a use for test rows.
        job: The processes of which each reads its part of the rows to fit; None for one.

    Raises:
        SourceError: a file or a key that is not there, or more than one reading of the file.
        InputError: the features are named twice.
    """
    from closedform.files import parsed_once
    from closedform.files.discovery import discover
    from closedform.files.opening import open_source
    from closedform.files.paths import check_memory
    from closedform.files.specs import split_spec

    path, key = split_spec(file)
    if key is not None and x is not None:
        raise InputError(f"the features are named twice, by {file} and by --x {x}; drop one.")
    x = key if x is None else x
    part = (0, 1) if job is None else (job.rank, job.size)
    share = _SHARE if job is None else _SHARE / job.neighbours

    def opened(spec: str, part: tuple[int, int] = (0, 1)) -> Source:
        return open_source(spec, memory_share=share, part=part)

    with parsed_once():
        found = discover(path, x=x, y=y, x_test=x_test, y_test=y_test, weight=weight, test_rows=test_rows)
        screen.aside(found.sentence)

        X, Y = opened(found.x, part), opened(found.y, part)
        _check_features(X, Y, found.x, found.y)
        if found.x == found.y:
            screen.aside("The targets are the features themselves: another table is named by --y.")
        if part == (0, 1):
            check_memory(X)
        X_test, Y_test = (None if spec is None else opened(spec) for spec in (found.x_test, found.y_test))
        row_weight = None if found.weight is None else opened(found.weight, part)

    keys = {"X": found.x, "Y": found.y, "X_test": found.x_test, "Y_test": found.y_test, "weight": found.weight}
    options = (("--x", x), ("--y", y), ("--weight", weight))
    typed = tuple(word for option, value in options if value is not None for word in (option, value))
    return Tables(
        X=X,
        Y=Y,
        X_test=X_test,
        Y_test=Y_test,
        weight=row_weight,
        file=str(path),
        keys=keys,
        options=typed,
        parts=part[1],
    )


def _check_features(X: Source, Y: Source, x: str, y: str) -> None:
    """Refuse a single column of numbers as features, in the words of a command line.

    Raises:
        InputError: it is one.
    """
    if len(X.shape) != 1:
        return
    if len(Y.shape) == 2:
        raise InputError(
            f"the features, {x}, are one column of {X.shape[0]:,} numbers, and the targets, {y}, a table of shape "
            f"{tuple(Y.shape)}: exchange --x and --y if they were mixed up."
        )
    raise InputError(
        f"the features, {x}, have shape {tuple(X.shape)}, and features are a table of rows and columns: save a single "
        f"one as a column, of shape ({X.shape[0]}, 1)."
    )


def data_hash(tables: Sequence[Source]) -> str:
    """Return a hash of the numbers of some tables: equal for equal numbers in equal dtypes, wherever they are from.

    Example:
        >>> import torch
        >>> from closedform.rows.tensors import TensorSource
        >>> data_hash([TensorSource(torch.ones(2, 2), "X")])[:21]
        'sha256:158e021546f34c'
    """
    import torch

    digest = hashlib.sha256()
    for table in tables:
        digest.update(f"{tuple(table.shape)} {table.dtype}".encode())
        width = max(1, torch.Size(table.shape[1:]).numel() * table.dtype.itemsize)
        step = max(1, _HASHED // width)
        for start in range(0, table.shape[0], step):
            block = table.read(start, min(start + step, table.shape[0])).contiguous().cpu()
            digest.update(block.reshape(-1).view(torch.uint8).numpy().data)
    return f"sha256:{digest.hexdigest()}"
