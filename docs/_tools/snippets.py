"""The examples of the documentation: found in Markdown, and run page by page as a reader would type them.

A page starts with nothing but the files that ``prelude.py`` writes: what it uses, it defines where the reader sees it.
Its ``python`` blocks run in order in one namespace, and lines that begin with ``closedform`` in other blocks run as
commands. What a page needs beside, and no reader wants to see, stands in a comment ``<!-- python ... -->``; what that
prints becomes part of the page.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prelude import write_files

__all__ = ["Snippet", "pages", "run_page", "snippets"]

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$|^<!-- python\n(.*?)^-->$", re.DOTALL | re.MULTILINE)
_BUDGET = re.compile(r"budget=[\d.]+")
_MOMENT = "budget=0.2"
#: Blocks of these languages, and those that name none, hold lines for a shell.
_SHELL = frozenset(("", "console", "bash", "sh"))


@dataclass(frozen=True)
class Snippet:
    """One block: what is in it, in which line of the page it begins, and where its text begins and ends."""

    language: str
    code: str
    line: int
    start: int
    end: int
    hidden: bool = False

    @property
    def commands(self) -> list[list[str]]:
        """The lines for closedform's command line, as arguments."""
        if self.language not in _SHELL:
            return []
        lines = self.code.replace("\\\n", " ").splitlines()
        split = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines if "closedform" in line]
        return [words[1:] for words in split if words and words[0] == "closedform"]


def pages() -> list[Path]:
    """Return every page that a reader may take an example from."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def snippets(text: str) -> Iterator[Snippet]:
    """Yield the blocks of a page."""
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        hidden = found[3] is not None
        code = found[3] if hidden else found[2]
        yield Snippet("python" if hidden else found[1], code, line, found.start(), found.end(), hidden)


def run_page(path: Path, text: str, *, brief: bool, after: Callable[[Snippet, str], None] | None = None) -> None:
    """Run the examples of a page in a folder of their own.

    Args:
        path: The page, for messages.
        text: What stands on it.
        brief: As in the tests: commands run too, and comparisons, which take the time they are given, get a moment.
        after: Called after each block of Python with what it printed.

    Raises:
        RuntimeError: a block failed; the error says which.
    """
    blocks = list(snippets(text))
    if not any(block.language == "python" or block.commands for block in blocks):
        return
    names: dict[str, Any] = {"__name__": "__main__"}
    with _folder():
        write_files()
        for block in blocks:
            where = f"{path.name}, line {block.line}"
            if block.language == "python":
                printed = _run(replace(block, code=_BUDGET.sub(_MOMENT, block.code)) if brief else block, where, names)
                if after is not None:
                    after(block, printed)
            elif brief:
                for words in block.commands:
                    _command(words, where)


def _run(block: Snippet, where: str, names: dict[str, Any]) -> str:
    printed = io.StringIO()
    # Lines of a traceback are those of the page.
    code = compile("\n" * block.line + block.code, where, "exec", dont_inherit=True)
    try:
        with redirect_stdout(printed):
            exec(code, names)
    except Exception as error:
        raise RuntimeError(f"the example in {where} fails: {type(error).__name__}: {error}") from error
    return printed.getvalue()


def _command(words: list[str], where: str) -> None:
    """Run a command; status 1, which says that something is not certified or was found, is an answer as well.

    Raises:
        RuntimeError: it ended in another way.
    """
    from typer.testing import CliRunner

    from closedform.cli.app import app

    budget = [f"--{_MOMENT}"] if words[0] in ("compare", "demo") else []
    result = CliRunner().invoke(app, [*words, *budget])
    if result.exit_code not in (0, 1) or not isinstance(result.exception, SystemExit | None):
        raise RuntimeError(f"`closedform {shlex.join(words)}` in {where} ends with {result.exit_code}: {result.output}")


@contextmanager
def _folder() -> Iterator[None]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)
