"""HTML of a diagnosis: one page that needs nothing else, and a fragment for notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from closedform.report.diagnosis import diagnosis_page
from closedform.report.diagnosis_charts import MARKS
from closedform.report.html import render

__all__ = ["diagnosis_fragment", "diagnosis_html"]


def diagnosis_html(d: Mapping[str, Any]) -> str:
    """Return a whole page, with style, script and numbers in it: it opens offline and asks the network for nothing.

    Args:
        d: What ``Diagnosis.to_dict()`` returns: plain JSON values, numbers that are not finite as None.

    Raises:
        MissingExtraError: jinja2 is not installed.
        ValueError: a number that is not finite, which JSON does not have.

    Example:
        >>> import torch
        >>> from closedform.explain.entry import diagnose
        >>> d = diagnose(torch.eye(3).double(), torch.ones(3).double())
        >>> diagnosis_html(d.to_dict()).startswith("<!DOCTYPE html>")
        True
    """
    title = f"{d['verdict']['title']} · closedform diagnose"
    return render("page.html", title=title, page=diagnosis_page(d), comparison=None, data=_data(d))


def diagnosis_fragment(d: Mapping[str, Any]) -> str:
    """Return the verdict, the findings, two charts and the advice, without any script, for a notebook's cell.

    Args:
        d: What ``Diagnosis.to_dict()`` returns.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    return render("fragment.html", page=diagnosis_page(d, live=False))


def _data(d: Mapping[str, Any]) -> dict[str, Any]:
    return {"diagnosis": d, "marks": MARKS}
