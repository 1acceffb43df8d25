"""Documents on a terminal of any width, by rich: what has no room beside the numbers stands below them."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from closedform.report.document import Block, Code, Document, Notes, Paragraph, Section, Table
from closedform.report.text import TONES
from closedform.words.text import printable

__all__ = ["print_document"]

#: From this width on the remarks fit beside the numbers; on a narrower screen they stand below the table.
_WIDE = 118
_COLOURS = {"error": "bold red", "warning": "bold yellow", "info": "bold blue", "ok": "bold green"}


def print_document(document: Document, console: Console) -> None:
    """Print a document without its charts, each section after a blank line."""
    if console.is_terminal:
        _print(document, console)
        return
    # Rich fills the lines of a table up with blanks, which are nothing but noise in a file.
    with console.capture() as capture:
        _print(document, console)
    console.file.write("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))


def _print(document: Document, console: Console) -> None:
    for section in (*document.lead, *document.sections):
        console.print()
        _section(section, console)
    console.print()


def _section(section: Section, console: Console) -> None:
    title = printable(section.title)
    if section.tone in TONES:
        console.print(Text(f"{TONES[section.tone]}: {title}", style=_COLOURS[section.tone]))
    elif title:
        console.print(Text(title if section.tone else f"{title}:", style="bold"))
    for block in section.blocks:
        _block(block, console)


def _block(block: Block, console: Console) -> None:
    match block:
        case Paragraph():
            console.print(Text(printable(block.text), style="dim" if block.quiet else ""))
        case Notes():
            for item in block.items:
                _hanging("-", item, console)
        case Code():
            for line in block.text.splitlines():
                console.print(Text(f"    {printable(line)}"), soft_wrap=True)
        case Table():
            _table(block, console)
        case _:  # what only a page shows
            return


def _hanging(mark: str, text: str, console: Console) -> None:
    grid = RichTable.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(mark), Text(printable(text)))
    console.print(grid)


def _table(table: Table, console: Console) -> None:
    if console.width >= _WIDE:
        console.print(_grid(table.wide()))
    elif _full_width(table, console) <= console.width:
        console.print(_grid(table))
        if table.remarks:
            console.print()
            console.print(Text(f"{table.remark_title}:", style="bold"))
            console.print(_remarks(table))
    else:
        _print_upright(table, console)


def _full_width(table: Table, console: Console) -> int:
    """Characters of a line where no cell is cut; a console on its own never measures more than its width."""
    unlimited = console.options.update(max_width=10_000)
    # Measured as a whole: the least width of a name of two words would be that of the longer word.
    return Measurement.get(console, unlimited, _grid(table)).maximum


def _grid(table: Table) -> RichTable:
    grid = RichTable(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in table.columns:
        if column.numeric or column is table.columns[0]:
            grid.add_column(column.title, justify="right" if column.numeric else "left", no_wrap=True)
        else:
            grid.add_column(column.title, overflow="fold", ratio=1)
    for index, row in enumerate(table.rows):
        grid.add_row(*(Text(printable(cell)) for cell in row), style=_style(table, index))
    return grid


def _remarks(table: Table) -> RichTable:
    remarks = RichTable(box=None, show_header=False, padding=(0, 2, 0, 0))
    remarks.add_column(no_wrap=True)
    remarks.add_column(overflow="fold")
    for row, remark in zip(table.rows, table.remarks, strict=True):
        remarks.add_row(Text(printable(row[0])), Text(printable(remark)))
    return remarks


def _print_upright(table: Table, console: Console) -> None:
    """Print a paragraph for each row, with a line for each number: no screen is too narrow for that."""
    titles = [column.title for column in table.columns[1:]]
    width = max(map(len, titles))
    remarks = table.remarks or [""] * len(table.rows)
    for index, (row, remark) in enumerate(zip(table.rows, remarks, strict=True)):
        console.print(Text(printable(row[0]), style=_style(table, index) or "bold"))
        for title, cell in zip(titles, row[1:], strict=True):
            console.print(Text(f"  {title:<{width}}  {printable(cell)}"))
        if remark:
            console.print(Text(f"  {printable(remark)}"))


def _style(table: Table, index: int) -> str:
    return "bold green" if table.emphasised(index) else ""
