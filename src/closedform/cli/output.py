"""Where a command writes: files, checked before anything is computed and written whole or not at all; the screen."""

from __future__ import annotations

import os
import sys
import tempfile
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import typer
from typing_extensions import override

from closedform.words.errors import InputError
from closedform.words.json_values import json_text
from closedform.words.text import printable

if TYPE_CHECKING:
    from closedform.fit.convex import ConvexSolution
    from closedform.fit.solution import Solution
    from closedform.report.document import Document

__all__ = [
    "Output",
    "OutputFile",
    "Screen",
    "StandardOutput",
    "json_bytes",
    "json_output",
    "print_wrapped",
    "refuse_overwriting",
    "write_weights",
]


class Output(ABC):
    """Something that a command writes bytes to, once."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Write all of ``data``.

        Raises:
            InputError: it cannot be written.
        """

    @abstractmethod
    def __str__(self) -> str:
        """What the user calls it."""


@final
class StandardOutput(Output):
    """The standard output, which then holds nothing else."""

    @override
    def write(self, data: bytes) -> None:
        # By way of the text stream, which whoever calls a command from Python may have replaced.
        sys.stdout.write(data.decode())

    def __str__(self) -> str:
        return "the standard output"


@final
class OutputFile(Output):
    """A path that can be written to.

    Args:
        path: Where to write; an existing file is replaced and keeps its permissions, a link is followed.
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
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a home that is not known, a zero byte
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
        if exists and not os.access(self.path, os.W_OK):
            raise InputError(f"{option} {path}: the file is write-protected; choose another name.")

        # Asking the system is not enough: it answers yes to root for a file system that is read-only.
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise InputError(f"{option} {path}: cannot write in {folder} ({error.strerror}).") from error

    def __str__(self) -> str:
        return f"{self._option} {self.path}"

    @override
    def write(self, data: bytes) -> None:
        """Write all of ``data`` and only then put it in place.

        Raises:
            InputError: the disk is full, or the folder has gone since it was checked.
        """
        from closedform.files.writing import write_whole

        try:
            write_whole(self.path, data, keep_links=True)
        except OSError as error:
            raise InputError(f"{self._option} {self.path}: writing failed ({error.strerror}).") from error


def json_output(path: str | None) -> Output | None:
    """Return where ``--json`` goes: a file, the standard output for ``-``, or None."""
    if path is None:
        return None
    return StandardOutput() if path == "-" else OutputFile(path, "--json")


def refuse_overwriting(inputs: Sequence[str | None], *outputs: Output | None) -> None:
    """Check, before anything is computed, that no output is one of the inputs or another output.

    Args:
        inputs: What the command reads, each ``FILE``, ``FILE::KEY``, a key alone, or None.
        outputs: What it writes.

    Raises:
        InputError: two of them are the same file, by whatever name.
    """
    from closedform.files.specs import files_of, split_spec

    read = [path for spec in inputs if spec is not None for path in files_of(split_spec(spec)[0])]
    written: list[OutputFile] = []
    for output in outputs:
        if not isinstance(output, OutputFile):
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


@final
@dataclass(frozen=True)
class Screen:
    """What a person sees of a command.

    Attributes:
        quiet: Whether to print nothing.
        json: Whether the standard output belongs to JSON, so that text goes to the standard error.
    """

    quiet: bool = False
    json: bool = False

    @classmethod
    def of(cls, quiet: bool, data: Output | None) -> Screen:
        """Return the screen of a command with ``--quiet`` and ``--json`` as given."""
        return cls(quiet, isinstance(data, StandardOutput))

    def say(self, text: str) -> None:
        """Print a result."""
        if not self.quiet:
            print_wrapped(text, err=self.json)

    def line(self, text: str = "") -> None:
        """Print a line of a result as it is."""
        if not self.quiet:
            typer.echo(text, err=self.json)

    def aside(self, text: str) -> None:
        """Print what is no result, such as what was chosen, on the standard error."""
        if not self.quiet:
            print_wrapped(text, err=True)

    def show(self, document: Document) -> None:
        """Print a report as wide as the terminal is."""
        if self.quiet:
            return
        from rich.console import Console

        from closedform.report.terminal import print_document

        print_document(document, Console(highlight=False, stderr=self.json))

    def write(self, output: Output, data: bytes) -> None:
        """Write to an output, and say where it went."""
        output.write(data)
        if isinstance(output, OutputFile):
            self.aside(f"wrote {printable(str(output.path))}")


def write_weights(solution: Solution | ConvexSolution, output: OutputFile, screen: Screen) -> None:
    """Write weights as safetensors, with the keys of ``nn.Linear``, and say where they went.

    Args:
        solution: The weights and how the fit ended.
        output: Where they go.
        screen: Where it is said.
    """
    from safetensors.torch import save

    tensors = {"weight": solution.weight.contiguous().cpu()}
    if solution.bias is not None:
        tensors["bias"] = solution.bias.contiguous().cpu()
    outcome = solution.outcome
    metadata = {"format": "pt", "outcome": outcome.name.lower(), "certified": str(solution.certified).lower()}
    screen.write(output, save(tensors, metadata=metadata))


def print_wrapped(text: str, *, err: bool = False) -> None:
    """Print text on stdout (or stderr), long lines wrapped between words, with what goes on set in."""
    from rich.console import Console

    width = Console(stderr=err).width
    for line in text.splitlines():
        wrapped = textwrap.fill(
            printable(line), width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        typer.echo(wrapped, err=err)


def json_bytes(data: Any) -> bytes:
    r"""Return strict JSON: infinities and NaN, which JSON does not have, become null.

    Example:
        >>> json_bytes({"condition": float("inf"), "rank": 2})
        b'{\n  "condition": null,\n  "rank": 2\n}\n'
    """
    return json_text(data).encode()
