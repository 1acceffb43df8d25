"""Documents as plain text, 80 columns wide or as wide as is asked for."""

from __future__ import annotations

import math
import textwrap

from closedform.report.document import Block, Code, Document, Entry, Facts, Notes, Paragraph, Section, Table
from closedform.words.text import printable

__all__ = ["TONES", "WIDTH", "render_text"]

#: Characters of a line where nothing else is said.
WIDTH = 80
#: Characters that a first column keeps when it is broken to fit; a table that leaves less is left as wide as it is.
_NARROWEST = 12
#: How the tone of a verdict is said in front of its title.
TONES = {"error": "ERROR", "warning": "WARNING", "info": "info", "ok": "OK"}


def render_text(document: Document, width: int | None = WIDTH) -> str:
    """Return a document as plain text, without its charts: sections with a blank line between them.

    Args:
        document: What to set.
        width: Characters of a line; None leaves lines as long as they are. Code is never broken, and of a table only
            what stands in its first column.
    """
    sections = [_section(section, width) for section in (*document.lead, *document.sections)]
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _section(section: Section, width: int | None) -> list[str]:
    title = printable(section.title)
    if section.tone in TONES:
        title = f"{TONES[section.tone]}: {title}"
    elif title and not section.tone:
        title = f"{title}:"
    lines = _wrapped(title, width) if title else []
    return lines + [line for block in section.blocks for line in _block(block, width)]


def _block(block: Block, width: int | None) -> list[str]:
    match block:
        case Paragraph():
            return _wrapped(printable(block.text), width)
        case Facts():
            return [line for name, value in block.items for line in _wrapped(printable(f"{name}: {value}"), width)]
        case Notes():
            return [line for item in block.items for line in _wrapped(f"- {printable(item)}", width, hanging=2)]
        case Code():
            return [f"    {printable(line.replace(chr(9), '    '))}" for line in block.text.splitlines()]
        case Table():
            return _table(block, width)
        case Entry():
            title = f"{TONES.get(block.tone, block.tone)}: {block.title}"
            return [line for text in (title, block.text) for line in _wrapped(printable(text), width)]
        case _:  # charts, and what a reader moves or presses
            return []


def _table(table: Table, width: int | None) -> list[str]:
    lines = _grid(table, width)
    if not table.remarks:
        return lines
    name_width = max(len(row[0]) for row in table.rows)
    lines += ["", f"{table.remark_title}:"]
    for row, remark in zip(table.rows, table.remarks, strict=True):
        lines += _wrapped(f"{row[0]:<{name_width}}  {printable(remark)}", width, hanging=name_width + 2)
    return lines


def _grid(table: Table, width: int | None) -> list[str]:
    titles = tuple(column.title for column in table.columns)
    rows = [tuple(map(printable, row)) for row in table.rows]
    widths = [max(len(row[index]) for row in (titles, *rows)) for index in range(len(titles))]

    room = math.inf if width is None else width - sum(widths[1:]) - 2 * len(widths[1:])
    if _NARROWEST <= room < widths[0]:
        names = [_wrapped(row[0], int(room), hanging=2) for row in rows]
        widths[0] = max(len(line) for lines in ([titles[0]], *names) for line in lines)
    else:
        names = [[row[0]] for row in rows]

    def line(cells: tuple[str, ...]) -> str:
        aligned = (
            cell.rjust(width) if column.numeric else cell.ljust(width)
            for cell, width, column in zip(cells, widths, table.columns, strict=True)
        )
        return "  ".join(aligned).rstrip()

    broken = [part for row, (name, *rest) in zip(rows, names, strict=True) for part in (line((name, *row[1:])), *rest)]
    return [line(titles), "  ".join("-" * width for width in widths), *broken]


def _wrapped(text: str, width: int | None, hanging: int = 0) -> list[str]:
    if width is None:
        return [text]
    return textwrap.wrap(text, width, subsequent_indent=" " * hanging, break_on_hyphens=False) or [""]
