"""Run the examples of each page when the site is built, and set what they print and draw beneath them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).parents[1] / "_tools"))

from snippets import Snippet, run_page

_logger = logging.getLogger(__name__)
#: Links to what stands beside the folder of the documentation, and not on the site.
_OUTSIDE = re.compile(
    r"(\]\()(?:\.\./)+((?:CONTRIBUTING|README|SECURITY|LICENSE|CITATION|examples|benchmarks|src|tests|packaging)[^)]*\))"
)


def run_examples(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the output of each block of Python after it; a block that fails is a warning, which ends the build."""
    path = Path(app.env.doc2path(docname))
    if path.suffix != ".md":
        return
    text = _OUTSIDE.sub(rf"\1{app.config.repository}/blob/main/\2", source[0])
    parts: list[str] = []
    done = 0

    def after(block: Snippet, printed: str) -> None:
        nonlocal done
        if block.hidden:
            parts.append(text[done : block.start] + printed)
        else:
            parts.append(text[done : block.end] + _shown(app, docname, len(parts), printed))
        done = block.end

    try:
        run_page(path, text, brief=False, after=after)
    except RuntimeError as error:
        _logger.warning("%s", error, location=docname)
    source[0] = "".join(parts) + text[done:]


def _shown(app: Sphinx, docname: str, number: int, printed: str) -> str:
    shown = ""
    if printed.strip():
        shown += f"\n\n```{{code-block}} text\n:class: output\n\n{printed.rstrip()}\n```\n"
    return shown + "".join(f"\n\n![{alt}]({uri})\n" for uri, alt in _figures(app, f"{docname}-{number}"))


def _figures(app: Sphinx, name: str) -> list[tuple[str, str]]:
    """Save the figures that a block has drawn; what they show is said by their titles and labels."""
    if "matplotlib.pyplot" not in sys.modules:
        return []
    plt: Any = sys.modules["matplotlib.pyplot"]
    saved = []
    for number in plt.get_fignums():
        figure = plt.figure(number)
        file = Path(app.srcdir) / "_figures" / f"{name.replace('/', '-')}-{number}.svg"
        file.parent.mkdir(exist_ok=True)
        figure.savefig(file, bbox_inches="tight")
        saved.append((f"/_figures/{file.name}", " ".join(_words(figure).split()).replace("]", "").replace("[", "")))
    plt.close("all")
    return saved


def _words(figure: Any) -> str:
    words = [figure.get_suptitle()]
    for ax in figure.axes:
        labels = [line.get_label() for line in ax.get_lines() if not line.get_label().startswith("_")]
        named = f" ({', '.join(labels)})" if labels else ""
        words.append(f"{ax.get_title()}: {ax.get_ylabel()} by {ax.get_xlabel()}{named}")
    return "; ".join(word for word in words if word)


def let_wide_pictures_move(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Let the first page's picture, which is wider than a phone, take the focus, so that keys can move it too."""
    if page == "index" and "body" in context:
        context["body"] = re.sub(r"<p>(?=<img )", '<p class="wide" tabindex="0">', context["body"])


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_config_value("repository", "", "env")
    app.connect("source-read", run_examples)
    app.connect("html-page-context", let_wide_pictures_move)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
