"""Documents in a notebook: the page itself, in a frame of its own."""

from __future__ import annotations

from html import escape

from closedform.report.document import Document
from closedform.report.page import render_page
from closedform.words.text import printable

__all__ = ["render_cell"]

#: Height of the frame until its script has measured the page, and the largest it takes by itself, in CSS pixels.
_HEIGHT = 640


def render_cell(document: Document) -> str:
    """Return a page for the output of a notebook's cell.

    A frame keeps the style of the notebook out of the page, and that of the page out of the notebook. Its script
    fits the height to the page and takes light or dark from what the cell stands on. It may not navigate the
    notebook, open windows or send forms.

    Args:
        document: What to set; its data must be plain JSON.

    Raises:
        MissingExtraError: jinja2 is not installed.
        ValueError: a number in its data that is not finite, which JSON does not have.
    """
    page, title = escape(render_page(document)), escape(printable(document.title))
    style = f"width: 100%; height: {_HEIGHT}px; border: 0; resize: vertical; overflow: auto; color-scheme: auto"
    return (
        f'<iframe class="closedform-report" title="{title}" style="{style}" '
        f'sandbox="allow-scripts allow-same-origin allow-downloads" srcdoc="{page}"></iframe>'
    )
