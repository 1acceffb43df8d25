"""How commands show a report: on the terminal, as wide as it is, and as files."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from closedform.cli.output import OutputFile
    from closedform.report import Report

__all__ = ["show", "write_page"]


def show(report: Report) -> None:
    """Print what fits a screen of the report on stdout."""
    from rich.console import Console

    from closedform.report.terminal import print_document

    print_document(report.summary(), Console(highlight=False))


def write_page(report: Report, output: OutputFile) -> None:
    """Write the report as a page."""
    from closedform.report.page import render_page

    output.write(render_page(report.page()).encode())
