"""A rich table for terminals, at any width from 80 columns."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from closedform.report.sections import Page

__all__ = ["print_page"]

# From this width on the remarks fit beside the numbers; on a narrower screen they stand below the table.
_WIDE = 118


def print_page(page: Page, console: Console) -> None:
    """Print the page: headline, table, remarks and footnotes."""
    table, wide = page.table, console.width >= _WIDE
    grid = RichTable(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in table.columns:
        grid.add_column(column.title, justify="right" if column.numeric else "left", no_wrap=True)
    if wide:
        grid.add_column(table.remark_title, overflow="fold", ratio=1)
    for index, (row, remark) in enumerate(zip(table.rows, table.remarks, strict=True)):
        cells = (*row, remark) if wide else row
        grid.add_row(*map(Text, cells), style="bold green" if index == table.emphasised_row else "")
    console.print()
    console.print(Text(page.headline, style="bold"))
    console.print()
    console.print(grid)
    console.print()
    if not wide:
        remarks = RichTable(box=None, show_header=False, padding=(0, 2, 0, 0))
        remarks.add_column(no_wrap=True)
        remarks.add_column(overflow="fold")
        for row, remark in zip(table.rows, table.remarks, strict=True):
            remarks.add_row(Text(row[0]), Text(remark))
        console.print(Text(f"{table.remark_title}:", style="bold"))
        console.print(remarks)
        console.print()
    console.print(Text("\n".join((page.caption, *page.footnotes)), style="dim"))
    console.print()
