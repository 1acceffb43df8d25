"""The tables that a command line names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from closedform.cli.output import print_wrapped
from closedform.rows import Source
from closedform.words.errors import InputError

__all__ = ["Tables", "open_tables"]


@final
@dataclass(frozen=True)
class Tables:
    """Opened tables: features and targets, test features and targets or None, weights or None."""

    X: Source
    Y: Source
    X_test: Source | None
    Y_test: Source | None
    weight: Source | None


def open_tables(
    file: str,
    *,
    x: str | None = None,
    y: str | None = None,
    x_test: str | None = None,
    y_test: str | None = None,
    weight: str | None = None,
) -> Tables:
    """Find the tables, say on stderr which ones they are, and open them.

    Args:
        file: ``FILE``, or ``FILE::KEY`` where KEY is the features.

    Raises:
        SourceError: a file or a key that is not there, or more than one reading of the file.
        InputError: the features are named twice.
    """
    from closedform.files.discovery import discover
    from closedform.files.opening import open_source, split_spec

    path, key = split_spec(file)
    if key is not None and x is not None:
        raise InputError(f"the features are named twice, by {file} and by --x {x}; drop one.")
    found = discover(path, x=key if x is None else x, y=y, x_test=x_test, y_test=y_test, weight=weight)
    print_wrapped(found.sentence, err=True)
    test = [None if spec is None else open_source(spec) for spec in (found.x_test, found.y_test, found.weight)]
    return Tables(open_source(found.x), open_source(found.y), *test)
