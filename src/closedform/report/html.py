"""HTML: a fragment for notebooks, and a page that stands alone."""

from __future__ import annotations

from html import escape

from closedform.report.sections import Page

__all__ = ["render_html", "render_html_document"]


def render_html(page: Page) -> str:
    """Return the page as an HTML fragment; all text is escaped."""
    table = page.table
    heads = "".join(_cell("th", column.title, column.numeric) for column in table.columns)
    heads += _cell("th", table.remark_title, numeric=False)
    rows = []
    for index, (row, remark) in enumerate(zip(table.rows, table.remarks, strict=True)):
        cells = "".join(_cell("td", cell, column.numeric) for cell, column in zip(row, table.columns, strict=True))
        weight = " style='font-weight:bold'" if index == table.emphasised_row else ""
        rows.append(f"<tr{weight}>{cells}{_cell('td', remark, numeric=False)}</tr>")
    footnotes = "<br>".join(escape(text) for text in (page.caption, *page.footnotes))
    return (
        f"<p><strong>{escape(page.headline)}</strong></p>\n"
        f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody>\n</table>\n"
        f"<p><small>{footnotes}</small></p>"
    )


def render_html_document(page: Page, title: str, figure_svg: str = "") -> str:
    """Return a whole HTML document: the page, and below it a figure given as SVG markup."""
    return (
        "<!DOCTYPE html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        f"<title>{escape(title)}</title>\n"
        "<style>body{font-family:sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
        "table{border-collapse:collapse}th,td{padding:.2em .7em;border-bottom:1px solid #ddd}"
        "svg{max-width:100%;height:auto}</style>\n</head>\n<body>\n"
        f"{render_html(page)}\n{figure_svg}\n</body>\n</html>\n"
    )


def _cell(tag: str, text: str, numeric: bool) -> str:
    return f"<{tag} style='text-align:{'right' if numeric else 'left'}'>{escape(text)}</{tag}>"
