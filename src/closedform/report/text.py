"""Plain text, at most 80 columns wide."""

from __future__ import annotations

import textwrap

from closedform.report.sections import Page, Table

__all__ = ["render_text"]

_WIDTH = 80


def render_text(page: Page) -> str:
    """Return the page as plain text: headline, table, remarks, footnotes."""
    table = page.table
    name_width = max(len(row[0]) for row in table.rows)
    remarks = [
        _wrap(f"{row[0]:<{name_width}}  {remark}", hanging=name_width + 2)
        for row, remark in zip(table.rows, table.remarks, strict=True)
    ]
    return "\n".join(
        [
            _wrap(page.headline),
            "",
            *_table_lines(table),
            "",
            f"{table.remark_title}:",
            *remarks,
            "",
            _wrap(page.caption),
            *(_wrap(footnote) for footnote in page.footnotes),
        ]
    )


def _wrap(text: str, hanging: int = 0) -> str:
    return textwrap.fill(text, _WIDTH, subsequent_indent=" " * hanging, break_on_hyphens=False)


def _table_lines(table: Table) -> list[str]:
    titles = tuple(column.title for column in table.columns)
    widths = [max(len(row[index]) for row in (titles, *table.rows)) for index in range(len(titles))]

    def line(cells: tuple[str, ...]) -> str:
        aligned = (
            cell.rjust(width) if column.numeric else cell.ljust(width)
            for cell, width, column in zip(cells, widths, table.columns, strict=True)
        )
        return "  ".join(aligned).rstrip()

    return [line(titles), "  ".join("-" * width for width in widths), *(line(row) for row in table.rows)]
