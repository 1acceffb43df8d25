"""A diagnosis as text for a terminal: the verdict first, 80 columns."""

from __future__ import annotations

import textwrap
from typing import Any

__all__ = ["WIDTH", "diagnosis_text"]

WIDTH = 80
_MARKS = {"error": "ERROR", "warning": "WARNING", "info": "info", "ok": "OK"}
# Findings after the first are one line each; so many fit a screen beside the rest.
_LINES = 6


def diagnosis_text(d: dict[str, Any], width: int | None = WIDTH) -> str:
    """Format the dictionary of a diagnosis; it decides nothing but line breaks.

    Args:
        d: What ``Diagnosis.to_dict()`` returns.
        width: Characters of a line; None leaves lines as long as they are. Code is never broken.
    """
    verdict = d["verdict"]
    lines = [f"{_MARKS[verdict['severity']]}: {verdict['title']}"]
    lines += [verdict["sentence"], ""]
    lines += [d["problem"]["text"], d["text"]["spectrum"], d["text"]["limits"]]
    rest = [f for f in d["findings"] if f["name"] != verdict["name"]]
    if rest:
        lines += ["", "Also found:"]
        lines += [f"- {_MARKS[f['severity']]}: {f['title']}" for f in rest[:_LINES]]
        if len(rest) > _LINES:
            lines.append(f"- and {len(rest) - _LINES} more in .findings")
    lines += [f"note: {note}" for note in d["notes"]]
    remedy = d["findings"][0]["remedy"] if d["findings"] and d["findings"][0]["name"] == verdict["name"] else ""
    text = lines if width is None else [part for line in lines for part in _wrapped(line, width)]
    if remedy:
        text += ["", "What to do:", *(f"    {line}" for line in remedy.splitlines())]
    return "\n".join(text)


def _wrapped(line: str, width: int) -> list[str]:
    indent = "  " if line.startswith("- ") else ""
    return textwrap.wrap(line, width, subsequent_indent=indent, break_on_hyphens=False) or [""]
