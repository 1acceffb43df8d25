"""Files a command writes: checked before anything is computed, written whole or not at all."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, final

from closedform.errors import InputError

__all__ = ["OutputFile", "json_bytes"]


@final
class OutputFile:
    """A path that can be written to.

    Args:
        path: Where to write; an existing file is replaced, a link is followed.
        option: The option it was given by, for messages.
        suffixes: The suffixes allowed; empty for any.

    Raises:
        InputError: another suffix, no such folder, a folder, or no permission.
    """

    def __init__(self, path: str, option: str, suffixes: tuple[str, ...] = ()) -> None:
        self.path = Path(path).expanduser().resolve()
        self.suffix = self.path.suffix.lower()
        self._option = option
        folder = self.path.parent
        if suffixes and self.suffix not in suffixes:
            raise InputError(
                f"{option} {path}: the suffix {self.suffix or '(none)'} is not known; use {', '.join(suffixes)}."
            )
        if not folder.is_dir():
            raise InputError(f"{option} {path}: there is no folder {folder}; make it first.")
        if self.path.is_dir():
            raise InputError(f"{option} {path}: this is a folder; give the name of a file.")
        if self.path.exists() and not self.path.is_file():
            raise InputError(f"{option} {path}: this is not a regular file; give the name of one.")
        # Asking the system is not enough: it answers yes to root for a file system that is read-only.
        self._temporary = folder / f".{self.path.name}.{os.getpid()}.part"
        if self.path.exists() and not os.access(self.path, os.W_OK):
            raise InputError(f"{option} {path}: the file is write-protected; choose another name.")
        try:
            self._temporary.touch()
            self._temporary.unlink()
        except OSError as error:
            raise InputError(f"{option} {path}: cannot write in {folder} ({error.strerror}).") from error

    def write(self, data: bytes) -> None:
        """Write all of ``data`` and only then put it in place.

        Raises:
            InputError: the disk is full, or the folder has gone since it was checked.
        """
        try:
            self._temporary.write_bytes(data)
            self._temporary.replace(self.path)
        except OSError as error:
            raise InputError(f"{self._option} {self.path}: writing failed ({error.strerror}).") from error
        finally:
            self._temporary.unlink(missing_ok=True)


def json_bytes(data: Any) -> bytes:
    """Return strict JSON: infinities and NaN, which JSON does not have, become null.

    Example:
        >>> json_bytes({"condition": float("inf"), "rank": 2})
        b'{\\n  "condition": null,\\n  "rank": 2\\n}\\n'
    """
    return (json.dumps(_strict(data), indent=2, allow_nan=False) + "\n").encode()


def _strict(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {key: _strict(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_strict(value) for value in data]
    return data
