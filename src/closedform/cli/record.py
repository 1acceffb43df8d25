"""What the JSON of every command begins with: how it was made, of what, and by which versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from closedform.cli.output import json_bytes
from closedform.cli.sources import data_hash
from closedform.files.specs import split_spec

if TYPE_CHECKING:
    import typer

    from closedform.cli.sources import Tables
    from closedform.rows.source import Source

__all__ = ["installed_versions", "json_record"]

#: Counted up whenever a key of the JSON is renamed, removed or changes its meaning.
_SCHEMA_VERSION = 1
#: Packages whose versions may decide a number.
_PACKAGES = ("closedform", "torch", "numpy", "scipy")
#: Parameters of commands that name files and are no options of the computation.
_FILES = frozenset({"file", "files", "x", "y", "x_test", "y_test", "weight", "out", "json", "html", "plot", "quiet"})


def installed_versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str | None]:
    """Return the versions of Python and of packages; None for one that is not installed.

    Example:
        >>> sorted(installed_versions(("torch", "no-such-package")))
        ['no-such-package', 'python', 'torch']
    """
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def json_record(
    context: typer.Context,
    results: Mapping[str, Any],
    *,
    tables: Tables | None = None,
    data: Sequence[Source] = (),
    keys: Mapping[str, str] | None = None,
) -> bytes:
    """Return the JSON of a command: how it was made, then its results, all at the top.

    Args:
        context: The command's context, with its options.
        results: What it found.
        tables: The tables it read, where it read any from files.
        data: What it read instead.
        keys: Which file or ``FILE::KEY`` is what, of data that are from files.
    """
    read = list(data) if tables is None else tables.all()
    named = {os.fspath(split_spec(spec)[0]): None for spec in (keys or {}).values()}
    files = list(named) if tables is None else tables.file.split("\n")
    return json_bytes(
        {
            "schema_version": _SCHEMA_VERSION,
            "command": context.info_name,
            "versions": installed_versions(),
            "file": files[0] if len(files) == 1 else files or None,
            "keys": keys or {} if tables is None else tables.keys,
            "options": {name: value for name, value in context.params.items() if name not in _FILES},
            # That of one part would be taken for that of the whole.
            "data_hash": data_hash(read) if tables is None or tables.parts == 1 else None,
            **results,
        }
    )
