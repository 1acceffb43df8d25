"""How commands show a report as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from closedform.cli.output import OutputFile, Screen
    from closedform.report.document import Document

__all__ = ["page_output", "write_page"]


def page_output(path: str | None) -> OutputFile | None:
    """Check the path of a page, and that it can be rendered, before anything is computed.

    Raises:
        InputError: a path of another ending, or in a folder that does not exist.
        MissingExtraError: jinja2 is not installed.
    """
    from importlib.util import find_spec

    from closedform.cli.output import OutputFile
    from closedform.words.errors import MissingExtraError

    if path is None:
        return None
    output = OutputFile(path, "--html", (".html", ".htm"))
    if find_spec("jinja2") is None:
        raise MissingExtraError("jinja2", "report", "--html")
    return output


def write_page(page: Document, output: OutputFile, screen: Screen) -> None:
    """Write a report as a page, and say where it went."""
    from closedform.report.page import render_page

    screen.write(output, render_page(page).encode())
