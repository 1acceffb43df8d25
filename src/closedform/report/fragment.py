"""Documents as a piece of HTML to set among other things: no page, no style and no script of its own."""

from __future__ import annotations

from html import escape

from closedform.report.document import Block, Code, Document, Entry, Facts, Notes, Paragraph, Section, Table
from closedform.report.text import TONES
from closedform.words.text import printable

__all__ = ["render_fragment"]


def render_fragment(document: Document) -> str:
    """Return a document as HTML without its charts; every text in it is escaped.

    Example:
        >>> render_fragment(Document("t", "", (Section("a < b", (Paragraph("c"),)),)))
        '<div class="closedform-fragment"><h4>a &lt; b</h4><p>c</p></div>'
    """
    sections = "".join(map(_section, (*document.lead, *document.sections)))
    return f'<div class="closedform-fragment">{sections}</div>'


def _section(section: Section) -> str:
    tone = f"{TONES[section.tone]}: " if section.tone in TONES else ""
    title = f"<h4>{_text(tone + section.title)}</h4>" if section.title else ""
    return title + "".join(map(_block, section.blocks))


def _block(block: Block) -> str:
    match block:
        case Paragraph():
            return f"<p>{_text(block.text)}</p>"
        case Facts():
            lines = "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in block.items)
            return f"<table>{lines}</table>"
        case Notes():
            return f"<ul>{''.join(f'<li>{_text(item)}</li>' for item in block.items)}</ul>"
        case Code():
            lines = "\n".join(map(_text, block.text.splitlines()))
            return f"<pre>{lines}</pre>"
        case Entry():
            title = f"{TONES.get(block.tone, block.tone)}: {block.title}"
            return f"<p><strong>{_text(title)}</strong><br>{_text(block.text)}</p>"
        case Table():
            return _table(block.wide())
        case _:  # charts, and what a reader moves or presses
            return ""


def _table(table: Table) -> str:
    head = "".join(f"<th>{_text(column.title)}</th>" for column in table.columns)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _text(text: str) -> str:
    return escape(printable(text))
