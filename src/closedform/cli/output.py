"""Files a command writes: checked before anything is computed, written whole or not at all."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import typer

from closedform.words.errors import InputError
from closedform.words.json_values import json_text

__all__ = ["OutputFile", "json_bytes", "print_wrapped", "refuse_overwriting"]


@final
class OutputFile:
    """A path that can be written to.

    Args:
        path: Where to write; an existing file is replaced, a link is followed.
        option: The option it was given by, for messages.
        suffixes: The suffixes allowed; empty for any.

    Raises:
        InputError: another suffix, no such folder, a folder, a loop of links, a name too long, or no permission.
    """

    def __init__(self, path: str, option: str, suffixes: tuple[str, ...] = ()) -> None:
        try:
            self.path = Path(path).expanduser().resolve()
            # Unlike exists(), this tells a path that cannot be used from one where there is nothing yet.
            self.path.stat()
            exists = True
        except (FileNotFoundError, NotADirectoryError):
            exists = False
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, or a home folder that is not known
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"{option} {path}: this path cannot be used ({reason}).") from error
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
        if exists and not self.path.is_file():
            raise InputError(f"{option} {path}: this is not a regular file; give the name of one.")
        # Asking the system is not enough: it answers yes to root for a file system that is read-only.
        self._temporary = folder / f".closedform.{os.getpid()}.part"
        if exists and not os.access(self.path, os.W_OK):
            raise InputError(f"{option} {path}: the file is write-protected; choose another name.")
        try:
            self._temporary.touch()
            self._temporary.unlink()
        except OSError as error:
            raise InputError(f"{option} {path}: cannot write in {folder} ({error.strerror}).") from error

    def __str__(self) -> str:
        return f"{self._option} {self.path}"

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


def refuse_overwriting(inputs: Sequence[str | None], *outputs: OutputFile | None) -> None:
    """Check, before anything is computed, that no output is one of the inputs or another output.

    Args:
        inputs: What the command reads, each ``FILE``, ``FILE::KEY``, a key alone, or None.
        outputs: What it writes.

    Raises:
        InputError: two of them are the same file, by whatever name.
    """
    from closedform.files.opening import split_spec

    read = [split_spec(spec)[0] for spec in inputs if spec is not None]
    written: list[OutputFile] = []
    for output in outputs:
        if output is None:
            continue
        for path in read:
            if os.path.exists(path) and output.path.exists() and output.path.samefile(path):
                raise InputError(f"{output} is the file that is read ({path}); choose another name.")
        for other in written:
            if output.path == other.path or (
                output.path.exists() and other.path.exists() and output.path.samefile(other.path)
            ):
                raise InputError(f"{output} is the file of {other} too; choose another name for one of them.")
        written.append(output)


def print_wrapped(text: str, *, err: bool = False) -> None:
    """Print text on stdout (or stderr), long lines wrapped between words, with what goes on set in."""
    from rich.console import Console

    width = Console(stderr=err).width
    for line in text.splitlines():
        wrapped = textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        typer.echo(wrapped, err=err)


def json_bytes(data: Any) -> bytes:
    """Return strict JSON: infinities and NaN, which JSON does not have, become null.

    Example:
        >>> json_bytes({"condition": float("inf"), "rank": 2})
        b'{\\n  "condition": null,\\n  "rank": 2\\n}\\n'
    """
    return json_text(data).encode()
