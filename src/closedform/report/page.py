"""Documents as one HTML page that needs nothing else: no network, no server, no Python."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from closedform.report.charts import WIDTH, Scale
from closedform.report.document import Document
from closedform.report.palette import stylesheet
from closedform.words.errors import MissingExtraError
from closedform.words.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["page_style", "render_page"]


def render_page(document: Document) -> str:
    """Return a document as a whole page, with style, script and numbers in it and every text escaped.

    Args:
        document: What to set; its data must be plain JSON.

    Raises:
        MissingExtraError: jinja2 is not installed.
        ValueError: a number in its data that is not finite, which JSON does not have.
    """
    return _environment().get_template("page.html").render(document=document)


def page_style() -> str:
    """Return the one style sheet of all pages, with the inks of the palette."""
    return f"{_static('report.css')}\n{stylesheet()}\n"


@cache
def _environment() -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise MissingExtraError("jinja2", "report", "An HTML report") from error
    environment = Environment(
        loader=PackageLoader("closedform.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        # Whatever is set into the page, names of files and columns included, is text that does not act.
        finalize=_finalize,
    )
    # Style and script are files of ours, and are set into the page as they stand.
    own = {name: Markup(_static(name)) for name in ("recurrence.js", "report.js")}
    environment.globals.update(width=WIDTH, axis=_axis, style=Markup(page_style()), static=own)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def _finalize(value: object) -> object:
    """Show the control characters of a text; markup of ours keeps its lines."""
    if type(value) is not str:
        return value
    return "\n".join(map(printable, value.split("\n")))


def _static(name: str) -> str:
    return files("closedform.report").joinpath("static", name).read_text(encoding="utf-8")


def _axis(scale: Scale) -> str:
    return json.dumps(vars(scale))
