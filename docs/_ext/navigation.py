"""Give a page that stands in no list of contents a place among the guides, so that a new page needs no other change."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

_LIST = re.compile(r"```\{toctree\}\n(.*?)```", re.DOTALL)


def place(app: Sphinx, docname: str, source: list[str]) -> None:
    """List the pages that are listed nowhere else where the guide says ``%OTHERS%``."""
    if docname != "guide":
        return
    folder = Path(app.srcdir)
    listed = {"index"}
    for path in folder.glob("*.md"):
        for found in _LIST.finditer(path.read_text(encoding="utf-8")):
            listed.update(re.sub(r".*<(.*)>", r"\1", line).strip() for line in found[1].splitlines())
    others = sorted(path.stem for path in folder.glob("*.md") if path.stem not in listed)
    source[0] = source[0].replace("%OTHERS%", "\n".join(others))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("source-read", place, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
