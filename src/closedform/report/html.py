"""The one look of all HTML: templates, style and script, rendered with every text escaped."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from closedform.report.charts import WIDTH, Scale
from closedform.words.errors import MissingExtraError

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render"]


def render(template: str, **sections: Any) -> str:
    """Fill a template of ours.

    Args:
        template: Its file name.
        sections: What it sets. Whatever goes in as ``data`` must be plain JSON.

    Raises:
        MissingExtraError: jinja2 is not installed.
        ValueError: a number in ``data`` that is not finite, which JSON does not have.
    """
    return _environment().get_template(template).render(**sections)


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
    )
    # Style and script are files of ours, and are set into the page as they stand.
    own = {name: Markup(_static(name)) for name in ("report.css", "recurrence.js", "report.js")}
    environment.globals.update(width=WIDTH, axis=_axis, static=own)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def _static(name: str) -> str:
    return files("closedform.report").joinpath("static", name).read_text(encoding="utf-8")


def _axis(scale: Scale) -> str:
    return json.dumps(vars(scale))
