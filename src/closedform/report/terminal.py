"""A rich table for terminals, at any width: what has no room beside the numbers stands below them."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from closedform.report.sections import Page, Table

__all__ = ["print_page"]

# From this width on the remarks fit beside the numbers; on a narrower screen they stand below the table.
_WIDE = 118


def print_page(page: Page, console: Console) -> None:
    """Print the page: headline, table, remarks and footnotes."""
    if console.is_terminal:
        _print(page, console)
        return
    # Rich fills the lines of a table up with blanks, which are nothing but noise in a file.
    with console.capture() as capture:
        _print(page, console)
    console.file.write("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))


def _print(page: Page, console: Console) -> None:
    table = page.table
    console.print()
    console.print(Text(page.headline, style="bold"))
    console.print()
    if console.width >= _WIDE:
        console.print(_grid(table, with_remarks=True))
    elif _full_width(table, console) <= console.width:
        console.print(_grid(table, with_remarks=False))
        console.print()
        console.print(Text(f"{table.remark_title}:", style="bold"))
        console.print(_remarks(table))
    else:
        _print_upright(table, console)
    console.print()
    console.print(Text("\n".join((page.caption, *page.footnotes)), style="dim"))
    console.print()


def _full_width(table: Table, console: Console) -> int:
    """Characters of a line where no cell is cut; a console on its own never measures more than its width."""
    unlimited = console.options.update(max_width=10_000)
    # The minimum is no measure: it would break a name of two words, which the grid does not.
    return Measurement.get(console, unlimited, _grid(table, with_remarks=False)).maximum


def _grid(table: Table, *, with_remarks: bool) -> RichTable:
    grid = RichTable(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in table.columns:
        grid.add_column(column.title, justify="right" if column.numeric else "left", no_wrap=True)
    if with_remarks:
        grid.add_column(table.remark_title, overflow="fold", ratio=1)
    for index, (row, remark) in enumerate(zip(table.rows, table.remarks, strict=True)):
        cells = (*row, remark) if with_remarks else row
        grid.add_row(*map(Text, cells), style=_style(table, index))
    return grid


def _remarks(table: Table) -> RichTable:
    remarks = RichTable(box=None, show_header=False, padding=(0, 2, 0, 0))
    remarks.add_column(no_wrap=True)
    remarks.add_column(overflow="fold")
    for row, remark in zip(table.rows, table.remarks, strict=True):
        remarks.add_row(Text(row[0]), Text(remark))
    return remarks


def _print_upright(table: Table, console: Console) -> None:
    """Print a paragraph for each row, with a line for each number: no screen is too narrow for that."""
    titles = [column.title for column in table.columns[1:]]
    width = max(map(len, titles))
    for index, (row, remark) in enumerate(zip(table.rows, table.remarks, strict=True)):
        console.print(Text(row[0], style=_style(table, index) or "bold"))
        for title, cell in zip(titles, row[1:], strict=True):
            console.print(Text(f"  {title:<{width}}  {cell}"))
        console.print(Text(f"  {remark}"))


def _style(table: Table, index: int) -> str:
    return "bold green" if index == table.emphasised_row else ""
